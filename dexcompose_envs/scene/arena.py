"""The arena of every scene: materials, sky, lights, table and cameras."""

from __future__ import annotations

import mujoco
import numpy as np

from dexcompose_envs.skills.parts import FIXTURE_COLLISION, add_geom

# name: (rgba, specular, shininess, reflectance)
_MATERIALS = {
    "tennis": ((0.80, 0.88, 0.16, 1), 0.2, 0.3, 0.0),
    "wood": ((0.72, 0.50, 0.28, 1), 0.2, 0.3, 0.0),
    "signal_red": ((0.82, 0.11, 0.10, 1), 0.6, 0.7, 0.0),
    "enamel": ((0.13, 0.30, 0.62, 1), 0.6, 0.6, 0.0),
    "aluminium": ((0.80, 0.81, 0.83, 1), 0.8, 0.7, 0.0),
    "lacquer": ((0.75, 0.10, 0.12, 1), 0.6, 0.6, 0.0),
    "door": ((0.86, 0.80, 0.68, 1), 0.2, 0.3, 0.0),
    "steel": ((0.62, 0.65, 0.69, 1), 0.7, 0.6, 0.0),
    "graphite": ((0.16, 0.17, 0.19, 1), 0.4, 0.5, 0.0),
    "table_edge": ((0.30, 0.27, 0.25, 1), 0.2, 0.2, 0.0),
}


View = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Where a camera stands and what it looks at, m."""


def add_materials(spec: mujoco.MjSpec) -> None:
    """Adds the materials that skills name."""
    for name, (rgba, specular, shininess, reflectance) in _MATERIALS.items():
        spec.add_material(name=name, rgba=rgba, specular=specular, shininess=shininess, reflectance=reflectance)


def add_arena(spec: mujoco.MjSpec, fixture_view: View) -> None:
    """Adds materials, sky, lights, the table (top at z = 0) and the cameras `overview`, `hand` and `fixture`."""
    add_materials(spec)
    texture = mujoco.mjtTexture
    spec.add_texture(
        name="sky", type=texture.mjTEXTURE_SKYBOX, builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=[0.93, 0.95, 0.97], rgb2=[0.55, 0.66, 0.78], width=256, height=1536,
    )  # fmt: skip
    spec.add_texture(
        name="table_weave", type=texture.mjTEXTURE_2D, builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        rgb1=[0.72, 0.69, 0.65], rgb2=[0.69, 0.66, 0.62], width=256, height=256,
    )  # fmt: skip
    table = spec.add_material(name="table_top", texrepeat=[12, 12], specular=0.15, shininess=0.2, reflectance=0.0)
    table.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "table_weave"

    world = spec.worldbody
    add_table(world, "table_top")
    add_geom(world, "table_rim", "box", [0.61, 0.51, 0.01], pos=[0.2, 0, -0.03], material="table_edge")
    world.add_light(
        pos=[-0.3, -0.7, 1.6], dir=[0.3, 0.45, -1.0], castshadow=True, diffuse=[0.50] * 3, ambient=[0.18] * 3,
        specular=[0.3] * 3,
    )  # fmt: skip
    world.add_light(pos=[0.6, 0.9, 1.4], dir=[-0.3, -0.7, -1.0], castshadow=False, diffuse=[0.20, 0.21, 0.24])
    _add_camera(spec, "overview", ((-0.28, -0.70, 0.52), (0.17, 0.0, 0.19)))
    follow = mujoco.mjtCamLight.mjCAMLIGHT_TARGETBODY  # looks at the fingertips, wherever they are
    world.add_camera(name="hand", pos=[0.42, -0.48, 0.42], mode=follow, targetbody="mfdistal", fovy=38.0)
    _add_camera(spec, "fixture", fixture_view)


def add_table(body: mujoco.MjsBody, material: str) -> None:
    """Adds the table top, which is what things stand on and fall onto."""
    add_geom(body, "table", "box", [0.6, 0.5, 0.2], pos=[0.2, 0, -0.2], material=material, collision=FIXTURE_COLLISION)


def _add_camera(spec: mujoco.MjSpec, name: str, view: View) -> None:
    """A fixed camera, z up."""
    position, target = view
    back = np.subtract(position, target)
    back /= np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.stack([right, np.cross(back, right), back], axis=1).flatten())
    spec.worldbody.add_camera(name=name, pos=position, quat=quat, fovy=42.0)
