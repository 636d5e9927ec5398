"""A vector environment that speaks tensors, whichever backend steps it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import torch
from torch import Tensor

from dexcompose_agents.residual.config import ResidualConfig
from dexcompose_agents.runtime.devices import Observation, find_device, to_tensors
from dexcompose_envs.composition.task import Layout


class Moved(NamedTuple):
    """Result of one control step of N worlds under SAME_STEP autoreset; rows of all entries are worlds."""

    obs: Observation
    """For a world whose episode just ended, the first observation of its next episode."""
    final_obs: Observation
    """The last observation of an ended episode, the present one elsewhere; the same object as `obs` if it is known
    that no episode ended."""
    terminated: Tensor
    truncated: Tensor
    facts: Mapping[str, Any]
    """The info that belongs to `final_obs`."""

    def number(self, name: str) -> Tensor:
        """A fact (N,) as float32."""
        return torch.as_tensor(self.facts[name], dtype=torch.float32, device=self.terminated.device)

    def flag(self, name: str) -> Tensor:
        """A fact (N,) as bool."""
        return torch.as_tensor(self.facts[name], dtype=torch.bool, device=self.terminated.device)


class Worlds(Protocol):
    """N worlds under SAME_STEP autoreset that speak tensors."""

    env: Any
    device: torch.device
    layout: Layout

    def reset(self, seed: int) -> Observation:
        """Starts new episodes in all worlds; world i is seeded `seed + i`."""

    def wrist_shake(self) -> Tensor:
        """By how much the next step's wrist targets will be off (N, 6), m and rad."""

    def step(self, action: Tensor) -> Moved:
        """Executes normalised targets (N, 28) for one control step."""


class TensorWorlds:
    """N worlds of an environment with SAME_STEP autoreset, on the backend and the device of the settings.

    NumPy arrays become tensors and tensors arrays without a copy. An environment whose `unwrapped.device` is a torch
    device takes and gives tensors there, and nothing is read back from it.
    """

    def __init__(self, env_id: str, num_envs: int, config: ResidualConfig, **options: Any) -> None:
        options.setdefault("sensor_noise", config.sensor_noise)
        if config.backend == "mujoco":
            options["num_threads"] = config.num_threads
        else:
            options |= {"backend": config.backend, "device": config.env_device}
        self.env: Any = gym.make_vec(env_id, num_envs=num_envs, **options)
        device = getattr(self.env.unwrapped, "device", None)
        self._takes_tensors = device is not None
        self.device = find_device("cpu" if device is None else device)
        self.layout: Layout = self.env.unwrapped.layout  # type: ignore[attr-defined]

    def reset(self, seed: int) -> Observation:
        """Starts new episodes in all worlds; world i is seeded `seed + i`."""
        return to_tensors(self.env.reset(seed=seed)[0], self.device)

    def wrist_shake(self) -> Tensor:
        """By how much the next step's wrist targets will be off (N, 6), m and rad, float32; no observation tells."""
        return torch.as_tensor(self.env.unwrapped.wrist_shake(), dtype=torch.float32, device=self.device)

    def step(self, action: Tensor) -> Moved:
        """Executes normalised targets (N, 28) for one control step."""
        obs, _, terminated, truncated, info = self.env.step(action if self._takes_tensors else action.numpy())
        seen = to_tensors(obs, self.device)
        return Moved(
            obs=seen,
            final_obs=to_tensors(info["final_obs"], self.device) if "final_obs" in info else seen,
            terminated=torch.as_tensor(terminated, device=self.device),
            truncated=torch.as_tensor(truncated, device=self.device),
            facts=info.get("final_info", info),
        )
