"""What the gauges of physics and holds share: nominal worlds, and the contacts of a held object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np

from dexcompose_envs import env_id, hand
from dexcompose_envs.options import CoreConfig
from dexcompose_envs.scene.sensors import OBJECT

LONG = 10_000
"""Control steps that no gauge reaches: episodes end by the gauge's own rules."""


def nominal_worlds(skill: str, num_worlds: int, **options: Any) -> Any:
    """A vector environment of a retention skill for `run_episodes`: nominal mass and friction, no end on success."""
    if "physics" in {field.name for field in fields(CoreConfig)}:
        options["physics"] = "nominal"
    options = {"base_shake": 0.0, "terminate_on_success": False, "max_episode_steps": LONG} | options
    return gym.make_vec(env_id(skill), num_envs=num_worlds, autoreset_mode="Disabled", **options)


@dataclass(frozen=True)
class Touch:
    """A contact between hand and held object.

    Attributes:
        finger: One of `hand.FINGERS`, or "" for the palm.
        depth: Penetration, m; negative where the surfaces are apart.
        friction: Coefficient of sliding friction.
        normal: Normal force, N.
    """

    finger: str
    depth: float
    friction: float
    normal: float


def touches(model: mujoco.MjModel, data: mujoco.MjData) -> Iterator[Touch]:
    """The contacts between hand and held object, as the last forward pass found them."""
    roots, force = model.body_rootid, np.zeros(6)
    held, palm = roots[model.body(OBJECT).id], roots[model.body("palm").id]
    for number in range(data.ncon):
        contact = data.contact[number]
        bodies = model.geom_bodyid[contact.geom]
        if sorted(roots[bodies]) != sorted((held, palm)):
            continue
        link = model.body(bodies[list(roots[bodies]).index(palm)]).name
        finger = link[:2].upper()
        mujoco.mj_contactForce(model, data, number, force)
        yield Touch(
            finger if finger in hand.FINGERS else "", -float(contact.dist), float(contact.friction[0]), float(force[0])
        )


def weight(model: mujoco.MjModel) -> float:
    """Weight of the held object, N."""
    return float(model.body_subtreemass[model.body(OBJECT).id] * np.linalg.norm(model.opt.gravity))
