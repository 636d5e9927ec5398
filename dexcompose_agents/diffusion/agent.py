"""A base policy as an `Agent` of its skill's own environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexcompose_agents.diffusion.policy import BasePolicy, load_policy
from dexcompose_envs.observations import Array
from dexcompose_envs.skills import make_skill


class PolicyAgent:
    """Acts with a base policy of a skill, which says what observation it reads; worlds that are idle cost nothing."""

    def __init__(self, skill: str, policy: BasePolicy) -> None:
        self.name, self.policy = skill, policy
        self.key = make_skill(skill).observation_key
        self._active = np.zeros(0, bool)

    @classmethod
    def load(cls, skill: str, **options: Any) -> PolicyAgent:
        """The policy of a skill; options are those of `load_policy`."""
        return cls(skill, load_policy(skill, **options))

    def reset(
        self, obs: Mapping[str, Array], info: Mapping[str, Any], env_ids: NDArray[np.int64], seeds: NDArray[np.int64]
    ) -> None:
        """Begins episodes; see `Agent`."""
        if len(self._active) != len(obs[self.key]):
            self._active = np.zeros(len(obs[self.key]), bool)
            self.policy.reset(len(self._active))
        self.policy.seed_envs(seeds, env_ids)
        self._active[env_ids] = True

    def act(self, obs: Mapping[str, Array]) -> Array:
        """Actions (N, 28); see `Agent`."""
        return self.policy.act(obs[self.key], self._active)

    def idle(self, env_ids: NDArray[np.int64]) -> None:
        """Stops acting in some worlds until they begin an episode."""
        self._active[env_ids] = False
