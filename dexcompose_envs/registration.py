"""Registers the grid of environments: every single skill, every pair, and any chain that somebody asks for."""

from __future__ import annotations

import gymnasium as gym

from dexcompose_envs.episodes.judge import longest_episode
from dexcompose_envs.skills import add_skill, pair_names, parse_chain, skill_names
from dexcompose_envs.skills.base import Skill
from dexcompose_envs.skills.chain import Chain

NAMESPACE = "DexCompose"


def env_id(name: str) -> str:
    """Gymnasium id of a skill ("OpenDoor"), a pair ("GraspBall-PushButton") or a longer chain."""
    return f"{NAMESPACE}/{name}-v0"


def register_envs() -> None:
    """Registers the ids of all skills and pairs that have none yet."""
    for name in (*skill_names(), *pair_names()):
        register_chain(name)


def register_skill(skill: type[Skill]) -> None:
    """Adds a concrete `RetentionSkill` or `InteractionSkill`, and the ids of the skill and all its pairs.

    Raises:
        UsageError: If there is a skill of that name, or the name doesn't fit into an id.
    """
    add_skill(skill)
    register_envs()


def register_chain(name: str) -> str:
    """Registers a chain such as "GraspBall-PushButton-PushButton", if it isn't yet, and returns its id.

    Raises:
        UsageError: If a part of the name is no skill, or stands where it can't.
    """
    retention, interactions = parse_chain(name)
    chain = Chain.of(retention, interactions)
    if env_id(name) in gym.registry:
        return env_id(name)
    gym.register(
        id=env_id(name),
        entry_point="dexcompose_envs.env:DexComposeEnv",
        vector_entry_point="dexcompose_envs.vector_env:DexComposeVectorEnv",
        max_episode_steps=longest_episode(chain),
        kwargs={"retention": retention, "interactions": list(interactions)},
    )
    return env_id(name)
