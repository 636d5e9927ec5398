"""TurnOnSwitch: flip a snap-action paddle switch on an upright board down."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.skills.base import Things
from dexcompose_envs.skills.expert import Expert, Pace
from dexcompose_envs.skills.parts import FIXTURE_COLLISION, add_geom
from dexcompose_envs.skills.postures import INDEX_TIP
from dexcompose_envs.skills.trajectories import Waypoint
from dexcompose_envs.skills.upright import ALONG_X, ALONG_Y, Standing, UprightExpert, UprightFixture


class TurnOnSwitch(UprightFixture):
    """A paddle switch, 48 mm long and 28 mm wide, between two guard rails on a board of 35 x 45 cm, as on a machine.

    It snaps: its spring pushes it from dead centre to either stop, 25 degrees away, with 6.5 N at the paddle's tip at
    most, and it stays where it is put. The rails, 44 mm apart and 60 mm deep, keep all but a finger out. Success: the
    paddle, up at the start, has turned by 40 of its 50 degrees.
    """

    name = "TurnOnSwitch"
    DESCRIPTION = "Flip a snap-action paddle switch (6.5 N), recessed between two rails on an upright board, down."
    HEIGHT = 0.22
    FACE = 0.045
    """The board's face lies this far behind the fixture's place (m)."""
    PIVOT_DEPTH = 0.004
    LENGTH, WIDTH = 0.042, 0.028
    RAIL_GAP, RAIL_DEPTH = 0.044, 0.060
    HALF_RANGE = float(np.deg2rad(25.0))
    GOAL = 1.6 * HALF_RANGE
    PEAK_TORQUE = 0.28
    WELL = 1.25 * HALF_RANGE
    """The springs' rest angles lie beyond the stops, so that the paddle is pressed on them (rad from dead centre)."""
    STIFFNESS = -PEAK_TORQUE / (2 / 27**0.5 * WELL)
    """Torque of k x (1 - x^2 / w^2) peaks at 2 / sqrt(27) k w."""

    @property
    def arm(self) -> NDArray[np.float64]:
        """The paddle points up at the start."""
        return self.LENGTH * np.array([-np.cos(self.HALF_RANGE), 0.0, np.sin(self.HALF_RANGE)])

    def build(self, things: Things) -> None:
        """Adds board, plate, rails and paddle."""
        base, name, solid, face, z = things.body, things.name, FIXTURE_COLLISION, self.FACE, self.HEIGHT
        add_geom(
            base, name("board"), "box", [0.009, 0.175, 0.225], pos=[face + 0.009, 0, 0.225], material="wood",
            collision=solid,
        )  # fmt: skip
        add_geom(
            base, name("plate"), "box", [0.002, 0.035, 0.055], pos=[face - 0.002, 0, z], material="steel",
            collision=solid,
        )  # fmt: skip
        add_geom(
            base, name("nut"), "cylinder", [0.009, 0.004], pos=[face - 0.007, 0, z], quat=ALONG_X, material="graphite"
        )
        for side, where in ((-1, "right"), (1, "left")):
            add_geom(
                base, name(f"rail_{where}"), "box", [self.RAIL_DEPTH / 2, 0.003, 0.045],
                pos=[face - self.RAIL_DEPTH / 2, side * (self.RAIL_GAP / 2 + 0.003), z], material="steel",
                collision=solid,
            )  # fmt: skip
        pivot, half_tilt = [face - self.PIVOT_DEPTH, 0, z], self.HALF_RANGE / 2
        base.add_site(name=name("pivot"), pos=pivot, size=[0.004] * 3, group=4)
        paddle = base.add_body(name=name("paddle"), pos=pivot, quat=[np.cos(half_tilt), 0, np.sin(half_tilt), 0])
        half, wide = self.LENGTH / 2, self.WIDTH / 2
        look: dict[str, Any] = {"material": "signal_red", "collision": solid}
        add_geom(paddle, name("paddle"), "box", [half, wide, 0.005], pos=[-half, 0, 0], mass=0.02, **look)
        add_geom(
            paddle, name("edge"), "capsule", [0.006, wide - 0.006], pos=[-self.LENGTH, 0, 0], quat=ALONG_Y, mass=0.003,
            **look,
        )  # fmt: skip
        paddle.add_joint(
            name=name("angle"),
            type=mujoco.mjtJoint.mjJNT_HINGE,
            axis=[0, -1, 0],
            range=[0, 2 * self.HALF_RANGE],
            stiffness=[self.STIFFNESS, 0, -self.STIFFNESS / self.WELL**2],
            springref=self.HALF_RANGE,
            damping=[0.02, 0, 0],
            armature=5e-4,
            solref_limit=[0.01, 1],
        )
        paddle.add_site(name=name("target"), pos=[-self.LENGTH, 0, 0], size=[0.004] * 3, group=4)

    @property
    def start_pose(self) -> NDArray[np.float64]:
        """Index straight, hand nearly level, fingertip 8 cm before the paddle and 7 cm above it."""
        return np.concatenate([[0.09, -0.033, 0.31, 0.0, 0.2, 0.0], hand.OPEN_FINGERS])

    def expert(self) -> Expert:
        """Flips it with the index finger."""
        return TurnOnSwitchExpert(self)


class TurnOnSwitchExpert(UprightExpert):
    """Brings the straight index finger between the rails, above the paddle, and down along the board."""

    def path(self, standing: Standing, fingers: NDArray[np.float64], rng: np.random.Generator) -> list[Waypoint]:
        """Before the rails, between them, down past dead centre, hold."""
        euler = np.array([standing.yaw + rng.uniform(-0.1, 0.1), rng.uniform(0.25, 0.4), rng.uniform(-0.08, 0.08)])

        def pose(before: float, height: float) -> NDArray[np.float64]:
            """Fingertip at a distance (m) from the board's face and a height above the pivot."""
            tip = standing.place(np.array([TurnOnSwitch.PIVOT_DEPTH - before, 0.0, height]))
            return np.concatenate([hand.wrist_placing(tip, INDEX_TIP, euler), euler, fingers])

        pace = Pace(rng)
        return [
            Waypoint(pace.steps(22), pose(0.032, rng.uniform(0.055, 0.070))),
            Waypoint(pace.steps(8), pose(0.022, 0.045)),
            Waypoint(pace.steps(16), pose(0.022, -0.040)),
            Waypoint(10, pose(0.022, -0.040)),
        ]
