"""Residual bounds and units: from what a network says to what a joint does."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexcompose_envs import hand

NORMALISED_PER_UNIT: NDArray[np.float64] = 2.0 / (hand.ACTION_HIGH - hand.ACTION_LOW)
"""Normalised action (28,) per metre or radian: `normalize(x + d) - normalize(x) = d * NORMALISED_PER_UNIT`."""


@cache
def _per_unit(device: torch.device) -> Tensor:
    return torch.tensor(NORMALISED_PER_UNIT, dtype=torch.float32, device=device)


def bounded(action: Tensor, bound: float | Tensor, mask: Tensor) -> Tensor:
    """`mask * bound * tanh(action)`, the form of Eqs. 7 and 10.

    The hyperbolic tangent is taken in double precision: in single precision its last bit depends on where in a batch
    a number stands.

    Args:
        action: Network output u (..., k), any real numbers.
        bound: Largest residual, broadcast against `action`.
        mask: 1 where the residual may act, 0 elsewhere, broadcast against `action`.

    Returns:
        Residuals (..., k), float32; exactly zero where the mask is zero or u is zero.
    """
    return bound * mask * torch.tanh(action.double()).float()


def normalised(residual: Tensor) -> Tensor:
    """Residuals (..., 28) in m and rad as differences of normalised actions."""
    return residual * _per_unit(residual.device)


def preservation_command(reference: Tensor, residual: Tensor, joint_mask: Tensor) -> Tensor:
    """Eq. 8, `q_A = q_ref + mbar * dq_A`, in normalised units.

    Args:
        reference: q_ref (N, 22), normalised.
        residual: dq_A (N, 22), rad.
        joint_mask: mbar, (22,) or (N, 22).

    Returns:
        q_A (N, 22), normalised; exactly `reference` where the residual is zero.
    """
    return reference + joint_mask * residual * _per_unit(residual.device)[hand.NUM_WRIST :]
