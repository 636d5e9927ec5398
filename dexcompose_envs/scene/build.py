"""Scenes: arena, hand, one object and one fixture, compiled to an `MjModel` with named sensor groups."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import mujoco

from dexcompose_envs import hand
from dexcompose_envs.scene.model_hash import model_hash
from dexcompose_envs.skills import make_interaction, make_retention
from dexcompose_envs.skills.base import FIXTURE, OBJECT
from dexcompose_envs.skills.parts import add_arena

PHYSICS_STEP = 0.005
"""Simulated time of one physics step, s."""
PHYSICS_STEPS_PER_CONTROL_STEP = 8
CONTROL_STEP = PHYSICS_STEP * PHYSICS_STEPS_PER_CONTROL_STEP
"""Simulated time of one control step, s (25 Hz)."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A compiled scene.

    Attributes:
        model: The MuJoCo model.
        sensors: Sensor group name -> columns of `sensordata`.
        model_hash: Fingerprint of the model's physics, see `model_hash.py`.
    """

    model: mujoco.MjModel
    sensors: dict[str, slice]
    model_hash: str


class _SensorTable:
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


def _add_sensors(spec: mujoco.MjSpec, has_object: bool, has_fixture: bool) -> dict[str, slice]:
    """Declares all that observations and tasks read; every engine delivers it the same way.

    Groups: joint_position, joint_velocity (28, m and rad), finger_force (22, Nm), palm_position (3),
    palm_quaternion (4), tip_position (15, world), tip_in_palm (15); object_position (3), object_quaternion (4),
    object_linear_velocity (3) relative to the palm centre; object_angular_velocity (3, own frame);
    object_world_position (3), object_world_quaternion (4); object_contact (45: net force of the object on each finger
    link, N); fixture_joint (1), fixture_target (3, world), fixture_contact (45).
    """
    table = _SensorTable(spec)
    kind, obj = mujoco.mjtSensor, mujoco.mjtObj
    palm = (obj.mjOBJ_SITE, "palm_center")
    tips = [f"{finger}_tip" for finger in hand.FINGERS]
    links = [link for finger in hand.FINGERS for link in hand.FINGER_LINKS[finger]]
    net_force = (1 << 1, 3, 1)  # data: force; reduction: net force; one slot

    table.add("joint_position", kind.mjSENS_JOINTPOS, hand.ACTION_NAMES, obj.mjOBJ_JOINT, 1)
    table.add("joint_velocity", kind.mjSENS_JOINTVEL, hand.ACTION_NAMES, obj.mjOBJ_JOINT, 1)
    table.add("finger_force", kind.mjSENS_ACTUATORFRC, [f"A_{j}" for j in hand.JOINTS], obj.mjOBJ_ACTUATOR, 1)
    table.add("palm_position", kind.mjSENS_FRAMEPOS, ["palm_center"], obj.mjOBJ_SITE, 3)
    table.add("palm_quaternion", kind.mjSENS_FRAMEQUAT, ["palm_center"], obj.mjOBJ_SITE, 4)
    table.add("tip_position", kind.mjSENS_FRAMEPOS, tips, obj.mjOBJ_SITE, 3)
    if has_object:
        body = [OBJECT]
        table.add("tip_in_palm", kind.mjSENS_FRAMEPOS, tips, obj.mjOBJ_SITE, 3, palm)
        table.add("object_position", kind.mjSENS_FRAMEPOS, body, obj.mjOBJ_XBODY, 3, palm)
        table.add("object_quaternion", kind.mjSENS_FRAMEQUAT, body, obj.mjOBJ_XBODY, 4, palm)
        table.add("object_linear_velocity", kind.mjSENS_FRAMELINVEL, body, obj.mjOBJ_XBODY, 3, palm)
        table.add("object_angular_velocity", kind.mjSENS_FRAMEANGVEL, body, obj.mjOBJ_XBODY, 3)
        table.add("object_world_position", kind.mjSENS_FRAMEPOS, body, obj.mjOBJ_XBODY, 3)
        table.add("object_world_quaternion", kind.mjSENS_FRAMEQUAT, body, obj.mjOBJ_XBODY, 4)
        table.add("object_contact", kind.mjSENS_CONTACT, links, obj.mjOBJ_BODY, 3, (obj.mjOBJ_XBODY, OBJECT), net_force)
    if has_fixture:
        table.add("fixture_joint", kind.mjSENS_JOINTPOS, ["FIXTURE_JOINT"], obj.mjOBJ_JOINT, 1)
        table.add("fixture_target", kind.mjSENS_FRAMEPOS, ["fixture_target"], obj.mjOBJ_SITE, 3)
        table.add(
            "fixture_contact", kind.mjSENS_CONTACT, links, obj.mjOBJ_BODY, 3, (obj.mjOBJ_XBODY, FIXTURE), net_force
        )
    return table.columns()


@cache
def build_scene(retention: str | None = None, interaction: str | None = None) -> Scene:
    """Builds and compiles a scene; built once per process and shared.

    Args:
        retention: Retention skill whose object lies on the table, or None.
        interaction: Interaction skill whose fixture stands on the table, or None.

    Raises:
        ValueError: If a skill is unknown.
    """
    spec = hand.make_spec()
    option = spec.option
    option.timestep = PHYSICS_STEP
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.solver = mujoco.mjtSolver.mjSOL_NEWTON
    # An elliptic cone with a high impratio is what keeps a held object from creeping out of the hand.
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio = 100
    option.iterations = 20
    # With 20 line-search iterations a hard step now and then ended unsolved and kicked the held object by 2 to 6 mm.
    option.ls_iterations = 50
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 1280, 960
    spec.visual.quality.shadowsize = 4096
    spec.visual.quality.offsamples = 4
    spec.visual.map.znear = 0.01
    spec.stat.extent = 1.0
    spec.stat.center = [0.2, 0.0, 0.15]

    add_arena(spec)
    if retention is not None:
        make_retention(retention).add_object(spec)
    if interaction is not None:
        make_interaction(interaction).add_fixture(spec)
    sensors = _add_sensors(spec, retention is not None, interaction is not None)
    model = spec.compile()
    return Scene(model, sensors, model_hash(model))
