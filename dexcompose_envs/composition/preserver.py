"""Skill A's side of a composition: preserved fingers at q_ref, corrected by the stabiliser (Eqs. 8, 9 and 12)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import ArrayLike

from dexcompose_envs.composition.arrays import Constant, as_float32, check_array, is_on_host
from dexcompose_envs.composition.bounds import preservation_command
from dexcompose_envs.composition.masks import mask_arrays
from dexcompose_envs.composition.policies import PolicyFace
from dexcompose_envs.composition.task import CompositionTask, Layout
from dexcompose_envs.errors import UsageError
from dexcompose_envs.hand import ACTION_HIGH, ACTION_LOW, ACTION_NAMES, NUM_FINGER_JOINTS, NUM_WRIST
from dexcompose_envs.observations import Array
from dexcompose_envs.ownership import FingerMask

_LOW, _HIGH = ACTION_LOW[NUM_WRIST:], ACTION_HIGH[NUM_WRIST:]
_LOWEST, _RANGE = Constant(_LOW), Constant(_HIGH - _LOW)


@runtime_checkable
class Stabiliser(Protocol):
    """Corrects the preserved fingers at every control step (Eq. 7), on NumPy arrays and on tensors."""

    def reset(self, obs: Mapping[str, Array], layout: Layout, started: Array, mask: FingerMask) -> None:
        """Starts episodes in the worlds where `started` (N,) is true; the first call fixes N."""

    def act(self, obs: Mapping[str, Array], base_action: Array) -> Array:
        """dq_A (N, 22), rad, given what wrist and released fingers are about to do (N, 28)."""


Reference = Literal["hold"] | ArrayLike | Callable[[Any], Any]
"""What preserved joints follow: "hold", 22 joint targets in rad, or a function from observation to (..., 22) rad."""


class Preserver:
    """Keeps the preserved fingers where a reference says, and leaves all other dimensions to skill B.

    Args:
        task: What is composed.
        mask: Preserved fingers m*.
        reference: "hold" is the held state's q_ref, read from the observation. 22 angles (rad) are constant targets. A
            function maps each observation to targets (N, 22) or (22,), rad, clipped to the joint ranges; it is told of
            resets as a base policy is.
        stabiliser: pi_res_A, which corrects the reference; None for none.

    Raises:
        UsageError: On a bad reference, or where the task has none.
    """

    def __init__(
        self,
        task: CompositionTask,
        mask: FingerMask,
        reference: Reference = "hold",
        stabiliser: Stabiliser | None = None,
    ) -> None:
        self.task, self.mask, self.stabiliser = task, mask, stabiliser
        self._hold: slice | None = None
        self._constant: Constant | None = None
        self._function: PolicyFace | None = None
        if isinstance(reference, str):
            if reference != "hold":
                raise UsageError(f"reference is {reference!r}; expected 'hold', {len(_LOW)} angles or a callable")
            self._hold = task.layout.get("context", {}).get("reference")
            if self._hold is None:
                expected = "expected a scene with a held object for reference='hold'"
                raise UsageError(f"the environment observes no reference; {expected}")
        elif callable(reference):
            self._function = PolicyFace(reference, reads_task=False)
        else:
            targets = check_array("reference (rad)", reference, (NUM_FINGER_JOINTS,))
            for i in np.flatnonzero((targets < _LOW - 1e-4) | (targets > _HIGH + 1e-4))[:1]:
                got, expected = f"{targets[i]:.4g} rad", f"{_LOW[i]:.4g} to {_HIGH[i]:.4g}"
                raise UsageError(f"reference of {ACTION_NAMES[NUM_WRIST + i]} is {got}; expected {expected}")
            self._constant = Constant(_normalise(targets))

    def reset(self, obs: Mapping[str, Array], started: Array | None, seeds: Array, step: Array | None = None) -> None:
        """Starts episodes in some worlds; see `Interactor.reset`."""
        if self._function is not None:
            if started is None:
                self._function.reset(len(seeds), seeds)
            else:
                self._function.start(started, seeds)
        if self.stabiliser is not None:
            xp = array_namespace(seeds)
            every = xp.ones_like(seeds, dtype=xp.bool) if started is None else started
            self.stabiliser.reset(obs, self.task.layout, every, self.mask)

    def reference(self, obs: Mapping[str, Array]) -> Array:
        """q_ref, normalised, (N, 22) or (22,)."""
        if self._hold is not None:
            return obs["context"][:, self._hold]
        like = next(iter(obs.values()))
        if self._constant is not None:
            return self._constant.like(like)
        assert self._function is not None
        targets = self._function.policy(obs)
        shape = (NUM_FINGER_JOINTS,) if np.ndim(targets) == 1 else (len(like), NUM_FINGER_JOINTS)
        return _normalise(check_array("the reference function's result (rad)", targets, shape, like))

    def check_start(self, obs: Mapping[str, Array]) -> None:
        """Refuses to follow a hold that there is not; where observations are on a GPU it doesn't look.

        Raises:
            UsageError: If a world started from scratch.
        """
        if self._hold is None or not is_on_host(obs["context"]):
            return
        if not as_float32(self.reference(obs)).any(axis=-1).all():
            raise UsageError(
                "the observed reference is all zeros, as in an episode that starts from scratch; reference='hold' "
                "expected a start from a held state (or pass joint targets as reference)"
            )

    def compose(self, obs: Mapping[str, Array], action_b: Array, residual_a: Array | None = None) -> Array:
        """The executed action (N, 28) in [-1, 1], given what skill B is about to do, (N, 28): Eqs. 8, 9 and 12.

        `residual_a` (N, 22), normalised, is added to the preserved joints besides.
        """
        xp, fingers = array_namespace(action_b), mask_arrays(self.mask, action_b)
        command = self.reference(obs)
        if self.stabiliser is not None:
            command = preservation_command(command, self.stabiliser.act(obs, action_b), fingers.joints)
        if residual_a is not None:
            command = command + residual_a
        command = xp.where(fingers.joints > 0, command, action_b[:, NUM_WRIST:])
        return xp.clip(xp.concat([action_b[:, :NUM_WRIST], command], axis=1), -1.0, 1.0)


def _normalise(targets: Array) -> Array:
    """Finger joint targets (..., 22) in rad to [-1, 1], clipped, float32."""
    xp = array_namespace(targets)
    wide = xp.astype(targets, xp.float64)
    normalised = 2.0 * (wide - _LOWEST.like(targets)) / _RANGE.like(targets) - 1.0
    return xp.astype(xp.clip(normalised, -1.0, 1.0), xp.float32)
