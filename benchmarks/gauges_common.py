"""What the gauges of physics and holds share: nominal worlds, and the contacts of a held object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from numpy.typing import NDArray

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


class HeldContacts:
    """Finds the contacts between hand and held object among those that the last forward pass of a model left."""

    def __init__(self, model: mujoco.MjModel) -> None:
        """Looks up whose each geom is."""
        self._model = model
        root = model.body_rootid[model.geom_bodyid]
        of_hand, of_object = (root == model.body_rootid[model.body(name).id] for name in ("palm", OBJECT))
        self._side = of_hand + 2 * of_object
        links = [model.body(body).name[:2].upper() for body in model.geom_bodyid]
        self._finger = [link if link in hand.FINGERS else "" for link in links]

    def _rows(self, data: mujoco.MjData) -> NDArray[np.int64]:
        """Which contacts they are."""
        sides = self._side[np.reshape(data.contact.geom, (-1, 2))].sum(axis=1)
        return np.flatnonzero(sides == 3)

    def depths(self, data: mujoco.MjData) -> NDArray[np.float64]:
        """Penetration of each, m; negative where the surfaces are apart."""
        return -np.asarray(data.contact.dist)[self._rows(data)]

    def touches(self, data: mujoco.MjData) -> Iterator[Touch]:
        """Each with its force."""
        force = np.zeros(6)
        for row in self._rows(data).tolist():
            contact = data.contact[row]
            mujoco.mj_contactForce(self._model, data, row, force)
            of_hand = next(geom for geom in contact.geom if self._side[geom] == 1)
            yield Touch(self._finger[of_hand], -float(contact.dist), float(contact.friction[0]), float(force[0]))


def weight(model: mujoco.MjModel) -> float:
    """Weight of the held object, N."""
    return float(model.body_subtreemass[model.body(OBJECT).id] * np.linalg.norm(model.opt.gravity))
