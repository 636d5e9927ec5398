"""Native MuJoCo: the vector environment against a bare loop.

Both run the same model (nominal mass and friction) from the same held states with the same controls (the reference
command plus small noise, the wrist not shaken), in turns in one process, and the best turn of each counts. The bare
loop is the least that anyone could write: one `MjData` per world, `ctrl` set, `mj_step` for a control step, sensors
only in its last physics step, on one thread. The environment does the same plus state bookkeeping, observations,
infos, judgement and autoreset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from throughput_common import PAIR, best_seconds, held_states, make_table, noise_scale, now

from dexcompose_envs import env_id, hand
from dexcompose_envs.held_states import HeldStateLibrary
from dexcompose_envs.physics.workers import usable_cores
from dexcompose_envs.timing import PHYSICS_STEPS_PER_CONTROL_STEP


@dataclass(frozen=True)
class CpuConfig:
    """Native MuJoCo: the vector environment against bare `mj_step`."""

    pair: str = PAIR
    """Pair of skills."""
    worlds: tuple[int, ...] = (1, 16, 64)
    """Numbers of worlds."""
    threads: tuple[int, ...] = ()
    """Numbers of threads; 1 is always among them. Default: 1 and 2, as far as there."""
    world_steps: int = 1500
    """Control steps per turn, over all worlds."""
    turns: int = 5
    """Turns of each contestant; the best counts."""
    out: Path | None = None
    """JSON file to write."""


class Contest:
    """One environment and one bare loop over the same worlds."""

    def __init__(self, pair: str, num_worlds: int, num_threads: int, library: HeldStateLibrary) -> None:
        """Builds both."""
        self.venv: Any = gym.make_vec(
            env_id(pair),
            num_envs=num_worlds,
            num_threads=num_threads,
            held_states=library,
            start="held",
            base_shake=0.0,
            physics="nominal",
        )
        self.num_worlds = num_worlds
        self._rows = np.arange(num_worlds) % len(library)
        self._rng = np.random.default_rng(0)
        obs, _ = self.venv.reset(seed=0, options={"held_index": self._rows})
        unwrapped: Any = self.venv.unwrapped
        self._env = unwrapped
        self._command = obs["context"][:, unwrapped.layout["context"]["previous_action"]]
        self._model = self._env.scene.model
        self._datas = [mujoco.MjData(self._model) for _ in range(num_worlds)]

    def actions(self, steps: int) -> NDArray[np.float32]:
        """Fresh actions (steps, N, 28)."""
        noise = noise_scale("calm") * self._rng.normal(size=(steps, *self._command.shape))
        return np.clip(self._command + noise, -1.0, 1.0).astype(np.float32)

    def environment(self, actions: NDArray[np.float32]) -> NDArray[np.float64]:
        """Seconds (wall, CPU) that the environment takes."""
        self.venv.reset(seed=0, options={"held_index": self._rows})
        start = now()
        for action in actions:
            self.venv.step(action)
        return now() - start

    def bare(self, actions: NDArray[np.float32]) -> NDArray[np.float64]:
        """Seconds (wall, CPU) that one thread of bare MuJoCo takes."""
        self.venv.reset(seed=0, options={"held_index": self._rows})
        for world, data in enumerate(self._datas):
            self._env.load_into(data, world)
        controls = hand.denormalize(actions)
        model, datas, sensors = self._model, self._datas, int(mujoco.mjtDisableBit.mjDSBL_SENSOR)
        start = now()
        for step in controls:
            for data, control in zip(datas, step, strict=True):
                data.ctrl[:] = control
                model.opt.disableflags |= sensors
                mujoco.mj_step(model, data, PHYSICS_STEPS_PER_CONTROL_STEP - 1)
                model.opt.disableflags &= ~sensors
                mujoco.mj_step(model, data)
        return now() - start

    def close(self) -> None:
        """Frees the environment."""
        self.venv.close()


def _row(config: CpuConfig, num_worlds: int, threads: list[int], library: HeldStateLibrary) -> dict[str, Any]:
    """One row of the table: one number of worlds, all numbers of threads."""
    contests = {count: Contest(config.pair, num_worlds, count, library) for count in threads}
    steps = max(8, min(config.world_steps // num_worlds, 180))
    actions = contests[1].actions(steps)
    runs: dict[str, Callable[[], NDArray[np.float64]]] = {"bare": lambda: contests[1].bare(actions)}
    for count, contest in contests.items():
        runs[f"env_{count}"] = lambda contest=contest: contest.environment(actions)  # type: ignore[misc]
    seconds = best_seconds(runs, config.turns)
    for contest in contests.values():
        contest.close()
    total = steps * num_worlds
    wall, cpu = seconds["bare"]
    row: dict[str, Any] = {"num_worlds": num_worlds, "bare_steps_per_s": round(total / wall, 1), "threads": {}}
    for count in threads:
        own_wall, own_cpu = seconds[f"env_{count}"]
        row["threads"][str(count)] = {
            "steps_per_s": round(total / own_wall, 1),
            "ratio_per_core": round(wall / own_wall / min(count, num_worlds), 3),
            "cpu_time_ratio": round(cpu / own_cpu, 3),
        }
    return row


def measure(config: CpuConfig) -> Iterator[dict[str, Any]]:
    """One row per number of worlds."""
    threads = sorted({1, *(config.threads or [n for n in (1, 2) if n <= usable_cores()])})
    library = held_states(config.pair.split("-")[0])
    for worlds in config.worlds:
        yield _row(config, worlds, threads, library)


def table(config: CpuConfig, rows: list[dict[str, Any]]) -> Table:
    """The rows for the terminal."""
    columns = ["worlds", "bare"]
    for count in rows[0]["threads"]:
        columns += [f"{count} thread" + "s" * (count != "1"), "per core", "CPU"]
    cells = [
        [row["num_worlds"], row["bare_steps_per_s"], *(x for cell in row["threads"].values() for x in cell.values())]
        for row in rows
    ]
    title = (
        f"{config.pair}: control steps/s\nper core: speed over bare speed and threads; CPU: the same by CPU time, "
        "which a busy machine hardly changes"
    )
    return make_table(title, columns, cells)
