"""The nominal plan of a composite before each interaction: hold, then travel to where the interaction starts."""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import ArrayLike

from dexcompose_envs import hand
from dexcompose_envs.composition.arrays import Constant
from dexcompose_envs.episodes.phases import HOLD_STEPS, TRANSITION_STEPS
from dexcompose_envs.errors import UsageError
from dexcompose_envs.observations import Array
from dexcompose_envs.skills.trajectories import minimum_jerk

RELEASE_FRACTION = 0.5
"""Released fingers reach B's posture within this share of the transition, the wrist takes all of it."""


class PhasePlan:
    """Nominal targets for the wrist and the released fingers in the phases *hold* and *transition*.

    *Hold* repeats the action that holds the object. In *transition* the released fingers move to the posture in which
    the interaction starts, and the wrist travels to where it starts, both on minimum-jerk profiles between normalised
    targets. Once there, the plan stays there; from *interact* on the interaction's policy takes over.

    Args:
        starts: Start pose of each interaction in turn, normalised targets (k, 28).
        hold_steps: Length of *hold*, control steps.
        transition_steps: Length of *transition*, control steps; 0 hands over at once.

    Attributes:
        interact_from: First control step of *interact*.

    Raises:
        UsageError: On start poses of another shape or a negative number of steps.
    """

    def __init__(
        self, starts: ArrayLike, *, hold_steps: int = HOLD_STEPS, transition_steps: int = TRANSITION_STEPS
    ) -> None:
        poses = np.asarray(starts, np.float32)
        if poses.ndim != 2 or poses.shape[1] != hand.NUM_ACTIONS:
            raise UsageError(f"start poses have shape {poses.shape}; expected (interactions, {hand.NUM_ACTIONS})")
        if hold_steps < 0 or transition_steps < 0:
            raise UsageError(f"hold and transition take {hold_steps} and {transition_steps} steps; expected 0 or more")
        self.hold_steps, self.interact_from = hold_steps, hold_steps + transition_steps
        # Share of the way that is travelled at the end of step i - 1; the last row is 1.
        steps = np.arange(-1, self.interact_from + 1)[:, None]
        travelled = np.where(steps < 0, 0.0, (steps + 1.0 - hold_steps) / max(transition_steps, 1))
        shares = np.repeat(minimum_jerk(travelled), hand.NUM_ACTIONS, axis=1)
        shares[:, hand.NUM_WRIST :] = minimum_jerk(travelled / RELEASE_FRACTION)
        self._starts, self._shares = Constant(poses), Constant(shares.astype(np.float32))

    def _way(self, step: Array, stage: Array) -> tuple[Array, Array]:
        """Share travelled before the step, and where to, (N, 28) each."""
        xp = array_namespace(step)
        share = xp.take(self._shares.like(step), xp.clip(step, 0, self.interact_from + 1), axis=0)
        return share, xp.take(self._starts.like(stage), stage, axis=0)

    def targets(self, step: Array, stage: Array, hold_action: Array) -> Array:
        """Nominal targets (N, 28), normalised, of the next control step of a `stage`, that is an interaction, (N,).

        `step` (N,) is how many were executed since its hold began, `hold_action` (N, 28) the action held then.
        """
        share, start = self._way(step + 1, stage)
        return (1.0 - share) * hold_action + share * start

    def held_action(self, step: Array, stage: Array, previous_action: Array) -> Array:
        """The action (N, 28) that was held when *hold* began, from `previous_action` (N, 28): undoes `targets`."""
        xp = array_namespace(previous_action)
        share, start = self._way(step, stage)
        left = xp.where(share < 1.0, 1.0 - share, 1.0)
        return xp.where(share < 1.0, (previous_action - share * start) / left, start)
