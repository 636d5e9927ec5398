"""Joint-space trajectories through way-points, with the smooth speed profile of human reaching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Waypoint:
    """A pose to reach.

    Attributes:
        steps: Control steps from the previous way-point.
        target: Position targets (28,), m and rad.
        delays: Steps by which each dimension starts late (28,), or None; it still arrives on time.
    """

    steps: int
    target: NDArray[np.float64]
    delays: NDArray[np.int64] | None = None


def minimum_jerk(phase: ArrayLike) -> NDArray[np.float64]:
    """Fraction of the way at a fraction of the time, clipped to [0, 1] (Flash and Hogan, 1985); peak slope 1.875."""
    s = np.clip(np.asarray(phase, np.float64), 0.0, 1.0)
    return s**3 * (10.0 - 15.0 * s + 6.0 * s**2)


def through(start: NDArray[np.float64], waypoints: Sequence[Waypoint]) -> NDArray[np.float64]:
    """Targets (sum of steps, 28) from a pose (28,) through all way-points."""
    parts = []
    pose = np.asarray(start, np.float64)
    for waypoint in waypoints:
        delays = np.zeros(len(pose)) if waypoint.delays is None else waypoint.delays
        steps = np.arange(1, waypoint.steps + 1)[:, None]
        blend = minimum_jerk((steps - delays) / np.maximum(waypoint.steps - delays, 1))
        parts.append(pose + (waypoint.target - pose) * blend)
        pose = waypoint.target
    return np.concatenate(parts)
