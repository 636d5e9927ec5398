"""Weight files: half-precision safetensors with a JSON manifest that says what made them, from what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dexcompose_envs.files import atomic_write

_HALF_MAX = float(torch.finfo(torch.float16).max)


class WeightsError(ValueError):
    """A weight file that can't be read or written; the message says which and why."""


def save_weights(path: str | Path, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> None:
    """Writes tensors in half precision, with a manifest; the file appears whole or not at all.

    Args:
        path: Where the file goes.
        tensors: Floating-point tensors by name.
        manifest: What made them; anything JSON can hold.

    Raises:
        WeightsError: If a tensor holds numbers that half precision can't.
    """
    halves = {}
    for name, tensor in tensors.items():
        value = tensor.detach().to("cpu", torch.float32)
        if value.numel() and not float(value.abs().max()) <= _HALF_MAX:
            raise WeightsError(
                f"tensor {name!r} for {path} holds a number that half precision can't "
                f"(largest magnitude {float(value.abs().max()):g}); expected at most {_HALF_MAX:g}"
            )
        halves[name] = value.to(torch.float16).contiguous()
    metadata = {"manifest": json.dumps(manifest, sort_keys=True), "sha256": _digest(halves)}
    atomic_write(path, save(halves, metadata))


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads a file that `save_weights` wrote.

    Args:
        path: The file.

    Returns:
        Single-precision tensors by name, and the manifest.

    Raises:
        WeightsError: If the file is missing, truncated, altered, or no weight file of this package.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise WeightsError(f"can't read weight file {path} ({error.strerror or error})") from error
    try:
        halves = load(content)
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    except (SafetensorError, ValueError) as error:
        raise WeightsError(f"weight file {path} is truncated or corrupt ({error}); expected safetensors") from error
    if not {"manifest", "sha256"} <= metadata.keys():
        raise WeightsError(f"weight file {path} has no manifest; expected a file that this package wrote")
    if metadata["sha256"] != _digest(halves):
        raise WeightsError(f"weight file {path} is corrupt: its tensors don't match the checksum in its manifest")
    return {name: value.to(torch.float32) for name, value in halves.items()}, json.loads(metadata["manifest"])


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """What identifies weights whatever file they are in: SHA-256 of names and values, first 16 hex digits."""
    return _digest({name: tensor.detach().cpu().double() for name, tensor in tensors.items()})[:16]


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names and contents."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + b"\0")
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
