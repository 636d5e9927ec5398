"""A chain of stages in one folder: what is done and unchanged is skipped, what was interrupted goes on.

A stage turns files of the folder into other files of the folder. Its record, `stages/<stage>.json`, keeps the
fingerprint of everything that it was made from (settings, environment version, hashes of the files read) and the hashes
of the files that it wrote. A stage runs in `work/<stage>`, where its checkpoints lie until it is through; then its
files move to their places and the record is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dexcompose_agents.artefacts.pretrained_files import SUMMARY_FILE
from dexcompose_agents.evaluation.manifest import config_hash, machine_info, software_versions, write_json
from dexcompose_agents.runtime.progress import progress_bar
from dexcompose_envs import __version__
from dexcompose_envs.files import check_writable_dir

__all__ = ["Stage", "StageError", "run_stages"]

Make = Callable[[Path, Callable[[float, float], None]], None]


class StageError(ValueError):
    """A chain that can't go on; the message says which file or setting is in the way."""


@dataclass(frozen=True)
class Stage:
    """One stage of a chain.

    Attributes:
        name: E.g. "policy GraspBall".
        make: ``make(work, advance)`` writes the outputs into the folder ``work`` or goes on with what is there.
        outputs: Files or folders, relative to the chain's folder, by their names in ``work``.
        inputs: Files or folders that it reads, relative to the chain's folder.
        config: Whatever else its outputs depend on, ready for JSON.
    """

    name: str
    make: Make
    outputs: Mapping[str, Path]
    inputs: tuple[Path, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)


def run_stages(stages: Iterable[Stage], out: Path, preset: str, say: Callable[[str], None] = print) -> None:
    """Run every stage whose outputs are missing or were made from something else.

    Args:
        stages: The chain in order; each is asked for when the one before is done, so it may depend on its files.
        out: The chain's folder.
        preset: Name of the budget; a folder keeps to one.
        say: Takes one line per stage.

    Raises:
        StageError: If the folder belongs to another preset, or a file was changed since the chain wrote it.
        OSError: If the folder cannot be written.
    """
    check_writable_dir(out)
    summary = _open_summary(out, preset)
    for stage in stages:
        fingerprint, inputs = _fingerprint(stage, out)
        record_path = out / "stages" / f"{_slug(stage)}.json"
        record = _read_json(record_path)
        unchanged = record.get("fingerprint") == fingerprint and all((out / p).exists() for p in stage.outputs.values())
        if unchanged:
            _check_outputs(record, out)
            say(f"{stage.name:36s} unchanged")
        else:
            record_path.unlink(missing_ok=True)
            seconds = _make(stage, out, fingerprint)
            record = {
                "stage": stage.name,
                "preset": preset,
                "fingerprint": fingerprint,
                "env_version": __version__,
                "config": dict(stage.config),
                "inputs": inputs,
                "outputs": {str(path): _hash(out / path) for path in stage.outputs.values()},
                "seconds": round(seconds, 2),
                "machine": machine_info(),
                "versions": software_versions(),
            }
            write_json(record_path, record)
            shutil.rmtree(out / "work" / _slug(stage), ignore_errors=True)
            say(f"{stage.name:36s} done in {seconds:8.1f} s")
        kept = ("stage", "seconds", "machine", "versions")
        summary["stages"][stage.name] = {key: record.get(key) for key in kept}
        _save_summary(out, summary)


def _make(stage: Stage, out: Path, fingerprint: str) -> float:
    """Runs a stage, moves its outputs to their places, and returns the seconds it took, interrupted runs included."""
    work = out / "work" / _slug(stage)
    started_path = work / "started.json"
    if work.exists() and _read_json(started_path).get("fingerprint") != fingerprint:
        shutil.rmtree(work)  # began with other inputs
    work.mkdir(parents=True, exist_ok=True)
    before = float(_read_json(started_path).get("seconds", 0.0))
    write_json(started_path, {"fingerprint": fingerprint, "seconds": before})
    started = time.monotonic()
    try:
        with progress_bar(stage.name) as advance:
            stage.make(work, advance)
    except BaseException:
        write_json(started_path, {"fingerprint": fingerprint, "seconds": before + time.monotonic() - started})
        raise
    for name, path in stage.outputs.items():
        if not (work / name).exists():
            raise StageError(f"stage '{stage.name}' wrote no '{name}'")
        _move(work / name, out / path, aside=work / f"{name}.replaced")
    return before + time.monotonic() - started


def _move(source: Path, target: Path, aside: Path) -> None:
    """Renames a file or folder; what was there before is put aside first if it is a folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        os.replace(target, aside)
    os.replace(source, target)


def _fingerprint(stage: Stage, out: Path) -> tuple[str, dict[str, str]]:
    """Hash of all that the outputs depend on, and the hash of each input."""
    missing = [path for path in stage.inputs if not (out / path).exists()]
    if missing:
        raise StageError(f"stage '{stage.name}' needs '{out / missing[0]}', which does not exist")
    inputs = {str(path): _hash(out / path) for path in stage.inputs}
    config = {"outputs": sorted(str(path) for path in stage.outputs.values()), **stage.config}
    return config_hash({"config": config, "inputs": inputs, "env_version": __version__}), inputs


def _check_outputs(record: Mapping[str, Any], out: Path) -> None:
    for name, expected in record["outputs"].items():
        found = _hash(out / name)
        if found != expected:
            raise StageError(
                f"'{out / name}' was damaged or changed since stage '{record['stage']}' wrote it "
                f"(hash {found}, expected {expected}); remove it to make it again"
            )


def _hash(path: Path) -> str:
    """SHA-256 (16 hex digits) of a file, or of all files of a folder with their names."""
    digest = hashlib.sha256()
    files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
    for item in files:
        digest.update(item.relative_to(path).as_posix().encode() + b"\0")
        with open(item, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _slug(stage: Stage) -> str:
    return stage.name.replace(" ", "-")


def _read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON file; nothing where there is none."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StageError(f"'{path}' is damaged ({error}); remove it to make its stage again") from None
    if not isinstance(content, dict):
        raise StageError(f"'{path}' holds a {type(content).__name__}, expected a JSON object; remove it")
    return content


def _open_summary(out: Path, preset: str) -> dict[str, Any]:
    stored = _read_json(out / SUMMARY_FILE)
    if stored.get("preset", preset) != preset:
        raise StageError(f"'{out}' was made with preset '{stored['preset']}', now '{preset}'; choose another folder")
    stages = {row["stage"]: row for row in stored.get("stages", [])}
    return {"preset": preset, "stages": stages}


def _save_summary(out: Path, summary: Mapping[str, Any]) -> None:
    rows = list(summary["stages"].values())
    total = round(sum(row["seconds"] for row in rows), 2)
    content = {"preset": summary["preset"], "env_version": __version__, "seconds": total, "stages": rows}
    write_json(out / SUMMARY_FILE, content)
