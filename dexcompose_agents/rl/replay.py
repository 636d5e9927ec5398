"""The experience that off-policy learners draw from: steps in which the action had an effect, and no others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dexcompose_agents.rl.normalizer import RunningNormalizer
from dexcompose_agents.rl.rollout import Step


class Replay:
    """The newest transitions of N worlds in one row after another; an SB3 algorithm's `train` asks it for `sample`.

    Only valid steps enter (see `Step.valid`), so neither do those that are left out: to the step before one of them,
    the episode was cut off. A transition is terminal if its step terminated. One that was cut off leads to its final
    observation like any other, and is worth what can still be earned there.

    Observations are stored as they are and normalised when drawn. There are `spare` rows beyond `size`: what is added
    to a state can be taken back by restoring its `state_dict`, up to that number, though rows are never copied.

    Args:
        size: Newest transitions to draw from.
        spare: Most transitions between two states that matter.
        observation_size: d.
        action_size: k.
        normalizer: Of observations.
        device: Where rows lie and are drawn.
    """

    _FIELDS = ("observations", "actions", "next_observations", "dones", "rewards")

    def __init__(
        self,
        size: int,
        spare: int,
        observation_size: int,
        action_size: int,
        normalizer: RunningNormalizer,
        device: torch.device,
    ) -> None:
        self.size, self._room, self._normalizer, self._device = size, size + spare, normalizer, device
        self.count = 0
        """Transitions that were ever added."""
        widths = (observation_size, action_size, observation_size, 1, 1)
        # Memory that is never written takes no place.
        self._rows = {
            name: torch.empty(self._room, width, dtype=torch.float32, device=device)
            for name, width in zip(self._FIELDS, widths, strict=True)
        }

    def __len__(self) -> int:
        """Transitions to draw from."""
        return min(self.count, self.size)

    def add(self, observation: Tensor, share: Tensor, step: Step) -> None:
        """Adds the valid ones of N steps: observations (N, d), shares of the bound tanh(u) (N, k), and what came."""
        columns = (observation, share, step.final_observation, step.terminated[:, None], step.reward[:, None])
        valid = step.valid.to(self._device)
        places = (self.count + torch.arange(int(valid.sum()), device=self._device)) % self._room
        for name, values in zip(self._FIELDS, columns, strict=True):
            self._rows[name][places] = values.detach().to(self._device, torch.float32)[valid]
        self.count += len(places)

    def sample(self, batch_size: int, env: Any = None) -> Any:
        """A batch of SB3's `ReplayBufferSamples`, drawn evenly by torch's global generator.

        Args:
            batch_size: Number of transitions.
            env: SB3's own normaliser of observations; there is none here.
        """
        from stable_baselines3.common.type_aliases import ReplayBufferSamples

        ages = torch.randint(len(self), (batch_size,), device=self._device)
        places = (self.count - 1 - ages) % self._room
        drawn = {name: rows[places] for name, rows in self._rows.items()}
        for name in ("observations", "next_observations"):
            drawn[name] = self._normalizer(drawn[name])
        return ReplayBufferSamples(**drawn)

    def state_dict(self) -> dict[str, Any]:
        """What tells two states of one buffer apart, without the rows."""
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what came after a state, or reads one that `with_rows` was asked for."""
        self.count = state["count"]
        if "observations" in state:
            places = self._places(self.count)
            for name, rows in self._rows.items():
                rows[places] = state[name].to(self._device)

    def with_rows(self, state: dict[str, Any]) -> dict[str, Any]:
        """A `state_dict` and the rows (n, ...) that belong to it, oldest first."""
        places = self._places(state["count"])
        return {**state, **{name: rows[places] for name, rows in self._rows.items()}}

    def _places(self, count: int) -> Tensor:
        """Where the transitions are that could be drawn when there had been `count`, oldest first, (n,)."""
        return torch.arange(max(0, count - self.size), count, device=self._device) % self._room
