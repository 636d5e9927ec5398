"""Tags of full states: numbers in front that say which environment a state belongs to."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from dexcompose_envs.arrays import Arrays, to_numpy
from dexcompose_envs.errors import UsageError
from dexcompose_envs.observations import Array


class StateTag:
    """The tag of one environment's states, `identity` being what the environment is: chain and model."""

    width = 3

    def __init__(self, identity: str, arrays: Arrays) -> None:
        digest = hashlib.sha256(identity.encode()).digest()
        # 16 bits a number: few enough for single precision.
        self._numbers = np.frombuffer(digest[: 2 * self.width], "<u2").astype(np.float64)
        self._identity, self._arrays = identity, arrays

    def columns(self, num_worlds: int) -> Array:
        """The tag in front of each world's state (N, width)."""
        return self._arrays.of(np.tile(self._numbers, (num_worlds, 1)))

    def checked(self, state: Any, shape: tuple[int, ...]) -> Array:
        """A state (M, S) in the environment's library; a UsageError on a wrong shape, foreign or infinite numbers."""
        if tuple(np.shape(state)) != shape:
            raise UsageError(f"state has shape {tuple(np.shape(state))}; expected {shape}, as get_state gives it")
        array = self._arrays.of(state)
        if not self._arrays.xp.isfinite(array).all():
            raise UsageError("state has values that are not finite; expected one from get_state")
        foreign = np.flatnonzero((to_numpy(array[:, : self.width]) != self._numbers).any(axis=1))
        if foreign.size:
            raise UsageError(f"state of row {foreign[0]} belongs to another environment; expected {self._identity}")
        return array
