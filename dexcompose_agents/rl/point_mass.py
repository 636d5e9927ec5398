"""The smallest task that PPO can learn here: hold a position against the wind. For tests and comparing learners."""

from __future__ import annotations

import torch
from torch import Tensor

from dexcompose_agents.rl.rollout import Step
from dexcompose_agents.runtime.devices import find_device

ARENA = 3.0
WIND = 0.5
TIME_STEP = 0.1


class PointMass:
    """N points in k dimensions that a wind carries away unless a push `tanh(u)` counters it.

    The wind is constant over an episode and observed. The reward is `ARENA` minus the distance to the
    origin; leaving the arena terminates, and an episode is cut off after `episode_steps`.

    An observation is position and wind, (2 k,). With few dimensions k the LayerNorm in front of the first layer, which
    hides an observation's length, would hide the state.
    """

    def __init__(
        self, num_envs: int, dimensions: int = 8, episode_steps: int = 50, device: str | torch.device = "cpu"
    ) -> None:
        self.num_envs, self.observation_size, self.action_size = num_envs, 2 * dimensions, dimensions
        self.episode_steps = episode_steps
        self.device = find_device(device)
        self._generator = torch.Generator(self.device)
        self._state = torch.zeros(num_envs, 2 * dimensions, dtype=torch.float32, device=self.device)
        self._steps = torch.zeros(num_envs, dtype=torch.long, device=self.device)

    def reset(self, seed: int) -> Tensor:
        """Random positions and winds, (N, 2 k)."""
        self._generator.manual_seed(seed)
        self._state = self._draw()
        self._steps = torch.zeros_like(self._steps)
        return self._state

    def step(self, action: Tensor) -> Step:
        """Moves by wind plus `tanh(action)`."""
        position, wind = self._state.chunk(2, dim=-1)
        state = torch.cat([position + TIME_STEP * (wind + torch.tanh(action)), wind], -1)
        steps = self._steps + 1
        distance = state[:, : self.action_size].norm(dim=-1)
        terminated = distance > ARENA
        truncated = ~terminated & (steps >= self.episode_steps)
        ended = terminated | truncated
        self._state = torch.where(ended[:, None], self._draw(), state)
        self._steps = torch.where(ended, 0, steps)
        valid = torch.ones_like(terminated)
        return Step(self._state, ARENA - distance, terminated, truncated, state, valid, {"distance": distance})

    def _draw(self) -> Tensor:
        """A start for every point, (N, 2 k)."""
        shape = (self.num_envs, self.observation_size)
        state = torch.rand(shape, generator=self._generator, dtype=torch.float32, device=self.device) * 2.0 - 1.0
        state[:, self.action_size :] *= WIND
        return state
