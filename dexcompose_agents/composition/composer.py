"""The composition of two skills in one hand, Eqs. 8 to 12, once for every method and for training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dexcompose_agents.composition.bounds import preservation_command
from dexcompose_agents.composition.tensors import Layout, Observation, mask_tensors
from dexcompose_agents.composition.transition import INTERACT, PhasePlanner
from dexcompose_agents.residual.stabiliser import StabiliserPolicy
from dexcompose_envs import hand
from dexcompose_envs.episodes.phases import HOLD_STEPS, TRANSITION_STEPS
from dexcompose_envs.ownership import FingerMask

if TYPE_CHECKING:
    from dexcompose_agents.diffusion.policy import BasePolicy


@dataclass(frozen=True)
class Nominal:
    """What the composition would do in the next control step without residual B; both have N rows."""

    base_action: Tensor
    """a_B (N, 28): normalised targets of hold, transition or pi_B; only B's dimensions are executed."""
    interacting: Tensor
    """(N,) bool: whether pi_B acts, hence whether residual B may."""


class Composer:
    """Composes the preservation command of skill A with the policy of skill B under a finger mask.

    Per control step: `nominal = composer.nominal(obs)`, then `composer.compose(obs, nominal, delta_b)`. A residual of
    zero gives exactly the nominal composition. Everything stays on one device; worlds are told apart by boolean
    masks, so that nothing of it has to be known on the host.

    Args:
        mask: Preserved fingers m*; they are hidden from pi_B if it was trained with hidden fingers.
        base_policy: pi_B, frozen.
        stabiliser: pi_res_A, on that device; None keeps the preserved fingers at q_ref.
        interaction_start: Where B starts, normalised targets (28,): `env.unwrapped.interaction_start`.
        layout: `env.unwrapped.layout`.
        hold_steps: Length of the phase *hold*.
        transition_steps: Length of the phase *transition*.
        device: Where the observations are.
    """

    def __init__(
        self,
        mask: FingerMask,
        base_policy: BasePolicy,
        stabiliser: StabiliserPolicy | None,
        interaction_start: ArrayLike,
        layout: Layout,
        *,
        hold_steps: int = HOLD_STEPS,
        transition_steps: int = TRANSITION_STEPS,
        device: str | torch.device = "cpu",
    ) -> None:
        self.mask, self.base_policy, self.stabiliser = mask, base_policy, stabiliser
        base_policy.hide_fingers(mask.preserved)
        self.planner = PhasePlanner(
            interaction_start, hold_steps=hold_steps, transition_steps=transition_steps, device=device
        )
        self.layout, self.device = layout, torch.device(device)
        self._allocate(0)

    def _allocate(self, num_envs: int) -> None:
        self._step, self._seeds = torch.zeros(2, num_envs, dtype=torch.long, device=self.device)
        self._hold_action = torch.zeros(num_envs, hand.NUM_ACTIONS, device=self.device)

    def reset(self, obs: Observation, started: Tensor, seeds: Tensor) -> None:
        """Starts episodes in some worlds; the first call starts all of them and so fixes N.

        Args:
            obs: Observations of all N worlds.
            started: Which worlds start, (N,) bool.
            seeds: Seeds of their base policy's noise, (N,) int64; rows of worlds that don't start mean nothing.
        """
        num_envs = len(started)
        if len(self._step) != num_envs:
            if not started.all():
                raise ValueError(f"the first reset names {int(started.sum())} worlds; expected all {num_envs}")
            self._allocate(num_envs)
            self.base_policy.reset(num_envs)
        context, columns = obs["context"], self.layout["context"]
        wrist = context[:, columns["previous_action"]][:, : hand.NUM_WRIST]
        hold = torch.cat([wrist, context[:, columns["reference"]]], dim=1)
        self._step = torch.where(started, 0, self._step)
        self._seeds = torch.where(started, seeds, self._seeds)
        self._hold_action = torch.where(started[:, None], hold, self._hold_action)
        if self.stabiliser is not None:
            self.stabiliser.reset(obs, self.layout, started, self.mask)

    def nominal(self, obs: Observation) -> Nominal:
        """a_B of the next control step; call once per step, before `compose`.

        Args:
            obs: Observations of all N worlds.
        """
        interacting = self.planner.phase(self._step) == INTERACT
        self.base_policy.seed_envs(self._seeds, self._step == self.planner.interact_from)
        acted: Any = self.base_policy.act(obs["task_b"], interacting)
        planned = self.planner.plan(self._step, self._hold_action)
        self._step = self._step + 1
        return Nominal(torch.where(interacting[:, None], acted, planned), interacting)

    def compose(self, obs: Observation, nominal: Nominal, delta_b: Tensor | None = None) -> Tensor:
        """The executed action (N, 28) in [-1, 1]: Eqs. 8, 9, 11 and 12.

        Args:
            obs: Observations of all N worlds.
            nominal: From `nominal` in this control step.
            delta_b: Residual B (N, 28), normalised; it acts on B's dimensions in interacting worlds only.
        """
        fingers = mask_tensors(self.mask, nominal.base_action.device)
        executed_b = nominal.base_action
        if delta_b is not None:
            allowed = nominal.interacting[:, None] & fingers.action_b
            executed_b = torch.where(allowed, executed_b + delta_b, executed_b).clamp(-1.0, 1.0)
        command_a = obs["context"][:, self.layout["context"]["reference"]]
        if self.stabiliser is not None:
            command_a = preservation_command(command_a, self.stabiliser.act(obs, executed_b), fingers.joints)
        wrist, released = executed_b.split((hand.NUM_WRIST, hand.NUM_FINGER_JOINTS), dim=1)
        return torch.cat([wrist, torch.where(fingers.joints > 0, command_a, released)], dim=1).clamp(-1.0, 1.0)
