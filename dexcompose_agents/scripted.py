"""The scripted expert behind the calls of a base policy: it makes held states where no policy is trained yet."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexcompose_envs.skills import make_expert

__all__ = ["ScriptedRetention"]


class ScriptedRetention:
    """The expert of a retention skill as a policy that acts in some of N worlds at a time."""

    def __init__(self, skill: str) -> None:
        """An expert of ``skill``."""
        self._expert: Any = make_expert(skill)
        self._seeds: dict[int, int] = {}
        self._num_envs = 0

    def reset(self, num_envs: int) -> None:
        """Starts afresh with so many worlds."""
        self._num_envs = num_envs

    def seed_envs(self, seeds: NDArray[np.int64], env_ids: NDArray[np.int64]) -> None:
        """Starts a new episode in some worlds: the expert plans it when it next sees them."""
        self._seeds.update(zip(env_ids.tolist(), seeds.tolist(), strict=True))

    def act(self, task_obs: NDArray[np.float32], env_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Actions (n, 28) for the task observations (n, d) of some worlds, which must be all that are under way."""
        everyone = np.zeros((self._num_envs, task_obs.shape[1]), np.float32)
        everyone[env_ids] = task_obs
        obs: dict[str, Any] = {self._expert.key: everyone}
        new = [world for world in env_ids.tolist() if world in self._seeds]
        if new:
            self._expert.reset(obs, {}, new, [self._seeds.pop(world) for world in new])
        return self._expert.act(obs)[env_ids]
