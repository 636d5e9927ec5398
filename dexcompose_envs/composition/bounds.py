"""Residual bounds and units: from what a network says to what a joint does."""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.composition.arrays import Constant
from dexcompose_envs.observations import Array

NORMALISED_PER_UNIT: NDArray[np.float64] = 2.0 / (hand.ACTION_HIGH - hand.ACTION_LOW)
"""Normalised action (28,) per metre or radian: `normalize(x + d) - normalize(x) = d * NORMALISED_PER_UNIT`."""

_PER_UNIT = Constant(NORMALISED_PER_UNIT.astype(np.float32))


def bounded(action: Array, bound: float | Array, mask: Array) -> Array:
    """`mask * bound * tanh(action)`, the form of Eqs. 7 and 10, in m and rad, float32.

    The hyperbolic tangent is taken in double precision: in single precision its last bit depends on where in a batch
    a number stands.

    Args:
        action: Network output u (..., k), any real numbers.
        bound: Largest residual, broadcast against `action`.
        mask: 1 where the residual may act, 0 elsewhere, broadcast against `action`; there the result is exactly zero.
    """
    xp = array_namespace(action)
    share = xp.astype(xp.tanh(xp.astype(action, xp.float64)), xp.float32)
    return bound * xp.astype(mask, xp.float32) * share


def normalised(residual: Array) -> Array:
    """Residuals (..., 28) in m and rad as differences of normalised actions."""
    return residual * _PER_UNIT.like(residual)


def preservation_command(reference: Array, residual: Array, joint_mask: Array) -> Array:
    """Eq. 8, `q_A = q_ref + mbar * dq_A`, (N, 22), normalised; exactly q_ref where the residual is zero.

    Args:
        reference: q_ref (N, 22), normalised.
        residual: dq_A (N, 22), rad.
        joint_mask: mbar, (22,) or (N, 22).
    """
    return reference + joint_mask * residual * _PER_UNIT.like(residual)[hand.NUM_WRIST :]
