"""A residual B without weights: the tremble that the wrist's error shows is taken off the next targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from dexcompose_envs.composition.arrays import Constant
from dexcompose_envs.composition.bounds import normalised
from dexcompose_envs.composition.interactor import Nominal
from dexcompose_envs.composition.wrist_error import wrist_error
from dexcompose_envs.hand import NUM_ACTIONS, NUM_WRIST
from dexcompose_envs.observations import Array
from dexcompose_envs.skills import make_interaction, parse_chain

GAIN = 1.0
"""Share of the error that is taken off."""


class WristFeedback:
    """Corrects the wrist's targets by its error, while pi_B interacts, within residual B's bound.

    The correction is part of the target that was given: it isn't corrected again. It has the face of a
    `ResidualBPolicy`, on NumPy arrays and on tensors.

    Args:
        bound: beta_B of Eq. 10 for the wrist's position (m) and Euler angles (rad); what exceeds it is cut off.
        gain: Share of the error that is taken off.
    """

    def __init__(self, bound: Sequence[float], *, gain: float = GAIN) -> None:
        self.bound, self.gain = tuple(bound[:2]), float(gain)
        self._widest = Constant(np.repeat(self.bound, 3).astype(np.float32))

    @classmethod
    def of_pair(cls, pair: str, **constants: Any) -> WristFeedback:
        """For a pair or chain, with the narrowest bound of its interactions (`RESIDUAL_BOUND`)."""
        bounds = [make_interaction(skill).RESIDUAL_BOUND for skill in parse_chain(pair)[1]]
        return cls(np.min(bounds, axis=0).tolist(), **constants)

    def describe(self) -> dict[str, Any]:
        """The constants that determine what it does."""
        return {"gain": self.gain, "bound": list(self.bound)}

    def reset(self, started: Array) -> None:
        """Nothing is remembered of an episode."""

    def act(self, obs: Mapping[str, Array], nominal: Nominal) -> Array:
        """da_B (N, 28), normalised, zero but at the wrist and where pi_B acts."""
        error = wrist_error(obs)
        xp, widest = array_namespace(error), self._widest.like(error)
        correction = xp.minimum(xp.maximum(self.gain * error, -widest), widest)
        correction = xp.where(nominal.interacting[:, None], correction, 0.0)
        rest = xp.zeros((len(error), NUM_ACTIONS - NUM_WRIST), dtype=error.dtype, device=error.device)
        return normalised(xp.concat([correction, rest], axis=1))
