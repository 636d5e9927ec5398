"""GraspBall: lift a ball off the table in a fingertip grasp."""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from dexcompose_envs.hand import FRICTION
from dexcompose_envs.observations import Array, Snapshot, Term
from dexcompose_envs.skills.base import RetentionSkill, Things
from dexcompose_envs.skills.grasping import Grasp, GraspExpert
from dexcompose_envs.skills.parts import OBJECT_COLLISION, SurfaceFriction, add_geom
from dexcompose_envs.skills.terms import in_reach, object_in_palm, palm_to_object, share


class GraspBall(RetentionSkill):
    """A rubber ball of 64 mm and 150 g, lifted to its target pose.

    Success: the ball's centre is within `THRESHOLD` = 5 cm of the target height 0.18 m and within 10 cm of the palm
    centre, for 10 control steps in a row. The ball starts within +-3 cm of the nominal place.
    """

    name = "GraspBall"
    DESCRIPTION = "Hold a rubber ball of 64 mm and 150 g at the fingertips, after lifting it off the table."
    EXECUTE_STEPS = 8
    RADIUS = 0.032
    MASS = 0.15
    HOLD_SQUEEZE = 0.3
    TARGET_HEIGHT = 0.18
    THRESHOLD = 0.05
    REACH = 0.10
    SPREAD = 0.03
    FRICTION = SurfaceFriction(sliding=FRICTION, rolling=0.002, condim=6)

    def build(self, things: Things) -> None:
        """Adds the ball."""
        add_geom(
            things.body, things.name("ball"), "sphere", [self.RADIUS], mass=self.MASS, material="tennis",
            friction=self.FRICTION, collision=OBJECT_COLLISION,
        )  # fmt: skip

    @property
    def nominal_pose(self) -> NDArray[np.float64]:
        """On the middle of the table."""
        return np.array([0.0, 0.0, self.RADIUS, 1.0, 0.0, 0.0, 0.0])

    def sample_things(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draws the ball's place on the table."""
        x, y = rng.uniform(-self.SPREAD, self.SPREAD, 2)
        return np.array([x, y, self.RADIUS, 1.0, 0.0, 0.0, 0.0])

    @property
    def terms(self) -> tuple[Term, ...]:
        """Ball in the palm frame and in world axes from the palm: 6 numbers."""
        return object_in_palm("ball_in_palm", "ball"), palm_to_object("palm_to_ball", "ball")

    @property
    def hold_point(self) -> NDArray[np.float64]:
        """Where the fingertips hold the ball."""
        return GRASP.hold_point

    def achieved(self, snapshot: Snapshot) -> Array:
        """Height within `THRESHOLD` of the target and the palm within `REACH`."""
        height = snapshot.sensors["object_world_position"][:, 2]
        xp = array_namespace(height)
        return (xp.abs(height - self.TARGET_HEIGHT) <= self.THRESHOLD) & in_reach(snapshot, self.REACH)

    def progress(self, snapshot: Snapshot) -> Array:
        """Height gained over the way to the target height."""
        return share(snapshot.sensors["object_world_position"][:, 2], self.RADIUS, self.TARGET_HEIGHT)

    def expert(self) -> GraspExpert:
        """Grasps with the fingertips of all five fingers."""
        return GraspExpert(self, GRASP, "palm_to_ball")


# fmt: off
GRASP = Grasp(
    palm_point=np.array([0.0105, -0.0786, 0.0854]),
    euler=np.array([-0.0995, -0.0183, 0.2018]),
    approach=np.array([0.0, 0.0, 0.07]),
    preshape=np.array(
        [0.349, 1.225, 0.023, 0.021,
         0.349, 0.86, 0.307, 0.263,
         -0.116, 1.151, 0.0, 0.0,
         0.0, 0.037, 0.74, 0.749, 0.604,
         -0.494, 1.222, 0.209, -0.351, -1.55]
    ),
    close=np.array(
        [0.213, 1.164, 0.376, 0.309,
         0.349, 0.967, 0.698, 0.555,
         0.349, 1.024, 0.674, 0.461,
         0.54, 0.315, 0.565, 0.993, 0.809,
         0.277, 1.222, 0.158, -0.149, -0.853]
    ),
)
"""The object stays when the index finger lets go."""
# fmt: on
