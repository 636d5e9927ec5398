"""What PPO asks of a task, the experience it collects there, and the advantages computed from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor


class Step(NamedTuple):
    """Result of one control step of N worlds that restart by themselves (SAME_STEP)."""

    observation: Tensor
    """(N, d) float32; for a world whose episode just ended, the first observation of its next episode."""
    reward: Tensor
    """(N,) float32."""
    terminated: Tensor
    """(N,) bool: the episode ended for a reason of the task; nothing can be earned after it."""
    truncated: Tensor
    """(N,) bool: the episode was cut off (time limit); it would have gone on."""
    final_observation: Tensor
    """(N, d) float32: the last observation of an ended episode; equal to `observation` elsewhere, and the same object
    if it is known that no episode ended."""
    valid: Tensor
    """(N,) bool: whether the action had any effect, hence whether the step is learned from. A truncated step that is
    not valid is left out altogether: the episode counts as cut off one step earlier (a simulation that broke down)."""
    metrics: Mapping[str, Tensor]
    """Named (N,) quantities; evaluation averages their values at the last step of each episode."""

    @property
    def left_out(self) -> Tensor:
        """(N,) bool: what came of the step means nothing, neither its reward nor where it led."""
        return self.truncated & ~self.valid


@runtime_checkable
class RolloutEnv(Protocol):
    """N worlds of a task that takes unbounded residuals u; the task itself bounds them as `bound * tanh(u)`.

    All tensors that it takes and gives are on `device`. A task may also say, as `shortcut`, which columns of the
    observation are an error that the residual may simply follow; see `ActorCritic`.
    """

    num_envs: int
    observation_size: int
    action_size: int
    device: torch.device

    def reset(self, seed: int) -> Tensor:
        """Starts new episodes in all worlds, all randomness drawn from the seed; returns observations (N, d)."""
        ...

    def step(self, action: Tensor) -> Step:
        """Executes residuals u (N, k) for one control step."""
        ...


@dataclass
class Rollout:
    """T steps of N worlds; every field is (T, N) except the two that say otherwise."""

    observations: Tensor
    """(T, N, d)."""
    actions: Tensor
    """(T, N, k), the sampled u."""
    log_probs: Tensor
    values: Tensor
    next_values: Tensor
    """Value of the state that the step really led to: of the final observation where an episode ended."""
    rewards: Tensor
    terminated: Tensor
    ended: Tensor
    """Terminated or truncated."""
    valid: Tensor

    @property
    def left_out(self) -> Tensor:
        """See `Step.left_out`."""
        return self.ended & ~self.terminated & ~self.valid

    @classmethod
    def empty(cls, steps: int, worlds: int, observation_size: int, action_size: int, device: torch.device) -> Rollout:
        """Room for T steps of N worlds."""
        shapes = {"observations": (observation_size,), "actions": (action_size,)}
        flags = ("terminated", "ended", "valid")
        return cls(**{
            each.name: torch.zeros(
                steps, worlds, *shapes.get(each.name, ()), device=device,
                dtype=torch.bool if each.name in flags else torch.float32,
            )
            for each in fields(cls)
        })  # fmt: skip


def generalised_advantages(
    rewards: Tensor, values: Tensor, next_values: Tensor, terminated: Tensor, ended: Tensor, left_out: Tensor,
    gamma: float, gae_lambda: float,
) -> Tensor:  # fmt: skip
    """Generalised advantage estimates (Schulman et al. 2016), right at both kinds of episode end.

    A terminated step is worth its reward alone. A truncated step is worth its reward and the value of the state in
    which the episode was cut off. Neither looks into the next episode. To the step before one that is left out, the
    episode was cut off where that step began.

    Tensors are (T, N) and named as in `Rollout`. Advantages are zero where left out; the value targets are
    advantages + values.
    """
    surprises = rewards + torch.where(terminated, 0.0, gamma * next_values) - values
    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        following = surprises[t] + gamma * gae_lambda * torch.where(ended[t], 0.0, following)
        following = torch.where(left_out[t], 0.0, following)
        advantages[t] = following
    return advantages
