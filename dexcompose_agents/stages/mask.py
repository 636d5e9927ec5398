"""The ownership mask of a pair (Eq. 6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from dexcompose_agents.artefacts.shipped import DEFAULT_SELECTOR
from dexcompose_agents.attribution.selectors import SELECTORS, Selection, select_mask
from dexcompose_agents.stages.base import Advance, Chain, Piece, Reads, Stage
from dexcompose_envs import parse_pair

if TYPE_CHECKING:
    Selector: TypeAlias = str
else:
    Selector = Literal[tuple(SELECTORS)]


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
    def of_chain(cls, chain: Chain, **extra: Any) -> Iterator[Stage]:
        for selector in sorted(SELECTORS, key=lambda name: name != DEFAULT_SELECTOR):
            yield from super().of_chain(chain, selector=selector)

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
        made_by = f"dexcompose release-test {a}"
        return [Reads("release-test table", table, made_by), self.demonstrations_of(b, self.demos)]

    def writes(self) -> dict[str, str]:
        return {"mask.json": mask_file(self.name, self.selector)}

    def make(self, work: Path, advance: Advance, piece: Piece) -> None:
        from dexcompose_envs.demonstrations import dataset_id_of

        table, dataset = self.reads()
        root = dataset.path.parents[dataset_id_of(parse_pair(self.name)[1]).count("/")]
        select_mask(self.name, self.selector, table.path, root).save(work / "mask.json")

    def tell(self) -> None:
        chosen = Selection.load(self.destination)
        print(f"{self.name}: preserve {chosen.mask}. {chosen.why}")


def mask_file(pair: str, selector: str = DEFAULT_SELECTOR) -> str:
    """Where a chain's folder has a selector's choice; stabiliser and residual are trained with the default's."""
    return f"pretrained/masks/{pair}{'' if selector == DEFAULT_SELECTOR else f'-{selector}'}.json"
