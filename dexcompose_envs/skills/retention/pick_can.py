"""PickCan: lift a drinks can from the side and keep it upright."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dexcompose_envs.observations import Array, Snapshot
from dexcompose_envs.skills.base import Things
from dexcompose_envs.skills.grasping import Grasp, GraspExpert
from dexcompose_envs.skills.parts import OBJECT_COLLISION, add_geom
from dexcompose_envs.skills.standing import StandingThing
from dexcompose_envs.skills.terms import axis_of, in_reach


class PickCan(StandingThing):
    """A closed drinks can of 66 mm by 115 mm and 120 to 360 g: how full it is shows in no observation.

    Success: the can's centre is at least 0.15 m above the table, within 12 cm of the palm centre, and its axis within
    25 degrees of upright, for 10 control steps in a row. The can starts within +-3 cm of the nominal place.
    """

    name = "PickCan"
    DESCRIPTION = (
        "Hold a closed drinks can of 66 mm by 115 mm and 120 to 360 g from the side, after lifting it upright."
    )
    THING = "can"
    RADIUS, HALF_HEIGHT = 0.033, 0.0575
    MASS, MASS_FACTORS = 0.15, (0.8, 2.4)
    HOLD_ROLL = np.pi / 2
    HOLD_SQUEEZE = 0.11
    MAX_TILT = float(np.deg2rad(25.0))

    def build(self, things: Things) -> None:
        """Adds the can."""
        radius, half, body, name = self.RADIUS, self.HALF_HEIGHT, things.body, things.name
        add_geom(
            body, name("can"), "cylinder", [radius, half], mass=self.MASS, material="lacquer", friction=self.FRICTION,
            collision=OBJECT_COLLISION,
        )  # fmt: skip
        for end, side in (("bottom", -1), ("top", 1)):
            place = [0, 0, side * (half - 0.0038)]
            add_geom(body, name(f"rim_{end}"), "cylinder", [radius + 2e-4, 0.004], material="aluminium", pos=place)

    @property
    def hold_point(self) -> NDArray[np.float64]:
        """Where the fingertips hold the can."""
        return GRASP.hold_point

    def achieved(self, snapshot: Snapshot) -> Array:
        """High enough, in the hand, and upright."""
        upright = axis_of(snapshot.sensors["object_world_quaternion"])[:, 2] >= np.cos(self.MAX_TILT)
        height = snapshot.sensors["object_world_position"][:, 2]
        return (height >= self.MIN_HEIGHT) & in_reach(snapshot, self.REACH) & upright

    def expert(self) -> GraspExpert:
        """Grasps from the right with the fingertips of all five fingers."""
        return GraspExpert(self, GRASP, "palm_to_can")


# fmt: off
GRASP = Grasp(
    palm_point=np.array([0.0084, -0.0518, 0.0918]),
    euler=np.array([-0.0385, -0.0261, 1.6111]),
    approach=np.array([0.0, -0.07, 0.0]),
    preshape=np.array(
        [0.042, 0.672, 0.401, 0.363,
         0.2, 0.899, 0.229, 0.198,
         0.186, 0.903, 0.137, 0.123,
         0.286, -0.041, 0.62, 0.215, 0.225,
         -0.526, 1.222, 0.209, -0.524, -1.571]
    ),
    close=np.array(
        [0.072, 0.523, 0.935, 0.803,
         0.349, 0.726, 1.19, 1.052,
         0.349, 0.611, 0.975, 0.999,
         0.144, 0.281, 0.425, 1.1, 0.94,
         0.149, 1.071, 0.183, -0.519, -1.493]
    ),
)
"""The object stays when the index finger lets go."""
# fmt: on
