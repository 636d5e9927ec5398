"""Observations as tensors, and results as what the observations came as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Observation = Mapping[str, Tensor]
"""Observation of N worlds, each entry float32 (N, size) on one device."""


def to_tensors(obs: Mapping[str, Any], device: torch.device) -> dict[str, Tensor]:
    """Float32 tensors of arrays or tensors; what lies on the device already (NumPy: the CPU) is not copied."""
    return {key: torch.as_tensor(value, dtype=torch.float32, device=device) for key, value in obs.items()}


def as_given(result: Tensor, given: Any) -> Any:
    """A result as a tensor on the device of `given` if that is a tensor, else as a NumPy array."""
    return result.to(given.device) if isinstance(given, Tensor) else result.cpu().numpy()
