"""Evaluating methods, and showing what they did."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from dexcompose_agents.runtime.progress import progress_bar
from dexcompose_agents.stages.base import Backend
from dexcompose_envs.checks import LARGEST_SEED, whole_number


def evaluate_pair(
    pair: Positional[str],
    method: str = "dexcompose",
    seeds: int = 13,
    rollouts: int = 32,
    num_envs: int = 64,
    backend: Backend = "mujoco",
    device: str | None = None,
    selector: str | None = None,
    mask: str | None = None,
    pretrained: Path | None = None,
    out: Path | None = None,
) -> Path:
    """Evaluate one method on one pair: fixed episodes, each run once, resumable.

    Args:
        pair: Pair, e.g. GraspBall-PushButton.
        method: Registered method, or module:Class.
        seeds: Evaluation seeds.
        rollouts: Rollouts per seed.
        num_envs: Worlds stepped together; does not change the result.
        backend: Physics: mujoco on the CPU, warp on a GPU.
        device: Where warp and the networks run, e.g. cuda:1; by default the first GPU with warp, else the CPU.
        selector: Use the shipped mask of this selector; by default the shipped choice.
        mask: Preserved fingers, e.g. TH+MF+RF, or a JSON file of select-mask.
        pretrained: Use weights, masks and held states of this output folder of "train all"; by default the shipped.
        out: Folder for episodes.csv and results.json; by default runs/eval/PAIR-METHOD.
    """
    from dexcompose_agents.artefacts.shipped import trained_in
    from dexcompose_agents.evaluation import evaluate
    from dexcompose_envs.skills import composite_name

    composite_name(pair)
    out = out or Path("runs/eval") / f"{pair}-{method.replace(':', '.')}"
    with trained_in(pretrained), progress_bar(f"{pair}  {method}") as advance:
        evaluate(
            pair, method, seeds=seeds, rollouts=rollouts, num_envs=num_envs, selector=selector, mask=mask, out=out,
            progress=advance, backend=backend, device=device,
        )  # fmt: skip
    report(out)
    return out


def bench(
    pairs: tuple[str, ...] = (),
    methods: tuple[str, ...] = ("frozen", "zero-shot", "dexcompose"),
    seeds: int = 8,
    rollouts: int = 32,
    num_envs: int = 64,
    backend: Backend = "mujoco",
    device: str | None = None,
    selector: str | None = None,
    reference: str | None = None,
    videos: Literal["one", "all", "none"] = "one",
    pretrained: Path | None = None,
    out: Path = Path("runs/bench"),
) -> Path:
    """Run the benchmark: all pairs with all methods, then table, videos and HTML report.

    Args:
        pairs: Pairs; by default all.
        methods: Registered methods, or module:Class.
        seeds: Evaluation seeds.
        rollouts: Rollouts per seed, pair and method.
        num_envs: Worlds stepped together; does not change the result.
        backend: Physics: mujoco on the CPU, warp on a GPU.
        device: Where warp and the networks run, e.g. cuda:1; by default the first GPU with warp, else the CPU.
        selector: Use the shipped masks of this selector; by default the shipped choice.
        reference: Method that the report compares the others with; by default the last of the published table.
        videos: Film one rollout per method on the first pair, on all pairs, or not at all.
        pretrained: Use weights, masks and held states of this output folder of "train all"; by default the shipped.
        out: Folder for episodes, results, videos and report.html; run the command again to go on.
    """
    from dexcompose_agents.artefacts.shipped import trained_in
    from dexcompose_agents.bench import run_bench

    with trained_in(pretrained):
        run_bench(
            out, pairs, methods, seeds=seeds, rollouts=rollouts, num_envs=num_envs, backend=backend, device=device,
            selector=selector, reference=reference, videos=videos,
        )  # fmt: skip
    return out


def report(folder: Positional[Path], out: Path | None = None, reference: str | None = None) -> Path:
    """Print the table and write the HTML report of a results folder, from its episodes*.csv.

    Args:
        folder: Folder written by eval or bench.
        out: HTML file; by default FOLDER/report.html.
        reference: Method that the others are compared with; by default the last of the published table.
    """
    from rich.console import Console

    from dexcompose_agents.evaluation.report import write_report
    from dexcompose_agents.evaluation.tables import print_tables

    path, results = write_report(folder, out, reference)
    print_tables(results, Console())
    return path


def watch(
    name: Positional[str],
    method: str = "dexcompose",
    episodes: int = 1,
    seed: int = 0,
    video: Path | None = None,
    pretrained: Path | None = None,
) -> Path | None:
    """Watch a pair or a single skill, in a window or as a video.

    Args:
        name: Pair (GraspBall-PushButton) or skill (PushButton).
        method: Composition method of a pair; a single skill shows its base policy.
        episodes: Episodes to show.
        seed: Seed of the first episode.
        video: Write a video to this file instead of opening a window.
        pretrained: Use weights, masks and held states of this output folder of "train all"; by default the shipped.
    """
    from dexcompose_agents.artefacts.shipped import trained_in
    from dexcompose_agents.viewing import view

    whole_number("seed", seed, 0, LARGEST_SEED)
    with trained_in(pretrained):
        outcomes = view(name, method, episodes, seed, video)
    print("outcomes: " + ", ".join(outcomes))
    return video
