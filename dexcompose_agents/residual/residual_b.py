"""Residual B: what it observes, and the trained policy that corrects pi_B in its own dimensions (Eq. 10)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dexcompose_agents.composition import Nominal, Observation
from dexcompose_agents.residual.actor_critic import ActorCritic, DeterministicPolicy
from dexcompose_agents.residual.bounds import NORMALISED_PER_UNIT, Float32, bounded, residual_b_bound
from dexcompose_agents.residual.config import ResidualBConfig
from dexcompose_envs import hand
from dexcompose_envs.ownership import FingerMask


def residual_b_features(obs: Observation, nominal: Nominal, mask: FingerMask, previous: Float32) -> Float32:
    """Features (N, d): B's task state, the composite context, a_B, its lead over the joints, m* and the last residual.

    Args:
        obs: Observations of all N worlds.
        nominal: What the composition would do without the residual.
        mask: Preserved fingers.
        previous: Previous residual (N, 28), m and rad.
    """
    owned = mask.action_mask_b().astype(np.float32)
    position = obs["task_b"][:, : hand.NUM_ACTIONS]
    bits = np.repeat(mask.bits[None].astype(np.float32), len(position), axis=0)
    action = nominal.base_action
    parts = [obs["task_b"], obs["context"], action * owned, (action - position) * owned, bits, previous]
    return np.concatenate(parts, axis=1, dtype=np.float32)


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

    def __init__(self, network: ActorCritic, *, bound: Sequence[float] | Float32, mask: FingerMask, pair: str) -> None:
        self.bound, self.mask, self.pair = np.asarray(bound, np.float32), mask, pair
        if self.bound.shape != (hand.NUM_ACTIONS,) or network.action_size != hand.NUM_ACTIONS:
            got = f"a bound of shape {self.bound.shape} and {network.action_size} outputs"
            raise ValueError(f"residual B has {got}; expected {hand.NUM_ACTIONS} of each")
        self._policy = DeterministicPolicy(network)
        self._size = network.observation_size
        self._previous = np.zeros((0, hand.NUM_ACTIONS), np.float32)

    @classmethod
    def load(cls, path: str | Path) -> ResidualBPolicy:
        """Reads a residual B.

        Raises:
            ValueError: If the file holds another kind of policy.
            WeightsError: If the file is missing, truncated or corrupt.
        """
        network, manifest = ActorCritic.load(path)
        if manifest.get("kind") != "residual_b":
            raise ValueError(f"{path} holds a {manifest.get('kind', 'policy of unknown kind')}; expected a residual_b")
        mask = FingerMask.parse(manifest["mask"])
        return cls(network, bound=manifest["bound"], mask=mask, pair=manifest["pair"])

    def save(self, path: str | Path, network: ActorCritic, **facts: Any) -> None:
        """Writes network and manifest; `facts` say what made it."""
        bound = [round(float(value), 6) for value in self.bound]
        network.save(path, {"kind": "residual_b", "pair": self.pair, "mask": str(self.mask), "bound": bound, **facts})

    def reset(self, num_envs: int, env_ids: np.ndarray) -> None:
        """Starts episodes in some of N worlds."""
        if len(self._previous) != num_envs:
            self._previous = np.zeros((num_envs, hand.NUM_ACTIONS), np.float32)
        self._previous[env_ids] = 0.0

    def act(self, obs: Observation, nominal: Nominal) -> Float32:
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
        action = self._policy(torch.from_numpy(features)).numpy()
        residual = bounded(action, self.bound, residual_mask(self.mask, nominal))
        self._previous[:] = residual
        return normalised(residual)


def residual_mask(mask: FingerMask, nominal: Nominal) -> Float32:
    """M_B (N, 28), zero in worlds where pi_B does not act yet."""
    return (nominal.interacting[:, None] & mask.action_mask_b()).astype(np.float32)


def normalised(residual: Float32) -> Float32:
    """Residuals (N, 28) in m and rad as differences of normalised actions."""
    return residual * NORMALISED_PER_UNIT.astype(np.float32)


def bound_of(config: ResidualBConfig) -> Float32:
    """beta_B (28,), m and rad."""
    return residual_b_bound(config.bound_translation, config.bound_rotation, config.bound_fingers)
