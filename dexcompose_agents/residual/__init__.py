"""Bounded residuals on top of frozen policies: network, PPO, stabiliser A and residual B."""

from dexcompose_agents.residual.config import (
    PRESETS,
    DisturbanceConfig,
    ResidualBConfig,
    StabiliserConfig,
    residual_b_preset,
    stabiliser_preset,
)
from dexcompose_agents.rl.actor_critic import ActorCritic, DeterministicPolicy
from dexcompose_agents.rl.config import PPOConfig
from dexcompose_agents.rl.ppo import PPO, TrainingPaused
from dexcompose_agents.rl.rollout import RolloutEnv, Step

__all__ = [
    "PPO",
    "PRESETS",
    "ActorCritic",
    "DeterministicPolicy",
    "DisturbanceConfig",
    "PPOConfig",
    "ResidualBConfig",
    "RolloutEnv",
    "StabiliserConfig",
    "Step",
    "TrainingPaused",
    "residual_b_preset",
    "stabiliser_preset",
]
