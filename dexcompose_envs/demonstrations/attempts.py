"""The attempts of one recording: which are done, which count, and how they survive an interruption."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from dexcompose_envs.demonstrations.datasets import Episode
from dexcompose_envs.files import atomic_write

Progress = Callable[[int, int], None]
"""`progress(kept, wanted)` in episodes, called once at the start and after every episode."""


class RecordingError(RuntimeError):
    """A recording that can't be finished; the message says what came and what was expected."""


class Attempts:
    """Finished attempts on disk: a file each, written in one step, besides the settings they were made with."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], force: bool) -> None:
        self._folder = folder
        self.done: dict[int, Episode | None] = {}
        if force:
            self.remove()
        about = folder / "settings.json"
        if about.exists():
            found = json.loads(about.read_text("utf-8"))
            for key, value in settings.items():
                if found.get(key) != value:
                    raise RecordingError(
                        f"an unfinished recording in {str(folder)!r} has {key} {found.get(key)!r}, this one has "
                        f"{value!r}; pass force=True to start again"
                    )
            for path in folder.glob("[0-9]*.npz"):
                self.done[int(path.stem)] = _read_episode(path)
        else:
            atomic_write(about, json.dumps(dict(settings), indent=1))

    def add(self, number: int, episode: Episode | None) -> None:
        """Keeps a successful episode, or the fact that the attempt failed."""
        arrays: dict[str, Any] = {}
        if episode is not None:
            arrays = {"seed": np.array(episode.seed), "actions": episode.actions, "rewards": episode.rewards}
            arrays |= {f"observations/{key}": value for key, value in episode.observations.items()}
            arrays |= {f"infos/{name}": value for name, value in episode.infos.items()}
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        atomic_write(self._folder / f"{number:06d}.npz", buffer.getvalue())
        self.done[number] = episode

    def remove(self) -> None:
        """Deletes the files."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with suppress(OSError):  # other recordings lie beside it
            self._folder.parent.rmdir()


class Book:
    """Hands out attempt numbers and knows when the successful ones among the finished first attempts are enough."""

    def __init__(self, attempts: Attempts, wanted: int, most: int, progress: Progress | None) -> None:
        self._attempts, self._wanted, self._most, self._progress = attempts, wanted, most, progress
        self._given = 0
        self._first = 0
        self.kept: list[int] = []
        self._advance()

    @property
    def complete(self) -> bool:
        """Whether nothing is left to run."""
        return len(self.kept) >= self._wanted or self._first >= self._most

    def next(self) -> int:
        """The next attempt that has no result."""
        while self._given in self._attempts.done:
            self._given += 1
        self._given += 1
        return self._given - 1

    def finish(self, number: int, episode: Episode | None) -> None:
        """Takes an attempt's result; attempts beyond the last allowed one don't count."""
        if number < self._most:
            self._attempts.add(number, episode)
            self._advance()

    def _advance(self) -> None:
        while self._first in self._attempts.done and not self.complete:
            if self._attempts.done[self._first] is not None:
                self.kept.append(self._first)
            self._first += 1
        if self._progress is not None:
            successes = sum(episode is not None for episode in self._attempts.done.values())
            self._progress(min(successes, self._wanted), self._wanted)


def _read_episode(path: Path) -> Episode | None:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    if not arrays:
        return None
    groups: dict[str, dict[str, Any]] = {"observations": {}, "infos": {}}
    for name, value in arrays.items():
        group, _, key = name.partition("/")
        if group in groups:
            groups[group][key] = value
    return Episode(int(arrays["seed"]), groups["observations"], arrays["actions"], arrays["rewards"], groups["infos"])
