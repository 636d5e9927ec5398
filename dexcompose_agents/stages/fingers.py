"""Which fingers to preserve: the release test of a retention skill (Eq. 5), and the mask of a pair (Eq. 6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from dexcompose_agents.artefacts.shipped import DEFAULT_SELECTOR
from dexcompose_agents.attribution.mask_table import TABLE, MaskTestConfig, plausible_masks, read_trials
from dexcompose_agents.attribution.release_test import ReleaseTestConfig, run_release_test
from dexcompose_agents.attribution.selectors import SELECTORS, Selection, SelectorSettings, select_mask
from dexcompose_agents.attribution.tables import read_csv
from dexcompose_agents.evaluation.fingerprints import class_source
from dexcompose_agents.stages.base import Advance, Backend, Chain, Piece, Reads, Stage
from dexcompose_envs import parse_pair
from dexcompose_envs.demonstrations import dataset_id_of
from dexcompose_envs.held_states import HeldStateLibrary

if TYPE_CHECKING:
    Selector: TypeAlias = str
else:
    Selector = Literal[tuple(SELECTORS)]


@dataclass(kw_only=True)
class ReleaseTest(Stage):
    """Measure for every finger mask how well a held object stays when the other fingers are released (Eq. 5)."""

    KEY = "release test"
    NEEDS = "retention skill"
    SIMULATES = True

    data: Path | None = None
    """Held states; by default the shipped ones."""
    backend: Backend | None = None
    """Physics: mujoco on the CPU, warp on a GPU, isaaclab; by default the preset's."""
    num_envs: int | None = None
    """Worlds stepped together; does not change the result. By default 64, 1024 on a GPU."""

    @classmethod
    def defaults(cls, preset: str, name: str | None = None) -> ReleaseTestConfig:
        return ReleaseTestConfig(rollouts=1, steps=20) if preset == "test" else ReleaseTestConfig()

    @property
    def physics(self) -> dict[str, Any]:
        return super().physics if self.backend is None else {"backend": self.backend, "device": self.device}

    def reads(self) -> list[Reads]:
        return [self.library_of(self.name, self.data)]

    def writes(self) -> dict[str, str]:
        place = f"pretrained/release_test/{self.name}"
        return {f"release_test.{kind}": f"{place}.{kind}" for kind in ("csv", "png", "json")}

    def make(self, work: Path, advance: Advance, piece: Piece) -> None:
        (library,) = self.reads()
        run_release_test(
            self.name, self.config, library=HeldStateLibrary.load(library.path), out=work, env_kwargs=self.physics,
            num_envs=self.num_envs or (1024 if self.physics else 64), progress=piece.watch(advance),
        )  # fmt: skip

    def tell(self) -> None:
        for row in sorted(read_csv(self.destination / "release_test.csv"), key=lambda row: -row.p_ret):
            print(f"{row.mask!s:16s} retained {100 * row.p_ret:5.1f} %   clean {100 * row.p_clean:5.1f} %")


@dataclass(kw_only=True)
class MaskTest(Stage):
    """Measure for every plausible mask of a pair how often the composite succeeds before residuals are trained."""

    KEY = "mask test"
    NEEDS = "pair"
    SIMULATES = True
    IN_CHAIN = False

    table: Path | None = None
    """Release-test table of A; by default runs/release-test/A/release_test.csv."""
    weights: Path | None = None
    """Weights of B's base policy; by default the shipped ones."""
    data: Path | None = None
    """Held states of A; by default the shipped ones."""
    num_envs: int = 64
    """Worlds stepped together; does not change the result."""

    @classmethod
    def defaults(cls, preset: str, name: str | None = None) -> MaskTestConfig:
        return MaskTestConfig(rollouts=1, least_retention=0.0) if preset == "test" else MaskTestConfig()

    def reads(self) -> list[Reads]:
        a, b = parse_pair(self.name)
        return [_table_of(self, a, self.table), self.policy_of(b, self.weights), self.library_of(a, self.data)]

    def writes(self) -> dict[str, str]:
        return {name: f"pretrained/mask_test/{self.name}{Path(name).suffix}" for name in (TABLE, "mask_test.json")}

    def make(self, work: Path, advance: Advance, piece: Piece) -> None:
        from dexcompose_agents.attribution.mask_test import run_mask_test
        from dexcompose_agents.diffusion.policy import load_policy

        table, weights, library = self.reads()
        device = str(self.physics.get("device", "cpu"))
        run_mask_test(
            self.name, plausible_masks(read_csv(table.path), self.config), self.config, work,
            policy=load_policy(parse_pair(self.name)[1], path=weights.path, device=device),
            library=HeldStateLibrary.load(library.path), num_envs=self.num_envs, progress=piece.watch(advance),
            env_kwargs=self.physics,
        )  # fmt: skip

    def tell(self) -> None:
        for row in sorted(read_trials(self.destination / TABLE), key=lambda row: -row.success):
            low, high = row.interval
            print(f"{row.mask!s:16s} success {100 * row.success:5.1f} %   ({100 * low:.1f} to {100 * high:.1f})")


@dataclass(kw_only=True)
class Mask(Stage):
    """Choose the fingers that keep holding, from a release test and the use that B makes of each finger (Eq. 6)."""

    KEY = "mask"
    NEEDS = "pair"
    QUICK = True

    selector: Selector = DEFAULT_SELECTOR
    """How to choose."""
    table: Path | None = None
    """Release-test table; by default runs/release-test/A/release_test.csv."""
    trials: Path | None = None
    """Table of the mask test, for selector oracle; by default runs/mask-test/PAIR/mask_test.csv."""
    demos: Path | None = None
    """Folder with the demonstrations of B, whose finger use is measured; by default runs/demos."""
    out: Path | None = None
    """JSON file of the choice; by default runs/masks/PAIR-SELECTOR.json."""

    @classmethod
    def of_chain(cls, chain: Chain) -> Iterator[Stage]:
        asked = [name for name, selector in SELECTORS.items() if selector.IN_CHAIN]
        for selector in sorted(asked, key=lambda name: name != DEFAULT_SELECTOR):
            for stage in super().of_chain(chain):
                yield replace(stage, selector=selector)  # type: ignore[call-arg]

    @classmethod
    def defaults(cls, preset: str, name: str | None = None) -> SelectorSettings:
        return SelectorSettings()

    @property
    def title(self) -> str:
        return f"{self.KEY} {self.name} {self.selector}"

    @property
    def destination(self) -> Path:
        return self.out or Path("runs/masks") / f"{self.name}-{self.selector}.json"

    def places(self) -> tuple[Path, dict[str, Path]]:
        return self.destination.parent, {"mask.json": self.destination}

    def facts(self) -> dict[str, Any]:
        return {"selector": self.selector, "source": class_source(type(self.chooser)), **self.chooser.facts()}

    @property
    def chooser(self) -> Any:
        """The selector with its settings."""
        return getattr(self.config, self.selector)

    def reads(self) -> list[Reads]:
        a, b = parse_pair(self.name)
        reads = [_table_of(self, a, self.table), self.demonstrations_of(b, self.demos)]
        if self.chooser.NEEDS_TRIALS:
            made = Path("runs/mask-test") / self.name / TABLE
            trials = self.file(self.trials, f"pretrained/mask_test/{self.name}.csv", made)
            reads.append(Reads("mask test", trials, f"dexcompose mask-test {self.name}"))
        return reads

    def writes(self) -> dict[str, str]:
        return {"mask.json": mask_file(self.name, self.selector)}

    def make(self, work: Path, advance: Advance, piece: Piece) -> None:
        table, dataset, *trials = self.reads()
        root = dataset.path.parents[dataset_id_of(parse_pair(self.name)[1]).count("/")]
        tried = trials[0].path if trials else None
        select_mask(self.name, self.chooser, table.path, root, tried).save(work / "mask.json")

    def tell(self) -> None:
        chosen = Selection.load(self.destination)
        print(f"{self.name}: preserve {chosen.mask}. {chosen.why}")


def _table_of(stage: Stage, skill: str, given: Path | None) -> Reads:
    """The release-test table of a retention skill."""
    made = Path("runs/release-test") / skill / "release_test.csv"
    table = stage.file(given, f"pretrained/release_test/{skill}.csv", made)
    return Reads("release-test table", table, f"dexcompose release-test {skill}")


def mask_file(pair: str, selector: str = DEFAULT_SELECTOR) -> str:
    """Where a chain's folder has a selector's choice; stabiliser and residual are trained with the default's."""
    return f"pretrained/masks/{pair}{'' if selector == DEFAULT_SELECTOR else f'-{selector}'}.json"
