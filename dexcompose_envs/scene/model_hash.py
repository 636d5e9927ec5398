"""A fingerprint of a model's physics: equal for models that move alike, whatever they look like."""

from __future__ import annotations

import hashlib

import mujoco
import numpy as np

_ARRAYS = (
    "body_parentid", "body_mass", "body_inertia", "body_gravcomp", "jnt_type", "jnt_axis", "jnt_range", "jnt_stiffness",
    "qpos_spring", "dof_damping", "dof_armature", "dof_frictionloss",
    "actuator_gainprm", "actuator_biasprm", "actuator_ctrlrange", "actuator_forcerange",
)  # fmt: skip
_COLLISION_ARRAYS = (
    "geom_type", "geom_size", "geom_bodyid", "geom_pos", "geom_quat", "geom_friction", "geom_solref", "geom_solimp",
    "geom_condim", "geom_contype", "geom_conaffinity", "geom_margin",
)  # fmt: skip


def model_hash(model: mujoco.MjModel) -> str:
    """First 12 hex digits of a SHA-256 over masses, joints, actuators, collision geoms and solver options.

    Numbers count to five decimals, so that the hash is the same on every platform and MuJoCo version that compiles the
    same model; colours, lights, cameras and visual meshes don't count.
    """
    digest = hashlib.sha256()

    def add(name: str, value: object) -> None:
        rounded = np.round(np.asarray(value, np.float64), 5) + 0.0  # + 0.0 turns -0 into 0
        digest.update(name.encode() + rounded.tobytes())

    for name in _ARRAYS:
        add(name, getattr(model, name))
    collides = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    for name in _COLLISION_ARRAYS:
        add(name, getattr(model, name)[collides])
    for name in ("timestep", "integrator", "cone", "impratio", "solver", "iterations", "ls_iterations", "gravity"):
        add(name, getattr(model.opt, name))
    return digest.hexdigest()[:12]
