"""Residual bounds and units: from what a network says to what a joint does."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexcompose_envs import hand

Float32 = NDArray[np.float32]

NORMALISED_PER_UNIT: NDArray[np.float64] = 2.0 / (hand.ACTION_HIGH - hand.ACTION_LOW)
"""Normalised action (28,) per metre or radian: `normalize(x + d) - normalize(x) = d * NORMALISED_PER_UNIT`."""


def bounded(action: ArrayLike, bound: ArrayLike, mask: ArrayLike) -> Float32:
    """`mask * bound * tanh(action)`, the form of Eqs. 7 and 10.

    Args:
        action: Network output u (..., k), any real numbers.
        bound: Largest residual, broadcast against `action`.
        mask: 1 where the residual may act, 0 elsewhere, broadcast against `action`.

    Returns:
        Residuals (..., k), float32; exactly zero where the mask is zero or u is zero.
    """
    limit = np.asarray(bound, np.float32) * np.asarray(mask, np.float32)
    return limit * np.tanh(np.asarray(action, np.float32))


def residual_b_bound(translation: float, rotation: float, fingers: float) -> Float32:
    """beta_B (28,) of Eq. 10 in m and rad: wrist position, wrist Euler angles, finger joints."""
    return np.array([translation] * 3 + [rotation] * 3 + [fingers] * hand.NUM_FINGER_JOINTS, np.float32)


def preservation_command(reference: Float32, residual: Float32, joint_mask: ArrayLike) -> Float32:
    """Eq. 8, `q_A = q_ref + mbar * dq_A`, in normalised units.

    Args:
        reference: q_ref (N, 22), normalised.
        residual: dq_A (N, 22), rad.
        joint_mask: mbar, (22,) or (N, 22).

    Returns:
        q_A (N, 22), normalised; exactly `reference` where the residual is zero.
    """
    scale = NORMALISED_PER_UNIT[hand.NUM_WRIST :].astype(np.float32)
    return reference + np.asarray(joint_mask, np.float32) * residual * scale
