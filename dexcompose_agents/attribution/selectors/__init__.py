"""Choosing the ownership mask of a pair (Eq. 6): `heuristic`, `utility`, `llm` and `oracle`.

A selector sees the candidates with their measurements and the pair's name, and answers with one of them and a sentence
that says why.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from dexcompose_agents.attribution.mask_table import read_trials
from dexcompose_agents.attribution.selectors.heuristic import HeuristicSelector
from dexcompose_agents.attribution.selectors.llm import LLMSelector
from dexcompose_agents.attribution.selectors.oracle import OracleSelector
from dexcompose_agents.attribution.selectors.selection import Candidate, Selection, Selector, make_candidates
from dexcompose_agents.attribution.selectors.utility import UtilitySelector
from dexcompose_agents.attribution.tables import read_csv
from dexcompose_agents.attribution.usage import measure_usage, recorded_signals
from dexcompose_envs.checks import one_of
from dexcompose_envs.errors import FileError
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.skills import parse_pair

__all__ = [
    "SELECTORS",
    "Candidate",
    "HeuristicSelector",
    "LLMSelector",
    "OracleSelector",
    "Selection",
    "Selector",
    "SelectorSettings",
    "UtilitySelector",
    "make_candidates",
    "select_mask",
]


@dataclass(frozen=True)
class SelectorSettings:
    """Every selector with its settings; what stands here is known to the command line, `train all` and evaluation."""

    heuristic: HeuristicSelector = field(default_factory=HeuristicSelector)
    """Most retention of those that release two fingers (Eq. 17)."""
    utility: UtilitySelector = field(default_factory=UtilitySelector)
    """Expected composite success by the release test and B's use of the fingers."""
    llm: LLMSelector = field(default_factory=LLMSelector)
    """A language model's choice."""
    oracle: OracleSelector = field(default_factory=OracleSelector)
    """Most success in the mask test."""


SELECTORS: Mapping[str, Selector] = {
    item.name: getattr(SelectorSettings(), item.name) for item in fields(SelectorSettings)
}
"""Selectors by name, with their default settings."""


def select_mask(
    pair: str, selector: str | Selector, table: Path, demonstrations: Path, trials: Path | None = None
) -> Selection:
    """Chooses the mask of a pair.

    Args:
        pair: "GraspBall-PushButton".
        selector: A selector, or the name of one in `SELECTORS`.
        table: Finished CSV table of A's release test.
        demonstrations: Folder with the recorded demonstrations of B.
        trials: CSV table of the pair's mask test, for a selector that needs one.

    Raises:
        UsageError: On an unknown pair or selector, or where no mask qualifies.
        FileError: If a table is not what it should be, or not finished, or there are no demonstrations.
        EndpointError: If a language model doesn't answer.
    """
    chooser = SELECTORS[one_of("selector", selector, list(SELECTORS))] if isinstance(selector, str) else selector
    retention, interaction = parse_pair(pair)
    results = read_csv(table)
    tested, wanted = {result.mask for result in results}, FingerMask.candidates()
    if missing := [str(mask) for mask in wanted if mask not in tested]:
        raise FileError(
            f"{table}, line {len(results) + 1}: the table ends after {len(results)} of {len(wanted)} masks "
            f"(no {missing[0]}); finish it with: dexcompose release-test {retention}"
        )
    tried = read_trials(trials) if trials is not None and chooser.NEEDS_TRIALS else []
    usage = measure_usage(recorded_signals(interaction, demonstrations))
    selection = chooser.select(make_candidates(results, usage, tried), pair)
    found = _hash(trials) if tried and trials is not None else ""
    return replace(selection, table=_hash(table), demonstrations=usage.demonstrations, trials=found)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
