"""Stages that don't depend on each other, at the same time: each in a process of its own, on cores of its own.

Two processes of one thread each get more done than one of two threads, and small networks gain little by threads.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from dexcompose_agents.runtime.compute import Piece
from dexcompose_agents.runtime.interrupts import Paused, sigterm_interrupts
from dexcompose_agents.stages.records import complete
from dexcompose_envs.errors import MachineError
from dexcompose_envs.physics.workers import usable_cores

if TYPE_CHECKING:
    from dexcompose_agents.stages.base import Stage


class Running(NamedTuple):
    """A stage at work: its process, and the place of its cores among the shares."""

    stage: Stage
    process: Any
    share: int


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
    todo, running = list(stages), dict[Connection, Running]()
    shares = shares_of_cores(min(jobs, len(todo)))
    free, paused = list(range(len(shares)))[::-1], None
    try:
        while running or (todo and paused is None):
            while todo and free and paused is None:
                receiver, entry = _start(todo.pop(0), folder, piece.remaining, shares[free[-1]], free.pop())
                running[receiver] = entry
            for receiver in cast(list[Connection], wait(list(running))):
                stage, process, share = running[receiver]
                try:
                    result = receiver.recv()
                except EOFError:
                    process.join()
                    died = f"the process of '{stage.title}' died (exit code {process.exitcode})"
                    raise MachineError(f"{died}; run it again, with fewer --jobs if memory was short") from None
                process.join()
                del running[receiver]
                free.append(share)
                if isinstance(result, Paused):
                    paused = result
                elif isinstance(result, BaseException):
                    raise result
                else:
                    yield stage, result
        if paused is not None:
            raise paused
    finally:
        for entry in running.values():
            entry.process.terminate()
        for entry in running.values():
            entry.process.join()


def shares_of_cores(count: int) -> list[set[int]]:
    """The usable cores, shared out among so many processes; empty sets where a process can't be kept to its cores."""
    if count == 0 or not hasattr(os, "sched_getaffinity"):
        return [set() for _ in range(count)]
    cores = sorted(os.sched_getaffinity(0))
    return [set(cores[share::count]) or {cores[share % len(cores)]} for share in range(count)]


def default_jobs(preset: str) -> int:
    """Processes at a time: one per core where they compute on the CPU."""
    return usable_cores() if preset == "cpu" else 1


def _start(
    stage: Stage, folder: Path, minutes: float | None, cores: set[int], share: int
) -> tuple[Connection, Running]:
    context = get_context("spawn")  # torch and MuJoCo have threads, which don't survive a fork
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, stage, folder, minutes, cores), daemon=True)
    process.start()
    sender.close()
    return receiver, Running(stage, process, share)


def _work(sender: Connection, stage: Stage, folder: Path, minutes: float | None, cores: set[int]) -> None:
    """What a process does; only the chain's own process tells it to stop, whoever presses Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if cores:
        os.sched_setaffinity(0, cores)
    else:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    places = {name: folder / place for name, place in stage.writes().items()}
    try:
        with sigterm_interrupts():
            record, _ = complete(stage, folder, places, Piece(minutes), lambda done, total: None, again=True)
        sender.send(record)
    except BaseException as error:
        error.add_note(traceback.format_exc())
        sender.send(error)
