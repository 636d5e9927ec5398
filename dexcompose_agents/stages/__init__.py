"""The stages from demonstrations to residuals, and the chain that runs them."""

from __future__ import annotations

STAGES = {
    "demos": "dexcompose_agents.stages.skill:Demonstrations",
    "train policy": "dexcompose_agents.stages.skill:Policy",
    "train held-states": "dexcompose_agents.stages.skill:HeldStates",
    "release-test": "dexcompose_agents.stages.fingers:ReleaseTest",
    "mask-test": "dexcompose_agents.stages.fingers:MaskTest",
    "select-mask": "dexcompose_agents.stages.fingers:Mask",
    "train stabiliser": "dexcompose_agents.stages.residuals:Stabiliser",
    "train residual": "dexcompose_agents.stages.residuals:Residual",
}
"""Every stage by its command, in the order of the chain; all else is derived from it."""
