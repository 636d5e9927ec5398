"""The CPU environment against gymnasium-robotics' in-hand manipulation, the field's usual Shadow Hand environment.

Both run as many worlds in as many ways as they offer: theirs in `AsyncVectorEnv`, one process per world; ours in its
own vector environment, on threads. Each holds its object under noise (theirs around the neutral command, the block
lying in the palm), in turns on one machine, best turn counts; turns are shorter than an episode, so that neither
resets. A control step of theirs is 20 physics steps of 2 ms, of ours 8 of 5 ms, 40 ms both. A physics step of one costs
something else than a physics step of the other, for contacts, friction cone and solver; what an environment adds to its
own physics is `share_of_bare`: its physics steps per second and core, over those of a bare `mj_step` loop on one world
of the same model, from the same first state under the same controls.

**gymnasium-robotics 1.4.2 doesn't run on MuJoCo 3.17**: its helpers assert `joint_type in (mjJNT_HINGE, mjJNT_SLIDE)`
with a NumPy integer on the left, which MuJoCo's enumerations no longer equal; making any of its hand environments
raises `AssertionError`. Where that is so, the helpers are given plain integers for these names.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.vector import AsyncVectorEnv
from numpy.typing import NDArray
from rich.table import Table
from throughput_common import (
    CALM_NOISE,
    PAIR,
    ROUGH_NOISE,
    ControlName,
    best_seconds,
    held_states,
    make_table,
    noise_scale,
    now,
)

from dexcompose_envs import env_id, hand
from dexcompose_envs.held_states import HeldStateLibrary
from dexcompose_envs.physics.workers import usable_cores
from dexcompose_envs.timing import PHYSICS_STEPS_PER_CONTROL_STEP


@dataclass(frozen=True)
class RoboticsConfig:
    """Native MuJoCo: our vector environment against gymnasium-robotics' hand."""

    theirs: tuple[str, ...] = ("HandManipulateBlock-v1", "HandManipulateBlockRotateXYZ_ContinuousTouchSensors-v1")
    """Ids of gymnasium-robotics."""
    pair: str = PAIR
    """Our pair of skills."""
    worlds: tuple[int, ...] = ()
    """Numbers of worlds; default: as many as usable cores, and twice as many."""
    controls: tuple[ControlName, ...] = ("calm", "rough")
    """Noise on the commands."""
    steps: int = 80
    """Control steps per world and turn, below the 100 of their episodes."""
    turns: int = 5
    """Turns of each contestant; the best counts."""
    out: Path | None = None
    """JSON file to write."""


def comparisons_fail() -> bool:
    """Whether MuJoCo's enumerations don't equal NumPy integers, on which gymnasium-robotics relies."""
    return np.int32(mujoco.mjtJoint.mjJNT_HINGE) not in (mujoco.mjtJoint.mjJNT_HINGE,)


def make_theirs(name: str) -> gym.Env[Any, Any]:
    """One environment of gymnasium-robotics, made to run on this MuJoCo."""
    import gymnasium_robotics
    from gymnasium_robotics.utils import mujoco_utils

    gym.register_envs(gymnasium_robotics)
    if comparisons_fail():
        repaired = types.ModuleType("mujoco")
        numbers = {kind: int(value) for kind, value in mujoco.mjtJoint.__members__.items()}
        vars(repaired).update(vars(mujoco) | {"mjtJoint": types.SimpleNamespace(**numbers)})
        mujoco_utils.mujoco = repaired
    return gym.make(name)


class Bare:
    """One world of a model, stepped by `mj_step` alone on one thread.

    Args:
        model: The model.
        first: The state to start from.
        controls: Controls (T, nu).
        physics_steps: Physics steps per control step.
    """

    def __init__(self, model: Any, first: Any, controls: NDArray[np.float64], physics_steps: int) -> None:
        self._model, self._first, self._controls = model, copy.copy(first), controls
        self._physics_steps = physics_steps

    def turn(self) -> NDArray[np.float64]:
        """Seconds of all control steps of a turn."""
        model, data = self._model, copy.copy(self._first)
        start = now()
        for control in self._controls:
            data.ctrl[:] = control
            mujoco.mj_step(model, data, self._physics_steps)
        return now() - start

    def facts(self) -> dict[str, Any]:
        """Size of the problem; contacts and constraint rows are means over the turn."""
        model, data, seen = self._model, copy.copy(self._first), []
        for control in self._controls:
            data.ctrl[:] = control
            mujoco.mj_step(model, data, self._physics_steps)
            seen.append((data.ncon, data.nefc))
        contacts, rows = np.mean(seen, axis=0).tolist()
        cone = mujoco.mjtCone(model.opt.cone).name.removeprefix("mjCONE_").lower()
        sizes = {"physics_steps": self._physics_steps, "dt": model.opt.timestep, "nv": model.nv}
        return {**sizes, "contacts": contacts, "rows": rows, "cone": cone}


class Contestant:
    """A vector environment with its actions, and its own model's bare loop."""

    _venv: Any
    _actions: NDArray[np.float32]
    bare: Bare

    def turn(self) -> NDArray[np.float64]:
        """Seconds of all control steps of a turn."""
        self._venv.reset(seed=0)
        start = now()
        for action in self._actions:
            self._venv.step(action)
        return now() - start

    def close(self) -> None:
        """Ends processes or threads."""
        self._venv.close()


class Theirs(Contestant):
    """Worlds of gymnasium-robotics, one process each."""

    def __init__(self, name: str, num_worlds: int, control: ControlName, steps: int) -> None:
        """Builds them, and one world in this process to look into."""
        single: Any = make_theirs(name)
        model = single.unwrapped.model
        low, high = model.actuator_ctrlrange.T
        half_range = (high - low) / 2
        scale = CALM_NOISE if control == "calm" else ROUGH_NOISE / half_range
        size = (steps, num_worlds, len(half_range))
        noise = scale * np.random.default_rng(0).normal(size=size)
        self._actions = np.clip(noise, -1.0, 1.0).astype(np.float32)
        self._venv = AsyncVectorEnv([partial(make_theirs, name)] * num_worlds)
        single.reset(seed=0)
        controls = (low + high) / 2 + self._actions[:, 0] * half_range
        self.bare = Bare(model, single.unwrapped.data, controls, single.unwrapped.n_substeps)
        single.close()


class Ours(Contestant):
    """Worlds of this package, on threads."""

    def __init__(self, pair: str, num_worlds: int, control: ControlName, steps: int, library: HeldStateLibrary) -> None:
        """Builds them."""
        options: dict[str, Any] = {"start": "held", "held_states": library, "base_shake": 0.0}
        self._venv: Any = gym.make_vec(env_id(pair), num_envs=num_worlds, **options)
        obs, _ = self._venv.reset(seed=0)
        command = obs["context"][:, self._venv.unwrapped.layout["context"]["previous_action"]]
        noise = noise_scale(control) * np.random.default_rng(0).normal(size=(steps, *command.shape))
        self._actions = np.clip(command + noise, -1.0, 1.0).astype(np.float32)
        env = self._venv.unwrapped
        first = mujoco.MjData(env.scene.model)
        env.load_into(first, 0)
        controls = hand.denormalize(self._actions[:, 0])
        self.bare = Bare(env.scene.model, first, controls, PHYSICS_STEPS_PER_CONTROL_STEP)


def measure(config: RoboticsConfig) -> Iterator[dict[str, Any]]:
    """One row per number of worlds, control and environment."""
    library = held_states(config.pair.split("-")[0])
    for num_worlds in config.worlds or (usable_cores(), 2 * usable_cores()):
        for control in config.controls:
            size = (num_worlds, control, config.steps)
            # Theirs first: processes are forked before there are threads.
            contestants: dict[str, Contestant] = {name: Theirs(name, *size) for name in config.theirs}
            contestants[env_id(config.pair)] = Ours(config.pair, *size, library)
            runs: dict[str, Callable[[], NDArray[np.float64]]] = {}
            for name, one in contestants.items():
                runs |= {name: one.turn, f"bare {name}": one.bare.turn}
            seconds = {name: float(least[0]) for name, least in best_seconds(runs, config.turns).items()}
            for name, one in contestants.items():
                one.close()
                facts = one.bare.facts()
                speed, bare = num_worlds * config.steps / seconds[name], config.steps / seconds[f"bare {name}"]
                row = {"num_worlds": num_worlds, "control": control, "env": name, "steps_per_s": speed}
                row |= {"physics_steps_per_s": speed * facts["physics_steps"]}
                row |= {"share_of_bare": speed / bare / min(num_worlds, usable_cores()), **facts}
                yield row | {"repaired": name in config.theirs and comparisons_fail()}


def table(config: RoboticsConfig, rows: list[dict[str, Any]]) -> Table:
    """The rows for the terminal."""
    names = [name for name in rows[0] if name != "repaired"]
    title = "steps_per_s: control steps; physics_steps: per control step; contacts, rows: means per world"
    if any(row["repaired"] for row in rows):
        title += "\ngymnasium-robotics fails on this MuJoCo by itself and was repaired, see this mode's docstring"
    return make_table(title, names, [[row[name] for name in names] for row in rows])
