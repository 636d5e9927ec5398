"""What a run may use: the physics of its preset, worlds for loops that are written for NumPy, and time."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

from dexcompose_agents.runtime.interrupts import Paused
from dexcompose_agents.runtime.progress import Advance
from dexcompose_envs.errors import UsageError
from dexcompose_envs.wrappers import ToNumpy

PRESETS = ("cpu", "fast", "paper", "test")
"""A laptop's CPU; minutes on a GPU; as published, on a GPU; seconds, in which nothing is learned."""
GPU_PRESETS = ("fast", "paper")
"""Presets whose physics and networks run on a GPU."""


def physics_options(preset: str, device: str | None) -> dict[str, Any]:
    """Options of an environment under a preset: which back end and device it runs on."""
    return {"backend": "warp", "device": device or "cuda"} if preset in GPU_PRESETS else {}


def make_numpy_vec(id: str, num_envs: int, *, backend: str = "mujoco", **kwargs: Any) -> VectorEnv[Any, Any, Any]:
    """`gym.make_vec`, with NumPy arrays also where physics run on a GPU."""
    worlds = gym.make_vec(id, num_envs=num_envs, backend=backend, **kwargs)
    return worlds if backend == "mujoco" else ToNumpy(worlds)


class Piece:
    """The time that one call may take, in minutes from now on, whatever number of stages it runs; None: no limit."""

    def __init__(self, minutes: float | None = None) -> None:
        if minutes is not None and not minutes > 0:
            raise UsageError(f"minutes is {minutes}; expected a positive number")
        self._minutes = minutes
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    @property
    def remaining(self) -> float | None:
        """Minutes left, at least a second; None without a limit."""
        return None if self._end is None else max(1 / 60, (self._end - time.monotonic()) / 60)

    def watch(self, advance: Advance) -> Advance:
        """The progress callback, which also ends the call (`Paused`) when its time is used up."""

        def watched(done: float, total: float) -> None:
            advance(done, total)
            if done < total and self._end is not None and time.monotonic() >= self._end:
                raise Paused(f"{self._minutes:g} minutes are over")

        return watched
