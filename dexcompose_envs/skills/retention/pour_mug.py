"""PourMug: lift a mug from the side and pour it out by turning the forearm."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.observations import Array, Snapshot, Term, matrix6_from_quaternion
from dexcompose_envs.skills.base import Things
from dexcompose_envs.skills.expert import Pace
from dexcompose_envs.skills.grasping import Grasp, GraspExpert, Seen
from dexcompose_envs.skills.parts import OBJECT_COLLISION, add_geom
from dexcompose_envs.skills.standing import StandingThing
from dexcompose_envs.skills.terms import axis_of, in_reach
from dexcompose_envs.skills.trajectories import Waypoint


class PourMug(StandingThing):
    """A mug of 80 mm by 95 mm and 300 g with a handle and a hollow body, lifted upright and poured out.

    The body frame's z axis points from bottom to brim, its y axis to the handle, which at the start points away from
    the hand, within +-25 degrees. A right hand pours by turning the palm down; with the mug empty, that is how it then
    goes on to work other things. Success: the mug's centre is at least 0.15 m above the table, within 12 cm of the palm
    centre, and its axis is 80 to 125 degrees from upright, for 10 control steps in a row.
    """

    name = "PourMug"
    DESCRIPTION = (
        "Hold a mug of 80 mm by 95 mm and 300 g from the side, palm down, after lifting it and pouring it out."
    )
    THING = "mug"
    RADIUS, HALF_HEIGHT, WALL = 0.040, 0.0475, 0.004
    SIDES = 12
    """Boxes that make the wall."""
    WALL_MASS, BOTTOM_MASS, HANDLE_MASS = 0.18, 0.08, 0.04
    HANDLE_RADIUS, HANDLE_OUT, HANDLE_HALF = 0.0055, 0.030, 0.024
    POUR = (float(np.deg2rad(80.0)), float(np.deg2rad(125.0)))
    """Range (rad) of the axis' angle from upright while it pours."""
    MAX_YAW = float(np.deg2rad(25.0))
    MAX_STEPS = 200
    MASS_FACTORS = (0.85, 1.7)
    HOLD_SQUEEZE = 0.25
    DEMONSTRATIONS = 150

    def build(self, things: Things) -> None:
        """Adds wall, bottom and handle."""
        body, name, radius, half, wall = things.body, things.name, self.RADIUS, self.HALF_HEIGHT, self.WALL
        solid: dict[str, Any] = {"material": "enamel", "friction": self.FRICTION, "collision": OBJECT_COLLISION}
        width = radius * np.tan(np.pi / self.SIDES)
        for side in range(self.SIDES):
            angle = 2 * np.pi * (side + 0.5) / self.SIDES
            out = np.array([np.cos(angle), np.sin(angle), 0.0])
            add_geom(
                body, name(f"wall_{side}"), "box", [wall / 2, width, half], pos=(radius - wall / 2) * out,
                quat=[np.cos(angle / 2), 0, 0, np.sin(angle / 2)], mass=self.WALL_MASS / self.SIDES, **solid,
            )  # fmt: skip
        add_geom(
            body, name("bottom"), "cylinder", [radius - 1e-3, 0.004], pos=[0, 0, 0.004 - half], mass=self.BOTTOM_MASS,
            **solid,
        )  # fmt: skip
        inner, outer, high = radius - 0.002, radius + self.HANDLE_OUT - self.HANDLE_RADIUS, self.HANDLE_HALF
        corners = [(inner, high), (outer, high), (outer, -high), (inner, -high)]
        for part in range(3):
            (y0, z0), (y1, z1) = corners[part], corners[part + 1]
            add_geom(
                body, name(f"handle_{part}"), "capsule", [self.HANDLE_RADIUS], fromto=[0, y0, z0, 0, y1, z1],
                mass=self.HANDLE_MASS / 3, **solid,
            )  # fmt: skip

    @property
    def terms(self) -> tuple[Term, ...]:
        """Those of everything that stands, and where the handle points: 11 numbers."""
        return (
            *super().terms,
            Term(
                "mug_handle", 2, "direction of the handle, world x and y",
                lambda s: matrix6_from_quaternion(s.sensors["object_world_quaternion"])[..., 3:5],
            ),
        )  # fmt: skip

    @property
    def hold_point(self) -> NDArray[np.float64]:
        """Where the fingertips hold the mug."""
        return GRASP.hold_point

    def achieved(self, snapshot: Snapshot) -> Array:
        """High enough, in the hand, and tilted into the pouring range."""
        up = axis_of(snapshot.sensors["object_world_quaternion"])[:, 2]
        pours = (up <= np.cos(self.POUR[0])) & (up >= np.cos(self.POUR[1]))
        height = snapshot.sensors["object_world_position"][:, 2]
        return (height >= self.MIN_HEIGHT) & in_reach(snapshot, self.REACH) & pours

    def progress(self, snapshot: Snapshot) -> Array:
        """Half for the height, half for the tilt."""
        up = axis_of(snapshot.sensors["object_world_quaternion"])[:, 2]
        xp = array_namespace(up)
        lifted = super().progress(snapshot)
        tilted = xp.clip((1.0 - up) / (1.0 - np.cos(self.POUR[0])), 0.0, 1.0)
        return 0.5 * lifted + 0.5 * lifted * tilted

    def expert(self) -> GraspExpert:
        """Grasps from the right, lifts, and turns the forearm."""
        return PourMugExpert(self, GRASP, "palm_to_mug", _handle_yaw)


class PourMugExpert(GraspExpert):
    """Lifts the mug upright, then turns the palm down about the mug's centre."""

    def waypoints(self, start: NDArray[np.float64], seen: Seen, rng: np.random.Generator) -> list[Waypoint]:
        """As every grasp, and poured."""
        reached = super().waypoints(start, seen, rng)
        lifted = reached[-1].target
        center = lifted[:3] + hand.palm_rotation(lifted[3:6]) @ self.grasp.palm_point
        euler = lifted[3:6] - np.array([0.0, 0.0, rng.uniform(1.65, 1.85)])
        wrist = hand.wrist_placing(center, self.grasp.palm_point, euler)
        poured = np.concatenate([wrist, euler, lifted[hand.NUM_WRIST :]])
        pace = Pace(rng)
        return [*reached[:-1], Waypoint(5, lifted), Waypoint(pace.steps(35), poured), Waypoint(30, poured)]


def _handle_yaw(seen: Seen) -> float:
    """Yaw (rad) of the mug, whose handle points along world Y at zero."""
    x, y = seen["mug_handle"]
    return float(np.arctan2(-x, y))


# fmt: off
GRASP = Grasp(
    palm_point=np.array([0.0033, -0.0567, 0.0838]),
    euler=np.array([0.203, 0.0238, 1.5552]),
    approach=np.array([0.0, -0.08, 0.0]),
    preshape=np.array(
        [-0.073, 0.306, 0.752, 0.694,
         0.133, 0.589, 0.538, 0.48,
         0.107, 0.551, 0.5, 0.458,
         0.0, 0.155, 0.567, 0.338, 0.332,
         -0.731, 1.222, 0.209, -0.524, -1.571]
    ),
    close=np.array(
        [-0.294, 0.496, 1.269, 1.02,
         0.349, 0.796, 1.059, 0.821,
         0.279, 0.639, 1.043, 0.85,
         0.0, 0.345, 0.52, 1.04, 0.874,
         0.008, 1.222, 0.209, -0.524, -1.546]
    ),
)
"""The object stays when the index finger lets go."""
# fmt: on
