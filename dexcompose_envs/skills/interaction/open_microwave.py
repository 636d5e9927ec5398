"""OpenMicrowave: hook a finger behind the bar handle of a closed microwave oven and pull its door open."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.skills.base import Things
from dexcompose_envs.skills.expert import Expert, Pace
from dexcompose_envs.skills.parts import FIXTURE_COLLISION, add_geom
from dexcompose_envs.skills.trajectories import Waypoint, minimum_jerk
from dexcompose_envs.skills.upright import ALONG_X, Standing, UprightExpert, UprightFixture, turned


class OpenMicrowave(UprightFixture):
    """A small microwave oven, 27 cm wide, on a plinth; its door is hinged on the left and opens towards the hand.

    A magnet holds the door with 17 N at the handle when it is closed, and lets go within 0.06 rad; then the door is
    light. The handle is an upright bar, 5.6 cm before the door. Success: it stands open by 80 % of 90 degrees.
    """

    name = "OpenMicrowave"
    DESCRIPTION = (
        "Hook a finger behind the upright bar handle of a closed microwave oven, overcome its catch (17 N) and pull "
        "the door open by 72 degrees."
    )
    HEIGHT = 0.17
    HINGE = (0.068, 0.22)
    """The hinge's place in the fixture's frame (m); the bar stands at its origin, as far before the door."""
    RIGHT, DEPTH, BOTTOM, TOP = -0.035, 0.20, 0.03, 0.31
    """Where the oven's right side is, how deep it is, and where it begins and ends in height (m)."""
    BAR_HALF = 0.055
    RANGE = float(np.pi / 2)
    GOAL = 0.8 * RANGE
    CATCH_FORCE, CATCH_ANGLE = 17.0, 0.06
    """Pull of the magnet at the handle when closed (N), and the angle (rad) from which on it has none."""
    MAX_STEPS = 200
    DEMONSTRATIONS = 400
    LINEAR_GUESS = True
    EXECUTE_STEPS = 4

    @property
    def arm(self) -> NDArray[np.float64]:
        """From the hinge to the middle of the bar."""
        return np.array([-self.HINGE[0], -self.HINGE[1], 0.0])

    def build(self, things: Things) -> None:
        """Adds the oven, its door with the bar, and the magnet."""
        base, name, solid = things.body, things.name, FIXTURE_COLLISION
        (x, y), wall = self.HINGE, 0.006
        front, left = x + 0.012, y + 0.01
        half = np.array([self.DEPTH, left - self.RIGHT, self.TOP - self.BOTTOM]) / 2
        middle = np.array([front, self.RIGHT, self.BOTTOM]) + half
        steel: dict[str, Any] = {"material": "steel", "collision": solid}
        walls = {"floor": (2, -1), "roof": (2, 1), "right": (1, -1), "left": (1, 1), "back": (0, 1)}
        for which, (axis, side) in walls.items():
            size, place = half.copy(), middle.copy()
            size[axis], place[axis] = wall, middle[axis] + side * (half[axis] - wall)
            add_geom(base, name(which), "box", [*size], pos=place, **steel)
        plinth = [0.9 * half[0], 0.9 * half[1], self.BOTTOM / 2]
        add_geom(base, name("plinth"), "box", plinth, pos=[*middle[:2], self.BOTTOM / 2], material="graphite")
        base.add_site(name=name("pivot"), pos=[x, y, self.HEIGHT], size=[0.004] * 3, group=4)

        door, width = base.add_body(name=name("door"), pos=[x, y, 0]), y - self.RIGHT
        leaf, glass = [0.012, width / 2, 0.12], [0.0005, 0.30 * width, 0.08]
        add_geom(
            door, name("door"), "box", leaf, pos=[0, -width / 2, 0.17], mass=0.8, material="graphite", collision=solid
        )
        add_geom(door, name("window"), "box", glass, pos=[-0.0125, -0.45 * width, 0.17], material="steel")
        bar = [-x, -y, self.HEIGHT]
        add_geom(door, name("bar"), "capsule", [0.006, self.BAR_HALF], pos=bar, mass=0.06, **steel)
        for end, side in (("lower", -1), ("upper", 1)):
            foot = [bar[0] + 0.028, bar[1], bar[2] + side * self.BAR_HALF]
            add_geom(door, name(f"foot_{end}"), "capsule", [0.006, 0.026], pos=foot, quat=ALONG_X, mass=0.01, **steel)
        door.add_site(name=name("target"), pos=bar, size=[0.004] * 3, group=4)
        door.add_joint(
            name=name("angle"), type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0, 0, -1], range=[0, self.RANGE],
            damping=[0.15, 0, 0], frictionloss=0.05, armature=0.005, solref_limit=[0.01, 1],
        )  # fmt: skip
        # The magnet: a spring of negative stiffness between closed and CATCH_ANGLE, none beyond.
        stiffness = -self.CATCH_FORCE * y / self.CATCH_ANGLE
        magnet = things.spec.add_tendon(
            name=name("magnet"), stiffness=[stiffness, 0, 0], springlength=[self.CATCH_ANGLE, 10.0]
        )
        magnet.wrap_joint(name("angle"), 1.0)

    @property
    def start_pose(self) -> NDArray[np.float64]:
        """Thumb up, palm to the left, turned in by 43 degrees, index straight, fingertip 7 cm before the bar."""
        return np.concatenate([[0.17, -0.17, 0.14, 0.75, 0.0, np.pi / 2], hand.OPEN_FINGERS])

    def expert(self) -> Expert:
        """Opens it with the index finger."""
        return OpenMicrowaveExpert(self)


class OpenMicrowaveExpert(UprightExpert):
    """Reaches past the bar, sweeps the index finger behind it, and draws back along the door's arc.

    It passes 3 cm to the right, where there is room, and hooks with its base stretched, so that the bent fingers beside
    it press less on the bar.
    """

    CROOK = np.array([0.033, -0.006, 0.140])
    """Where the bar lies in the hooked index finger, in the palm body's frame, m."""
    POINTING = (0.0, 0.0, 0.05, 0.05)
    CURL = 1.1
    HOOKED = (0.0, -0.2, 1.5, 1.3)
    """Joints (rad) of the index finger that holds the bar."""

    def path(self, standing: Standing, fingers: NDArray[np.float64], rng: np.random.Generator) -> list[Waypoint]:
        """Before the bar, past it, hooked, along the door's arc while the hand turns three quarters as far, hold."""
        hooked = fingers.copy()
        hooked[: len(self.HOOKED)] = self.HOOKED
        into = rng.uniform(0.70, 0.85)  # yaw of the hand relative to the door
        roll, pitch = np.pi / 2 + rng.uniform(-0.1, 0.1), rng.uniform(-0.08, 0.08)
        height = np.array([0.0, 0.0, 0.012 + rng.uniform(-0.008, 0.008)])

        def pose(
            fingers: NDArray[np.float64], back: float, aside: float, angle: float = 0.0, into: float = into
        ) -> NDArray[np.float64]:
            """Crook at the bar of a door opened by `angle`, but back and aside (m) as the hand sees it."""
            euler = np.array([standing.yaw - angle + into, pitch, roll])
            bar = standing.place(turned(-angle, self._arm) + height)
            crook = bar + turned(euler[0], np.array([-back, aside, 0.0]))
            return np.concatenate([hand.wrist_placing(crook, self.CROOK, euler), euler, fingers])

        pace = Pace(rng)
        steps = pace.steps(48)
        swing = 1.45 * minimum_jerk(np.arange(1, steps + 1) / steps)
        arc = [pose(hooked, 0.005 * min(a / 0.08, 1.0), 0.0, float(a), into + 0.25 * float(a)) for a in swing]
        return [
            Waypoint(pace.steps(22), pose(fingers, 0.065, -0.030)),
            Waypoint(pace.steps(12), pose(fingers, 0.018, -0.030)),
            Waypoint(pace.steps(12), pose(hooked, 0.0, 0.0)),
            Waypoint(4, pose(hooked, 0.0, 0.0)),
            *(Waypoint(1, target) for target in arc),
            Waypoint(8, arc[-1]),
        ]
