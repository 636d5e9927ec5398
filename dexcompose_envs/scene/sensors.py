"""Sensors: all that observations and tasks read is declared here, so that every engine delivers it the same way.

Groups of the hand: joint_position, joint_velocity (28, m and rad), finger_force (22, Nm), palm_position (3),
palm_quaternion (4), tip_position (15, world). Of the held object: tip_in_palm (15); object_position (3),
object_quaternion (4), object_linear_velocity (3) relative to the palm centre; object_angular_velocity (3, own frame);
object_world_position (3), object_world_quaternion (4). Of the skill at place x: x_joint_<name> (1, m or rad),
x_site_<name> (3, world), x_contact (45: net force of its thing on each finger link, N).
"""

from __future__ import annotations

from collections.abc import Iterable

import mujoco

from dexcompose_envs import hand
from dexcompose_envs.skills.base import Skill

OBJECT = "object"
"""Body of the held object in every scene."""

_KIND, _TYPE = mujoco.mjtSensor, mujoco.mjtObj
_PALM = (_TYPE.mjOBJ_SITE, "palm_center")
_NET_FORCE = (1 << 1, 3, 1)
"""Data: force; reduction: net force; one slot."""


class SensorTable:
    """Adds sensors in named, contiguous groups."""

    def __init__(self, spec: mujoco.MjSpec) -> None:
        self._spec = spec
        self._sizes: dict[str, int] = {}

    def add(
        self,
        group: str,
        kind: mujoco.mjtSensor,
        objects: Iterable[str],
        object_type: mujoco.mjtObj,
        size: int,
        relative_to: tuple[mujoco.mjtObj, str] | None = None,
        intprm: tuple[int, int, int] | None = None,
    ) -> None:
        """Adds one sensor per object; the group is their concatenation."""
        for name in objects:
            sensor = self._spec.add_sensor(name=f"{group}_{name}", type=kind, objtype=object_type, objname=name)
            if relative_to is not None:
                sensor.reftype, sensor.refname = relative_to
            if intprm is not None:
                sensor.intprm = intprm
            self._sizes[group] = self._sizes.get(group, 0) + size

    def columns(self) -> dict[str, slice]:
        """Columns of each group, in the order in which groups were added."""
        table: dict[str, slice] = {}
        start = 0
        for group, size in self._sizes.items():
            table[group] = slice(start, start + size)
            start += size
        return table


def add_hand_sensors(table: SensorTable) -> None:
    """What is known of the hand in every scene."""
    table.add("joint_position", _KIND.mjSENS_JOINTPOS, hand.ACTION_NAMES, _TYPE.mjOBJ_JOINT, 1)
    table.add("joint_velocity", _KIND.mjSENS_JOINTVEL, hand.ACTION_NAMES, _TYPE.mjOBJ_JOINT, 1)
    actuators = [f"A_{joint}" for joint in hand.JOINTS]
    table.add("finger_force", _KIND.mjSENS_ACTUATORFRC, actuators, _TYPE.mjOBJ_ACTUATOR, 1)
    table.add("palm_position", _KIND.mjSENS_FRAMEPOS, [_PALM[1]], _TYPE.mjOBJ_SITE, 3)
    table.add("palm_quaternion", _KIND.mjSENS_FRAMEQUAT, [_PALM[1]], _TYPE.mjOBJ_SITE, 4)
    table.add("tip_position", _KIND.mjSENS_FRAMEPOS, _TIPS, _TYPE.mjOBJ_SITE, 3)


def add_object_sensors(table: SensorTable) -> None:
    """What is known of a held object."""
    body, frame = [OBJECT], _TYPE.mjOBJ_XBODY
    table.add("tip_in_palm", _KIND.mjSENS_FRAMEPOS, _TIPS, _TYPE.mjOBJ_SITE, 3, _PALM)
    table.add("object_position", _KIND.mjSENS_FRAMEPOS, body, frame, 3, _PALM)
    table.add("object_quaternion", _KIND.mjSENS_FRAMEQUAT, body, frame, 4, _PALM)
    table.add("object_linear_velocity", _KIND.mjSENS_FRAMELINVEL, body, frame, 3, _PALM)
    table.add("object_angular_velocity", _KIND.mjSENS_FRAMEANGVEL, body, frame, 3)
    table.add("object_world_position", _KIND.mjSENS_FRAMEPOS, body, frame, 3)
    table.add("object_world_quaternion", _KIND.mjSENS_FRAMEQUAT, body, frame, 4)


def add_skill_sensors(table: SensorTable, skill: Skill, place: str, body: str) -> None:
    """What is known of a skill's thing, whose body is named `body`, at a place of the chain."""
    for name in skill.joints:
        table.add(f"{place}_joint_{name}", _KIND.mjSENS_JOINTPOS, [f"{place}_{name}"], _TYPE.mjOBJ_JOINT, 1)
    for name in skill.sites:
        table.add(f"{place}_site_{name}", _KIND.mjSENS_FRAMEPOS, [f"{place}_{name}"], _TYPE.mjOBJ_SITE, 3)
    links = [link for finger in hand.FINGERS for link in hand.FINGER_LINKS[finger]]
    touched = (_TYPE.mjOBJ_XBODY, body)
    table.add(f"{place}_contact", _KIND.mjSENS_CONTACT, links, _TYPE.mjOBJ_BODY, 3, touched, _NET_FORCE)


_TIPS = [f"{finger}_tip" for finger in hand.FINGERS]
