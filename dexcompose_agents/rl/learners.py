"""Learners by name; all are made and run alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias

import torch

from dexcompose_agents.rl.off_policy import SAC, TQC, CrossQ
from dexcompose_agents.rl.policy_evaluation import EVALUATION_SEED, Policy
from dexcompose_agents.rl.ppo import PPO
from dexcompose_agents.rl.residual_network import ResidualNetwork
from dexcompose_agents.rl.rollout import RolloutEnv
from dexcompose_envs.checks import one_of


class Learner(Protocol):
    """Trains the residual of one task; see `PPO` for what the arguments mean and what a folder holds."""

    SETTINGS: ClassVar[str]
    """Which of the settings in `residual.config.ResidualConfig` are its own: "ppo" or "off_policy"."""

    device: torch.device
    iteration: int
    seconds: float
    evaluations: list[dict[str, float]]
    """One row per evaluation, `base_<metric>` next to `composed_<metric>`."""
    metrics: list[dict[str, float]]
    """One row per iteration."""

    def __init__(
        self,
        env: RolloutEnv,
        config: Any,
        *,
        out: str | Path | None = None,
        score: tuple[str, ...] = ("return",),
        progress: Callable[[dict[str, float]], None] | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> None: ...

    @property
    def network(self) -> ResidualNetwork:
        """The policy as it is now."""
        ...

    def train(self, max_minutes: float | None = None) -> ResidualNetwork:
        """Trains until the budget is spent, or goes on; returns the best policy of all evaluations."""
        ...

    def evaluate(
        self, policy: Policy | None, *, rounds: int | None = None, seed: int = EVALUATION_SEED
    ) -> dict[str, float]:
        """See `Trainer.evaluate`."""
        ...

    def best_evaluation(self) -> dict[str, float]:
        """The row of `evaluations` that the best policy comes from."""
        ...


LEARNERS: dict[str, type[Learner]] = {"ppo": PPO, "sac": SAC, "tqc": TQC, "crossq": CrossQ}
"""Every learner by its name."""
LEARNER_SETTINGS = tuple(dict.fromkeys(each.SETTINGS for each in LEARNERS.values()))
"""Names under which settings of learners go; several learners may share theirs."""

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
