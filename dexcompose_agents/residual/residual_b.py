"""Residual B: what it observes, and the trained policy that corrects pi_B in its own dimensions (Eq. 10)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

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
from dexcompose_envs.composition.masks import OwnedDimensions, mask_arrays, writable
from dexcompose_envs.composition.wrist_error import wrist_error
from dexcompose_envs.errors import UsageError
from dexcompose_envs.ownership import FingerMask

ERROR_SCALE = 10.0
"""What the wrist's error, in m and rad, is multiplied by to be of order one."""


def residual_b_features(
    obs: Observation, nominal: Nominal, mask: FingerMask, previous: Tensor, sees_error: bool = True
) -> Tensor:
    """Features (N, d): B's task state, the composite context, a_B, the wrist's error, a_B's lead, m*, last residual.

    The wrist's error (N, 6), 10 x m and 10 x rad, is that of `composition.wrist_error`. The lead (N, 22), normalised,
    is how far released fingers are from where they are told to go next. Unless the policy `sees_error`, the wrist's
    lead takes its error's place.

    a_B is from `nominal`; `previous` is the last residual (N, 28), m and rad.
    """
    action = nominal.base_action
    fingers = mask_arrays(mask, action)
    place = obs["task_b"][:, : hand.NUM_ACTIONS]
    lead = (action - place) * fingers.action_b
    if sees_error:
        lead = torch.cat([ERROR_SCALE * wrist_error(obs), lead[:, hand.NUM_WRIST :]], dim=1)
    bits = fingers.bits.expand(len(action), -1)
    return torch.cat([obs["task_b"], obs["context"], action * fingers.action_b, lead, bits, previous], dim=1)


def residual_b_size(task_b_size: int, context_size: int) -> int:
    """Number of features for observations of these sizes."""
    return task_b_size + context_size + 3 * hand.NUM_ACTIONS + len(hand.FINGERS)


def wrist_error_columns(size: int) -> tuple[int, int]:
    """First column of the wrist's error among so many features, and the column after its last."""
    first = size - 2 * hand.NUM_ACTIONS - len(hand.FINGERS)
    return first, first + hand.NUM_WRIST


class ResidualBPolicy:
    """The trained residual of one pair, deterministic, recomputed at every control step.

    Args:
        network: Trained on `residual_b_features`.
        bound: beta_B (28,), m and rad.
        mask: The mask it was trained with.
        pair: Such as "GraspBall-PushButton".
        writes_all: Whether it writes A's dimensions as well as B's.
        dimensions: Names of the dimensions that the network speaks of, in the order of `hand.ACTION_NAMES`; there is no
            residual elsewhere.
        wrist_error: Whether the wrist's error is among its features.

    Raises:
        UsageError: If the bound is not of the hand's size, or the network's output not of its dimensions'.
    """

    def __init__(
        self,
        network: ResidualNetwork,
        *,
        bound: Sequence[float] | Tensor,
        mask: FingerMask,
        pair: str,
        writes_all: bool = False,
        dimensions: Sequence[str] = hand.ACTION_NAMES,
        wrist_error: bool = True,
    ) -> None:
        self.mask, self.pair, self.writes_all = mask, pair, writes_all
        self.dimensions, self._wrist_error = tuple(dimensions), wrist_error
        self._owned = dimensions_named(dimensions)
        self._policy = DeterministicPolicy(network)
        self.device = self._policy.device
        self.bound = torch.as_tensor(bound, dtype=torch.float32, device=self.device)
        if self.bound.shape != (hand.NUM_ACTIONS,) or network.action_size != len(self.dimensions):
            got = f"a bound of shape {tuple(self.bound.shape)} and {network.action_size} outputs"
            raise UsageError(f"residual B has {got}; expected {hand.NUM_ACTIONS} and {len(self.dimensions)}")
        self._size = network.observation_size
        self._previous = self.bound.new_zeros(0, hand.NUM_ACTIONS)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu", **expected: Any) -> ResidualBPolicy:
        """Reads a residual B to a device; its manifest must say what is `expected` (`pair`, `mask`, `writes_all`, ...).

        Raises:
            ArtefactError: If the file is missing, damaged or not what was expected.
        """
        network, manifest = load_network(path, "residual_b", **expected)
        facts = {name: manifest[name] for name in ("bound", "pair", "writes_all", "dimensions", "wrist_error")}
        return cls(network.to(device), mask=FingerMask.parse(manifest["mask"]), **facts)

    def save(self, path: str | Path, network: ResidualNetwork, **facts: Any) -> None:
        """Writes network and manifest; `facts` say what made it."""
        facts |= {"pair": self.pair, "mask": str(self.mask), "writes_all": self.writes_all}
        facts |= {"dimensions": [*self.dimensions], "wrist_error": self._wrist_error}
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
        features = residual_b_features(obs, nominal, self.mask, self._previous, self._wrist_error)
        if features.shape[1] != self._size:
            got = features.shape[1]
            raise UsageError(f"residual B of {self.pair} reads {self._size} numbers; the observations give {got}")
        allowed = writable(self.mask, nominal.interacting, self.writes_all)
        self._previous = bounded(self._owned.spread(self._policy(features)), self.bound, allowed)
        return normalised(self._previous)


def residual_dimensions(
    moves: Sequence[str], mask: FingerMask, residual_writes: Literal["released", "all"] = "released"
) -> tuple[str, ...]:
    """Names of the dimensions that residual B speaks of: of "wrist" and "fingers", those that it may write.

    Raises:
        UsageError: If that leaves none.
    """
    wrist, fingers = hand.WRIST_JOINTS, hand.JOINTS
    if residual_writes == "released":
        fingers = tuple(name for name, kept in zip(fingers, mask.joint_mask(), strict=True) if not kept)
    chosen = (*(wrist if "wrist" in moves else ()), *(fingers if "fingers" in moves else ()))
    if not chosen:
        raise UsageError(f"mask {mask} leaves residual B none of the dimensions {', '.join(moves)}; expected some")
    return chosen


def dimensions_named(names: Sequence[str]) -> OwnedDimensions:
    """Dimensions by their names in `hand.ACTION_NAMES`, in its order.

    Raises:
        UsageError: If a name is unknown, twice or out of order.
    """
    known = [name for name in hand.ACTION_NAMES if name in names]
    if known != [*names]:
        expected = f"some of {', '.join(hand.ACTION_NAMES)}, in this order"
        raise UsageError(f"dimensions are {', '.join(names)}; expected {expected}")
    return OwnedDimensions(np.array([hand.ACTION_NAMES.index(name) for name in known], np.intp))


def bound_of(config: ResidualBConfig, interaction: str) -> Tensor:
    """beta_B (28,) of Eq. 10 for an interaction skill, m and rad."""
    beta = np.repeat(config.bounds(interaction), (3, 3, hand.NUM_FINGER_JOINTS))
    return torch.tensor(beta, dtype=torch.float32, device="cpu")
