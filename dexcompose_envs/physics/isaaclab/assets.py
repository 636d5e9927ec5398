"""A scene as Isaac Lab sees it: hand, object, fixtures and table as assets of their own, and what fingers feel."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import isaaclab.sim as sim_utils
import mujoco
from isaaclab.actuators import ImplicitActuatorCfg
from isaaclab.assets import ArticulationCfg, AssetBaseCfg, RigidObjectCfg
from isaaclab.scene import InteractiveSceneCfg
from isaaclab.sensors import ContactSensorCfg
from isaaclab.sim import SimulationCfg
from isaaclab_newton.physics import MJWarpSolverCfg, NewtonCfg, NewtonShapeCfg

from dexcompose_envs import hand
from dexcompose_envs.physics.contact_capacity import measure_capacity
from dexcompose_envs.physics.isaaclab.mechanisms import springs_of
from dexcompose_envs.scene import Scene
from dexcompose_envs.scene.sensors import OBJECT, fixture_body
from dexcompose_envs.scene.split import HAND, TABLE
from dexcompose_envs.timing import PHYSICS_STEP, PHYSICS_STEPS_PER_CONTROL_STEP

ENV = "{ENV_REGEX_NS}"


def contact_name(place: str) -> str:
    """Name of the sensor that feels the thing of the skill at a place."""
    return f"{place}_contact"


def scene_cfg(scene: Scene, usd: dict[str, Path], num_envs: int) -> InteractiveSceneCfg:
    """Hand, table, object and fixtures of all worlds.

    Worlds stand in the same place (`env_spacing` 0): they don't feel one another, and numbers stay small, so that
    single precision is enough for contacts of a tenth of a millimetre.

    Args:
        scene: The compiled scene.
        usd: Its parts, from `usd_parts`.
        num_envs: Number of worlds.
    """
    cfg: Any = InteractiveSceneCfg(num_envs=num_envs, env_spacing=0.0, replicate_physics=True)
    springs = [spring.joint for spring in springs_of(scene.model)]
    for name, path in usd.items():
        setattr(cfg, name, _asset(name, path, [joint for joint in springs if fixture_body(joint[0]) == name]))
    for place, skill in scene.chain.skills.items():
        thing = OBJECT if skill.kind == "retention" else fixture_body(place)
        setattr(cfg, contact_name(place), _contact(scene.model, thing))
    return cfg


def simulation_cfg(scene: Scene, device: str) -> SimulationCfg:
    """The solver, as `scene/build.py` sets it, but for the integrator: Newton has none that is discrete in time."""
    room, option = measure_capacity(scene), scene.model.opt
    solver = MJWarpSolverCfg(
        njmax=room.rows, nconmax=room.contacts, cone="elliptic", impratio=float(option.impratio),
        integrator="implicitfast", iterations=int(option.iterations), ls_iterations=int(option.ls_iterations),
        tolerance=float(option.tolerance),
    )  # fmt: skip
    physics = NewtonCfg(solver_cfg=solver, num_substeps=1, default_shape_cfg=NewtonShapeCfg(gap=0.0))
    return SimulationCfg(
        dt=PHYSICS_STEP, render_interval=PHYSICS_STEPS_PER_CONTROL_STEP, device=device, physics=physics
    )


def _asset(name: str, path: Path, springs: list[str]) -> Any:
    """A part; `springs` are its joints that `mechanisms.py` moves, which takes an actuator without gains."""
    spawn = sim_utils.UsdFileCfg(usd_path=str(path), activate_contact_sensors=True)
    where = f"{ENV}/{name}"
    if name == OBJECT:
        return RigidObjectCfg(prim_path=where, spawn=spawn)
    if name == TABLE:
        return AssetBaseCfg(prim_path=where, spawn=spawn)
    actuators = _actuators() if name == HAND else {}
    if springs:
        actuators["springs"] = ImplicitActuatorCfg(joint_names_expr=springs, stiffness=0.0, damping=0.0)
    return ArticulationCfg(prim_path=where, spawn=spawn, actuators=actuators)


def _actuators() -> dict[str, ImplicitActuatorCfg]:
    """One group: gains and force limits of the MJCF's position actuators."""
    gains = zip(hand.ACTION_NAMES, hand.KP.tolist(), hand.KV.tolist(), hand.ACTION_FORCE_LIMITS.tolist(), strict=True)
    kp, kv, limit = {}, {}, {}
    for name, *values in gains:
        kp[name], kv[name], limit[name] = values
    names = [*hand.ACTION_NAMES]
    return {"joints": ImplicitActuatorCfg(joint_names_expr=names, stiffness=kp, damping=kv, joint_effort_limit=limit)}


def _contact(model: mujoco.MjModel, thing: str) -> ContactSensorCfg:
    """Forces of a thing, all its bodies, on each finger link."""
    links = "|".join(link for finger in hand.FINGERS for link in hand.FINGER_LINKS[finger])
    root = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, thing)
    bodies = [model.body(i).name for i in range(model.nbody) if model.body_rootid[i] == model.body_rootid[root]]
    filters = "|".join(re.escape(name) for name in bodies)
    return ContactSensorCfg(
        prim_path=f"{ENV}/{HAND}/Geometry/(?:.*/)?(?:{links})",
        filter_prim_paths_expr=[f"{ENV}/{thing}/Geometry/(?:.*/)?(?:{filters})"],
        track_friction_forces=True,
    )
