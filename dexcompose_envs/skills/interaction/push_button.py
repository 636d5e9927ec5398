"""PushButton: press a round spring-loaded button on a pedestal downwards."""

from __future__ import annotations

import mujoco
import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.observations import Array, Snapshot, Term
from dexcompose_envs.skills.base import FIXTURE, InteractionTask
from dexcompose_envs.skills.parts import FIXTURE_COLLISION, add_geom


class PushButton(InteractionTask):
    """A round button of 44 mm diameter on a 60 mm pedestal, pressed along world -Z.

    The spring resists with 5 N at rest and 9.8 N at full travel (12 mm). Success: the cap has travelled at least
    `TARGET_TRAVEL` = 10 mm. The pedestal stands within +-4 cm of its nominal place.
    """

    name = "PushButton"
    TRAVEL = 0.012
    TARGET_TRAVEL = 0.010
    STIFFNESS = 400.0
    PRELOAD = 5.0
    PEDESTAL = 0.060
    CAP_RADIUS, CAP_HALF_HEIGHT = 0.022, 0.009
    NOMINAL = (0.36, 0.0, 0.0)
    SPREAD = 0.04

    def add_fixture(self, spec: mujoco.MjSpec) -> None:
        """Adds pedestal, collar and the sliding cap."""
        base = spec.worldbody.add_body(name=FIXTURE, pos=self.NOMINAL, mocap=True)
        half = self.PEDESTAL / 2
        solid = FIXTURE_COLLISION
        add_geom(base, "pedestal", "cylinder", [0.045, half], pos=[0, 0, half], material="steel", collision=solid)
        add_geom(base, "collar", "cylinder", [0.030, 0.003], pos=[0, 0, 2 * half + 0.003], material="graphite")
        cap = base.add_body(name="button", pos=[0, 0, 2 * half + 0.006 + self.CAP_HALF_HEIGHT + 0.004])
        add_geom(
            cap, "cap", "cylinder", [self.CAP_RADIUS, self.CAP_HALF_HEIGHT], mass=0.05, material="signal_red",
            collision=FIXTURE_COLLISION,
        )  # fmt: skip
        cap.add_joint(
            name="FIXTURE_JOINT",
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=[0, 0, -1],
            range=[0, self.TRAVEL],
            stiffness=[self.STIFFNESS, 0, 0],
            springref=-self.PRELOAD / self.STIFFNESS,
            damping=[4.0, 0, 0],
            armature=0.02,
        )
        cap.add_site(name="fixture_target", pos=[0, 0, self.CAP_HALF_HEIGHT], size=[0.004] * 3, group=4)

    def sample_fixture(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draws the pedestal's place on the table."""
        offset = rng.uniform(-self.SPREAD, self.SPREAD, 2)
        return np.array([self.NOMINAL[0] + offset[0], self.NOMINAL[1] + offset[1], 0.0, 1.0, 0.0, 0.0, 0.0])

    @property
    def start_pose(self) -> NDArray[np.float64]:
        """Index straight, hand pitched down, fingertip about 9 cm above and 6 cm before the nominal button."""
        return np.concatenate([[0.18, -0.03, 0.30, 0.0, 0.75, 0.0], hand.OPEN_FINGERS])

    def sample_hand(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Start pose with noise; every finger but the index curls by its own random amount."""
        start = self.start_pose
        start[:3] += rng.uniform(-0.025, 0.025, 3)
        start[3:6] += rng.uniform(-0.12, 0.12, 3)
        for finger in ("MF", "RF", "LF"):
            curl = rng.uniform(0.0, 1.0)
            start[hand.finger_slice(finger)][-3:] += curl * np.array([1.1, 0.9, 0.6]) * rng.uniform(0.7, 1.1, 3)
        thumb_curled = np.array([0.7, 0.9, 0.0, 0.1, -0.5])
        thumb = hand.finger_slice("TH")
        start[thumb] += rng.uniform(0.0, 1.0) * (thumb_curled - start[thumb])
        start[hand.finger_slice("FF")][-3:] += rng.uniform(0.0, 0.15, 3)
        return np.clip(start, hand.ACTION_LOW, hand.ACTION_HIGH)

    @property
    def terms(self) -> tuple[Term, ...]:
        """Target relative to index fingertip and palm, and travel: 7 numbers."""
        return (
            Term("tip_to_button", 3, "button centre minus index fingertip, world axes, 10 x m", self._tip_to_button),
            Term("palm_to_button", 3, "button centre minus palm centre, world axes, 5 x m", self._palm_to_button),
            Term(
                "travel", 1, "button travel over its target", lambda s: s.sensors["fixture_joint"] / self.TARGET_TRAVEL
            ),
        )

    def _tip_to_button(self, snapshot: Snapshot) -> Array:
        return 10 * (snapshot.sensors["fixture_target"] - snapshot.sensors["tip_position"][:, :3])

    def _palm_to_button(self, snapshot: Snapshot) -> Array:
        return 5 * (snapshot.sensors["fixture_target"] - snapshot.sensors["palm_position"])

    def progress(self, snapshot: Snapshot) -> Array:
        """Travel over its target, clipped to [0, 1]."""
        travel = snapshot.sensors["fixture_joint"][:, 0] / self.TARGET_TRAVEL
        return array_namespace(travel).clip(travel, 0.0, 1.0)

    def done(self, snapshot: Snapshot) -> Array:
        """Travel of at least `TARGET_TRAVEL`."""
        return snapshot.sensors["fixture_joint"][:, 0] >= self.TARGET_TRAVEL
