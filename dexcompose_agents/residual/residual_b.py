"""Residual B: what it observes, and the trained policy that corrects pi_B in its own dimensions (Eq. 10)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dexcompose_agents.residual.config import ResidualBConfig
from dexcompose_agents.rl.actor_critic import DeterministicPolicy
from dexcompose_agents.rl.networks import load_network
from dexcompose_agents.rl.residual_network import ResidualNetwork
from dexcompose_agents.runtime.devices import Observation
from dexcompose_envs import hand
from dexcompose_envs.composition.bounds import bounded, normalised
from dexcompose_envs.composition.interactor import Nominal
from dexcompose_envs.composition.masks import mask_arrays, writable
from dexcompose_envs.errors import UsageError
from dexcompose_envs.ownership import FingerMask


def residual_b_features(obs: Observation, nominal: Nominal, mask: FingerMask, previous: Tensor) -> Tensor:
    """Features (N, d): B's task state, the composite context, a_B, its lead over the joints, m* and the last residual.

    a_B is from `nominal`; `previous` is the last residual (N, 28), m and rad.
    """
    action = nominal.base_action
    fingers = mask_arrays(mask, action)
    lead = action - obs["task_b"][:, : hand.NUM_ACTIONS]
    bits = fingers.bits.expand(len(action), -1)
    parts = [obs["task_b"], obs["context"], action * fingers.action_b, lead * fingers.action_b, bits, previous]
    return torch.cat(parts, dim=1)


def residual_b_size(task_b_size: int, context_size: int) -> int:
    """Number of features for observations of these sizes."""
    return task_b_size + context_size + 3 * hand.NUM_ACTIONS + len(hand.FINGERS)


class ResidualBPolicy:
    """The trained residual of one pair, deterministic, recomputed at every control step.

    Args:
        network: Trained on `residual_b_features`.
        bound: beta_B (28,), m and rad.
        mask: The mask it was trained with.
        pair: Such as "GraspBall-PushButton".
        writes_all: Whether it writes all 28 dimensions instead of B's.

    Raises:
        UsageError: If bound or network are not of the hand's size.
    """

    def __init__(
        self,
        network: ResidualNetwork,
        *,
        bound: Sequence[float] | Tensor,
        mask: FingerMask,
        pair: str,
        writes_all: bool = False,
    ) -> None:
        self.mask, self.pair, self.writes_all = mask, pair, writes_all
        self._policy = DeterministicPolicy(network)
        self.device = self._policy.device
        self.bound = torch.as_tensor(bound, dtype=torch.float32, device=self.device)
        if self.bound.shape != (hand.NUM_ACTIONS,) or network.action_size != hand.NUM_ACTIONS:
            got = f"a bound of shape {tuple(self.bound.shape)} and {network.action_size} outputs"
            raise UsageError(f"residual B has {got}; expected {hand.NUM_ACTIONS} of each")
        self._size = network.observation_size
        self._previous = self.bound.new_zeros(0, hand.NUM_ACTIONS)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu", **expected: Any) -> ResidualBPolicy:
        """Reads a residual B to a device; its manifest must say what is `expected` (`pair`, `mask`, `writes_all`, ...).

        Raises:
            ArtefactError: If the file is missing, damaged or not what was expected.
        """
        network, manifest = load_network(path, "residual_b", **expected)
        facts = {name: manifest[name] for name in ("bound", "pair", "writes_all")}
        return cls(network.to(device), mask=FingerMask.parse(manifest["mask"]), **facts)

    def save(self, path: str | Path, network: ResidualNetwork, **facts: Any) -> None:
        """Writes network and manifest; `facts` say what made it."""
        facts |= {"pair": self.pair, "mask": str(self.mask), "writes_all": self.writes_all}
        bound = [round(value, 6) for value in self.bound.tolist()]
        network.save(path, {"kind": "residual_b", "bound": bound, **facts})

    def reset(self, started: Tensor) -> None:
        """Starts episodes in some of N worlds, those where `started` (N,) is true."""
        if len(self._previous) != len(started):
            self._previous = self.bound.new_zeros(len(started), hand.NUM_ACTIONS)
        self._previous = torch.where(started[:, None], 0.0, self._previous)

    def act(self, obs: Observation, nominal: Nominal) -> Tensor:
        """da_B (N, 28) of Eq. 10 in normalised units, zero on A's dimensions and where pi_B does not act yet.

        Raises:
            UsageError: If the observations are not those it was trained on.
        """
        features = residual_b_features(obs, nominal, self.mask, self._previous)
        if features.shape[1] != self._size:
            got = features.shape[1]
            raise UsageError(f"residual B of {self.pair} reads {self._size} numbers; the observations give {got}")
        allowed = writable(self.mask, nominal.interacting, self.writes_all)
        self._previous = bounded(self._policy(features), self.bound, allowed)
        return normalised(self._previous)


def bound_of(config: ResidualBConfig, interaction: str) -> Tensor:
    """beta_B (28,) of Eq. 10 for an interaction skill, m and rad."""
    beta = np.repeat(config.bounds(interaction), (3, 3, hand.NUM_FINGER_JOINTS))
    return torch.tensor(beta, dtype=torch.float32, device="cpu")
