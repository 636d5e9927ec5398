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


def fixture_body(place: str) -> str:
    """Name of the body that carries the fixture at a place of the chain."""
    return f"{place}_fixture"


_KIND, _TYPE = mujoco.mjtSensor, mujoco.mjtObj
_PALM = (_TYPE.mjOBJ_SITE, "palm_center")
_NET_FORCE = (1 << 1, 3, 1)
"""Data: force; reduction: net force; one slot."""


def sensor_groups(model: mujoco.MjModel) -> dict[str, slice]:
    """Columns of each group in a model's sensor data."""
    groups: dict[str, slice] = {}
    for i in range(model.nsensor):
        group, start = model.sensor(i).name.partition("/")[0], int(model.sensor_adr[i])
        first = groups[group].start if group in groups else start
        groups[group] = slice(first, start + int(model.sensor_dim[i]))
    return groups


def _add(
    spec: mujoco.MjSpec,
    group: str,
    kind: mujoco.mjtSensor,
    objects: Iterable[str],
    object_type: mujoco.mjtObj,
    relative_to: tuple[mujoco.mjtObj, str] | None = None,
    intprm: tuple[int, int, int] | None = None,
) -> None:
    """Adds one sensor per object; the group is their concatenation."""
    for name in objects:
        sensor = spec.add_sensor(name=f"{group}/{name}", type=kind, objtype=object_type, objname=name)
        if relative_to is not None:
            sensor.reftype, sensor.refname = relative_to
        if intprm is not None:
            sensor.intprm = intprm


def add_hand_sensors(spec: mujoco.MjSpec) -> None:
    """What is known of the hand in every scene."""
    _add(spec, "joint_position", _KIND.mjSENS_JOINTPOS, hand.ACTION_NAMES, _TYPE.mjOBJ_JOINT)
    _add(spec, "joint_velocity", _KIND.mjSENS_JOINTVEL, hand.ACTION_NAMES, _TYPE.mjOBJ_JOINT)
    actuators = [f"A_{joint}" for joint in hand.JOINTS]
    _add(spec, "finger_force", _KIND.mjSENS_ACTUATORFRC, actuators, _TYPE.mjOBJ_ACTUATOR)
    _add(spec, "palm_position", _KIND.mjSENS_FRAMEPOS, [_PALM[1]], _TYPE.mjOBJ_SITE)
    _add(spec, "palm_quaternion", _KIND.mjSENS_FRAMEQUAT, [_PALM[1]], _TYPE.mjOBJ_SITE)
    _add(spec, "tip_position", _KIND.mjSENS_FRAMEPOS, _TIPS, _TYPE.mjOBJ_SITE)


def add_object_sensors(spec: mujoco.MjSpec) -> None:
    """What is known of a held object."""
    body, frame = [OBJECT], _TYPE.mjOBJ_XBODY
    _add(spec, "tip_in_palm", _KIND.mjSENS_FRAMEPOS, _TIPS, _TYPE.mjOBJ_SITE, _PALM)
    _add(spec, "object_position", _KIND.mjSENS_FRAMEPOS, body, frame, _PALM)
    _add(spec, "object_quaternion", _KIND.mjSENS_FRAMEQUAT, body, frame, _PALM)
    _add(spec, "object_linear_velocity", _KIND.mjSENS_FRAMELINVEL, body, frame, _PALM)
    _add(spec, "object_angular_velocity", _KIND.mjSENS_FRAMEANGVEL, body, frame)
    _add(spec, "object_world_position", _KIND.mjSENS_FRAMEPOS, body, frame)
    _add(spec, "object_world_quaternion", _KIND.mjSENS_FRAMEQUAT, body, frame)


def add_skill_sensors(spec: mujoco.MjSpec, skill: Skill, place: str, body: str) -> None:
    """What is known of a skill's thing, whose body is named `body`, at a place of the chain."""
    for name in skill.joints:
        _add(spec, f"{place}_joint_{name}", _KIND.mjSENS_JOINTPOS, [f"{place}_{name}"], _TYPE.mjOBJ_JOINT)
    for name in skill.sites:
        _add(spec, f"{place}_site_{name}", _KIND.mjSENS_FRAMEPOS, [f"{place}_{name}"], _TYPE.mjOBJ_SITE)
    links = [link for finger in hand.FINGERS for link in hand.FINGER_LINKS[finger]]
    touched = (_TYPE.mjOBJ_XBODY, body)
    _add(spec, f"{place}_contact", _KIND.mjSENS_CONTACT, links, _TYPE.mjOBJ_BODY, touched, _NET_FORCE)


_TIPS = [f"{finger}_tip" for finger in hand.FINGERS]
