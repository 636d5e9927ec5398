"""GraspBall: lift a ball off the table in a fingertip grasp."""

from __future__ import annotations

import mujoco
import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from dexcompose_envs.observations import Array, Snapshot, Term
from dexcompose_envs.skills.base import OBJECT, RetentionTask, SurfaceFriction
from dexcompose_envs.skills.parts import OBJECT_COLLISION, add_geom


class GraspBall(RetentionTask):
    """A rubber ball of 64 mm and 150 g, lifted to its target pose.

    Success: the ball's centre is within `THRESHOLD` = 5 cm of the target height 0.18 m and within 10 cm of the palm
    centre, for 10 control steps in a row. The ball starts within +-3 cm of the nominal place.
    """

    name = "GraspBall"
    RADIUS = 0.032
    MASS = 0.15
    TARGET_HEIGHT = 0.18
    THRESHOLD = 0.05
    REACH = 0.10
    SPREAD = 0.03
    FRICTION = SurfaceFriction(sliding=0.65, rolling=0.002, condim=6)

    def add_object(self, spec: mujoco.MjSpec) -> None:
        """Adds the ball."""
        ball = spec.worldbody.add_body(name=OBJECT, pos=[0, 0, self.RADIUS])
        ball.add_freejoint(name="OBJECT_JOINT")
        add_geom(
            ball, "ball", "sphere", [self.RADIUS], mass=self.MASS, material="tennis", friction=self.FRICTION,
            collision=OBJECT_COLLISION,
        )  # fmt: skip

    def sample_object(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draws the ball's place on the table."""
        x, y = rng.uniform(-self.SPREAD, self.SPREAD, 2)
        return np.array([x, y, self.RADIUS, 1.0, 0.0, 0.0, 0.0])

    @property
    def terms(self) -> tuple[Term, ...]:
        """Ball in the palm frame and in world axes from the palm: 6 numbers."""
        return (
            Term(
                "ball_in_palm", 3, "ball centre in the palm frame, 10 x m", lambda s: 10 * s.sensors["object_position"]
            ),
            Term("palm_to_ball", 3, "ball centre minus palm centre, world axes, 5 x m", self._palm_to_ball),
        )

    def _palm_to_ball(self, snapshot: Snapshot) -> Array:
        return 5 * (snapshot.sensors["object_world_position"] - snapshot.sensors["palm_position"])

    def achieved(self, snapshot: Snapshot) -> Array:
        """Height within `THRESHOLD` of the target and the palm within `REACH`."""
        height = snapshot.sensors["object_world_position"][:, 2]
        offset = snapshot.sensors["object_position"]
        xp = array_namespace(height)
        near = xp.sum(offset * offset, axis=-1) <= self.REACH**2
        return (xp.abs(height - self.TARGET_HEIGHT) <= self.THRESHOLD) & near

    def progress(self, snapshot: Snapshot) -> Array:
        """Height gained over the way to the target height."""
        gained = (snapshot.sensors["object_world_position"][:, 2] - self.RADIUS) / (self.TARGET_HEIGHT - self.RADIUS)
        return array_namespace(gained).clip(gained, 0.0, 1.0)
