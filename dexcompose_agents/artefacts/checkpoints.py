"""Checkpoints: the state of a training run with the run's identity, as plain data without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexcompose_envs import artefacts
from dexcompose_envs.artefacts import ArtefactError

KIND = "checkpoint"
_TENSOR, _TUPLE, _DICT = "<tensor>", "<tuple>", "<dict>"
"""Single keys of the JSON objects that stand for what JSON lacks."""


def save_state(path: str | Path, state: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Writes the state of a run, whole or not at all.

    Args:
        path: Where the file goes.
        state: Tensors, numbers, strings, None, and lists, tuples and dicts of them; optimisers' states are such.
        identity: What the run is: its settings, skill, masks, model hash, data: whatever makes it another run when it
            changes. Anything JSON can hold; leave out what may change when the run goes on, such as the device.

    Raises:
        TypeError: If the state holds something else.
        OSError: If the file can't be written.
    """
    arrays: dict[str, NDArray[Any]] = {}
    tree = _flatten(state, "state", arrays)
    artefacts.save(path, {"kind": KIND, "identity": dict(identity), "state": tree}, arrays, "safetensors")


def load_state(path: str | Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Reads the state of the run with this identity; its tensors are on the CPU, whatever device they were on.

    Raises:
        ArtefactError: If the file is missing, damaged, no checkpoint, or one of another run.
    """
    try:
        manifest, arrays = artefacts.load(path, KIND, identity=dict(identity))
    except ArtefactError as error:
        raise ArtefactError(f"{error}; remove it to start afresh, or use another folder") from None
    state: dict[str, Any] = _restore(manifest["state"], arrays)
    return state


def _flatten(value: Any, name: str, arrays: dict[str, NDArray[Any]]) -> Any:
    """The value as JSON; its tensors go into `arrays` under their path."""
    if isinstance(value, Tensor):
        arrays[name] = value.detach().cpu().numpy()
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        items = {key: _flatten(item, f"{name}/{key}", arrays) for key, item in value.items()}
        plain = all(isinstance(key, str) and not key.startswith("<") for key in items)
        return items if plain else {_DICT: [[key, item] for key, item in items.items()]}
    if isinstance(value, list | tuple):
        parts = [_flatten(item, f"{name}/{number}", arrays) for number, item in enumerate(value)]
        return parts if isinstance(value, list) else {_TUPLE: parts}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}; expected tensors, numbers, strings, lists and dicts of them")


def _restore(value: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """Undoes `_flatten`."""
    if isinstance(value, list):
        return [_restore(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return torch.from_numpy(np.array(arrays[value[_TENSOR]]))
    if _TUPLE in value:
        return tuple(_restore(value[_TUPLE], arrays))
    if _DICT in value:
        return {key: _restore(item, arrays) for key, item in value[_DICT]}
    return {key: _restore(item, arrays) for key, item in value.items()}
