"""What things that stand on the table and are taken from the side share: their start, the hand's, and what is seen."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.observations import Array, Snapshot, Term
from dexcompose_envs.skills.base import RetentionSkill
from dexcompose_envs.skills.parts import SurfaceFriction
from dexcompose_envs.skills.terms import axis_of, object_in_palm, palm_to_object, share

_BESIDE = np.array([-0.11, -0.18, 0.13, 0.0, 0.0, 1.5])
"""Where the wrist starts: beside the thing, palm towards it, thumb up."""


class StandingThing(RetentionSkill):
    """A thing that stands upright within +-3 cm of the middle of the table; its axis is the body's z axis."""

    THING: ClassVar[str]
    """Its name in observations."""
    HALF_HEIGHT: ClassVar[float]
    MIN_HEIGHT: ClassVar[float] = 0.15
    """Height (m) of its centre from which on it counts as lifted."""
    REACH: ClassVar[float] = 0.12
    SPREAD: ClassVar[float] = 0.03
    MAX_YAW: ClassVar[float] = 0.0
    MAX_TURN = float(np.deg2rad(25.0))
    FRICTION: ClassVar[SurfaceFriction] = SurfaceFriction(sliding=hand.FRICTION, rolling=1e-3)

    @property
    def nominal_pose(self) -> NDArray[np.float64]:
        """On the middle of the table."""
        return np.array([0.0, 0.0, self.HALF_HEIGHT, 1.0, 0.0, 0.0, 0.0])

    def sample_things(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draws its place on the table, and its yaw."""
        x, y = rng.uniform(-self.SPREAD, self.SPREAD, 2)
        half = rng.uniform(-self.MAX_YAW, self.MAX_YAW) / 2
        return np.array([x, y, self.HALF_HEIGHT, np.cos(half), 0.0, 0.0, np.sin(half)])

    def sample_hand(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draws an open hand beside it."""
        start = np.concatenate([_BESIDE, hand.OPEN_FINGERS])
        start[:3] += rng.uniform(-0.015, 0.015, 3)
        start[3:6] += rng.uniform(-0.05, 0.05, 3)
        start[6:] += rng.uniform(0.0, 0.05, hand.NUM_FINGER_JOINTS)
        return np.clip(start, hand.ACTION_LOW, hand.ACTION_HIGH)

    @property
    def terms(self) -> tuple[Term, ...]:
        """It in the palm frame and in world axes from the palm, and its axis: 9 numbers."""
        thing, axis = self.THING, f"{self.THING} axis, bottom to top, in world axes"
        return (
            object_in_palm(f"{thing}_in_palm", thing),
            palm_to_object(f"palm_to_{thing}", thing),
            Term(f"{thing}_axis", 3, axis, lambda s: axis_of(s.sensors["object_world_quaternion"])),
        )

    def progress(self, snapshot: Snapshot) -> Array:
        """Height gained over the way to `MIN_HEIGHT`."""
        return share(snapshot.sensors["object_world_position"][:, 2], self.HALF_HEIGHT, self.MIN_HEIGHT)
