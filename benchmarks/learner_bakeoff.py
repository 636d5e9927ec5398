"""Compares learners of residual B, PPO with SAC, TQC and CrossQ, on shipped policies, masks and stabilisers.

    python benchmarks/learner_bakeoff.py --pairs GraspBall-PushButton --learners ppo sac --seeds 0 1
    python benchmarks/learner_bakeoff.py --summary

Every run (pair, learner, seed) gets the same control steps and the same seconds, whichever are used up first, and
writes one JSON file: its curve on the training's own fixed episodes, against control steps and against seconds of
collection and updates (evaluation takes the same time for all), and how the last and the best policy do on episodes and
held states that no training sees. A run that is there is skipped, an interrupted one goes on from its checkpoint, and
one that was made from other settings, weights or physics is refused.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

from dexcompose_agents.artefacts.shipped import choose_mask, file_hash, policy_path, stabiliser_path
from dexcompose_agents.diffusion.policy import load_policy
from dexcompose_agents.residual.config import ResidualBConfig, residual_b_preset
from dexcompose_agents.residual.residual_b_task import ResidualBTask
from dexcompose_agents.residual.stabiliser import StabiliserPolicy
from dexcompose_agents.rl.actor_critic import DeterministicPolicy
from dexcompose_agents.rl.learners import LEARNER_SETTINGS, find_learner
from dexcompose_agents.rl.policy_evaluation import EVALUATION_SEED, Policy, evaluate
from dexcompose_agents.runtime.interrupts import Paused
from dexcompose_agents.runtime.provenance import machine_info, read_json, software_versions, write_json
from dexcompose_envs import parse_pair
from dexcompose_envs.artefacts import difference
from dexcompose_envs.errors import FileError
from dexcompose_envs.held_states import held_states_folder
from dexcompose_envs.scene import model_hash_of

HELD_OUT_SEED = 2**30 + 500_000
"""First seed of held-out episodes; trainings use seeds below 2^30."""
MAY_DIFFER = ("device", "max_seconds", "total_steps")
"""Budgets, which a curve tells by itself."""


@dataclass
class Settings:
    """What to compare."""

    pairs: tuple[str, ...] = ("GraspBall-PushButton", "PickStick-PushButton")
    """Pairs of skills."""
    learners: tuple[str, ...] = ("ppo", "sac", "tqc", "crossq")
    """Learners by name."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Training seeds."""
    steps: int | None = None
    """Control steps of a run over all worlds; by default the preset's."""
    max_seconds: float | None = None
    """Seconds of a run; by default no limit."""
    preset: Literal["cpu", "test"] = "cpu"
    """Settings of the trainings."""
    prefer: bool = False
    """Whether off-policy learners use the residual only where their critics prefer it; give another --out then."""
    held_out_rounds: int = 4
    """Held-out episodes per world."""
    threads: int = 1
    """Threads of torch and of the simulator."""
    minutes: float | None = None
    """Stop after so many minutes with everything saved; the same command goes on. By default no limit."""
    out: Path = Path("benchmarks/results/learner_bakeoff")
    """Folder of the results."""
    work: Path = Path("runs/learner_bakeoff")
    """Folder of checkpoints; a run's are removed when it is through."""
    summary: bool = False
    """Only print the table of what is there."""


class Pair:
    """A pair with what ships for it.

    Args:
        name: Such as "GraspBall-PushButton".
    """

    def __init__(self, name: str) -> None:
        self.name, (self._a, self._b) = name, parse_pair(name)
        self._mask = choose_mask(name)[0]
        self._paths = {"base policy": policy_path(self._b), "stabiliser": stabiliser_path(name)}
        library = held_states_folder() / f"{self._a}.npz"
        self.made_from = {
            "pair": name,
            "mask": str(self._mask),
            "model_hash": model_hash_of(name),
            "inputs": {what: file_hash(path) for what, path in {**self._paths, "held states": library}.items()},
        }

    def task(self, config: ResidualBConfig, held_split: str) -> ResidualBTask:
        """The task on one part of the held states: "train" or "test"."""
        policy = load_policy(self._b, path=self._paths["base policy"])
        stabiliser = StabiliserPolicy.load(self._paths["stabiliser"], skill=self._a)
        return ResidualBTask(self.name, self._mask, policy, stabiliser, config, held_split=held_split)

    def held_out(self, config: ResidualBConfig, policy: Policy | None, rounds: int) -> dict[str, float]:
        """How a policy does on held-out episodes."""
        return self._evaluate(config, "test", policy, rounds, HELD_OUT_SEED)

    def base(self, config: ResidualBConfig, rounds: int) -> dict[str, dict[str, float]]:
        """How the base arm does, on held-out episodes and on those by which trainings rank."""
        ranking = self._evaluate(config, "train", None, config.learning.evaluation_rounds, EVALUATION_SEED)
        return {"held_out": rounded(self.held_out(config, None, rounds)), "ranking": rounded(ranking)}

    def _evaluate(
        self, config: ResidualBConfig, held_split: str, policy: Policy | None, rounds: int, seed: int
    ) -> dict[str, float]:
        task = self.task(config, held_split)
        try:
            return evaluate(task, policy, rounds, seed)
        finally:
            task.close()


def config_of(settings: Settings, learner: str, seed: int) -> ResidualBConfig:
    """Settings of a run."""
    config = residual_b_preset(settings.preset, learner=learner, num_threads=settings.threads)
    changes: dict[str, Any] = {"seed": seed, "max_seconds": settings.max_seconds}
    if settings.steps is not None:
        changes["total_steps"] = settings.steps
    if settings.prefer and hasattr(config.learning, "prefer"):
        changes["prefer"] = True
    name = find_learner(learner).SETTINGS
    return replace(config, **{name: replace(config.learning, **changes)})


def origin(pair: Pair, config: ResidualBConfig) -> dict[str, Any]:
    """All that a run is made from but its budget, ready for JSON."""
    task = {name: value for name, value in asdict(config).items() if name not in (*LEARNER_SETTINGS, "num_threads")}
    learning = {name: value for name, value in asdict(config.learning).items() if name not in MAY_DIFFER}
    found: dict[str, Any] = json.loads(json.dumps({**pair.made_from, "task": task, "learning": learning}))
    return found


def curve(trainer: Any) -> list[dict[str, float]]:
    """One row per evaluation, with control steps and seconds of collection and updates until then."""
    seconds, total = {0: 0.0}, 0.0
    for row in trainer.metrics:
        total += row["collect_seconds"] + row["update_seconds"]
        seconds[int(row["iteration"])] = total
    return [
        {
            "steps": row["steps"],
            "seconds": round(seconds[int(row["iteration"])], 2),
            **{name: round(row[f"composed_{name}"], 5) for name in ("success", "return", "held", "done")},
        }
        for row in trainer.evaluations
    ]


def run(
    settings: Settings, pair: Pair, learner: str, seed: int, base: Mapping[str, Any], remaining: float | None
) -> dict[str, Any]:
    """Trains and judges; goes on where an interrupted call stopped. `base` is what `Pair.base` gives."""
    config = config_of(settings, learner, seed)
    made_from, work = origin(pair, config), settings.work / pair.name / f"{learner}-{seed}"
    task = pair.task(config, "train")
    try:
        trainer: Any = find_learner(learner)(
            task, config.learning, out=work, score=("success", "return"), identity=made_from, base=base["ranking"]
        )
        best = trainer.train(remaining)
    finally:
        task.close()
    winner, rounds = trainer.best_evaluation(), settings.held_out_rounds
    last_score = pair.held_out(config, DeterministicPolicy(trainer.network), rounds)
    kept = winner["composed_success"] > winner["base_success"]
    if not kept:
        best_score = dict(base["held_out"])  # no residual, where none succeeded more often
    elif winner is trainer.evaluations[-1]:
        best_score = last_score
    else:
        best_score = pair.held_out(config, DeterministicPolicy(best), rounds)
    points = curve(trainer)
    return {
        "learner": learner,
        "seed": seed,
        "made_from": made_from,
        "curve": points,
        "held_out": {
            "episodes": rounds * config.learning.num_envs,
            "kept": kept,
            "final": rounded(last_score),
            "best": rounded(best_score),
        },
        "steps_per_second": round(points[-1]["steps"] / max(points[-1]["seconds"], 1e-9), 1),
        "threads": settings.threads,
        "machine": machine_info(),
        "versions": software_versions(),
    }


def rounded(scores: Mapping[str, float]) -> dict[str, float]:
    """Numbers for a file."""
    return {name: round(value, 5) for name, value in scores.items()}


def stored(path: Path, made_from: Mapping[str, Any]) -> dict[str, Any] | None:
    """A result that is there; a FileError if it was made from something else."""
    if not path.exists():
        return None
    found: dict[str, Any] = read_json(path)
    if (other := difference(found["made_from"], made_from, "made_from")) is not None:
        raise FileError(f"'{path}' is of another comparison: its {other}; remove it or give another --out")
    return found


def compare(settings: Settings) -> None:
    """Makes what is missing."""
    ends = None if settings.minutes is None else time.monotonic() + 60 * settings.minutes
    for name in settings.pairs:
        pair, folder = Pair(name), settings.out / name
        config = config_of(settings, "ppo", 0)
        made_from = {name: value for name, value in origin(pair, config).items() if name != "learning"}
        made_from |= {"rounds": settings.held_out_rounds, "worlds": config.learning.num_envs}
        base = stored(folder / "base.json", made_from)
        if base is None:
            base = {"made_from": made_from, **pair.base(config, settings.held_out_rounds)}
            write_json(folder / "base.json", base)
        for seed in settings.seeds:
            for learner in settings.learners:
                path = folder / f"{learner}-{seed}.json"
                if stored(path, origin(pair, config_of(settings, learner, seed))) is not None:
                    continue
                remaining = None if ends is None else max(1e-6, (ends - time.monotonic()) / 60)
                write_json(path, run(settings, pair, learner, seed, base, remaining))
                shutil.rmtree(settings.work / name / f"{learner}-{seed}", ignore_errors=True)
                print(f"{name} {learner} seed {seed}: done", flush=True)


def best_so_far(points: Sequence[Mapping[str, float]], axis: str, limit: float) -> float:
    """Success of the best policy found within so many steps or seconds, on the training's own episodes."""
    return max(point["success"] for point in points if point[axis] <= limit)


def rows(out: Path, pairs: Sequence[str], learners: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The table's rows."""
    for pair in pairs:
        found = {
            learner: [read_json(path) for path in sorted((out / pair).glob(f"{learner}-*.json"))]
            for learner in learners
        }
        every = [result for results in found.values() for result in results]
        if not every:
            continue
        common = {axis: min(result["curve"][-1][axis] for result in every) for axis in ("steps", "seconds")}
        base = read_json(out / pair / "base.json")["held_out"]["success"]
        yield (pair, "base", "", f"{base:.1%}", f"{base:.1%}", "", "", "")
        for learner, results in found.items():
            if not results:
                continue
            held_out = [result["held_out"] for result in results]
            yield (
                "",
                learner,
                str(len(results)),
                spread([each["final"]["success"] for each in held_out]),
                spread([each["best"]["success"] for each in held_out]),
                spread([best_so_far(result["curve"], "steps", common["steps"]) for result in results]),
                spread([best_so_far(result["curve"], "seconds", common["seconds"]) for result in results]),
                f"{statistics.mean(result['steps_per_second'] for result in results):,.0f}",
            )


def spread(values: Sequence[float]) -> str:
    """Mean, least and greatest."""
    return f"{statistics.mean(values):.1%} ({min(values):.1%} to {max(values):.1%})"


def main(settings: Settings) -> None:
    """Compares, and prints the table."""
    torch.set_num_threads(settings.threads)
    if not settings.summary:
        try:
            compare(settings)
        except Paused as pause:
            sys.exit(str(pause))
    table = Table(title="Success: mean over seeds (least to greatest)", caption=(
        "held out: episodes and held states that no training sees; equal: best policy within the steps or seconds that "
        "all runs of the pair had, on the training's own episodes"
    ))  # fmt: skip
    columns = ("pair", "learner", "seeds", "held out, final", "held out, best", "equal steps", "equal s", "steps/s")
    for column in columns:
        table.add_column(column)
    for row in rows(settings.out, settings.pairs, settings.learners):
        table.add_row(*row)
    Console(width=170).print(table)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
