"""Scripted experts: one per skill, with a person's variety in approach, speed, finger timing and precision."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.observations import JOINT_POSITION, Array, layout_of, split
from dexcompose_envs.skills import make_interaction, make_retention
from dexcompose_envs.skills.grasps import GRASPS, Grasp
from dexcompose_envs.skills.trajectories import Waypoint, through

INDEX_TIP = np.array([0.033, -0.004, 0.190])
"""Fingertip of the nearly straight index finger in the palm body's frame, m."""


class Expert(ABC):
    """Plans a whole episode from its first observation and plays the plan back.

    An expert is an `Agent`: `reset` with the first observations, then `act` once per step.
    """

    name = "expert"
    key: str
    """Observation key the expert reads."""

    def __init__(self) -> None:
        """An expert without episodes; call `reset`."""
        self._plans: list[NDArray[np.float64]] = []
        self._steps = np.zeros(0, np.int64)

    def reset(
        self, obs: Mapping[str, Array], info: Mapping[str, Any], env_ids: Iterable[int], seeds: Iterable[int]
    ) -> None:
        """Plans new episodes.

        Args:
            obs: First observations of all worlds, key -> (N, size).
            info: Info of the reset, not used.
            env_ids: Worlds that begin an episode.
            seeds: Seed of each of those episodes' variety.
        """
        if len(self._plans) != len(obs[self.key]):
            self._plans = [np.zeros((1, hand.NUM_ACTIONS))] * len(obs[self.key])
            self._steps = np.zeros(len(self._plans), np.int64)
        observations = np.asarray(obs[self.key], np.float64)
        for env, seed in zip(env_ids, seeds, strict=True):
            rng = np.random.default_rng([int(seed), 7])
            observation = observations[int(env)]
            start = hand.denormalize(observation[: hand.NUM_ACTIONS])
            targets = through(start, self._waypoints(start, self._geometry(observation), rng))
            targets += _tremor(rng, len(targets))
            self._plans[int(env)] = hand.normalize(np.clip(targets, hand.ACTION_LOW, hand.ACTION_HIGH))
            self._steps[int(env)] = 0

    def act(self, obs: Mapping[str, Array]) -> NDArray[np.float32]:
        """Actions (N, 28) of this control step; a plan that is over stays at its end."""
        rows = [min(int(step), len(plan) - 1) for plan, step in zip(self._plans, self._steps, strict=True)]
        actions = np.stack([plan[row] for plan, row in zip(self._plans, rows, strict=True)])
        self._steps = self._steps + 1
        return actions.astype(np.float32)

    @abstractmethod
    def _geometry(self, observation: NDArray[np.float64]) -> dict[str, Array]:
        """Task terms of one observation."""

    @abstractmethod
    def _waypoints(
        self, start: NDArray[np.float64], geometry: dict[str, Array], rng: np.random.Generator
    ) -> list[Waypoint]:
        """The episode's way-points."""


def _tremor(rng: np.random.Generator, steps: int) -> NDArray[np.float64]:
    """Smooth small deviations (steps, 28): about 0.3 mm at the wrist and 4 mrad at joints."""
    scale = np.concatenate([np.full(3, 3e-4), np.full(hand.NUM_ACTIONS - 3, 4e-3)])
    noise = rng.normal(size=(steps + 8, hand.NUM_ACTIONS))
    kernel = np.hanning(11)[1:-1] / np.linalg.norm(np.hanning(11)[1:-1])
    smooth = np.apply_along_axis(np.convolve, 0, noise, kernel, mode="valid")
    return scale * smooth


def _palm_center(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    return pose[:3] + hand.palm_rotation(pose[3:6]) @ np.array(hand.PALM_CENTER)


class GraspExpert(Expert):
    """Reaches over the object, closes the fingertips on it and lifts it."""

    key = "task_a"

    def __init__(self, skill: str) -> None:
        """An expert of one retention skill."""
        super().__init__()
        self._task = make_retention(skill)
        self._layout = layout_of((JOINT_POSITION, *self._task.terms))
        self._grasp: Grasp = GRASPS[skill]

    def _geometry(self, observation: NDArray[np.float64]) -> dict[str, Array]:
        return split(observation, self._layout)

    def _waypoints(
        self, start: NDArray[np.float64], geometry: dict[str, Array], rng: np.random.Generator
    ) -> list[Waypoint]:
        grasp = self._grasp
        offset = next(value for name, value in geometry.items() if name.startswith("palm_to_"))
        center = _palm_center(start) + offset / 5 + np.append(rng.normal(0.0, 0.0015, 2), 0.0)
        yaw = 0.0
        if grasp.follows_yaw:
            x, y, _ = geometry["rod_axis"]
            yaw = float(np.arctan2(-x, y)) if y > 0 else float(np.arctan2(x, -y))
        turn = hand.euler_to_matrix([yaw, 0.0, 0.0])
        euler = rng.normal(grasp.euler, 0.015) + np.array([yaw, 0.0, 0.0])

        def pose(offset: NDArray[np.float64], fingers: NDArray[np.float64]) -> NDArray[np.float64]:
            wrist = hand.wrist_placing(center, grasp.palm_point, euler) + offset
            return np.concatenate([wrist, euler, fingers])

        approach = turn @ grasp.approach + np.append(rng.normal(0.0, 0.012, 2), rng.uniform(-0.01, 0.02))
        lifted = np.append(rng.normal(0.0, 0.01, 2), 0.15 + rng.uniform(-0.015, 0.02))
        squeeze = grasp.close + rng.normal(0.0, 0.008, len(grasp.close))
        ready = grasp.preshape + rng.normal(0.0, 0.01, len(grasp.preshape))
        pace = rng.uniform(0.85, 1.25)
        delays = np.zeros(hand.NUM_ACTIONS, np.int64)
        for finger in hand.FINGERS:
            delays[hand.finger_slice(finger)] = rng.integers(0, 4)

        def steps(nominal: float) -> int:
            return max(2, round(nominal * pace * rng.uniform(0.9, 1.1)))

        grip = pose(np.zeros(3), squeeze)
        return [
            Waypoint(steps(22), pose(approach, ready)),
            Waypoint(steps(15), pose(np.zeros(3), ready)),
            Waypoint(steps(15), grip, delays),
            Waypoint(steps(7), grip),
            Waypoint(steps(22), pose(lifted, squeeze)),
            Waypoint(30, pose(lifted, squeeze)),
        ]


class PushButtonExpert(Expert):
    """Points the index finger, brings it over the button and pushes down along the finger."""

    key = "task_b"

    def __init__(self) -> None:
        """An expert of PushButton."""
        super().__init__()
        self._layout = layout_of((JOINT_POSITION, *make_interaction("PushButton").terms))

    def _geometry(self, observation: NDArray[np.float64]) -> dict[str, Array]:
        return split(observation, self._layout)

    def _waypoints(
        self, start: NDArray[np.float64], geometry: dict[str, Array], rng: np.random.Generator
    ) -> list[Waypoint]:
        button = _palm_center(start) + geometry["palm_to_button"] / 5 + np.append(rng.normal(0.0, 0.002, 2), 0.0)
        euler = np.array([rng.uniform(-0.15, 0.15), rng.uniform(0.95, 1.20), rng.uniform(-0.1, 0.1)])
        fingers = start[6:].copy()
        index = slice(0, 4)
        fingers[index] = rng.normal([0.0, 0.05, 0.05, 0.05], 0.01)
        # Fingers that would meet the button first are drawn in, as a pointing person does.
        for finger in ("MF", "RF", "LF"):
            flexion = slice(hand.finger_slice(finger).stop - 9, hand.finger_slice(finger).stop - 6)
            fingers[flexion] = np.maximum(fingers[flexion], rng.uniform(0.8, 1.0) * np.array([0.7, 0.6, 0.4]))

        def pose(height: float, sideways: NDArray[np.float64]) -> NDArray[np.float64]:
            tip = button + np.append(sideways, height)
            return np.concatenate([hand.wrist_placing(tip, INDEX_TIP, euler), euler, fingers])

        pace = rng.uniform(0.85, 1.25)

        def steps(nominal: float) -> int:
            return max(2, round(nominal * pace * rng.uniform(0.9, 1.1)))

        above = pose(rng.uniform(0.035, 0.05), rng.normal(0.0, 0.004, 2))
        touch = pose(0.008, np.zeros(2))
        pressed = pose(-0.032, np.zeros(2))
        return [
            Waypoint(steps(24), above),
            Waypoint(steps(10), touch),
            Waypoint(steps(14), pressed),
            Waypoint(12, pressed),
        ]


def make_expert(skill: str) -> Expert:
    """The scripted expert of a skill.

    Raises:
        ValueError: If the skill is unknown.
    """
    if skill in GRASPS:
        return GraspExpert(skill)
    if skill == "PushButton":
        return PushButtonExpert()
    known = ", ".join([*GRASPS, "PushButton"])
    raise ValueError(f"no scripted expert for {skill!r}; expected one of {known}")
