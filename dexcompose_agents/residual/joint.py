"""Fine-tuning stabiliser A while residual B learns: both act in one hand, and both learn from B's reward (Eq. 14)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from dexcompose_agents.residual.stabiliser import StabiliserPolicy
from dexcompose_agents.rl.actor_critic import ActorCritic, DeterministicPolicy
from dexcompose_agents.rl.policy_evaluation import EVALUATION_SEED, Policy
from dexcompose_agents.rl.policy_update import improve, set_learning_rate
from dexcompose_agents.rl.ppo import PPO
from dexcompose_agents.rl.residual_network import ResidualNetwork
from dexcompose_agents.rl.rollout import Rollout
from dexcompose_envs.errors import UsageError
from dexcompose_envs.hand import NUM_FINGER_JOINTS
from dexcompose_envs.ownership import FingerMask

EXPLORATION_LOG_STD = -2.5
"""Log standard deviation of A's u at the start: enough to try something else, little enough to hold on."""


class OwnedActorCritic(ActorCritic):
    """An actor of which only the outputs of preserved joints do anything: no others are explored or learned from."""

    def own(self, joints: Tensor) -> None:
        """Says which (k,), 1 or 0."""
        self.joints = joints

    def sample(self, mean: Tensor, generator: torch.Generator) -> Tensor:
        """See `ActorCritic`."""
        return mean + self.joints * (super().sample(mean, generator) - mean)

    def log_prob(self, mean: Tensor, action: Tensor) -> Tensor:
        """See `ActorCritic`; of the preserved joints alone."""
        std = self.log_std.exp()
        return (torch.distributions.Normal(mean, std).log_prob(action) * self.joints).sum(-1)


class TunedStabiliser(StabiliserPolicy):
    """Stabiliser A while its network changes, in one of three roles: as it was, as it is now, exploring.

    Args:
        before: What is tuned, trained by PPO.
        mask: Preserved fingers.

    Raises:
        UsageError: If it is no network that PPO trained.
    """

    def __init__(self, before: StabiliserPolicy, mask: FingerMask) -> None:
        given = before.network
        if not isinstance(given, ActorCritic):
            raise UsageError(f"the stabiliser's network is {given.NAME!r}; expected one that PPO trained to fine-tune")
        super().__init__(given, bound=before.bound, masks=[mask], skill=before.skill)
        self._before = self._policy
        self.tuned = OwnedActorCritic(**given.sizes()).to(self.device)
        self.tuned.load_state_dict(given.state_dict())
        joints = mask.action_mask_a()[-NUM_FINGER_JOINTS:]
        self.tuned.own(torch.as_tensor(joints, dtype=torch.float32, device=self.device))
        torch.nn.init.constant_(self.tuned.log_std, EXPLORATION_LOG_STD)
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []
        """Features (N, d), u (N, k) and its log density (N,) of every step since `play("exploring")`."""
        self.generator = torch.Generator(self.device)

    def play(self, role: Literal["before", "now", "exploring"]) -> None:
        """Acts as it was before, by the mean of what it is now, or by draws from it."""
        if role == "exploring":
            self.seen, self._policy = [], self._explore
        else:
            self._policy = self._before if role == "before" else DeterministicPolicy(self.tuned)

    def _explore(self, features: Tensor) -> Tensor:
        mean = self.tuned.mean(features)
        action = self.tuned.sample(mean, self.generator)
        self.seen.append((features, action, self.tuned.log_prob(mean, action)))
        return action


class JointPPO(PPO):
    """Residual B's PPO; stabiliser A learns beside it from the same steps and the same advantages, at its own pace.

    A acts after B in each step and reads what B does, so each has a density of its own. The critic is B's.

    Args:
        env: See `Trainer`, like all others.
        config: See there.
        partner: Stabiliser A, which acts in the task.
        partner_learning_rate: Adam's step size for it.
        **options: See there.
    """

    def __init__(
        self, env: Any, config: Any, *, partner: TunedStabiliser, partner_learning_rate: float, **options: Any
    ) -> None:
        self.partner, self.partner_learning_rate = partner, partner_learning_rate
        self.partner_optimizer = torch.optim.Adam(partner.tuned.parameters(), lr=partner_learning_rate, eps=1e-5)
        self.best_partner = copy.deepcopy(partner.tuned)
        super().__init__(env, config, **options)

    def _parts(self) -> Mapping[str, Any]:
        own = {"partner": self.partner.tuned, "best_partner": self.best_partner}
        return {**super()._parts(), **own, "partner_optimizer": self.partner_optimizer}

    def _keep(self, network: ResidualNetwork) -> None:
        super()._keep(network)
        self.best_partner.load_state_dict(self.partner.tuned.state_dict())

    def train(self, max_minutes: float | None = None) -> Any:
        """See `Trainer`; afterwards the stabiliser is, now, the one beside the best policy."""
        network = super().train(max_minutes)
        self.partner.tuned.load_state_dict(self.best_partner.state_dict())
        return network

    def evaluate(
        self, policy: Policy | None, *, rounds: int | None = None, seed: int = EVALUATION_SEED
    ) -> dict[str, float]:
        """See `Trainer`; the base arm has the stabiliser as it was."""
        self.partner.play("before" if policy is None else "now")
        return super().evaluate(policy, rounds=rounds, seed=seed)

    def _collect(self, observation: Tensor) -> tuple[Rollout, Tensor, dict[str, float]]:
        self.partner.generator.manual_seed(1_000_003 * self.config.seed + self.iteration + 500_000)
        self.partner.play("exploring")
        return super()._collect(observation)

    def _update(self, rollout: Rollout, pace: float = 1.0) -> dict[str, float]:
        row = super()._update(rollout, pace)
        set_learning_rate(self.partner_optimizer, pace * self.partner_learning_rate)
        features, actions, log_probs = (
            torch.stack(each).to(self.device) for each in zip(*self.partner.seen, strict=True)
        )
        of_a = replace(rollout, observations=features, actions=actions, log_probs=log_probs)
        tuned = improve(self.partner.tuned, self.partner_optimizer, of_a, self.config, self.partner.generator)
        return row | {f"partner_{name}": number for name, number in tuned.items()}
