"""The attempts of one recording: which are done, which count, and how they survive an interruption."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from dexcompose_envs.demonstrations.datasets import RecordedEpisode
from dexcompose_envs.errors import DexComposeError, FileError
from dexcompose_envs.files import atomic_write

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
        if about.exists():
            found = _read(about, lambda path: dict(json.loads(path.read_text("utf-8"))))
            for key, value in settings.items():
                if found.get(key) != value:
                    raise RecordingError(
                        f"an unfinished recording in {str(folder)!r} has {key} {found.get(key)!r}, this one has "
                        f"{value!r}; pass force=True to start again"
                    )
            for path in folder.glob("[0-9]*.npz"):
                self.done[int(path.stem)] = _read(path, _read_episode)
        else:
            atomic_write(about, json.dumps(dict(settings), indent=1))

    def add(self, number: int, episode: RecordedEpisode | None) -> None:
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


def _read(path: Path, reader: Callable[[Path], Any]) -> Any:
    try:
        return reader(path)
    except (ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = f"{path} of an unfinished recording is damaged ({type(error).__name__})"
        raise FileError(f"{reason}; pass force=True to start again") from None


def _read_episode(path: Path) -> RecordedEpisode | None:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    if not arrays:
        return None
    groups: dict[str, dict[str, Any]] = {"observations": {}, "infos": {}}
    for name, value in arrays.items():
        group, _, key = name.partition("/")
        if group in groups:
            groups[group][key] = value
    return RecordedEpisode(
        int(arrays["seed"]), groups["observations"], arrays["actions"], arrays["rewards"], groups["infos"]
    )
