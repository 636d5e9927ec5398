"""Success of scripted experts and base policies on single skills, over fresh seeds.

    python benchmarks/base_policies.py --episodes 200 --out benchmarks/results/base_policies

Writes `results.json`. Episode seeds start at 2**29: above those of demonstrations and held states, below evaluation's.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import tyro
from numpy.typing import NDArray

from dexcompose_agents.diffusion.policy import load_policy
from dexcompose_agents.evaluation.statistics import wilson_interval
from dexcompose_envs import SKILLS, env_id
from dexcompose_envs.files import atomic_write
from dexcompose_envs.skills import make_expert

FIRST_SEED = 2**29


@dataclass
class Config:
    """What to measure."""

    episodes: int = 200
    """Episodes per skill and actor."""
    num_envs: int = 50
    """Worlds stepped together."""
    actors: tuple[str, ...] = ("expert", "ddim", "ddpm")
    """expert: the scripted expert; ddim: the policy as shipped; ddpm: with all 100 denoising steps."""
    skills: tuple[str, ...] = SKILLS
    """Skills."""
    out: Path = Path("runs/base_policies")
    """Folder of results.json."""


class Actor(Protocol):
    """Acts in N worlds."""

    def reset(self, obs: Mapping[str, Any], seeds: NDArray[np.int64]) -> None:
        """Begins one episode in every world."""

    def act(self, obs: Mapping[str, Any]) -> NDArray[np.float32]:
        """Actions (N, 28)."""


class ExpertActor:
    """A scripted expert."""

    def __init__(self, skill: str) -> None:
        self._expert = make_expert(skill)

    def reset(self, obs: Mapping[str, Any], seeds: NDArray[np.int64]) -> None:
        """See `Actor`."""
        self._expert.reset(obs, {}, range(len(seeds)), [int(seed) for seed in seeds])

    def act(self, obs: Mapping[str, Any]) -> NDArray[np.float32]:
        """See `Actor`."""
        return self._expert.act(obs)


class PolicyActor:
    """A base policy with one sampler."""

    def __init__(self, skill: str, scheduler: str) -> None:
        self._policy = load_policy(skill, scheduler=scheduler)  # type: ignore[arg-type]

    def reset(self, obs: Mapping[str, Any], seeds: NDArray[np.int64]) -> None:
        """See `Actor`."""
        self._policy.reset(len(seeds))
        self._policy.seed_envs(seeds)

    def act(self, obs: Mapping[str, Any]) -> NDArray[np.float32]:
        """See `Actor`."""
        return self._policy.act(obs["task_a"] if "task_a" in obs else obs["task_b"])


def run(skill: str, actor: Actor, episodes: int, num_envs: int) -> list[bool]:
    """Success of each episode, in the order of their seeds."""
    venv = gym.make_vec(env_id(skill), num_envs=num_envs, autoreset_mode="SameStep")
    successes: list[bool] = []
    for first in range(0, episodes, num_envs):
        seeds = FIRST_SEED + first + np.arange(num_envs)
        obs, _ = venv.reset(seed=int(seeds[0]))
        actor.reset(obs, seeds)
        ended, success = np.zeros(num_envs, bool), np.zeros(num_envs, bool)
        while not ended.all():
            obs, _, terminated, truncated, info = venv.step(actor.act(obs))
            now = (terminated | truncated) & ~ended
            if now.any():
                success[now] = info["final_info"]["success"][now]
                ended |= now
        successes.extend(success.tolist())
    venv.close()
    return successes[:episodes]


def main(config: Config) -> None:
    """Measures and prints the table."""
    rows = []
    for skill in config.skills:
        for name in config.actors:
            actor: Actor = ExpertActor(skill) if name == "expert" else PolicyActor(skill, name)
            start = time.perf_counter()
            successes = run(skill, actor, config.episodes, config.num_envs)
            interval = wilson_interval(sum(successes), len(successes))
            low, high = interval.low, interval.high
            row = {
                "skill": skill, "actor": name, "episodes": len(successes), "successes": sum(successes),
                "interval_95": [round(low, 4), round(high, 4)], "seconds": round(time.perf_counter() - start, 1),
            }  # fmt: skip
            rows.append(row)
            rate = 100 * row["successes"] / row["episodes"]
            print(f"{skill:12s} {name:7s} {rate:6.1f} %  [{100 * low:.1f}, {100 * high:.1f}]  {row['seconds']} s")
    config.out.mkdir(parents=True, exist_ok=True)
    result = {"machine": platform.processor() or platform.machine(), "first_seed": FIRST_SEED, "rows": rows}
    atomic_write(config.out / "results.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Config))
