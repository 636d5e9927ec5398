"""Checkpoints and CSV logs of a training run, each written whole or not at all."""

from __future__ import annotations

import csv
import io
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dexcompose_envs.files import atomic_write


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a checkpoint of tensors, numbers and lists."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    atomic_write(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint, whatever device its tensors were on, to the CPU; nothing but plain data is accepted.

    Raises:
        ValueError: If the file is truncated, corrupt or no checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a readable checkpoint ({reason}); delete it to start afresh") from None
    if not isinstance(state, dict) or "iteration" not in state:
        raise ValueError(f"{path} is no training checkpoint; delete it to start afresh")
    return state


def write_csv(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Writes rows of named numbers; a column that a row lacks stays empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in row.items()})
    atomic_write(path, text.getvalue())
