"""The evaluation protocol of the paper: which episodes are run, and that each is run exactly once.

Rollout ``r`` of evaluation seed ``s`` has the episode seed ``2**30 + s * 2**17 + r``. Training draws its seeds below
``2**30``, so no evaluated start has been trained on; starts come from the test part of the held-state library. All
methods and pairs run the same episode seeds, so methods can be compared in pairs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexcompose_agents.evaluation.manifest import EvaluationError, Manifest
from dexcompose_agents.evaluation.records import (
    EPISODES_FILE,
    OUTCOME_NAMES,
    EpisodeLog,
    EpisodeRecord,
    read_episodes,
)
from dexcompose_agents.evaluation.results import summarise, write_results
from dexcompose_agents.methods.base import CompositionMethod
from dexcompose_envs import OUTCOMES, parse_pair
from dexcompose_envs.episodes.phases import ONGOING
from dexcompose_envs.rollouts import Episode, Moment, Rollout, Watcher, run_episodes

__all__ = [
    "EVALUATION_SEED_BASE",
    "Evaluation",
    "EvaluationInterrupted",
    "episode_seed",
    "evaluate",
    "make_worlds",
    "planned_episodes",
]

EVALUATION_SEED_BASE = 2**30
"""Episode seeds from here on belong to evaluation; training, demonstrations and libraries use smaller ones."""
MAX_ROLLOUTS = 2**17
MAX_SEEDS = 2**13
HELD_SPLIT = "test"
NO_SELECTOR = "none"

Progress = Callable[[int, int], None]
"""``progress(finished, total)`` in episodes of this run, called once at the start and after every episode."""


class EvaluationInterrupted(KeyboardInterrupt):
    """Ctrl-C during an evaluation, after everything that had finished was saved.

    Attributes:
        saved_to: The folder with the finished episodes; ``None`` if none was asked for.
    """

    def __init__(self, saved_to: Path | None) -> None:
        """Remember where the finished episodes are."""
        super().__init__("evaluation interrupted")
        self.saved_to = saved_to


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        records: The episodes of this (pair, method, selector), in the order of the plan.
        summary: Their row of ``results.json``: success mean, SD and interval, outcome counts.
        out: The folder written to, ``None`` without one.
    """

    records: tuple[EpisodeRecord, ...]
    summary: dict[str, Any]
    out: Path | None


def episode_seed(seed: int, rollout: int) -> int:
    """``2**30 + seed * 2**17 + rollout``: distinct for all valid arguments, and below ``2**31``.

    Raises:
        EvaluationError: If ``seed`` is not in [0, 8192) or ``rollout`` not in [0, 131072).
    """
    if not 0 <= seed < MAX_SEEDS:
        raise EvaluationError(f"evaluation seed must lie in [0, {MAX_SEEDS}), got {seed}")
    if not 0 <= rollout < MAX_ROLLOUTS:
        raise EvaluationError(f"rollout index must lie in [0, {MAX_ROLLOUTS}), got {rollout}")
    return EVALUATION_SEED_BASE + seed * MAX_ROLLOUTS + rollout


def planned_episodes(seeds: int, rollouts: int) -> list[Episode]:
    """The episodes of seeds ``0 .. seeds - 1`` with ``rollouts`` each, in order; their tag is the evaluation seed.

    Raises:
        EvaluationError: If a number is below 1 or too large.
    """
    for name, value, limit in (("seeds", seeds, MAX_SEEDS), ("rollouts", rollouts, MAX_ROLLOUTS)):
        if not 1 <= value <= limit:
            raise EvaluationError(f"{name} must lie in [1, {limit}], got {value}")
    return [Episode(episode_seed(seed, rollout), tag=seed) for seed in range(seeds) for rollout in range(rollouts)]


class UntilDecided(Watcher):
    """Ends an episode as soon as its outcome is known: a failed one need not wait for the time limit."""

    def step(self, moment: Moment) -> NDArray[np.bool_]:
        """Worlds (N,) that are through."""
        return moment.ended | (np.asarray(moment.info["outcome"]) != ONGOING)


def outcome_of(rollout: Rollout) -> str:
    """How an episode ended, one of ``OUTCOME_NAMES``; a diverged world is an ``error`` whatever else it shows.

    Raises:
        EvaluationError: If the environment ended it without an outcome.
    """
    if rollout.info.get("unstable", False):
        return "error"
    name = OUTCOMES[int(rollout.info["outcome"])]
    if name not in OUTCOME_NAMES:
        raise EvaluationError(f"episode {rollout.episode.seed} ended with outcome '{name}' of the environment")
    return name


def make_worlds(pair: str, num_envs: int, **kwargs: Any) -> Any:
    """Vector environment of a pair as the protocol wants it: no autoreset, held starts of the test split, NumPy."""
    import gymnasium as gym

    from dexcompose_agents.runtime.numpy_worlds import make_numpy_vec
    from dexcompose_envs import env_id

    return make_numpy_vec(
        env_id(pair),
        num_envs=num_envs,
        autoreset_mode=gym.vector.AutoresetMode.DISABLED,
        held_split=HELD_SPLIT,
        **kwargs,
    )


def method_device(backend: str, device: str | None) -> str | None:
    """Where a method's networks run beside physics on a back end; None leaves it to the method."""
    return "cuda" if backend == "warp" and device is None else device


def environment_fingerprint(pair: str) -> dict[str, str]:
    """What decides the physics and the starts of a pair: environment version, hash of the model, held-state library."""
    from dexcompose_agents.artefacts.pretrained_files import file_hash
    from dexcompose_envs import __version__
    from dexcompose_envs.held_states import held_states_folder
    from dexcompose_envs.scene import build_scene

    skill_a, skill_b = parse_pair(pair)
    library = held_states_folder() / f"{skill_a}.npz"
    return {
        "version": __version__,
        "model_hash": str(build_scene(skill_a, skill_b).model_hash),
        "held_states": file_hash(library) if library.is_file() else "none",
    }


def _config(pair: str, method: CompositionMethod, env: dict[str, Any]) -> dict[str, Any]:
    from importlib import metadata

    describe = getattr(method, "describe", None)
    return {
        "pair": pair,
        "env": {"held_split": HELD_SPLIT, **env},
        "method": {"name": method.name, **(describe() if describe is not None else {})},
        "episode_seed": "2**30 + seed * 2**17 + rollout",
        "mujoco": metadata.version("mujoco"),
    }


def evaluate(
    pair: str,
    method: str | CompositionMethod,
    *,
    seeds: int = 13,
    rollouts: int = 32,
    num_envs: int = 64,
    out: Path | str | None = None,
    selector: str | None = None,
    backend: str = "mujoco",
    device: str | None = None,
    progress: Progress | None = None,
    env_kwargs: dict[str, Any] | None = None,
    worlds: Callable[..., Any] = make_worlds,
    **method_kwargs: Any,
) -> Evaluation:
    """Run ``seeds x rollouts`` episodes of a method on a pair, each exactly once.

    With ``out``, every episode is appended to ``out/episodes.csv`` as it ends, and an evaluation that was stopped goes
    on where it was: episodes already there are not run again, provided the manifest says that they were made with the
    same configuration. A folder may hold several pairs and methods; ``results.json`` covers all of them.

    Args:
        pair: "GraspBall-PushButton".
        method: A registered name, "module:Class", or an instance.
        seeds: Number of evaluation seeds.
        rollouts: Rollouts per seed.
        num_envs: Worlds stepped together; does not change the result.
        out: Folder for ``episodes.csv``, ``results.json`` and ``manifest.json``.
        selector: Selector whose mask is used; by default the method's own ("none" if it has no mask).
        backend: Physics: "mujoco" on the CPU, or "warp" on a GPU. Part of the configuration: the engines agree within
            their confidence intervals, not episode by episode.
        device: Where "warp" and the method's networks run, such as "cuda:0"; by default the back end's own.
        progress: Called with ``(finished, total)``.
        env_kwargs: Further arguments of the environment.
        worlds: Maker of the vector environment, ``worlds(pair, num_envs, **env_kwargs)``.
        **method_kwargs: Arguments of ``make_method``, e.g. ``mask="TH+MF+RF"``.

    Raises:
        EvaluationError: On bad numbers, a folder that cannot be written or that holds other episodes, or a method
            that returns invalid actions.
        ValueError: On an unknown pair or method.
        EvaluationInterrupted: On Ctrl-C, after ``results.json`` was brought up to date.
    """
    pair = "-".join(parse_pair(pair))
    plan = planned_episodes(seeds, rollouts)
    if num_envs < 1:
        raise EvaluationError(f"num_envs must be at least 1, got {num_envs}")
    if isinstance(method, str):
        from dexcompose_agents.methods import make_method

        method = make_method(method, pair, selector=selector, device=method_device(backend, device), **method_kwargs)
    elif method_kwargs:
        raise EvaluationError(f"{', '.join(sorted(method_kwargs))} given with a method instance; pass a method name")
    selector = selector or getattr(method, "selector", None) or NO_SELECTOR
    run = (pair, method.name, selector)
    folder = None if out is None else Path(out)
    env_kwargs = dict(env_kwargs or {})
    if backend != "mujoco":
        env_kwargs["backend"] = backend
    env = {key: value if isinstance(value, (str, int, float)) else repr(value) for key, value in env_kwargs.items()}
    if worlds is make_worlds:
        env |= environment_fingerprint(pair)
    if backend != "mujoco":
        env_kwargs["device"] = device
    manifest, done = _open_run(folder, run, _config(pair, method, env), seeds, rollouts, num_envs)
    records = {record.episode_seed: record for record in done}
    todo = [episode for episode in plan if episode.seed not in records]
    if progress is not None:
        progress(len(plan) - len(todo), len(plan))

    log = EpisodeLog(folder) if folder is not None else None
    started = time.monotonic()
    venv = None
    try:
        if todo:
            venv = worlds(pair, min(num_envs, len(todo)), **env_kwargs)
            rollouts_run = run_episodes(venv, method, todo, UntilDecided(), in_order=False)
            for finished, rollout in enumerate(rollouts_run, len(plan) - len(todo) + 1):
                episode = rollout.episode
                record = EpisodeRecord(*run, episode.tag, episode.seed, outcome_of(rollout), rollout.steps)
                if log is not None:
                    log.append(record)
                records[episode.seed] = record
                if progress is not None:
                    progress(finished, len(plan))
    except KeyboardInterrupt:
        raise EvaluationInterrupted(folder) from None
    finally:
        if venv is not None and hasattr(venv, "close"):
            venv.close()
        if log is not None:
            log.close()
        if folder is not None:
            manifest.add_wall_time("/".join(run), time.monotonic() - started)
            manifest.save(folder)
            write_results(folder)
    kept = tuple(records[episode.seed] for episode in plan)
    return Evaluation(records=kept, summary=summarise(kept, manifest)["runs"][0], out=folder)


def _open_run(
    folder: Path | None, run: tuple[str, str, str], config: dict[str, Any], seeds: int, rollouts: int, num_envs: int
) -> tuple[Manifest, list[EpisodeRecord]]:
    """The manifest with this run entered, and the episodes of the run that are already there."""
    plan = {"seeds": seeds, "rollouts": rollouts, "num_envs": num_envs}
    if folder is None:
        manifest = Manifest()
        manifest.register("/".join(run), config, plan, Path())
        return manifest, []
    EpisodeLog(folder).close()  # creates the file, mends its last line, and proves that the folder can be written
    records = read_episodes(folder)
    manifest = Manifest.load(folder, must_exist=bool(records))
    key = "/".join(run)
    done = [record for record in records if record.run == run]
    if done and key not in manifest.runs:
        raise EvaluationError(f"'{folder}/{EPISODES_FILE}' has episodes of {key} that its manifest does not know")
    manifest.register(key, config, plan, folder)
    manifest.save(folder)
    return manifest, done
