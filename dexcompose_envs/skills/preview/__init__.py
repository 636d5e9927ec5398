"""Skills with things and an expert for which nothing is trained yet: can and mug, door, microwave oven and switch.

    from dexcompose_envs.skills.preview import register_preview

    register_preview()
    env = gym.make("DexCompose/GraspBall-OpenDoor-v0")

They may still change. Can and mug have no held states, so that their pairs only start from scratch so far.
"""

from __future__ import annotations

from dexcompose_envs import register_skill, skill_names
from dexcompose_envs.skills.base import Skill
from dexcompose_envs.skills.preview.open_door import OpenDoor
from dexcompose_envs.skills.preview.open_microwave import OpenMicrowave
from dexcompose_envs.skills.preview.pick_can import PickCan
from dexcompose_envs.skills.preview.pour_mug import PourMug
from dexcompose_envs.skills.preview.turn_on_switch import TurnOnSwitch

PREVIEW: tuple[type[Skill], ...] = (PickCan, PourMug, OpenDoor, OpenMicrowave, TurnOnSwitch)


def register_preview() -> None:
    """Registers these skills, and the ids of their pairs with all others; a second call does nothing."""
    for skill in PREVIEW:
        if skill.name not in skill_names():
            register_skill(skill)
