"""What fixtures that stand before the hand share: place and yaw, what is seen of them, and how experts read it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.observations import Array, Snapshot, Term
from dexcompose_envs.skills.base import InteractionSkill
from dexcompose_envs.skills.expert import Expert, seen_from_palm
from dexcompose_envs.skills.postures import draw_in, pointing_start
from dexcompose_envs.skills.terms import NEAR_SCALE, palm_to_site, share, tip_to_site
from dexcompose_envs.skills.trajectories import Waypoint

ALONG_X = (np.sqrt(0.5), 0.0, np.sqrt(0.5), 0.0)
"""Quaternion that lays the axis of a cylinder or capsule along X."""
ALONG_Y = (np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0)
"""...along Y."""


class UprightFixture(InteractionSkill):
    """A fixture that faces the hand (its face looks along -X) and has one part that turns by `GOAL` rad.

    It stands within +-4 cm and +-15 degrees of its nominal place. The joint `angle` is that of the part, 0 at the
    start; the site `target` is where a finger works it and moves with it, the site `pivot` stays.
    """

    joints: ClassVar[tuple[str, ...]] = ("angle",)
    sites = ("target", "pivot")
    NOMINAL: ClassVar[tuple[float, float, float]] = (0.36, 0.0, 0.0)
    SPREAD: ClassVar[float] = 0.04
    MAX_YAW: ClassVar[float] = float(np.deg2rad(15.0))
    GOAL: ClassVar[float]
    """Angle (rad) of success."""
    APPROACH_LIMIT: ClassVar[float] = 0.06
    """From this distance (m) on it does not matter how much further the fingertip is."""
    RESIDUAL_DIMENSIONS = ("wrist",)
    VIEW = ((-0.10, -0.34, 0.46), (0.36, 0.02, 0.17))

    @property
    @abstractmethod
    def arm(self) -> NDArray[np.float64]:
        """From pivot to target at the start (3,), m, in the fixture's frame."""

    @property
    def nominal_pose(self) -> NDArray[np.float64]:
        """In front of the hand."""
        return np.array([*self.NOMINAL, 1.0, 0.0, 0.0, 0.0])

    def sample_things(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draws the fixture's place on the table, and its yaw."""
        place = np.array(self.NOMINAL)
        place[:2] += rng.uniform(-self.SPREAD, self.SPREAD, 2)
        half = rng.uniform(-self.MAX_YAW, self.MAX_YAW) / 2
        return np.array([*place, np.cos(half), 0.0, 0.0, np.sin(half)])

    def sample_hand(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Start pose with noise; every finger but the index curls by its own random amount."""
        return pointing_start(self.start_pose, rng)

    @property
    def terms(self) -> tuple[Term, ...]:
        """Target relative to index fingertip and palm, the arm that turns, and how far it has: 10 numbers."""
        arm = f"target minus pivot, world axes, {NEAR_SCALE:g} x m"
        return (
            tip_to_site("tip_to_target", "FF", "target", "target"),
            palm_to_site("palm_to_target", "target", "target"),
            Term("arm", 3, arm, lambda s: NEAR_SCALE * (s.site("target") - s.site("pivot"))),
            Term("turned", 1, "angle over its goal", lambda s: s.joint("angle")[:, None] / self.GOAL),
        )

    def progress(self, snapshot: Snapshot) -> Array:
        """Angle over its goal, clipped to [0, 1]."""
        return share(snapshot.joint("angle"), 0.0, self.GOAL)

    def done(self, snapshot: Snapshot) -> Array:
        """An angle of at least `GOAL`."""
        return snapshot.joint("angle") >= self.GOAL

    def approach(self, snapshot: Snapshot) -> Array:
        """Distance from the index fingertip to the target, up to `APPROACH_LIMIT`."""
        offset = snapshot.tip("FF") - snapshot.site("target")
        xp = array_namespace(offset)
        return xp.clip(xp.sqrt(xp.sum(offset * offset, axis=-1)), 0.0, self.APPROACH_LIMIT)


class Standing(NamedTuple):
    """Where a fixture stands: its pivot (3,), m, and its yaw, rad."""

    pivot: NDArray[np.float64]
    yaw: float

    def place(self, offset: NDArray[np.float64]) -> NDArray[np.float64]:
        """World position (3,) of a place that is at `offset` (3,) from the pivot in the fixture's frame, m."""
        return self.pivot + turned(self.yaw, offset)


class UprightExpert(Expert):
    """Sees where a fixture stands and points the index finger; what comes then says `path`."""

    POINTING: ClassVar[tuple[float, float, float, float]] = (0.0, 0.04, 0.04, 0.04)
    """Joints (rad) of the index finger while it points."""
    CURL: ClassVar[float] = 1.0
    """How far the fingers that would meet the fixture first are drawn in, see `draw_in`."""

    def __init__(self, skill: UprightFixture) -> None:
        super().__init__(skill)
        self._arm = skill.arm

    def waypoints(
        self, start: NDArray[np.float64], seen: Mapping[str, NDArray[np.float64]], rng: np.random.Generator
    ) -> list[Waypoint]:
        """As `path` says; the fingers that would meet the fixture first are drawn in."""
        arm, nominal = seen["arm"] / NEAR_SCALE, self._arm
        across = nominal[0] * arm[1] - nominal[1] * arm[0]
        yaw = float(np.arctan2(across, arm[:2] @ nominal[:2]))
        pivot = seen_from_palm(start, seen["palm_to_target"]) - arm
        fingers = start[hand.NUM_WRIST :].copy()
        fingers[: len(self.POINTING)] = rng.normal(self.POINTING, 0.01)
        draw_in(fingers, rng, self.CURL)
        error = np.append(rng.normal(0.0, 0.002, 2), 0.0)
        return self.path(Standing(pivot + turned(yaw, error), yaw), fingers, rng)

    @abstractmethod
    def path(self, standing: Standing, fingers: NDArray[np.float64], rng: np.random.Generator) -> list[Waypoint]:
        """The way-points, from where the fixture is thought to stand and how the fingers (22,) point, rad."""


def turned(yaw: float, vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """A vector (3,) turned about the vertical by `yaw` (rad)."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([cos * vector[0] - sin * vector[1], sin * vector[0] + cos * vector[1], vector[2]])
