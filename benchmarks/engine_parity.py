"""How far native MuJoCo and MuJoCo Warp agree, from single forward passes up to success rates.

    python benchmarks/engine_parity.py --device cpu --out benchmarks/results/engine_parity

Per retention skill: sensors of the same held states; how far the same actions from the same held states take object and
wrist apart; how far a quiet hold drifts on each engine; and the release test of some masks. Per skill: success of the
base policy on the same seeds. The defaults take minutes on Warp's CPU path; a GPU can do many more worlds. Writes
`results.json`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from throughput_bare_warp import BarePhysics, held_parts
from throughput_common import CALM_NOISE, held_states, make_table, provenance

from dexcompose_agents.attribution.release_test import ReleaseTestConfig, run_release_test
from dexcompose_agents.diffusion.agent import PolicyAgent
from dexcompose_agents.evaluation.statistics import wilson_interval
from dexcompose_agents.runtime.compute import make_numpy_vec
from dexcompose_agents.runtime.progress import progress_bar
from dexcompose_agents.runtime.provenance import write_json
from dexcompose_envs import RETENTION_SKILLS, SKILLS, FingerMask, env_id
from dexcompose_envs.arrays import to_numpy
from dexcompose_envs.files import check_writable_dir
from dexcompose_envs.held_states import HeldStateLibrary
from dexcompose_envs.rollouts import Episode, Moment, Watcher, run_episodes
from dexcompose_envs.scene import build_scene

ENGINES = ("native", "warp")
FIRST_SEED = 2**29
"""Seeds of base-policy episodes: above those of demonstrations and held states, below evaluation's."""
LOST = 0.05
"""An object this far from where it was at first has left the grasp, m."""
Progress = Callable[[float, float], None]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Config:
    """What to compare; sizes are for Warp's CPU path."""

    device: str = "cuda:0"
    """Torch device of Warp and of the policies: "cuda:0" or "cpu"."""
    retention: tuple[str, ...] = RETENTION_SKILLS
    """Retention skills."""
    skills: tuple[str, ...] = SKILLS
    """Skills whose base policy is run."""
    worlds: int = 16
    """Held states for sensors, deviation and drift."""
    after: tuple[int, ...] = (1, 10, 50, 100)
    """Control steps after which the engines' deviation is looked at."""
    hold_steps: int = 200
    """Control steps of a quiet hold."""
    episodes: int = 8
    """Episodes per skill of the base policies, all at once."""
    rollouts: int = 10
    """Rollouts per mask of the release test."""
    release_steps: int = 100
    """Control steps of the release test."""
    masks: tuple[str, ...] = ("TH+MF+RF", "TH+FF+MF", "TH+LF", "TH+FF")
    """Masks (preserved fingers) of the release test; those in the middle of the range tell most."""
    num_envs: int = 512
    """Worlds of the release test at once, at most."""
    out: Path = Path("runs/engine_parity")
    """Folder of results.json."""


def make(engine: str, name: str, config: Config, **options: Any) -> Any:
    """A vector environment that speaks NumPy, on either engine; its episodes are run by the queue."""
    where: dict[str, Any] = {} if engine == "native" else {"backend": "warp", "device": config.device}
    return make_numpy_vec(env_id(name), autoreset_mode="Disabled", **where, **options)


def compare_sensors(skill: str, config: Config, library: HeldStateLibrary) -> Rows:
    """(i) Largest difference of each sensor group after a forward pass of the same held states."""
    scene, parts = build_scene(skill), held_parts(skill, None, library, config.worlds)
    bare = BarePhysics(scene, config.worlds, config.device, sensors=True)
    bare.load(parts)
    bare.forward()
    apart = np.abs(to_numpy(bare.sensordata) - parts["sensordata"])
    return [
        {
            "skill": skill,
            "sensors": group,
            "largest_difference": float(apart[:, columns].max()),
            "largest_value": float(np.abs(parts["sensordata"][:, columns]).max()),
        }
        for group, columns in scene.sensors.items()
    ]


@dataclass(frozen=True)
class Trajectory:
    """What N worlds did over T control steps."""

    object: NDArray[np.float64]
    """Object in the palm frame (T + 1, N, 3), m."""
    wrist: NDArray[np.float64]
    """Palm in the world (T + 1, N, 3), m."""
    diverged: int
    """Worlds that diverged; they were put back to their first state."""

    def drift(self) -> NDArray[np.float64]:
        """How far the object is from where it was at first at the end (N,), m."""
        return np.linalg.norm(self.object[-1] - self.object[0], axis=1)


def hold(
    engine: str,
    skill: str,
    config: Config,
    library: HeldStateLibrary,
    bar: Progress,
    *,
    steps: int,
    noise: float = 0.0,
    shake: float = 0.0,
) -> Trajectory:
    """Holds the object with the held states' own commands plus noise (normalised), the same on every engine."""
    options: dict[str, Any] = {"start": "held", "held_states": library, "base_shake": shake}
    venv = make(engine, skill, config, num_envs=config.worlds, **options)
    plan = [Episode(world, {"held_index": world % len(library)}) for world in range(config.worlds)]
    holder = Holder(venv.unwrapped, steps, noise, bar)
    for _ in run_episodes(venv, holder, plan, holder):
        pass
    venv.close()
    tracks = {name: np.stack(seen) for name, seen in holder.positions.items()}
    return Trajectory(tracks["object_position"], tracks["palm_position"], int(holder.diverged.sum()))


class Holder(Watcher):
    """Repeats the first command, plus noise, in all worlds at once, and writes down where object and palm are."""

    name = "hold"

    def __init__(self, env: Any, steps: int, noise: float, bar: Progress) -> None:
        """For so many control steps in all worlds of an environment."""
        self._env, self._steps, self._noise, self._bar = env, steps, noise, bar
        self._rng = np.random.default_rng(0)
        self.diverged = np.zeros(env.num_envs, bool)
        self.positions: dict[str, list[NDArray[np.float64]]] = {"object_position": [], "palm_position": []}

    def reset(self, obs: Any, info: Any, env_ids: Any, seeds: Any) -> None:
        """Takes the command that holds."""
        self._command = obs["context"][:, self._env.layout["context"]["previous_action"]]

    def act(self, obs: Any) -> NDArray[np.float32]:
        """The command with noise."""
        return (self._command + self._noise * self._rng.normal(size=self._command.shape)).astype(np.float32)

    def begin(self, worlds: Any, moment: Moment) -> None:
        """The first positions."""
        self._look()

    def step(self, moment: Moment) -> NDArray[np.bool_]:
        """The next positions; nobody's episode ends early: lost objects stay lost and all worlds go on."""
        self._look()
        self.diverged |= moment.unstable
        self._bar(float(moment.steps[0]), self._steps)
        return moment.steps >= self._steps

    def _look(self) -> None:
        sensors = self._env.sensors()
        for name, seen in self.positions.items():
            seen.append(sensors[name])


def compare_motion(skill: str, config: Config, library: HeldStateLibrary, bar: Progress) -> Rows:
    """(ii) Deviation of object (palm frame) and wrist between engines, with the wrist still and trembling, mm."""
    rows = []
    for shake in (0.0, 1.0):
        runs = [
            hold(engine, skill, config, library, bar, steps=max(config.after), noise=CALM_NOISE, shake=shake)
            for engine in ENGINES
        ]
        lost = [int((run.drift() > LOST).sum()) for run in runs]
        for after in config.after:
            row: dict[str, Any] = {"skill": skill, "base_shake": shake, "control_steps": after, "worlds": config.worlds}
            for what in ("object", "wrist"):
                native, warp = (getattr(run, what)[after] for run in runs)
                apart = 1000 * np.linalg.norm(native - warp, axis=1)
                row |= {f"{what}_median_mm": float(np.median(apart)), f"{what}_max_mm": float(apart.max())}
            for engine, run, count in zip(ENGINES, runs, lost, strict=True):
                row |= {f"{engine}_lost_at_end": count, f"{engine}_diverged": run.diverged}
            rows.append(row)
    return rows


def measure_drift(skill: str, config: Config, library: HeldStateLibrary, bar: Progress) -> Rows:
    """(iii) How far the object has moved in the palm after a quiet hold, mm."""
    rows = []
    for engine in ENGINES:
        run = hold(engine, skill, config, library, bar, steps=config.hold_steps)
        drift = 1000 * run.drift()
        row = {"skill": skill, "engine": engine, "control_steps": config.hold_steps, "worlds": config.worlds}
        row |= {"median_mm": float(np.median(drift)), "max_mm": float(drift.max()), "diverged": run.diverged}
        rows.append(row)
    return rows


def successes(engine: str, skill: str, config: Config, bar: Progress) -> int:
    """Successful episodes of a skill's base policy."""
    venv = make(engine, skill, config, num_envs=config.episodes)
    plan = [Episode(FIRST_SEED + number) for number in range(config.episodes)]
    rollouts = run_episodes(venv, PolicyAgent.load(skill, device=config.device), plan, in_order=False)
    success = []
    for rollout in rollouts:
        success.append(bool(rollout.info["success"]))
        bar(len(success), config.episodes)
    venv.close()
    return sum(success)


def compare_policies(skill: str, config: Config, bar: Progress) -> Rows:
    """(iv) Success of the base policy on each engine, the same seeds."""
    counts = [successes(engine, skill, config, bar) for engine in ENGINES]
    return [{"skill": skill} | compared(counts, config.episodes)]


def compare_release(skill: str, config: Config, library: HeldStateLibrary, bar: Progress) -> Rows:
    """(v) The release test's share of retained objects on each engine, the same draws."""
    masks = [FingerMask.parse(text) for text in config.masks]
    settings = ReleaseTestConfig(
        steps=config.release_steps, rollouts=config.rollouts, clean_steps=min(20, config.release_steps)
    )
    options: dict[str, Any] = {"library": library, "masks": masks, "num_envs": config.num_envs, "progress": bar}
    warp: dict[str, Any] = {"env_kwargs": {"backend": "warp", "device": config.device}}
    results = [run_release_test(skill, settings, **options, **kwargs) for kwargs in ({}, warp)]
    return [
        {"skill": skill, "mask": str(one.mask)} | compared([one.retained, two.retained], config.rollouts)
        for one, two in zip(*results, strict=True)
    ]


def compared(counts: list[int], trials: int) -> dict[str, Any]:
    """Successes of both engines, their 95 % Wilson intervals, and whether these overlap."""
    row: dict[str, Any] = {"trials": trials}
    intervals = [wilson_interval(count, trials) for count in counts]
    for engine, count, interval in zip(ENGINES, counts, intervals, strict=True):
        row |= {engine: count, f"{engine}_interval_95": [round(interval.low, 4), round(interval.high, 4)]}
    one, two = intervals
    return row | {"overlap": one.low <= two.high and two.low <= one.high}


def measure(config: Config) -> dict[str, Rows]:
    """All tables."""
    tables: dict[str, Rows] = {name: [] for name in ("sensors", "motion", "drift", "policies", "release")}

    def add(name: str, label: str, rows: Callable[[Progress], Rows]) -> None:
        with progress_bar(f"{name}, {label}") as bar:
            tables[name] += rows(bar)

    for skill in config.retention:
        library = held_states(skill)
        tables["sensors"] += compare_sensors(skill, config, library)
        add("motion", skill, partial(compare_motion, skill, config, library))
        add("drift", skill, partial(measure_drift, skill, config, library))
        add("release", skill, partial(compare_release, skill, config, library))
    for skill in config.skills:
        add("policies", skill, partial(compare_policies, skill, config))
    return tables


def main(config: Config) -> dict[str, Any]:
    """Compares, prints and writes `results.json`."""
    check_writable_dir(config.out)
    origin = provenance(config.device)
    tables = measure(config)
    settings = {name: value for name, value in asdict(config).items() if name != "out"}
    result = {"settings": settings, "action_noise": CALM_NOISE, **tables, **origin}
    write_json(config.out / "results.json", result)
    console = Console(width=150)
    for name, rows in tables.items():
        if rows:
            cells = [[" to ".join(map(str, x)) if isinstance(x, list) else x for x in row.values()] for row in rows]
            console.print(make_table(name, list(rows[0]), cells))
    return result


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
