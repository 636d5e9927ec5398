"""Restarts of worlds on a device: a store of starts, and reports that come back without stalling the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dexcompose_envs.arrays import Arrays
from dexcompose_envs.episodes.readback import LaggedReader
from dexcompose_envs.episodes.start_queue import DrawRows, StartQueue
from dexcompose_envs.observations import Array

GPU_LAG = 1
"""Control steps that the host may run ahead of a GPU."""

Reports = list[tuple[NDArray[np.bool_], NDArray[np.int64]]]
"""Per control step: worlds with spoilt actions (N,), and each world's problem (N,)."""


class Restarts:
    """Hands out starts by mask and keeps the host informed; does nothing on NumPy, where the host is there anyway.

    Args:
        arrays: Where the environment's arrays live.
        draw: Draws rows from generators.
        rngs: The worlds' generators, N.
        width: Numbers per row.
    """

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
        return self._read(False)

    def catch_up(self) -> Reports:
        """Fills the store before a step."""
        assert self._queue is not None
        reports = self._read(False)
        self._queue.fill()
        return reports

    def settle(self, worlds: NDArray[np.int64]) -> Reports:
        """Drops the starts in store of some worlds (indices), as if they had never been drawn; waits for the device."""
        if self._queue is None:
            return []
        reports = self._read(True)
        self._queue.learn(self._queue.used.cpu().numpy())
        self._queue.forget(worlds)
        return reports

    def _read(self, everything: bool) -> Reports:
        assert self._queue is not None
        reports: Reports = []
        for used, spoilt, problem in self._reader.all() if everything else self._reader.due():
            self._queue.learn(used)
            reports.append((spoilt != 0, problem))
        return reports
