"""A residual B without weights: the wrist's tremor is seen in how it misses its targets, and is taken off the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from dexcompose_envs.composition.arrays import Constant
from dexcompose_envs.composition.bounds import NORMALISED_PER_UNIT
from dexcompose_envs.composition.interactor import Nominal
from dexcompose_envs.composition.task import CompositionTask, Layout
from dexcompose_envs.hand import NUM_ACTIONS, NUM_WRIST
from dexcompose_envs.observations import Array
from dexcompose_envs.skills import make_interaction, parse_chain

GAIN = 1.0
"""Share of the tremor that is taken off."""
STEP_SHARES = (0.48, 0.5)
"""Share of the way to its target that the wrist goes in a control step, in translation and rotation.

Least squares of a first-order lag to the wrist's motion in the simulator without shake, while its targets move as base
shake would move them. By the gains in `hand.py` alone it would be 0.52 and 0.54 (damping over stiffness is 54 and
51 ms, a step 40 ms); inertia comes on top."""


class WristFeedback:
    """Corrects the wrist's targets by the tremor of the last step, while pi_B interacts, within residual B's bound.

    A wrist that is at x goes to `x + share * (target - x)` in a control step. Where it comes out instead says what
    target it followed; the one that it was given minus that one is the tremor's opposite, and the tremor is slow enough
    (3 Hz at most) to be much the same in the next step. The correction is part of the target that was given: it isn't
    corrected again.

    It has the face of a `ResidualBPolicy`, on NumPy arrays and on tensors.

    Args:
        layout: Columns of the observations.
        bound: beta_B of Eq. 10 for the wrist's position (m) and Euler angles (rad); what exceeds it is cut off.
        gain: Share of the tremor that is taken off.
        step_shares: Share of the way to its target that the wrist goes in a control step, in translation and rotation.
    """

    def __init__(
        self,
        layout: Layout,
        bound: Sequence[float],
        *,
        gain: float = GAIN,
        step_shares: Sequence[float] = STEP_SHARES,
    ) -> None:
        # Where joints are seen as they are; later interactions of a chain see them shifted.
        self._position, self._command = layout["task_b"]["joint_position"], layout["context"]["previous_action"]
        self.bound, self.gain, self.step_shares = tuple(bound[:2]), float(gain), tuple(step_shares)
        widest = np.repeat(self.bound, 3) * NORMALISED_PER_UNIT[:NUM_WRIST]
        self._widest = Constant(widest.astype(np.float32))
        self._shares = Constant(np.repeat(self.step_shares, 3).astype(np.float32))
        self._last: Array = None
        self._started: Array = None

    @classmethod
    def of_pair(cls, pair: str, **constants: Any) -> WristFeedback:
        """For a pair or chain, with the narrowest bound of its interactions (`RESIDUAL_BOUND`)."""
        bounds = [make_interaction(skill).RESIDUAL_BOUND for skill in parse_chain(pair)[1]]
        return cls(CompositionTask.of_name(pair).layout, np.min(bounds, axis=0).tolist(), **constants)

    def describe(self) -> dict[str, Any]:
        """The constants that determine what it does."""
        return {"gain": self.gain, "step_shares": list(self.step_shares), "bound": list(self.bound)}

    def reset(self, started: Array) -> None:
        """Starts episodes in some of N worlds, those where `started` (N,) is true."""
        if self._started is None or len(self._started) != len(started):
            self._started, self._last = array_namespace(started).ones_like(started), None
        self._started = self._started | started

    def act(self, obs: Mapping[str, Array], nominal: Nominal) -> Array:
        """da_B (N, 28), normalised, zero but at the wrist and where pi_B acts; call once per step."""
        if self._started is None:
            raise RuntimeError("act() was called before reset()")
        position = obs["task_b"][:, self._position][:, :NUM_WRIST]
        target = obs["context"][:, self._command][:, :NUM_WRIST]
        xp, shares, widest = array_namespace(position), self._shares.like(position), self._widest.like(position)
        last = position if self._last is None else self._last
        followed = last + (position - last) / shares
        known = nominal.interacting & ~self._started
        self._last, self._started = position, xp.zeros_like(self._started)
        correction = xp.minimum(xp.maximum(self.gain * (target - followed), -widest), widest)
        correction = xp.where(known[:, None], correction, 0.0)
        rest = xp.zeros((len(position), NUM_ACTIONS - NUM_WRIST), dtype=position.dtype, device=position.device)
        return xp.concat([correction, rest], axis=1)
