"""Gymnasium environments for composite dexterous manipulation with one floating Shadow Hand.

Importing this package registers the ids `DexCompose/<Skill>-v0` and `DexCompose/<SkillA>-<SkillB>-v0`.
"""

from typing import Any

from dexcompose_envs import skills
from dexcompose_envs.episodes.phases import OUTCOMES
from dexcompose_envs.errors import DexComposeError
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.registration import env_id, register_chain, register_envs, register_skill
from dexcompose_envs.skills import pair_names, parse_chain, parse_pair, skill_names

__version__ = "0.1.0"
__all__ = [
    "INTERACTION_SKILLS",
    "OUTCOMES",
    "PAIRS",
    "RETENTION_SKILLS",
    "SKILLS",
    "DexComposeError",
    "FingerMask",
    "__version__",
    "env_id",
    "pair_names",
    "parse_chain",
    "parse_pair",
    "register_chain",
    "register_skill",
    "skill_names",
]


def __getattr__(name: str) -> Any:
    """`SKILLS`, `RETENTION_SKILLS`, `INTERACTION_SKILLS` and `PAIRS`: the skills registered now."""
    return getattr(skills, name)


register_envs()
