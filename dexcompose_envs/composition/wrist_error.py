"""Where the wrist heads other than it was told: the tremble of its base, which is in no target, shows in this."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dexcompose_envs import hand
from dexcompose_envs.composition.arrays import Constant
from dexcompose_envs.composition.bounds import NORMALISED_PER_UNIT
from dexcompose_envs.observations import HAND_CONTEXT, VELOCITY_SCALE, Array, layout_of

_UNITS = Constant((1.0 / NORMALISED_PER_UNIT[: hand.NUM_WRIST]).astype(np.float32))
_LAG = Constant((hand.WRIST_LAG / VELOCITY_SCALE).astype(np.float32))


def _of_wrist(term: str) -> slice:
    """Where a context, which begins with the hand's, has a term of the wrist."""
    start = layout_of(HAND_CONTEXT)[term].start
    return slice(start, start + hand.NUM_WRIST)


_TOLD, _VELOCITY = _of_wrist("previous_action"), _of_wrist("joint_velocity")


def wrist_error(obs: Mapping[str, Array]) -> Array:
    """The wrist's last target minus where it heads by its place, velocity and lag (N, 6), m and rad.

    `obs` is a composite's. In a shaken world this is the tremble's opposite; the tremble is slow enough, 3 Hz at most,
    to be much the same in the next control step.
    """
    place, context = obs["task_b"][:, : hand.NUM_WRIST], obs["context"]
    ahead = context[:, _VELOCITY] * _LAG.like(place)
    return (context[:, _TOLD] - place) * _UNITS.like(place) - ahead
