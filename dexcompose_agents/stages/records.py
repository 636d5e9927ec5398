"""Doing a stage: what is done and unchanged is skipped, what was interrupted goes on, what is another's is refused.

The record of a stage, `stages/<stage>.json`, keeps all that it was made from (settings, data version, model, hashes of
the files read) and the hashes of the files written. A stage runs in `work/<stage>`, where its checkpoints lie until it
is through; then its files move to their places and the record is written.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from dexcompose_agents.artefacts.shipped import file_hash
from dexcompose_agents.runtime.compute import Piece
from dexcompose_agents.runtime.progress import Advance
from dexcompose_agents.runtime.provenance import machine_info, read_json, software_versions, write_json
from dexcompose_envs import __version__
from dexcompose_envs.artefacts import checksum, difference
from dexcompose_envs.errors import FileError, UsageError

WORK = "work"


class Work(Protocol):
    """What is done here of a `base.Stage`."""

    preset: str

    @property
    def title(self) -> str:
        """What it is called."""

    def made_from(self) -> dict[str, Any]:
        """All that its result depends on."""

    def make(self, work: Path, advance: Advance, piece: Piece) -> None:
        """Does it in a folder."""


def complete(
    stage: Work, folder: Path, places: Mapping[str, Path], piece: Piece, advance: Advance, *, again: bool
) -> tuple[dict[str, Any], bool]:
    """Does a stage, goes on with it, or finds it done.

    Args:
        stage: The stage.
        folder: Where its record and its working folder are.
        places: Where each file goes that the stage writes; all of them in `folder`.
        piece: Time of this call.
        advance: Takes the progress.
        again: Whether what other settings or inputs made is replaced, rather than refused.

    Returns:
        Its record, and whether there was nothing to do.

    Raises:
        UsageError: If the folder holds what other settings or inputs made, or what no stage made.
        FileError: If a file that it reads is missing, or one that it wrote was changed since.
    """
    made_from: dict[str, Any] = json.loads(json.dumps(stage.made_from()))
    if (done := _done(stage, folder, places, made_from)) is not None:
        return done, True
    record_path, work = _paths(stage, folder)
    record, started = stored(record_path), stored(work / "started.json")
    outputs = {str(place.relative_to(folder)): place for place in places.values()}
    if record and all(place.exists() for place in outputs.values()):
        _refuse(record, made_from, folder, f"a finished {stage.title}", again)
    elif not record and not started and not again:
        for place in filter(Path.exists, places.values()):
            what = f"'{place}' exists and is not known to be of {stage.title}"
            raise UsageError(f"{what}; remove it or give another --out")
    if started and started["made_from"] != made_from:
        _refuse(started, made_from, folder, f"an interrupted {stage.title}", again)
        shutil.rmtree(work)
    record_path.unlink(missing_ok=True)
    seconds = _make(stage, work, places, made_from, piece, advance)
    record = {
        "stage": stage.title,
        "preset": stage.preset,
        "made_from": made_from,
        "outputs": {name: content_hash(place) for name, place in outputs.items()},
        "seconds": round(seconds, 2),
        "env_version": __version__,
        "machine": machine_info(),
        "versions": software_versions(),
    }
    write_json(record_path, record)
    shutil.rmtree(work, ignore_errors=True)
    return record, False


def done_already(stage: Work, folder: Path, places: Mapping[str, Path]) -> dict[str, Any] | None:
    """The record of a stage that is done and unchanged, see `complete`; None where there is something to do."""
    return _done(stage, folder, places, json.loads(json.dumps(stage.made_from())))


def _done(stage: Work, folder: Path, places: Mapping[str, Path], made_from: Mapping[str, Any]) -> dict[str, Any] | None:
    record = stored(_paths(stage, folder)[0])
    outputs = {str(place.relative_to(folder)): place for place in places.values()}
    there = bool(record) and all(place.exists() for place in outputs.values())
    if not there or record["made_from"] != made_from or record["outputs"].keys() != outputs.keys():
        return None
    for name, place in outputs.items():
        if (found := content_hash(place)) != (expected := record["outputs"][name]):
            raise FileError(
                f"'{place}' was damaged or changed since stage '{stage.title}' wrote it "
                f"(hash {found}, expected {expected}); remove it to make it again"
            )
    return record


def _paths(stage: Work, folder: Path) -> tuple[Path, Path]:
    """A stage's record and its working folder."""
    slug = stage.title.replace(" ", "-")
    return folder / "stages" / f"{slug}.json", folder / WORK / slug


def tidy(folder: Path) -> None:
    """Removes the folder of working folders if none is left."""
    with suppress(OSError):
        (folder / WORK).rmdir()


def _make(
    stage: Work, work: Path, places: Mapping[str, Path], made_from: dict[str, Any], piece: Piece, advance: Advance
) -> float:
    """Runs a stage, moves its files to their places, and returns the seconds it took, interrupted runs included."""
    work.mkdir(parents=True, exist_ok=True)
    before = float(stored(work / "started.json").get("seconds", 0.0))
    started = {"made_from": made_from, "seconds": before}
    write_json(work / "started.json", started)
    began = time.monotonic()
    try:
        stage.make(work, advance, piece)
    except BaseException:
        write_json(work / "started.json", started | {"seconds": before + time.monotonic() - began})
        raise
    for name, place in places.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            os.replace(place, work / "replaced")
        os.replace(work / name, place)
    return before + time.monotonic() - began


def _refuse(there: Mapping[str, Any], made_from: Mapping[str, Any], folder: Path, what: str, again: bool) -> None:
    """Refuses to replace what was made from something else, naming the first difference."""
    if not again:
        others = (difference(there["made_from"].get(key), made_from[key], key) for key in made_from)
        other = next(filter(None, others), "outputs are others")
        raise UsageError(f"'{folder}' holds {what} whose {other}; remove it or give another --out")


def stored(path: Path) -> dict[str, Any]:
    """Content of a stage's JSON file; nothing where there is none, a FileError where it is damaged."""
    content = read_json(path) if path.exists() else {}
    if not isinstance(content, dict):
        raise FileError(f"'{path}' holds a {type(content).__name__}; expected a JSON object; remove it")
    return content


def content_hash(path: Path) -> str:
    """SHA-256 (16 hex digits) of a file, or of all files of a folder with their names, hidden ones aside."""
    if not path.is_dir():
        return file_hash(path)
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    return checksum({file.relative_to(path).as_posix(): file_hash(file) for file in files}, {})[:16]
