"""The timeline of a composite episode and the ways in which it can end."""

from __future__ import annotations

PHASES = ("hold", "transition", "interact")
HOLD_STEPS = 10
"""Control steps in which the hand keeps the held state as it is."""
TRANSITION_STEPS = 40
"""Control steps in which released fingers open and the wrist travels to the interaction skill's start."""
INTERACT_FROM = HOLD_STEPS + TRANSITION_STEPS
SETTLE_STEPS = 10
"""Control steps for which the object must still be held after the interaction succeeded."""
COMPOSITE_STEPS = 200
"""Default length of a composite episode, in control steps."""

RETENTION_RADIUS = 0.05
"""d_ret: largest distance of a held object from its hold target in the palm frame, m."""
DROP_HEIGHT = 0.03
"""h_drop: least height of a held object's centre above the table, m."""

OUTCOMES = ("ongoing", "success", "init", "transition", "drop", "b_fail")
ONGOING, SUCCESS, LOST_INIT, LOST_TRANSITION, LOST_DROP, B_FAIL = range(len(OUTCOMES))
