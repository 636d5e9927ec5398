"""Frozen grasp: every finger stays at A's reference hold action, and only the wrist belongs to pi_B."""

from __future__ import annotations

from dexcompose_agents.diffusion.policy import BasePolicy
from dexcompose_agents.methods.composed import ComposedMethod
from dexcompose_envs.ownership import FingerMask

__all__ = ["Frozen"]


class Frozen(ComposedMethod):
    """The baseline that releases no finger: Eq. 12 with all fingers preserved and no residual."""

    name = "frozen"

    def __init__(self, pair: str, base_policy: BasePolicy | None = None, device: str = "cpu") -> None:
        super().__init__(pair, FingerMask.all_fingers(), "none", base_policy=base_policy, device=device)
