"""What every selector works with: candidate masks with their measurements, and the answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from dexcompose_agents.attribution.mask_table import MaskTrial
from dexcompose_agents.attribution.tables import MaskResult, place_of
from dexcompose_agents.attribution.usage import FingerUsage
from dexcompose_envs import artefacts
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.scene import model_hash_of


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
        trials: SHA-256 of the mask test that it chose from, if it needs one.
    """

    mask: FingerMask
    selector: str
    pair: str
    why: str
    scores: Mapping[str, Mapping[str, float]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    table: str = ""
    demonstrations: str = ""
    trials: str = ""

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
        trial: The composite as it did with this mask, where that was tried.
    """

    mask: FingerMask
    p_ret: float
    p_ret_low: float
    p_clean: float
    eta_b: float
    rollouts: int
    slip: float = 0.0
    trial: MaskTrial | None = None


def make_candidates(
    results: Sequence[MaskResult], usage: FingerUsage, trials: Sequence[MaskTrial] = ()
) -> list[Candidate]:
    """Joins the release test with eta_B, and with the mask test as far as there is one."""
    tried = {trial.mask: trial for trial in trials}
    return [
        Candidate(
            r.mask, r.p_ret, r.p_ret_interval.low, r.p_clean, usage.eta(r.mask), r.rollouts, r.slip, tried.get(r.mask)
        )
        for r in results
    ]  # fmt: skip


class Selector(ABC):
    """Chooses one mask for a pair; its fields are its settings.

    The answer must be one of the candidates and not depend on their order.
    """

    name: ClassVar[str]
    """On the command line and in results."""
    NEEDS_TRIALS: ClassVar[bool] = False
    """Whether it reads the mask test, see `mask_test`."""
    IN_CHAIN: ClassVar[bool] = True
    """Whether `train all` asks it: not one that needs other files or an endpoint."""

    def facts(self) -> dict[str, Any]:
        """Settings that decide the answer, ready for JSON."""
        return asdict(self)  # type: ignore[call-overload]

    @abstractmethod
    def select(self, candidates: Sequence[Candidate], pair: str) -> Selection:
        """The chosen mask.

        Raises:
            UsageError: If no candidate qualifies.
        """


def percent(value: float) -> str:
    """Such as "97 %"."""
    return f"{100 * value:.0f} %"


def runner_up(ranked: Sequence[Candidate], score: Callable[[Candidate], float]) -> str:
    """The second of ranked candidates, in brackets; nothing where there is none."""
    return f" (next: {ranked[1].mask}, {score(ranked[1]):.3f})" if len(ranked) > 1 else ""


def scores_of(ranked: Sequence[Candidate], score: Callable[[Candidate], float]) -> dict[str, dict[str, float]]:
    """Score and measurements of ranked candidates by mask."""
    return {
        str(c.mask): {
            "score": round(score(c), 6),
            "p_ret": c.p_ret,
            "p_ret_low": round(c.p_ret_low, 6),
            "slip": round(c.slip, 6),
            "p_clean": c.p_clean,
            "eta_b": round(c.eta_b, 6),
            **({} if c.trial is None else {"success": c.trial.success}),
        }
        for c in ranked
    }


def in_order(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates in the order of `FingerMask.candidates()`, whatever order they came in."""
    return sorted(candidates, key=lambda c: place_of(c.mask))
