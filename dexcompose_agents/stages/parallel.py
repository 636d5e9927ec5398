"""Stages of a chain that don't depend on each other, at the same time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dexcompose_agents.runtime.compute import Piece
from dexcompose_agents.runtime.side_by_side import Job, side_by_side
from dexcompose_agents.stages.records import complete

if TYPE_CHECKING:
    from dexcompose_agents.stages.base import Stage


def complete_all(
    stages: Sequence[Stage], folder: Path, piece: Piece, jobs: int
) -> Iterator[tuple[Stage, dict[str, Any]]]:
    """Does stages of a chain, `jobs` at a time, or goes on with them; gives each with its record when it is done.

    Args:
        stages: Stages that read nothing of each other; those that come first begin first.
        folder: The chain's folder.
        piece: Time of this call.
        jobs: Processes at a time; each gets its share of the cores.

    Raises:
        Paused: When the time is up.
        MachineError: If a process dies, for want of memory say.
        Exception: What a stage raises; the others are then stopped, with everything saved.
    """
    by_title = {stage.title: stage for stage in stages}

    def job(stage: Stage) -> Job:
        return Job(stage.title, _complete, lambda: (stage, folder, piece.remaining))

    for done, record in side_by_side([job(stage) for stage in stages], jobs):
        yield by_title[done.title], record


def _complete(stage: Stage, folder: Path, minutes: float | None, tell: Any) -> dict[str, Any]:
    places = {name: folder / place for name, place in stage.writes().items()}
    record, _ = complete(stage, folder, places, Piece(minutes), lambda done, total: None, again=True)
    return record
