"""Demonstrations of a skill by its scripted expert."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dexcompose_agents.stages.base import Advance, Piece, Reads, Stage
from dexcompose_envs.checks import LARGEST_SEED, whole_number


@dataclass(frozen=True)
class DemonstrationsConfig:
    """What is recorded."""

    episodes: int = 50
    """Successful demonstrations to record."""
    seed: int = 0
    """Seed of the first episode."""

    def __post_init__(self) -> None:
        """Refuses senseless numbers."""
        whole_number("episodes", self.episodes)
        whole_number("seed", self.seed, 0, LARGEST_SEED)


@dataclass(kw_only=True)
class Demonstrations(Stage):
    """Record demonstrations of a skill with its scripted expert, as a Minari dataset."""

    KEY = "demonstrations"

    @classmethod
    def defaults(cls, preset: str, name: str | None = None) -> DemonstrationsConfig:
        return DemonstrationsConfig(episodes=2) if preset == "test" else DemonstrationsConfig()

    @property
    def destination(self) -> Path:
        return self.out or Path("runs/demos")

    def reads(self) -> list[Reads]:
        return []

    def writes(self) -> dict[str, str]:
        from dexcompose_envs.demonstrations import dataset_id_of

        dataset = dataset_id_of(self.name)
        return {dataset: f"demos/{self.name}/{dataset}"}

    def make(self, work: Path, advance: Advance, piece: Piece) -> None:
        from dexcompose_envs.demonstrations import record
        from dexcompose_envs.skills import make_expert

        config, (dataset,) = self.config, self.writes()
        if not (work / dataset).exists():
            record(
                self.name, make_expert(self.name), episodes=config.episodes, seed=config.seed, root=work,
                progress=piece.watch(advance),
            )  # fmt: skip
