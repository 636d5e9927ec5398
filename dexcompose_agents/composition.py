"""The composition of two skills in one hand, Eqs. 8 to 12, once for every method and for training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexcompose_agents.residual.bounds import Float32, preservation_command
from dexcompose_agents.residual.stabiliser import Layout, StabiliserPolicy
from dexcompose_agents.residual.transition import INTERACT, PhasePlanner
from dexcompose_envs import hand
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.phases import HOLD_STEPS, TRANSITION_STEPS

if TYPE_CHECKING:
    from dexcompose_agents.diffusion.policy import BasePolicy

Observation = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Nominal:
    """What the composition would do in the next control step without residual B; all arrays have N rows."""

    base_action: Float32
    """a_B (N, 28): normalised targets of hold, transition or pi_B; only B's dimensions are executed."""
    interacting: NDArray[np.bool_]
    """(N,): whether pi_B acts, hence whether residual B may."""


class Composer:
    """Composes the preservation command of skill A with the policy of skill B under a finger mask.

    Per control step: `nominal = composer.nominal(obs)`, then `composer.compose(obs, nominal, delta_b)`. A residual of
    zero gives exactly the nominal composition.

    Args:
        mask: Preserved fingers m*; they are hidden from pi_B if it was trained with hidden fingers.
        base_policy: pi_B, frozen.
        stabiliser: pi_res_A; None keeps the preserved fingers at q_ref.
        interaction_start: Where B starts, normalised targets (28,): `env.unwrapped.interaction_start`.
        layout: `env.unwrapped.layout`.
        hold_steps: Length of the phase *hold*.
        transition_steps: Length of the phase *transition*.
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
    ) -> None:
        self.mask, self.base_policy, self.stabiliser = mask, base_policy, stabiliser
        base_policy.hide_fingers(mask.preserved)
        self.planner = PhasePlanner(interaction_start, hold_steps=hold_steps, transition_steps=transition_steps)
        self.layout = layout
        self._mask_a = mask.action_mask_a()
        self._step = np.zeros(0, np.int64)
        self._hold_action = np.zeros((0, hand.NUM_ACTIONS), np.float32)
        self._was_interacting = np.zeros(0, bool)
        self._seeds = np.zeros(0, np.int64)

    def reset(self, obs: Observation, env_ids: NDArray[np.int64], seeds: NDArray[np.int64]) -> None:
        """Starts episodes in some worlds; the first call names all worlds and so fixes N.

        Args:
            obs: Observations of all N worlds.
            env_ids: Worlds that start, (K,).
            seeds: Seeds of their base policy's noise, (K,).
        """
        num_envs = len(obs["context"])
        if len(self._step) != num_envs:
            if len(env_ids) != num_envs:
                raise ValueError(f"the first reset names {len(env_ids)} worlds; expected all {num_envs}")
            self._step = np.zeros(num_envs, np.int64)
            self._hold_action = np.zeros((num_envs, hand.NUM_ACTIONS), np.float32)
            self._was_interacting = np.zeros(num_envs, bool)
            self._seeds = np.zeros(num_envs, np.int64)
            self.base_policy.reset(num_envs)
        context = self.layout["context"]
        self._step[env_ids] = 0
        self._was_interacting[env_ids] = False
        self._seeds[env_ids] = seeds
        hold = obs["context"][:, context["previous_action"]].copy()
        hold[:, hand.NUM_WRIST :] = obs["context"][:, context["reference"]]
        self._hold_action[env_ids] = hold[env_ids]
        if self.stabiliser is not None:
            self.stabiliser.reset(obs, self.layout, env_ids, self.mask)

    def nominal(self, obs: Observation) -> Nominal:
        """a_B of the next control step; call once per step, before `compose`.

        Args:
            obs: Observations of all N worlds.
        """
        action = self.planner.plan(self._step, self._hold_action)
        interacting = self.planner.phase(self._step) == INTERACT
        entering = np.flatnonzero(interacting & ~self._was_interacting)
        if entering.size:
            self.base_policy.seed_envs(self._seeds[entering], entering)
        acting = np.flatnonzero(interacting)
        if acting.size:
            action[acting] = self.base_policy.act(obs["task_b"][acting], acting)
        self._was_interacting = interacting.copy()
        self._step += 1
        return Nominal(action, interacting)

    def compose(self, obs: Observation, nominal: Nominal, delta_b: Float32 | None = None) -> Float32:
        """The executed action (N, 28) in [-1, 1]: Eqs. 8, 9, 11 and 12.

        Args:
            obs: Observations of all N worlds.
            nominal: From `nominal` in this control step.
            delta_b: Residual B (N, 28), normalised; it acts on B's dimensions in interacting worlds only.
        """
        executed_b = nominal.base_action
        if delta_b is not None:
            allowed = nominal.interacting[:, None] & ~self._mask_a
            executed_b = np.clip(np.where(allowed, executed_b + delta_b, executed_b), -1.0, 1.0)
        reference = obs["context"][:, self.layout["context"]["reference"]]
        residual = np.zeros_like(reference)
        if self.stabiliser is not None:
            residual = self.stabiliser.act(obs, executed_b)
        command_a = np.zeros_like(executed_b)
        command_a[:, hand.NUM_WRIST :] = preservation_command(reference, residual, self._mask_a[hand.NUM_WRIST :])
        return np.clip(np.where(self._mask_a, command_a, executed_b), -1.0, 1.0).astype(np.float32)
