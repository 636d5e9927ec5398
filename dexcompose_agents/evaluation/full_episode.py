"""Episodes from scratch: skill A's policy grasps, the hand holds still and eases its grip, then the method composes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexcompose_agents.evaluation.until_decided import UntilDecided
from dexcompose_agents.held_states.eased_grip import EasedGrip
from dexcompose_agents.methods.base import CompositionMethod
from dexcompose_envs import hand
from dexcompose_envs.agent import Agent
from dexcompose_envs.composition.bounds import normalised
from dexcompose_envs.composition.wrist_error import wrist_error
from dexcompose_envs.observations import Array
from dexcompose_envs.rollouts import Moment
from dexcompose_envs.skills import make_retention
from dexcompose_envs.skills.base import InteractionSkill

_WIDEST = np.repeat(InteractionSkill.RESIDUAL_BOUND[:2], 3)
"""Largest correction: wrist position (m) and Euler angles (rad), as of a residual B."""


class FullEpisode(UntilDecided):
    """Agent and watcher of such episodes; the method begins where the environment hands over, see `hand_over`.

    Until then the tremble that the wrist's error shows is taken off the wrist's targets, see `steadied`: pi_A, whose
    own environment doesn't tremble, would knock over or lose what it grasps.

    Args:
        method: Who composes.
        grasp: Who grasps: an agent of the retention skill's own environment.
        worlds: The vector environment, without its wrappers; its episodes start from scratch.
    """

    def __init__(self, method: CompositionMethod, grasp: Agent, worlds: Any) -> None:
        self.name, self._method, self._grasp = method.name, method, grasp
        self._terms, n = worlds.layout["context"], worlds.num_envs
        self._streak_needed, self._grip = make_retention(worlds.retention).STREAK, EasedGrip(worlds.retention, n)
        self._streak, self._still_for, self._seeds = np.zeros((3, n), np.int64)
        self._still: NDArray[np.bool_] = np.zeros(n, bool)
        self._composing: NDArray[np.bool_] = np.zeros(n, bool)
        self._asked = False

    def reset(
        self, obs: Mapping[str, Array], info: Mapping[str, Any], env_ids: NDArray[np.int64], seeds: NDArray[np.int64]
    ) -> None:
        """Begins episodes in some worlds; see `Agent`."""
        self._grasp.reset(obs, info, env_ids, seeds)
        self._streak[env_ids], self._seeds[env_ids] = 0, seeds
        self._still[env_ids] = self._composing[env_ids] = False
        if not self._asked:  # a method learns the number of worlds when all of them begin
            self._asked = True
            self._method.reset(obs, info, env_ids, seeds)
        self._rest(self._method, env_ids)

    def act(self, obs: Mapping[str, Array]) -> NDArray[np.float32]:
        """Actions (N, 28); see `Agent`."""
        held = np.any(np.asarray(obs["context"][:, self._terms["reference"]]) != 0, axis=1)
        if (begins := np.flatnonzero(held & ~self._composing)).size:
            self._method.reset(obs, {}, begins, self._seeds[begins])
        self._composing = held
        actions = self._grip.command.astype(np.float32)
        if not (self._still | held).all():
            actions = np.where((self._still | held)[:, None], actions, np.asarray(self._grasp.act(obs)))
        if not held.all():
            actions = np.where(held[:, None], actions, steadied(actions, obs))
        if held.any():
            actions = np.where(held[:, None], np.asarray(self._method.act(obs)), actions)
        return actions

    def idle(self, env_ids: NDArray[np.int64]) -> None:
        """Worlds that have nothing left to do."""
        for agent in (self._grasp, self._method):
            self._rest(agent, env_ids)

    def step(self, moment: Moment) -> NDArray[np.bool_]:
        """Worlds (N,) that are through; where A has succeeded, the hand is told to stay."""
        achieved = np.asarray(moment.info["task_a_held"], bool)
        self._streak = np.where(achieved, self._streak + 1, 0)
        self._still_for += 1
        arrived: NDArray[np.bool_] = ~self._still & ~self._composing & (self._streak >= self._streak_needed)
        joints = np.asarray(moment.obs["task_a"][:, : hand.NUM_ACTIONS], np.float64)
        self._grip.stay(arrived, joints[:, : hand.NUM_WRIST], np.asarray(moment.actions)[:, hand.NUM_WRIST :])
        self._still_for[arrived] = 0
        self._still |= arrived
        self._grip.ease(np.where(self._still, self._still_for, -1), joints[:, hand.NUM_WRIST :])
        if arrived.any():
            self._rest(self._grasp, np.flatnonzero(arrived))
        return super().step(moment)

    @staticmethod
    def _rest(agent: Any, env_ids: NDArray[np.int64]) -> None:
        if (idle := getattr(agent, "idle", None)) is not None:
            idle(env_ids)


def steadied(actions: NDArray[np.float32], obs: Mapping[str, Array]) -> NDArray[np.float32]:
    """The actions (N, 28), normalised, with the wrist's error (`composition.wrist_error`) taken off its targets."""
    error = np.clip(np.asarray(wrist_error(obs)), -_WIDEST, _WIDEST)
    correction = np.pad(error, ((0, 0), (0, hand.NUM_ACTIONS - hand.NUM_WRIST)))
    return np.clip(actions + normalised(correction), -1.0, 1.0).astype(np.float32)
