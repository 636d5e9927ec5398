"""Our answer to Eq. 6: the expected composite success, from the release test and from what B needs.

    U(m) = low(P_ret(m))^r * (1 - slip(m))^s * P_clean(m)^a * eta_B(m)^b

It is the chance that A's object stays (the lower end of its 95 % interval, so that 100 rollouts' luck doesn't decide),
times what the grasp has in reserve (an object that slid through half of the allowed distance has half of it left),
times the chance that the released fingers really are free, times how much of what B needs the mask leaves it. `r = 2`
because a composite episode of 200 control steps lasts as long as two release tests. The other exponents say how
strictly the last two factors are meant: `b = 1` takes eta_B at face value, so a finger that carries 90 % of B's work is
worth 90 % of B's success; `a = 0.5` softens clean release, because a released finger that still grazes the object is a
nuisance to B and rarely a failure.

What 100 rollouts can't tell apart counts as equal: two more objects retained are 5 % of U. Among equals B gets the most
fingers.
"""

from __future__ import annotations

import math
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
from dexcompose_envs.checks import real_number
from dexcompose_envs.errors import UsageError
from dexcompose_envs.skills import parse_pair


@dataclass(frozen=True)
class UtilitySelector(Selector):
    """Expected composite success, `low(P_ret)^r * (1 - slip)^s * P_clean^a * eta_B^b`; see the module's docstring.

    Of masks as good as the best, the one that releases most fingers; then the higher U, lower bound of P_ret, P_clean,
    eta_B, and the candidates' order. An exponent of 0 ignores its factor.
    """

    name: ClassVar[str] = "utility"
    retention_exponent: float = 2.0
    """r: length of a composite episode in release tests."""
    slip_exponent: float = 1.0
    """s: weight of the reserve that P_ret can't show once it is near 1."""
    clean_exponent: float = 0.5
    """a: weight of clean release."""
    use_exponent: float = 1.0
    """b: weight of what the mask leaves B."""
    tolerance: float = 0.05
    """Share of the best U by which a mask that is as good may be below it."""

    def __post_init__(self) -> None:
        """Refuses negative exponents, and a tolerance that isn't a share."""
        for name, value in vars(self).items():
            real_number(name, value, 0.0, 1.0 if name == "tolerance" else math.inf)

    def utility(self, candidate: Candidate) -> float:
        """U(m) in [0, 1]."""
        kept = candidate.p_ret_low**self.retention_exponent * (1.0 - candidate.slip) ** self.slip_exponent
        clean, use = candidate.p_clean**self.clean_exponent, candidate.eta_b**self.use_exponent
        return float(kept * clean * use)

    def select(self, candidates: Sequence[Candidate], pair: str) -> Selection:
        """The chosen mask; see the class."""
        if not candidates:
            raise UsageError("there are no candidate masks to choose from")

        def key(c: Candidate) -> tuple[float, ...]:
            return (-self.utility(c), -c.p_ret_low, -c.p_clean, -c.eta_b, -c.mask.num_released, place_of(c.mask))

        ranked, (retention, interaction) = sorted(candidates, key=key), parse_pair(pair)
        enough = (1.0 - self.tolerance) * self.utility(ranked[0])
        equal = [c for c in ranked if self.utility(c) >= enough]
        best = max(equal, key=lambda c: c.mask.num_released)  # the first of those that release as many
        others = [c for c in ranked if c is not best]
        why = (
            f"{best.mask} kept {retention}'s object in {percent(best.p_ret)} of {best.rollouts} release tests "
            f"(at least {percent(best.p_ret_low)} with 95 % confidence), slipped through {percent(best.slip)} of the "
            f"allowed distance, let go cleanly in {percent(best.p_clean)}, "
            f"and leaves {interaction} {percent(best.eta_b)} of the fingers that its demonstrations use: "
            f"utility {self.utility(best):.3f}{runner_up([best, *others], self.utility)}."
        )
        return Selection(best.mask, self.name, pair, why, scores_of(ranked, self.utility), asdict(self))
