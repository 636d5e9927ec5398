"""PushButton: press a round spring-loaded button on a pedestal downwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.observations import Array, Snapshot, Term
from dexcompose_envs.skills.base import InteractionSkill, Things
from dexcompose_envs.skills.expert import Expert, Pace, seen_from_palm
from dexcompose_envs.skills.parts import FIXTURE_COLLISION, add_geom
from dexcompose_envs.skills.postures import INDEX_TIP, draw_in, pointing_start
from dexcompose_envs.skills.terms import lateral_distance, palm_to_site, share, tip_to_site
from dexcompose_envs.skills.trajectories import Waypoint

_HARD: dict[str, Any] = {"priority": 2, "solimp": [0.94, 0.98, 0.001, 0.5, 2.0]}
"""Hard plastic: a finger that presses it against the stop (30 N) doesn't sink in. Goes before the hand's contact rules,
so that its friction is its own as well."""


class PushButton(InteractionSkill):
    """A round button of 36 mm diameter on a 60 mm pedestal, pressed along world -Z.

    The spring resists with 5 N at rest and 9.8 N at full travel (12 mm). Success: the cap has travelled at least
    `TARGET_TRAVEL` = 10 mm. The pedestal stands within +-4 cm of its nominal place.
    """

    name = "PushButton"
    DESCRIPTION = "Press a round spring-loaded button (5 to 10 N) by 10 mm with the index finger."
    joints = ("travel",)
    sites = ("cap_top",)
    RESIDUAL_DIMENSIONS = ("wrist",)
    APPROACH_LIMIT = 0.06
    """From this lateral distance (m) on it does not matter how much further the fingertip is."""
    TRAVEL = 0.012
    TARGET_TRAVEL = 0.010
    STIFFNESS = 400.0
    PRELOAD = 5.0
    PEDESTAL = 0.060
    CAP_RADIUS, CAP_HALF_HEIGHT = 0.018, 0.009
    NOMINAL = (0.36, 0.0, 0.0)
    SPREAD = 0.04

    def build(self, things: Things) -> None:
        """Adds pedestal, collar and the sliding cap."""
        base, name, half = things.body, things.name, self.PEDESTAL / 2
        solid = FIXTURE_COLLISION
        add_geom(base, name("pedestal"), "cylinder", [0.045, half], pos=[0, 0, half], material="steel", collision=solid)
        add_geom(base, name("collar"), "cylinder", [0.030, 0.003], pos=[0, 0, 2 * half + 0.003], material="graphite")
        cap = base.add_body(name=name("button"), pos=[0, 0, 2 * half + 0.006 + self.CAP_HALF_HEIGHT + 0.004])
        add_geom(
            cap, name("cap"), "cylinder", [self.CAP_RADIUS, self.CAP_HALF_HEIGHT], mass=0.05, material="signal_red",
            collision=solid, **_HARD,
        )  # fmt: skip
        cap.add_joint(
            name=name("travel"),
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=[0, 0, -1],
            range=[0, self.TRAVEL],
            stiffness=[self.STIFFNESS, 0, 0],
            springref=-self.PRELOAD / self.STIFFNESS,
            damping=[4.0, 0, 0],
            armature=0.02,
        )
        cap.add_site(name=name("cap_top"), pos=[0, 0, self.CAP_HALF_HEIGHT], size=[0.004] * 3, group=4)

    @property
    def nominal_pose(self) -> NDArray[np.float64]:
        """In front of the hand."""
        return np.array([*self.NOMINAL, 1.0, 0.0, 0.0, 0.0])

    def sample_things(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draws the pedestal's place on the table."""
        offset = rng.uniform(-self.SPREAD, self.SPREAD, 2)
        return np.array([self.NOMINAL[0] + offset[0], self.NOMINAL[1] + offset[1], 0.0, 1.0, 0.0, 0.0, 0.0])

    @property
    def start_pose(self) -> NDArray[np.float64]:
        """Index straight, hand pitched down, fingertip about 9 cm above and 6 cm before the nominal button."""
        return np.concatenate([[0.18, -0.03, 0.30, 0.0, 0.75, 0.0], hand.OPEN_FINGERS])

    def sample_hand(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Start pose with noise; every finger but the index curls by its own random amount."""
        return pointing_start(self.start_pose, rng)

    @property
    def terms(self) -> tuple[Term, ...]:
        """Target relative to index fingertip and palm, and travel: 7 numbers."""
        return (
            tip_to_site("tip_to_button", "FF", "cap_top", "button centre"),
            palm_to_site("palm_to_button", "cap_top", "button centre"),
            Term(
                "travel", 1, "button travel over its target", lambda s: s.joint("travel")[:, None] / self.TARGET_TRAVEL
            ),
        )

    def progress(self, snapshot: Snapshot) -> Array:
        """Travel over its target, clipped to [0, 1]."""
        return share(snapshot.joint("travel"), 0.0, self.TARGET_TRAVEL)

    def done(self, snapshot: Snapshot) -> Array:
        """Travel of at least `TARGET_TRAVEL`."""
        return snapshot.joint("travel") >= self.TARGET_TRAVEL

    def approach(self, snapshot: Snapshot) -> Array:
        """Lateral (horizontal) distance from the index fingertip to the button's centre, up to `APPROACH_LIMIT`."""
        return lateral_distance(snapshot.tip("FF"), snapshot.site("cap_top"), self.APPROACH_LIMIT)

    def expert(self) -> Expert:
        """Presses with the index finger."""
        return PushButtonExpert(self)


class PushButtonExpert(Expert):
    """Points the index finger, brings it over the button and pushes down along the finger."""

    def waypoints(
        self, start: NDArray[np.float64], seen: Mapping[str, NDArray[np.float64]], rng: np.random.Generator
    ) -> list[Waypoint]:
        """Above the button, to the touch, down, hold."""
        button = seen_from_palm(start, seen["palm_to_button"]) + np.append(rng.normal(0.0, 0.002, 2), 0.0)
        euler = np.array([rng.uniform(-0.15, 0.15), rng.uniform(0.95, 1.20), rng.uniform(-0.1, 0.1)])
        fingers = start[hand.NUM_WRIST :].copy()
        fingers[:4] = rng.normal([0.0, 0.05, 0.05, 0.05], 0.01)
        draw_in(fingers, rng)  # those that would meet the button first

        def pose(height: float, sideways: NDArray[np.float64]) -> NDArray[np.float64]:
            tip = button + np.append(sideways, height)
            return np.concatenate([hand.wrist_placing(tip, INDEX_TIP, euler), euler, fingers])

        pace = Pace(rng)
        above = pose(rng.uniform(0.035, 0.05), rng.normal(0.0, 0.004, 2))
        touch = pose(0.008, np.zeros(2))
        pressed = pose(-0.022, np.zeros(2))
        return [
            Waypoint(pace.steps(24), above),
            Waypoint(pace.steps(10), touch),
            Waypoint(pace.steps(14), pressed),
            Waypoint(12, pressed),
        ]
