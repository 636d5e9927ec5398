"""Actions at the door of an environment: right shape, finite, within [-1, 1]."""

from __future__ import annotations

from typing import Any

import numpy as np

from dexcompose_envs import hand
from dexcompose_envs.arrays import Arrays, to_numpy
from dexcompose_envs.errors import UsageError
from dexcompose_envs.observations import Array


def checked_actions(actions: Any, num_worlds: int, arrays: Arrays) -> Array:
    """Actions (array, tensor or nested list) as a fresh (N, 28) array of the environment's library and float type.

    Raises:
        UsageError: On a wrong shape; if nothing lies on a GPU, also on a value that is not finite.
    """
    if not hasattr(actions, "shape"):
        actions = np.asarray(actions, np.float64)
    if tuple(actions.shape) != (num_worlds, hand.NUM_ACTIONS):
        raise UsageError(f"actions have shape {tuple(actions.shape)}; expected {(num_worlds, hand.NUM_ACTIONS)}")
    array = arrays.of(to_numpy(actions) if arrays.device is None else actions)
    if not arrays.is_cuda and not arrays.xp.isfinite(array).all():
        values = to_numpy(array)
        world, dim = np.argwhere(~np.isfinite(values))[0]
        raise UsageError(
            f"action {hand.ACTION_NAMES[dim]} of world {world} is {values[world, dim]}; expected a finite number"
        )
    return array


def finite_actions(actions: Array, previous: Array, arrays: Arrays) -> tuple[Array, Array | None]:
    """Actions clipped to [-1, 1], and the worlds (N,) whose actions were not finite, which get their previous ones.

    Where values can be checked at the door there are no such worlds, and None stands for them.
    """
    xp = arrays.xp
    if not arrays.is_cuda:
        return xp.clip(actions, -1.0, 1.0), None
    finite = xp.isfinite(actions)
    return xp.clip(xp.where(finite, actions, previous), -1.0, 1.0), ~xp.all(finite, axis=-1)
