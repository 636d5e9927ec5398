"""Episode records: one CSV line per finished rollout, written as it ends, and read back with every value checked."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from functools import lru_cache
from pathlib import Path

from dexcompose_agents.evaluation.manifest import EvaluationError, Manifest
from dexcompose_agents.evaluation.published import method_rank
from dexcompose_agents.runtime.provenance import read_text
from dexcompose_envs.checks import one_of, whole_number
from dexcompose_envs.episodes.phases import HOLD_STEPS, INTERACT_FROM, SETTLE_STEPS
from dexcompose_envs.errors import FileError, UsageError
from dexcompose_envs.files import OutputError, atomic_write
from dexcompose_envs.skills import composite_name

OUTCOME_NAMES = ("success", "init", "transition", "drop", "b_fail", "error")
"""What a rollout can end as: success; A lost before the hand-over, in the transition, during B; A held but B not done;
``error`` = the world became numerically unstable (counted as a failure, and reported by name)."""

EVALUATION_SEED_BASE = 2**30
"""Episode seeds from here on belong to evaluation; training, demonstrations and libraries use smaller ones."""
MAX_ROLLOUTS = 2**17
MAX_SEEDS = 2**13

EPISODES_FILE = "episodes.csv"
_FEWEST_STEPS = {"success": SETTLE_STEPS + 1, "transition": HOLD_STEPS + 1, "drop": INTERACT_FROM + 1}
"""What an outcome takes at least; there is no most: grasping may come before, and in a chain phases come again."""


def episode_seed(seed: int, rollout: int) -> int:
    """``2**30 + seed * 2**17 + rollout``: distinct for all valid arguments, and below ``2**31``.

    Raises:
        UsageError: If ``seed`` is not in [0, 8192) or ``rollout`` not in [0, 131072).
    """
    whole_number("evaluation seed", seed, 0, MAX_SEEDS - 1)
    return EVALUATION_SEED_BASE + seed * MAX_ROLLOUTS + whole_number("rollout", rollout, 0, MAX_ROLLOUTS - 1)


@dataclass(frozen=True)
class EpisodeRecord:
    """One finished rollout of the protocol; one that cannot be is refused.

    Attributes:
        pair: "GraspBall-PushButton".
        method: Name of the composition method.
        selector: Which selector chose the finger mask; "none" for a method without one.
        seed: Evaluation seed (block of rollouts) this rollout belongs to.
        episode_seed: The seed that alone determines the start and the noise of the rollout.
        outcome: One of ``OUTCOME_NAMES``.
        steps: Control steps until the end.

    Raises:
        UsageError: If the pair or outcome is unknown, a name is empty, the episode seed is not one of the seed's, or
            the outcome is impossible after so many steps.
    """

    pair: str
    method: str
    selector: str
    seed: int
    episode_seed: int
    outcome: str
    steps: int

    def __post_init__(self) -> None:
        _known_pair(self.pair)
        if not self.method or not self.selector:
            raise EvaluationError(f"method and selector must not be empty, got '{self.method}' and '{self.selector}'")
        if not 0 <= self.episode_seed - episode_seed(self.seed, 0) < MAX_ROLLOUTS:
            raise EvaluationError(
                f"episode_seed {self.episode_seed} is none of seed {self.seed}; expected 2**30 + seed * 2**17 + rollout"
            )
        one_of("outcome", self.outcome, OUTCOME_NAMES)
        whole_number(f"steps of outcome '{self.outcome}'", self.steps, _FEWEST_STEPS.get(self.outcome, 1))

    @property
    def success(self) -> bool:
        """Whether A was retained throughout and B succeeded."""
        return self.outcome == "success"

    @property
    def run(self) -> tuple[str, str, str]:
        """``(pair, method, selector)``: what one row of the results table is about."""
        return self.pair, self.method, self.selector

    @property
    def rollout(self) -> int:
        """Number of the rollout within its seed."""
        return self.episode_seed - episode_seed(self.seed, 0)


EPISODE_COLUMNS = tuple(field.name for field in fields(EpisodeRecord))
_known_pair = lru_cache(composite_name)


def _parse_row(row: list[str]) -> EpisodeRecord:
    if len(row) != len(EPISODE_COLUMNS):
        raise EvaluationError(f"expected {len(EPISODE_COLUMNS)} columns, found {len(row)}")
    pair, method, selector, seed, episode, outcome, steps = row
    try:
        numbers = [int(text) for text in (seed, episode, steps)]
    except ValueError:
        numbers = []
    if [str(number) for number in numbers] != [seed, episode, steps]:
        raise EvaluationError(f"seed, episode_seed and steps must be integers, found '{seed}', '{episode}', '{steps}'")
    return EpisodeRecord(pair, method, selector, numbers[0], numbers[1], outcome, numbers[2])


def _read_file(path: Path) -> list[tuple[str, EpisodeRecord]]:
    """Records with their place, "file, line 3"."""
    text = read_text(path)
    complete = text[: text.rfind("\n") + 1]  # a line without its end was being written when the process was killed
    reader = csv.reader(io.StringIO(complete), strict=True)
    records = []
    try:
        header = next(reader, None)
        if header is not None and tuple(header) != EPISODE_COLUMNS:
            raise EvaluationError(f"expected the columns {','.join(EPISODE_COLUMNS)}, found {','.join(header)!r}")
        for row in reader:
            records.append((f"{path}, line {reader.line_num}", _parse_row(row)))
    except (UsageError, csv.Error) as error:
        raise FileError(f"{path}, line {reader.line_num}: {error}") from None
    return records


def _check_planned(record: EpisodeRecord, manifest: Manifest, where: str) -> None:
    run = "/".join(record.run)
    if run not in manifest.runs:
        raise FileError(f"{where}: the folder's manifest knows no run {run}")
    plan = manifest.runs[run]["plan"]
    if record.seed >= plan["seeds"] or record.rollout >= plan["rollouts"]:
        raise FileError(
            f"{where}: seed {record.seed}, rollout {record.rollout} is not in the manifest's plan of "
            f"{plan['seeds']} seeds with {plan['rollouts']} rollouts"
        )


def read_folder(folder: Path | str, *, must_exist: bool = True) -> tuple[list[EpisodeRecord], Manifest]:
    """All records of the files ``episodes*.csv`` in ``folder``, in file and line order, and the folder's manifest.

    Raises:
        FileError: If the folder must have such a file and has none, a file is malformed, or an episode occurs twice or
            lies outside the protocol or the manifest's plan; the message names file and line.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("episodes*.csv"))
    if must_exist and not paths:
        raise FileError(f"no episodes*.csv in '{folder}'; expected a folder written by 'dexcompose eval'")
    manifest = Manifest.load(folder)
    seen: dict[tuple[str, str, str, int], EpisodeRecord] = {}
    for where, record in (item for path in paths for item in _read_file(path)):
        if manifest.runs:
            _check_planned(record, manifest, where)
        if seen.setdefault((*record.run, record.episode_seed), record) is not record:
            raise FileError(f"{where}: episode {record.episode_seed} of {'/'.join(record.run)} is there twice")
    return list(seen.values()), manifest


def tidy_episodes(folder: Path) -> None:
    """Put ``episodes.csv`` into the order of the plan: pair, method, selector, seed, rollout.

    Makes the file where it is missing, and drops a last line that a killed process left half-written.
    """
    path = folder / EPISODES_FILE
    records = [record for _, record in _read_file(path)] if path.exists() else []
    records.sort(key=lambda record: (record.pair, method_rank(record.method), record.selector, record.episode_seed))
    text = as_csv([EPISODE_COLUMNS, *map(astuple, records)])
    if not path.exists() or path.read_bytes() != text.encode("utf-8"):
        atomic_write(path, text)


def as_csv(rows: Iterable[Iterable[object]]) -> str:
    """Rows as lines of CSV."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def append_episode(folder: Path, record: EpisodeRecord) -> None:
    """Add a line to ``episodes.csv``; it is in the file when this returns, or an OutputError says why not."""
    path = folder / EPISODES_FILE
    try:
        with path.open("ab", buffering=0) as file:
            file.write(as_csv([astuple(record)]).encode("utf-8"))
    except OSError as error:
        raise OutputError(f"can't write '{path}' ({error.strerror or error})") from None
