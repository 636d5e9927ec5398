"""Judging a policy on fixed episodes, each counted once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dexcompose_agents.rl.rollout import RolloutEnv

EVALUATION_SEED = 900_000_000
"""First seed of the episodes by which checkpoints are ranked."""
CONFIRMATION_SEED = 950_000_000
"""First seed of those by which the best of them is compared with no residual: the best of several looks better by the
episodes that chose it than it is."""

Policy = Callable[[Tensor], Tensor]
"""Maps observations (N, d) to residuals u (N, k), both on the task's device."""


@torch.inference_mode(False)
@torch.no_grad()
def evaluate(env: RolloutEnv, policy: Policy | None, rounds: int, seed: int = EVALUATION_SEED) -> dict[str, float]:
    """Mean `return` (undiscounted) and metrics at the end, over the first episode of each world after `rounds` resets.

    The reward of a step that is left out (see `Step.left_out`) doesn't count; what such an end means for a metric is
    the task's to say. No policy is the base arm, u = 0. Episodes are those of the seed and of what follow it.
    """
    totals: dict[str, Tensor] = {}
    zero = torch.zeros(env.num_envs, env.action_size, dtype=torch.float32, device=env.device)
    for round_number in range(rounds):
        observation = env.reset(seed + round_number * env.num_envs)
        running = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
        returns = torch.zeros(env.num_envs, dtype=torch.float32, device=env.device)
        while running.any():
            step = env.step(zero if policy is None else policy(observation))
            returns += torch.where(running & ~step.left_out, step.reward, 0.0)
            ended = running & (step.terminated | step.truncated)
            for name, values in {"return": returns, **step.metrics}.items():
                totals[name] = totals.get(name, 0.0) + total_where(ended, values)
            running &= ~ended
            observation = step.observation
    means = torch.stack(list(totals.values())) / (rounds * env.num_envs)
    return dict(zip(totals, means.tolist(), strict=True))


def total_where(rows: Tensor, values: Tensor) -> Tensor:
    """Sum of `values` (N,) over the rows that are true, float64."""
    return torch.where(rows, values.double(), 0.0).sum()
