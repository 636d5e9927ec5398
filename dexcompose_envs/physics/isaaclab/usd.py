"""USD of a scene's parts, converted from their MJCF once per model and kept on disk.

What the converter leaves out is added: gravity compensation of the hand's bodies. What USD can't say, springs that are
no lines, is left to `mechanisms.py`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib import metadata
from pathlib import Path

import mujoco

from dexcompose_envs import artefacts
from dexcompose_envs.files import check_writable_dir, expand
from dexcompose_envs.scene import Scene
from dexcompose_envs.scene.split import split_scene

FOLDER_VARIABLE = "DEXCOMPOSE_USD"
"""Environment variable with another folder than `~/.cache/dexcompose/usd` to keep USD in."""
FORMAT = 1
"""Raised when the same model is converted in another way."""
_MANIFEST = "manifest.json"


def usd_folder(scene: Scene) -> Path:
    """Where the scene's USD is kept."""
    root = os.environ.get(FOLDER_VARIABLE)
    base = expand(root) if root else expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "dexcompose" / "usd"
    return base / f"{scene.chain.name}-{scene.model_hash}"


def usd_parts(scene: Scene, folder: Path | None = None) -> dict[str, Path]:
    """USD files of the parts of a scene (see `split_scene`), converted if they aren't there yet.

    Args:
        scene: The scene.
        folder: Where they are kept; None: `usd_folder`.

    Raises:
        ArtefactError: If what lies there was made from another model, or by another version.
        OutputError: If the folder can't be written.
    """
    folder = folder or usd_folder(scene)
    made_by = {
        "model_hash": scene.model_hash, "format": FORMAT, "converter": metadata.version("mujoco-usd-converter"),
    }  # fmt: skip
    if not (folder / _MANIFEST).exists():
        _make(scene, folder, made_by)
    parts = artefacts.load(folder / _MANIFEST, "usd", **made_by)[0]["parts"]
    return {name: folder / name / f"{name}.usda" for name in parts}


def _make(scene: Scene, folder: Path, made_by: dict[str, object]) -> None:
    """Converts all parts into a folder beside, which then takes the name; whoever comes second leaves the first's."""
    check_writable_dir(folder.parent)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
        temporary = Path(name) / "whole"
        parts = split_scene(scene.chain)
        for part, spec in parts.items():
            _convert(part, spec, temporary / part)
        artefacts.save(temporary / _MANIFEST, {"kind": "usd", "parts": [*parts], **made_by}, {}, "json")
        if folder.exists() and not (folder / _MANIFEST).exists():
            shutil.rmtree(folder)  # nobody's: a manifest is the last thing written
        try:
            os.rename(temporary, folder)
        except OSError:
            if not (folder / _MANIFEST).exists():
                raise


def _convert(name: str, spec: mujoco.MjSpec, folder: Path) -> None:
    import mujoco_usd_converter
    import usdex.core

    usdex.core.activateDiagnosticsDelegate()
    usdex.core.setDiagnosticsLevel(usdex.core.DiagnosticsLevel.eWarning)  # else a line for each file
    folder.mkdir(parents=True)
    model = spec.compile()
    source = folder / f"{name}.xml"
    source.write_text(spec.to_xml(), encoding="utf-8")
    mujoco_usd_converter.Converter(layer_structure=True, scene=False).convert(str(source), str(folder))
    _compensate_gravity(folder / f"{name}.usda", model)


def _compensate_gravity(path: Path, model: mujoco.MjModel) -> None:
    """Says of every body that floats that it does; the converter doesn't."""
    from pxr import Sdf, Usd

    stage = Usd.Stage.Open(str(path))
    for prim in stage.Traverse():
        body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, prim.GetName())
        if body > 0 and model.body_gravcomp[body] and prim.HasAPI("PhysicsRigidBodyAPI"):
            attribute = prim.CreateAttribute("mjc:gravcomp", Sdf.ValueTypeNames.Float)
            attribute.Set(float(model.body_gravcomp[body]))
    stage.GetRootLayer().Save()
