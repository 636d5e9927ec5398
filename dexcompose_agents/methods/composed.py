"""A composition method made from its `CompositionSpec`: mask, pi_B, stabiliser A and residual B under Eq. 12."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dexcompose_agents.artefacts.shipped import choose_mask, file_hash, policy_path
from dexcompose_agents.diffusion.policy import BasePolicy, load_policy
from dexcompose_agents.methods.parts import make_residual, make_stabiliser
from dexcompose_agents.methods.spec import CompositionSpec, ResidualSource, StabiliserSource
from dexcompose_agents.runtime.devices import as_given, find_device, to_tensors
from dexcompose_envs.composition.composer import Composer
from dexcompose_envs.composition.task import CompositionTask
from dexcompose_envs.errors import UsageError
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.skills import parse_chain


class ComposedMethod:
    """Hold, transition, interact with preserved fingers at ``q_ref + dq_A`` and the rest at ``a_B + da_B`` (Eq. 12).

    Args:
        name: Name in tables.
        spec: What it is made of.
        pair: "GraspBall-PushButton", or a chain with more interactions.
        mask: Preserved fingers, or the file of a selection, where the spec leaves them open.
        selector: Selector whose shipped mask is used, or the one that chose ``mask``.
        stabiliser: Stabiliser A instead of the shipped one, as in the spec.
        residual: Residual B instead of the shipped one, as in the spec.
        base_policy: pi_B, or one for each interaction; by default the shipped ones.
        device: Torch device of the weights and of all arithmetic; actions go back to where observations come from.

    Attributes:
        parts: Stabiliser A and residual B, as far as there are such.

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
        stabiliser: StabiliserSource | None = None,
        residual: ResidualSource | None = None,
        base_policy: BasePolicy | Sequence[BasePolicy] | None = None,
        device: str = "cpu",
    ) -> None:
        self.name, self.spec, self.pair = name, spec, pair
        self.device = find_device(device)
        retention, interactions = parse_chain(pair)
        self.mask, self.selector = _mask_of(spec, pair, str(retention), mask, selector)
        if base_policy is None:
            hashes = [file_hash(policy_path(skill)) for skill in interactions]
            policies: Sequence[BasePolicy] = [load_policy(skill, device=str(self.device)) for skill in interactions]
        else:
            policies = base_policy if isinstance(base_policy, Sequence) else [base_policy]
            hashes = [str(getattr(policy, "weights_hash", type(policy).__name__)) for policy in policies]
        writes_all = spec.residual_writes == "all"
        self._residual, corrected_by = make_residual(
            residual or spec.residual, pair, self.mask, self.device, writes_all=writes_all
        )
        holder, held_by = make_stabiliser(stabiliser or spec.stabiliser, pair, self.mask, self.device)
        self.parts = tuple(part for part in (holder, self._residual) if part is not None)
        self._composer = Composer(
            CompositionTask.of_name(pair),
            self.mask,
            policies,
            holder,
            reference=spec.reference,
            hide_preserved=spec.hide_preserved,
            residual_writes_all=writes_all,
            hold_steps=spec.hold_steps,
            transition_steps=spec.transition_steps,
        )
        reference = spec.reference
        self._description = {
            "mask": str(self.mask),
            "base_policy": "+".join(hashes),
            "residual_writes": spec.residual_writes,
            "reference": _qualified(reference) if callable(reference) else np.asarray(reference).tolist(),
            "hide_preserved": spec.hide_preserved,
            "hold_steps": spec.hold_steps,
            "transition_steps": spec.transition_steps,
            "residual": corrected_by,
            "stabiliser": held_by,
        }

    def reset(
        self,
        obs: Mapping[str, Any],
        info: Mapping[str, Any],
        env_ids: npt.NDArray[np.int64],
        seeds: npt.NDArray[np.int64],
    ) -> None:
        """Start episodes in some worlds; see ``Agent.reset``. ``obs`` may hold torch tensors."""
        noise_seeds = np.zeros(len(obs["context"]), np.int64)
        noise_seeds[env_ids] = seeds
        started = self._worlds(env_ids, len(noise_seeds))
        self._composer.reset(to_tensors(obs, self.device), started, torch.as_tensor(noise_seeds, device=self.device))
        if self._residual is not None:
            self._residual.reset(started)

    def act(self, obs: Mapping[str, Any]) -> Any:
        """Actions (N, 28), of the kind and on the device of ``obs``; see ``Agent.act``."""
        seen = to_tensors(obs, self.device)
        nominal = self._composer.nominal(seen)
        delta = None if self._residual is None else self._residual.act(seen, nominal)
        return as_given(self._composer.compose(seen, nominal, delta), obs["context"])

    def idle(self, env_ids: npt.NDArray[np.int64]) -> None:
        """Stop asking pi_B in some worlds until they begin an episode; see ``Agent``."""
        interactor = self._composer.interactor
        interactor.idle(self._worlds(env_ids, interactor.num_envs))

    def _worlds(self, env_ids: npt.NDArray[np.int64], num_envs: int) -> torch.Tensor:
        """The worlds with these numbers as a mask (N,)."""
        mask = np.zeros(num_envs, bool)
        mask[env_ids] = True
        return torch.as_tensor(mask, device=self.device)

    def describe(self) -> dict[str, Any]:
        """Mask, hashes of the weights, constants of scripted parts, and how they are composed."""
        return dict(self._description)


def _mask_of(
    spec: CompositionSpec, pair: str, retention: str, mask: str | FingerMask | Path | None, selector: str | None
) -> tuple[FingerMask, str]:
    """The mask, and the name of the selector that chose it."""
    if spec.mask is None:
        return choose_mask(pair, mask, selector or spec.selector)
    if not isinstance(spec.mask, Mapping):
        return choose_mask(pair, spec.mask, "none")
    if retention not in spec.mask:
        raise UsageError(f"the method has no mask for {retention}; it has masks for {', '.join(spec.mask)}")
    return choose_mask(pair, spec.mask[retention], "none")


def _qualified(function: Any) -> str:
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"
