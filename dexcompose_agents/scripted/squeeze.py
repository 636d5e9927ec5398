"""A stabiliser without weights: preserved fingers press harder than they do at the start, by a constant amount."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from dexcompose_envs.composition.arrays import Constant
from dexcompose_envs.composition.bounds import NORMALISED_PER_UNIT
from dexcompose_envs.composition.masks import mask_arrays
from dexcompose_envs.composition.task import Layout
from dexcompose_envs.episodes.phases import HOLD_STEPS
from dexcompose_envs.errors import UsageError
from dexcompose_envs.hand import NUM_WRIST
from dexcompose_envs.observations import Array
from dexcompose_envs.ownership import FingerMask

ANGLE = 0.15
"""How far the preserved joint that moves most is moved (rad): as far as stabiliser A may, beta_A of Eq. 7."""
FIRM_ANGLE = 0.4
"""The same for a squeeze that nothing learned has to match: firm enough where a bar pushes a holding finger aside."""
LEAST = 0.01
"""A hand whose targets are less than this (rad) ahead of its joints hardly presses, and is moved less in proportion."""

_RAD = Constant((1.0 / NORMALISED_PER_UNIT[NUM_WRIST:]).astype(np.float32))


class ConstantSqueeze:
    """Moves the targets of preserved joints on along q_ref - q, the way in which they press at the start.

    The object keeps a joint from reaching its target; the distance between them is what presses. Each joint's share in
    it stays as it is, and the preserved joint that moves most moves by `angle`. Released fingers aren't moved. The
    squeeze begins with the first step and grows evenly over the phase *hold*, so that it doesn't kick the object, and
    is there before any finger lets go. It is a `composition.preserver.Stabiliser`, on NumPy arrays and on tensors.

    Args:
        angle: Largest change of a target, rad.
        ramp_steps: Control steps over which it sets in.
    """

    def __init__(self, *, angle: float = ANGLE, ramp_steps: int = HOLD_STEPS) -> None:
        self.angle, self.ramp_steps = float(angle), int(ramp_steps)
        self._direction: Array = None
        self._step: Array = None

    def describe(self) -> dict[str, Any]:
        """The constants that determine what it does."""
        return {"angle": self.angle, "ramp_steps": self.ramp_steps}

    def reset(self, obs: Mapping[str, Array], layout: Layout, started: Array, mask: FingerMask) -> None:
        """Starts episodes where `started` (N,) is true, with the fingers as they are now."""
        if "reference" not in layout["context"]:
            raise UsageError("the task's context lacks reference; expected a task with a held object")
        joints = obs["task_a"][:, layout["task_a"]["joint_position"]][:, NUM_WRIST:]
        ahead = (obs["context"][:, layout["context"]["reference"]] - joints) * _RAD.like(joints)
        ahead = ahead * mask_arrays(mask, started).joints
        xp = array_namespace(ahead)
        largest = xp.max(xp.abs(ahead), axis=1, keepdims=True)
        direction = ahead / xp.clip(largest, LEAST, None)
        if self._direction is None or len(self._direction) != len(started):
            self._direction = xp.zeros_like(direction)
            self._step = xp.zeros_like(direction[:, :1])
        self._direction = xp.where(started[:, None], direction, self._direction)
        self._step = xp.where(started[:, None], 0.0, self._step)

    def act(self, obs: Mapping[str, Array], base_action: Array) -> Array:
        """dq_A (N, 22), rad, zero on released fingers."""
        if self._direction is None:
            raise RuntimeError("act() was called before reset()")
        self._step = self._step + 1.0
        ramp = array_namespace(self._step).clip(self._step / max(self.ramp_steps, 1), 0.0, 1.0)
        return self.angle * ramp * self._direction
