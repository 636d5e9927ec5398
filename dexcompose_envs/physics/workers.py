"""Threads that do the same thing for many worlds, and that an interruption can't turn against each other."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from itertools import count

import mujoco

from dexcompose_envs.errors import StepError


def usable_cores() -> int:
    """CPU cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Workers:
    """A thread pool in which every thread has a copy of a model, which it may change, and an `MjData` of its own.

    Ctrl-C can leave `run` at any moment while threads are still at work. They do no harm as long as they write only to
    arrays made for that very call, which its caller takes over once it has returned.

    Args:
        model: What is copied for each thread.
        threads: Number of threads; 1 works in the caller's.
    """

    def __init__(self, model: mujoco.MjModel, threads: int) -> None:
        self._model, self._threads = model, threads
        self._local = threading.local()
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0
        self._is_closed = False

    @property
    def data(self) -> mujoco.MjData:
        """The calling thread's own data, and in `data.model` its own model, as they were left."""
        if not hasattr(self._local, "data"):
            self._local.data = mujoco.MjData(copy(self._model))
        return self._local.data

    def run(self, number: int, work: Callable[[mujoco.MjData, int], None], least: int = 1) -> None:
        """Calls `work(data, i)` once for every i below `number`, in any order.

        Args:
            number: How often.
            work: What to do; it may write only to arrays that nobody reads before this method has returned.
            least: Calls that are worth a thread.

        Raises:
            StepError: After `close`.
        """
        if self._is_closed:
            raise StepError("the environment is closed; expected a new one")
        tickets = count()  # next() is atomic: each thread draws its next index

        def draw() -> None:
            data = self.data
            while (index := next(tickets)) < number:
                work(data, index)

        threads = min(self._threads, number // least)
        if threads <= 1:
            draw()
            return
        if self._pool is None or self._process != os.getpid():  # threads don't survive a fork
            self._pool, self._process = ThreadPoolExecutor(self._threads), os.getpid()
        for job in [self._pool.submit(draw) for _ in range(threads)]:
            job.result()

    def close(self) -> None:
        """Waits for the threads and ends them."""
        self._is_closed = True
        if self._pool is not None and self._process == os.getpid():
            self._pool.shutdown()
        self._pool = None
