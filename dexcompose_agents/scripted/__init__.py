"""Scripted parts of a composition, by name: they need no weights, and read nothing but observations.

They are our own, not the paper's: what a learned part is worth is what it does better than these, and that the two best
of them together solve a pair shows that it can be solved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from dexcompose_agents.scripted.reflex import Reflex
from dexcompose_agents.scripted.squeeze import FIRM_ANGLE, ConstantSqueeze
from dexcompose_agents.scripted.wrist_feedback import WristFeedback
from dexcompose_envs.composition.preserver import Stabiliser

__all__ = ["RESIDUALS", "STABILISERS", "ConstantSqueeze", "Reflex", "WristFeedback"]

STABILISERS: Mapping[str, Callable[[], Stabiliser]] = {
    "constant-squeeze": ConstantSqueeze,
    "firm-squeeze": partial(ConstantSqueeze, angle=FIRM_ANGLE),
    "reflex": Reflex,
}
"""In the role of stabiliser A: name -> maker."""
RESIDUALS: Mapping[str, Callable[[str], WristFeedback]] = {"wrist-feedback": WristFeedback.of_pair}
"""In the role of residual B: name -> maker from a pair."""
