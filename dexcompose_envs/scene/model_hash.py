"""A fingerprint of a model's physics and sensors: equal for models that move and feel alike, whatever they look like.

All of the model counts but what is listed here as merely seen or as following from the rest, so that nothing is left
out by oversight. Sensors count: what policies observe is made from them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

_IGNORED = re.compile(
    r"""_.*|names.*|paths|name_.*|.*_pathadr|key_.*|text_.*|numeric_.*|tuple_.*|.*_user  # names and users' own data
    |light_.*|mat_.*|tex_.*|skin_.*|.*_rgba|.*_matid|.*_group|tendon_width         # looks
    |mesh_.*|geom_dataid                                                           # see `_shapes`
    # What follows from the rest: places of things in arrays, bounding volumes, sparsity, mass at the start.
    |(?!tendon|flex).*(adr|num)|bvh_.*|oct_.*|geom_(aabb|rbound)|.*_sameframe|body_(contype|conaffinity|margin)
    |[MBD]_.*|map.2.|efm.*|.*_J_.*|dof_(M0|length)|.*_invweight0|body_(subtreemass|simple)|(actuator|tendon)_(length|acc)0
    |.*_treeid|(jnt|tendon)_actuatorid
    |actuator_ctrlspec  # of the gain's type; numbered differently by different versions of MuJoCo""",
    re.VERBOSE,
)
"""Arrays of `MjModel` that don't count."""
_GEOM, _CAMERA = int(mujoco.mjtObj.mjOBJ_GEOM), int(mujoco.mjtObj.mjOBJ_CAMERA)
_MESH = int(mujoco.mjtGeom.mjGEOM_MESH)
_WRAPPED = (int(mujoco.mjtWrap.mjWRAP_SPHERE), int(mujoco.mjtWrap.mjWRAP_CYLINDER))
_LOOKING = (int(mujoco.mjtSensor.mjSENS_RANGEFINDER), int(mujoco.mjtSensor.mjSENS_CAMPROJECTION))
_NOISE = 1e-10
"""Smaller numbers count as zero: what one machine computes as 0 another may miss by so much."""


def model_hash(model: mujoco.MjModel, integrator: int | None = None) -> str:
    """First 12 hex digits of a SHA-256 over everything that physics or sensors depend on.

    Args:
        model: The compiled model.
        integrator: The one that it was made for, where it had to take another; None: its own.

    Names, colours, materials, lights, cameras and geoms that are only seen, with their meshes, don't count. Numbers
    count to six digits; arrays of nothing but 0 or -1 and options at MuJoCo's default are left out, so that the hash is
    the same on every platform and in every MuJoCo version that compiles the same model. Objects count in their order.
    """
    digest = hashlib.sha256()
    counted = dict(_counted(model))
    if integrator is not None:
        counted["opt_integrator"] = np.asarray(integrator, np.float64)
    for name, value in sorted(counted.items()):
        numbers = np.where(np.abs(value) < _NOISE, 0.0, value).ravel().tolist()
        text = " ".join(f"{number:.5e}" for number in numbers)
        digest.update(f"{name} {value.shape} {text}\n".encode())
    return digest.hexdigest()[:12]


def _counted(model: mujoco.MjModel) -> Iterator[tuple[str, NDArray[Any]]]:
    """Names and values of all that counts, float64."""
    physical = _physical_geoms(model)
    place = np.cumsum(physical) - 1  # of a geom among those that count
    geoms = {
        "pair_geom1": np.ones(model.npair, bool),
        "pair_geom2": np.ones(model.npair, bool),
        "sensor_objid": model.sensor_objtype == _GEOM,
        "sensor_refid": model.sensor_reftype == _GEOM,
        "wrap_objid": np.isin(model.wrap_type, _WRAPPED),
    }
    looks = _looks(model)
    arrays = {name: getattr(model, name) for name in dir(model) if not _IGNORED.fullmatch(name)}
    default = mujoco.MjOption()
    for name in dir(default):
        if name[0] != "_" and not np.array_equal(getattr(model.opt, name), getattr(default, name)):
            arrays[f"opt_{name}"] = np.asarray(getattr(model.opt, name))
    for name, value in arrays.items():
        if not isinstance(value, np.ndarray) or (name.startswith("cam_") and not looks):
            continue
        if name in geoms:
            value = np.where(geoms[name], place[np.clip(value, 0, None)] if model.ngeom else value, value)
        elif name.startswith("geom_"):
            value = value[physical]
        if value.any() and not (value.dtype.kind == "i" and (value == -1).all()):
            yield name, value.astype(np.float64)
    yield from _shapes(model, physical)


def _looks(model: mujoco.MjModel) -> bool:
    """Whether sensors depend on what is seen: rays and cameras."""
    on_camera = (model.sensor_objtype == _CAMERA) | (model.sensor_reftype == _CAMERA)
    return bool((on_camera | np.isin(model.sensor_type, _LOOKING)).any())


def _physical_geoms(model: mujoco.MjModel) -> NDArray[np.bool_]:
    """Which geoms (ngeom,) collide, act on a fluid, guide a tendon or are measured."""
    if _looks(model):
        return np.ones(model.ngeom, bool)
    physical = (model.geom_contype != 0) | (model.geom_conaffinity != 0) | (model.geom_fluid[:, 0] != 0)
    physical[model.pair_geom1] = physical[model.pair_geom2] = True
    physical[model.sensor_objid[model.sensor_objtype == _GEOM]] = True
    physical[model.sensor_refid[model.sensor_reftype == _GEOM]] = True
    physical[model.wrap_objid[np.isin(model.wrap_type, _WRAPPED)]] = True
    return np.asarray(physical)


def _shapes(model: mujoco.MjModel, physical: NDArray[np.bool_]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Vertices of the meshes of geoms that count, and which height field or other asset the others have."""
    for number, geom in enumerate(np.flatnonzero(physical)):
        data = model.geom_dataid[geom]
        if data >= 0 and model.geom_type[geom] == _MESH:
            first = model.mesh_vertadr[data]
            yield f"geom {number} mesh", model.mesh_vert[first : first + model.mesh_vertnum[data]].astype(np.float64)
        elif data >= 0:
            yield f"geom {number} data", np.array([data + 1.0])
