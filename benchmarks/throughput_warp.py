"""A ladder of world counts on one GPU: bare physics, the environment, policies in it, and PPO end to end.

Per number of worlds, one after another and each alone on the device:

* `physics`: our model without sensors, stepped by MuJoCo Warp alone;
* `physics+sensors`: the same with all sensors in every physics step;
* `env`: the environment with observations, rewards, infos and restarts (and what makes its actions);
* `env+policies`: the environment driven by DexCompose as it ships: stabiliser A, the diffusion policy pi_B and residual
  B in every control step;
* `ppo`: training stabiliser A with the preset `fast`, collection and updates.

Physics and environment start from the same held states, the object in hand and the wrist not shaken. Controls are the
command that holds plus noise: *calm*, or *rough* (0.02 rad on every angle in every control step). Environments are
staggered before the clock starts, so that worlds end their episodes one after another, as in a long run. Every time
covers many control steps between two synchronisations; the median of some repeats counts.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from rich.table import Table
from throughput_bare_warp import BarePhysics, Parts, held_parts
from throughput_common import PAIR, ControlName, held_states, make_table, noise_scale
from throughput_runs import DrivenEnvironment, train_ppo

from dexcompose_envs import hand, parse_pair
from dexcompose_envs.held_states import HeldStateLibrary
from dexcompose_envs.physics import BackendError
from dexcompose_envs.scene import build_scene

Contestant = Literal["physics", "physics+sensors", "env", "env+policies", "ppo"]


@dataclass(frozen=True)
class WarpConfig:
    """MuJoCo Warp: bare physics, environment, policies and PPO over numbers of worlds."""

    pair: str = PAIR
    """Pair of skills."""
    worlds: tuple[int, ...] = (1024, 4096, 8192, 16384)
    """Numbers of worlds; those that don't fit are reported and skipped."""
    device: str = "cuda:0"
    """Torch device; "cpu" shows that the benchmark works, not how fast anything is."""
    contestants: tuple[Contestant, ...] = ("physics", "physics+sensors", "env", "env+policies", "ppo")
    """What to measure."""
    controls: tuple[ControlName, ...] = ("calm", "rough")
    """Controls of physics and env."""
    steps: int = 40
    """Control steps per world and repeat."""
    warmup: int = 10
    """Control steps before each clock starts."""
    repeats: int = 3
    """Repeats, of PPO: iterations; the median counts."""
    episode_steps: int = 200
    """Control steps after which an episode is cut off."""
    out: Path | None = None
    """JSON file to write."""


@dataclass(frozen=True)
class Measured:
    """One contestant's run: seconds of each repeat over `control_steps`, and what was on the device."""

    seconds: list[float]
    control_steps: int
    usage: dict[str, float]
    memory: float | None


class Device:
    """Clock and memory of a device."""

    def __init__(self, name: str) -> None:
        self._cuda = torch.device(name).type == "cuda"
        self._name = name

    def now(self) -> float:
        """Seconds, after all work queued."""
        if self._cuda:
            torch.cuda.synchronize(self._name)
        return time.perf_counter()

    def memory(self) -> float | None:
        """Memory in use on the GPU by anyone, GiB; None on the CPU."""
        if not self._cuda:
            return None
        free, total = torch.cuda.mem_get_info(self._name)
        return (total - free) / 2**30

    def clear(self) -> None:
        """Gives back what nobody uses."""
        gc.collect()
        if self._cuda:
            torch.cuda.synchronize(self._name)
            torch.cuda.empty_cache()

    def repeat(
        self, config: WarpConfig, before: Callable[[], None], run: Callable[[], None], usage: Callable[[], Any]
    ) -> tuple[list[float], dict[str, float]]:
        """Seconds of each repeat of `run`, and mean usage at their ends; `before` is not timed."""
        seconds, seen = [], []
        for _ in range(config.repeats):
            before()
            start = self.now()
            run()
            seconds.append(self.now() - start)
            seen.append(usage())
        return seconds, {name: sum(one[name] for one in seen) / len(seen) for name in seen[0]}


def _measure_physics(
    config: WarpConfig, worlds: int, parts: Parts, control: ControlName, device: Device, sensors: bool
) -> Measured:
    physics = BarePhysics(build_scene(*parse_pair(config.pair)), worlds, config.device, sensors=sensors)
    low, high, scale, command = (
        torch.as_tensor(values, dtype=torch.float32, device=config.device)
        for values in (hand.ACTION_LOW, hand.ACTION_HIGH, noise_scale(control), parts["targets"])
    )
    noise = torch.randn(config.steps, *command.shape, device=config.device) * scale * (high - low) / 2
    controls = (command + noise).clamp(low, high)
    physics.run(controls[: config.warmup])
    seconds, usage = device.repeat(config, lambda: physics.load(parts), lambda: physics.run(controls), physics.usage)
    return Measured(seconds, config.steps, usage, device.memory())


def _measure_environment(
    config: WarpConfig, worlds: int, library: HeldStateLibrary, driver: str, device: Device
) -> Measured:
    options = {"max_episode_steps": config.episode_steps, "held_states": library}
    with DrivenEnvironment(config.pair, worlds, config.device, driver, **options) as driven:
        driven.stagger(config.episode_steps)
        driven.run(config.warmup)
        seconds, usage = device.repeat(config, lambda: None, lambda: driven.run(config.steps), driven.usage)
        return Measured(seconds, config.steps, usage, device.memory())


def _measure_ppo(config: WarpConfig, worlds: int, library: HeldStateLibrary, device: Device) -> Measured:
    skill = parse_pair(config.pair)[0]
    seconds, horizon, usage = train_ppo(skill, worlds, config.device, config.repeats, library, device.now)
    return Measured(seconds, horizon, usage, device.memory())


def _jobs(config: WarpConfig) -> Iterator[tuple[Contestant, str]]:
    """Contestants with their controls."""
    for contestant in config.contestants:
        if contestant in ("env+policies", "ppo"):
            yield contestant, "learned"
        else:
            yield from ((contestant, control) for control in config.controls)


def _run(
    config: WarpConfig,
    contestant: Contestant,
    control: Any,
    worlds: int,
    library: HeldStateLibrary,
    parts: Parts,
    device: Device,
) -> Measured:
    if contestant.startswith("physics"):
        return _measure_physics(config, worlds, parts, control, device, contestant == "physics+sensors")
    if contestant == "ppo":
        return _measure_ppo(config, worlds, library, device)
    return _measure_environment(config, worlds, library, "dexcompose" if control == "learned" else control, device)


@contextmanager
def _noting_failure(row: dict[str, Any]) -> Iterator[None]:
    """Notes in the row that the device is too small or that contacts were dropped; any other error goes on."""
    try:
        yield
    except RuntimeError as error:
        is_known = isinstance(error, BackendError) or any(word in str(error).lower() for word in ("memory", "alloc"))
        if not is_known:
            raise
        row["error"] = str(error).splitlines()[0]


def measure(config: WarpConfig) -> Iterator[dict[str, Any]]:
    """One row per number of worlds, contestant and control."""
    library, device = held_states(parse_pair(config.pair)[0]), Device(config.device)
    for worlds in config.worlds:
        bare: dict[str, float] = {}
        parts = held_parts(*parse_pair(config.pair), library, worlds)
        for contestant, control in _jobs(config):
            row: dict[str, Any] = {"num_worlds": worlds, "contestant": contestant, "control": control, "error": None}
            before = device.memory()
            with _noting_failure(row):
                run = _run(config, contestant, control, worlds, library, parts, device)
                speeds = sorted(worlds * run.control_steps / seconds for seconds in run.seconds)
                row["steps_per_s"], row["range"] = median(speeds), [speeds[0], speeds[-1]]
                if contestant == "physics":
                    bare[control] = row["steps_per_s"]
                row["ratio"] = row["steps_per_s"] / bare[control] if control in bare else None
                row |= run.usage
                row["memory_gib"] = None if run.memory is None or before is None else run.memory - before
            device.clear()
            speed = row["error"] or f"{row['steps_per_s']:,.0f} control steps/s"
            print(f"{worlds} worlds, {contestant}, {control}: {speed}", file=sys.stderr, flush=True)
            yield row


def table(config: WarpConfig, rows: list[dict[str, Any]]) -> Table:
    """The rows for the terminal."""
    names = ["num_worlds", "contestant", "control", "steps_per_s", "ratio", "contacts", "rows", "memory_gib", "error"]
    title = f"{config.pair} on {config.device}: control steps/s; ratio: to `physics` under the same control"
    if torch.device(config.device).type == "cpu":
        title = f"NO GPU NUMBERS: Warp's CPU path, one world after another\n{title}"
    columns = ["worlds", *names[1:-2], "memory GiB", "error"]
    return make_table(title, columns, [[row.get(name) for name in names] for row in rows])
