"""Episode records: one CSV line per finished rollout, written as it ends, and read back with every value checked."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import TracebackType

from dexcompose_agents.evaluation.manifest import EvaluationError

__all__ = ["EPISODES_FILE", "EPISODE_COLUMNS", "OUTCOME_NAMES", "EpisodeLog", "EpisodeRecord", "read_episodes"]

OUTCOME_NAMES = ("success", "init", "transition", "drop", "b_fail", "error")
"""What a rollout can end as: success; A lost before the hand-over, in the transition, during B; A held but B not done;
``error`` = the world became numerically unstable (counted as a failure, and reported by name)."""

EPISODES_FILE = "episodes.csv"


@dataclass(frozen=True)
class EpisodeRecord:
    """One finished rollout.

    Attributes:
        pair: "GraspBall-PushButton".
        method: Name of the composition method.
        selector: Which selector chose the finger mask; "none" for a method without one.
        seed: Evaluation seed (block of rollouts) this rollout belongs to.
        episode_seed: The seed that alone determines the start and the noise of the rollout.
        outcome: One of ``OUTCOME_NAMES``.
        steps: Control steps until the end.
    """

    pair: str
    method: str
    selector: str
    seed: int
    episode_seed: int
    outcome: str
    steps: int

    @property
    def success(self) -> bool:
        """Whether A was retained throughout and B succeeded."""
        return self.outcome == "success"

    @property
    def run(self) -> tuple[str, str, str]:
        """``(pair, method, selector)``: what one row of the results table is about."""
        return self.pair, self.method, self.selector


EPISODE_COLUMNS = tuple(field.name for field in fields(EpisodeRecord))


def _parse_row(row: list[str], where: str) -> EpisodeRecord:
    if len(row) != len(EPISODE_COLUMNS):
        raise EvaluationError(f"{where}: expected {len(EPISODE_COLUMNS)} columns, found {len(row)}")
    pair, method, selector, seed, episode_seed, outcome, steps = row
    if outcome not in OUTCOME_NAMES:
        raise EvaluationError(f"{where}: unknown outcome '{outcome}'; expected one of {', '.join(OUTCOME_NAMES)}")
    try:
        return EpisodeRecord(pair, method, selector, int(seed), int(episode_seed), outcome, int(steps))
    except ValueError:
        raise EvaluationError(
            f"{where}: seed, episode_seed and steps must be integers, found '{seed}', '{episode_seed}', '{steps}'"
        ) from None


def _read_file(path: Path) -> list[EpisodeRecord]:
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise EvaluationError(f"{path} is not a text file") from None
    complete = text[: text.rfind("\n") + 1]  # a line without its end was being written when the process was killed
    rows = list(csv.reader(io.StringIO(complete)))
    if not rows:
        return []
    if tuple(rows[0]) != EPISODE_COLUMNS:
        raise EvaluationError(f"{path}: expected the columns {','.join(EPISODE_COLUMNS)}, found {','.join(rows[0])}")
    return [_parse_row(row, f"{path}, line {number}") for number, row in enumerate(rows[1:], start=2)]


def read_episodes(folder: Path | str) -> list[EpisodeRecord]:
    """All records of the files ``episodes*.csv`` in ``folder``, in file and line order.

    Raises:
        EvaluationError: If the folder has no such file, a file is malformed, or an episode occurs twice (it would be
            counted twice).
    """
    folder = Path(folder)
    paths = sorted(folder.glob("episodes*.csv"))
    if not paths:
        raise EvaluationError(f"no episodes*.csv in '{folder}'; expected a folder written by 'dexcompose eval'")
    records = [record for path in paths for record in _read_file(path)]
    seen: set[tuple[str, str, str, int]] = set()
    for record in records:
        key = (*record.run, record.episode_seed)
        if key in seen:
            raise EvaluationError(f"'{folder}' has episode {record.episode_seed} of {'/'.join(record.run)} twice")
        seen.add(key)
    return records


class EpisodeLog:
    """Append-only writer of ``episodes.csv``; every record reaches the file before ``append`` returns.

    Opening it drops a half-written last line (left by a killed process) and takes an exclusive lock, so that two
    evaluations cannot write to one folder at once.

    Raises:
        EvaluationError: If the folder or file cannot be written, or another process holds the lock.
    """

    def __init__(self, folder: Path) -> None:
        """Open (or create) ``folder/episodes.csv`` for appending."""
        path = folder / EPISODES_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Unbuffered binary append: a whole line is handed to the system in one write.
            self._file = path.open("ab+", buffering=0)
        except OSError as error:
            reason = error.strerror or error
            raise EvaluationError(f"cannot write to '{folder}' ({reason}); expected a writable folder") from None
        try:
            self._lock(path)
            self._drop_torn_line()
            if self._file.seek(0, os.SEEK_END) == 0:
                self._write_rows([EPISODE_COLUMNS])
        except BaseException:
            self._file.close()
            raise

    def _lock(self, path: Path) -> None:
        try:
            import fcntl
        except ImportError:  # not a POSIX system: two writers in one folder go unnoticed there
            return
        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EvaluationError(f"'{path}' is being written by another evaluation; choose another folder") from None
        except OSError:
            return  # a file system without locks

    def _drop_torn_line(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        end = content.rfind(b"\n") + 1
        if end != len(content):
            self._file.truncate(end)

    def _write_rows(self, rows: Iterable[Iterable[object]]) -> None:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows(rows)
        self._file.write(buffer.getvalue().encode("utf-8"))

    def append(self, record: EpisodeRecord) -> None:
        """Write one record."""
        self._write_rows([astuple(record)])

    def close(self) -> None:
        """Close the file and release the lock."""
        self._file.close()

    def __enter__(self) -> EpisodeLog:
        """Return the log itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()
