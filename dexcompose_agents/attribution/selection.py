"""A chosen mask: which one, why, and from what; and choosing one from a table and recorded demonstrations."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from dexcompose_agents.attribution.tables import read_csv
from dexcompose_agents.attribution.usage import measure_usage, recorded_signals
from dexcompose_envs import artefacts
from dexcompose_envs.errors import FileError
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.scene import model_hash_of
from dexcompose_envs.skills import parse_pair


@dataclass(frozen=True)
class Selection:
    """A selector's answer.

    Attributes:
        mask: the chosen mask.
        selector: name of the selector.
        pair: name of the pair.
        why: one sentence with the numbers that decided.
        scores: measurements and score of every candidate by mask, best first.
        settings: the selector's settings.
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
        """Writes the selection as JSON in one step.

        Raises:
            OSError: where the folder can't be written.
        """
        about = {"kind": "mask", **asdict(self), "mask": str(self.mask), "model_hash": model_hash_of(self.pair)}
        artefacts.save(path, about, {}, "json")

    @classmethod
    def load(cls, path: str | Path, pair: str | None = None) -> Selection:
        """Reads a selection back.

        Args:
            path: JSON file.
            pair: Pair that it must be for; None for any.

        Raises:
            ArtefactError: where the file can't be read, is damaged, or no selection for that pair.
        """
        about, _ = artefacts.load(path, "mask", pair=pair)
        known = {item.name: about[item.name] for item in fields(cls) if item.name in about}
        return cls(**known | {"mask": FingerMask.parse(about["mask"])})


def select_mask(pair: str, selector: str, table: Path, demonstrations: Path) -> Selection:
    """Chooses the mask of a pair.

    Args:
        pair: "GraspBall-PushButton".
        selector: One of `SELECTORS`.
        table: Finished CSV table of A's release test.
        demonstrations: Folder with the recorded demonstrations of B.

    Raises:
        UsageError: On an unknown pair or selector, or where no mask qualifies.
        FileError: If the table is not what it should be, or not finished.
        FileError: If there are no demonstrations.
    """
    from dexcompose_agents.attribution.selectors import PairContext, make_candidates, make_selector

    chooser, context = make_selector(selector), PairContext(*parse_pair(pair))
    results = read_csv(table)
    tested, wanted = {result.mask for result in results}, FingerMask.candidates()
    if missing := [str(mask) for mask in wanted if mask not in tested]:
        raise FileError(
            f"{table}, line {len(results) + 1}: the table ends after {len(results)} of {len(wanted)} masks "
            f"(no {missing[0]}); finish it with: dexcompose release-test {context.retention}"
        )
    usage = measure_usage(recorded_signals(context.interaction, demonstrations))
    selection = chooser.select(make_candidates(results, usage), context)
    content = hashlib.sha256(table.read_bytes()).hexdigest()
    return replace(selection, table=content, demonstrations=usage.demonstrations)
