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

from dexcompose_agents.graphics import choose_gl_backend
from dexcompose_agents.progress import progress_bar

__all__ = ["main"]

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
TRACEBACK_VARIABLE = "DEXCOMPOSE_TRACEBACK"
"""Set to 1 to see the traceback of an error."""


@dataclass
class List:
    """List skills, pairs, methods and selectors."""

    def run(self) -> Path | None:
        """Print the names that the other commands take."""
        from dexcompose_agents.methods.registry import method_names
        from dexcompose_envs import INTERACTION_SKILLS, PAIRS, RETENTION_SKILLS, env_id

        print("retention skills (A):   " + ", ".join(RETENTION_SKILLS))
        print("interaction skills (B): " + ", ".join(INTERACTION_SKILLS))
        print("pairs:")
        for pair in PAIRS:
            print(f"  {'-'.join(pair):28s} {env_id('-'.join(pair))}")
        print("methods:                " + ", ".join(method_names()) + ", or module:Class")
        print("selectors:              heuristic, utility")
        return None


@dataclass
class Demos:
    """Record demonstrations of a skill with its scripted expert, as a Minari dataset."""

    skill: Positional[str]
    """Skill, e.g. GraspBall."""
    episodes: int = 50
    """Successful demonstrations to record."""
    seed: int = 0
    """Seed of the first episode."""
    out: Path = field(default_factory=lambda: Path("runs/demos"))
    """Folder of the datasets."""

    def run(self) -> Path | None:
        """Record."""
        from dexcompose_agents import pipeline

        _check_name(self.skill, "skill")
        with progress_bar(f"demonstrations of {self.skill}") as advance:
            pipeline.record_demonstrations(self.skill, self.episodes, self.seed, self.out, advance)
        return self.out


@dataclass
class Train:
    """Train one stage (base policy, held states, stabiliser A, residual B), or all of them from demonstrations up."""

    stage: Positional[Literal["policy", "held-states", "stabiliser", "residual", "all"]]
    """What to train; "all" is the whole chain, in which every stage that is done and unchanged is skipped."""
    name: Positional[str | None] = None
    """Skill (policy, held-states, stabiliser) or pair (residual); none for all."""
    preset: Literal["cpu", "paper", "test"] = "cpu"
    """Budget: cpu fits a laptop, paper is the published one, test only proves that it runs."""
    out: Path | None = None
    """Folder for weights, checkpoint and logs; by default runs/STAGE/NAME. Training resumes from it."""
    only: tuple[str, ...] = ()
    """Skills and pairs to make (all); by default every one."""
    data: Path | None = None
    """Demonstrations (policy; default runs/demos) or held states (stabiliser, residual; default the shipped)."""
    mask: tuple[str, ...] = ()
    """Preserved fingers, e.g. TH+MF+RF: one mask (residual) or several (stabiliser); by default the shipped masks."""
    stabiliser: Path | None = None
    """Weights of stabiliser A (residual); by default the shipped ones."""

    def run(self) -> Path | None:
        """Train, or go on with what is in the folder."""
        self._check()
        self.out = self.out or Path("runs") / self.stage / (self.name or "")
        if self.stage == "all":
            from dexcompose_agents.train_all import budget, train_all

            train_all(self.out, budget(self.preset), self.only)
            return self.out
        from dexcompose_agents import pipeline

        assert self.name is not None
        with progress_bar(f"{self.stage} {self.name}") as advance:
            pipeline.train(
                self.stage, self.name, self.preset, self.out, advance,
                data=self.data, masks=self.mask, stabiliser=self.stabiliser,
            )  # fmt: skip
        return self.out

    def _check(self) -> None:
        """Refuses options that the stage would not heed."""
        heeded = {
            "policy": {"data"},
            "held-states": set(),
            "stabiliser": {"data", "mask"},
            "residual": {"data", "mask", "stabiliser"},
            "all": {"only"},
        }[self.stage]
        given = {name for name in ("only", "data", "mask", "stabiliser") if getattr(self, name)}
        if given - heeded:
            raise ValueError(f"'train {self.stage}' has no option --{min(given - heeded)}; see 'dexcompose train --help'")
        if self.stage == "all":
            if self.name is not None:
                raise ValueError(f"'train all' takes no name, got '{self.name}'; choose with --only {self.name}")
        elif self.name is None:
            raise ValueError(f"'train {self.stage}' needs the name of a {self._kind()}")
        else:
            _check_name(self.name, self._kind())

    def _kind(self) -> Literal["pair", "skill"]:
        return "pair" if self.stage == "residual" else "skill"


@dataclass
class ReleaseTest:
    """Measure for every finger mask how well a held object stays when the other fingers are released (Eq. 5)."""

    skill: Positional[str]
    """Retention skill, e.g. GraspBall."""
    rollouts: int = 100
    """Rollouts per mask."""
    motion: Literal["shake", "still"] = "shake"
    """Base motion during the test."""
    seed: int = 0
    """Seed of the drawn states."""
    num_envs: int = 64
    """Worlds stepped together; does not change the result."""
    out: Path | None = None
    """Folder for the table (CSV) and the heat map (PNG); by default runs/release-test/SKILL."""

    def run(self) -> Path | None:
        """Run the test, or go on with it."""
        from dexcompose_agents.attribution import ReleaseTestConfig, run_release_test

        _check_name(self.skill, "skill")
        self.out = self.out or Path("runs/release-test") / self.skill
        config = ReleaseTestConfig(rollouts=self.rollouts, motion=self.motion, seed=self.seed)
        with progress_bar(f"release test of {self.skill}") as advance:
            results = run_release_test(
                self.skill, config=config, num_envs=self.num_envs, out=self.out, progress=advance
            )
        for row in sorted(results, key=lambda row: -row.p_ret):
            print(f"{row.mask!s:16s} retained {100 * row.p_ret:5.1f} %   clean {100 * row.p_clean:5.1f} %")
        return self.out


@dataclass
class SelectMask:
    """Choose the fingers that keep holding, from a release test and the use that B makes of each finger (Eq. 6)."""

    pair: Positional[str]
    """Pair, e.g. GraspBall-PushButton."""
    selector: Literal["utility", "heuristic"] = "utility"
    """How to choose."""
    table: Path | None = None
    """Release-test table; by default runs/release-test/A/release_test.csv."""
    demos: Path = field(default_factory=lambda: Path("runs/demos"))
    """Folder with the demonstrations of B, whose finger use is measured."""
    out: Path | None = None
    """JSON file of the choice; by default runs/masks/PAIR-SELECTOR.json."""

    def run(self) -> Path | None:
        """Choose and write the reason."""
        from dexcompose_agents import pipeline

        skill_a, _ = _check_name(self.pair, "pair")
        self.out = self.out or Path("runs/masks") / f"{self.pair}-{self.selector}.json"
        selection = pipeline.select_mask(
            self.pair, self.selector, self.out,
            table=self.table or Path("runs/release-test") / skill_a / "release_test.csv",
            demonstrations=self.demos,
        )  # fmt: skip
        print(f"{self.pair}: preserve {selection.mask}. {selection.why}")
        return self.out


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
    num_envs: int = 32
    """Worlds stepped together; does not change the result."""
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

        from dexcompose_agents.evaluation import evaluate
        from dexcompose_agents.evaluation.report import write_report
        from dexcompose_agents.evaluation.tables import terminal_table
        from dexcompose_agents.pretrained_files import trained_in

        _check_name(self.pair, "pair")
        self.out = self.out or Path("runs/eval") / f"{self.pair}-{self.method.replace(':', '.')}"
        with trained_in(self.pretrained), progress_bar(f"{self.pair}  {self.method}") as advance:
            evaluate(
                self.pair, self.method, seeds=self.seeds, rollouts=self.rollouts, num_envs=self.num_envs,
                selector=self.selector, mask=self.mask, out=self.out, progress=advance,
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
    num_envs: int = 32
    """Worlds stepped together; does not change the result."""
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
        from dexcompose_agents.bench import BenchConfig, run_bench
        from dexcompose_agents.pretrained_files import trained_in

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
        from dexcompose_agents.pretrained_files import trained_in
        from dexcompose_agents.viewing import view

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


def _check_name(name: str, kind: Literal["pair", "skill"]) -> tuple[str, ...]:
    """The skills that ``name`` consists of; an unknown name is an error before anything heavy is imported."""
    from dexcompose_envs import SKILLS, parse_pair

    if kind == "pair":
        return parse_pair(name)
    if name not in SKILLS:
        raise ValueError(f"unknown skill '{name}'; expected one of {', '.join(SKILLS)}")
    return (name,)


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
    choose_gl_backend()
    try:
        saved_to = command.run()
    except KeyboardInterrupt as interrupt:
        saved_to = getattr(interrupt, "saved_to", None) or getattr(command, "out", None)
        there = saved_to is not None and Path(saved_to).exists()
        where = f"; saved to {saved_to}, run the same command to go on" if there else ""
        print(f"dexcompose: interrupted{where}", file=sys.stderr)
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
