"""Building scenes: arena, hand and the things of a chain's skills, compiled to a model with named sensor groups."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import mujoco

from dexcompose_envs import hand
from dexcompose_envs.scene.arena import add_arena
from dexcompose_envs.scene.model_hash import model_hash
from dexcompose_envs.scene.rendering import LARGEST
from dexcompose_envs.scene.sensors import (
    OBJECT,
    add_hand_sensors,
    add_object_sensors,
    add_skill_sensors,
    fixture_body,
    sensor_groups,
)
from dexcompose_envs.skills import make_skill
from dexcompose_envs.skills.base import InteractionSkill, Skill, Things
from dexcompose_envs.skills.chain import Chain
from dexcompose_envs.timing import PHYSICS_STEP

DISCRETE = 4
"""The number of `mjINT_DISCRETE`, the integrator of every scene."""
HAS_DISCRETE = hasattr(mujoco.mjtIntegrator, "mjINT_DISCRETE")
"""Whether this MuJoCo has it. Where it hasn't (Isaac Lab 3 brings 3.12), models can be converted and looked at, but
not stepped."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A compiled scene.

    Attributes:
        chain: The skills whose things are in it.
        model: The MuJoCo model.
        sensors: Sensor group name -> columns of `sensordata`.
        model_hash: Fingerprint of the model's physics, see `model_hash.py`.
    """

    chain: Chain
    model: mujoco.MjModel
    sensors: dict[str, slice]
    model_hash: str


@cache
def build_scene(*names: str | None) -> Scene:
    """Builds and compiles the scene of some skills, once per process.

    Args:
        *names: A retention skill, interaction skills, or both in this order; None stands for no skill.
    """
    skills = [make_skill(name) for name in names if name is not None]
    retention = next((skill.name for skill in skills[:1] if skill.kind == "retention"), None)
    return _compile(Chain.of(retention, [skill.name for skill in skills[retention is not None :]]))


def _compile(chain: Chain) -> Scene:
    spec = hand.make_spec(first_body=None if chain.retention is None else OBJECT)
    _set_options(spec)
    add_arena(spec, (chain.interactions[0] if chain.interactions else InteractionSkill).VIEW)
    bodies = {place: _add_things(spec, skill, place) for place, skill in chain.skills.items()}
    add_hand_sensors(spec)
    if chain.retention is not None:
        add_object_sensors(spec)
    for place, skill in chain.skills.items():
        add_skill_sensors(spec, skill, place, bodies[place])
    model = spec.compile()
    return Scene(chain, model, sensor_groups(model), model_hash(model, None if HAS_DISCRETE else DISCRETE))


def _add_things(spec: mujoco.MjSpec, skill: Skill, place: str) -> str:
    """Adds a skill's things; returns the name of the body that carries them."""
    pose = skill.nominal_pose
    if skill.kind == "retention":
        body = spec.body(OBJECT)
        body.pos, body.quat = pose[:3], pose[3:]
        body.add_freejoint(name="OBJECT_JOINT")
    else:
        body = spec.worldbody.add_body(name=fixture_body(place), pos=pose[:3], quat=pose[3:], mocap=True)
    skill.build(Things(body, f"{place}_", spec))
    return str(body.name)


def _set_options(spec: mujoco.MjSpec) -> None:
    option = spec.option
    option.timestep = PHYSICS_STEP
    option.integrator = DISCRETE if HAS_DISCRETE else mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.solver = mujoco.mjtSolver.mjSOL_NEWTON
    # An elliptic cone with a high impratio is what keeps a held object from creeping out of the hand.
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio = 100
    option.iterations = 50
    # A row of the Jacobian touches one finger. One island holds all contacts, so looking for islands is in vain.
    option.jacobian = mujoco.mjtJacobian.mjJAC_SPARSE
    option.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_ISLAND)
    # With 20 line-search iterations a hard step now and then ended unsolved and kicked the held object by 2 to 6 mm.
    option.ls_iterations = 50
    spec.visual.global_.offwidth, spec.visual.global_.offheight = LARGEST
    spec.visual.quality.shadowsize = 4096
    spec.visual.quality.offsamples = 4
    spec.visual.map.znear = 0.01
    spec.stat.extent = 1.0
    spec.stat.center = [0.2, 0.0, 0.15]
