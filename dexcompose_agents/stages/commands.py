"""The commands that make what the methods need: demonstrations, weights, release tests and masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from dexcompose_agents.runtime.compute import Piece
from dexcompose_agents.runtime.progress import progress_bar

__all__ = ["Demos", "ReleaseTest", "SelectMask", "Train", "check_name", "check_seed"]

Kind = Literal["pair", "skill", "retention skill"]


def check_seed(seed: int) -> None:
    """Refuses a negative seed before anything heavy is imported."""
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected at least 0")


def check_name(name: str, kind: Kind) -> tuple[str, ...]:
    """The skills that ``name`` consists of; an unknown name is an error before anything heavy is imported."""
    from dexcompose_envs import RETENTION_SKILLS, SKILLS, parse_pair

    if kind == "pair":
        return parse_pair(name)
    known = SKILLS if kind == "skill" else RETENTION_SKILLS
    if name not in known:
        raise ValueError(f"unknown {kind} '{name}'; expected one of {', '.join(known)}")
    return (name,)


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
        from dexcompose_agents.stages import pipeline

        check_name(self.skill, "skill")
        check_seed(self.seed)
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
    preset: Literal["cpu", "fast", "paper", "test"] = "cpu"
    """Budget: cpu fits a laptop, fast takes minutes on a GPU, paper is the published one, on a GPU, too; test only
    proves that it runs."""
    device: str | None = None
    """Device to train on, e.g. cuda:1; by default the preset's."""
    minutes: float | None = None
    """Stop after so many minutes with everything saved; the same command goes on. By default no limit."""
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
            from dexcompose_agents.stages.train_all import budget, train_all

            train_all(self.out, budget(self.preset, self.device), self.only, piece=Piece(self.minutes))
            return self.out
        from dexcompose_agents.stages import pipeline

        assert self.name is not None
        with progress_bar(f"{self.stage} {self.name}") as advance:
            pipeline.train(
                self.stage, self.name, self.preset, self.out, advance, data=self.data, masks=self.mask,
                stabiliser=self.stabiliser, device=self.device, piece=Piece(self.minutes),
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
            raise ValueError(f"'train {self.stage}' takes no option --{min(given - heeded)}")
        if self.stage == "all":
            if self.name is not None:
                raise ValueError(f"'train all' takes no name, got '{self.name}'; choose with --only {self.name}")
        elif self.name is None:
            raise ValueError(f"'train {self.stage}' needs the name of a {self._kind()}")
        else:
            check_name(self.name, self._kind())

    def _kind(self) -> Kind:
        if self.stage == "residual":
            return "pair"
        return "skill" if self.stage == "policy" else "retention skill"


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
    backend: Literal["mujoco", "warp"] = "mujoco"
    """Physics: mujoco on the CPU, warp on a GPU."""
    device: str | None = None
    """Device of warp, e.g. cuda:1; by default the first GPU."""
    out: Path | None = None
    """Folder for the table (CSV) and the heat map (PNG); by default runs/release-test/SKILL."""

    def run(self) -> Path | None:
        """Run the test, or go on with it."""
        from dexcompose_agents.attribution import ReleaseTestConfig, run_release_test

        check_name(self.skill, "retention skill")
        check_seed(self.seed)
        self.out = self.out or Path("runs/release-test") / self.skill
        config = ReleaseTestConfig(rollouts=self.rollouts, motion=self.motion, seed=self.seed)
        with progress_bar(f"release test of {self.skill}") as advance:
            results = run_release_test(
                self.skill, config=config, num_envs=self.num_envs, out=self.out, progress=advance,
                env_kwargs={"backend": self.backend, "device": self.device},
            )  # fmt: skip
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
        from dexcompose_agents.stages import pipeline

        skill_a, _ = check_name(self.pair, "pair")
        self.out = self.out or Path("runs/masks") / f"{self.pair}-{self.selector}.json"
        selection = pipeline.select_mask(
            self.pair, self.selector, self.out,
            table=self.table or Path("runs/release-test") / skill_a / "release_test.csv",
            demonstrations=self.demos,
        )  # fmt: skip
        print(f"{self.pair}: preserve {selection.mask}. {selection.why}")
        return self.out
