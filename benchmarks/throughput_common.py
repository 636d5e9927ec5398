"""What the throughput benchmarks share: held states, controls, clocks, and where a number comes from."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from dexcompose_agents.runtime.provenance import machine_info, software_versions
from dexcompose_envs import env_id, hand
from dexcompose_envs.held_states import HeldStateLibrary, Manifest

PAIR = "GraspBall-PushButton"
CALM_NOISE = 0.003
"""Standard deviation of calm controls around the command that holds, as a share of half a joint's range."""
ROUGH_NOISE = 0.02
"""Standard deviation of rough controls, rad."""
ControlName = Literal["calm", "rough"]


def held_states(skill: str, count: int = 16) -> HeldStateLibrary:
    """The shipped library, or held states of the scripted expert where none is shipped."""
    try:
        return HeldStateLibrary.load(skill)
    except ValueError:
        from dexcompose_envs.skills import make_expert

    venv: Any = gym.make_vec(env_id(skill), num_envs=count, terminate_on_success=False, autoreset_mode="Disabled")
    env = venv.unwrapped
    obs, _ = venv.reset(seed=0)
    expert = make_expert(skill)
    expert.reset(obs, {}, range(count), range(count))
    for _ in range(135):
        obs, _, _, _, info = venv.step(expert.act(obs))
    columns = env.held_columns()
    columns["reference"] = columns["control"][:, hand.NUM_WRIST :]
    columns["hold_target"] = env.sensors()["object_position"]
    kept = np.flatnonzero(info["success"])
    manifest = Manifest(skill, env.model_hash, "expert")
    venv.close()
    return HeldStateLibrary.from_columns(manifest, {name: column[kept] for name, column in columns.items()})


def noise_scale(control: ControlName) -> NDArray[np.float64]:
    """Standard deviation of the noise on each normalised action (28,).

    Rough noise is `ROUGH_NOISE` on every angle; the wrist's position keeps the calm one, since 2 cm from one control
    step to the next would be no control.
    """
    scale = np.full(hand.NUM_ACTIONS, CALM_NOISE)
    if control == "rough":
        angles = slice(3, None)
        half_range = (hand.ACTION_HIGH - hand.ACTION_LOW) / 2
        scale[angles] = ROUGH_NOISE / half_range[angles]
    return scale


def now() -> NDArray[np.float64]:
    """Wall clock and CPU time of all threads of this process, s."""
    return np.array([time.perf_counter(), time.process_time()])


def best_seconds(runs: Mapping[str, Callable[[], NDArray[np.float64]]], turns: int) -> dict[str, NDArray[np.float64]]:
    """Least wall and CPU seconds of some turns, taken in alternation."""
    seconds: dict[str, list[NDArray[np.float64]]] = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            seconds[name].append(run())
    return {name: np.min(times, axis=0) for name, times in seconds.items()}


def provenance(device: str | None = None) -> dict[str, Any]:
    """Machine and versions, and those of a Warp device if there is one.

    Args:
        device: "cuda:0", "cpu", or None where Warp takes no part.
    """
    machine = {**machine_info(), "load_average": round(os.getloadavg()[0], 2)}
    versions = software_versions()
    if device is None:
        return {"machine": machine, "versions": versions}
    import torch
    import warp

    versions |= {package: metadata.version(package) for package in ("warp-lang", "mujoco-warp")}
    machine["device"] = device
    if torch.device(device).type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        machine |= {"gpu": properties.name, "gpu_memory_gib": round(properties.total_memory / 2**30, 1)}
        versions |= {
            "driver": _driver(),
            "cuda_of_driver": ".".join(map(str, warp.get_cuda_driver_version())),
            "cuda_of_torch": torch.version.cuda,
            "cuda_of_warp": ".".join(map(str, warp.get_cuda_toolkit_version())),
        }
    return {"machine": machine, "versions": versions}


def _driver() -> str:
    """Version of the NVIDIA driver."""
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return lines[0] if lines else "unknown"


def make_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A table for the terminal; floats from 100 up are written with thousands separators, None as a dash."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right", overflow="fold")
    for row in rows:
        table.add_row(*map(_written, row))
    return table


def _written(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
