"""Registers the grid of environments: every single skill and every pair of skills."""

from __future__ import annotations

import gymnasium as gym

from dexcompose_envs.episodes.phases import COMPOSITE_STEPS
from dexcompose_envs.skills import INTERACTION_SKILLS, PAIRS, RETENTION_SKILLS, make_interaction, make_retention

NAMESPACE = "DexCompose"


def env_id(name: str) -> str:
    """Gymnasium id of a skill ("OpenDoor") or a pair ("GraspBall-PushButton")."""
    return f"{NAMESPACE}/{name}-v0"


def register_envs() -> None:
    """Registers all ids with string entry points, so that specs serialise."""
    for a in RETENTION_SKILLS:
        _register(a, a, None, make_retention(a).MAX_STEPS)
    for b in INTERACTION_SKILLS:
        _register(b, None, b, make_interaction(b).MAX_STEPS)
    for a, b in PAIRS:
        _register(f"{a}-{b}", a, b, COMPOSITE_STEPS)


def _register(name: str, retention: str | None, interaction: str | None, max_episode_steps: int) -> None:
    gym.register(
        id=env_id(name),
        entry_point="dexcompose_envs.env:DexComposeEnv",
        vector_entry_point="dexcompose_envs.vector_env:DexComposeVectorEnv",
        max_episode_steps=max_episode_steps,
        kwargs={"retention": retention, "interaction": interaction},
    )
