"""A stabiliser without weights that presses as hard as the object's slipping calls for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from array_api_compat import array_namespace

from dexcompose_agents.scripted.squeeze import ANGLE, ConstantSqueeze
from dexcompose_envs.composition.task import Layout
from dexcompose_envs.observations import LENGTH_SCALE, Array
from dexcompose_envs.ownership import FingerMask

FULL_DISPLACEMENT = 0.01
"""The whole squeeze is called for when the object is this far (m) from where the hand held it,"""
FULL_SPEED = 0.1
"""...or when it moves this fast (m/s) relative to the palm; half of each together do the same."""


class Reflex(ConstantSqueeze):
    """Squeezes as `ConstantSqueeze` does, by an amount that is raised by what is sensed of the object.

    The amount is `angle * (displacement / full_displacement + speed / full_speed)`, at most `angle`. It never falls
    within an episode: a grasp that has slipped once is not trusted again. The ramp bounds it from above.

    Args:
        angle: Largest change of a target, rad.
        full_displacement: Displacement in the palm frame (m) that alone calls for the whole squeeze.
        full_speed: Speed relative to the palm (m/s) that alone does.
    """

    def __init__(
        self, *, angle: float = ANGLE, full_displacement: float = FULL_DISPLACEMENT, full_speed: float = FULL_SPEED
    ) -> None:
        super().__init__(angle=angle)
        self.full_displacement, self.full_speed = float(full_displacement), float(full_speed)
        self._columns: Mapping[str, slice] = {}
        self._share: Array = None

    def describe(self) -> dict[str, Any]:
        """The constants that determine what it does."""
        own = {"full_displacement": self.full_displacement, "full_speed": self.full_speed}
        return super().describe() | own

    def reset(self, obs: Mapping[str, Array], layout: Layout, started: Array, mask: FingerMask) -> None:
        """Starts episodes where `started` (N,) is true, without any squeeze."""
        super().reset(obs, layout, started, mask)
        self._columns, xp = layout["context"], array_namespace(started)
        if self._share is None or len(self._share) != len(started):
            self._share = xp.zeros_like(self._step)
        self._share = xp.where(started[:, None], 0.0, self._share)

    def act(self, obs: Mapping[str, Array], base_action: Array) -> Array:
        """dq_A (N, 22), rad, zero on released fingers."""
        whole = super().act(obs, base_action)
        displacement = self._length(obs, "palm_offset") / LENGTH_SCALE
        called = displacement / self.full_displacement + self._length(obs, "object_linear_velocity") / self.full_speed
        xp = array_namespace(called)
        self._share = xp.maximum(self._share, xp.clip(called, 0.0, 1.0))
        return self._share * whole

    def _length(self, obs: Mapping[str, Array], term: str) -> Array:
        """Length (N, 1) of a vector that is observed."""
        vector = obs["context"][:, self._columns[term]]
        xp = array_namespace(vector)
        return xp.sqrt(xp.sum(vector * vector, axis=1, keepdims=True))
