"""A vector environment as an rsl_rl `VecEnv`.

Importing this module imports torch; tensordict is imported when an adapter is made, rsl_rl itself never.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

import torch
from gymnasium.spaces.utils import flatdim
from gymnasium.vector import VectorEnv
from torch import Tensor

from dexcompose_envs.arrays import to_numpy
from dexcompose_envs.errors import UsageError
from dexcompose_envs.wrappers.common import array_device, check_same_step
from dexcompose_envs.wrappers.side import Seed

_LOGGED = ("is_success", "return", "length")


class RslRlVecEnv:
    """Lets rsl_rl train on N worlds that step at once; torch environments are never waited for.

    Each key of the observation is an observation group, so a runner's configuration names them, for example
    `"obs_groups": {"actor": ["task_b", "context"], "critic": ["task_b", "context"]}`; an observation without keys is
    the group "policy". `extras` of a step has `time_outs` (N,) for the bootstrap and, as `log`, means over each world's
    latest finished episode: `Episode/is_success`, `Episode/return`, `Episode/length`; NaN until an episode has ended.

    Args:
        venv: A vector environment in SAME_STEP autoreset mode, NumPy or torch, wrapped or not. It is reset at once.
        seed: Seed of that reset, as for `venv.reset`.
        device: Where rsl_rl gets its tensors; None: where the environment's are, the CPU if they are NumPy arrays.
        max_episode_length: Control steps after which an episode is truncated; None: as the environment's spec says.
        cfg: What rsl_rl's loggers keep as the environment's configuration.

    Raises:
        ImportError: If tensordict isn't installed.
        UsageError: If the vector environment resets in another mode, or has no spec that names an episode's length.
    """

    def __init__(
        self,
        venv: VectorEnv[Any, Any, Any],
        *,
        seed: Seed = None,
        device: torch.device | str | None = None,
        max_episode_length: int | None = None,
        cfg: dict[str, Any] | object | None = None,
    ) -> None:
        check_same_step(venv, "RslRlVecEnv")
        try:
            self._tensor_dict = import_module("tensordict").TensorDict
        except ImportError as error:
            raise ImportError("RslRlVecEnv needs the package tensordict: pip install rsl-rl-lib tensordict") from error
        self.venv, self.num_envs, self.num_actions = venv, venv.num_envs, flatdim(venv.single_action_space)
        if max_episode_length is None and venv.spec is not None:
            # `gym.make_vec(..., max_episode_steps=n)` writes n into the spec's kwargs only.
            max_episode_length = venv.spec.kwargs.get("max_episode_steps", venv.spec.max_episode_steps)
        if max_episode_length is None:
            raise UsageError(
                f"the spec of {venv} is {venv.spec}; expected max_episode_steps in it, or max_episode_length"
            )
        self.max_episode_length, self.cfg = max_episode_length, {} if cfg is None else cfg
        self._is_torch = array_device(venv) is not None
        self.device = torch.device(device or array_device(venv) or "cpu")
        self._observation = self._group(venv.reset(seed=seed)[0])  # type: ignore[arg-type]
        self._lengths = torch.zeros(self.num_envs, dtype=torch.long, device=self.device)
        self._returns = torch.zeros(self.num_envs, device=self.device)
        self._latest = {name: torch.full_like(self._returns, torch.nan) for name in _LOGGED}

    @property
    def unwrapped(self) -> VectorEnv[Any, Any, Any]:
        """The bare vector environment."""
        return self.venv.unwrapped

    @property
    def episode_length_buf(self) -> Tensor:
        """Control steps of each world's episode so far (N,), int64."""
        return self._lengths

    @episode_length_buf.setter
    def episode_length_buf(self, lengths: Tensor) -> None:
        reason = "the environment counts its own steps, so init_at_random_ep_len has no effect"
        warnings.warn(f"episode_length_buf can't be set: {reason}", stacklevel=2)

    def get_observations(self) -> Any:
        """The present observations, a `TensorDict` of groups (N, size) float32."""
        return self._observation

    def step(self, actions: Tensor) -> tuple[Any, Tensor, Tensor, dict[str, Any]]:
        """Steps all worlds with actions (N, D), clipped to [-1, 1] by the environment.

        Returns:
            Observations (a `TensorDict`), of the next episode where one ended; rewards (N,) float32; dones (N,) int64;
            and extras.
        """
        given = actions if self._is_torch else to_numpy(actions)
        observation, reward, terminated, truncated, info = self.venv.step(given)
        rewards = self._tensor(reward, torch.float32)
        ended, time_outs = self._tensor(terminated | truncated), self._tensor(truncated & ~terminated)
        self._observation = self._group(observation)
        # Fresh tensors instead of changes in place: rsl_rl steps in inference mode, others may not.
        self._lengths, self._returns = self._lengths + 1, self._returns + rewards
        # NumPy environments have no `final_info` while no episode ends; then `info` is as good, for nothing is taken.
        success = self._tensor(info.get("final_info", info)["is_success"])
        for name, value in zip(_LOGGED, (success, self._returns, self._lengths), strict=True):
            self._latest[name] = torch.where(ended, value.float(), self._latest[name])
        self._lengths, self._returns = self._lengths.masked_fill(ended, 0), self._returns.masked_fill(ended, 0.0)
        log = {f"Episode/{name}": torch.nanmean(value) for name, value in self._latest.items()}
        return self._observation, rewards, ended.long(), {"time_outs": time_outs, "log": log}

    def close(self) -> None:
        """Closes the vector environment."""
        self.venv.close()

    def _tensor(self, array: Any, dtype: torch.dtype | None = None) -> Tensor:
        return torch.as_tensor(array, dtype=dtype, device=self.device)

    def _group(self, observation: Any) -> Any:
        groups = observation if isinstance(observation, dict) else {"policy": observation}
        tensors = {key: self._tensor(value, torch.float32) for key, value in groups.items()}
        return self._tensor_dict(tensors, batch_size=[self.num_envs], device=self.device)
