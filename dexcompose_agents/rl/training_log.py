"""CSV logs of a training run, each written whole or not at all."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from dexcompose_envs.files import atomic_write


def write_csv(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Writes rows of named numbers; a column that a row lacks stays empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in row.items()})
    atomic_write(path, text.getvalue())
