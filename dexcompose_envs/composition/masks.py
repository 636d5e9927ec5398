"""Which of the 28 dimensions belong to whom, as arrays where the observations are."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, device
from numpy.typing import NDArray

from dexcompose_envs.composition.arrays import Constant
from dexcompose_envs.hand import NUM_ACTIONS
from dexcompose_envs.observations import Array
from dexcompose_envs.ownership import FingerMask


class MaskArrays(NamedTuple):
    """A finger mask as arrays, not to be changed: m (5,) and mbar (22,), float32; M_A and M_B (28,), bool."""

    bits: Array
    joints: Array
    action_a: Array
    action_b: Array


def mask_arrays(mask: FingerMask, like: Array) -> MaskArrays:
    """A finger mask as arrays of the kind and on the device of `like`, moved there when first asked for."""
    return _mask_arrays(mask, array_namespace(like), device(like))


@cache
def _mask_arrays(mask: FingerMask, xp: Any, place: Any) -> MaskArrays:
    return MaskArrays(
        bits=xp.asarray(mask.bits, dtype=xp.float32, device=place),
        joints=xp.asarray(mask.joint_mask(), dtype=xp.float32, device=place),
        action_a=xp.asarray(mask.action_mask_a(), device=place),
        action_b=xp.asarray(mask.action_mask_b(), device=place),
    )


def writable(mask: FingerMask, interacting: Array, everything: bool = False) -> Array:
    """Where residual B may act, (N, 28) bool: M_B of Eq. 10, or `everything`, in `interacting` (N,) worlds."""
    fingers = mask_arrays(mask, interacting)
    return interacting[:, None] & (fingers.action_b | fingers.action_a if everything else fingers.action_b)


class OwnedDimensions:
    """Some of the 28 dimensions, `indices` (D,) in rising order: takes them from actions, and puts them back."""

    def __init__(self, indices: NDArray[np.intp]) -> None:
        self.indices = indices
        places = np.full(NUM_ACTIONS, len(indices))
        places[indices] = np.arange(len(indices))
        self._places, self._taken = Constant(places), Constant(np.asarray(indices, np.int64))

    def spread(self, owned: Array) -> Array:
        """Actions (N, 28) with these dimensions (N, D), and zeros elsewhere."""
        xp = array_namespace(owned)
        padded = xp.concat([owned, xp.zeros_like(owned[..., :1])], axis=-1)
        return xp.take(padded, self._places.like(owned), axis=-1)

    def take(self, action: Array) -> Array:
        """These dimensions (N, D) of actions (N, 28)."""
        return array_namespace(action).take(action, self._taken.like(action), axis=-1)
