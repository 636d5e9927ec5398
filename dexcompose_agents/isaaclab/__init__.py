"""Residual B as a task of Isaac Lab's, `Isaac-DexCompose-GraspBall-PushButton-ResidualB-Direct-v0` and so on.

Isaac Lab finds them by the entry point `isaaclab.tasks`, so its own commands train them: `isaaclab train --rl_library
rsl_rl --task ...`. Importing this registers the tasks, and those of `dexcompose_envs.isaaclab`; Isaac Lab itself is
imported only when one is made.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from dexcompose_envs.isaaclab import register_isaaclab_envs
from dexcompose_envs.skills import pair_names

_ENV = "dexcompose_agents.isaaclab.residual_env"
_LEARNERS = "dexcompose_agents.isaaclab.learners"


def residual_id(pair: str) -> str:
    """Isaac Lab's id of the training of a pair's residual B."""
    return f"Isaac-DexCompose-{pair}-ResidualB-Direct-v0"


def _cfg_name(pair: str) -> str:
    return f"{pair.replace('-', '')}ResidualBEnvCfg"


def register_residual_envs() -> None:
    """Registers the ids of all pairs that have none yet."""
    register_isaaclab_envs()
    for pair in pair_names():
        if residual_id(pair) not in gym.registry:
            gym.register(
                id=residual_id(pair),
                entry_point=f"{_ENV}:ResidualBDirectEnv",
                disable_env_checker=True,
                kwargs={
                    "env_cfg_entry_point": f"{__name__}:{_cfg_name(pair)}",
                    "rsl_rl_cfg_entry_point": f"{_LEARNERS}:ResidualBRunnerCfg",
                    "skrl_cfg_entry_point": f"{_LEARNERS}:skrl_ppo_cfg",
                },
            )


def __getattr__(attribute: str) -> Any:
    """Configuration classes by name, made when they are asked for."""
    for pair in pair_names():
        if attribute == _cfg_name(pair):
            from dexcompose_envs.physics.isaaclab.lab import check_isaaclab

            check_isaaclab()
            from dexcompose_agents.isaaclab.residual_env import ResidualBEnvCfg
            from dexcompose_envs.physics.isaaclab.direct_env import env_cfg_class

            return env_cfg_class(pair, ResidualBEnvCfg)
    raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")


register_residual_envs()
