"""SAC from Stable-Baselines3, TQC and CrossQ from sb3-contrib, as residual learners drive them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from dexcompose_agents.rl.mlp_actor import MLPActor
from dexcompose_agents.rl.normalizer import RunningNormalizer
from dexcompose_agents.rl.off_policy_config import OffPolicyConfig
from dexcompose_agents.rl.replay import Replay

ALGORITHMS: Mapping[str, tuple[str, str, float]] = {
    "sac": ("stable_baselines3", "SAC", 3e-4),
    "tqc": ("sb3_contrib", "TQC", 3e-4),
    "crossq": ("sb3_contrib", "CrossQ", 1e-3),
}
"""Module, class and usual step size of each (Haarnoja et al. 2018, Kuznetsov et al. 2020, Bhatt et al. 2024)."""


class SB3Model:
    """One of the algorithms without its own loop: it proposes residuals, and improves from a replay buffer.

    SB3's policy squashes a Gaussian sample u to an action tanh(u) in (-1, 1). The task bounds u as `bound * tanh(u)`
    (Eqs. 7 and 10), so SB3's action is the share of the bound: the task gets the sample, the critic and the replay
    buffer its tanh, and nothing is squashed twice. A deterministic u is the Gaussian's mean, as PPO's is.

    The last layers start such that the mean is exactly zero, and the standard deviation the same in every state.

    Args:
        name: One of `ALGORITHMS`.
        observation_size: d.
        action_size: k.
        replay: What it learns from.
        config: Settings.
        device: Torch device.
    """

    def __init__(
        self,
        name: str,
        observation_size: int,
        action_size: int,
        replay: Replay,
        config: OffPolicyConfig,
        device: torch.device,
    ) -> None:
        self._config, self._sizes = config, (observation_size, action_size)
        self._model = model = _algorithm(name, action_size, config, device)
        # As SB3 does when it loads a file: the spaces are enough, no environment is needed.
        model.observation_space = gym.spaces.Box(-np.inf, np.inf, (observation_size,), np.float32)
        model.action_space = gym.spaces.Box(-1.0, 1.0, (action_size,), np.float32)
        model.n_envs, model.replay_buffer = 1, replay
        model._setup_model()
        model.set_logger(import_module("stable_baselines3.common.logger").Logger(None, []))
        with torch.no_grad():
            for layer in (model.actor.mu, model.actor.log_std):
                layer.weight.zero_()
                layer.bias.zero_()
            model.actor.log_std.bias.fill_(config.initial_log_std)
        model.policy.set_training_mode(False)

    @property
    def updates(self) -> int:
        """Updates made so far."""
        return int(self._model._n_updates)

    @torch.no_grad()
    def sample(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Residuals u (N, k) for normalised observations (N, d), and the standard deviations they were drawn with."""
        mean, log_std, _ = self._model.actor.get_action_dist_params(seen)
        std = log_std.exp()
        return mean + std * torch.randn_like(mean), std

    def improve(self, updates: int) -> dict[str, float]:
        """Makes so many updates, the first ones of all of the critic alone; returns the library's numbers to log."""
        warmup = min(updates, max(0, self._config.critic_warmup - self.updates))
        if warmup:
            self._update(warmup, critic_only=True)
            if self.updates >= self._config.critic_warmup:
                for optimizer in self._frozen_at_first():
                    optimizer.state.clear()  # no momentum from gradients of an untrained critic
        if updates > warmup:
            self._update(updates - warmup, critic_only=False)
        logged = self._model.logger.name_to_value
        return {name.removeprefix("train/"): float(value) for name, value in logged.items() if "loss" in name} | {
            "entropy_coef": float(logged["train/ent_coef"])
        }

    def _update(self, updates: int, critic_only: bool) -> None:
        self._model.frozen = self._frozen_at_first() if critic_only else ()
        with torch.enable_grad():
            self._model.train(updates, self._config.batch_size)
        self._model.policy.set_training_mode(False)  # CrossQ's normalisation layers act by what they saw

    def _frozen_at_first(self) -> tuple[torch.optim.Optimizer, ...]:
        return self._model.actor.optimizer, self._model.ent_coef_optimizer

    def actor(self, normalizer: RunningNormalizer) -> MLPActor:
        """The deterministic policy as it is now, with the critics if they are to say where it acts."""
        model, config = self._model, self._config
        actor = [*folded((*model.actor.latent_pi, model.actor.mu))]
        critics = [[*folded(each)] for each in model.critic.q_networks] if config.prefer else []
        widths = [len(bias) for _, bias in critics[0]] if critics else []
        made = MLPActor(*self._sizes, config.hidden, len(critics), widths).to(normalizer.mean.device)
        with torch.no_grad():
            for layers, found in ((made.actor, actor), *zip(made.critics, critics, strict=True)):
                linear = [layer for layer in layers.children() if isinstance(layer, nn.Linear)]
                for layer, (weight, bias) in zip(linear, found, strict=True):
                    layer.weight.copy_(weight)
                    layer.bias.copy_(bias)
        made.normalizer.load_state_dict(normalizer.state_dict())
        return made.eval()

    def state_dict(self) -> dict[str, Any]:
        """All that its next update depends on, besides the replay buffer."""
        model = self._model
        optimizers = (model.actor.optimizer, model.critic.optimizer, model.ent_coef_optimizer)
        return {
            "policy": model.policy.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "log_entropy_coef": model.log_ent_coef.detach(),
            "updates": self.updates,
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state."""
        model = self._model
        optimizers = (model.actor.optimizer, model.critic.optimizer, model.ent_coef_optimizer)
        model.policy.load_state_dict(state["policy"])
        for optimizer, its_state in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(its_state)
        model.log_ent_coef.copy_(state["log_entropy_coef"])
        model._n_updates = state["updates"]


class _FreezesMixin:
    """An algorithm of which some optimisers can be held still."""

    frozen: tuple[torch.optim.Optimizer, ...] = ()

    def _update_learning_rate(self, optimizers: Any) -> None:
        """SB3 calls it at the start of `train`."""
        super()._update_learning_rate(optimizers)  # type: ignore[misc]
        for optimizer in self.frozen:
            for group in optimizer.param_groups:
                group["lr"] = 0.0


def _algorithm(name: str, action_size: int, config: OffPolicyConfig, device: torch.device) -> Any:
    """The algorithm's object before its networks are made."""
    module, class_name, usual_rate = ALGORITHMS[name]
    base: Any = getattr(import_module(module), class_name)
    options: dict[str, Any] = {} if name == "crossq" else {"tau": config.tau}
    return type(class_name, (_FreezesMixin, base), {})(
        "MlpPolicy",
        None,
        learning_rate=config.learning_rate or usual_rate,
        gamma=config.gamma,
        batch_size=config.batch_size,
        ent_coef=f"auto_{config.initial_entropy_coef!r}",
        target_entropy=config.target_entropy * action_size,
        policy_kwargs={"net_arch": {"pi": [*config.hidden], "qf": [*config.critic_hidden]}},
        device=device,
        _init_setup_model=False,
        **options,
    )


def folded(layers: Iterable[Any]) -> Iterable[tuple[Tensor, Tensor]]:
    """Weights (m, n) and biases (m,) of linear layers with ReLU between, float64.

    Batch renormalisation, which CrossQ puts before linear layers, acts as a fixed scale and shift once trained; both
    become part of the layer that follows.
    """
    scale: Tensor | float = 1.0
    shift: Tensor | None = None
    for layer in layers:
        if isinstance(layer, nn.Linear):
            weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
            yield weight * scale, bias if shift is None else bias + weight @ shift
            scale, shift = 1.0, None
        elif hasattr(layer, "ra_mean"):
            learned, offset = layer.scale.detach().double(), layer.bias.detach().double()
            scale = learned / (layer.ra_var.double() + layer.eps).sqrt()
            shift = offset - layer.ra_mean.double() * scale
        elif not isinstance(layer, (nn.ReLU, nn.Flatten)):
            raise TypeError(f"a layer is a {type(layer).__name__}; expected Linear, ReLU or BatchRenorm")
