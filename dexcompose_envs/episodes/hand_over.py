"""From grasping to composing: when an episode of a composite that starts from scratch counts as held.

Such an episode begins with skill A's own task. It is handed over once A has succeeded (as the skill alone would) and
the hand then holds the object still: its finger targets stay the same for `QUIET_STEPS` control steps. The targets are
then what the preserved fingers follow (q_ref), the object's place and turn in the palm those from which it may not
move, and the composite's clock and phases begin. A fixture that is done already hands nothing over.
"""

from __future__ import annotations

from dexcompose_envs import hand
from dexcompose_envs.arrays import Arrays
from dexcompose_envs.observations import Array
from dexcompose_envs.skills.chain import Chain

QUIET_STEPS = 20
"""Control steps for which the finger targets must stay the same: longer than a grasp takes to settle."""
SAME = 1e-3
"""Normalised targets that differ by less are the same."""
LEEWAY = 60
"""Control steps that the hand-over may take beyond the skill's own `MAX_STEPS`: to settle and ease the grip."""


class HandOver:
    """Watches N worlds for it; of environments that are no composites it asks nothing.

    Args:
        chain: The skills.
        num_worlds: N.
        arrays: Library and device.
    """

    def __init__(self, chain: Chain, num_worlds: int, arrays: Arrays) -> None:
        self._xp, whole = arrays.xp, arrays.xp.int64
        self._applies = chain.is_composite
        self._streak = chain.retention.STREAK if chain.retention is not None else 0
        self._limit = chain.retention.MAX_STEPS + LEEWAY if chain.retention is not None else 0
        self._quiet, self._begun = (arrays.zeros(num_worlds, dtype=whole) for _ in range(2))
        self._succeeded = arrays.zeros(num_worlds, dtype=arrays.xp.bool)

    def memory(self) -> list[Array]:
        """What is remembered of each episode: quiet steps, when it was handed over, whether A succeeded, each (N,)."""
        return [self._quiet, self._begun, self._succeeded]

    def sound(self, elapsed: Array) -> Array:
        """Whether what is remembered could have come about after so many control steps (N,), bool."""
        quiet, begun = self._quiet, self._begun
        return (quiet >= 0) & (quiet <= elapsed) & (begun >= 0) & (begun <= elapsed)

    def reset(self, worlds: Array) -> None:
        """Begins new episodes in some worlds, a mask (N,)."""
        self._quiet = self._xp.where(worlds, 0, self._quiet)
        self._begun = self._xp.where(worlds, 0, self._begun)
        self._succeeded = self._succeeded & ~worlds

    def clock(self, elapsed: Array, is_held: Array) -> Array:
        """Control steps of the composite (N,): since the start or the hand-over, 0 before it."""
        return self._xp.where(is_held, elapsed - self._begun, 0) if self._applies else elapsed

    def is_late(self, elapsed: Array, is_held: Array) -> Array:
        """Worlds (N,) in which A has had its time without being handed over."""
        return ~is_held & (elapsed >= self._limit) if self._applies else self._xp.zeros_like(is_held)

    def watch(
        self, before: Array, actions: Array, elapsed: Array, is_held: Array, streak: Array, ready: Array
    ) -> Array:
        """Worlds (N,) that are handed over with the control step just made.

        Args:
            before: Actions (N, 28) of the step before.
            actions: Those of this step.
            elapsed: Control steps so far (N,).
            is_held: Whether the object counts as held already (N,).
            streak: Good steps of A in a row (N,).
            ready: Whether the object is in hand, and no interaction done (N,).
        """
        xp, fingers = self._xp, slice(hand.NUM_WRIST, None)
        same = xp.max(xp.abs(actions[:, fingers] - before[:, fingers]), axis=-1) < SAME
        self._succeeded = self._succeeded | ((streak >= self._streak) & ~is_held)
        quiet = xp.where(same & ready & self._succeeded & ~is_held, self._quiet + 1, 0)
        begins = quiet >= QUIET_STEPS
        self._quiet = xp.where(begins, 0, quiet)
        self._begun = xp.where(begins, elapsed, self._begun)
        return begins
