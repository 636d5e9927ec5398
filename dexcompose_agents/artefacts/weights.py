"""Weights of networks: half-precision safetensors with a manifest that says what they are and what made them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dexcompose_envs import artefacts
from dexcompose_envs.artefacts import ArtefactError

_HALF_MAX = float(torch.finfo(torch.float16).max)


def save_weights(path: str | Path, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> None:
    """Writes floating-point tensors in half precision; the file appears whole or not at all.

    The manifest says what they are (`kind`, skill or pair, model hash) and what made them: anything JSON can hold.

    Raises:
        ArtefactError: If a tensor holds numbers that half precision can't.
        OSError: If the file can't be written.
    """
    halves = {}
    for name, tensor in tensors.items():
        value = tensor.detach().to("cpu", torch.float32)
        if value.numel() and not (largest := float(value.abs().max())) <= _HALF_MAX:
            reason = f"a number of magnitude {largest:g}, which half precision can't; expected at most {_HALF_MAX:g}"
            raise ArtefactError(f"tensor {name!r} for '{path}' holds {reason}")
        halves[name] = value.to(torch.float16).numpy()
    artefacts.save(path, manifest, halves, "safetensors")


def load_weights(path: str | Path, kind: str, **expected: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Single-precision tensors by name and the manifest, from a file that `save_weights` wrote.

    Args:
        path: The file.
        kind: "diffusion_policy", "stabiliser" or "residual_b".
        **expected: Further entries that the manifest must have, such as `skill` and `model_hash`; None: any.

    Raises:
        ArtefactError: If the file is missing, truncated, altered, or not what was expected.
    """
    manifest, halves = artefacts.load(path, kind, **expected)
    return {name: torch.from_numpy(value).to(torch.float32) for name, value in halves.items()}, manifest


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """What identifies weights whatever file they are in: SHA-256 of names and values, first 16 hex digits."""
    return artefacts.checksum({}, {name: value.detach().cpu().double().numpy() for name, value in tensors.items()})[:16]
