"""Vector environments for loops that are written for NumPy, on any physics back end."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

import dexcompose_envs  # noqa: F401  (registers the environments)

__all__ = ["make_numpy_vec"]


def make_numpy_vec(
    id: str, num_envs: int, *, backend: str = "mujoco", device: str | None = None, **kwargs: Any
) -> VectorEnv[Any, Any, Any]:
    """`gym.make_vec`, with NumPy arrays also where physics run on a GPU.

    Args:
        id: Environment id.
        num_envs: Number of worlds.
        backend: "mujoco" or "warp".
        device: Device of "warp".
        **kwargs: Further arguments of the environment.
    """
    if backend == "mujoco":
        return gym.make_vec(id, num_envs=num_envs, device=device, **kwargs)
    from dexcompose_envs.wrappers import ToNumpy

    return ToNumpy(gym.make_vec(id, num_envs=num_envs, backend=backend, device=device, **kwargs))
