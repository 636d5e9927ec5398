"""Checkpoints and CSV logs of a training run, each written whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dexcompose_envs.errors import FileError
from dexcompose_envs.files import atomic_write


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a checkpoint of tensors, numbers and lists."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    atomic_write(path, buffer.getvalue())


def load_checkpoint(path: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Reads a checkpoint, whatever device its tensors were on, to the CPU; nothing but plain data is accepted.

    Args:
        path: The file.
        identity: What the training is that wants to go on, as `plain` gives it.

    Raises:
        FileError: If the file is truncated, corrupt or no checkpoint, or belongs to another training.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileError(f"{path} is not a readable checkpoint ({reason}); delete it to start afresh") from None
    if not isinstance(state, dict) or not isinstance(state.get("identity"), dict):
        raise FileError(f"{path} doesn't say which training it belongs to; delete it to start afresh")
    difference = _difference(state["identity"], identity)
    if difference is not None:
        raise FileError(f"'{path.parent}' holds another training: {difference}; expected a folder of its own for each")
    return state


def plain(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON has them, so that what was stored compares equal to what is asked for."""
    made: dict[str, Any] = json.loads(json.dumps(identity))
    return made


def _difference(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> str | None:
    """The first setting in which two trainings differ, as a phrase; None if they are one."""
    for name in dict.fromkeys((*here, *there)):
        before, now = there.get(name), here.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            inner = _difference(before, now, f"{prefix}{name}.")
            if inner is not None:
                return inner
        elif before != now:
            return f"{prefix}{name} is {before!r} there, {now!r} here"
    return None


def write_csv(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Writes rows of named numbers; a column that a row lacks stays empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in row.items()})
    atomic_write(path, text.getvalue())
