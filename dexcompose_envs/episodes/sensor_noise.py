"""Sensor noise: what is observed of joints, object and torques is a little wrong, afresh in every control step.

Judging and rewards go by the truth. The noise is a function of an episode's seed and time alone, so that actions and
neighbours don't change it and every engine has the same.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from dexcompose_envs import hand
from dexcompose_envs.arrays import Arrays
from dexcompose_envs.observations import Array, Snapshot

JOINT_ANGLE, OBJECT_POSITION, OBJECT_VELOCITY = 0.005, 0.002, 0.02
"""Standard deviations at scale 1: joint angles, the wrist's too (rad), the object's place (m) and velocity (m/s)."""
TORQUE = 0.03
"""Standard deviation of finger torques at scale 1, as a share of their limits."""
SEEDS = 2**24
"""Episodes draw the seed of their noise from so many; single precision holds each."""

_ANGLES = np.array([0.0] * 3 + [1.0] * (hand.NUM_ACTIONS - 3))
_LOW_32_BITS, _MULTIPLIER = 0xFFFFFFFF, 0x45D9F3B  # products of 32-bit numbers with it stay below 2^63
_HALF = 2**16


class SensorNoise:
    """Adds noise to what N worlds observe.

    Args:
        scale: Factor on all standard deviations.
        arrays: Library and device.
    """

    def __init__(self, scale: float, arrays: Arrays) -> None:
        deviations = {
            "joint_position": JOINT_ANGLE * _ANGLES,
            "object_position": np.full(3, OBJECT_POSITION),
            "object_linear_velocity": np.full(3, OBJECT_VELOCITY),
            "finger_force": TORQUE * hand.FORCE_LIMITS,
        }
        ends = np.cumsum([len(each) for each in deviations.values()]).tolist()
        self._columns = {
            name: slice(end - len(deviations[name]), end) for name, end in zip(deviations, ends, strict=True)
        }
        # The world and the palm see the same error.
        self._columns["object_world_position"] = self._columns["object_position"]
        self._deviation = arrays.of(scale * np.concatenate(list(deviations.values())))
        self._channel = arrays.of(np.arange(ends[-1]), arrays.xp.int64)
        self._xp, self._float = arrays.xp, arrays.float

    def add(self, snapshot: Snapshot, seed: Array, elapsed: Array) -> Snapshot:
        """What sensors make of a snapshot; `seed` (N, 1) of each episode's noise, `elapsed` (N,) control steps."""
        key = self._xp.astype(seed, self._xp.int64) * 7919 + elapsed[:, None]
        noise = self._deviation * self._normal(_mixed(_mixed(key) + self._channel))
        sensors = dict(snapshot.sensors)
        for name, columns in self._columns.items():
            if name in sensors:
                sensors[name] = sensors[name] + noise[:, columns]
        return replace(snapshot, sensors=sensors)

    def _normal(self, bits: Array) -> Array:
        """Standard normal numbers from 32 random bits each (Box and Muller, 1958)."""
        xp = self._xp
        radius, angle = ((xp.astype(half, self._float) + 0.5) / _HALF for half in (bits >> 16, bits % _HALF))
        return xp.sqrt(-2.0 * xp.log(radius)) * xp.cos(2.0 * math.pi * angle)


def _mixed(value: Array) -> Array:
    """32 bits that look random, of whole numbers."""
    value = value & _LOW_32_BITS
    for _ in range(2):
        value = ((value >> 16 ^ value) * _MULTIPLIER) & _LOW_32_BITS
    return value >> 16 ^ value
