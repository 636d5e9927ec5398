"""The commands that aren't stages: what there is, evaluating methods, and showing what they did.

The arguments of a function, or the fields of a class, are the options of its command.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from dexcompose_agents.runtime.progress import progress_bar
from dexcompose_agents.stages.base import Backend
from dexcompose_envs.checks import LARGEST_SEED, whole_number


def list_all(pictures: Path | None = None) -> Path | None:
    """List skills, pairs, methods, selectors, presets, and what is trained.

    Args:
        pictures: Draw how every skill and pair starts into this file (png, jpg or webp) as well.
    """
    from dexcompose_agents.artefacts.shipped import pretrained_folder
    from dexcompose_agents.attribution.selectors import SELECTORS
    from dexcompose_agents.methods.registry import method_names
    from dexcompose_agents.runtime.compute import PRESETS
    from dexcompose_envs import env_id, pair_names, skill_names
    from dexcompose_envs.skills import make_skill

    for title, kind in (("retention skills (A):", "retention"), ("interaction skills (B):", "interaction")):
        print(title)
        for skill in skill_names(kind):
            print(f"  {skill:28s} {make_skill(skill).DESCRIPTION}")
    print("pairs:")
    for pair in pair_names():
        print(f"  {pair:28s} {env_id(pair)}")
    shipped = pretrained_folder()
    for title, names in (
        ("methods:", [*method_names(), "or module:Class"]),
        ("selectors:", SELECTORS),
        ("presets:", PRESETS),
        ("trained weights:", sorted(path.stem for path in shipped.glob("*.safetensors"))),
        ("masks:", sorted(path.stem for path in shipped.glob("masks/*.json"))),
    ):
        print(f"{title:30s} {', '.join(names) or 'none'}")
    if pictures is not None:
        from dexcompose_agents.sheet import draw_sheet

        draw_sheet(pictures)
    return pictures


@dataclass(kw_only=True)
class Runs:
    """What is the same for one method on one pair and for the benchmark."""

    seeds: int = 13
    """Evaluation seeds."""
    rollouts: int = 32
    """Rollouts per seed, pair and method."""
    num_envs: int = 64
    """Worlds stepped together; does not change the result."""
    backend: Backend = "mujoco"
    """Physics: mujoco on the CPU, warp on a GPU, isaaclab on either."""
    device: str | None = None
    """Where warp and the networks run, e.g. cuda:1; by default the first GPU with warp, else the CPU."""
    physics: Literal["randomised", "nominal"] = "randomised"
    """Hidden mass and friction: another draw in each episode, or the nominal ones."""
    sensor_noise: float = 0.0
    """Scale of the noise on what is observed; 1 is that of good sensors."""
    start: Literal["held", "scratch"] = "held"
    """Begin with a held object, or with the object on the table, which A's policy grasps first."""
    selector: str | None = None
    """Use the shipped masks of this selector; by default the shipped choice."""
    pretrained: Path | None = None
    """Use weights, masks and held states of this output folder of "train all"; by default the shipped."""

    @property
    def environment(self) -> dict[str, Any]:
        """Options of the environment."""
        varied = {"physics": self.physics, "sensor_noise": self.sensor_noise}
        return varied if self.start == "held" else varied | {"start": self.start}


@dataclass(kw_only=True)
class Eval(Runs):
    """Evaluate one method on one pair: fixed episodes, each run once, resumable."""

    pair: Positional[str]
    """Pair, e.g. GraspBall-PushButton."""
    method: str = "dexcompose"
    """Registered method, or module:Class."""
    mask: str | None = None
    """Preserved fingers, e.g. TH+MF+RF, or a JSON file of select-mask."""
    out: Path | None = None
    """Folder for episodes.csv and results.json; by default runs/eval/PAIR-METHOD."""

    def run(self) -> Path:
        """Evaluates, prints the table and writes the report; the folder."""
        from dexcompose_agents.artefacts.shipped import trained_in
        from dexcompose_agents.evaluation import evaluate

        out = self.out or Path("runs/eval") / f"{self.pair}-{self.method.replace(':', '.')}"
        with trained_in(self.pretrained), progress_bar(f"{self.pair}  {self.method}") as advance:
            evaluate(
                self.pair, self.method, seeds=self.seeds, rollouts=self.rollouts, num_envs=self.num_envs,
                backend=self.backend, device=self.device, selector=self.selector, mask=self.mask, out=out,
                progress=advance, env_kwargs=self.environment,
            )  # fmt: skip
        report(out)
        return out


@dataclass(kw_only=True)
class Bench(Runs):
    """Run the benchmark: all pairs with all methods, then table, videos and HTML report."""

    pairs: tuple[str, ...] = ()
    """Pairs; by default all that are trained."""
    methods: tuple[str, ...] = ("frozen", "zero-shot", "dexcompose")
    """Registered methods, or module:Class."""
    seeds: int = 2
    """Evaluation seeds."""
    rollouts: int = 10
    """Rollouts per seed."""
    jobs: int | None = None
    """Pairs at a time, each on its share of the cores; by default one per core without a GPU."""
    reference: str | None = None
    """Method that the report compares the others with; by default the last of the published table."""
    videos: Literal["one", "all", "none"] = "one"
    """Film one rollout per method on the first pair, on all pairs, or not at all."""
    out: Path = Path("runs/bench")
    """Folder for episodes, results, videos and report.html; run the command again to go on."""

    def run(self) -> Path:
        """Runs it; the folder."""
        from dexcompose_agents.artefacts.shipped import trained_in
        from dexcompose_agents.bench import run_bench
        from dexcompose_agents.runtime.side_by_side import one_per_core

        on_cpu = self.backend == "mujoco" and self.device is None
        jobs = one_per_core(on_cpu) if self.jobs is None else whole_number("jobs", self.jobs)
        with trained_in(self.pretrained):
            run_bench(
                self.out, self.pairs, self.methods, seeds=self.seeds, rollouts=self.rollouts, num_envs=self.num_envs,
                backend=self.backend, device=self.device, selector=self.selector, reference=self.reference,
                videos=self.videos, jobs=jobs, env_kwargs=self.environment,
            )  # fmt: skip
        return self.out


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
        print("outcomes: " + ", ".join(view(name, method, episodes, seed, video)))
    return video
