"""Arrays of either kind: NumPy on the host, or torch on the device of a vector environment."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array, is_torch_array
from numpy.typing import ArrayLike, NDArray

from dexcompose_envs.arrays import to_numpy
from dexcompose_envs.errors import UsageError
from dexcompose_envs.observations import Array


def check_array(name: str, value: ArrayLike | Array, shape: tuple[int, ...], like: Array | None = None) -> Array:
    """A float32 array of the kind and device of `like` (None: NumPy); not of another shape, and finite.

    Values on a GPU aren't looked at, because the host would have to wait for them; there the environment itself reports
    actions that aren't finite.

    Raises:
        UsageError: With the name, what came and what was expected.
    """
    try:
        array = as_float32(value, like)
    except (TypeError, ValueError):
        raise UsageError(f"{name} is {reprlib.repr(value)}; expected numbers of shape {shape}") from None
    if array.shape != shape:
        raise UsageError(f"{name} has shape {tuple(array.shape)}; expected {shape}")
    if is_on_host(array):
        host = to_numpy(array)
        if not np.isfinite(host).all():
            index = tuple(int(i) for i in np.argwhere(~np.isfinite(host))[0])
            raise UsageError(f"{name} is {host[index]} at index {index}; expected finite numbers")
    return array


def as_float32(value: ArrayLike | Array, like: Array | None = None) -> Array:
    """Numbers as a float32 array of the kind and device of `like` (None: NumPy), not copied where that's possible."""
    if like is None or is_numpy_array(like):
        return np.asarray(to_numpy(value), dtype=np.float32)
    # Torch warns when it shares memory with a read-only array; hence the copy.
    source = value.detach() if is_torch_array(value) else np.array(value, dtype=np.float32, order="C")
    xp = array_namespace(like)
    return xp.asarray(source, dtype=xp.float32, device=device(like))


def as_mask(value: ArrayLike | Array, like: Array) -> Array:
    """A fresh boolean array of the kind and device of `like`."""
    if is_numpy_array(like):
        return np.array(to_numpy(value), dtype=np.bool_)
    xp = array_namespace(like)
    source = value if is_torch_array(value) else np.array(value, dtype=np.bool_)
    return xp.asarray(source, dtype=xp.bool, device=device(like), copy=True)


def any_array(observation: Any) -> Array:
    """One of the observation's arrays, to tell its kind and device; an observation without keys is one itself."""
    return any_array(next(iter(observation.values()))) if isinstance(observation, Mapping) else observation


def is_on_host(array: Array) -> bool:
    """Whether reading a value costs nothing: NumPy arrays, and tensors on the CPU."""
    return str(device(array)) == "cpu"


class Constant:
    """An array that never changes, moved once to every device where it's needed."""

    def __init__(self, value: NDArray[Any]) -> None:
        self.value = value
        self._moved: dict[tuple[type, Any], Array] = {}

    def like(self, array: Array) -> Array:
        """The constant, of the kind and on the device of `array`; not to be changed."""
        key = (type(array), device(array))
        if key not in self._moved:
            self._moved[key] = array_namespace(array).asarray(self.value, device=device(array), copy=True)
        return self._moved[key]
