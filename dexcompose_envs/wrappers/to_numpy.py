"""`ToNumpy`: a torch vector environment for loops that were written for NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_torch_array
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import ArrayLike, NDArray

from dexcompose_envs.arrays import to_numpy
from dexcompose_envs.errors import UsageError
from dexcompose_envs.observations import Array
from dexcompose_envs.wrappers.common import array_device, layer_with


class ToNumpy(VectorWrapper[Any, Any, Any, Any, Any], RecordConstructorArgs):
    """Turns what a torch vector environment gives into NumPy arrays: observations, rewards, flags and infos.

    Arrays are fresh and never share memory with the environment's tensors; a step's results come from the device in one
    transfer. Types stay what they are, rewards float32. Actions may be NumPy or torch. States are NumPy arrays here and
    tensors on `unwrapped`. Gymnasium's `ArrayConversion` fails on options that are text, and shares memory.

    Args:
        env: A vector environment of torch tensors, wrapped or not.

    Raises:
        UsageError: If the environment gives NumPy arrays already.
    """

    device = None
    """As on the NumPy backend; the device of the environment inside is `unwrapped.device`."""

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        VectorWrapper.__init__(self, env)
        if array_device(env) is None:
            raise UsageError(f"{env} gives NumPy arrays already; ToNumpy expected torch tensors, as of backend='warp'")

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the environment; seed and options are passed on as they are."""
        return _fetch(self.env.reset(seed=seed, options=options))

    def step(self, actions: ArrayLike | Array) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps with actions (N, D), which the environment takes to its device."""
        return _fetch(self.env.step(actions))

    def get_state(self) -> NDArray[Any]:
        """Full states (N, S), fresh."""
        return _fetch(layer_with(self.env, "get_state").get_state())

    def set_state(self, state: ArrayLike | Array, mask: ArrayLike | Array | None = None) -> None:
        """Sets states (N, S) from `get_state`, in the worlds that `mask` (N,) selects."""
        layer_with(self.env, "set_state").set_state(state, mask)


def _fetch(values: Any) -> Any:
    """The same nested dictionaries and tuples with NumPy arrays for tensors, moved as bytes in one piece."""
    tensors: list[Array] = []
    _map(values, tensors.append)
    if not tensors:
        return values
    xp = array_namespace(tensors[0])
    parts = [tensor.detach().reshape(-1).contiguous().view(xp.uint8) for tensor in tensors]
    pieces = np.split(to_numpy(xp.concat(parts)), np.cumsum([len(part) for part in parts])[:-1])
    # Copied, so that keeping one array (a reward, say) doesn't keep the whole step's bytes.
    arrays = (
        piece.copy().view(str(tensor.dtype).removeprefix("torch.")).reshape(tensor.shape)
        for piece, tensor in zip(pieces, tensors, strict=True)
    )
    return _map(values, lambda _: next(arrays))


def _map(values: Any, function: Callable[[Array], Any]) -> Any:
    """Nested dictionaries and tuples with the function's results for tensors, in order; all else stays."""
    if isinstance(values, dict):
        return {key: _map(value, function) for key, value in values.items()}
    if isinstance(values, tuple):
        return tuple(_map(value, function) for value in values)
    return function(values) if is_torch_array(values) else values
