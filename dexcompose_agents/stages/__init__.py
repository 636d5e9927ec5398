"""The stages from demonstrations to residuals, and the chain that runs them."""

from __future__ import annotations

STAGES = {
    "demos": "dexcompose_agents.stages.demonstrations:Demonstrations",
    "train policy": "dexcompose_agents.stages.policy:Policy",
    "train held-states": "dexcompose_agents.stages.held_states:HeldStates",
    "release-test": "dexcompose_agents.stages.release_test:ReleaseTest",
    "select-mask": "dexcompose_agents.stages.mask:Mask",
    "train stabiliser": "dexcompose_agents.stages.stabiliser:Stabiliser",
    "train residual": "dexcompose_agents.stages.residual:Residual",
}
"""Every stage by its command, in the order of the chain; all else is derived from it."""
