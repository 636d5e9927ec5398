"""A scene taken apart: hand, object, fixtures and table as models of their own, for simulators that assemble scenes."""

from __future__ import annotations

import mujoco

from dexcompose_envs import hand
from dexcompose_envs.scene.arena import add_materials, add_table
from dexcompose_envs.scene.sensors import OBJECT, fixture_body
from dexcompose_envs.skills.base import Skill, Things
from dexcompose_envs.skills.chain import Chain

HAND, TABLE = "hand", "table"
"""Names of the parts that every scene has."""


def split_scene(chain: Chain) -> dict[str, mujoco.MjSpec]:
    """The parts of a chain's scene by name, each at the world's origin: hand, table, object, and a fixture per skill.

    Bodies, joints, geoms and sites are named as in the scene. Sensors, cameras and lights are left out; so are the
    options of the solver, which are not a part's.
    """
    parts = {HAND: hand.make_spec(), TABLE: _empty(TABLE)}
    parts[HAND].modelname = HAND
    body = parts[TABLE].worldbody.add_body(name=TABLE)
    add_table(body, "steel")
    for place, skill in chain.skills.items():
        name = OBJECT if skill.kind == "retention" else fixture_body(place)
        parts[name] = _thing(skill, name, place)
    return parts


def _thing(skill: Skill, name: str, place: str) -> mujoco.MjSpec:
    spec = _empty(name)
    body = spec.worldbody.add_body(name=name)
    if skill.kind == "retention":
        body.add_freejoint(name="OBJECT_JOINT")
    skill.build(Things(body, f"{place}_", spec))
    return spec


def _empty(name: str) -> mujoco.MjSpec:
    spec = mujoco.MjSpec()
    spec.modelname = name
    spec.compiler.degree = False
    add_materials(spec)
    return spec
