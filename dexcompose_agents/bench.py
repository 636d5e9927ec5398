"""The benchmark: every pair with every method, then table, videos and report; stopped and resumed at will."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dexcompose_agents.evaluation import EvaluationInterrupted, evaluate
from dexcompose_agents.evaluation.manifest import EvaluationError
from dexcompose_agents.evaluation.protocol import method_device, planned_episodes
from dexcompose_agents.evaluation.records import EpisodeLog
from dexcompose_agents.evaluation.report import write_report
from dexcompose_agents.evaluation.tables import terminal_table
from dexcompose_agents.evaluation.video import Video, VideoError, load_videos, record_video, save_videos
from dexcompose_agents.methods import CompositionMethod, make_method
from dexcompose_envs import PAIRS, parse_pair

__all__ = ["DEFAULT_METHODS", "BenchConfig", "run_bench"]

DEFAULT_METHODS = ("frozen", "zero-shot", "dexcompose")

MethodMaker = Callable[..., CompositionMethod]


@dataclass(frozen=True)
class BenchConfig:
    """What is benchmarked.

    Attributes:
        pairs: Names of pairs; all pairs if empty.
        methods: Registered names or "module:Class".
        seeds: Evaluation seeds.
        rollouts: Rollouts per seed, pair and method.
        num_envs: Worlds stepped together; does not change the result.
        selector: Selector whose shipped masks are used, by default the shipped choice.
        backend: Physics, see ``evaluate``.
        device: Where "warp" and the methods' networks run.
        out: Folder for episodes, results, videos and report.
        videos: "one" films one rollout per method on the first pair, "all" on every pair, "none" none.
    """

    pairs: tuple[str, ...] = ()
    methods: tuple[str, ...] = DEFAULT_METHODS
    seeds: int = 8
    rollouts: int = 32
    num_envs: int = 64
    selector: str | None = None
    backend: str = "mujoco"
    device: str | None = None
    out: Path = Path("runs/bench")
    videos: Literal["one", "all", "none"] = "one"


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rollouts"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def run_bench(
    config: BenchConfig, console: Console | None = None, *, make: MethodMaker = make_method, **evaluate_options: Any
) -> tuple[Path, dict[str, Any]]:
    """Evaluate all pairs with all methods, print the table and write ``report.html``.

    Args:
        config: What to run.
        console: Where to print.
        make: Maker of methods, ``make(name, pair, selector=...)``.
        **evaluate_options: Passed on to ``evaluate``.

    Returns:
        The report's path and the content of ``results.json``.

    Raises:
        EvaluationError: If the folder cannot be written or holds episodes of another configuration.
        ValueError: On an unknown pair or method, before anything is run.
        EvaluationInterrupted: On Ctrl-C; running the same command again goes on from there.
    """
    console = console or Console()
    pairs = ["-".join(parse_pair(pair)) for pair in config.pairs or ("-".join(pair) for pair in PAIRS)]
    if not config.methods:
        raise EvaluationError("no method given; expected at least one")
    planned_episodes(config.seeds, config.rollouts)
    EpisodeLog(config.out).close()  # proves that the folder can be written, before anything is computed
    device = method_device(config.backend, config.device)
    options = {} if device is None else {"device": device}
    methods = {
        (pair, name): make(name, pair, selector=config.selector, **options) for pair in pairs for name in config.methods
    }
    total = config.seeds * config.rollouts
    width = max(len(f"{pair}  {method.name}") for (pair, _), method in methods.items())
    with _progress(console) as progress:
        for (pair, _), method in methods.items():
            task = progress.add_task(f"{pair}  {method.name}".ljust(width), total=total)

            def advance(done: int, _total: int, task: Any = task) -> None:
                progress.update(task, completed=done)

            evaluate(
                pair,
                method,
                seeds=config.seeds,
                rollouts=config.rollouts,
                num_envs=config.num_envs,
                backend=config.backend,
                device=config.device,
                out=config.out,
                progress=advance,
                **evaluate_options,
            )
    if config.videos != "none":
        filmed = pairs if config.videos == "all" else pairs[:1]
        _film(config.out, {key: method for key, method in methods.items() if key[0] in filmed}, console)
    report, results = write_report(config.out)
    console.print(terminal_table(results))
    console.print(f"report: {report}", soft_wrap=True)
    return report, results


def _film(out: Path, methods: dict[tuple[str, str], CompositionMethod], console: Console) -> None:
    """Film the first episode of every pair and method that has no video yet; without a renderer, say so and go on."""
    videos, _ = load_videos(out)
    note: str | None = None
    todo = _without_video(videos, methods)
    episode = planned_episodes(1, 1)[0]
    try:
        with console.status("filming one rollout per method"):
            for pair, method in todo:
                videos.append(record_video(pair, method, episode, out))
                save_videos(out, videos, None)
    except VideoError as error:
        note = str(error)
        console.print(f"[yellow]no video:[/yellow] {note}", soft_wrap=True)
        save_videos(out, videos, note)
    except KeyboardInterrupt:
        raise EvaluationInterrupted(out) from None


def _without_video(
    videos: Sequence[Video], methods: dict[tuple[str, str], CompositionMethod]
) -> list[tuple[str, CompositionMethod]]:
    filmed = {(video.pair, video.method) for video in videos}
    return [(pair, method) for (pair, _), method in methods.items() if (pair, method.name) not in filmed]
