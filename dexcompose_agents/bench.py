"""The benchmark: every pair with every method, then table, videos and report; stopped and resumed at will."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from dexcompose_agents.evaluation import EvaluationError, evaluate
from dexcompose_agents.evaluation.protocol import method_device, planned_episodes
from dexcompose_agents.evaluation.report import write_report
from dexcompose_agents.evaluation.shares import share_of, take_back
from dexcompose_agents.evaluation.tables import print_tables
from dexcompose_agents.evaluation.video import load_videos, record_video, save_videos
from dexcompose_agents.methods import CompositionMethod, make_method
from dexcompose_agents.runtime.interrupts import saving_to
from dexcompose_agents.runtime.progress import progress_bar
from dexcompose_agents.runtime.side_by_side import Job, side_by_side
from dexcompose_envs import pair_names
from dexcompose_envs.artefacts import NotMadeError
from dexcompose_envs.errors import MachineError
from dexcompose_envs.files import lock_folder
from dexcompose_envs.skills import composite_name


def run_bench(
    out: Path,
    pairs: Sequence[str],
    methods: Sequence[str],
    *,
    seeds: int,
    rollouts: int,
    backend: str = "mujoco",
    device: str | None = None,
    selector: str | None = None,
    reference: str | None = None,
    videos: str = "one",
    jobs: int = 1,
    console: Console | None = None,
    make: Callable[..., CompositionMethod] = make_method,
    **evaluate_options: Any,
) -> tuple[Path, dict[str, Any]]:
    """Evaluate all pairs with all methods, print the table and write ``report.html``.

    Without ``pairs``, those for which all that the methods need has been made; the others are named.

    Options are those of the command ``dexcompose bench``, and further ones of ``evaluate``. ``make(name, pair,
    selector=...)`` makes the methods; those that take no selector are named, and recorded with "none". With several
    ``jobs`` each pair is evaluated in a process of its own, so many at a time; ``make`` only checks the methods then.
    The episodes are the same.

    Returns:
        The report's path and the content of ``results.json``.

    Raises:
        EvaluationError: If the folder holds episodes of another configuration, or two methods have one name.
        UsageError: On an unknown pair or method, before anything is run, or a folder that is in use.
        NotMadeError: If a method needs weights, for one of ``pairs`` or for every pair, that nobody has made.
        KeyboardInterrupt: On Ctrl-C, ``saved_to`` is the folder; running the same command again goes on from there.
    """
    console = console or Console()
    pairs = [composite_name(pair) for pair in dict.fromkeys(pairs)]
    if not methods:
        raise EvaluationError("no method given; expected at least one")
    planned_episodes(seeds, rollouts)
    networks = method_device(backend, device)
    options = {} if networks is None else {"device": networks}
    with lock_folder(out), saving_to(out):  # before anything is computed
        made = _methods_of(pairs, methods, partial(make, selector=selector, **options), console)
        pairs = list(made)
        _check_names(made[pairs[0]], selector, reference, console)
        take_back(out)  # of a benchmark that was killed
        shared = {"seeds": seeds, "rollouts": rollouts, "backend": backend, "device": device, **evaluate_options}
        if jobs > 1 and len(pairs) > 1:
            _evaluate_side_by_side(out, pairs, methods, options | {"selector": selector}, shared, jobs)
        else:
            for pair, methods_of_pair in made.items():
                for method in methods_of_pair:
                    with progress_bar(f"{pair}  {method.name}") as advance:
                        evaluate(pair, method, out=out, progress=advance, **shared)
        if videos != "none":
            filmed = pairs if videos == "all" else pairs[:1]
            _film(out, [(pair, method) for pair in filmed for method in made[pair]], console)
        report, results = write_report(out, reference=reference)
    print_tables(results, console)
    console.print(f"report: {report}", soft_wrap=True, markup=False)
    return report, results


def _methods_of(
    pairs: Sequence[str], methods: Sequence[str], make: Callable[..., CompositionMethod], console: Console
) -> dict[str, list[CompositionMethod]]:
    """Pair -> its methods; of all pairs, if none is given, those for which what the methods need has been made."""
    made: dict[str, list[CompositionMethod]] = {}
    missing: dict[str, NotMadeError] = {}
    for pair in pairs or pair_names():
        try:
            made[pair] = [make(name, pair) for name in methods]
        except NotMadeError as error:
            missing[pair] = error
    if missing and (pairs or not made):
        raise next(iter(missing.values()))
    if missing:
        text = f"left out: {', '.join(missing)}, since there is {next(iter(missing.values()))}"
        console.print(text, soft_wrap=True, markup=False)
    return made


def _evaluate_side_by_side(
    out: Path, pairs: Sequence[str], methods: Sequence[str], options: dict[str, Any], shared: dict[str, Any], jobs: int
) -> None:
    """Each pair in a process of its own; what they have done is in the folder, however this ends."""
    finished, total = dict.fromkeys(pairs, 0), len(pairs) * len(methods) * shared["seeds"] * shared["rollouts"]

    def job(pair: str) -> Job:
        share = share_of(out, pair)
        return Job(pair, _evaluate_pair, lambda: (share, methods, options, shared))

    def told(job: Job, episodes: int) -> None:
        finished[job.title] = episodes
        advance(sum(finished.values()), total)

    try:
        with progress_bar(f"{len(pairs)} pairs, {jobs} at a time") as advance:
            for _ in side_by_side([job(pair) for pair in pairs], jobs, told):
                pass
    finally:
        take_back(out)


def _evaluate_pair(
    share: Path, methods: Sequence[str], options: dict[str, Any], shared: dict[str, Any], tell: Callable[[int], None]
) -> None:
    """All methods on the pair that the share is named after; tells how many episodes are through."""
    done = 0

    def advance(now: float, total: float) -> None:
        tell(done + int(now))

    for name in methods:
        method = make_method(name, share.name, **options)
        done += len(evaluate(share.name, method, out=share, progress=advance, **shared).records)


def _check_names(
    methods: list[CompositionMethod], selector: str | None, reference: str | None, console: Console
) -> None:
    names = [method.name for method in methods]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise EvaluationError(f"method {', '.join(twice)} is there twice; expected methods with different names")
    if reference is not None and reference.partition("/")[0] not in names:
        raise EvaluationError(f"reference '{reference}' is none of the methods {', '.join(names)}")
    without = [method.name for method in methods if getattr(method, "selector", None) in (None, "none")]
    if selector is not None and without:
        text = f"selector '{selector}' does not apply to {', '.join(without)}, recorded with selector 'none'"
        console.print(text, soft_wrap=True, markup=False)


def _film(out: Path, methods: list[tuple[str, CompositionMethod]], console: Console) -> None:
    """Film the first episode of every pair and method that has no video yet; without a renderer, say so and go on."""
    videos, _ = load_videos(out)
    filmed = {(video.pair, video.method) for video in videos}
    todo = [(pair, method) for pair, method in methods if (pair, method.name) not in filmed]
    episode = planned_episodes(1, 1)[0]
    try:
        with progress_bar("filming one rollout per method") as advance:
            for count, (pair, method) in enumerate(todo, start=1):
                videos.append(record_video(pair, method, episode, out))
                save_videos(out, videos, None)
                advance(count, len(todo))
    except MachineError as error:
        console.print(f"no video: {error}", soft_wrap=True, markup=False)
        save_videos(out, videos, str(error))
