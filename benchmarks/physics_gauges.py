"""How good the physics are, and how fast: the new physics against the old ones, on the same held states.

    python benchmarks/physics_gauges.py --out benchmarks/results/physics_gauges.json

Per retention skill and variant (see `physics_variants.py`), from held states of the test split at nominal mass and
friction, each settled for a second in the variant's own physics:

- drift: how far the object moves in the palm frame in a quiet hold with five fingers (median and largest, mm)
- jump: how far it moves in one control step at most while the wrist trembles as in a composite (mm)
- depth: penetration of hand and object while it trembles, in every physics step (99.9th percentile and largest, mm)
- slip: how far it has moved after some trembling (median, mm), and as a share of what a fine-step run of the same
  physics, held states and actions says: small physics steps, each solved to the end
- time: CPU time of a control step (microseconds, one thread; the variants take turns), contacts, solver iterations
- the release test of some masks, and successes of the base policy and of composites, by the product's own functions

The last three need the product's physics step, so that variants with another one go without. Prints a Markdown table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import base_policies
import gymnasium as gym
import mujoco
import numpy as np
import tyro
from physics_tracks import Bare, Starts, cpu_seconds
from physics_variants import SENSORS_IN_EACH_STEP, VARIANTS, changed, fine, variant
from throughput_common import held_states, provenance

from dexcompose_agents.attribution.release_test import ReleaseTestConfig, run_release_test
from dexcompose_agents.diffusion.agent import PolicyAgent
from dexcompose_agents.evaluation import evaluate
from dexcompose_agents.runtime.progress import progress_bar
from dexcompose_agents.runtime.provenance import write_json
from dexcompose_envs import RETENTION_SKILLS, FingerMask, env_id
from dexcompose_envs.checks import one_of
from dexcompose_envs.files import check_writable_dir
from dexcompose_envs.scene import build_scene
from dexcompose_envs.timing import PHYSICS_STEP

MM = 1000.0
Row = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """What to measure."""

    skills: tuple[str, ...] = RETENTION_SKILLS
    """Retention skills."""
    variants: tuple[str, ...] = ("new", "old")
    """Variants of the physics, see `physics_variants.VARIANTS`; the first is what times are compared with."""
    worlds: int = 32
    """Held states."""
    settle_steps: int = 25
    """Quiet control steps before anything is measured."""
    hold_steps: int = 200
    """Control steps of the quiet hold."""
    tremble_steps: int = 100
    """Control steps with a trembling wrist."""
    slip_steps: int = 80
    """Control steps of these after which the slip is read."""
    fine_step: float = 0.00025
    """Physics step of the fine-step runs, s."""
    fine_worlds: int = 8
    """Held states of the fine-step runs, at most."""
    masks: tuple[str, ...] = ("TH+MF+LF", "TH+RF", "TH+MF", "TH+FF")
    """Masks (preserved fingers) of the release test; none: no release test."""
    release_rollouts: int = 100
    """Rollouts per mask."""
    release_steps: int = 100
    """Control steps of the release test."""
    rollouts: int = 64
    """Rollouts of the base policy and of each composite; 0: none."""
    interactions: tuple[str, ...] = ("PushButton",)
    """Interaction skills of the composites."""
    method: str = "dexcompose"
    """Composition method."""
    num_envs: int = 64
    """Worlds of the product's own functions at once."""
    quick: bool = False
    """Smallest sizes: whether everything runs."""
    out: Path | None = None
    """JSON file to write."""

    def __post_init__(self) -> None:
        """Refuses a variant that doesn't exist, and a slip read after the end."""
        for name in self.variants:
            one_of("variant", name, tuple(VARIANTS))
        if self.slip_steps > self.tremble_steps:
            raise ValueError(f"slip_steps is {self.slip_steps}; expected at most {self.tremble_steps}")

    def sized(self) -> Config:
        """With the smallest sizes if it is to be quick."""
        if not self.quick:
            return self
        return replace(
            self, worlds=min(self.worlds, 2), settle_steps=2, hold_steps=5, tremble_steps=10, slip_steps=8,
            fine_step=0.001, release_rollouts=2, release_steps=10, rollouts=min(self.rollouts, 1),
        )  # fmt: skip


def motion_gauges(skill: str, name: str, bare: Bare, starts: Starts, states: Any, config: Config) -> Row:
    """Drift, jump, depth, slip, contacts and iterations of one variant."""
    quiet = bare.run(states, starts.quiet(config.hold_steps), looks=False)
    tremble = bare.run(states, starts.trembling(config.tremble_steps))
    slips = MM * np.linalg.norm(tremble.position[config.slip_steps] - tremble.position[0], axis=1)
    fine_slips = MM * fine_slip(skill, name, starts, config)
    drift, depth = MM * quiet.moved(), MM * tremble.depth
    slip, fine_median = np.median(slips[: len(fine_slips)]), np.median(fine_slips)
    numbers = {
        "drift_median_mm": np.median(drift),
        "drift_max_mm": drift.max(),
        "jump_mm": MM * tremble.jump(),
        "depth_999_mm": np.percentile(depth, 99.9),
        "depth_max_mm": depth.max(),
        "slip_mm": slip,
        "fine_slip_mm": fine_median,
        "slip_share": slip / fine_median,
        "contacts": tremble.contacts,
        "iterations": tremble.iterations,
    }
    return {key: float(f"{value:.4g}") for key, value in numbers.items()}


def fine_slip(skill: str, name: str, starts: Starts, config: Config) -> Any:
    """Slip (N,), m, of a variant's fine-step run."""
    count = min(config.fine_worlds, len(starts.states))
    bare = Bare(variant(build_scene(skill).model, VARIANTS[name], fine(config.fine_step)))
    some = Starts(starts.states[:count], starts.commands[:count])
    return bare.run(bare.settle(some, config.settle_steps), some.trembling(config.slip_steps), looks=False).moved()


def time_gauges(bares: Mapping[str, Bare], states: Mapping[str, Any], targets: Any) -> dict[str, Row]:
    """CPU time of a control step of each variant, microseconds, and how many times the first one's."""
    seconds = cpu_seconds(bares, states, targets)
    first = seconds[next(iter(seconds))]
    return {
        name: {"cpu_us": round(1e6 * each, 1), "cpu_ratio": round(each / first, 3)} for name, each in seconds.items()
    }


def product_gauges(skill: str, name: str, config: Config) -> Row:
    """Release test, base policy and composites under one variant, each by the product's own function."""
    pairs = [f"{skill}-{interaction}" for interaction in config.interactions]
    row: Row = {"release": {}, "base": None, "composites": {}}
    with changed([model_of(scene) for scene in (skill, *pairs)], VARIANTS[name]):
        if model_of(skill).opt.timestep != PHYSICS_STEP:
            return row
        if config.masks:
            row["release"] = released(skill, name, config)
        if config.rollouts:
            row["base"] = sum(base_policies.run(skill, PolicyAgent.load(skill), config.rollouts, config.num_envs))
            row["composites"] = {pair.split("-")[1]: composed(pair, name, config) for pair in pairs}
    return row


def model_of(scene: str) -> mujoco.MjModel:
    """The model that environments of a skill or a pair run; they share it, so that what is changed in it counts.

    Raises:
        RuntimeError: If they don't share it.
    """
    worlds: list[Any] = [gym.make_vec(env_id(scene), num_envs=1) for _ in range(2)]
    first, second = (world.unwrapped.scene.model for world in worlds)
    for world in worlds:
        world.close()
    if first is not second:
        raise RuntimeError(f"environments of {scene} have models of their own; expected one that they share")
    return first


def released(skill: str, name: str, config: Config) -> dict[str, int]:
    """Retained objects per mask of the release test."""
    masks = [FingerMask.parse(text) for text in config.masks]
    settings = ReleaseTestConfig(
        steps=config.release_steps, rollouts=config.release_rollouts, clean_steps=min(20, config.release_steps)
    )
    with progress_bar(f"release test, {skill}, {name}") as bar:
        results = run_release_test(
            skill, settings, library=held_states(skill), masks=masks, num_envs=config.num_envs, progress=bar
        )
    return {str(result.mask): int(result.retained) for result in results}


def composed(pair: str, name: str, config: Config) -> int:
    """Successful episodes of a composite."""
    with progress_bar(f"{pair}, {name}") as bar:
        found = evaluate(pair, config.method, seeds=1, rollouts=config.rollouts, num_envs=config.num_envs, progress=bar)
    return sum(record.outcome == "success" for record in found.records)


def measure(config: Config) -> Iterator[Row]:
    """One row per skill and variant."""
    for skill in config.skills:
        model = build_scene(skill).model
        starts = Starts.of(skill, config.worlds, model)
        bares = {name: Bare(variant(model, VARIANTS[name]), name in SENSORS_IN_EACH_STEP) for name in config.variants}
        states = {name: bare.settle(starts, config.settle_steps) for name, bare in bares.items()}
        times = time_gauges(bares, states, starts.trembling(config.tremble_steps))
        for name, bare in bares.items():
            motion = motion_gauges(skill, name, bare, starts, states[name], config)
            yield {"skill": skill, "variant": name} | motion | times[name] | product_gauges(skill, name, config)


def columns(config: Config) -> dict[str, Callable[[Row], Any]]:
    """Heading -> what stands below it."""
    found: dict[str, Callable[[Row], Any]] = {
        "skill": lambda row: row["skill"],
        "variant": lambda row: row["variant"],
        "drift (max)": lambda row: f"{row['drift_median_mm']:.2f} ({row['drift_max_mm']:.2f})",
        "jump": lambda row: f"{row['jump_mm']:.2f}",
        "depth 99.9 % (max)": lambda row: f"{row['depth_999_mm']:.2f} ({row['depth_max_mm']:.2f})",
        "slip": lambda row: f"{row['slip_mm']:.2f}",
        "fine-step slip": lambda row: f"{row['fine_slip_mm']:.2f}",
        "share": lambda row: f"{row['slip_share']:.2f}",
        "CPU us": lambda row: f"{row['cpu_us']:.0f}",
        "times": lambda row: f"{row['cpu_ratio']:.2f}",
        "contacts": lambda row: f"{row['contacts']:.1f}",
        "iterations": lambda row: f"{row['iterations']:.1f}",
    }
    for mask in config.masks:
        found[f"{mask} of {config.release_rollouts}"] = lambda row, mask=mask: row["release"].get(mask)  # type: ignore[misc]
    if config.rollouts:
        found[f"base of {config.rollouts}"] = lambda row: row["base"]
        for name in config.interactions:
            found[f"{name} of {config.rollouts}"] = lambda row, name=name: row["composites"].get(name)  # type: ignore[misc]
    return found


def markdown(config: Config, rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, lengths in mm; a dash where a gauge wasn't taken."""
    shown = columns(config)
    cells = [[value(row) for value in shown.values()] for row in rows]
    lines = [list(shown), ["---"] * 2 + ["--:"] * (len(shown) - 2), *cells]
    return "\n".join("| " + " | ".join("-" if cell is None else str(cell) for cell in line) + " |" for line in lines)


def main(config: Config) -> Row:
    """Measures, prints the table, and writes the file if one is wanted."""
    config = config.sized()
    if config.out is not None:
        check_writable_dir(config.out.parent)
    origin = provenance()
    rows: list[Row] = []
    for row in measure(config):
        rows.append(row)
        print(markdown(config, rows).splitlines()[-1], flush=True)
    settings = {name: value for name, value in asdict(config).items() if name != "out"}
    result = {"settings": settings, "rows": rows, **origin}
    if config.out is not None:
        write_json(config.out, result)
    print(markdown(config, rows))
    return result


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
