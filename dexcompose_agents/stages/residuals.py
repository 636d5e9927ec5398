"""What is learned on top of the base policies: stabiliser A (Eqs. 7 to 9) and residual B (Eqs. 10 to 12)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dexcompose_agents.artefacts.shipped import choose_mask, masks_of, stabiliser_path
from dexcompose_agents.stages.base import Advance, Chain, Piece, Reads, Stage
from dexcompose_agents.stages.fingers import mask_file
from dexcompose_envs import FingerMask, parse_pair

if TYPE_CHECKING:
    from dexcompose_agents.residual.config import ResidualBConfig, StabiliserConfig


def _weights_and_logs(weights: str, name: str) -> dict[str, str]:
    logs = {f"{log}.csv": f"logs/{name}/{log}.csv" for log in ("metrics", "evaluations")}
    return {weights: f"pretrained/{name}.safetensors"} | logs


def _without_idle(facts: dict[str, Any], config: Any) -> dict[str, Any]:
    """Without settings of learners that don't learn here."""
    return {name: value for name, value in facts.items() if name not in config.idle}


@dataclass(kw_only=True)
class Stabiliser(Stage):
    """Train stabiliser A: with it the preserved fingers correct the grasp under base motion (Eqs. 7 to 9)."""

    KEY = "stabiliser"
    NEEDS = "retention skill"
    HIDDEN = frozenset({"device", "masks"})

    data: Path | None = None
    """Held states; by default the shipped ones."""
    mask: tuple[str, ...] = ()
    """Masks of preserved fingers, e.g. TH+MF+RF; by default those that there are for the skill's pairs."""

    @classmethod
    def of_chain(cls, chain: Chain) -> Iterator[Stage]:
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
        masks = [FingerMask.parse(mask) for mask in self.mask] or masks_of(self.name)
        return replace(super().config, masks=tuple(dict.fromkeys(map(str, masks))))

    def facts(self) -> dict[str, Any]:
        return _without_idle(super().facts(), self.config)

    def reads(self) -> list[Reads]:
        return [self.library_of(self.name, self.data)]

    def writes(self) -> dict[str, str]:
        return _weights_and_logs("stabiliser.safetensors", f"stabiliser-{self.name}")

    def make(self, work: Path, advance: Advance, piece: Piece) -> None:
        from dexcompose_agents.residual.training import train_stabiliser

        config, (library,) = self.config, self.reads()
        train_stabiliser(
            self.name, config, work, progress=lambda row: advance(row["iteration"], config.learning.iterations),
            max_minutes=piece.remaining, held_states=library.path,
        )  # fmt: skip


@dataclass(kw_only=True)
class Residual(Stage):
    """Train residual B: corrections of the wrist and the released fingers while A is held (Eqs. 10 to 12)."""

    KEY = "residual"
    NEEDS = "pair"

    data: Path | None = None
    """Held states of A; by default the shipped ones."""
    mask: str | None = None
    """Preserved fingers, e.g. TH+MF+RF, or a JSON file of select-mask; by default the shipped mask."""
    policy: Path | None = None
    """Weights of B's base policy; by default the shipped ones."""
    stabiliser: Path | None = None
    """Weights of stabiliser A; by default the shipped ones."""

    @classmethod
    def defaults(cls, preset: str, name: str | None = None) -> ResidualBConfig:
        from dexcompose_agents.residual.config import residual_b_preset

        return residual_b_preset(preset)

    @property
    def chosen(self) -> FingerMask:
        """The mask to train with."""
        given = self.mask or (str(self.chain / mask_file(self.name)) if self.chain else None)
        return choose_mask(self.name, given)[0]

    def facts(self) -> dict[str, Any]:
        config, interaction = self.config, parse_pair(self.name)[1]
        of_skill = {"bounds": config.bounds(interaction), "dimensions": config.moves(interaction)}
        return _without_idle(super().facts(), config) | {"mask": str(self.chosen)} | of_skill

    def reads(self) -> list[Reads]:
        a, b = parse_pair(self.name)
        in_chain = f"pretrained/stabiliser-{a}.safetensors"
        stabiliser = self.chain / in_chain if self.chain else self.stabiliser or stabiliser_path(self.name)
        weights = Reads(f"weights of stabiliser A of {a}", stabiliser, f"dexcompose train stabiliser {a}")
        return [self.policy_of(b, self.policy), weights, self.library_of(a, self.data)]

    def writes(self) -> dict[str, str]:
        files = _weights_and_logs("residual_b.safetensors", f"residual-{self.name}")
        if self.config.joint:
            files["stabiliser.safetensors"] = f"pretrained/stabiliser-{self.name}.safetensors"
        return files

    def make(self, work: Path, advance: Advance, piece: Piece) -> None:
        from dexcompose_agents.diffusion.policy import load_policy
        from dexcompose_agents.residual.stabiliser import StabiliserPolicy
        from dexcompose_agents.residual.training import train_residual_b

        config, (a, b), (policy, stabiliser, library) = self.config, parse_pair(self.name), self.reads()
        train_residual_b(
            self.name, self.chosen,
            load_policy(b, path=policy.path, device=config.learning.device),
            StabiliserPolicy.load(stabiliser.path, config.learning.device, skill=a), config, work,
            progress=lambda row: advance(row["iteration"], config.learning.iterations),
            max_minutes=piece.remaining, held_states=library.path,
        )  # fmt: skip
