"""CSV tables whose last column, `check`, sums up a row and those before it, so that no row is edited or lost unseen."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from dexcompose_agents.evaluation.records import as_csv
from dexcompose_agents.runtime.provenance import read_text
from dexcompose_envs.errors import FileError
from dexcompose_envs.files import atomic_write

CHECK = "check"
Row = TypeVar("Row")


def write_checked(path: str | Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a table in one step, with a last column `check` after the given ones."""
    written, check = [], ""
    for row in rows:
        values = [str(value) for value in row]
        check = _check(values, check)
        written.append([*values, check])
    atomic_write(path, as_csv([(*columns, CHECK), *written]))


def read_checked(
    path: str | Path, columns: Sequence[str], make: Callable[[dict[str, str]], Row], what: str
) -> list[Row]:
    """Reads a table back, in its order.

    Args:
        path: The file.
        columns: Its columns, without `check`.
        make: Makes something of a row, column -> text; may raise a ValueError.
        what: What the table is, for messages.

    Raises:
        FileError: On other columns, a row that `make` refuses, or a table that was edited or cut off, naming file and
            line.
    """
    text = read_text(Path(path))
    reader = csv.reader(io.StringIO(text))
    header, expected = next(reader, []), (*columns, CHECK)
    if tuple(header) != expected:
        raise FileError(f"{path}: {what} has the columns {header}; expected {', '.join(expected)}")
    rows, before = [], ""
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        if len(row) != len(expected):
            raise FileError(f"{where}: {len(row)} values; expected {len(expected)}")
        named = dict(zip(expected, row, strict=True))
        try:
            made = make(named)
        except (ValueError, OverflowError) as error:
            raise FileError(f"{where}: {error}") from None
        if named[CHECK] != (before := _check(row[:-1], before)):
            raise FileError(f"{where}: the row, or one before it, was edited, repeated or removed; run the test again")
        rows.append(made)
    if not text.endswith("\n"):
        raise FileError(f"{path}, line {reader.line_num}: the table is cut off; run the test again")
    return rows


def _check(row: Sequence[str], before: str) -> str:
    return f"{zlib.crc32(','.join([before, *row]).encode()):08x}"
