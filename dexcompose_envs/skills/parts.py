"""Geoms with explicit collision bits, their contact properties, and materials: what things are put together from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco

from dexcompose_envs.hand import CONTACT_TIME, HAND_BIT, OBJECT_BIT

OBJECT_COLLISION = (OBJECT_BIT, HAND_BIT)
"""Held objects touch the hand, the table and fixtures."""
FIXTURE_COLLISION = (0, HAND_BIT | OBJECT_BIT)
"""Fixtures and the table touch the hand and objects, never each other."""

_SHAPES = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
}


@dataclass(frozen=True)
class SurfaceFriction:
    """Contact properties of a surface: sliding, torsional (m), rolling (m), contact dimensions."""

    sliding: float = 0.6
    torsional: float = 0.01
    rolling: float = 1e-4
    condim: int = 4


def add_geom(
    body: mujoco.MjsBody,
    name: str,
    shape: str,
    size: list[float],
    *,
    friction: SurfaceFriction = SurfaceFriction(),
    collision: tuple[int, int] = (0, 0),
    **fields: Any,
) -> mujoco.MjsGeom:
    """Adds a geom ("box", "cylinder", "capsule" or "sphere" of MuJoCo half sizes, m) with explicit collision bits.

    Without bits (contype and conaffinity) it is only seen. `fields` are further ones of the geom, such as pos, quat,
    mass, rgba, or a material of `scene/arena.py`.
    """
    padded = [*size, 0.0, 0.0][:3]
    geom = body.add_geom(name=name, type=_SHAPES[shape], size=padded, **fields)
    geom.contype, geom.conaffinity = collision
    geom.condim = friction.condim
    geom.friction = [friction.sliding, friction.torsional, friction.rolling]
    geom.solref = [CONTACT_TIME, 1.0]
    if not any(collision) and "mass" not in fields:
        geom.mass = 0.0
    return geom
