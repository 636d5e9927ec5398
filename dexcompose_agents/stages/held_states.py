"""The held states of a retention skill."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dexcompose_agents.stages.base import Advance, Piece, Reads, Stage, content_hash
from dexcompose_envs.agent import Agent
from dexcompose_envs.checks import LARGEST_SEED, whole_number


@dataclass(frozen=True)
class HeldStatesConfig:
    """What is collected."""

    count: int = 4096
    """States wanted."""
    seed: int = 1_000_000
    """Seed of the first episode."""
    scripted: bool = False
    """Whether the scripted expert grasps in place of the base policy, which may have learned nothing."""

    def __post_init__(self) -> None:
        """Refuses senseless numbers."""
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
        return HeldStatesConfig(count=8, scripted=True) if preset == "test" else HeldStatesConfig()

    def reads(self) -> list[Reads]:
        return [self.policy_of(self.name, self.policy)]

    def writes(self) -> dict[str, str]:
        return {f"{self.name}.npz": f"held_states/{self.name}.npz"}

    def make(self, work: Path, advance: Advance, piece: Piece) -> None:
        from dexcompose_agents.diffusion.agent import PolicyAgent
        from dexcompose_agents.held_states.collection import collect
        from dexcompose_envs.skills import make_expert

        config, (weights,) = self.config, self.reads()
        if config.scripted:
            agent: Agent = make_expert(self.name)
        else:
            agent = PolicyAgent.load(self.name, path=weights.path, device=self.physics.get("device", "cpu"))
        collect(
            self.name, agent, config.count, out=work / f"{self.name}.npz", seed=config.seed,
            num_envs=self.num_envs or (1024 if self.physics else min(64, config.count)), env_kwargs=self.physics,
            policy_hash="scripted" if config.scripted else content_hash(weights.path), progress=piece.watch(advance),
        )  # fmt: skip
