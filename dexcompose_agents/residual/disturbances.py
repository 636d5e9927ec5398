"""Randomised base motion and finger release: what stabiliser A learns to withstand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dexcompose_agents.residual.config import DisturbanceConfig
from dexcompose_envs import hand
from dexcompose_envs.skills.trajectories import minimum_jerk

Float64 = NDArray[np.float64]

CONTROL_PERIOD = 0.04
"""Seconds per control step."""
_PEAK_SLOPE = 1.875  # of `minimum_jerk`
_FILTER = 0.8  # Decay per step of the jitter's low-pass filter.
_PITCH = 4
_ABDUCTION = np.array([joint[2:] in ("J3", "J4") for joint in hand.JOINTS])


@dataclass(frozen=True)
class Disturbance:
    """One episode's disturbance, T control steps long, whatever state it starts from."""

    wrist: Float64
    """Offset of the wrist's targets from the hold pose, (T, 6), m and rad."""
    share: Float64
    """How far released fingers are on their way from q_ref to the open posture, (T,), in [0, 1] (lam of Eq. 5)."""
    motion: Float64
    """Small random motions about the open posture, (T, 22), rad; zero until it is reached."""
    phase: NDArray[np.int64]
    """Index into `phases.PHASES` (T,): hold until the release starts, transition while fingers open, then interact."""


def wander(rng: np.random.Generator, steps: int, start: Float64, low: Float64, high: Float64, speed: float) -> Float64:
    """A smooth path (T, k) from `start` through random waypoints in [low, high], minimum-jerk from each to the next.

    From one to the next it takes 10 to 40 steps, more where the largest (Euclidean) speed, in units per second, asks.
    """
    here, path, length = start, [start[None]], 1
    while length < steps:
        there = rng.uniform(low, high)
        needed = _PEAK_SLOPE * np.linalg.norm(there - here) / (speed * CONTROL_PERIOD)
        duration = max(int(rng.integers(10, 41)), int(np.ceil(needed)))
        share = minimum_jerk(np.arange(1, duration + 1) / duration)[:, None]
        path.append(here + share * (there - here))
        length += duration
        here = there
    return np.concatenate(path)[:steps]


def _jitter(rng: np.random.Generator, steps: int, deviation: Float64) -> Float64:
    """Low-pass noise (T, 6) of the given standard deviations that fades in over the first ten steps."""
    noise = rng.standard_normal((steps, 6))
    for t in range(1, steps):
        noise[t] = _FILTER * noise[t - 1] + np.sqrt(1 - _FILTER**2) * noise[t]
    return noise * deviation * np.minimum(np.arange(steps) / 10.0, 1.0)[:, None]


def _pitch_ramp(rng: np.random.Generator, steps: int, config: DisturbanceConfig) -> Float64:
    """A tilt up, a stay and a tilt back (T,), as pressing something on the table asks for."""
    height = rng.uniform(0.3, 1.0) * config.pitch * (rng.random() < config.pitch_probability)
    up, stay, down = rng.integers(15, 41), rng.integers(20, 101), rng.integers(15, 41)
    time = np.arange(steps) - rng.integers(5, 41)
    return height * (minimum_jerk(time / up) - minimum_jerk((time - up - stay) / down))


def draw_disturbance(rng: np.random.Generator, steps: int, config: DisturbanceConfig) -> Disturbance:
    """Draws one episode's base motion and finger release over `steps` control steps; it starts at rest at the hold."""
    still = int(rng.integers(0, 15))  # The wrist stays put this long.
    lowest = np.array([-1.0, -1.0, -config.descent / config.translation])
    strength = rng.uniform(0.3, 1.0)  # Gentle episodes as well as rough ones.
    size = strength * config.translation
    translation = wander(rng, steps, np.zeros(3), size * lowest, size * np.ones(3), config.speed)
    reach = strength * config.rotation * np.array([1.0, 0.5, 1.0])
    rotation = wander(rng, steps, np.zeros(3), -reach, reach, config.turn_rate)
    wrist = np.pad(np.concatenate([translation, rotation], axis=1), ((still, 0), (0, 0)), "edge")[:steps]
    wrist[:, _PITCH] += _pitch_ramp(rng, steps, config)
    deviation = [config.jitter_translation] * 3 + [config.jitter_rotation] * 3
    wrist += _jitter(rng, steps, strength * np.array(deviation))

    begin, duration = (int(rng.integers(low, high + 1)) for low, high in (config.release_start, config.release_steps))
    time = np.arange(steps)
    share = np.clip((time - begin + 1) / duration, 0.0, 1.0)
    open_from = begin + duration
    motion = np.zeros((steps, hand.NUM_FINGER_JOINTS))
    if open_from < steps:
        down, up = (
            np.where(_ABDUCTION, side, end) for side, end in zip((-0.15, 0.15), config.finger_motion, strict=True)
        )
        motion[open_from:] = wander(rng, steps - open_from, motion[0], down, up, 4.0)
    phase = (time >= begin).astype(np.int64) + (time >= open_from)
    return Disturbance(wrist, share, motion, phase)
