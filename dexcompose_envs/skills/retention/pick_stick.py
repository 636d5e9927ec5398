"""PickStick: pick a wooden rod up with the fingertips."""

from __future__ import annotations

import mujoco
import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from dexcompose_envs.observations import Array, Snapshot, Term, matrix6_from_quaternion
from dexcompose_envs.skills.base import OBJECT, RetentionTask, SurfaceFriction
from dexcompose_envs.skills.parts import OBJECT_COLLISION, add_geom


class PickStick(RetentionTask):
    """A wooden rod of 36 mm by 170 mm and 200 g that lies on the table, lifted and kept level.

    Success: the rod's centre is at least `MIN_HEIGHT` = 0.12 m above the table, within 10 cm of the palm centre, and
    its axis within 30 degrees of level, for 10 control steps in a row. The rod starts within +-3 cm and +-25 degrees.
    """

    name = "PickStick"
    RADIUS = 0.018
    HALF_LENGTH = 0.085
    MASS = 0.20
    MIN_HEIGHT = 0.12
    REACH = 0.10
    MAX_TILT = np.pi / 6
    SPREAD = 0.03
    MAX_YAW = np.deg2rad(25.0)
    FRICTION = SurfaceFriction(sliding=0.65, rolling=1e-3, condim=6)

    def add_object(self, spec: mujoco.MjSpec) -> None:
        """Adds the rod; its axis is the body's z axis."""
        rod = spec.worldbody.add_body(name=OBJECT, pos=[0, 0, self.RADIUS], quat=[np.sqrt(0.5), np.sqrt(0.5), 0, 0])
        rod.add_freejoint(name="OBJECT_JOINT")
        add_geom(
            rod, "rod", "cylinder", [self.RADIUS, self.HALF_LENGTH], mass=self.MASS, material="wood",
            friction=self.FRICTION, collision=OBJECT_COLLISION,
        )  # fmt: skip
        for side in (-1, 1):
            add_geom(
                rod, f"rod_band_{side}", "cylinder", [self.RADIUS + 2e-4, 0.006], material="signal_red",
                pos=[0, 0, side * (self.HALF_LENGTH - 0.012)],
            )  # fmt: skip

    def sample_object(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draws the rod's place and yaw; its axis lies along world Y at zero yaw."""
        x, y = rng.uniform(-self.SPREAD, self.SPREAD, 2)
        yaw = rng.uniform(-self.MAX_YAW, self.MAX_YAW)
        quat = np.zeros(4)
        about_z = np.array([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)])
        mujoco.mju_mulQuat(quat, about_z, np.array([np.sqrt(0.5), np.sqrt(0.5), 0, 0]))
        return np.array([x, y, self.RADIUS, *quat])

    @property
    def terms(self) -> tuple[Term, ...]:
        """Rod in the palm frame, its axis in palm and world: 9 numbers."""
        return (
            Term("rod_in_palm", 3, "rod centre in the palm frame, 10 x m", lambda s: 10 * s.sensors["object_position"]),
            Term("palm_to_rod", 3, "rod centre minus palm centre, world axes, 5 x m", self._palm_to_rod),
            Term("rod_axis", 3, "rod axis in world axes", lambda s: _axis(s.sensors["object_world_quaternion"])),
        )

    def _palm_to_rod(self, snapshot: Snapshot) -> Array:
        return 5 * (snapshot.sensors["object_world_position"] - snapshot.sensors["palm_position"])

    def achieved(self, snapshot: Snapshot) -> Array:
        """High enough, in the hand, and level."""
        position, offset = snapshot.sensors["object_world_position"], snapshot.sensors["object_position"]
        xp = array_namespace(position)
        near = xp.sum(offset * offset, axis=-1) <= self.REACH**2
        level = xp.abs(_axis(snapshot.sensors["object_world_quaternion"])[:, 2]) <= np.sin(self.MAX_TILT)
        return (position[:, 2] >= self.MIN_HEIGHT) & near & level

    def progress(self, snapshot: Snapshot) -> Array:
        """Height gained over the way to `MIN_HEIGHT`."""
        gained = (snapshot.sensors["object_world_position"][:, 2] - self.RADIUS) / (self.MIN_HEIGHT - self.RADIUS)
        return array_namespace(gained).clip(gained, 0.0, 1.0)


def _axis(quaternion: Array) -> Array:
    """The body z axis (N, 3) of unit quaternions (N, 4)."""
    columns = matrix6_from_quaternion(quaternion)
    xp = array_namespace(columns)
    return xp.linalg.cross(columns[..., :3], columns[..., 3:])
