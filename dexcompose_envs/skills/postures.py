"""Finger postures that several interaction skills share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import hand

INDEX_TIP = np.array([0.033, -0.004, 0.190])
"""Fingertip of the nearly straight index finger in the palm body's frame, m."""
_CURLED = np.array([1.1, 0.9, 0.6])
"""Flexion (rad) of a long finger's last three joints when it is curled."""
_THUMB_CURLED = np.array([0.7, 0.9, 0.0, 0.1, -0.5])
_DRAWN_IN = np.array([0.7, 0.6, 0.4])
_LONG = ("MF", "RF", "LF")


def pointing_start(pose: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """A start (28,) near a pose whose index finger points: every other finger curls by its own random amount."""
    start = pose.copy()
    start[:3] += rng.uniform(-0.025, 0.025, 3)
    start[3:6] += rng.uniform(-0.12, 0.12, 3)
    _curl_others(start, rng)
    return np.clip(start, hand.ACTION_LOW, hand.ACTION_HIGH)


def _curl_others(pose: NDArray[np.float64], rng: np.random.Generator) -> None:
    """Curls every finger but the index, in place; the index bends a little."""
    for finger in _LONG:
        curl = rng.uniform(0.0, 1.0)
        pose[hand.finger_slice(finger)][-3:] += curl * _CURLED * rng.uniform(0.7, 1.1, 3)
    thumb = hand.finger_slice("TH")
    pose[thumb] += rng.uniform(0.0, 1.0) * (_THUMB_CURLED - pose[thumb])
    pose[hand.finger_slice("FF")][-3:] += rng.uniform(0.0, 0.15, 3)


def draw_in(fingers: NDArray[np.float64], rng: np.random.Generator, curl: float = 1.0) -> None:
    """Flexes fingers (22,) at least so far that they stay out of the way, as a pointing person does, in place.

    All long ones but the index, by about `curl` times 0.7, 0.6 and 0.4 rad.
    """
    for finger in _LONG:
        joints = hand.finger_slice(finger)
        flexion = slice(joints.stop - hand.NUM_WRIST - 3, joints.stop - hand.NUM_WRIST)
        fingers[flexion] = np.maximum(fingers[flexion], rng.uniform(0.8, 1.0) * curl * _DRAWN_IN)
