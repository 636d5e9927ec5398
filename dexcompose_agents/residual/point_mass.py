"""The smallest task that PPO can learn here: hold a position against the wind. For tests and comparing learners."""

from __future__ import annotations

import torch
from torch import Tensor

from dexcompose_agents.residual.rollout import Step

ARENA = 3.0
WIND = 0.5
TIME_STEP = 0.1


class PointMass:
    """N points in k dimensions that a wind carries away unless a push `tanh(u)` counters it.

    The wind is constant over an episode and observed. The reward is `ARENA` minus the distance to the
    origin; leaving the arena terminates, and an episode is cut off after `episode_steps`.

    Args:
        num_envs: Number of points.
        dimensions: Number of coordinates k; an observation is position and wind, (2 k,). With few coordinates the
            LayerNorm in front of the first layer, which hides an observation's length, would hide the state.
        episode_steps: Time limit.
    """

    def __init__(self, num_envs: int, dimensions: int = 8, episode_steps: int = 50) -> None:
        self.num_envs, self.observation_size, self.action_size = num_envs, 2 * dimensions, dimensions
        self.episode_steps = episode_steps
        self._generator = torch.Generator()
        self._state = torch.zeros(num_envs, 2 * dimensions)
        self._steps = torch.zeros(num_envs, dtype=torch.long)

    def reset(self, seed: int) -> Tensor:
        """Random positions and winds, (N, 2 k)."""
        self._generator.manual_seed(seed)
        self._state = self._draw(self.num_envs)
        self._steps.zero_()
        return self._state.clone()

    def step(self, action: Tensor) -> Step:
        """Moves by wind plus `tanh(action)`."""
        position, wind = self._state.chunk(2, dim=-1)
        state = torch.cat([position + TIME_STEP * (wind + torch.tanh(action)), wind], -1)
        self._steps += 1
        distance = state[:, : self.action_size].norm(dim=-1)
        terminated = distance > ARENA
        truncated = ~terminated & (self._steps >= self.episode_steps)
        reward = ARENA - distance
        ended = terminated | truncated
        final = state.clone()
        state[ended] = self._draw(int(ended.sum()))
        self._steps[ended] = 0
        self._state = state
        valid = torch.ones_like(terminated)
        return Step(state.clone(), reward, terminated, truncated, final, valid, {"distance": distance})

    def _draw(self, count: int) -> Tensor:
        state = torch.rand(count, self.observation_size, generator=self._generator) * 2.0 - 1.0
        state[:, self.action_size :] *= WIND
        return state
