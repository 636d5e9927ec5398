"""Skills with things and an expert for which nothing is trained yet: can, mug, door and microwave oven.

    from dexcompose_envs.skills.preview import register_preview

    register_preview()
    env = gym.make("DexCompose/PourMug-OpenMicrowave-v0", start="scratch")

They may still change. Can and mug have no held states yet, so that their pairs only start from scratch.
"""

from __future__ import annotations

from dexcompose_envs import register_skill, skill_names
from dexcompose_envs.skills.base import Skill
from dexcompose_envs.skills.preview.open_door import OpenDoor
from dexcompose_envs.skills.preview.open_microwave import OpenMicrowave
from dexcompose_envs.skills.preview.pick_can import PickCan
from dexcompose_envs.skills.preview.pour_mug import PourMug

PREVIEW: tuple[type[Skill], ...] = (PickCan, PourMug, OpenDoor, OpenMicrowave)


def register_preview() -> None:
    """Registers these skills, and the ids of their pairs with all others; a second call does nothing."""
    for skill in PREVIEW:
        if skill.name not in skill_names():
            register_skill(skill)
