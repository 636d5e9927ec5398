"""The attempts of one recording: which are done, which count, and how they survive an interruption."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dexcompose_envs import artefacts
from dexcompose_envs.artefacts import ArtefactError
from dexcompose_envs.demonstrations.datasets import RecordedEpisode
from dexcompose_envs.errors import DexComposeError

Progress = Callable[[int, int], None]
"""`progress(kept, wanted)` in episodes, called once at the start and after every episode."""


class RecordingError(DexComposeError, RuntimeError):
    """A recording that can't be finished; the message says what came and what was expected."""


class Attempts:
    """Finished attempts on disk: a file each, written in one step, besides the settings they were made with."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], force: bool) -> None:
        self._folder = folder
        self.done: dict[int, RecordedEpisode | None] = {}
        about = folder / "settings.json"
        if force:
            for path in [about, *folder.glob("[0-9]*.npz")]:
                path.unlink(missing_ok=True)
        try:
            if about.exists():
                found, _ = artefacts.load(about, "recording")
                artefacts.check(found, f"'{about}'", **settings)
                for path in folder.glob("[0-9]*.npz"):
                    self.done[int(path.stem)] = _read_episode(path)
            else:
                artefacts.save(about, {"kind": "recording", **settings}, {}, "json")
        except ArtefactError as error:
            raise RecordingError(f"an unfinished recording can't go on: {error}; force=True starts again") from None

    def add(self, number: int, episode: RecordedEpisode | None) -> None:
        """Keeps a successful episode, or the fact that the attempt failed."""
        arrays: dict[str, Any] = {}
        if episode is not None:
            arrays = {"actions": episode.actions, "rewards": episode.rewards}
            arrays |= {f"observations/{key}": value for key, value in episode.observations.items()}
            arrays |= {f"infos/{name}": value for name, value in episode.infos.items()}
        about = {"kind": "attempt", "seed": None if episode is None else episode.seed}
        artefacts.save(self._folder / f"{number:06d}.npz", about, arrays, "npz")
        self.done[number] = episode

    def remove(self) -> None:
        """Deletes the files."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with suppress(OSError):  # other recordings lie beside it
            self._folder.parent.rmdir()


def _read_episode(path: Path) -> RecordedEpisode | None:
    about, arrays = artefacts.load(path, "attempt")
    if not arrays:
        return None
    groups: dict[str, dict[str, Any]] = {"observations": {}, "infos": {}}
    for name in [name for name in arrays if "/" in name]:
        group, _, key = name.partition("/")
        groups[group][key] = arrays.pop(name)
    return RecordedEpisode(about["seed"], groups["observations"], arrays["actions"], arrays["rewards"], groups["infos"])
