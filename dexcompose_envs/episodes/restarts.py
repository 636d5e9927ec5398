"""Restarts of worlds on a device in the middle of a step, without the host.

Every world has a few rows of its coming episodes on the device. A restart takes the next one, by a mask and without
anybody being asked. Some steps later the host learns how many rows each world has used, and draws and uploads new
ones, in the order in which the world's generator would have drawn them at once. The host never falls behind, as a world
uses at most one row per control step and has as many in store as there are steps that the host doesn't know of.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexcompose_envs.arrays import Arrays
from dexcompose_envs.episodes.readback import LaggedReader
from dexcompose_envs.observations import Array

GPU_LAG = 1
"""Control steps that the host may run ahead of a GPU."""

Reports = list[tuple[NDArray[np.bool_], NDArray[np.int64]]]
"""Per control step: worlds with spoilt actions (N,), and each world's problem (N,)."""
DrawRows = Callable[[Sequence[np.random.Generator]], NDArray[np.float64]]


class Restarts:
    """Hands out starts by mask and keeps the host informed; does nothing on NumPy, where the host is there anyway."""

    def __init__(self, arrays: Arrays, draw: DrawRows, rngs: Sequence[np.random.Generator], width: int) -> None:
        self._arrays = arrays
        self._reader = LaggedReader(GPU_LAG if arrays.is_cuda else 0)
        # A restart in each step that the host hasn't heard of, in the last one (which reports before it restarts
        # worlds), and in the one to come.
        depth = self._reader.lag + 2
        self._queue = None if arrays.device is None else StartQueue(arrays, draw, rngs, depth, width)

    def take(self, worlds: Array) -> Array:
        """The next rows (N, width); those of the worlds in the mask (N,) are used up."""
        assert self._queue is not None
        return self._queue.take(worlds)

    def report(self, spoilt: Array | None, problem: Array | None) -> Reports:
        """Sends the state of a step just queued to the host; returns what has arrived of earlier ones."""
        assert self._queue is not None
        nothing = self._arrays.xp.zeros_like(self._queue.used)
        parts = [self._queue.used, nothing if spoilt is None else spoilt, nothing if problem is None else problem]
        self._reader.push(self._arrays.xp.stack([self._arrays.xp.astype(part, nothing.dtype) for part in parts]))
        return self._read()

    def catch_up(self) -> Reports:
        """Fills the store before a step."""
        assert self._queue is not None
        reports = self._read()
        self._queue.fill()
        return reports

    def settle(self, worlds: NDArray[np.int64]) -> Reports:
        """Drops the starts in store of some worlds (indices), as if they had never been drawn; waits for the device."""
        if self._queue is None:
            return []
        reports = self._read(everything=True)
        self._queue.learn(self._queue.used.cpu().numpy())
        self._queue.forget(worlds)
        return reports

    def _read(self, everything: bool = False) -> Reports:
        assert self._queue is not None
        reports: Reports = []
        for used, spoilt, problem in self._reader.all() if everything else self._reader.due():
            self._queue.learn(used)
            reports.append((spoilt != 0, problem))
        return reports


class StartQueue:
    """A store of rows (N, depth, width) on a device; `forget` goes before replacing a generator."""

    def __init__(
        self, arrays: Arrays, draw: DrawRows, rngs: Sequence[np.random.Generator], depth: int, width: int
    ) -> None:
        worlds = len(rngs)
        self._arrays, self._draw, self._rngs, self._depth = arrays, draw, rngs, depth
        self._rows = arrays.zeros(worlds, depth, width)
        self._world = arrays.of(np.arange(worlds), arrays.xp.int64)
        self.used = arrays.zeros(worlds, dtype=arrays.xp.int64)
        """Rows used so far (N,), on the device."""
        self._drawn = np.zeros(worlds, np.int64)
        self._known_used = np.zeros(worlds, np.int64)
        # State of the generator before each row that isn't known to be used.
        self._before: list[deque[Any]] = [deque() for _ in range(worlds)]

    def fill(self) -> None:
        """Draws and uploads what is missing."""
        missing = self._depth - (self._drawn - self._known_used)
        for _ in range(int(missing.max(initial=0))):
            worlds = np.flatnonzero(self._drawn - self._known_used < self._depth)
            rngs = [self._rngs[world] for world in worlds.tolist()]
            for world, rng in zip(worlds, rngs, strict=True):
                self._before[world].append(rng.bit_generator.state)
            rows = self._arrays.of(self._draw(rngs))
            slots = self._arrays.of(self._drawn[worlds] % self._depth, self._arrays.xp.int64)
            self._rows[self._arrays.of(worlds, self._arrays.xp.int64), slots] = rows
            self._drawn[worlds] += 1

    def take(self, mask: Array) -> Array:
        """The next rows (N, width); those of the worlds in the mask (N,) are used up, the others only looked at."""
        rows = self._rows[self._world, self.used % self._depth]
        self.used = self.used + mask
        return rows

    def learn(self, used: NDArray[np.int64]) -> None:
        """Tells the queue how many rows each world (N,) had used at some time."""
        for world in np.flatnonzero(used > self._known_used):
            for _ in range(int(used[world] - self._known_used[world])):
                self._before[world].popleft()
        self._known_used = np.maximum(self._known_used, used)

    def forget(self, worlds: NDArray[np.int64]) -> None:
        """Drops the rows in store of some worlds (indices), as if they had never been drawn; call `learn` before."""
        for world in worlds.tolist():
            if self._before[world]:
                self._rngs[world].bit_generator.state = self._before[world][0]
            self._before[world].clear()
        self._drawn[worlds] = self._known_used[worlds]
