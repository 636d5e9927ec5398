"""Residual B: what it observes, and the trained policy that corrects pi_B in its own dimensions (Eq. 10)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dexcompose_agents.composition.bounds import bounded, normalised
from dexcompose_agents.composition.composer import Nominal
from dexcompose_agents.composition.tensors import Observation, mask_tensors
from dexcompose_agents.residual.config import ResidualBConfig
from dexcompose_agents.rl.actor_critic import ActorCritic, DeterministicPolicy
from dexcompose_envs import hand
from dexcompose_envs.ownership import FingerMask


def residual_b_features(obs: Observation, nominal: Nominal, mask: FingerMask, previous: Tensor) -> Tensor:
    """Features (N, d): B's task state, the composite context, a_B, its lead over the joints, m* and the last residual.

    Args:
        obs: Observations of all N worlds.
        nominal: What the composition would do without the residual.
        mask: Preserved fingers.
        previous: Previous residual (N, 28), m and rad.
    """
    action = nominal.base_action
    fingers = mask_tensors(mask, action.device)
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
    """

    def __init__(self, network: ActorCritic, *, bound: Sequence[float] | Tensor, mask: FingerMask, pair: str) -> None:
        self.mask, self.pair = mask, pair
        self._policy = DeterministicPolicy(network)
        self.bound = torch.as_tensor(bound, dtype=torch.float32, device=self.device)
        if self.bound.shape != (hand.NUM_ACTIONS,) or network.action_size != hand.NUM_ACTIONS:
            got = f"a bound of shape {tuple(self.bound.shape)} and {network.action_size} outputs"
            raise ValueError(f"residual B has {got}; expected {hand.NUM_ACTIONS} of each")
        self._size = network.observation_size
        self._previous = torch.zeros(0, hand.NUM_ACTIONS, device=self.device)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> ResidualBPolicy:
        """Reads a residual B to a device.

        Raises:
            ValueError: If the file holds another kind of policy.
            WeightsError: If the file is missing, truncated or corrupt.
        """
        network, manifest = ActorCritic.load(path)
        if manifest.get("kind") != "residual_b":
            raise ValueError(f"{path} holds a {manifest.get('kind', 'policy of unknown kind')}; expected a residual_b")
        mask = FingerMask.parse(manifest["mask"])
        return cls(network.to(device), bound=manifest["bound"], mask=mask, pair=manifest["pair"])

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._policy.device

    def save(self, path: str | Path, network: ActorCritic, **facts: Any) -> None:
        """Writes network and manifest; `facts` say what made it."""
        bound = [round(value, 6) for value in self.bound.tolist()]
        network.save(path, {"kind": "residual_b", "pair": self.pair, "mask": str(self.mask), "bound": bound, **facts})

    def reset(self, started: Tensor) -> None:
        """Starts episodes in some of N worlds, those where `started` (N,) is true."""
        if len(self._previous) != len(started):
            self._previous = torch.zeros(len(started), hand.NUM_ACTIONS, device=self.device)
        self._previous = torch.where(started[:, None], 0.0, self._previous)

    def act(self, obs: Observation, nominal: Nominal) -> Tensor:
        """da_B (N, 28) of Eq. 10 in normalised units, zero on A's dimensions and where pi_B does not act yet.

        Args:
            obs: Observations of all N worlds.
            nominal: From `Composer.nominal` in this control step.

        Raises:
            ValueError: If the observations are not those it was trained on.
        """
        features = residual_b_features(obs, nominal, self.mask, self._previous)
        if features.shape[1] != self._size:
            got = features.shape[1]
            raise ValueError(f"residual B of {self.pair} reads {self._size} numbers; the observations give {got}")
        self._previous = bounded(self._policy(features), self.bound, residual_mask(self.mask, nominal))
        return normalised(self._previous)


def residual_mask(mask: FingerMask, nominal: Nominal) -> Tensor:
    """M_B (N, 28), bool, false in worlds where pi_B does not act yet."""
    return nominal.interacting[:, None] & mask_tensors(mask, nominal.interacting.device).action_b


def bound_of(config: ResidualBConfig) -> Tensor:
    """beta_B (28,) of Eq. 10, m and rad: wrist position, wrist Euler angles, finger joints."""
    translation, rotation, fingers = config.bound_translation, config.bound_rotation, config.bound_fingers
    return torch.tensor([translation] * 3 + [rotation] * 3 + [fingers] * hand.NUM_FINGER_JOINTS)
