"""The paper's baseline, Eq. 17."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

from dexcompose_agents.attribution.selectors.selection import (
    Candidate,
    Selection,
    Selector,
    percent,
    runner_up,
    scores_of,
)
from dexcompose_agents.attribution.tables import place_of
from dexcompose_envs.errors import UsageError


@dataclass(frozen=True)
class HeuristicSelector(Selector):
    """Eq. 17: the highest P_ret among masks that release enough fingers.

    Ties go to the higher P_clean, then to more released fingers, then to the first in `FingerMask.candidates()`.
    """

    name: ClassVar[str] = "heuristic"
    min_released: int = 2
    """Least number of released fingers."""

    def select(self, candidates: Sequence[Candidate], pair: str) -> Selection:
        """The chosen mask; see the class."""
        eligible = [c for c in candidates if c.mask.num_released >= self.min_released]
        if not eligible:
            raise UsageError(
                f"none of the {len(candidates)} candidate masks releases at least {self.min_released} fingers"
            )
        ranked = sorted(eligible, key=lambda c: (-c.p_ret, -c.p_clean, -c.mask.num_released, place_of(c.mask)))
        best = ranked[0]
        why = (
            f"{best.mask} has the highest retention of the {len(eligible)} masks that release at least "
            f"{self.min_released} fingers: {percent(best.p_ret)} of {best.rollouts} release tests, "
            f"{percent(best.p_clean)} clean{runner_up(ranked, lambda c: c.p_ret)}."
        )
        return Selection(best.mask, self.name, pair, why, scores_of(ranked, lambda c: c.p_ret), asdict(self))
