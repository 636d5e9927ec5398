"""What a training run may use: a device, and the time of one call."""

from __future__ import annotations

import time
from typing import Any

from dexcompose_agents.runtime.interrupts import Paused
from dexcompose_agents.runtime.presets import GPU_PRESETS
from dexcompose_agents.runtime.progress import Advance
from dexcompose_envs.errors import UsageError


def physics_options(preset: str, device: str | None) -> dict[str, Any]:
    """Options of an environment under a preset: which back end and device it runs on."""
    return {"backend": "warp", "device": device or "cuda"} if preset in GPU_PRESETS else {}


class Piece:
    """The time that one call may take, in minutes from now on, whatever number of stages it runs; None: no limit."""

    def __init__(self, minutes: float | None = None) -> None:
        if minutes is not None and not minutes > 0:
            raise UsageError(f"minutes is {minutes}; expected a positive number")
        self._minutes = minutes
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    @property
    def remaining(self) -> float | None:
        """Minutes left, at least a second; None without a limit."""
        return None if self._end is None else max(1 / 60, (self._end - time.monotonic()) / 60)

    def watch(self, advance: Advance) -> Advance:
        """The progress callback, which also ends the call (`Paused`) when its time is used up."""

        def watched(done: float, total: float) -> None:
            advance(done, total)
            if done < total and self._end is not None and time.monotonic() >= self._end:
                raise Paused(f"{self._minutes:g} minutes are over")

        return watched
