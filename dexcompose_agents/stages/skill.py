"""What a skill needs: demonstrations, the base policy that imitates them, and held states (Eq. 4)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dexcompose_agents.diffusion import config as diffusion
from dexcompose_agents.held_states import collection
from dexcompose_agents.stages.base import Advance, Piece, Reads, Stage, content_hash
from dexcompose_envs.agent import Agent
from dexcompose_envs.artefacts import DATA_VERSION
from dexcompose_envs.checks import LARGEST_SEED, real_number, whole_number
from dexcompose_envs.demonstrations import dataset_id_of, load_demonstrations, minari_root, record
from dexcompose_envs.demonstrations.datasets import METADATA_KEY
from dexcompose_envs.errors import FileError
from dexcompose_envs.scene import model_hash_of
from dexcompose_envs.skills import make_expert, make_skill


@dataclass(frozen=True)
class DemonstrationsConfig:
    """What is recorded."""

    episodes: int = 50
    """Successful demonstrations to record; by default the skill's `DEMONSTRATIONS`."""
    seed: int = 0
    """Seed of the first episode."""
    base_shake: float = 0.0
    """Scale of the wrist's tremble while demonstrating, which no recorded action shows; by default the skill's
    `DEMONSTRATION_SHAKE`."""

    def __post_init__(self) -> None:
        whole_number("episodes", self.episodes)
        whole_number("seed", self.seed, 0, LARGEST_SEED)
        real_number("base_shake", self.base_shake, 0.0, 5.0)


@dataclass(kw_only=True)
class Demonstrations(Stage):
    """Record demonstrations of a skill with its scripted expert, as a Minari dataset."""

    KEY = "demonstrations"

    @classmethod
    def defaults(cls, preset: str, name: str | None = None) -> DemonstrationsConfig:
        if preset == "test":
            return DemonstrationsConfig(episodes=2)
        if name is None:
            return DemonstrationsConfig()
        skill = make_skill(name)
        return DemonstrationsConfig(skill.DEMONSTRATIONS, base_shake=skill.DEMONSTRATION_SHAKE)

    @property
    def destination(self) -> Path:
        return self.out or Path("runs/demos")

    def reads(self) -> list[Reads]:
        return []

    def writes(self) -> dict[str, str]:
        dataset = dataset_id_of(self.name)
        return {dataset: f"demos/{self.name}/{dataset}"}

    def make(self, work: Path, advance: Advance, piece: Piece) -> None:
        config, name = self.config, self.name
        if not (work / dataset_id_of(name)).exists():
            watched = piece.watch(advance)
            record(
                name, make_expert(name), episodes=config.episodes, seed=config.seed, base_shake=config.base_shake,
                root=work, progress=watched,
            )  # fmt: skip


@dataclass(kw_only=True)
class Policy(Stage):
    """Train the base policy of a skill by behaviour cloning."""

    KEY = "policy"

    data: Path | None = None
    """Folder of the demonstrations; by default runs/demos."""

    @classmethod
    def defaults(cls, preset: str, name: str | None = None) -> diffusion.TrainingConfig:
        return diffusion.preset(preset, name)

    @property
    def effort(self) -> float:
        return float(self.config.steps)

    def reads(self) -> list[Reads]:
        return [self.demonstrations_of(self.name, self.data)]

    def writes(self) -> dict[str, str]:
        return {f"{self.name}.safetensors": f"pretrained/{self.name}.safetensors"}

    def make(self, work: Path, advance: Advance, piece: Piece) -> None:
        from dexcompose_agents.diffusion import training
        from dexcompose_agents.diffusion.dataset import load_minari

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
    """Model hash, expert and its seeds of a recorded dataset, which must fit the environment."""
    try:
        about: dict[str, Any] = load_demonstrations(dataset_id, root).storage.metadata[METADATA_KEY]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise FileError(f"dataset '{dataset_id}' in '{root}' is damaged or not ours: {error!r}") from None
    for key, here in (("data_version", DATA_VERSION), ("model_hash", model_hash_of(skill))):
        if about.get(key) != here:
            was = f"dataset '{dataset_id}' in '{root}' was recorded with {key} {about.get(key)!r}"
            raise FileError(f"{was}; expected {here!r}")
    return {key: about[key] for key in ("model_hash", "policy", "episode_seeds")}


@dataclass(frozen=True)
class HeldStatesConfig:
    """What is collected."""

    count: int = 4096
    """States wanted; the paper's number, of which a CPU makes half."""
    seed: int = 1_000_000
    """Seed of the first episode."""
    scripted: bool = False
    """Whether the scripted expert grasps in place of the base policy, which may have learned nothing."""

    def __post_init__(self) -> None:
        whole_number("count", self.count)
        whole_number("seed", self.seed, 0, LARGEST_SEED)


@dataclass(kw_only=True)
class HeldStates(Stage):
    """Roll the base policy of a retention skill out and keep the states that hold the object (Eq. 4)."""

    KEY = "held states"
    NEEDS = "retention skill"
    SIMULATES = True

    policy: Path | None = None
    """Weights of the base policy; by default the shipped ones."""
    num_envs: int | None = None
    """Worlds stepped together; does not change the result. By default 64, 1024 on a GPU."""

    @classmethod
    def defaults(cls, preset: str, name: str | None = None) -> HeldStatesConfig:
        if preset == "test":
            return HeldStatesConfig(count=8, scripted=True)
        return HeldStatesConfig(count=2048) if preset == "cpu" else HeldStatesConfig()

    def reads(self) -> list[Reads]:
        return [self.policy_of(self.name, self.policy)]

    def writes(self) -> dict[str, str]:
        return {f"{self.name}.npz": f"held_states/{self.name}.npz"}

    def make(self, work: Path, advance: Advance, piece: Piece) -> None:
        from dexcompose_agents.diffusion.agent import PolicyAgent

        config, (weights,) = self.config, self.reads()
        if config.scripted:
            agent: Agent = make_expert(self.name)
        else:
            agent = PolicyAgent.load(self.name, path=weights.path, device=self.physics.get("device", "cpu"))
        collection.collect(
            self.name, agent, config.count, out=work / f"{self.name}.npz", seed=config.seed,
            num_envs=self.num_envs or (1024 if self.physics else min(64, config.count)), env_kwargs=self.physics,
            policy_hash="scripted" if config.scripted else content_hash(weights.path), progress=piece.watch(advance),
        )  # fmt: skip
