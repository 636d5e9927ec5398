"""Tensors on a device: how observations get there, and what every control step reads of a finger mask."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dexcompose_envs.ownership import FingerMask

Observation = Mapping[str, Tensor]
"""Observation of N worlds, each entry float32 (N, size) on one device."""
Layout = Mapping[str, Mapping[str, slice]]
"""`env.unwrapped.layout`: the columns of every term of every entry of an observation."""


def to_tensors(obs: Mapping[str, Any], device: torch.device) -> dict[str, Tensor]:
    """Float32 tensors of arrays or tensors; what lies on the device already (NumPy: the CPU) is not copied."""
    return {key: torch.as_tensor(value, dtype=torch.float32, device=device) for key, value in obs.items()}


class MaskTensors(NamedTuple):
    """A finger mask on a device."""

    bits: Tensor
    """m (5,), float32."""
    joints: Tensor
    """mbar (22,), float32."""
    action_a: Tensor
    """M_A (28,), bool."""
    action_b: Tensor
    """M_B (28,), bool."""


@cache
def mask_tensors(mask: FingerMask, device: torch.device) -> MaskTensors:
    """A finger mask on a device, uploaded when first asked for."""
    return MaskTensors(
        bits=torch.tensor(mask.bits, dtype=torch.float32, device=device),
        joints=torch.tensor(mask.joint_mask(), dtype=torch.float32, device=device),
        action_a=torch.tensor(mask.action_mask_a(), device=device),
        action_b=torch.tensor(mask.action_mask_b(), device=device),
    )
