"""Skill B's side of a composition: hold, transition, then the interactions' frozen policies (Eqs. 10 and 11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from array_api_compat import array_namespace, device

from dexcompose_envs.arrays import choose
from dexcompose_envs.composition.arrays import Constant, as_float32
from dexcompose_envs.composition.masks import OwnedDimensions
from dexcompose_envs.composition.plan import PhasePlan
from dexcompose_envs.composition.policies import PolicyFace, PolicyLike
from dexcompose_envs.composition.task import CompositionTask
from dexcompose_envs.episodes.phases import HOLD_STEPS, SETTLE_STEPS, TRANSITION_STEPS
from dexcompose_envs.errors import UsageError
from dexcompose_envs.hand import NUM_ACTIONS
from dexcompose_envs.observations import Array


@dataclass(frozen=True)
class Nominal:
    """What the composition would do in the next control step without residual B.

    Attributes:
        base_action: a_B (N, 28): normalised targets of hold, transition or pi_B; only B's dimensions are executed.
        interacting: (N,) bool: whether pi_B acts, hence whether residual B may.
    """

    base_action: Array
    interacting: Array

    def corrected(self, residual: Array, writable: Array) -> Array:
        """Eq. 11: a_B (N, 28) in [-1, 1] with da_B (N, 28), normalised, added where it is `writable`, (N, 28) bool."""
        xp, action = array_namespace(self.base_action), self.base_action
        return xp.clip(xp.where(writable, action + residual, action), -1.0, 1.0)


@runtime_checkable
class ResidualB(Protocol):
    """Corrects the interactions' policies (Eq. 10) at every control step."""

    def reset(self, started: Array) -> None:
        """Starts episodes in the worlds where `started` (N,) is true; the first call fixes N."""

    def act(self, obs: Mapping[str, Array], nominal: Nominal) -> Array:
        """da_B (N, 28), normalised; asked once per control step, also where no policy acts yet."""


class Interactor:
    """Plays hold and transition, then asks the policy of the interaction whose turn it is.

    Around a single skill there is neither hold nor transition: its policy acts from the first step on.

    Args:
        task, policies, hold_steps, transition_steps: As for `Composer`.
        hidden: Preserved fingers, hidden from policies that were trained with hidden fingers.
        owned: Dimensions that policies may answer with instead of all 28; None: all.

    Raises:
        UsageError: If there are not as many policies as interactions, or one is no policy.
    """

    def __init__(
        self,
        task: CompositionTask,
        policies: Sequence[PolicyLike],
        hidden: Sequence[str] = (),
        *,
        owned: OwnedDimensions | None = None,
        hold_steps: int = HOLD_STEPS,
        transition_steps: int = TRANSITION_STEPS,
    ) -> None:
        if len(policies) != len(task.task_keys):
            raise UsageError(f"got {len(policies)} base policies; expected one per interaction, {len(task.task_keys)}")
        self.task, self._owned = task, owned
        self.policies = [PolicyFace(policy) for policy in policies]
        for policy in policies:
            if hasattr(policy, "hide_fingers"):
                policy.hide_fingers(tuple(hidden))
        steps = (hold_steps, transition_steps) if task.is_composite else (0, 0)
        self.plan = PhasePlan(task.starts, hold_steps=steps[0], transition_steps=steps[1])
        self._offsets = [Constant(offset.astype(np.float32)) if offset.any() else None for offset in task.offsets]
        context = task.layout.get("context", {})
        self._previous_action, self._stage_column = context.get("previous_action"), context.get("stage")
        self.num_envs = 0

    def reset(self, obs: Mapping[str, Array], started: Array | None, seeds: Array, step: Array | None = None) -> None:
        """Starts episodes in some worlds; the first call starts all of them and so fixes N.

        Args:
            obs: Observations of all N worlds.
            started: Which worlds start, (N,) bool; None: all.
            seeds: Seeds of their base policies' noise, (N,) int64; rows of worlds that don't start mean nothing.
            step: Control steps (N,) that restored episodes have behind them; None: none.

        Raises:
            UsageError: If the first call names some worlds only.
        """
        xp, n, place = array_namespace(seeds), len(seeds), device(seeds)
        if started is None or n != self.num_envs:
            if started is not None and not started.all():
                raise UsageError(f"the first reset names {int(started.sum())} worlds; expected all {n}")
            self._step, self._stage = xp.zeros((2, n), dtype=xp.int64, device=place)
            self._seeds, self.num_envs = seeds, n
            for policy in self.policies:
                policy.reset(n, seeds)
            started, self._idle = xp.ones(n, dtype=xp.bool, device=place), xp.zeros(n, dtype=xp.bool, device=place)
            self._hold_action = xp.zeros((n, NUM_ACTIONS), dtype=xp.float32, device=place)
        self._seeds, self._idle = xp.where(started, seeds, self._seeds), self._idle & ~started
        self._stage = xp.where(started, self._observed_stage(obs, self._stage), self._stage)
        # An interaction that is not the first began at an unknown moment: it begins anew.
        begun = xp.zeros_like(self._step) if step is None else xp.where(self._stage == 0, step, 0)
        self._begin(obs, started, begun)
        self._entered = started & (begun >= self.plan.interact_from)

    def idle(self, worlds: Array) -> None:
        """Stops asking policies in the worlds of a mask (N,) until these start an episode again."""
        self._idle = self._idle | worlds

    def _begin(self, obs: Mapping[str, Array], worlds: Array, step: Array) -> None:
        """Begins a hold in some worlds, of which `step` (N,) control steps have gone by."""
        self._step = array_namespace(step).where(worlds, step, self._step)
        if self.plan.interact_from:
            previous = obs["context"][:, self._previous_action]
            held = self.plan.held_action(self._step, self._stage, previous)
            self._hold_action = choose(worlds, held, self._hold_action)

    def _observed_stage(self, obs: Mapping[str, Array], otherwise: Array) -> Array:
        if self._stage_column is None:
            return otherwise
        observed = obs["context"][:, self._stage_column][:, 0]
        xp = array_namespace(observed)
        return xp.clip(xp.astype(xp.round(observed), xp.int64), 0, len(self.policies) - 1)

    def nominal(self, obs: Mapping[str, Array]) -> Nominal:
        """a_B of the next control step; call once per step."""
        stage = self._observed_stage(obs, self._stage)
        xp = array_namespace(stage)
        if self._stage_column is not None:
            changed, self._stage = stage != self._stage, stage
            # A stage begins when the one before it was done, and shows once the object has settled.
            self._begin(obs, changed, xp.full_like(self._step, min(SETTLE_STEPS, self.plan.hold_steps)))
        interacting = self._step >= self.plan.interact_from
        entering = (self._step == self.plan.interact_from) | self._entered
        action: Array = None
        for index, policy in enumerate(self.policies):
            turn = stage == index
            policy.start(entering & turn, self._seeds + index)
            says = policy.act(obs, self.task.task_keys[index], interacting & turn & ~self._idle)
            says = self._checked(says, obs, self._offsets[index])
            action = says if action is None else choose(turn, says, action)
        if self.plan.interact_from:
            action = choose(interacting, action, self.plan.targets(self._step, stage, self._hold_action))
        action = xp.clip(action, -1.0, 1.0)
        self._step = self._step + 1
        self._entered = xp.zeros_like(self._entered)
        return Nominal(action, interacting)

    def _checked(self, says: object, obs: Mapping[str, Array], offset: Constant | None) -> Array:
        """A policy's action (N, 28), float32, where the observations are."""
        like = next(iter(obs.values()))
        action = as_float32(says, like)
        size = NUM_ACTIONS if self._owned is None or action.shape[-1:] == (NUM_ACTIONS,) else len(self._owned.indices)
        expected = (size,) if action.ndim == 1 else (self.num_envs, size)
        if tuple(action.shape) != expected:
            raise UsageError(f"the base policy's action has shape {tuple(action.shape)}; expected {expected}")
        action = array_namespace(like).broadcast_to(action, (self.num_envs, size))
        if size != NUM_ACTIONS and self._owned is not None:
            action = self._owned.spread(action)
        return action if offset is None else action + offset.like(like)
