"""The nominal plan of a composite episode before the interaction: hold, then travel to B's start pose."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dexcompose_envs import hand
from dexcompose_envs.episodes.phases import HOLD_STEPS, TRANSITION_STEPS
from dexcompose_envs.skills.trajectories import minimum_jerk

HOLD, TRANSITION, INTERACT = range(3)
RELEASE_FRACTION = 0.5
"""Released fingers reach B's posture within this share of the transition, the wrist takes all of it."""


class PhasePlanner:
    """Nominal targets for the wrist and the released fingers in the phases *hold* and *transition*.

    *Hold* repeats the action that holds the object. In *transition* the released fingers move to the posture in which
    B starts, and the wrist travels to where B starts, both on minimum-jerk profiles between normalised targets. Once
    there, the plan stays there; from *interact* on B's policy takes over.

    Args:
        start: B's start pose, normalised targets (28,) or (N, 28).
        hold_steps: Length of *hold*.
        transition_steps: Length of *transition*.
        device: Where steps and actions are.
    """

    def __init__(
        self,
        start: ArrayLike,
        *,
        hold_steps: int = HOLD_STEPS,
        transition_steps: int = TRANSITION_STEPS,
        device: str | torch.device = "cpu",
    ) -> None:
        self.start = torch.as_tensor(start, dtype=torch.float32, device=device)
        if self.start.shape[-1:] != (hand.NUM_ACTIONS,):
            raise ValueError(f"B's start pose has shape {tuple(self.start.shape)}; expected (..., {hand.NUM_ACTIONS})")
        self.hold_steps, self.transition_steps = hold_steps, transition_steps
        self._share = torch.tensor(self._shares(), dtype=torch.float32, device=device)

    @property
    def interact_from(self) -> int:
        """First control step of *interact*."""
        return self.hold_steps + self.transition_steps

    def _shares(self) -> np.ndarray:
        """Share of the way that is travelled at the end of each step, (steps + 1, 28); the last row is 1."""
        steps = np.arange(self.interact_from + 1)[:, None]
        travelled = (steps + 1.0 - self.hold_steps) / self.transition_steps
        share = np.repeat(minimum_jerk(travelled), hand.NUM_ACTIONS, axis=1)
        share[:, hand.NUM_WRIST :] = minimum_jerk(travelled / RELEASE_FRACTION)
        return share

    def phase(self, step: Tensor) -> Tensor:
        """Phase (N,) of each world: `HOLD`, `TRANSITION` or `INTERACT`.

        Args:
            step: Control steps executed since the episode's start, (N,).
        """
        return (step >= self.hold_steps).long() + (step >= self.interact_from)

    def plan(self, step: Tensor, hold_action: Tensor) -> Tensor:
        """Nominal targets (N, 28), normalised, for the next control step.

        Args:
            step: Control steps executed since the episode's start, (N,).
            hold_action: The action that holds the object at the episode's start, (N, 28).
        """
        share = self._share[step.clamp(max=self.interact_from)]
        return (1.0 - share) * hold_action + share * self.start
