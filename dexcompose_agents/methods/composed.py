"""A composition method made from its `CompositionSpec`: mask, pi_B, stabiliser A and residual B under Eq. 12."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dexcompose_agents.artefacts.shipped import choose_mask, file_hash, policy_path, residual_path, stabiliser_path
from dexcompose_agents.diffusion.policy import BasePolicy, load_policy
from dexcompose_agents.methods.parts import load_stabiliser
from dexcompose_agents.methods.spec import SHIPPED, CompositionSpec
from dexcompose_agents.residual.residual_b import ResidualBPolicy
from dexcompose_agents.runtime.devices import find_device
from dexcompose_agents.runtime.tensors import as_given, to_tensors
from dexcompose_envs.composition import Composer, CompositionTask
from dexcompose_envs.errors import UsageError
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.scene import model_hash_of
from dexcompose_envs.skills import parse_chain

__all__ = ["ComposedMethod"]

_DESCRIBED = ("residual_writes", "hide_preserved", "hold_steps", "transition_steps")
"""What of a spec determines actions besides mask and weights."""


class ComposedMethod:
    """Hold, transition, interact with preserved fingers at ``q_ref + dq_A`` and the rest at ``a_B + da_B`` (Eq. 12).

    Args:
        name: Name in tables.
        spec: What it is made of.
        pair: "GraspBall-PushButton", or a chain with more interactions.
        mask: Preserved fingers, or the file of a selection, where the spec leaves them open.
        selector: Selector whose shipped mask is used, or the one that chose ``mask``.
        stabiliser: Weights of stabiliser A instead of the shipped ones.
        residual: Weights of residual B instead of the shipped ones.
        base_policy: pi_B, or one for each interaction; by default the shipped ones.
        device: Torch device of the weights and of all arithmetic; actions go back to where observations come from.

    Raises:
        UsageError: If there is no such device, or pi_B is missing for an interaction.
        ArtefactError: If a file is missing, damaged, or belongs to another skill, pair, mask or physics model.
    """

    def __init__(
        self,
        name: str,
        spec: CompositionSpec,
        pair: str,
        *,
        mask: str | FingerMask | Path | None = None,
        selector: str | None = None,
        stabiliser: str | Path | None = None,
        residual: str | Path | None = None,
        base_policy: BasePolicy | Sequence[BasePolicy] | None = None,
        device: str = "cpu",
    ) -> None:
        self.name, self.spec, self.pair = name, spec, pair
        self.device = find_device(device)
        retention, interactions = parse_chain(pair)
        self.mask, self.selector = _mask_of(spec, pair, str(retention), mask, selector)
        self._description: dict[str, Any] = {
            "mask": str(self.mask),
            "base_policy": _describe_policies(interactions, base_policy),
            **{name: getattr(spec, name) for name in _DESCRIBED},
        }
        self._residual: ResidualBPolicy | None = None
        path = _path(residual or spec.residual, residual_path, pair)
        if path is not None:
            self._residual = ResidualBPolicy.load(
                path,
                self.device,
                pair=pair,
                mask=str(self.mask),
                writes_all=spec.residual_writes == "all",
                model_hash=model_hash_of(pair),
            )
        self._description["residual"] = None if path is None else file_hash(path)
        path = _path(stabiliser or spec.stabiliser, stabiliser_path, pair)
        holder = None if path is None else load_stabiliser(pair, self.mask, path=path, device=self.device)
        self._description["stabiliser"] = None if path is None else file_hash(path)
        self._composer = Composer(
            CompositionTask.of_name(pair),
            self.mask,
            _policies(interactions, base_policy, self.device),
            holder,
            reference=spec.reference,
            hide_preserved=spec.hide_preserved,
            residual_writes_all=spec.residual_writes == "all",
            hold_steps=spec.hold_steps,
            transition_steps=spec.transition_steps,
        )

    def reset(
        self,
        obs: Mapping[str, Any],
        info: Mapping[str, Any],
        env_ids: npt.NDArray[np.int64],
        seeds: npt.NDArray[np.int64],
    ) -> None:
        """Start episodes in some worlds; see ``Agent.reset``. ``obs`` may hold torch tensors."""
        started = np.zeros(len(obs["context"]), bool)
        noise_seeds = np.zeros(len(started), np.int64)
        started[env_ids], noise_seeds[env_ids] = True, seeds
        mask = torch.as_tensor(started, device=self.device)
        self._composer.reset(to_tensors(obs, self.device), mask, torch.as_tensor(noise_seeds, device=self.device))
        if self._residual is not None:
            self._residual.reset(mask)

    def act(self, obs: Mapping[str, Any]) -> Any:
        """Actions (N, 28); see ``Agent.act``.

        Returns:
            A NumPy array if ``obs`` holds NumPy arrays, a tensor on their device if it holds torch tensors.
        """
        seen = to_tensors(obs, self.device)
        nominal = self._composer.nominal(seen)
        delta = None if self._residual is None else self._residual.act(seen, nominal)
        return as_given(self._composer.compose(seen, nominal, delta), obs["context"])

    def describe(self) -> dict[str, Any]:
        """Mask, hashes of the weights, and how they are composed."""
        return dict(self._description)


def _mask_of(
    spec: CompositionSpec, pair: str, retention: str, mask: str | FingerMask | Path | None, selector: str | None
) -> tuple[FingerMask, str]:
    """The mask, and the name of the selector that chose it."""
    if spec.mask is None:
        return choose_mask(pair, mask, selector or spec.selector)
    if not isinstance(spec.mask, Mapping):
        fixed: str | FingerMask | Path = spec.mask
    elif retention in spec.mask:
        fixed = spec.mask[retention]
    else:
        raise UsageError(f"the method has no mask for {retention}; it has masks for {', '.join(spec.mask)}")
    return choose_mask(pair, fixed, "none")


def _path(chosen: str | Path | None, shipped: Any, pair: str) -> Path | None:
    if chosen is None:
        return None
    return shipped(pair) if chosen == SHIPPED else Path(chosen)


def _policies(
    skills: Sequence[str], given: BasePolicy | Sequence[BasePolicy] | None, device: torch.device
) -> Sequence[BasePolicy]:
    """pi_B of each interaction in turn."""
    if given is None:
        return [load_policy(skill, device=str(device)) for skill in skills]
    return given if isinstance(given, Sequence) else [given]


def _describe_policies(skills: Sequence[str], given: BasePolicy | Sequence[BasePolicy] | None) -> str:
    if given is None:
        return "+".join(file_hash(policy_path(skill)) for skill in skills)
    policies = given if isinstance(given, Sequence) else [given]
    return "+".join(str(getattr(policy, "weights_hash", type(policy).__name__)) for policy in policies)
