"""A chain: one retention skill, and any number of interaction skills done in turn while its object is held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.errors import UsageError
from dexcompose_envs.observations import (
    FIXTURE_CONTEXT,
    HAND_CONTEXT,
    JOINT_POSITION,
    OBJECT_CONTEXT,
    STAGE,
    Term,
    layout_of,
)
from dexcompose_envs.skills import make_interaction, make_retention
from dexcompose_envs.skills.base import InteractionSkill, RetentionSkill, Skill

PLACES = "abcdefgh"
"""Letters of the skills in a chain: the retention skill is a, the interactions b, c, ... in turn."""
_ASIDE = 0.20
"""Distance (m) between neighbouring fixtures along world Y."""


@dataclass(frozen=True, eq=False)
class Chain:
    """The skills of one environment.

    Attributes:
        retention: The skill whose object is held, or None.
        interactions: The skills whose fixtures are worked, in turn; may be empty.
    """

    retention: RetentionSkill | None
    interactions: tuple[InteractionSkill, ...]

    @classmethod
    def of(cls, retention: str | None, interactions: Sequence[str]) -> Chain:
        """The chain of skills with these names; a UsageError if there is none, too many, or an unknown one."""
        if retention is None and len(interactions) != 1:
            raise UsageError(
                f"got the interaction skills {list(interactions)} without a retention skill; expected a retention "
                "skill, one interaction skill, or a retention skill and interaction skills"
            )
        if len(interactions) >= len(PLACES):
            raise UsageError(f"got {len(interactions)} interaction skills; expected at most {len(PLACES) - 1}")
        return cls(
            None if retention is None else make_retention(retention),
            tuple(make_interaction(name) for name in interactions),
        )

    @property
    def name(self) -> str:
        """Such as "GraspBall-PushButton"."""
        return "-".join(skill.name for skill in self.skills.values())

    @property
    def is_composite(self) -> bool:
        """Whether an object is held while a fixture is worked."""
        return self.retention is not None and bool(self.interactions)

    @cached_property
    def skills(self) -> dict[str, Skill]:
        """Skills by their places' letters."""
        held: dict[str, Skill] = {} if self.retention is None else {PLACES[0]: self.retention}
        return held | dict(zip(PLACES[1:], self.interactions, strict=False))

    @cached_property
    def interaction_places(self) -> tuple[str, ...]:
        """Letters of the interactions' places, in turn."""
        return tuple(PLACES[1 : len(self.interactions) + 1])

    @property
    def task_keys(self) -> tuple[str, ...]:
        """Observation keys of the interactions, in turn."""
        return tuple(f"task_{place}" for place in self.interaction_places)

    @cached_property
    def terms(self) -> dict[str, tuple[tuple[str, Term], ...]]:
        """The observation: key -> terms, each with the letter of the skill that looks."""
        first = next(iter(self.skills))
        context = [(first, term) for term in HAND_CONTEXT]
        context += [(PLACES[0], term) for term in OBJECT_CONTEXT if self.retention is not None]
        for index, place in enumerate(self.interaction_places):
            ending = f"_{place}" if index else ""
            context += [(place, replace(term, name=term.name + ending)) for term in FIXTURE_CONTEXT]
        if len(self.interactions) > 1:
            context.append((first, STAGE))
        own = {place: (JOINT_POSITION, *skill.terms) for place, skill in self.skills.items()}
        terms = {f"task_{place}": tuple((place, term) for term in each) for place, each in own.items()}
        return terms | {"context": tuple(context)}

    @property
    def layout(self) -> dict[str, dict[str, slice]]:
        """Columns of every observation: key -> term -> columns."""
        return {key: layout_of([term for _, term in terms]) for key, terms in self.terms.items()}

    @cached_property
    def offsets(self) -> NDArray[np.float64]:
        """Where fixtures are placed, relative to where they stand alone, as joint positions (k, 28): side by side."""
        offsets = np.zeros((len(self.interactions), hand.NUM_ACTIONS))
        sides = [(index + 1) // 2 * (1 if index % 2 else -1) for index in range(len(offsets))]
        offsets[:, hand.WRIST_JOINTS.index("WY")] = _ASIDE * np.array(sides)
        return offsets

    @property
    def start_poses(self) -> NDArray[np.float64]:
        """Hand poses (k, 28) from which the interactions start, m and rad."""
        poses = [skill.start_pose for skill in self.interactions]
        return np.reshape(poses, (len(poses), hand.NUM_ACTIONS)) + self.offsets
