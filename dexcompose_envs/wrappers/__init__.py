"""Wrappers that turn the 28-dimensional hand into what a learning algorithm wants to act on.

Order matters and is checked: `BoundedResidual` goes around `ActionOwnership`, which goes around the environment, so
that Eq. 12 holds, `a = M_A * a_A + M_B * (pi_B + residual)`. Each wrapper has a twin for vector environments.
`SB3VecEnv` needs Stable-Baselines3 and is imported only when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dexcompose_envs.wrappers.action_ownership import ActionOwnership, ActionOwnershipVector
from dexcompose_envs.wrappers.bounded_residual import BoundedResidual, BoundedResidualVector

if TYPE_CHECKING:
    from dexcompose_envs.wrappers.sb3 import SB3VecEnv

__all__ = ["ActionOwnership", "ActionOwnershipVector", "BoundedResidual", "BoundedResidualVector", "SB3VecEnv"]


def __getattr__(name: str) -> Any:
    if name == "SB3VecEnv":
        from dexcompose_envs.wrappers.sb3 import SB3VecEnv

        return SB3VecEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
