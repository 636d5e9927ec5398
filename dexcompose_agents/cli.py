"""The ``dexcompose`` command: every stage from demonstrations to the results table.

Each subcommand is a dataclass, so its help text, its defaults and its documentation are one thing; the module that does
the work is imported only when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, subcommand

from dexcompose_agents.runtime.graphics import choose_gl_backend
from dexcompose_agents.runtime.progress import progress_bar
from dexcompose_agents.stages.commands import Demos, ReleaseTest, SelectMask, Train, check_name, check_seed

__all__ = ["main"]

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
TRACEBACK_VARIABLE = "DEXCOMPOSE_TRACEBACK"
"""Set to 1 to see the traceback of an error."""


@dataclass
class List:
    """List skills, pairs, methods, selectors, and what is trained."""

    def run(self) -> Path | None:
        """Print the names that the other commands take."""
        from dexcompose_agents.artefacts.pretrained_files import pretrained_folder
        from dexcompose_agents.methods.registry import method_names
        from dexcompose_envs import INTERACTION_SKILLS, PAIRS, RETENTION_SKILLS, env_id

        print("retention skills (A):   " + ", ".join(RETENTION_SKILLS))
        print("interaction skills (B): " + ", ".join(INTERACTION_SKILLS))
        print("pairs:")
        for pair in PAIRS:
            print(f"  {'-'.join(pair):28s} {env_id('-'.join(pair))}")
        print("methods:                " + ", ".join(method_names()) + ", or module:Class")
        print("selectors:              heuristic, utility")
        for title, pattern in (("trained weights:", "*.safetensors"), ("masks:", "masks/*.json")):
            names = sorted(path.stem for path in pretrained_folder().glob(pattern))
            print(f"{title:23s} " + (", ".join(names) or "none"))
        return None


@dataclass
class Eval:
    """Evaluate one method on one pair: fixed episodes, each run once, resumable."""

    pair: Positional[str]
    """Pair, e.g. GraspBall-PushButton."""
    method: str = "dexcompose"
    """Registered method, or module:Class."""
    seeds: int = 13
    """Evaluation seeds."""
    rollouts: int = 32
    """Rollouts per seed."""
    num_envs: int = 64
    """Worlds stepped together; does not change the result."""
    backend: Literal["mujoco", "warp"] = "mujoco"
    """Physics: mujoco on the CPU, warp on a GPU."""
    device: str | None = None
    """Where warp and the networks run, e.g. cuda:1; by default the first GPU with warp, else the CPU."""
    selector: str | None = None
    """Use the shipped mask of this selector; by default the shipped choice."""
    mask: str | None = None
    """Preserved fingers, e.g. TH+MF+RF, or a JSON file of select-mask."""
    pretrained: Path | None = None
    """Use weights, masks and held states of this output folder of "train all"; by default the shipped ones."""
    out: Path | None = None
    """Folder for episodes.csv and results.json; by default runs/eval/PAIR-METHOD."""

    def run(self) -> Path | None:
        """Evaluate and print the table."""
        from rich.console import Console

        from dexcompose_agents.artefacts.pretrained_files import trained_in
        from dexcompose_agents.evaluation import evaluate
        from dexcompose_agents.evaluation.report import write_report
        from dexcompose_agents.evaluation.tables import terminal_table

        check_name(self.pair, "pair")
        self.out = self.out or Path("runs/eval") / f"{self.pair}-{self.method.replace(':', '.')}"
        with trained_in(self.pretrained), progress_bar(f"{self.pair}  {self.method}") as advance:
            evaluate(
                self.pair, self.method, seeds=self.seeds, rollouts=self.rollouts, num_envs=self.num_envs,
                selector=self.selector, mask=self.mask, out=self.out, progress=advance, backend=self.backend,
                device=self.device,
            )  # fmt: skip
        Console().print(terminal_table(write_report(self.out)[1]))
        return self.out


@dataclass
class Bench:
    """Run the benchmark: all pairs with all methods, then table, videos and HTML report."""

    pairs: tuple[str, ...] = ()
    """Pairs; by default all."""
    methods: tuple[str, ...] = ("frozen", "zero-shot", "dexcompose")
    """Registered methods, or module:Class."""
    seeds: int = 8
    """Evaluation seeds."""
    rollouts: int = 32
    """Rollouts per seed, pair and method."""
    num_envs: int = 64
    """Worlds stepped together; does not change the result."""
    backend: Literal["mujoco", "warp"] = "mujoco"
    """Physics: mujoco on the CPU, warp on a GPU."""
    device: str | None = None
    """Where warp and the networks run, e.g. cuda:1; by default the first GPU with warp, else the CPU."""
    selector: str | None = None
    """Use the shipped masks of this selector; by default the shipped choice."""
    videos: Literal["one", "all", "none"] = "one"
    """Film one rollout per method on the first pair, on all pairs, or not at all."""
    pretrained: Path | None = None
    """Use weights, masks and held states of this output folder of "train all"; by default the shipped ones."""
    out: Path = field(default_factory=lambda: Path("runs/bench"))
    """Folder for episodes, results, videos and report.html; run the command again to go on."""

    def run(self) -> Path | None:
        """Run, or go on."""
        from dexcompose_agents.artefacts.pretrained_files import trained_in
        from dexcompose_agents.bench import BenchConfig, run_bench

        settings = {name: value for name, value in vars(self).items() if name != "pretrained"}
        with trained_in(self.pretrained):
            run_bench(BenchConfig(**settings))
        return self.out


@dataclass
class Report:
    """Print the table and write the HTML report of a results folder, from its episodes*.csv."""

    folder: Positional[Path]
    """Folder written by eval or bench."""
    out: Path | None = None
    """HTML file; by default FOLDER/report.html."""

    def run(self) -> Path | None:
        """Write the report."""
        from rich.console import Console

        from dexcompose_agents.evaluation.report import write_report
        from dexcompose_agents.evaluation.tables import terminal_table

        path, results = write_report(self.folder, self.out)
        Console().print(terminal_table(results))
        return path


@dataclass
class View:
    """Watch a pair or a single skill, in a window or as a video."""

    name: Positional[str]
    """Pair (GraspBall-PushButton) or skill (PushButton)."""
    method: str = "dexcompose"
    """Composition method of a pair; a single skill shows its base policy."""
    episodes: int = 1
    """Episodes to show."""
    seed: int = 0
    """Seed of the first episode."""
    video: Path | None = None
    """Write a video to this file instead of opening a window."""
    pretrained: Path | None = None
    """Use weights, masks and held states of this output folder of "train all"; by default the shipped ones."""

    def run(self) -> Path | None:
        """Show."""
        from dexcompose_agents.artefacts.pretrained_files import trained_in
        from dexcompose_agents.viewing import view

        check_seed(self.seed)
        with trained_in(self.pretrained):
            outcomes = view(self.name, self.method, self.episodes, self.seed, self.video)
        print("outcomes: " + ", ".join(outcomes))
        return self.video


Command = (
    Annotated[List, subcommand("list")]
    | Annotated[Demos, subcommand("demos")]
    | Annotated[Train, subcommand("train")]
    | Annotated[ReleaseTest, subcommand("release-test")]
    | Annotated[SelectMask, subcommand("select-mask")]
    | Annotated[Eval, subcommand("eval")]
    | Annotated[Bench, subcommand("bench")]
    | Annotated[Report, subcommand("report")]
    | Annotated[View, subcommand("view")]
)


def _expected_errors() -> tuple[type[BaseException], ...]:
    """Errors that a user can cause; anything else is a defect and keeps its traceback."""
    errors: list[type[BaseException]] = [ValueError, LookupError, OSError, ImportError, RuntimeError]
    if (gymnasium := sys.modules.get("gymnasium")) is not None:
        errors.append(gymnasium.error.Error)
    return tuple(errors)


def _one_line(error: BaseException) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 2 on an error (one line on stderr), 130 on Ctrl-C."""
    command: Any = tyro.cli(
        Command,
        prog="dexcompose",
        description="Composite dexterous manipulation with one hand.",
        args=arguments,
    )
    if "" not in sys.path:
        sys.path.append("")  # "module:Class" may lie in the working folder, which an installed script doesn't search
    try:
        choose_gl_backend()
        saved_to = command.run()
    except KeyboardInterrupt as interrupt:
        saved_to = getattr(interrupt, "saved_to", None) or getattr(command, "out", None)
        there = saved_to is not None and Path(saved_to).exists()
        where = f"; saved to {saved_to}, run the same command to go on" if there else ""
        paused = getattr(command, "minutes", None) is not None and bool(interrupt.args)
        print(f"dexcompose: {'paused' if paused else 'interrupted'}{where}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BaseException as error:
        if not isinstance(error, _expected_errors()) or os.environ.get(TRACEBACK_VARIABLE):
            raise
        print(f"dexcompose: error: {_one_line(error)}", file=sys.stderr)
        return EXIT_ERROR
    if saved_to is not None:
        print(f"written to {saved_to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
