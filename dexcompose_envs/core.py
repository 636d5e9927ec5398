"""The batched environment: reset, step and observe N worlds at once. Gymnasium's two faces are built on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.actions import checked_actions, finite_actions
from dexcompose_envs.arrays import choose, fresh, to_numpy
from dexcompose_envs.checks import whole_number
from dexcompose_envs.episodes import base_shake, phases
from dexcompose_envs.episodes.hand_over import HandOver
from dexcompose_envs.episodes.hidden_physics import LIMITS
from dexcompose_envs.episodes.judge import Judge, Step, longest_episode
from dexcompose_envs.episodes.restarts import Reports, Restarts
from dexcompose_envs.episodes.rows import MEMORY_PARTS, PHYSICS_PARTS, FirstStates
from dexcompose_envs.episodes.sensor_noise import SensorNoise
from dexcompose_envs.episodes.starts import StartSampler
from dexcompose_envs.errors import UsageError
from dexcompose_envs.observations import Array, Snapshot, compute
from dexcompose_envs.options import CoreConfig
from dexcompose_envs.physics import ContactOverflowError, Engine, make_engine
from dexcompose_envs.physics.workers import usable_cores
from dexcompose_envs.scene import build_scene
from dexcompose_envs.states import StateTag


class BatchedCore:
    """N worlds of one environment.

    A world's randomness comes from its own generator on the host and is used at resets only, so an episode depends on
    its seed and actions alone, not on its neighbours. Arrays are of the engine's library: NumPy, or torch on a device.

    Attributes:
        chain: The skills.
        arrays: Library and device of all arrays.
        layout: Observation key -> term -> columns.
    """

    def __init__(self, config: CoreConfig, num_worlds: int, engine: Engine | None = None) -> None:
        """Builds scene and engine.

        Args:
            config: The options.
            num_worlds: Number of worlds N.
            engine: An engine of the config's scene and N worlds that somebody else steps; None makes one.

        Raises:
            UsageError: On an unknown skill, start, split or backend, or a number that is none.
            BackendError: If the backend can't be used on this machine.
        """
        self.num_worlds = n = whole_number("num_envs", num_worlds)
        self.config, self.chain = config, config.chain()
        self.start = config.start_of(self.chain)
        self.scene = build_scene(config.retention, *config.interactions)
        self.sampler = StartSampler(
            self.scene, config.shake_of(self.chain), config.hidden_physics_of(self.chain), config.held_split,
            config.held_states,
        )  # fmt: skip
        self.sampler.check(self.start)
        self.engine = engine or make_engine(config.backend, self.scene, n, config.num_threads, config.device)
        self.arrays = self.engine.arrays
        self._terms, self.layout = self.chain.terms, self.chain.layout

        self._firsts = FirstStates(self.scene, config.num_threads or usable_cores())
        self._rngs = [np.random.default_rng() for _ in range(n)]
        self._rows = self.arrays.of(np.tile(self._firsts.resting(), (n, 1)))
        self._restarts = Restarts(self.arrays, self._draw_rows, self._rngs, self._firsts.width)
        self._elapsed = self.arrays.zeros(n, dtype=self.arrays.xp.int64)
        # What an episode remembers besides time and physics, by `rows.MEMORY_PARTS`.
        self._memory = {name: fresh(part) for name, part in self._firsts.parts(self._rows, MEMORY_PARTS).items()}
        self._low, self._high = self.arrays.of(hand.ACTION_LOW), self.arrays.of(hand.ACTION_HIGH)
        self._force_limit = self.arrays.of(hand.FORCE_LIMITS)
        self._one_hot = self.arrays.of(np.eye(len(phases.PHASES)))
        self._nowhere = self.arrays.zeros(hand.NUM_ACTIONS)
        self._offsets = {
            place: self.arrays.of(offset)
            for place, offset in zip(self.chain.interaction_places, self.chain.offsets, strict=True)
        }
        longest = config.max_episode_steps or longest_episode(self.chain)
        self._hand_over = HandOver(self.chain, n, self.arrays)
        self.judge = Judge(self.chain, n, longest, config.terminate_on_success, self.arrays)
        self._acting = self._before = self._memory["previous_action"]
        self._spoilt = self.arrays.zeros(n, dtype=self.arrays.xp.bool)
        self._noise = SensorNoise(config.sensor_noise, self.arrays)
        self._tag = StateTag(f"{self.chain.name} {self.scene.model_hash}", self.arrays)

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

    @np.errstate(under="ignore")
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
        """
        self.sampler.check(start or self.start, held_index)
        if held_index is not None:
            self.sampler.library.take(held_index)  # refuses bad rows before generators are seeded
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
        self._hand_over.reset(worlds)
        self.judge.reset(worlds, self.snapshot())

    def prepare_restarts(self) -> None:
        """Sees to it that `restart` can be called in the step to come; raises what earlier steps found late."""
        if self.arrays.device is not None:
            self._check_late(self._restarts.catch_up())

    def step(self, actions: Any) -> Step:
        """Advances all worlds by one control step.

        Args:
            actions: Normalised position targets (N, 28), in [-1, 1]; values beyond are clipped.

        Raises:
            UsageError: On a wrong shape or a value that is not finite. On a GPU the latter comes to light a step late;
                until then the world repeats its last action.
            ContactOverflowError: If the engine dropped contacts; on a GPU a step late.
        """
        targets = self.begin(actions)
        return self.finish(self.engine.step(targets))

    @np.errstate(under="ignore")  # tiny numbers are no error, whatever the caller thinks of them elsewhere
    def begin(self, actions: Any) -> Array:
        """The first half of a step: position targets (N, 28) of normalised actions, m and rad, as the wrist trembles.

        Whoever steps the engine in a loop of their own calls `finish` with what it says.
        """
        xp = self.arrays.xp
        actions = checked_actions(actions, self.num_worlds, self.arrays)
        actions, self._spoilt = finite_actions(actions, self._memory["previous_action"], self.arrays)
        targets = self._low + 0.5 * (actions + 1.0) * (self._high - self._low)
        wrist, fingers = targets[:, : hand.NUM_WRIST], targets[:, hand.NUM_WRIST :]
        wrist = wrist + self.wrist_shake()
        targets = xp.concat([wrist, fingers], axis=-1)
        self._before, self._acting = self._memory["previous_action"], actions
        return xp.minimum(xp.maximum(targets, self._low), self._high)

    @np.errstate(under="ignore")
    def finish(self, diverged: Array) -> Step:
        """The second half: judges the control step that the engine has made; `diverged` (N,) is what its step gave."""
        self._elapsed = self._elapsed + 1
        self._memory["previous_action"] = self._acting
        if self.arrays.device is not None or diverged.any():
            # A diverged world holds no usable state; its episode's first state stands in for its last.
            self.engine.write(diverged, self._firsts.parts(self._rows, PHYSICS_PARTS))
        result = self._judge(diverged)
        self._begin_holds(self._before, result, diverged)
        if self.arrays.device is not None:
            self._check_late(self._restarts.report(self._spoilt, self.engine.problem()))
        return result

    def _judge(self, diverged: Array) -> Step:
        """Judges the control step just made."""
        held = self._is_held
        late, clock = self._hand_over.is_late(self._elapsed, held), self._clock
        result = self.judge.judge(self.snapshot(), clock, held, diverged, late)
        result.info["elapsed_steps"] = fresh(self._elapsed)
        if self.judge.max_episode_steps < longest_episode(self.chain):  # somebody wants it short, grasping included
            cut = ~held & (self._elapsed >= self.judge.max_episode_steps) & ~result.terminated
            result.truncated = result.truncated | cut
        return result

    def _begin_holds(self, before: Array, result: Step, diverged: Array) -> None:
        """Hands episodes over to the composite whose object has come to be held; `before` (N, 28) acted a step ago."""
        if not self.chain.is_composite or (self.arrays.device is None and self._is_held.all()):
            return
        xp, actions, snapshot = self.arrays.xp, self._memory["previous_action"], self.snapshot()
        done = xp.any(xp.stack([result.info[f"{key}_done"] for key in self.chain.task_keys]), axis=0)
        ready = self._hand_over.watch(
            before, actions, self._elapsed, self._is_held, self.judge.streak,
            self.judge.in_hand(snapshot)[0] & ~done & ~diverged,
        )  # fmt: skip
        if self.arrays.device is None and not ready.any():
            return
        memory = self._memory
        now = {
            "reference": actions[:, hand.NUM_WRIST :],
            "hold_target": snapshot.sensors["object_position"],
            "is_held_start": xp.ones_like(memory["is_held_start"]),
        }
        for name, value in now.items():
            memory[name] = choose(ready, value, memory[name])
        self.judge.reset(ready, self.snapshot())
        result.info["object_turn"] = xp.where(ready, 0.0, result.info["object_turn"])

    def wrist_shake(self) -> Array:
        """By how much the next step's wrist targets will be off (N, 6), m and rad."""
        return base_shake.offset(self._memory["shake"], self._elapsed)

    def _check_late(self, reports: Reports) -> None:
        """Raises what the device has reported since the last call."""
        for spoilt, problem in reports:
            if spoilt.any():
                world = int(np.flatnonzero(spoilt)[0])
                raise UsageError(f"an action of world {world} was not finite; expected finite numbers")
            if problem.any():
                world = int(np.flatnonzero(problem)[0])
                raise ContactOverflowError(f"world {world}: {self.engine.explain(int(problem[world]))}")

    @property
    def _is_held(self) -> Array:
        """Whether the object of the present episodes counts as held, from the start or a hand-over on (N,) bool."""
        return self._memory["is_held_start"][:, 0] > 0.5

    @property
    def _clock(self) -> Array:
        """Control steps (N,) that count for phases and limits."""
        return self._hand_over.clock(self._elapsed, self._is_held)

    def snapshot(self) -> Snapshot:
        """What terms and tasks may look at now; views, valid until the next step."""
        data = self.engine.sensordata
        return Snapshot(
            sensors={group: data[:, columns] for group, columns in self.scene.sensors.items()},
            previous_action=self._memory["previous_action"],
            reference=self._memory["reference"],
            hold_target=self._memory["hold_target"],
            phase=self._one_hot[self.judge.phase(self._clock)],
            joint_low=self._low,
            joint_span=self._high - self._low,
            force_limit=self._force_limit,
            place="a",
            offset=self._nowhere,
            stage=self.judge.stage,
        )

    @np.errstate(under="ignore")
    def observe(self) -> dict[str, Array]:
        """Observations of all worlds: key -> (N, size) float32, fresh."""
        snapshot, xp = self.snapshot(), self.arrays.xp
        if self.config.sensor_noise > 0:
            snapshot = self._noise.add(snapshot, self._memory["noise"], self._elapsed)
        views = {place: replace(snapshot, place=place) for place in self.chain.skills}
        views |= {place: snapshot.at(place, offset) for place, offset in self._offsets.items()}
        return {key: xp.astype(compute(terms, views), xp.float32) for key, terms in self._terms.items()}

    @np.errstate(under="ignore")
    def initial_info(self) -> dict[str, Array]:
        """The info of a reset: the same keys as a step's, for episodes that have just begun."""
        return self.judge.initial_info(self._elapsed, self._is_held, self.snapshot())

    def _remembered(self) -> list[Array]:
        """Everything but physics that an episode carries, each (N, ...)."""
        memory = [self._memory[name] for name in MEMORY_PARTS]
        return [self._elapsed, *memory, *self._hand_over.memory(), *self.judge.memory(), self.engine.sensordata]

    def get_state(self) -> Array:
        """Full state (N, S) in the float type of the arrays; `set_state` of it continues bit by bit the same."""
        xp, n = self.arrays.xp, self.num_worlds
        columns = [xp.astype(xp.reshape(part, (n, -1)), self.arrays.float) for part in self._remembered()]
        return xp.concat([self._tag.columns(n), self.engine.get_state(), *columns], axis=1)

    def set_state(self, state: Any, worlds: NDArray[np.int64]) -> None:
        """Sets the full state (M, S) of some worlds (indices (M,)).

        Raises:
            UsageError: On a state of another environment, a wrong shape, or numbers that are no state; nothing is
                changed then.
        """
        before = self.get_state()
        state = self._tag.checked(state, (len(worlds), before.shape[1]))
        index = self.arrays.of(worlds, self.arrays.xp.int64)
        self._put(state, index)
        if not self._is_sound(state, index):
            self._put(before[index], index)
            raise UsageError("state holds numbers that no state of this environment has; expected one from get_state")

    def _is_sound(self, state: Array, index: Array) -> bool:
        """Whether the states of some worlds are what was put there, make sense, and can be observed."""
        xp, actions = self.arrays.xp, self._memory["previous_action"][index]
        flags = [xp.isfinite(value[index]) for value in self.observe().values()]
        # Held states are float32, whose targets may be rounded beyond their range.
        within = xp.abs(actions) <= 1.0 + 1e-6
        hidden = self.engine.constants.sound(self.engine.hidden()[index], LIMITS["mass"], LIMITS["friction"])
        remembered = self.judge.sound(self._elapsed) & self._hand_over.sound(self._elapsed)
        flags += [hidden, remembered[index], within, self.get_state()[index] == state]
        return all(bool(flag.all()) for flag in flags)

    def _put(self, state: Array, index: Array) -> None:
        xp, start = self.arrays.xp, self._tag.width + self.engine.state_size
        self.engine.set_state(state[:, self._tag.width : start], index)
        for part in self._remembered():
            width = int(np.prod(part.shape[1:]))
            values = xp.reshape(state[:, start : start + width], (len(index), *part.shape[1:]))
            part[index] = xp.astype(values, part.dtype)
            start += width

    def freeze(self) -> dict[str, Any]:
        """All that a copy of this core needs to go on in the same way, in NumPy: states, generators, first states."""
        self._check_late(self._restarts.settle(np.arange(self.num_worlds)))
        return {
            "state": to_numpy(self.get_state()),
            "rows": to_numpy(self._rows),
            "generators": [rng.bit_generator.state for rng in self._rngs],
        }

    def thaw(self, frozen: dict[str, Any]) -> None:
        """Goes on from what `freeze` gave."""
        worlds = np.arange(self.num_worlds)
        self._restarts.settle(worlds)
        for rng, state in zip(self._rngs, frozen["generators"], strict=True):
            rng.bit_generator.state = state
        self._rows = self.arrays.of(frozen["rows"])
        self._put(self.arrays.of(frozen["state"]), self.arrays.of(worlds, self.arrays.xp.int64))

    def hidden_physics(self) -> NDArray[np.float64]:
        """Factor on the object's nominal mass (1 without one) and friction of hand and object, (N, 2)."""
        constants = self.engine.constants
        hidden, nominal = to_numpy(self.engine.hidden()).astype(np.float64), constants.nominal()[None]
        mass = constants.mass(hidden) / constants.mass(nominal) if self.chain.retention else np.ones(self.num_worlds)
        return np.stack([mass, constants.friction(hidden)], axis=1)

    def held_columns(self) -> dict[str, NDArray[np.float64]]:
        """The present states as columns of a held-state library, all but `reference` and `hold_target` (N, k)."""
        forces = 10 * to_numpy(self.observe()["context"])[:, self.layout["context"]["finger_contact"]]
        states = [to_numpy(fresh(part)).astype(np.float64) for part in (self.engine.qpos(), self.engine.qvel())]
        return {
            **self.sampler.held_columns(*states),
            "control": hand.denormalize(to_numpy(self._memory["previous_action"])),
            "physics": self.hidden_physics(),
            "contact": forces.astype(np.float64),
        }

    def close(self) -> None:
        """Releases the engine and all threads."""
        self.engine.close()
        self._firsts.close()
