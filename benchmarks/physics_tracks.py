"""Held objects in bare native MuJoCo: the same states and actions, whatever the physics steps of a model."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from gauges_common import HeldContacts, nominal_worlds
from numpy.typing import NDArray
from throughput_common import held_states

from dexcompose_envs import hand
from dexcompose_envs.episodes import base_shake
from dexcompose_envs.scene.sensors import OBJECT
from dexcompose_envs.timing import CONTROL_STEP

Array = NDArray[np.float64]
_SPEC = int(mujoco.mjtState.mjSTATE_INTEGRATION)
_NO_SENSORS = int(mujoco.mjtDisableBit.mjDSBL_SENSOR)


@dataclass(frozen=True, eq=False)
class Starts:
    """N held states: full states of MuJoCo (N, S), and the commands that hold (N, 28), m and rad."""

    states: Array
    commands: Array

    @classmethod
    def of(cls, skill: str, count: int, model: mujoco.MjModel) -> Starts:
        """The first held states of the test split, again from its beginning if there are too few."""
        library = held_states(skill)
        rows = np.resize(library.indices("test"), count)
        held = library.take(rows)
        commands = np.concatenate([held["control"][:, : hand.NUM_WRIST], held["reference"]], axis=1)
        venv = nominal_worlds(skill, count, start="held", held_states=library)
        venv.reset(seed=0, options={"held_index": rows})
        states, data = np.zeros((count, mujoco.mj_stateSize(model, _SPEC))), mujoco.MjData(model)
        for world, state in enumerate(states):
            venv.unwrapped.load_into(data, world)
            mujoco.mj_getState(model, data, state, _SPEC)
        venv.close()
        return cls(states, np.clip(commands, hand.ACTION_LOW, hand.ACTION_HIGH))

    def quiet(self, steps: int) -> Array:
        """Targets (T, N, 28), m and rad, that hold still."""
        return np.tile(self.commands, (steps, 1, 1))

    def trembling(self, steps: int) -> Array:
        """Targets (T, N, 28), m and rad, while the wrist trembles as in a composite; world i draws from seed i."""
        shake = np.stack([base_shake.sample(np.random.default_rng(world), 1.0) for world in range(len(self.commands))])
        targets = self.quiet(steps)
        for step in range(steps):
            targets[step, :, : hand.NUM_WRIST] += base_shake.offset(shake, np.full(len(shake), step))
        return np.clip(targets, hand.ACTION_LOW, hand.ACTION_HIGH)


@dataclass(frozen=True, eq=False)
class Track:
    """What N worlds did over T control steps.

    Attributes:
        position: Object in the palm frame (T + 1, N, 3), m.
        depth: Penetration (K,) of every contact between hand and object in every physics step, m.
        contacts: Mean number of contacts of a physics step, of all kinds.
        iterations: Mean number of the solver's iterations in a physics step.
    """

    position: Array
    depth: Array
    contacts: float
    iterations: float

    def moved(self) -> Array:
        """How far each object (N,) is at the end from where it was at first, m."""
        return np.asarray(np.linalg.norm(self.position[-1] - self.position[0], axis=1))

    def jump(self) -> float:
        """Largest displacement of an object in one control step, m."""
        return float(np.linalg.norm(np.diff(self.position, axis=0), axis=2).max())


class Bare:
    """One model and its data; worlds come one after another."""

    def __init__(self, model: mujoco.MjModel, sensors_in_each_step: bool = False) -> None:
        """Sensors belong to the last physics step of a control step, or to each.

        Raises:
            ValueError: If a control step is no whole number of physics steps.
        """
        self.model, self.data = model, mujoco.MjData(model)
        self.substeps = round(CONTROL_STEP / model.opt.timestep)
        if abs(self.substeps * model.opt.timestep - CONTROL_STEP) > 1e-9:
            raise ValueError(f"physics step of {model.opt.timestep} s; expected a whole part of {CONTROL_STEP} s")
        self._first, self._contacts = model, HeldContacts(model)
        if not sensors_in_each_step:
            self._first = copy.copy(model)
            self._first.opt.disableflags |= _NO_SENSORS

    def load(self, state: Array) -> None:
        """Begins from a full state (S,)."""
        mujoco.mj_resetData(self.model, self.data)
        mujoco.mj_setState(self.model, self.data, state, _SPEC)

    def step(self, target: Array) -> None:
        """One control step towards targets (28,), as fast as it goes."""
        self.data.ctrl[:] = target
        mujoco.mj_step(self._first, self.data, self.substeps - 1)
        mujoco.mj_step(self.model, self.data)

    def position(self) -> Array:
        """Object in the palm frame now (3,), m."""
        mujoco.mj_kinematics(self.model, self.data)
        palm = self.data.site("palm_center")
        return np.asarray((self.data.body(OBJECT).xpos - palm.xpos) @ palm.xmat.reshape(3, 3))

    def settle(self, starts: Starts, steps: int) -> Array:
        """Full states (N, S) after so many quiet control steps."""
        states = np.zeros_like(starts.states)
        for world, state in enumerate(states):
            self.load(starts.states[world])
            for _ in range(steps):
                self.step(starts.commands[world])
            mujoco.mj_getState(self.model, self.data, state, _SPEC)
        return states

    def run(self, states: Array, targets: Array, looks: bool = True) -> Track:
        """Follows targets (T, N, 28) from full states (N, S).

        Args:
            states: Where worlds begin.
            targets: Targets, m and rad.
            looks: Whether to look at contacts and iterations, in every physics step.
        """
        position = np.zeros((len(targets) + 1, len(states), 3))
        depth: list[Array] = [np.zeros(0)]
        counts: list[tuple[int, int]] = []
        for world, state in enumerate(states):
            self.load(state)
            position[0, world] = self.position()
            for step, target in enumerate(targets[:, world]):
                if not looks:
                    self.step(target)
                for _ in range(self.substeps if looks else 0):
                    self.data.ctrl[:] = target
                    mujoco.mj_step(self.model, self.data)
                    depth.append(self._contacts.depths(self.data))
                    counts.append((self.data.ncon, int(np.max(self.data.solver_niter[: max(1, self.data.nisland)]))))
                position[step + 1, world] = self.position()
        contacts, iterations = np.mean(counts, axis=0) if counts else (0.0, 0.0)
        return Track(position, np.concatenate(depth), float(contacts), float(iterations))


def cpu_seconds(bares: Mapping[str, Bare], states: Mapping[str, Array], targets: Array) -> dict[str, float]:
    """CPU seconds of this thread per control step; the contestants take turns, world by world."""
    spent = dict.fromkeys(bares, 0.0)
    names: Sequence[str] = tuple(bares)
    for world in range(targets.shape[1]):
        first = world % len(names)
        for name in (*names[first:], *names[:first]):
            bare = bares[name]
            bare.load(states[name][world])
            begun = time.thread_time()
            for target in targets[:, world]:
                bare.step(target)
            spent[name] += time.thread_time() - begun
    return {name: seconds / targets[..., 0].size for name, seconds in spent.items()}
