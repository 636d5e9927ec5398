"""Stabiliser A of a retention skill (Eqs. 7 to 9)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dexcompose_agents.artefacts.shipped import choose_mask
from dexcompose_agents.stages.base import Advance, Chain, Piece, Reads, Stage, logs
from dexcompose_agents.stages.mask import mask_file
from dexcompose_envs import FingerMask, pair_names, parse_pair

if TYPE_CHECKING:
    from dexcompose_agents.residual.config import StabiliserConfig


@dataclass(kw_only=True)
class Stabiliser(Stage):
    """Train stabiliser A: with it the preserved fingers correct the grasp under base motion (Eqs. 7 to 9)."""

    KEY = "stabiliser"
    NEEDS = "retention skill"
    HIDDEN = frozenset({"device", "masks"})

    data: Path | None = None
    """Held states; by default the shipped ones."""
    mask: tuple[str, ...] = ()
    """Masks of preserved fingers, e.g. TH+MF+RF; by default those that ship for the skill's pairs."""

    @classmethod
    def of_chain(cls, chain: Chain, **extra: Any) -> Iterator[Stage]:
        for stage in super().of_chain(chain):
            pairs = [pair for pair in chain.names("pair") if parse_pair(pair)[0] == stage.name]
            masks = tuple(str(choose_mask(pair, chain.out / mask_file(pair))[0]) for pair in pairs)
            if masks:
                yield replace(stage, mask=masks)  # type: ignore[call-arg]

    @classmethod
    def defaults(cls, preset: str, name: str | None = None) -> StabiliserConfig:
        from dexcompose_agents.residual.config import stabiliser_preset

        return stabiliser_preset(preset)

    @property
    def config(self) -> Any:
        pairs = [pair for pair in pair_names() if parse_pair(pair)[0] == self.name]
        masks = [FingerMask.parse(mask) for mask in self.mask] or [choose_mask(pair)[0] for pair in pairs]
        return replace(super().config, masks=tuple(dict.fromkeys(map(str, masks))))

    def reads(self) -> list[Reads]:
        return [self.library_of(self.name, self.data)]

    def writes(self) -> dict[str, str]:
        name = f"stabiliser-{self.name}"
        return {"stabiliser.safetensors": f"pretrained/{name}.safetensors"} | logs(name)

    def make(self, work: Path, advance: Advance, piece: Piece) -> None:
        from dexcompose_agents.residual.training import train_stabiliser

        config, (library,) = self.config, self.reads()
        train_stabiliser(
            self.name, config, work, progress=lambda row: advance(row["iteration"], config.ppo.iterations),
            max_minutes=piece.remaining, held_states=library.path,
        )  # fmt: skip
