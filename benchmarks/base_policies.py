"""Success of scripted experts and base policies on single skills, over fresh seeds.

    python benchmarks/base_policies.py --episodes 200 --out benchmarks/results/base_policies

Writes `results.json`. Episode seeds start at 2**29 (`--first-seed`): above those of demonstrations and held states,
below evaluation's.
"""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import tyro

from dexcompose_agents.diffusion.agent import PolicyAgent
from dexcompose_agents.evaluation.statistics import wilson_interval
from dexcompose_envs import SKILLS, env_id
from dexcompose_envs.agent import Agent
from dexcompose_envs.files import atomic_write
from dexcompose_envs.rollouts import Episode, run_episodes
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
    first_seed: int = FIRST_SEED
    """Seed of the first episode."""
    out: Path = Path("runs/base_policies")
    """Folder of results.json."""


def make_agent(skill: str, actor: str) -> Agent:
    """The scripted expert of a skill, or its base policy with a sampler."""
    return make_expert(skill) if actor == "expert" else PolicyAgent.load(skill, scheduler=actor)


def run(skill: str, agent: Agent, episodes: int, num_envs: int, first_seed: int = FIRST_SEED) -> list[bool]:
    """Success of each episode, in the order of their seeds."""
    venv = gym.make_vec(env_id(skill), num_envs=min(num_envs, episodes), autoreset_mode="Disabled")
    plan = [Episode(first_seed + number) for number in range(episodes)]
    successes = [bool(rollout.info["success"]) for rollout in run_episodes(venv, agent, plan)]
    venv.close()
    return successes


def main(config: Config) -> None:
    """Measures and prints the table."""
    rows = []
    for skill in config.skills:
        for name in config.actors:
            agent = make_agent(skill, name)
            start = time.perf_counter()
            successes = run(skill, agent, config.episodes, config.num_envs, config.first_seed)
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
    result = {"machine": platform.processor() or platform.machine(), "first_seed": config.first_seed, "rows": rows}
    atomic_write(config.out / "results.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Config))
