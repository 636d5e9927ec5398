"""Gymnasium environments for composite dexterous manipulation with one floating Shadow Hand.

Importing this package registers the ids `DexCompose/<Skill>-v0` and `DexCompose/<SkillA>-<SkillB>-v0`.
"""

from dexcompose_envs.episodes.phases import OUTCOMES
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.registration import env_id, register_envs
from dexcompose_envs.skills import INTERACTION_SKILLS, PAIRS, RETENTION_SKILLS, SKILLS, parse_pair

__version__ = "0.1.0"
__all__ = [
    "INTERACTION_SKILLS",
    "OUTCOMES",
    "PAIRS",
    "RETENTION_SKILLS",
    "SKILLS",
    "FingerMask",
    "__version__",
    "env_id",
    "parse_pair",
]

register_envs()
