"""Fingertip grasps as closing postures in the palm frame, and the expert that carries one out.

A posture holds targets of the position actuators: the fingers meet the object before they reach them, and the
difference is the grasp force. `benchmarks/grasp_search.py` finds postures for a new object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.skills.base import RetentionSkill
from dexcompose_envs.skills.expert import Expert, Pace, seen_from_palm
from dexcompose_envs.skills.trajectories import Waypoint

Seen = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Grasp:
    """One grasp.

    Attributes:
        palm_point: Object centre in the palm body's frame (3,), m.
        euler: Wrist Euler angles z y x (3,) at zero object yaw, rad.
        approach: Where the hand comes from, relative to the grasp pose (3,), m.
        preshape: Finger joint targets (22,) before closing, rad.
        close: Finger joint targets (22,) of the closed grasp, rad.
    """

    palm_point: NDArray[np.float64]
    euler: NDArray[np.float64]
    approach: NDArray[np.float64]
    preshape: NDArray[np.float64]
    close: NDArray[np.float64]

    @classmethod
    def rough(
        cls,
        palm_point: tuple[float, float, float] = (0.005, -0.08, 0.088),
        euler: tuple[float, float, float] = (0.0, 0.0, 0.0),
        approach: tuple[float, float, float] = (0.0, 0.0, 0.07),
    ) -> Grasp:
        """A grasp with which a search begins: the palm in place, the fingers open."""
        fingers = hand.OPEN_FINGERS
        return cls(np.array(palm_point), np.array(euler), np.array(approach), fingers, fingers)

    @property
    def hold_point(self) -> NDArray[np.float64]:
        """Object centre seen from the palm centre (3,), m."""
        return self.palm_point - np.array(hand.PALM_CENTER)


class GraspExpert(Expert):
    """Reaches over the object, closes the fingertips on it and lifts it.

    `place` names the observed term from the palm to the object (see `terms.palm_to_object`), and `yaw` gives the angle
    (rad) about the vertical by which the wrist turns with the object, from what is seen of it.
    """

    def __init__(
        self, skill: RetentionSkill, grasp: Grasp, place: str, yaw: Callable[[Seen], float] = lambda seen: 0.0
    ) -> None:
        super().__init__(skill)
        self.grasp, self._place, self._yaw = grasp, place, yaw

    def holding(self, grasp: Grasp) -> GraspExpert:
        """The same expert with another grasp."""
        other = copy(self)
        other.grasp, other._plans = grasp, []
        return other

    def waypoints(self, start: NDArray[np.float64], seen: Seen, rng: np.random.Generator) -> list[Waypoint]:
        """Above the object, down, close, wait, lift, hold."""
        grasp = self.grasp
        center = seen_from_palm(start, seen[self._place]) + np.append(rng.normal(0.0, 0.0015, 2), 0.0)
        yaw = self._yaw(seen)
        turn = hand.euler_to_matrix([yaw, 0.0, 0.0])
        euler = rng.normal(grasp.euler, 0.015) + np.array([yaw, 0.0, 0.0])

        def pose(offset: NDArray[np.float64], fingers: NDArray[np.float64]) -> NDArray[np.float64]:
            wrist = hand.wrist_placing(center, grasp.palm_point, euler) + offset
            return np.concatenate([wrist, euler, fingers])

        approach = turn @ grasp.approach + np.append(rng.normal(0.0, 0.012, 2), rng.uniform(-0.01, 0.02))
        lifted = np.append(rng.normal(0.0, 0.01, 2), 0.15 + rng.uniform(-0.015, 0.02))
        squeeze = grasp.close + rng.normal(0.0, 0.008, len(grasp.close))
        ready = grasp.preshape + rng.normal(0.0, 0.01, len(grasp.preshape))
        pace = Pace(rng)
        delays = np.zeros(hand.NUM_ACTIONS, np.int64)
        for finger in hand.FINGERS:
            delays[hand.finger_slice(finger)] = rng.integers(0, 4)
        here = np.zeros(3)
        grip = pose(here, squeeze)
        return [
            Waypoint(pace.steps(22), pose(approach, ready)),
            Waypoint(pace.steps(15), pose(here, ready)),
            Waypoint(pace.steps(15), grip, delays),
            Waypoint(pace.steps(7), grip),
            Waypoint(pace.steps(22), pose(lifted, squeeze)),
            Waypoint(30, pose(lifted, squeeze)),
        ]


def yaw_of_axis(axis: NDArray[np.float64]) -> float:
    """Yaw (rad) of a lying object's axis (3,), world, from world Y, in [-pi/2, pi/2]: both ends are alike."""
    x, y, _ = axis
    return float(np.arctan2(-x, y)) if y > 0 else float(np.arctan2(x, -y))
