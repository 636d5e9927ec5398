"""Which fingers to preserve: the release test of a retention skill (Eq. 5), and the mask of a pair (Eq. 6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from dexcompose_agents.artefacts.shipped import DEFAULT_SELECTOR
from dexcompose_agents.attribution.release_test import ReleaseTestConfig, run_release_test
from dexcompose_agents.attribution.selectors import SELECTORS, Selection, select_mask
from dexcompose_agents.attribution.tables import read_csv
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
    """Physics: mujoco on the CPU, warp on a GPU; by default the preset's."""
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


@dataclass(frozen=True)
class NoSettings:
    """A selector's settings are its own."""


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
    demos: Path | None = None
    """Folder with the demonstrations of B, whose finger use is measured; by default runs/demos."""
    out: Path | None = None
    """JSON file of the choice; by default runs/masks/PAIR-SELECTOR.json."""

    @classmethod
    def of_chain(cls, chain: Chain) -> Iterator[Stage]:
        for selector in sorted(SELECTORS, key=lambda name: name != DEFAULT_SELECTOR):
            for stage in super().of_chain(chain):
                yield replace(stage, selector=selector)  # type: ignore[call-arg]

    @classmethod
    def defaults(cls, preset: str, name: str | None = None) -> NoSettings:
        return NoSettings()

    @property
    def title(self) -> str:
        return f"{self.KEY} {self.name} {self.selector}"

    @property
    def destination(self) -> Path:
        return self.out or Path("runs/masks") / f"{self.name}-{self.selector}.json"

    def places(self) -> tuple[Path, dict[str, Path]]:
        return self.destination.parent, {"mask.json": self.destination}

    def facts(self) -> dict[str, Any]:
        return {"selector": self.selector, **vars(SELECTORS[self.selector]())}

    def reads(self) -> list[Reads]:
        a, b = parse_pair(self.name)
        made = Path("runs/release-test") / a / "release_test.csv"
        table = self.file(self.table, f"pretrained/release_test/{a}.csv", made)
        test = Reads("release-test table", table, f"dexcompose release-test {a}")
        return [test, self.demonstrations_of(b, self.demos)]

    def writes(self) -> dict[str, str]:
        return {"mask.json": mask_file(self.name, self.selector)}

    def make(self, work: Path, advance: Advance, piece: Piece) -> None:
        table, dataset = self.reads()
        root = dataset.path.parents[dataset_id_of(parse_pair(self.name)[1]).count("/")]
        select_mask(self.name, self.selector, table.path, root).save(work / "mask.json")

    def tell(self) -> None:
        chosen = Selection.load(self.destination)
        print(f"{self.name}: preserve {chosen.mask}. {chosen.why}")


def mask_file(pair: str, selector: str = DEFAULT_SELECTOR) -> str:
    """Where a chain's folder has a selector's choice; stabiliser and residual are trained with the default's."""
    return f"pretrained/masks/{pair}{'' if selector == DEFAULT_SELECTOR else f'-{selector}'}.json"
