"""Wrappers that turn the 28-dimensional hand into what a learning algorithm wants to act on.

Order matters and is checked: `BoundedResidual` goes around `ActionOwnership`, which goes around the environment, so
that Eq. 12 holds, `a = M_A * a_A + M_B * (pi_B + residual)`. Each wrapper has a twin for vector environments, whose
arrays may be NumPy or torch. `ToNumpy` makes a torch vector environment look like a NumPy one. `SB3VecEnv` needs
Stable-Baselines3 and `RslRlVecEnv` needs torch and tensordict; they are imported only when they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dexcompose_envs.wrappers.action_ownership import ActionOwnership, ActionOwnershipVector
from dexcompose_envs.wrappers.bounded_residual import BoundedResidual, BoundedResidualVector
from dexcompose_envs.wrappers.to_numpy import ToNumpy

if TYPE_CHECKING:
    from dexcompose_envs.wrappers.rsl_rl import RslRlVecEnv
    from dexcompose_envs.wrappers.sb3 import SB3VecEnv

__all__ = [
    "ActionOwnership", "ActionOwnershipVector", "BoundedResidual", "BoundedResidualVector", "RslRlVecEnv", "SB3VecEnv",
    "ToNumpy",
]  # fmt: skip

_ADAPTERS = {"RslRlVecEnv": "rsl_rl", "SB3VecEnv": "sb3"}


def __getattr__(name: str) -> Any:
    if name in _ADAPTERS:
        return getattr(import_module(f"{__name__}.{_ADAPTERS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
