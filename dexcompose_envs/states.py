"""Tags of full states: numbers in front that say which environment a state belongs to."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from dexcompose_envs.arrays import Arrays, to_numpy
from dexcompose_envs.errors import UsageError
from dexcompose_envs.observations import Array

_WIDTH = 3
_BITS = 16
"""Bits per number: few enough for single precision."""


class StateTag:
    """The tag of one environment's states.

    Args:
        identity: What the environment is: chain and model.
        arrays: Where its arrays live.
    """

    width = _WIDTH

    def __init__(self, identity: str, arrays: Arrays) -> None:
        digest = hashlib.sha256(identity.encode()).digest()
        step = _BITS // 8
        self._numbers = [int.from_bytes(digest[i * step : (i + 1) * step], "little") for i in range(_WIDTH)]
        self._identity, self._arrays = identity, arrays

    def columns(self, num_worlds: int) -> Array:
        """The tag in front of each world's state (N, width)."""
        return self._arrays.of(np.tile(np.array(self._numbers, np.float64), (num_worlds, 1)))

    def checked(self, state: Any, shape: tuple[int, ...]) -> Array:
        """A state (M, S) as an array of the environment's library.

        Raises:
            UsageError: If it has another shape, isn't finite, or belongs to another environment.
        """
        found = tuple(np.shape(state))
        if found != shape:
            raise UsageError(f"state has shape {found}; expected {shape}, as get_state gives it")
        array = self._arrays.of(state)
        if not self._arrays.xp.isfinite(array).all():
            raise UsageError("state has values that are not finite; expected one from get_state")
        tags = to_numpy(array[:, :_WIDTH])
        if (tags != self._numbers).any():
            world = int(np.flatnonzero((tags != self._numbers).any(axis=1))[0])
            raise UsageError(f"state of row {world} belongs to another environment; expected one of {self._identity}")
        return array
