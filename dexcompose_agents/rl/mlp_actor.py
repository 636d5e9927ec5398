"""A plain multilayer perceptron that acts, and perhaps critics that say where: what off-policy learners make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dexcompose_agents.rl.residual_network import ResidualNetwork
from dexcompose_agents.runtime.devices import plain_torch


class MLPActor(ResidualNetwork):
    """Linear layers with ReLU between them on normalised observations.

    With critics the residual is only used where they prefer it: where the least of their values of it exceeds the least
    of their values of no residual, u = 0. Each critic reads the normalised observation and tanh(u), the share of the
    bound; several outputs of one (quantiles of the return) count by their mean.

    Args:
        observation_size: d.
        action_size: k.
        hidden: Widths of the actor's hidden layers.
        critics: Number of critics; 0 uses the residual everywhere.
        critic_widths: Widths of a critic's hidden layers and of its output.
    """

    NAME = "mlp_actor"
    LEAST: ClassVar[Mapping[str, Any]] = MappingProxyType({"hidden": [1], "critics": 0, "critic_widths": []})

    @torch.inference_mode(False)
    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden: Sequence[int],
        critics: int = 0,
        critic_widths: Sequence[int] = (),
    ) -> None:
        super().__init__(observation_size, action_size)
        self.hidden, self.critic_widths = tuple(hidden), tuple(critic_widths)
        with plain_torch():
            self.actor = _perceptron(observation_size, *hidden, action_size)
            read = observation_size + action_size
            self.critics = nn.ModuleList(_perceptron(read, *critic_widths) for _ in range(critics))

    def sizes(self) -> dict[str, Any]:
        """See `ResidualNetwork`."""
        return {
            "observation_size": self.observation_size,
            "action_size": self.action_size,
            "hidden": [*self.hidden],
            "critics": len(self.critics),
            "critic_widths": [*self.critic_widths],
        }

    def mean(self, observation: Tensor) -> Tensor:
        """The deterministic residual (..., k) of raw observations (..., d)."""
        seen = self.normalizer(observation)
        residual: Tensor = self.actor(seen)
        if not self.critics:
            return residual
        preferred = self._least_value(seen, residual) > self._least_value(seen, torch.zeros_like(residual))
        return torch.where(preferred, residual, 0.0)

    @torch.no_grad()
    def silence(self) -> None:
        """See `ResidualNetwork`."""
        last = self.actor[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def _least_value(self, seen: Tensor, residual: Tensor) -> Tensor:
        """The lower of the critics' values (..., 1) of residuals (..., k)."""
        read = torch.cat([seen, residual.tanh()], -1)
        return torch.stack([critic(read).mean(-1, keepdim=True) for critic in self.critics]).amin(0)


def _perceptron(*widths: int) -> nn.Sequential:
    """Linear layers of these widths, the first of which is the input's."""
    layers: list[nn.Module] = []
    for width, next_width in pairwise(widths):
        layers += [nn.Linear(width, next_width), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
