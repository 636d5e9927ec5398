"""The evaluation protocol of the paper: which episodes are run, and that each is run exactly once.

Rollout ``r`` of evaluation seed ``s`` has the episode seed ``2**30 + s * 2**17 + r``. Training draws its seeds below
``2**30``, so no evaluated start has been trained on; starts come from the test part of the held-state library. All
methods and pairs run the same episode seeds, so methods can be compared in pairs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from gymnasium.vector import AutoresetMode

from dexcompose_agents.artefacts.shipped import file_hash, policy_path
from dexcompose_agents.evaluation.fingerprints import environment_fingerprint, run_config
from dexcompose_agents.evaluation.full_episode import FullEpisode
from dexcompose_agents.evaluation.manifest import MANIFEST_FILE, EvaluationError, Manifest
from dexcompose_agents.evaluation.records import (
    MAX_ROLLOUTS,
    MAX_SEEDS,
    OUTCOME_NAMES,
    EpisodeRecord,
    append_episode,
    episode_seed,
    read_folder,
    tidy_episodes,
)
from dexcompose_agents.evaluation.results import summarise, write_results
from dexcompose_agents.evaluation.until_decided import UntilDecided
from dexcompose_agents.methods import CompositionMethod, make_method
from dexcompose_agents.runtime.compute import make_numpy_vec
from dexcompose_agents.runtime.interrupts import saving_to
from dexcompose_agents.runtime.progress import Advance
from dexcompose_agents.runtime.threads import one_thread
from dexcompose_envs import OUTCOMES, parse_chain, register_chain
from dexcompose_envs.checks import whole_number
from dexcompose_envs.files import lock_folder
from dexcompose_envs.options import CoreConfig
from dexcompose_envs.rollouts import Episode, Rollout, run_episodes
from dexcompose_envs.skills import composite_name

HELD_SPLIT = "test"
VARIED = {name: getattr(CoreConfig(), name) for name in ("physics", "sensor_noise")}
"""What an evaluation may vary of the environments, as it is by default; recorded in any case."""
NO_SELECTOR = "none"


class Evaluation(NamedTuple):
    """What an evaluation found."""

    records: tuple[EpisodeRecord, ...]
    """The episodes of this (pair, method, selector), in the order of the plan."""
    summary: dict[str, Any]
    """Their row of ``results.json``: success mean, SD and interval, outcome counts."""


def planned_episodes(seeds: int, rollouts: int) -> list[Episode]:
    """The episodes of seeds ``0 .. seeds - 1`` with ``rollouts`` each, in order; their tag is the evaluation seed."""
    whole_number("seeds", seeds, most=MAX_SEEDS)
    whole_number("rollouts", rollouts, most=MAX_ROLLOUTS)
    return [Episode(episode_seed(seed, rollout), tag=seed) for seed in range(seeds) for rollout in range(rollouts)]


def outcome_of(rollout: Rollout) -> str:
    """How an episode ended, one of ``OUTCOME_NAMES``; a diverged world is an ``error`` whatever else it shows.

    Raises:
        EvaluationError: If the environment cut it short, before its outcome was known.
    """
    if rollout.info.get("unstable", False):
        return "error"
    name = OUTCOMES[int(rollout.info["outcome"])]
    if name not in OUTCOME_NAMES:
        raise EvaluationError(
            f"episode {rollout.episode.seed} was cut short after {rollout.steps} steps, its outcome '{name}'; "
            "expected no max_episode_steps below the registered one"
        )
    return name


def make_worlds(pair: str, num_envs: int, **kwargs: Any) -> Any:
    """Vector environment of a pair as the protocol wants it: no autoreset, held starts of the test split, NumPy."""
    return make_numpy_vec(
        register_chain(pair), num_envs, autoreset_mode=AutoresetMode.DISABLED, held_split=HELD_SPLIT, **kwargs
    )


def method_device(backend: str, device: str | None) -> str | None:
    """Where a method's networks run beside physics on a back end; None leaves it to the method."""
    return "cuda" if backend != "mujoco" and device is None else device


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
    progress: Advance | None = None,
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
        selector: Selector whose mask is used, for a method that takes one; recorded is what the method itself says.
        backend: Physics: "mujoco" on the CPU, "warp" on a GPU, or "isaaclab". Part of the configuration: the engines
            agree within their confidence intervals, not episode by episode.
        device: Where the latter two and the method's networks run, such as "cuda:0"; by default the back end's own.
        progress: Called with ``(finished, total)`` in episodes of this run, at the start and after every episode.
        env_kwargs: Further options of the environment. With `start="scratch"` the retention skill's shipped policy
            grasps first, see `full_episode`.
        worlds: Maker of the vector environment, ``worlds(pair, num_envs, **env_kwargs)``.
        **method_kwargs: Arguments of ``make_method``, e.g. ``mask="TH+MF+RF"``.

    Raises:
        EvaluationError: On a selector that the method does not use, or a folder that holds episodes of another
            configuration (of a method whose source has changed, say).
        UsageError: On bad numbers, an unknown pair or method, a method that returns invalid actions, or a folder that
            another process is writing to.
        FileError: If a file of the folder is damaged.
        OutputError: If the folder cannot be written.
        KeyboardInterrupt: On Ctrl-C, after ``results.json`` was brought up to date; ``saved_to`` is the folder.
    """
    pair = composite_name(pair)
    plan = planned_episodes(seeds, rollouts)
    whole_number("num_envs", num_envs)
    if isinstance(method, str):
        method = make_method(method, pair, selector=selector, device=method_device(backend, device), **method_kwargs)
    elif method_kwargs:
        raise EvaluationError(f"{', '.join(sorted(method_kwargs))} given with a method instance; pass a method name")
    run = (pair, method.name, _selector_of(method, selector))
    folder = None if out is None else Path(out)
    engine = {} if backend == "mujoco" else {"backend": backend}
    options = {**(env_kwargs or {}), **engine}
    env = {"held_split": HELD_SPLIT, **VARIED, **options}
    if worlds is make_worlds:
        env |= environment_fingerprint(pair, options.get("held_states"))
    if engine:
        options["device"] = device
    grasp = None
    if options.get("start") == "scratch":
        from dexcompose_agents.diffusion.agent import PolicyAgent  # torch, which nothing else here needs

        retention = str(parse_chain(pair)[0])
        grasp = PolicyAgent.load(retention, device=method_device(backend, device) or "cpu")
        env["grasp"] = file_hash(policy_path(retention))
        env["steadied"] = True  # until the hand-over; older episodes were not
    config = run_config(pair, method, env, method_kwargs)

    with ExitStack() as stack:
        if folder is not None:
            stack.enter_context(lock_folder(folder))
            stack.enter_context(saving_to(folder))
        book = _Book(folder, run, config, {"seeds": seeds, "rollouts": rollouts, "num_envs": num_envs})
        stack.callback(book.close)
        todo = [episode for episode in plan if episode.seed not in book.records]
        if progress is not None:
            progress(len(plan) - len(todo), len(plan))
        if todo:
            stack.enter_context(one_thread())
            venv = worlds(pair, min(num_envs, len(todo)), **options)
            stack.callback(venv.close)
            agent, watcher = (
                (method, UntilDecided()) if grasp is None else [FullEpisode(method, grasp, venv.unwrapped)] * 2
            )
            rollouts_run = run_episodes(venv, agent, todo, watcher, in_order=False)
            for finished, rollout in enumerate(rollouts_run, len(plan) - len(todo) + 1):
                book.add(rollout)
                if progress is not None:
                    progress(finished, len(plan))
    kept = tuple(book.records[episode.seed] for episode in plan)
    return Evaluation(kept, summarise(kept, book.manifest)["runs"][0] | {"complete": True})


def _selector_of(method: CompositionMethod, wanted: str | None) -> str:
    """The selector to record: the method's own word, "none" without one; never one that was merely asked for."""
    selector = getattr(method, "selector", None) or NO_SELECTOR
    for what, name in (("name", method.name), ("selector", selector)):
        if not isinstance(name, str) or not name.isprintable() or "/" in name or not name:
            raise EvaluationError(f"{what} of a method must be printable text without '/', got {name!r}")
    if wanted not in (None, selector):
        uses = "uses no selector" if selector == NO_SELECTOR else f"uses selector '{selector}'"
        raise EvaluationError(f"method '{method.name}' {uses}, but selector '{wanted}' was asked for; leave it out")
    return selector


class _Book:
    """The finished episodes of one run, kept in a folder or, without one, in memory."""

    def __init__(
        self, folder: Path | None, run: tuple[str, str, str], config: dict[str, Any], plan: dict[str, int]
    ) -> None:
        self._folder, self._run, self._started = folder, run, time.monotonic()
        self.manifest, self.records = Manifest(), dict[int, EpisodeRecord]()
        if folder is not None:
            there, self.manifest = read_folder(folder, must_exist=False)
            tidy_episodes(folder)
            if there and not self.manifest.runs:
                raise EvaluationError(f"'{folder}' has episodes but no {MANIFEST_FILE}, so it cannot be resumed")
            self.records = {record.episode_seed: record for record in there if record.run == run}
        self.manifest.register("/".join(run), config, plan, folder or Path())
        if folder is not None:
            self.manifest.save(folder)

    def add(self, rollout: Rollout) -> None:
        """Enter an episode that is over; it is on disk when this returns."""
        episode = rollout.episode
        record = EpisodeRecord(*self._run, episode.tag, episode.seed, outcome_of(rollout), rollout.steps)
        if self._folder is not None:
            append_episode(self._folder, record)
        self.records[record.episode_seed] = record

    def close(self) -> None:
        """Put the episodes into the order of the plan, and bring the folder's other files up to date."""
        if self._folder is not None:
            tidy_episodes(self._folder)
            entry = self.manifest.runs["/".join(self._run)]
            entry["wall_time_s"] = round(entry["wall_time_s"] + time.monotonic() - self._started, 3)
            self.manifest.save(self._folder)
            write_results(self._folder)
