"""The batched environment: reset, step and observe N worlds at once. Gymnasium's two faces are built on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.actions import checked_actions, finite_actions
from dexcompose_envs.arrays import choose, fresh, to_numpy
from dexcompose_envs.episodes import base_shake, phases
from dexcompose_envs.episodes.judge import Judge, Step
from dexcompose_envs.episodes.restarts import Restarts
from dexcompose_envs.episodes.rows import MEMORY_PARTS, PHYSICS_PARTS, FirstStates
from dexcompose_envs.episodes.starts import StartSampler
from dexcompose_envs.held_states import HeldStateLibrary
from dexcompose_envs.observations import (
    FIXTURE_CONTEXT,
    HAND_CONTEXT,
    JOINT_POSITION,
    OBJECT_CONTEXT,
    Array,
    Snapshot,
    Term,
    compute,
    layout_of,
)
from dexcompose_envs.physics import ContactOverflowError, make_engine
from dexcompose_envs.physics.mujoco_cpu import usable_cores
from dexcompose_envs.scene import build_scene
from dexcompose_envs.skills import make_interaction, make_retention


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
        backend: Physics engine, see `physics.make_engine`.
        device: Device of the engine.
        num_threads: CPU threads of the engine; None: all usable cores.
    """

    retention: str | None = None
    interaction: str | None = None
    start: str | None = None
    held_split: str = "all"
    held_states: HeldStateLibrary | str | Path | None = None
    terminate_on_success: bool = True
    base_shake: float | None = None
    backend: str = "mujoco"
    device: str | None = None
    num_threads: int | None = None


class BatchedCore:
    """N worlds of one environment.

    A world's randomness comes from its own generator on the host and is used at resets only, so an episode depends on
    its seed and actions alone, not on its neighbours. Arrays are of the engine's library: NumPy, or torch on a device.

    Attributes:
        arrays: Library and device of all arrays.
        layout: Observation key -> term -> columns.
    """

    def __init__(self, config: CoreConfig, num_worlds: int, max_episode_steps: int | None = None) -> None:
        """Builds scene and engine.

        Args:
            config: What environment this is.
            num_worlds: Number of worlds N.
            max_episode_steps: Control steps after which an episode is truncated; None: the task's default.

        Raises:
            ValueError: On an unknown skill, start, split or backend, or a non-positive number.
            BackendError: If the backend can't be used on this machine.
        """
        if config.retention is None and config.interaction is None:
            raise ValueError("an environment needs a retention skill, an interaction skill or both; got neither")
        self.config = config
        self.retention = None if config.retention is None else make_retention(config.retention)
        self.interaction = None if config.interaction is None else make_interaction(config.interaction)
        self.is_composite = self.retention is not None and self.interaction is not None
        self.base_shake = float(self.is_composite) if config.base_shake is None else config.base_shake
        if not 0.0 <= self.base_shake <= 5.0:
            raise ValueError(f"base_shake is {config.base_shake}; expected a scale between 0 and 5")
        self.default_steps = self._default_steps()
        self.max_episode_steps = self.default_steps if max_episode_steps is None else max_episode_steps
        if self.max_episode_steps < 1:
            raise ValueError(f"max_episode_steps is {max_episode_steps}; expected a positive number of control steps")

        self.scene = build_scene(config.retention, config.interaction)
        self.sampler = StartSampler(
            self.scene, self.retention, self.interaction, self.base_shake, config.held_split, config.held_states
        )
        self.start = config.start or ("held" if self.is_composite else "scratch")
        self.sampler.check(self.start)
        self.engine = make_engine(config.backend, self.scene, num_worlds, config.num_threads, config.device)
        self.arrays = self.engine.arrays
        self.num_worlds = n = num_worlds
        self.terms = self._collect_terms()
        self.layout = {key: layout_of(terms) for key, terms in self.terms.items()}

        self._firsts = FirstStates(self.scene, config.num_threads or usable_cores())
        self._rngs = [np.random.default_rng() for _ in range(n)]
        self._rows = self.arrays.of(np.tile(self._firsts.resting(), (n, 1)))
        self._restarts = Restarts(self.arrays, self._draw_rows, self._rngs, self._firsts.width)
        self._elapsed = self.arrays.zeros(n, dtype=self.arrays.xp.int64)
        # What an episode remembers besides time and physics, by `first_states.MEMORY_PARTS`.
        self._memory = {name: fresh(part) for name, part in self._firsts.parts(self._rows, MEMORY_PARTS).items()}
        self._low, self._high = self.arrays.of(hand.ACTION_LOW), self.arrays.of(hand.ACTION_HIGH)
        self._force_limit = self.arrays.of(hand.FORCE_LIMITS)
        self._one_hot = self.arrays.of(np.eye(len(phases.PHASES)))
        self.judge = Judge(
            self.retention, self.interaction, n, self.max_episode_steps, config.terminate_on_success, self.arrays
        )

    def _default_steps(self) -> int:
        if self.is_composite:
            return phases.COMPOSITE_STEPS
        task = self.retention or self.interaction
        assert task is not None
        return task.MAX_STEPS

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
        return self.sampler.library

    def _draw_rows(
        self, rngs: Sequence[np.random.Generator], start: str | None = None, held_index: Any = None
    ) -> NDArray[np.float64]:
        return self._firsts.rows(self.sampler.draw(rngs, start or self.start, held_index))

    def seed(self, worlds: NDArray[np.int64], seeds: Sequence[int | None]) -> None:
        """Gives some worlds (indices) new random generators; a None leaves the world's generator."""
        self._check_late(self._restarts.settle(worlds))
        for world, seed in zip(worlds, seeds, strict=True):
            if seed is not None:
                self._rngs[world] = np.random.default_rng(seed)

    def reset(
        self,
        worlds: NDArray[np.int64],
        seeds: Sequence[int | None] | None = None,
        start: str | None = None,
        held_index: NDArray[np.int64] | None = None,
    ) -> None:
        """Starts new episodes in some worlds.

        Args:
            worlds: Indices (M,) of the worlds.
            seeds: Seeds of their generators (M,); None, as a whole or for a world, leaves the generator as it is.
            start: "held" or "scratch"; None: the environment's own.
            held_index: Rows (M,) of the held-state library to start from; None: drawn at random.

        Raises:
            ValueError: On an unknown start.
            HeldStateError: If the held-state library is missing or doesn't fit this environment.
        """
        self.sampler.check(start or self.start)
        if len(worlds) == 0:
            return
        self.seed(worlds, seeds or [None] * len(worlds))
        rows = self._draw_rows([self._rngs[world] for world in worlds], start, held_index)
        self._rows[self.arrays.of(worlds, self.arrays.xp.int64)] = self.arrays.of(rows)
        self._begin(self.arrays.mask(worlds, self.num_worlds))

    def restart(self, worlds: Array) -> None:
        """Starts the next episodes in the worlds of a mask (N,), without reading it back if it lies on a GPU."""
        if self.arrays.device is None:
            self.reset(np.flatnonzero(worlds))
            return
        self._rows = choose(worlds, self._restarts.take(worlds), self._rows)
        self._begin(worlds)

    def _begin(self, worlds: Array) -> None:
        """Begins episodes in the worlds of a mask (N,) from their rows."""
        self.engine.write(worlds, self._firsts.parts(self._rows, PHYSICS_PARTS))
        for name, part in self._firsts.parts(self._rows, MEMORY_PARTS).items():
            self._memory[name] = choose(worlds, part, self._memory[name])
        self._elapsed = choose(worlds, self.arrays.xp.zeros_like(self._elapsed), self._elapsed)
        self.judge.reset(worlds)

    def prepare_restarts(self) -> None:
        """Sees to it that `restart` can be called in the step to come; raises errors found late.

        Raises:
            ValueError: If an action of an earlier step was not finite.
            ContactOverflowError: If the engine dropped contacts in an earlier step.
        """
        if self.arrays.device is not None:
            self._check_late(self._restarts.catch_up())

    def step(self, actions: Any) -> Step:
        """Advances all worlds by one control step.

        Args:
            actions: Normalised position targets (N, 28), in [-1, 1]; values beyond are clipped.

        Raises:
            ValueError: On a wrong shape or a value that is not finite. On a GPU the latter comes to light a step late;
                until then the world repeats its last action.
            ContactOverflowError: If the engine dropped contacts; on a GPU a step late.
        """
        xp = self.arrays.xp
        actions = checked_actions(actions, self.num_worlds, self.arrays)
        actions, spoilt = finite_actions(actions, self._memory["previous_action"], self.arrays)
        targets = self._low + 0.5 * (actions + 1.0) * (self._high - self._low)
        wrist, fingers = targets[:, : hand.NUM_WRIST], targets[:, hand.NUM_WRIST :]
        wrist = wrist + base_shake.offset(self._memory["shake"], self._elapsed)
        targets = xp.concat([wrist, fingers], axis=-1)
        diverged = self.engine.step(xp.minimum(xp.maximum(targets, self._low), self._high))
        self._elapsed = self._elapsed + 1
        self._memory["previous_action"] = actions
        if self.arrays.device is not None or diverged.any():
            # A diverged world holds no usable state; its episode's first state stands in for its last.
            self.engine.write(diverged, self._firsts.parts(self._rows, PHYSICS_PARTS))
        result = self.judge.judge(self.snapshot(), self._elapsed, self._is_held_start, diverged)
        if self.arrays.device is not None:
            self._check_late(self._restarts.report(spoilt, self.engine.problem()))
        return result

    def _check_late(self, reports: Sequence[tuple[NDArray[np.bool_], NDArray[np.int64]]]) -> None:
        """Raises what the device has reported since the last call."""
        for spoilt, problem in reports:
            if spoilt.any():
                world = int(np.flatnonzero(spoilt)[0])
                raise ValueError(f"an action of world {world} was not finite; expected finite numbers")
            if problem.any():
                world = int(np.flatnonzero(problem)[0])
                raise ContactOverflowError(f"world {world}: {self.engine.explain(int(problem[world]))}")

    @property
    def _is_held_start(self) -> Array:
        """Whether the present episodes began with the object in hand (N,) bool."""
        return self._memory["is_held_start"][:, 0] > 0.5

    def _sensors(self) -> dict[str, Array]:
        data = self.engine.sensordata
        return {group: data[:, columns] for group, columns in self.scene.sensors.items()}

    def snapshot(self) -> Snapshot:
        """What terms and tasks may look at now; views, valid until the next step."""
        return Snapshot(
            sensors=self._sensors(),
            previous_action=self._memory["previous_action"],
            reference=self._memory["reference"],
            hold_target=self._memory["hold_target"],
            phase=self._one_hot[self.judge.phase(self._elapsed)],
            joint_low=self._low,
            joint_span=self._high - self._low,
            force_limit=self._force_limit,
        )

    def observe(self) -> dict[str, Array]:
        """Observations of all worlds: key -> (N, size) float32, fresh."""
        snapshot, xp = self.snapshot(), self.arrays.xp
        return {key: xp.astype(compute(terms, snapshot), xp.float32) for key, terms in self.terms.items()}

    def initial_info(self) -> dict[str, Array]:
        """The info of a reset: the same keys as a step's, for episodes that have just begun."""
        return self.judge.initial_info(self._elapsed, self._is_held_start)

    def _remembered(self) -> list[Array]:
        """Everything but physics that an episode carries, each (N, ...)."""
        memory = [self._memory[name] for name in MEMORY_PARTS]
        return [self._elapsed, *memory, *self.judge.memory(), self.engine.sensordata]

    def get_state(self) -> Array:
        """Full state (N, S) in the float type of the arrays; `set_state` of it continues bit by bit the same."""
        xp, n = self.arrays.xp, self.num_worlds
        columns = [xp.astype(xp.reshape(part, (n, -1)), self.arrays.float) for part in self._remembered()]
        return xp.concat([self.engine.get_state(), *columns], axis=1)

    def set_state(self, state: Any, worlds: NDArray[np.int64]) -> None:
        """Sets the full state (M, S) of some worlds (indices (M,)).

        Raises:
            ValueError: On a wrong shape or values that are not finite.
        """
        xp = self.arrays.xp
        size = self.engine.state_size + sum(int(np.prod(part.shape[1:])) for part in self._remembered())
        if tuple(state.shape) != (len(worlds), size):
            raise ValueError(f"state has shape {tuple(state.shape)}; expected {(len(worlds), size)}")
        state = self.arrays.of(state)
        if not xp.isfinite(state).all():
            raise ValueError("state has values that are not finite")
        index = self.arrays.of(worlds, xp.int64)
        self.engine.set_state(state[:, : self.engine.state_size], index)
        start = self.engine.state_size
        for part in self._remembered():
            width = int(np.prod(part.shape[1:]))
            values = xp.reshape(state[:, start : start + width], (len(worlds), *part.shape[1:]))
            part[index] = xp.astype(values, part.dtype)
            start += width

    def held_columns(self) -> dict[str, NDArray[np.float64]]:
        """The present states as columns of a held-state library, all but `reference` and `hold_target` (N, k)."""
        forces = 10 * to_numpy(self.observe()["context"])[:, self.layout["context"]["finger_contact"]]
        states = [to_numpy(fresh(part)).astype(np.float64) for part in (self.engine.qpos(), self.engine.qvel())]
        return {
            **self.sampler.held_columns(*states),
            "control": hand.denormalize(to_numpy(self._memory["previous_action"])),
            "contact": forces.astype(np.float64),
        }

    def close(self) -> None:
        """Releases the engine."""
        self.engine.close()
