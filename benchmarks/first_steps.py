"""Where reinforcement learning starts: success of noisy residuals around `zero-shot`, before anything is learned.

python benchmarks/first_steps.py
"""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import tyro

from dexcompose_agents import load_mask, load_policy, load_stabiliser
from dexcompose_envs import OUTCOMES, env_id, parse_pair
from dexcompose_envs.wrappers import ActionOwnershipVector, BoundedResidualVector


@dataclass
class Config:
    """What to try."""

    pair: str = "GraspBall-PushButton"
    """Pair."""
    bounds: tuple[float, ...] = (0.05, 0.05, 0.1)
    """Bounds of the residual, normalised."""
    deviations: tuple[float, ...] = (0.0, 0.135, 1.0)
    """Standard deviations of the Gaussian residual, one for each bound; PPO's log_std_init of -2 is 0.135."""
    episodes: int = 64
    """Episodes per setting."""
    seed: int = 0
    """Seed of episodes and noise."""


def outcomes(config: Config, bound: float, deviation: float) -> dict[str, int]:
    """How the first episode of each world ended."""
    pair, rng = config.pair, np.random.default_rng(config.seed)
    venv = gym.make_vec(env_id(pair), num_envs=config.episodes)
    owned = ActionOwnershipVector(venv, load_mask(pair), reference=load_stabiliser(pair))
    agent = BoundedResidualVector(owned, load_policy(parse_pair(pair)[1]), bound)
    agent.reset(seed=config.seed)
    ends = np.zeros(config.episodes, np.int64)
    while not ends.all():
        *_, terminated, truncated, info = agent.step(deviation * rng.standard_normal(agent.action_space.shape))
        first = (terminated | truncated) & (ends == 0)
        if first.any():
            ends[first] = info["final_info"]["outcome"][first]
    agent.close()
    return {name: int((ends == index).sum()) for index, name in enumerate(OUTCOMES) if (ends == index).any()}


def main(config: Config) -> None:
    """Runs all settings."""
    for bound, deviation in zip(config.bounds, config.deviations, strict=True):
        print(f"bound {bound:g}, standard deviation {deviation:g}: {outcomes(config, bound, deviation)}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Config))
