"""What scripted experts share: they plan a whole episode from its first observation and play the plan back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.observations import JOINT_POSITION, Array, layout_of
from dexcompose_envs.skills.base import Skill
from dexcompose_envs.skills.terms import PALM_SCALE
from dexcompose_envs.skills.trajectories import Waypoint, through


class Expert(ABC):
    """An agent with a person's variety in approach, speed, finger timing and precision.

    Args:
        skill: What it demonstrates.
    """

    def __init__(self, skill: Skill) -> None:
        self.name = "expert"
        self.key = skill.observation_key
        self._layout = layout_of((JOINT_POSITION, *skill.terms))
        self._plans: list[NDArray[np.float64]] = []
        self._steps = np.zeros(0, np.int64)

    def reset(
        self, obs: Mapping[str, Array], info: Mapping[str, Any], env_ids: Iterable[int], seeds: Iterable[int]
    ) -> None:
        """Plans new episodes; their seeds decide their variety."""
        if len(self._plans) != len(obs[self.key]):
            self._plans = [np.zeros((1, hand.NUM_ACTIONS))] * len(obs[self.key])
            self._steps = np.zeros(len(self._plans), np.int64)
        observations = np.asarray(obs[self.key], np.float64)
        for env, seed in zip(env_ids, seeds, strict=True):
            rng = np.random.default_rng([int(seed), 7])
            observation = observations[int(env)]
            start = hand.denormalize(observation[: hand.NUM_ACTIONS])
            seen = {name: observation[columns] for name, columns in self._layout.items()}
            targets = through(start, self.waypoints(start, seen, rng))
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
    def waypoints(
        self, start: NDArray[np.float64], seen: Mapping[str, NDArray[np.float64]], rng: np.random.Generator
    ) -> list[Waypoint]:
        """The episode's way-points, from hand (28,), m and rad, and the skill's observation by term at the start."""


class Pace:
    """A person's tempo: one speed for an episode, a little variation for each move."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._pace = rng.uniform(0.85, 1.25)

    def steps(self, nominal: float) -> int:
        """Control steps of a move that takes `nominal` on average."""
        return max(2, round(nominal * self._pace * self._rng.uniform(0.9, 1.1)))


def seen_from_palm(start: NDArray[np.float64], offset: NDArray[np.float64]) -> NDArray[np.float64]:
    """World position (3,) of what lies at an observed `palm_to_...` offset from the hand at `start` (28,)."""
    palm = start[:3] + hand.palm_rotation(start[3:6]) @ np.array(hand.PALM_CENTER)
    return palm + offset / PALM_SCALE


def _tremor(rng: np.random.Generator, steps: int) -> NDArray[np.float64]:
    """Smooth small deviations (steps, 28): about 0.3 mm at the wrist and 4 mrad at joints."""
    scale = np.concatenate([np.full(3, 3e-4), np.full(hand.NUM_ACTIONS - 3, 4e-3)])
    noise = rng.normal(size=(steps + 8, hand.NUM_ACTIONS))
    kernel = np.hanning(11)[1:-1] / np.linalg.norm(np.hanning(11)[1:-1])
    smooth = np.apply_along_axis(np.convolve, 0, noise, kernel, mode="valid")
    return scale * smooth
