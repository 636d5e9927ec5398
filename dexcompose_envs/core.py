"""The batched environment: reset, step and observe N worlds at once. Gymnasium's two faces are built on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import base_shake, hand, phases
from dexcompose_envs.held_states import HeldStateLibrary
from dexcompose_envs.judge import Judge, Step
from dexcompose_envs.observations import (
    FIXTURE_CONTEXT,
    HAND_CONTEXT,
    JOINT_POSITION,
    OBJECT_CONTEXT,
    Snapshot,
    Term,
    compute,
    layout_of,
)
from dexcompose_envs.physics import make_engine
from dexcompose_envs.scene import build_scene
from dexcompose_envs.tasks import make_interaction, make_retention

STARTS = ("held", "scratch")
SPLITS = ("all", "train", "test")


@dataclass(frozen=True)
class CoreConfig:
    """What distinguishes one environment from another.

    Attributes:
        retention: Retention skill A, or None.
        interaction: Interaction skill B, or None.
        start: "held" starts from the held-state library (Eq. 2), "scratch" with the object on the table; None means
            "held" for composites and "scratch" for single skills.
        held_split: Part of the held-state library that resets draw from: "all", "train" or "test".
        held_states: Library, path or None for the shipped one.
        terminate_on_success: Whether success ends the episode.
        base_shake: Scale of the wrist's tremble, see `base_shake.py`; None: 1 for composites and 0 for single skills.
        engine: Physics engine, see `physics.make_engine`.
        num_threads: CPU threads of the engine; None: all usable cores.
    """

    retention: str | None = None
    interaction: str | None = None
    start: str | None = None
    held_split: str = "all"
    held_states: HeldStateLibrary | str | Path | None = None
    terminate_on_success: bool = True
    base_shake: float | None = None
    engine: str = "mujoco"
    num_threads: int | None = None


class BatchedCore:
    """N worlds of one environment.

    A world's randomness comes from its own generator and is used at resets only, so an episode depends on its seed and
    actions alone, not on its neighbours.
    """

    def __init__(self, config: CoreConfig, num_worlds: int, max_episode_steps: int | None = None) -> None:
        """Builds scene and engine.

        Args:
            config: What environment this is.
            num_worlds: Number of worlds N.
            max_episode_steps: Control steps after which an episode is truncated; None: the task's default.

        Raises:
            ValueError: On an unknown skill, start, split or engine, or a non-positive number.
        """
        if config.retention is None and config.interaction is None:
            raise ValueError("an environment needs a retention skill, an interaction skill or both; got neither")
        self.config = config
        self.retention = None if config.retention is None else make_retention(config.retention)
        self.interaction = None if config.interaction is None else make_interaction(config.interaction)
        self.is_composite = self.retention is not None and self.interaction is not None
        self.start = config.start or ("held" if self.is_composite else "scratch")
        self._check_start(self.start)
        if config.held_split not in SPLITS:
            raise ValueError(f"unknown held_split {config.held_split!r}; expected one of {', '.join(SPLITS)}")
        self.base_shake = float(self.is_composite) if config.base_shake is None else config.base_shake
        if not 0.0 <= self.base_shake <= 5.0:
            raise ValueError(f"base_shake is {config.base_shake}; expected a scale between 0 and 5")
        self.default_steps = self._default_steps()
        self.max_episode_steps = self.default_steps if max_episode_steps is None else max_episode_steps
        if self.max_episode_steps < 1:
            raise ValueError(f"max_episode_steps is {max_episode_steps}; expected a positive number of control steps")

        self.scene = build_scene(config.retention, config.interaction)
        self.engine = make_engine(config.engine, self.scene, num_worlds, config.num_threads)
        self.num_worlds = n = num_worlds
        self.terms = self._collect_terms()
        self.layout = {key: layout_of(terms) for key, terms in self.terms.items()}
        self._library: HeldStateLibrary | None = None
        self._adr = _addresses(self.scene.model)

        self._rngs = [np.random.default_rng() for _ in range(n)]
        self._elapsed = np.zeros(n, np.int64)
        self._shake = np.zeros((n, *base_shake.SHAPE))
        self._previous_action = np.zeros((n, hand.NUM_ACTIONS))
        self._reference = np.zeros((n, hand.NUM_FINGER_JOINTS))
        self._hold_target = np.zeros((n, 3))
        self._is_held_start = np.zeros(n, bool)
        self.judge = Judge(self.retention, self.interaction, n, self.max_episode_steps, config.terminate_on_success)

    def _default_steps(self) -> int:
        if self.is_composite:
            return phases.COMPOSITE_STEPS
        task = self.retention or self.interaction
        assert task is not None
        return task.MAX_STEPS

    def _check_start(self, start: str) -> None:
        if start not in STARTS:
            raise ValueError(f"unknown start {start!r}; expected one of {', '.join(STARTS)}")
        if start == "held" and self.retention is None:
            raise ValueError(f"start='held' needs a retention skill; {self.config.interaction} has none")

    def _collect_terms(self) -> dict[str, tuple[Term, ...]]:
        terms: dict[str, tuple[Term, ...]] = {}
        context: tuple[Term, ...] = HAND_CONTEXT
        if self.retention is not None:
            terms["task_a"] = (JOINT_POSITION, *self.retention.terms)
            context += OBJECT_CONTEXT
        if self.interaction is not None:
            terms["task_b"] = (JOINT_POSITION, *self.interaction.terms)
            context += FIXTURE_CONTEXT
        return terms | {"context": context}

    @property
    def library(self) -> HeldStateLibrary:
        """The held-state library, loaded when first needed."""
        if self._library is None:
            from dexcompose_envs import __version__

            source = self.config.held_states
            if isinstance(source, HeldStateLibrary):
                self._library = source
            else:
                assert self.config.retention is not None
                model_hash = build_scene(self.config.retention, None).model_hash
                self._library = HeldStateLibrary.load(
                    source or self.config.retention, env_version=__version__, model_hash=model_hash
                )
        return self._library

    def seed(self, worlds: NDArray[np.int64], seeds: Sequence[int | None]) -> None:
        """Gives some worlds (indices) new random generators; a None leaves the world's generator."""
        for world, seed in zip(worlds, seeds, strict=True):
            if seed is not None:
                self._rngs[world] = np.random.default_rng(seed)

    def reset(
        self, worlds: NDArray[np.int64], start: str | None = None, held_index: NDArray[np.int64] | None = None
    ) -> None:
        """Starts new episodes in some worlds.

        Args:
            worlds: Indices (M,) of the worlds.
            start: "held" or "scratch"; None: the environment's own.
            held_index: Rows (M,) of the held-state library to start from; None: drawn at random.

        Raises:
            ValueError: On an unknown start.
            HeldStateError: If the held-state library is missing or doesn't fit this environment.
        """
        start = self.start if start is None else start
        self._check_start(start)
        count = len(worlds)
        if count == 0:
            return
        model = self.scene.model
        qpos = np.tile(model.qpos0, (count, 1))
        qvel = np.zeros((count, model.nv))
        targets = np.zeros((count, hand.NUM_ACTIONS))
        fixture_pose = None if self.interaction is None else np.zeros((count, 7))
        rows = np.full(count, -1, np.int64)
        for i, world in enumerate(worlds):
            rng = self._rngs[world]
            self._shake[world] = base_shake.sample(rng, self.base_shake)
            if fixture_pose is not None:
                assert self.interaction is not None
                fixture_pose[i] = self.interaction.sample_fixture(rng)
            if start == "held":
                drawn = int(self.library.sample(rng, self.config.held_split))
                rows[i] = drawn if held_index is None else int(held_index[i])
                continue
            task = self.retention or self.interaction
            assert task is not None
            targets[i] = task.sample_hand(rng)
            qpos[i, self._adr.hand_qpos] = targets[i]
            if self.retention is not None:
                qpos[i, self._adr.object_qpos] = self.retention.sample_object(rng)

        self._reference[worlds] = 0.0
        if start == "held":
            held = self.library.take(rows)
            qpos[:, self._adr.hand_qpos], qvel[:, self._adr.hand_qvel] = held["hand_qpos"], held["hand_qvel"]
            qpos[:, self._adr.object_qpos], qvel[:, self._adr.object_qvel] = held["object_qpos"], held["object_qvel"]
            targets = held["control"]
            self._hold_target[worlds] = held["hold_target"]
            in_context = np.concatenate([targets[:, :6], held["reference"]], axis=1)
            self._reference[worlds] = hand.normalize(in_context)[:, 6:]
        self.engine.reset(worlds, qpos, qvel, targets, fixture_pose)
        self._previous_action[worlds] = hand.normalize(targets)
        self._elapsed[worlds] = 0
        self.judge.reset(worlds)
        self._is_held_start[worlds] = start == "held"
        if start != "held" and self.retention is not None:
            self._hold_target[worlds] = self._sensors()["object_position"][worlds]

    def step(self, actions: NDArray[Any]) -> Step:
        """Advances all worlds by one control step.

        Args:
            actions: Normalised position targets (N, 28), in [-1, 1]; values beyond are clipped.

        Raises:
            ValueError: On a wrong shape or a value that is not finite.
        """
        actions = check_actions(actions, self.num_worlds)
        targets = hand.denormalize(actions)
        targets[:, : hand.NUM_WRIST] += base_shake.offset(self._shake, self._elapsed)
        diverged = self.engine.step(np.clip(targets, hand.ACTION_LOW, hand.ACTION_HIGH))
        self._elapsed += 1
        self._previous_action = actions
        if diverged.any():
            # A diverged world holds no usable state; a new episode's first state stands in for its last.
            elapsed = self._elapsed.copy()
            self.reset(np.flatnonzero(diverged))
            self._elapsed = elapsed
        return self.judge.judge(self.snapshot(), self._elapsed, self._is_held_start, diverged)

    def _sensors(self) -> dict[str, NDArray[np.float64]]:
        data = self.engine.sensordata
        return {group: data[:, columns] for group, columns in self.scene.sensors.items()}

    def snapshot(self) -> Snapshot:
        """What terms and tasks may look at now; views, valid until the next step."""
        return Snapshot(
            sensors=self._sensors(),
            previous_action=self._previous_action,
            reference=self._reference,
            hold_target=self._hold_target,
            phase=np.eye(len(phases.PHASES))[self.judge.phase(self._elapsed)],
            joint_low=hand.ACTION_LOW,
            joint_span=hand.ACTION_HIGH - hand.ACTION_LOW,
            force_limit=hand.FORCE_LIMITS,
        )

    def observe(self) -> dict[str, NDArray[np.float32]]:
        """Observations of all worlds: key -> (N, size) float32, fresh."""
        snapshot = self.snapshot()
        return {key: compute(terms, snapshot).astype(np.float32) for key, terms in self.terms.items()}

    def initial_info(self) -> dict[str, NDArray[Any]]:
        """The info of a reset: the same keys as a step's, for episodes that have just begun."""
        return self.judge.initial_info(self._elapsed, self._is_held_start)

    def _memory(self) -> list[NDArray[Any]]:
        """Everything but physics that an episode carries, each (N,) or (N, k)."""
        return [
            self._elapsed, self._shake, self._previous_action, self._reference, self._hold_target, self._is_held_start,
            *self.judge.memory(), self.engine.sensordata,
        ]  # fmt: skip

    def get_state(self) -> NDArray[np.float64]:
        """Full state (N, S) float64; `set_state` of it continues bit by bit the same."""
        columns = [np.asarray(part, np.float64).reshape(self.num_worlds, -1) for part in self._memory()]
        return np.concatenate([self.engine.get_state(), *columns], axis=1)

    def set_state(self, state: NDArray[np.float64], worlds: NDArray[np.int64]) -> None:
        """Sets the full state (M, S) of some worlds (indices (M,)).

        Raises:
            ValueError: On a wrong shape or values that are not finite.
        """
        size = self.engine.state_size + sum(int(np.prod(part.shape[1:])) for part in self._memory())
        state = np.asarray(state, np.float64)
        if state.shape != (len(worlds), size):
            raise ValueError(f"state has shape {state.shape}; expected {(len(worlds), size)}")
        if not np.isfinite(state).all():
            raise ValueError("state has values that are not finite")
        self.engine.set_state(state[:, : self.engine.state_size], worlds)
        start = self.engine.state_size
        for part in self._memory():
            width = int(np.prod(part.shape[1:]))
            part[worlds] = state[:, start : start + width].reshape(len(worlds), *part.shape[1:])
            start += width

    def held_columns(self) -> dict[str, NDArray[np.float64]]:
        """The present states as columns of a held-state library, all but `reference` and `hold_target` (N, k)."""
        qpos, qvel = self.engine.qpos(), self.engine.qvel()
        forces = 10 * self.observe()["context"][:, self.layout["context"]["finger_contact"]]
        return {
            "hand_qpos": qpos[:, self._adr.hand_qpos],
            "hand_qvel": qvel[:, self._adr.hand_qvel],
            "object_qpos": qpos[:, self._adr.object_qpos],
            "object_qvel": qvel[:, self._adr.object_qvel],
            "control": hand.denormalize(self._previous_action),
            "contact": forces.astype(np.float64),
        }

    def close(self) -> None:
        """Releases the engine."""
        self.engine.close()


def check_actions(actions: Any, num_worlds: int) -> NDArray[np.float64]:
    """Actions as a fresh float64 (N, 28) array clipped to [-1, 1].

    Raises:
        ValueError: On a wrong shape or a value that is not finite.
    """
    array = np.asarray(actions, np.float64)
    if array.shape != (num_worlds, hand.NUM_ACTIONS):
        raise ValueError(f"actions have shape {array.shape}; expected {(num_worlds, hand.NUM_ACTIONS)}")
    if not np.isfinite(array).all():
        world, dim = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(
            f"action {hand.ACTION_NAMES[dim]} of world {world} is {array[world, dim]}; expected a finite number"
        )
    return np.clip(array, -1.0, 1.0)


@dataclass(frozen=True)
class _Addresses:
    """Where hand and object live in qpos and qvel."""

    hand_qpos: NDArray[np.int64]
    hand_qvel: NDArray[np.int64]
    object_qpos: slice
    object_qvel: slice


def _addresses(model: Any) -> _Addresses:
    joints = [model.joint(name) for name in hand.ACTION_NAMES]
    names = [model.joint(i).name for i in range(model.njnt)]
    position = velocity = 0
    if "OBJECT_JOINT" in names:
        free = model.joint("OBJECT_JOINT")
        position, velocity = int(free.qposadr[0]), int(free.dofadr[0])
    return _Addresses(
        np.array([int(j.qposadr[0]) for j in joints]),
        np.array([int(j.dofadr[0]) for j in joints]),
        slice(position, position + 7),
        slice(velocity, velocity + 6),
    )
