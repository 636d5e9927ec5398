"""What a composition method is made of: methods, ablations and baselines differ in this and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dexcompose_envs.checks import one_of
from dexcompose_envs.composition.interactor import ResidualB
from dexcompose_envs.composition.preserver import Reference, Stabiliser
from dexcompose_envs.episodes.phases import HOLD_STEPS, TRANSITION_STEPS
from dexcompose_envs.errors import UsageError
from dexcompose_envs.ownership import FingerMask

SHIPPED = "shipped"
"""The file that belongs to the pair in `pretrained_folder()`."""


StabiliserSource = str | Path | Callable[[], Stabiliser]
"""Weights, the name of one of `scripted.STABILISERS`, or what makes one, such as its class."""
ResidualSource = str | Path | Callable[[str], ResidualB]
"""Weights, the name of one of `scripted.RESIDUALS`, or what makes one for a pair."""


@dataclass(frozen=True, kw_only=True)
class CompositionSpec:
    """A composition of frozen base policies in one hand (Eqs. 7 to 12).

    Register it under a name (`register_method`), or name it on the command line as "module:NAME".
    """

    mask: str | FingerMask | Path | Mapping[str, str] | None = None
    """Preserved fingers: a mask such as "TH+MF+RF", the file of a selection, or one mask for each retention skill
    (skill -> mask). None: what a selector chose for the pair."""
    selector: str | None = None
    """Selector whose mask is used where `mask` is None; None: the one whose choice ships."""
    stabiliser: StabiliserSource | None = SHIPPED
    """Stabiliser A (Eq. 7): weights, or a scripted one; None: the preserved fingers stay at the reference."""
    residual: ResidualSource | None = None
    """Residual B (Eq. 10): weights that were trained with the same mask, or a scripted one; None: pi_B as it is."""
    residual_writes: Literal["released", "all"] = "released"
    """What residual B may correct: B's dimensions (wrist and released fingers), or all 28."""
    reference: Reference = "hold"
    """What the preserved fingers follow: "hold" is the held state's q_ref; or 22 joint targets (rad)."""
    hide_preserved: bool = True
    """Whether preserved fingers are hidden from a pi_B that was trained with hidden fingers."""
    hold_steps: int = HOLD_STEPS
    """Control steps in which the hand keeps the held state as it is."""
    transition_steps: int = TRANSITION_STEPS
    """Control steps in which released fingers open and the wrist travels to where B starts; 0: pi_B acts at once."""

    def __post_init__(self) -> None:
        """Refuses what can't be meant."""
        if self.mask is not None and self.selector is not None:
            raise UsageError(f"got mask {str(self.mask)!r} and selector {self.selector!r}; expected one of them")
        one_of("residual_writes", self.residual_writes, ("released", "all"))

    @property
    def options(self) -> frozenset[str]:
        """What may be given when the method is made: what is left to the files that ship, pi_B and device."""
        names = {name for name in ("stabiliser", "residual") if getattr(self, name) == SHIPPED}
        if self.mask is None:
            names |= {"mask"} if self.selector else {"mask", "selector"}
        return frozenset(names | {"base_policy", "device"})
