"""What frozen, zero-shot and dexcompose have in common: the composition of Eq. 12 with a mask, pi_B and residuals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from dexcompose_agents.artefacts.pretrained_files import file_hash, pretrained_folder
from dexcompose_agents.composition.composer import Composer
from dexcompose_agents.composition.tensors import to_tensors
from dexcompose_agents.diffusion.policy import BasePolicy, load_policy
from dexcompose_agents.residual.residual_b import ResidualBPolicy
from dexcompose_agents.residual.stabiliser import StabiliserPolicy
from dexcompose_agents.runtime.devices import find_device
from dexcompose_envs import hand, parse_pair
from dexcompose_envs.observations import layout_of, terms_of
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.skills import make_interaction
from dexcompose_envs.skills.chain import Chain

__all__ = ["ComposedMethod", "composite_layout"]


def composite_layout(pair: str) -> dict[str, dict[str, slice]]:
    """Columns of every term of the composite observation, ``layout[key][term]``; equal to ``env.unwrapped.layout``."""
    skill_a, skill_b = parse_pair(pair)
    terms = terms_of(Chain.of(skill_a, (skill_b,)).skills)
    return {key: layout_of([term for _, term in value]) for key, value in terms.items()}


class ComposedMethod:
    """Hold, transition, interact with preserved fingers at ``q_ref + dq_A`` and the rest at ``a_B + da_B`` (Eq. 12).

    Args:
        pair: "GraspBall-PushButton".
        mask: Preserved fingers.
        selector: Name of the selector that chose them.
        base_policy: pi_B; by default the shipped one.
        stabiliser: Weights of stabiliser A (Eq. 7), or None for none.
        residual: Weights of residual B (Eq. 10), or None for none.
        device: Torch device of the weights and of all arithmetic; actions go back to where observations come from.

    Raises:
        ValueError: If residual B was trained with another mask or for another pair, or there is no such device.
        WeightsError: If a weight file is missing, truncated or corrupt.
    """

    name: ClassVar[str]

    def __init__(
        self,
        pair: str,
        mask: FingerMask,
        selector: str,
        *,
        base_policy: BasePolicy | None = None,
        stabiliser: Path | None = None,
        residual: Path | None = None,
        device: str = "cpu",
    ) -> None:
        skill_b = parse_pair(pair)[1]
        self.pair, self.mask, self.selector = pair, mask, selector
        self.device = find_device(device)
        self._residual = None if residual is None else ResidualBPolicy.load(residual, self.device)
        if self._residual is not None:
            self._check_residual(self._residual, residual)
        self._description: dict[str, Any] = {"mask": str(mask), "base_policy": _describe_policy(skill_b, base_policy)}
        for role, path in (("stabiliser", stabiliser), ("residual", residual)):
            self._description[role] = None if path is None else file_hash(path)
        if base_policy is None:
            base_policy = load_policy(skill_b, device=str(self.device))
        self._composer = Composer(
            mask,
            base_policy,
            None if stabiliser is None else StabiliserPolicy.load(stabiliser, self.device),
            hand.normalize(make_interaction(skill_b).start_pose),
            composite_layout(pair),
            device=self.device,
        )

    def _check_residual(self, residual: ResidualBPolicy, path: Path | None) -> None:
        if residual.pair != self.pair or residual.mask != self.mask:
            raise ValueError(
                f"'{path}' is residual B of {residual.pair} with mask {residual.mask}; "
                f"expected {self.pair} with {self.mask}"
            )

    def reset(
        self,
        obs: Mapping[str, Any],
        info: dict[str, Any],
        env_ids: npt.NDArray[np.int64],
        seeds: npt.NDArray[np.int64],
    ) -> None:
        """Start episodes in some worlds; see ``CompositionMethod.reset``. ``obs`` may hold torch tensors."""
        started = np.zeros(len(obs["context"]), bool)
        noise_seeds = np.zeros(len(started), np.int64)
        started[env_ids], noise_seeds[env_ids] = True, seeds
        mask = torch.as_tensor(started, device=self.device)
        self._composer.reset(to_tensors(obs, self.device), mask, torch.as_tensor(noise_seeds, device=self.device))
        if self._residual is not None:
            self._residual.reset(mask)

    def act(self, obs: Mapping[str, Any]) -> Any:
        """Actions (N, 28); see ``CompositionMethod.act``.

        Returns:
            A NumPy array if ``obs`` holds NumPy arrays, a tensor on their device if it holds torch tensors.
        """
        seen = to_tensors(obs, self.device)
        nominal = self._composer.nominal(seen)
        delta = None if self._residual is None else self._residual.act(seen, nominal)
        action = self._composer.compose(seen, nominal, delta)
        given = obs["context"]
        return action.to(given.device) if isinstance(given, torch.Tensor) else action.cpu().numpy()

    def describe(self) -> dict[str, Any]:
        """Mask and hashes of the weights."""
        return dict(self._description)


def _describe_policy(skill: str, given: BasePolicy | None) -> str:
    if given is not None:
        return str(getattr(given, "weights_hash", type(given).__name__))
    path = pretrained_folder() / f"{skill}.safetensors"
    return file_hash(path) if path.is_file() else skill
