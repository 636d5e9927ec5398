"""The clock: how long a physics step and a control step last."""

PHYSICS_STEP = 0.005
"""Simulated time of one physics step, s."""
PHYSICS_STEPS_PER_CONTROL_STEP = 8
CONTROL_STEP = PHYSICS_STEP * PHYSICS_STEPS_PER_CONTROL_STEP
"""Simulated time of one control step, s (25 Hz)."""
