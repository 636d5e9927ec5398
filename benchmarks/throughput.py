"""Control steps per second of the vector environment against bare MuJoCo.

Both run the same model from the same held states with the same controls (the reference command plus small noise, the
wrist not shaken), in turns in one process, and the best turn of each counts. The bare loop is what anyone would write:
one `MjData` per world, `ctrl` set, `mj_step` called once per control step, on one thread. The environment does the
same plus state bookkeeping, observations, infos, judgement and autoreset.

    python benchmarks/throughput.py --out throughput.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import __version__, env_id, hand
from dexcompose_envs.files import atomic_write
from dexcompose_envs.held_states import HeldStateLibrary, Manifest
from dexcompose_envs.physics.mujoco_cpu import usable_cores
from dexcompose_envs.scene import PHYSICS_STEPS_PER_CONTROL_STEP

NOISE = 0.003
"""Standard deviation of the normalised actions around the reference command."""


def held_states(skill: str, count: int = 16) -> HeldStateLibrary:
    """The shipped library, or held states of the scripted expert where none is shipped."""
    try:
        return HeldStateLibrary.load(skill)
    except ValueError:
        from dexcompose_envs.demonstrations import make_expert

    venv: Any = gym.make_vec(env_id(skill), num_envs=count, terminate_on_success=False, autoreset_mode="Disabled")
    core = venv.unwrapped.core
    obs, _ = venv.reset(seed=0)
    expert = make_expert(skill)
    expert.reset(obs, range(count), range(count))
    for _ in range(135):
        obs, _, _, _, info = venv.step(expert.act(obs))
    columns = core.held_columns()
    columns["reference"] = columns["control"][:, hand.NUM_WRIST :]
    columns["hold_target"] = np.array(core.snapshot().sensors["object_position"])
    kept = np.flatnonzero(info["success"])
    manifest = Manifest(skill, __version__, core.scene.model_hash, "expert")
    venv.close()
    return HeldStateLibrary.from_columns(manifest, {name: column[kept] for name, column in columns.items()})


def now() -> NDArray[np.float64]:
    """Wall clock and CPU time of all threads of this process, s."""
    return np.array([time.perf_counter(), time.process_time()])


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
        )
        self.num_worlds = num_worlds
        self._rows = np.arange(num_worlds) % len(library)
        self._rng = np.random.default_rng(0)
        obs, _ = self.venv.reset(seed=0, options={"held_index": self._rows})
        unwrapped: Any = self.venv.unwrapped
        self._core = unwrapped.core
        self._command = obs["context"][:, unwrapped.layout["context"]["previous_action"]]
        self._model = self._core.scene.model
        self._datas = [mujoco.MjData(self._model) for _ in range(num_worlds)]

    def actions(self, steps: int) -> NDArray[np.float32]:
        """Fresh actions (steps, N, 28)."""
        noise = NOISE * self._rng.normal(size=(steps, *self._command.shape))
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
            self._core.engine.load_into(data, world)
        controls = hand.denormalize(actions)
        model, datas = self._model, self._datas
        start = now()
        for step in controls:
            for data, control in zip(datas, step, strict=True):
                data.ctrl[:] = control
                mujoco.mj_step(model, data, PHYSICS_STEPS_PER_CONTROL_STEP)
        return now() - start

    def close(self) -> None:
        """Frees the environment."""
        self.venv.close()


def best_seconds(runs: dict[str, Callable[[], NDArray[np.float64]]], turns: int) -> dict[str, NDArray[np.float64]]:
    """Least wall and CPU seconds of some turns, taken in alternation."""
    seconds: dict[str, list[NDArray[np.float64]]] = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            seconds[name].append(run())
    return {name: np.min(times, axis=0) for name, times in seconds.items()}


def measure(pair: str, num_worlds: int, threads: list[int], world_steps: int, turns: int) -> dict[str, Any]:
    """One row of the table.

    Args:
        pair: "GraspBall-PushButton" or another pair.
        num_worlds: Number of worlds.
        threads: Numbers of CPU threads to run the environment on.
        world_steps: Control steps per turn, over all worlds.
        turns: Turns of each contestant.
    """
    library = held_states(pair.split("-")[0])
    contests = {count: Contest(pair, num_worlds, count, library) for count in threads}
    steps = max(8, min(world_steps // num_worlds, 180))
    actions = contests[1].actions(steps)
    runs: dict[str, Callable[[], NDArray[np.float64]]] = {"bare": lambda: contests[1].bare(actions)}
    for count, contest in contests.items():
        runs[f"env_{count}"] = lambda contest=contest: contest.environment(actions)  # type: ignore[misc]
    seconds = best_seconds(runs, turns)
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


def main() -> None:
    """Measures and prints; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Throughput of the vector environment against bare MuJoCo.")
    parser.add_argument("--pair", default="GraspBall-PushButton", help="pair of skills")
    parser.add_argument("--worlds", type=int, nargs="+", default=[1, 16, 64], help="numbers of worlds")
    parser.add_argument("--threads", type=int, nargs="+", help="numbers of threads; default: 1 and 2, as far as there")
    parser.add_argument("--world-steps", type=int, default=1500, help="control steps per turn, over all worlds")
    parser.add_argument("--turns", type=int, default=5, help="turns of each contestant; the best counts")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    threads = sorted({1, *(args.threads or [n for n in (1, 2) if n <= usable_cores()])})
    rows = [measure(args.pair, worlds, threads, args.world_steps, args.turns) for worlds in args.worlds]
    result = {
        "pair": args.pair,
        "rows": rows,
        "usable_cores": usable_cores(),
        "load_average": round(os.getloadavg()[0], 2),
        "machine": platform.machine(),
        "versions": {"dexcompose": __version__, "mujoco": mujoco.__version__, "python": platform.python_version()},
    }
    print(f"{args.pair}: control steps/s, {usable_cores()} usable cores, load average {result['load_average']}")
    print("per core: speed over bare speed and threads; CPU: the same by CPU time, which a busy machine hardly changes")
    title = "".join(f"  {f'{n} thread' + 's' * (n > 1):>10s}  per core   CPU" for n in threads)
    print(f"{'worlds':>6s}  {'bare':>8s}{title}")
    for row in rows:
        line = f"{row['num_worlds']:6d}  {row['bare_steps_per_s']:8.0f}"
        for cell in row["threads"].values():
            line += f"  {cell['steps_per_s']:10.0f}  {cell['ratio_per_core']:8.2f}  {cell['cpu_time_ratio']:4.2f}"
        print(line)
    if args.out is not None:
        atomic_write(args.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
