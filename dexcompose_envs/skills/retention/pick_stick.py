"""PickStick: pick a wooden rod up with the fingertips."""

from __future__ import annotations

import mujoco
import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from dexcompose_envs.hand import FRICTION
from dexcompose_envs.observations import Array, Snapshot, Term
from dexcompose_envs.skills.base import RetentionSkill, Things
from dexcompose_envs.skills.grasping import Grasp, GraspExpert, yaw_of_axis
from dexcompose_envs.skills.parts import OBJECT_COLLISION, SurfaceFriction, add_geom
from dexcompose_envs.skills.terms import axis_of, in_reach, object_in_palm, palm_to_object, share

_LYING = np.array([np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0])


class PickStick(RetentionSkill):
    """A wooden rod of 36 mm by 170 mm and 200 g that lies on the table, lifted and kept level.

    Success: the rod's centre is at least `MIN_HEIGHT` = 0.12 m above the table, within 10 cm of the palm centre, and
    its axis within 30 degrees of level, for 10 control steps in a row. The rod starts within +-3 cm and +-25 degrees.
    """

    name = "PickStick"
    DESCRIPTION = "Hold a wooden rod of 36 mm by 170 mm and 200 g level at the fingertips, after picking it up."
    RADIUS = 0.018
    HALF_LENGTH = 0.085
    MASS = 0.20
    HOLD_SQUEEZE = 0.37
    MIN_HEIGHT = 0.12
    REACH = 0.10
    MAX_TILT = np.pi / 6
    SPREAD = 0.03
    MAX_TURN = np.deg2rad(25.0)
    MAX_YAW = np.deg2rad(25.0)
    FRICTION = SurfaceFriction(sliding=FRICTION, rolling=1e-3, condim=6)

    def build(self, things: Things) -> None:
        """Adds the rod; its axis is the body's z axis."""
        add_geom(
            things.body, things.name("rod"), "cylinder", [self.RADIUS, self.HALF_LENGTH], mass=self.MASS,
            material="wood", friction=self.FRICTION, collision=OBJECT_COLLISION,
        )  # fmt: skip
        for end, side in (("left", -1), ("right", 1)):
            add_geom(
                things.body, things.name(f"band_{end}"), "cylinder", [self.RADIUS + 2e-4, 0.006],
                material="signal_red", pos=[0, 0, side * (self.HALF_LENGTH - 0.012)],
            )  # fmt: skip

    @property
    def nominal_pose(self) -> NDArray[np.float64]:
        """On the middle of the table, along world Y."""
        return np.array([0.0, 0.0, self.RADIUS, *_LYING])

    def sample_things(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draws the rod's place and yaw; its axis lies along world Y at zero yaw."""
        x, y = rng.uniform(-self.SPREAD, self.SPREAD, 2)
        yaw = rng.uniform(-self.MAX_YAW, self.MAX_YAW)
        quat = np.zeros(4)
        about_z = np.array([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)])
        mujoco.mju_mulQuat(quat, about_z, _LYING)
        return np.array([x, y, self.RADIUS, *quat])

    @property
    def terms(self) -> tuple[Term, ...]:
        """Rod in the palm frame and in world axes from the palm, and its axis: 9 numbers."""
        return (
            object_in_palm("rod_in_palm", "rod"),
            palm_to_object("palm_to_rod", "rod"),
            Term("rod_axis", 3, "rod axis in world axes", lambda s: axis_of(s.sensors["object_world_quaternion"])),
        )

    @property
    def hold_point(self) -> NDArray[np.float64]:
        """Where the fingertips hold the rod's centre."""
        return GRASP.hold_point

    def achieved(self, snapshot: Snapshot) -> Array:
        """High enough, in the hand, and level."""
        height = snapshot.sensors["object_world_position"][:, 2]
        xp = array_namespace(height)
        level = xp.abs(axis_of(snapshot.sensors["object_world_quaternion"])[:, 2]) <= np.sin(self.MAX_TILT)
        return (height >= self.MIN_HEIGHT) & in_reach(snapshot, self.REACH) & level

    def progress(self, snapshot: Snapshot) -> Array:
        """Height gained over the way to `MIN_HEIGHT`."""
        return share(snapshot.sensors["object_world_position"][:, 2], self.RADIUS, self.MIN_HEIGHT)

    def expert(self) -> GraspExpert:
        """Grasps across the rod, whose yaw the wrist follows."""
        return GraspExpert(self, GRASP, "palm_to_rod", lambda seen: yaw_of_axis(seen["rod_axis"]))


# fmt: off
GRASP = Grasp(
    palm_point=np.array([0.012, -0.0736, 0.1033]),
    euler=np.array([-0.0175, 0.126, 0.0237]),
    approach=np.array([0.0, 0.0, 0.07]),
    preshape=np.array(
        [0.161, 0.663, 0.431, 0.387,
         0.25, 0.697, 0.445, 0.391,
         0.24, 0.646, 0.438, 0.395,
         0.118, 0.028, 0.62, 0.279, 0.277,
         0.73, 1.178, 0.209, 0.524, 0.0]
    ),
    close=np.array(
        [0.284, 0.711, 0.734, 0.612,
         0.349, 0.859, 0.823, 0.654,
         0.349, 0.764, 0.781, 0.644,
         0.006, 0.334, 0.758, 0.739, 0.611,
         0.885, 1.14, 0.02, 0.008, -0.004]
    ),
)
"""The object stays when the index finger lets go."""
# fmt: on
