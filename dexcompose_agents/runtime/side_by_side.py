"""Jobs that don't depend on each other, at the same time: each in a process of its own, on cores of its own.

Two processes of one thread each get more done than one of two threads, and small networks gain little by threads.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, cast

from dexcompose_agents.runtime.interrupts import Paused, sigterm_interrupts
from dexcompose_envs.errors import MachineError
from dexcompose_envs.physics.workers import usable_cores


class Job(NamedTuple):
    """What a process does: calls an importable function with arguments that can be pickled."""

    title: str
    run: Callable[..., Any]
    arguments: Callable[[], tuple[Any, ...]]
    """Asked when the job begins."""


class _Running(NamedTuple):
    job: Job
    process: Any
    share: int


def side_by_side(
    jobs: Sequence[Job], count: int, told: Callable[[Job, Any], None] = lambda job, news: None
) -> Iterator[tuple[Job, Any]]:
    """Does jobs, `count` at a time; gives each with its result when it is done.

    Args:
        jobs: Jobs; those that come first begin first.
        count: Processes at a time; each gets its share of the cores.
        told: Takes what a job passes to its last argument, a function of one argument, while it runs.

    Raises:
        Paused: When a job ran out of its time; no further one begins.
        MachineError: If a process dies, for want of memory say.
        Exception: What a job raises; the others are then interrupted, as by Ctrl-C.
    """
    todo, running = list(jobs), dict[Connection, _Running]()
    shares = shares_of_cores(min(count, len(todo)))
    free, paused = list(range(len(shares)))[::-1], None
    try:
        while running or (todo and paused is None):
            while todo and free and paused is None:
                receiver, entry = _start(todo.pop(0), shares[free[-1]], free.pop())
                running[receiver] = entry
            for receiver in cast(list[Connection], wait(list(running))):
                job, process, share = running[receiver]
                try:
                    is_news, result = receiver.recv()
                except EOFError:
                    process.join()
                    died = f"the process of '{job.title}' died (exit code {process.exitcode})"
                    raise MachineError(f"{died}; run it again, with fewer --jobs if memory was short") from None
                if is_news:
                    told(job, result)
                    continue
                process.join()
                del running[receiver]
                free.append(share)
                if isinstance(result, Paused):
                    paused = result
                elif isinstance(result, BaseException):
                    raise result
                else:
                    yield job, result
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


def one_per_core(computes_on_cpu: bool) -> int:
    """Processes at a time where nothing else is asked for: on a GPU they would only be in each other's way."""
    return usable_cores() if computes_on_cpu else 1


def _start(job: Job, cores: set[int], share: int) -> tuple[Connection, _Running]:
    context = get_context("spawn")  # torch and MuJoCo have threads, which don't survive a fork
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, job.run, job.arguments(), cores), daemon=True)
    process.start()
    sender.close()
    return receiver, _Running(job, process, share)


def _work(sender: Connection, run: Callable[..., Any], arguments: tuple[Any, ...], cores: set[int]) -> None:
    """What a process does; only the one that began it tells it to stop, whoever presses Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if cores:
        os.sched_setaffinity(0, cores)
    else:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        with sigterm_interrupts():
            result = run(*arguments, lambda news: sender.send((True, news)))
        sender.send((False, result))
    except BaseException as error:
        error.add_note(traceback.format_exc())
        sender.send((False, error))
