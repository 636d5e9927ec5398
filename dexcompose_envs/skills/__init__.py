"""The skills by name, one file each in `retention/` and `interaction/`; nothing is written per pair.

Whatever stands in those two folders is found. Other code adds a skill with `dexcompose_envs.register_skill`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from typing import Any, cast

from dexcompose_envs.agent import Agent
from dexcompose_envs.checks import one_of
from dexcompose_envs.errors import UsageError
from dexcompose_envs.skills import interaction, retention
from dexcompose_envs.skills.base import InteractionSkill, RetentionSkill, Skill

KINDS = ("retention", "interaction")


def _shipped() -> Iterator[type[Skill]]:
    for package in (retention, interaction):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            for value in vars(import_module(module.name)).values():
                if isinstance(value, type) and issubclass(value, Skill) and value.__module__ == module.name:
                    yield value


_SKILLS: dict[str, type[Skill]] = {skill.name: skill for skill in _shipped()}


def add_skill(skill: type[Skill]) -> None:
    """Adds a concrete `RetentionSkill` or `InteractionSkill`; its ids are made by `dexcompose_envs.register_skill`.

    Raises:
        UsageError: If there is a skill of that name, or the name doesn't fit into an id.
    """
    if not skill.name.isidentifier():
        raise UsageError(f"skill is named {skill.name!r}; expected letters and digits, as in 'PushButton'")
    if skill.name in _SKILLS:
        raise UsageError(f"there is a skill named {skill.name!r} already: {_SKILLS[skill.name].__qualname__}")
    _SKILLS[skill.name] = skill


def skill_names(kind: str | None = None) -> tuple[str, ...]:
    """Names of all skills, retention skills first, or of one kind: "retention" or "interaction"."""
    return tuple(
        name for wanted in KINDS for name, skill in _SKILLS.items() if skill.kind == wanted and kind in (None, wanted)
    )


def pair_names() -> tuple[str, ...]:
    """Names of all pairs of a retention and an interaction skill, such as "GraspBall-PushButton"."""
    return tuple(f"{a}-{b}" for a in skill_names("retention") for b in skill_names("interaction"))


def make_skill(name: str) -> Skill:
    """The skill of that name; a UsageError if there is none."""
    return _make(name, None)


def make_retention(name: str) -> RetentionSkill:
    """The retention skill of that name; a UsageError if there is none."""
    return cast(RetentionSkill, _make(name, "retention"))


def make_interaction(name: str) -> InteractionSkill:
    """The interaction skill of that name; a UsageError if there is none."""
    return cast(InteractionSkill, _make(name, "interaction"))


def make_expert(name: str) -> Agent:
    """The scripted expert of a skill; a UsageError if there is no such skill."""
    return make_skill(name).expert()


def _make(name: str, kind: str | None) -> Skill:
    return _SKILLS[one_of("skill" if kind is None else f"{kind} skill", name, skill_names(kind))]()


def parse_chain(name: str) -> tuple[str | None, tuple[str, ...]]:
    """Splits a skill's or a chain's name into its retention skill, if any, and its interaction skills in turn.

    Raises:
        UsageError: If a part is no skill, or stands where it can't.
    """
    parts = str(name).split("-")
    first = make_skill(parts[0])
    if first.kind == "interaction" and len(parts) > 1:
        known = ", ".join(skill_names("retention"))
        raise UsageError(f"{name!r} begins with {parts[0]!r}; expected a retention skill first: one of {known}")
    if first.kind == "interaction":
        return None, (first.name,)
    return first.name, tuple(make_interaction(part).name for part in parts[1:])


def parse_pair(pair: str) -> tuple[str, str]:
    """Splits "GraspBall-PushButton" into its two skills; a UsageError if that is no pair."""
    a, b = one_of("pair", pair, pair_names()).split("-")
    return a, b


def composite_name(name: str) -> str:
    """The name of a pair or a longer chain, as it came; a UsageError if it is none."""
    try:
        retention, interactions = parse_chain(name)
    except UsageError:
        retention, interactions = None, ()
    if retention is None or not interactions:
        raise UsageError(
            f"unknown pair {name!r}; expected one of {', '.join(pair_names())}, or one with more interaction skills"
        )
    return name


def __getattr__(name: str) -> Any:
    """The names as constants, which a registration changes."""
    constants = {
        "RETENTION_SKILLS": lambda: skill_names("retention"),
        "INTERACTION_SKILLS": lambda: skill_names("interaction"),
        "SKILLS": skill_names,
        "PAIRS": lambda: tuple(parse_pair(pair) for pair in pair_names()),
    }
    if name not in constants:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return constants[name]()
