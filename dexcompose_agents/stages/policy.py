"""The base policy of a skill."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dexcompose_agents.stages.base import Advance, Piece, Reads, Stage
from dexcompose_envs.artefacts import DATA_VERSION
from dexcompose_envs.errors import FileError
from dexcompose_envs.scene import model_hash_of
from dexcompose_envs.skills import make_skill

if TYPE_CHECKING:
    from dexcompose_agents.diffusion.config import TrainingConfig


@dataclass(kw_only=True)
class Policy(Stage):
    """Train the base policy of a skill by behaviour cloning."""

    KEY = "policy"

    data: Path | None = None
    """Folder of the demonstrations; by default runs/demos."""

    @classmethod
    def defaults(cls, preset: str, name: str | None = None) -> TrainingConfig:
        from dexcompose_agents.diffusion import config

        return config.preset(preset, name)

    def reads(self) -> list[Reads]:
        return [self.demonstrations_of(self.name, self.data)]

    def writes(self) -> dict[str, str]:
        return {f"{self.name}.safetensors": f"pretrained/{self.name}.safetensors"}

    def make(self, work: Path, advance: Advance, piece: Piece) -> None:
        from dexcompose_agents.diffusion import training
        from dexcompose_agents.diffusion.dataset import load_minari
        from dexcompose_envs.demonstrations import dataset_id_of, minari_root

        dataset_id, (dataset,) = dataset_id_of(self.name), self.reads()
        root = dataset.path.parents[dataset_id.count("/")]
        about = _recorded_facts(self.name, dataset_id, root)
        with minari_root(root):
            episodes = load_minari(dataset_id, make_skill(self.name).observation_key)
        training.train(
            episodes, self.config, work / f"{self.name}.safetensors", max_minutes=piece.remaining,
            provenance={"skill": self.name, "dataset_id": dataset_id, **about},
            progress=lambda state: advance(state.fraction * state.steps, state.steps),
        )  # fmt: skip


def _recorded_facts(skill: str, dataset_id: str, root: Path) -> dict[str, Any]:
    """Data version, model hash and expert seeds of a recorded dataset, which must fit the environment."""
    from dexcompose_envs.demonstrations import load_demonstrations
    from dexcompose_envs.demonstrations.datasets import METADATA_KEY

    try:
        about: dict[str, Any] = load_demonstrations(dataset_id, root).storage.metadata[METADATA_KEY]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise FileError(f"dataset '{dataset_id}' in '{root}' is damaged or not ours: {error!r}") from None
    for key, here in (("data_version", DATA_VERSION), ("model_hash", model_hash_of(skill))):
        if about.get(key) != here:
            was = f"dataset '{dataset_id}' in '{root}' was recorded with {key} {about.get(key)!r}"
            raise FileError(f"{was}; expected {here!r}")
    return {key: about[key] for key in ("model_hash", "policy", "episode_seeds")}
