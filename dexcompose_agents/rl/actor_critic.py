"""The network of both residuals: one shared trunk, a Gaussian head that starts at zero, and a value head."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dexcompose_agents.artefacts.weights import weights_hash
from dexcompose_agents.rl.residual_network import ResidualNetwork
from dexcompose_agents.runtime.threads import one_thread

HIDDEN = (256, 256, 128)
INITIAL_LOG_STD = -1.5
SHORTCUT_GAIN = 30.0
"""What a shortcut's inputs are multiplied by. Adam moves all weights at one pace, and the residual follows hundreds of
the trunk's but few of the shortcut's; with this a step of the latter changes it as much."""
_PLAIN: Any = {"dtype": torch.float32, "device": "cpu"}  # whatever torch's defaults are


class ActorCritic(ResidualNetwork):
    """Gaussian policy over unbounded residuals u and a value, on one shared trunk.

    The trunk normalises the observation, then applies LayerNorm, Linear, ELU per hidden layer. The mean layer is zero
    at the start, so that the mean residual is exactly zero; the log standard deviation is a free parameter. Whoever
    executes u bounds it as `bound * tanh(u)` (Eqs. 7 and 10). The value head predicts normalised returns, so that the
    value loss does not drown the policy's gradient in the shared trunk, whatever the reward's unit.

    With a `shortcut` the mean also follows some components of the normalised observation directly, by a linear layer
    that is zero at the start: a feedback from what the task knows to be an error is a matter of a few weights then.

    Args:
        observation_size: d.
        action_size: k.
        hidden: See `PPOConfig`.
        initial_log_std: See `PPOConfig`.
        shortcut: First column of these components, and the column after their last; None for no shortcut.
    """

    NAME = "actor_critic"
    LEAST: ClassVar[Mapping[str, Any]] = MappingProxyType({"hidden": [1], "shortcut": None})

    return_mean: Tensor
    return_std: Tensor

    # Orthogonal starts are decompositions, which round differently for different numbers of threads.
    @one_thread()
    @torch.inference_mode(False)
    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden: Sequence[int] = HIDDEN,
        initial_log_std: float = INITIAL_LOG_STD,
        shortcut: Sequence[int] | None = None,
    ) -> None:
        super().__init__(observation_size, action_size)
        self.hidden, self.shortcut = tuple(hidden), None if shortcut is None else tuple(shortcut)
        self.register_buffer("return_mean", torch.zeros((), **_PLAIN))
        self.register_buffer("return_std", torch.zeros((), **_PLAIN))  # 0: nothing seen yet, values are as they come.
        layers: list[nn.Module] = []
        width = observation_size
        for next_width in hidden:
            linear = nn.Linear(width, next_width, **_PLAIN)
            nn.init.orthogonal_(linear.weight, math.sqrt(2))
            nn.init.zeros_(linear.bias)
            layers += [nn.LayerNorm(width, **_PLAIN), linear, nn.ELU()]
            width = next_width
        self.trunk = nn.Sequential(*layers)
        self.mean_layer = nn.Linear(width, action_size, **_PLAIN)
        nn.init.zeros_(self.mean_layer.weight)
        nn.init.zeros_(self.mean_layer.bias)
        if self.shortcut is not None:
            first, end = self.shortcut
            self.direct_layer = nn.Linear(end - first, action_size, bias=False, **_PLAIN)
            nn.init.zeros_(self.direct_layer.weight)
        self.log_std = nn.Parameter(torch.full((action_size,), float(initial_log_std), **_PLAIN))
        self.value_layer = nn.Linear(width, 1, **_PLAIN)
        nn.init.orthogonal_(self.value_layer.weight, 1.0)
        nn.init.zeros_(self.value_layer.bias)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean residual (..., k) and value (...) of observations (..., d)."""
        seen = self.normalizer(observation)
        features = self.trunk(seen)
        mean, value = self.mean_layer(features), self.value_layer(features).squeeze(-1)
        if self.shortcut is not None:
            first, end = self.shortcut
            mean = mean + self.direct_layer(SHORTCUT_GAIN * seen[..., first:end])
        return mean, value * self._return_scale() + self.return_mean

    def _return_scale(self) -> Tensor:
        return torch.where(self.return_std > 0, self.return_std, torch.ones_like(self.return_std))

    @torch.no_grad()
    def track_returns(self, returns: Tensor, weight: float = 0.1) -> None:
        """Moves the value head's scale towards that of returns (n,); the values that it predicts stay what they were.

        That is PopArt (van Hasselt et al. 2016). The spread is that within a batch: returns that drift from one
        iteration to the next, as a bootstrapped value grows, would otherwise hide the differences between states.
        """
        share = torch.where(self.return_std > 0, weight, torch.ones_like(self.return_std))
        old_mean, old_scale = self.return_mean.clone(), self._return_scale().clone()
        self.return_mean.lerp_(returns.mean(), share)
        self.return_std.lerp_(returns.std().clamp(min=1e-4), share)
        self.value_layer.weight.mul_(old_scale / self.return_std)
        self.value_layer.bias.copy_((self.value_layer.bias * old_scale + old_mean - self.return_mean) / self.return_std)

    def mean(self, observation: Tensor) -> Tensor:
        """Mean residual (..., k), the deterministic policy."""
        return self.forward(observation)[0]

    @torch.no_grad()
    def silence(self) -> None:
        """Makes the mean residual exactly zero again, as it was at the start."""
        nn.init.zeros_(self.mean_layer.weight)
        nn.init.zeros_(self.mean_layer.bias)
        if self.shortcut is not None:
            nn.init.zeros_(self.direct_layer.weight)

    def sample(self, mean: Tensor, generator: torch.Generator) -> Tensor:
        """Draws residuals (..., k) around their means (..., k)."""
        noise = torch.randn(mean.shape, generator=generator, device=generator.device, dtype=torch.float32)
        return mean + self.log_std.exp() * noise.to(mean.device)

    def log_prob(self, mean: Tensor, action: Tensor) -> Tensor:
        """Log density (...) of residuals (..., k) under the diagonal Gaussian around `mean`."""
        z = (action - mean) / self.log_std.exp()
        return (-0.5 * z.square() - self.log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        """Entropy of the Gaussian, the same in every state."""
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()

    def sizes(self) -> dict[str, Any]:
        """See `ResidualNetwork`."""
        sizes = {"observation_size": self.observation_size, "action_size": self.action_size}
        shortcut = {} if self.shortcut is None else {"shortcut": [*self.shortcut]}
        return {**sizes, "hidden": [*self.hidden], **shortcut}


class DeterministicPolicy:
    """The mean residual of a network, computed so that a row's result does not depend on its neighbours.

    Matrix products round differently for different batch sizes. In double precision those differences disappear when
    the result is rounded to single precision, so an episode comes out the same however many run beside it.
    """

    @torch.inference_mode(False)
    def __init__(self, network: ResidualNetwork) -> None:
        self.network = copy.deepcopy(network).double().eval()

    @property
    def weights_hash(self) -> str:
        """See `artefacts.weights.weights_hash`."""
        return weights_hash(self.network.state_dict())

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.network.normalizer.mean.device

    @torch.no_grad()
    def __call__(self, observation: Tensor) -> Tensor:
        """Mean residual (N, k), float32, of observations (N, d)."""
        with one_thread(self.device):
            return self.network.mean(observation.to(torch.float64)).to(torch.float32)
