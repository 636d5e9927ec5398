"""Finished episodes of a held-state collection on disk, so that an interrupted collection can go on."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import artefacts
from dexcompose_envs.errors import DexComposeError

Row = dict[str, NDArray[np.float64]]
"""One held state: column name -> values."""
KIND = "held_state_shard"
REASONS = ("accepted", "not_reached", "unstable", "lost", "moved", "not_quiet")
"""What became of an episode."""


@dataclass(frozen=True)
class Finished:
    """One episode's end: what became of it, and the state where it was accepted."""

    reason: str
    row: Row | None = None


class CollectionError(DexComposeError, RuntimeError):
    """A collection that can't go on; the message says why."""


class Shards:
    """Finished episodes on disk: numbered files, each written in one step, all with the same settings."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._folder, self._settings = folder, json.loads(json.dumps(dict(settings)))
        self._rows: list[Row] = []
        self.episodes = 0
        self.reasons: Counter[str] = Counter()
        for path in sorted(folder.glob("*.npz")):
            self._read(path)

    @property
    def accepted(self) -> int:
        """Number of accepted states."""
        return len(self._rows)

    def append(self, finished: list[Finished]) -> None:
        """Saves the next episodes, if there are any."""
        if not finished:
            return
        rows = [item.row for item in finished if item.row is not None]
        about = {"settings": self._settings, "first": self.episodes, "reasons": [item.reason for item in finished]}
        arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]} if rows else {}
        artefacts.save(self._folder / f"{self.episodes:08d}.npz", {"kind": KIND, **about}, arrays, "npz")
        self._take(about, rows)

    def columns(self, count: int) -> Row:
        """The first `count` accepted states as columns."""
        rows = self._rows[:count]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def remove(self) -> None:
        """Deletes the shards, once they are merged."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _take(self, about: Mapping[str, Any], rows: list[Row]) -> None:
        self._rows += rows
        self.episodes += len(about["reasons"])
        self.reasons.update(about["reasons"])

    def _read(self, path: Path) -> None:
        about, arrays = artefacts.load(path, KIND)
        refuse_other(about["settings"], self._settings, str(self._folder))
        if about["first"] != self.episodes:
            raise CollectionError(
                f"shard {path} starts at episode {about['first']}, expected {self.episodes}; one is missing"
            )
        accepted = range(about["reasons"].count("accepted"))
        self._take(about, [{name: column[i] for name, column in arrays.items()} for i in accepted])


def refuse_other(found: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> None:
    """Refuses to go on with what other settings made."""
    if (other := artefacts.difference(found, wanted, "settings")) is not None:
        raise CollectionError(f"{where} was collected otherwise: {other}; give another output or remove it")
