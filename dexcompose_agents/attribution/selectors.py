"""Choosing the ownership mask of a pair from the release test (Eq. 6): `heuristic` and `utility`.

A selector sees the candidates with their measurements and the pair's name, and answers with one of them and a sentence
that says why. `heuristic` is the paper's baseline (Eq. 17). `utility` is our answer to Eq. 6:

    U(m) = low(P_ret(m))^r * (1 - slip(m))^s * P_clean(m)^a * eta_B(m)^b

It reads as an expected composite success: the chance that A's object stays (the lower end of its 95 % interval, so that
100 rollouts' luck doesn't decide), times what the grasp has in reserve (an object that slid through half of the allowed
distance has half of it left), times the chance that the released fingers really are free, times how much of what B
needs the mask leaves it. `r = 2` because a composite episode of 200 control steps lasts as long as two release tests.
The other exponents say how strictly the last two factors are meant: `b = 1` takes eta_B at face value, so a finger that
carries 90 % of B's work is worth 90 % of B's success; `a = 0.5` softens clean release, because a released finger that
still grazes the object is a nuisance to B and rarely a failure.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from dexcompose_agents.attribution.tables import MaskResult, place_of, read_csv
from dexcompose_agents.attribution.usage import FingerUsage, measure_usage, recorded_signals
from dexcompose_envs import artefacts
from dexcompose_envs.checks import one_of, real_number
from dexcompose_envs.errors import FileError, UsageError
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.scene import model_hash_of
from dexcompose_envs.skills import parse_pair


@dataclass(frozen=True)
class Selection:
    """A selector's answer.

    Attributes:
        mask: The chosen mask.
        selector: Name of the selector.
        pair: Name of the pair.
        why: One sentence with the numbers that decided.
        scores: Measurements and score of every candidate by mask, best first.
        settings: The selector's settings.
        table: SHA-256 of the release-test table that it chose from.
        demonstrations: SHA-256 of the demonstrations whose finger use it weighed.
    """

    mask: FingerMask
    selector: str
    pair: str
    why: str
    scores: Mapping[str, Mapping[str, float]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    table: str = ""
    demonstrations: str = ""

    def save(self, path: str | Path) -> None:
        """Writes the selection as JSON."""
        about = {"kind": "mask", **asdict(self), "mask": str(self.mask), "model_hash": model_hash_of(self.pair)}
        artefacts.save(path, about, {}, "json")

    @classmethod
    def load(cls, path: str | Path, pair: str | None = None) -> Selection:
        """Reads a selection back, for this pair or any; an ArtefactError says what else the file is."""
        about, _ = artefacts.load(path, "mask", pair=pair)
        known = {item.name: about[item.name] for item in fields(cls) if item.name in about}
        return cls(**known | {"mask": FingerMask.parse(about["mask"])})


@dataclass(frozen=True)
class Candidate:
    """One mask with its measurements.

    Attributes:
        mask: The preserved fingers.
        p_ret: P_ret(m), fraction of release tests that retained the object.
        p_ret_low: Lower end of its 95 % Wilson interval.
        p_clean: P_clean(m), fraction of clean releases.
        eta_b: eta_B(m), see `usage`.
        rollouts: Release tests behind the fractions.
        slip: Mean share of d_ret that the object slid through; 1 where it was lost.
    """

    mask: FingerMask
    p_ret: float
    p_ret_low: float
    p_clean: float
    eta_b: float
    rollouts: int
    slip: float = 0.0


def make_candidates(results: Sequence[MaskResult], usage: FingerUsage) -> list[Candidate]:
    """Joins the release test with eta_B."""
    return [
        Candidate(r.mask, r.p_ret, r.p_ret_interval.low, r.p_clean, usage.eta(r.mask), r.rollouts, r.slip)
        for r in results
    ]


class Selector(Protocol):
    """Chooses one mask for a pair. The answer must be one of the candidates and not depend on their order."""

    name: ClassVar[str]
    """On the command line and in results."""

    def select(self, candidates: Sequence[Candidate], pair: str) -> Selection:
        """The chosen mask.

        Raises:
            UsageError: If no candidate qualifies.
        """


@dataclass(frozen=True)
class HeuristicSelector:
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
            f"{self.min_released} fingers: {_percent(best.p_ret)} of {best.rollouts} release tests, "
            f"{_percent(best.p_clean)} clean{_runner_up(ranked, lambda c: c.p_ret)}."
        )
        return Selection(best.mask, self.name, pair, why, _scores(ranked, lambda c: c.p_ret), asdict(self))


@dataclass(frozen=True)
class UtilitySelector:
    """Expected composite success, `low(P_ret)^r * (1 - slip)^s * P_clean^a * eta_B^b`; see the module's docstring.

    Ties go to the higher lower bound of P_ret, then P_clean, eta_B, more released fingers, and the candidates' order.
    An exponent of 0 ignores its factor.
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

    def __post_init__(self) -> None:
        """Refuses negative exponents."""
        for name, value in vars(self).items():
            real_number(name, value, 0.0, math.inf)

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

        ranked = sorted(candidates, key=key)
        best, (retention, interaction) = ranked[0], parse_pair(pair)
        why = (
            f"{best.mask} kept {retention}'s object in {_percent(best.p_ret)} of {best.rollouts} release tests "
            f"(at least {_percent(best.p_ret_low)} with 95 % confidence), slipped through {_percent(best.slip)} of the "
            f"allowed distance, let go cleanly in {_percent(best.p_clean)}, "
            f"and leaves {interaction} {_percent(best.eta_b)} of the fingers that its demonstrations use: "
            f"utility {self.utility(best):.3f}{_runner_up(ranked, self.utility)}."
        )
        return Selection(best.mask, self.name, pair, why, _scores(ranked, self.utility), asdict(self))


SELECTORS: dict[str, Callable[[], Selector]] = {"heuristic": HeuristicSelector, "utility": UtilitySelector}
"""The registry of selectors: the command line, `train all` and evaluation know those that stand here."""


def select_mask(pair: str, selector: str, table: Path, demonstrations: Path) -> Selection:
    """Chooses the mask of a pair.

    Args:
        pair: "GraspBall-PushButton".
        selector: One of `SELECTORS`.
        table: Finished CSV table of A's release test.
        demonstrations: Folder with the recorded demonstrations of B.

    Raises:
        UsageError: On an unknown pair or selector, or where no mask qualifies.
        FileError: If the table is not what it should be, or not finished, or there are no demonstrations.
    """
    chooser, (retention, interaction) = SELECTORS[one_of("selector", selector, list(SELECTORS))](), parse_pair(pair)
    results = read_csv(table)
    tested, wanted = {result.mask for result in results}, FingerMask.candidates()
    if missing := [str(mask) for mask in wanted if mask not in tested]:
        raise FileError(
            f"{table}, line {len(results) + 1}: the table ends after {len(results)} of {len(wanted)} masks "
            f"(no {missing[0]}); finish it with: dexcompose release-test {retention}"
        )
    usage = measure_usage(recorded_signals(interaction, demonstrations))
    selection = chooser.select(make_candidates(results, usage), pair)
    content = hashlib.sha256(table.read_bytes()).hexdigest()
    return replace(selection, table=content, demonstrations=usage.demonstrations)


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _runner_up(ranked: Sequence[Candidate], score: Callable[[Candidate], float]) -> str:
    return f" (next: {ranked[1].mask}, {score(ranked[1]):.3f})" if len(ranked) > 1 else ""


def _scores(ranked: Sequence[Candidate], score: Callable[[Candidate], float]) -> dict[str, dict[str, float]]:
    return {
        str(c.mask): {
            "score": round(score(c), 6),
            "p_ret": c.p_ret,
            "p_ret_low": round(c.p_ret_low, 6),
            "slip": round(c.slip, 6),
            "p_clean": c.p_clean,
            "eta_b": round(c.eta_b, 6),
        }
        for c in ranked
    }
