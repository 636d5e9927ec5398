"""Vector environments for loops that are written for NumPy, on any physics back end."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

from dexcompose_envs.wrappers import ToNumpy


def make_numpy_vec(id: str, num_envs: int, *, backend: str = "mujoco", **kwargs: Any) -> VectorEnv[Any, Any, Any]:
    """`gym.make_vec`, with NumPy arrays also where physics run on a GPU."""
    worlds = gym.make_vec(id, num_envs=num_envs, backend=backend, **kwargs)
    return worlds if backend == "mujoco" else ToNumpy(worlds)
