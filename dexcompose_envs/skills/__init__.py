"""The skills, by name. A composite is one retention and one interaction skill; nothing is written per pair."""

from __future__ import annotations

from dexcompose_envs.skills.base import InteractionTask, RetentionTask
from dexcompose_envs.skills.interaction.push_button import PushButton
from dexcompose_envs.skills.retention.grasp_ball import GraspBall
from dexcompose_envs.skills.retention.pick_stick import PickStick

_RETENTION: dict[str, type[RetentionTask]] = {task.name: task for task in (GraspBall, PickStick)}
_INTERACTION: dict[str, type[InteractionTask]] = {task.name: task for task in (PushButton,)}

RETENTION_SKILLS = tuple(_RETENTION)
INTERACTION_SKILLS = tuple(_INTERACTION)
SKILLS = RETENTION_SKILLS + INTERACTION_SKILLS
PAIRS = tuple((a, b) for a in RETENTION_SKILLS for b in INTERACTION_SKILLS)


def make_retention(name: str) -> RetentionTask:
    """The retention skill of that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in _RETENTION:
        raise ValueError(f"unknown retention skill {name!r}; expected one of {', '.join(RETENTION_SKILLS)}")
    return _RETENTION[name]()


def make_interaction(name: str) -> InteractionTask:
    """The interaction skill of that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in _INTERACTION:
        raise ValueError(f"unknown interaction skill {name!r}; expected one of {', '.join(INTERACTION_SKILLS)}")
    return _INTERACTION[name]()


def parse_pair(pair: str) -> tuple[str, str]:
    """Splits "GraspBall-PushButton" into its two skills.

    Raises:
        ValueError: If the pair is not one of `PAIRS`.
    """
    parts = tuple(pair.split("-"))
    if parts not in PAIRS:
        known = ", ".join("-".join(p) for p in PAIRS)
        raise ValueError(f"unknown pair {pair!r}; expected one of {known}")
    return parts[0], parts[1]
