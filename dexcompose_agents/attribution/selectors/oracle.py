"""The upper bound of all selectors: they foresee how a mask will do, this one has seen it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

from dexcompose_agents.attribution.mask_table import MaskTrial
from dexcompose_agents.attribution.selectors.selection import (
    Candidate,
    Selection,
    Selector,
    percent,
    runner_up,
    scores_of,
)
from dexcompose_agents.attribution.tables import place_of
from dexcompose_envs.checks import whole_number
from dexcompose_envs.errors import UsageError


@dataclass(frozen=True)
class OracleSelector(Selector):
    """The mask with which the composite succeeded most often in the mask test, on training episodes.

    Ties go to the higher lower bound of P_ret, then P_clean, more released fingers, and the candidates' order.
    """

    name: ClassVar[str] = "oracle"
    NEEDS_TRIALS = True
    IN_CHAIN = False
    min_rollouts: int = 1
    """Least number of rollouts with a mask that count."""

    def __post_init__(self) -> None:
        """Refuses numbers below 1."""
        whole_number("min_rollouts", self.min_rollouts)

    def select(self, candidates: Sequence[Candidate], pair: str) -> Selection:
        """The chosen mask; see the class."""
        tried = {c.mask: c.trial for c in candidates if c.trial and c.trial.rollouts >= self.min_rollouts}
        if not tried:
            raise UsageError(
                f"none of the {len(candidates)} candidate masks was tried in {self.min_rollouts} rollouts; "
                f"try them with: dexcompose mask-test {pair}"
            )

        def success(c: Candidate) -> float:
            return tried[c.mask].success

        def key(c: Candidate) -> tuple[float, ...]:
            return (-success(c), -c.p_ret_low, -c.p_clean, -c.mask.num_released, place_of(c.mask))

        ranked = sorted((c for c in candidates if c.mask in tried), key=key)
        best: MaskTrial = tried[ranked[0].mask]
        why = (
            f"{best.mask} succeeded in {percent(best.success)} of {best.rollouts} composites, more often than any "
            f"other of {len(ranked)} masks{runner_up(ranked, success)}."
        )
        return Selection(best.mask, self.name, pair, why, scores_of(ranked, success), asdict(self))
