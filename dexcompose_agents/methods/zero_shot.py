"""Zero-shot (Ours-ZS): the chosen mask and stabiliser A, with pi_B as it is."""

from __future__ import annotations

from pathlib import Path

from dexcompose_agents.artefacts.shipped import choose_mask, stabiliser_path
from dexcompose_agents.diffusion.policy import BasePolicy
from dexcompose_agents.methods.composed import ComposedMethod
from dexcompose_envs.ownership import FingerMask

__all__ = ["ZeroShot"]


class ZeroShot(ComposedMethod):
    """Eq. 12 with stabiliser A (Eqs. 7 to 9) and without residual B ("Ours-ZS" in the paper).

    Args:
        pair: "GraspBall-PushButton".
        mask: Preserved fingers, or the file of a selection; by default the shipped mask.
        selector: Selector whose shipped mask is used.
        stabiliser: Weights of stabiliser A; by default the shipped ones.
        base_policy: pi_B; by default the shipped one.
        device: Torch device of the weights and of all arithmetic.
    """

    name = "zero-shot"

    def __init__(
        self,
        pair: str,
        mask: str | FingerMask | Path | None = None,
        selector: str | None = None,
        stabiliser: str | Path | None = None,
        base_policy: BasePolicy | None = None,
        device: str = "cpu",
    ) -> None:
        chosen, chosen_by = choose_mask(pair, mask, selector)
        path = stabiliser_path(pair) if stabiliser is None else Path(stabiliser)
        super().__init__(pair, chosen, chosen_by, base_policy=base_policy, stabiliser=path, device=device)
