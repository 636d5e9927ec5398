"""The timeline of a composite episode and the ways in which it can end."""

from __future__ import annotations

PHASES = ("hold", "transition", "interact")
HOLD_STEPS = 10
"""Control steps in which the hand keeps the held state as it is."""
TRANSITION_STEPS = 40
"""Control steps in which released fingers open and the wrist travels to the interaction skill's start."""
INTERACT_FROM = HOLD_STEPS + TRANSITION_STEPS
SETTLE_STEPS = 10
"""Control steps for which the object must still be held after an interaction succeeded."""
INTERACTION_STEPS = 200
"""Control steps in which an interaction must be done in a composite, counted from the start or the one before."""

OUTCOMES = ("ongoing", "success", "init", "transition", "drop", "b_fail")
ONGOING, SUCCESS, LOST_INIT, LOST_TRANSITION, LOST_DROP, B_FAIL = range(len(OUTCOMES))
