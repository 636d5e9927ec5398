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
SMOOTHING = 0.2
"""Weight of the newest observation in what is sensed, a mean that fades over 5 control steps: single ones are noisy."""


class Reflex(ConstantSqueeze):
    """Squeezes as `ConstantSqueeze` does, by an amount that is raised by what is sensed of the object.

    The amount is `angle * (displacement / full_displacement + speed / full_speed)`, at most `angle`, both of smoothed
    observations. It never falls within an episode: a grasp that has slipped once is not trusted again. The ramp over
    *hold* bounds it from above.

    Args:
        angle: Largest change of a target, rad.
        full_displacement: Displacement in the palm frame (m) that alone calls for the whole squeeze.
        full_speed: Speed relative to the palm (m/s) that alone does.
        smoothing: Weight of the newest observation in what is sensed, up to 1 for no smoothing.
    """

    def __init__(
        self,
        *,
        angle: float = ANGLE,
        full_displacement: float = FULL_DISPLACEMENT,
        full_speed: float = FULL_SPEED,
        smoothing: float = SMOOTHING,
    ) -> None:
        super().__init__(angle=angle)
        self.full_displacement, self.full_speed = float(full_displacement), float(full_speed)
        self.smoothing = float(smoothing)
        self._terms: Mapping[str, slice] = {}
        self._sensed: Array = None
        self._share: Array = None

    def describe(self) -> dict[str, Any]:
        """The constants that determine what it does."""
        own = {"full_displacement": self.full_displacement, "full_speed": self.full_speed}
        return super().describe() | own | {"smoothing": self.smoothing}

    def reset(self, obs: Mapping[str, Array], layout: Layout, started: Array, mask: FingerMask) -> None:
        """Starts episodes where `started` (N,) is true, without any squeeze."""
        super().reset(obs, layout, started, mask)
        self._terms, xp = layout["context"], array_namespace(started)
        if self._share is None or len(self._share) != len(started):
            self._share = xp.zeros_like(self._step)
            self._sensed = xp.zeros_like(self._direction[:, :6])
        self._share = xp.where(started[:, None], 0.0, self._share)
        self._sensed = xp.where(started[:, None], 0.0, self._sensed)

    def act(self, obs: Mapping[str, Array], base_action: Array) -> Array:
        """dq_A (N, 22), rad, zero on released fingers."""
        whole = super().act(obs, base_action)
        xp, context = array_namespace(whole), obs["context"]
        displacement = context[:, self._terms["palm_offset"]] / (LENGTH_SCALE * self.full_displacement)
        velocity = context[:, self._terms["object_linear_velocity"]] / self.full_speed
        seen = xp.concat([displacement, velocity], axis=1)
        self._sensed = self._sensed + self.smoothing * (seen - self._sensed)
        called = _length(self._sensed[:, :3]) + _length(self._sensed[:, 3:])
        self._share = xp.maximum(self._share, xp.clip(called, 0.0, 1.0))
        return self._share * whole


def _length(vector: Array) -> Array:
    """Lengths (N, 1) of vectors (N, 3)."""
    xp = array_namespace(vector)
    return xp.sqrt(xp.sum(vector * vector, axis=1, keepdims=True))
