"""How many contacts a scene can have at once: what engines with fixed buffers must make room for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import mujoco
import numpy as np

from dexcompose_envs import hand
from dexcompose_envs.scene import Scene

POSTURES = 64
MARGIN = 1.5
"""Room over what was seen: another engine finds a few contacts more or less in the same state."""


@dataclass(frozen=True)
class ContactCapacity:
    """Room per world.

    Attributes:
        contacts: Contacts, touching or about to.
        rows: Constraint rows: contact dimensions, joint limits and dry friction.
        seen: Most contacts and rows of any posture tried.
    """

    contacts: int
    rows: int
    seen: tuple[int, int]


@cache
def measure_capacity(scene: Scene) -> ContactCapacity:
    """Contacts and rows of closed hands, counted by native MuJoCo.

    The hand is closed to random degrees around the object (or around nothing), half of the times down on the fixture or
    the table, without regard for penetration: there are more contacts in such a state than in any that physics reaches.

    Args:
        scene: The compiled scene.
    """
    model = scene.model
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    names = {model.joint(i).name for i in range(model.njnt)}
    contacts = rows = 0
    for posture in range(POSTURES):
        mujoco.mj_resetData(model, data)
        wrist = np.array([0.0, 0.0, 0.25, 0.0, rng.uniform(0.0, 1.0), 0.0])
        closed = rng.uniform(0.2, 1.0, hand.NUM_FINGER_JOINTS)
        fingers = hand.OPEN_FINGERS + closed * (_CLOSED - hand.OPEN_FINGERS)
        for name, value in zip(hand.ACTION_NAMES, np.concatenate([wrist, fingers]), strict=True):
            data.joint(name).qpos[0] = value
        mujoco.mj_kinematics(model, data)
        palm = data.site("palm_center").xpos.copy()
        reach = palm + 0.035 * data.site("palm_center").xmat.reshape(3, 3) @ [0.0, -1.0, 0.0] + rng.normal(0, 0.01, 3)
        if "OBJECT_JOINT" in names:
            data.joint("OBJECT_JOINT").qpos[:3] = reach
        if posture % 2 and model.nmocap:
            fixture = posture // 2 % model.nmocap
            data.mocap_pos[fixture] += reach - _top(model, data, fixture)
        elif posture % 2:
            data.joint("WZ").qpos[0] -= palm[2] - 0.03
            if "OBJECT_JOINT" in names:
                data.joint("OBJECT_JOINT").qpos[2] -= palm[2] - 0.03
        mujoco.mj_forward(model, data)
        contacts, rows = max(contacts, data.ncon), max(rows, data.nefc)
    return ContactCapacity(_round_up(MARGIN * contacts, 8), _round_up(MARGIN * rows, 32), (contacts, rows))


def _top(model: mujoco.MjModel, data: mujoco.MjData, fixture: int) -> np.ndarray:
    """Highest geom of a fixture (3,), world: where a hand would touch it."""
    base = int(np.flatnonzero(model.body_mocapid == fixture)[0])
    geoms = [geom for geom in range(model.ngeom) if model.body_rootid[model.geom_bodyid[geom]] == base]
    places = data.geom_xpos[[geom for geom in geoms if model.geom_contype[geom] or model.geom_conaffinity[geom]]]
    return np.array(places[places[:, 2].argmax()])


def _round_up(number: float, multiple: int) -> int:
    return int(-(-number // multiple) * multiple)


# A fist: every joint flexed to its end, the thumb across the palm.
_CLOSED = np.clip(
    np.array([0.0, 1.57, 1.57, 1.57] * 3 + [0.4, 0.0, 1.57, 1.57, 1.57] + [0.6, 1.2, 0.2, 0.5, -1.2]),
    hand.ACTION_LOW[hand.NUM_WRIST :],
    hand.ACTION_HIGH[hand.NUM_WRIST :],
)
