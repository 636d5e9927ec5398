"""Learners by name; all are made and run alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import torch

from dexcompose_agents.rl.actor_critic import ActorCritic
from dexcompose_agents.rl.config import PPOConfig
from dexcompose_agents.rl.ppo import PPO
from dexcompose_agents.rl.rollout import RolloutEnv
from dexcompose_envs.checks import one_of


class Learner(Protocol):
    """Trains the residual of one task; see `PPO` for what the arguments mean and what a folder holds."""

    device: torch.device
    iteration: int
    seconds: float
    evaluations: list[dict[str, float]]
    """One row per evaluation, `base_<metric>` next to `composed_<metric>`."""

    def __init__(
        self,
        env: RolloutEnv,
        config: PPOConfig,
        *,
        out: str | Path | None = None,
        score: tuple[str, ...] = ("return",),
        progress: Callable[[dict[str, float]], None] | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> None: ...

    def train(self, max_minutes: float | None = None) -> ActorCritic:
        """Trains until the budget is spent, or goes on; returns the best policy of all evaluations."""
        ...

    def best_evaluation(self) -> dict[str, float]:
        """The row of `evaluations` that the best policy comes from."""
        ...


LEARNERS: dict[str, type[Learner]] = {"ppo": PPO}
"""Every learner by its name."""

if TYPE_CHECKING:
    LearnerName: TypeAlias = str
else:
    LearnerName = Literal[tuple(LEARNERS)]  # The command line's choices.


def find_learner(name: str) -> type[Learner]:
    """The class of a learner.

    Raises:
        UsageError: If the name is unknown.
    """
    return LEARNERS[one_of("learner", name, tuple(LEARNERS))]
