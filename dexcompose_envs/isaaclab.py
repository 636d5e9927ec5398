"""`import dexcompose_envs.isaaclab` registers the grid with Isaac Lab: `Isaac-DexCompose-OpenDoor-Direct-v0` and so on.

Isaac Lab itself is imported only when one of these is made. The same tasks under their own ids, as Gymnasium's vector
environments, have `gym.make_vec(..., backend="isaaclab")`.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from dexcompose_envs.skills import pair_names, skill_names

_DIRECT_ENV = "dexcompose_envs.physics.isaaclab.direct_env"


def isaaclab_id(name: str) -> str:
    """Isaac Lab's id of a skill ("OpenDoor") or a pair ("GraspBall-PushButton")."""
    return f"Isaac-DexCompose-{name}-Direct-v0"


def cfg_name(name: str) -> str:
    """Name in this module of a skill's or pair's configuration class, such as "OpenDoorEnvCfg"."""
    return f"{name.replace('-', '')}EnvCfg"


def register_isaaclab_envs() -> None:
    """Registers the ids of all skills and pairs that have none yet."""
    for name in (*skill_names(), *pair_names()):
        if isaaclab_id(name) not in gym.registry:
            gym.register(
                id=isaaclab_id(name),
                entry_point=f"{_DIRECT_ENV}:DexComposeDirectEnv",
                disable_env_checker=True,
                kwargs={"env_cfg_entry_point": f"{__name__}:{cfg_name(name)}"},
            )


def __getattr__(attribute: str) -> Any:
    """Configuration classes by name, made when they are asked for."""
    for name in (*skill_names(), *pair_names()):
        if attribute == cfg_name(name):
            from dexcompose_envs.physics.isaaclab.lab import check_isaaclab

            check_isaaclab()
            from dexcompose_envs.physics.isaaclab.direct_env import env_cfg_class

            return env_cfg_class(name)
    raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")


register_isaaclab_envs()
