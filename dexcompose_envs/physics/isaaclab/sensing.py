"""Sensors of the MJCF, worked out from what Isaac Lab says of bodies, joints and contacts.

Isaac Lab knows no MuJoCo sensors. Each kind that `scene/sensors.py` uses has a function here, so that `sensordata` has
the same columns with the same meaning on every engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import mujoco
import numpy as np
import torch
from torch import Tensor

from dexcompose_envs import hand
from dexcompose_envs.physics.base import BackendError
from dexcompose_envs.physics.isaaclab.frames import Motion

_KIND, _OBJECT = mujoco.mjtSensor, mujoco.mjtObj
_FRAMES = {
    _KIND.mjSENS_FRAMEPOS: "position", _KIND.mjSENS_FRAMEQUAT: "quaternion",
    _KIND.mjSENS_FRAMELINVEL: "linear", _KIND.mjSENS_FRAMEANGVEL: "angular",
}  # fmt: skip
_FRAMED = (_OBJECT.mjOBJ_SITE, _OBJECT.mjOBJ_XBODY)
_OTHERS = (_KIND.mjSENS_JOINTPOS, _KIND.mjSENS_JOINTVEL, _KIND.mjSENS_ACTUATORFRC, _KIND.mjSENS_CONTACT)


class Felt(NamedTuple):
    """What sensors are made from, for N worlds.

    Attributes:
        bodies: Of all bodies of the MJCF (N, nbody, ...).
        position, velocity: Of all joints but the object's, by `Sensing.joints` (N, k), m and rad, and per second.
        targets: Position targets of the hand (N, 28), m and rad.
        contact: Place of a skill -> force of its thing on each finger link (N, 15, 3), N, world axes.
    """

    bodies: Motion
    position: Tensor
    velocity: Tensor
    targets: Tensor
    contact: Mapping[str, Tensor]


class _Kind(NamedTuple):
    """Sensors of one type on one type of object, and perhaps of reference."""

    type: int
    of: int
    to: int
    objects: Tensor
    references: Tensor | None
    felt: list[tuple[str, int]]
    """Place and number of the finger link, of contact sensors."""


class Sensing:
    """The sensors of a model as functions of `Felt`.

    Args:
        model: The scene's compiled model.
        device: Where the tensors are.

    Attributes:
        joints: Names of all joints but the object's, in the model's order.

    Raises:
        BackendError: If the model has a sensor of another kind than `scene/sensors.py` makes.
    """

    def __init__(self, model: mujoco.MjModel, device: torch.device) -> None:
        self._model, self._device = model, device
        free = mujoco.mjtJoint.mjJNT_FREE
        self._joint_ids = [i for i in range(model.njnt) if model.jnt_type[i] != free]
        self.joints = [model.joint(i).name for i in self._joint_ids]
        self._site_body = self._tensor(model.site_bodyid)
        self._site_position, self._site_quaternion = self._tensor(model.site_pos), self._tensor(model.site_quat)
        self._kp, self._kv = self._tensor(hand.KP), self._tensor(hand.KV)
        self._limit = self._tensor(hand.ACTION_FORCE_LIMITS)
        self._hand = self._tensor([self.joints.index(name) for name in hand.ACTION_NAMES])
        sensors: dict[tuple[int, int, int], list[int]] = {}
        for i in range(model.nsensor):
            kind, of, to = (int(getattr(model, f"sensor_{name}")[i]) for name in ("type", "objtype", "reftype"))
            known = of in _FRAMED if kind in _FRAMES else kind in _OTHERS
            if not known:
                name = model.sensor(i).name
                raise BackendError(f"sensor {name!r} is of a kind that backend 'isaaclab' lacks; expected a frame's")
            sensors.setdefault((kind, of, to), []).append(i)
        self._kinds = [self._kind(key, ids) for key, ids in sensors.items()]
        spans = [(int(model.sensor_adr[i]), int(model.sensor_dim[i])) for ids in sensors.values() for i in ids]
        self._columns = self._tensor([column for start, size in spans for column in range(start, start + size)])

    def read(self, felt: Felt) -> Tensor:
        """Sensor data (N, nsensordata)."""
        sites = felt.bodies.take(self._site_body).carried(self._site_position, self._site_quaternion)
        found = [self._of_kind(kind, felt, sites) for kind in self._kinds]
        data = torch.cat([part.reshape(len(felt.position), -1) for part in found], dim=1)
        return torch.empty_like(data).index_copy_(1, self._columns, data)

    def _kind(self, key: tuple[int, int, int], ids: list[int]) -> _Kind:
        kind, of, to = key
        objects = [int(self._model.sensor_objid[i]) for i in ids]
        if kind in (_KIND.mjSENS_JOINTPOS, _KIND.mjSENS_JOINTVEL):
            objects = [self._joint_ids.index(joint) for joint in objects]
        felt = []
        if kind == _KIND.mjSENS_CONTACT:
            places = [self._model.sensor(i).name.partition("_")[0] for i in ids]
            felt = [(place, LINKS.index(self._model.body(o).name)) for place, o in zip(places, objects, strict=True)]
        references = self._tensor([int(self._model.sensor_refid[i]) for i in ids]) if to in _FRAMED else None
        return _Kind(kind, of, to, self._tensor(objects), references, felt)

    def _of_kind(self, kind: _Kind, felt: Felt, sites: Motion) -> Tensor:
        """Data of sensors of one kind (N, k, size)."""
        if kind.type == _KIND.mjSENS_JOINTPOS:
            return felt.position[:, kind.objects]
        if kind.type == _KIND.mjSENS_JOINTVEL:
            return felt.velocity[:, kind.objects]
        if kind.type == _KIND.mjSENS_ACTUATORFRC:
            return self._force(felt)[:, kind.objects]
        if kind.type == _KIND.mjSENS_CONTACT:
            return torch.stack([felt.contact[place][:, link] for place, link in kind.felt], dim=1)
        frames = {_OBJECT.mjOBJ_SITE: sites, _OBJECT.mjOBJ_XBODY: felt.bodies}
        motion = frames[kind.of].take(kind.objects)
        if kind.references is not None:
            motion = motion.seen_from(frames[kind.to].take(kind.references))
        return getattr(motion, _FRAMES[kind.type])

    def _force(self, felt: Felt) -> Tensor:
        """Forces of the hand's actuators (N, 28), N and Nm, as MuJoCo computes those of position actuators."""
        position, velocity = felt.position[:, self._hand], felt.velocity[:, self._hand]
        force = self._kp * (felt.targets - position) - self._kv * velocity
        return torch.minimum(torch.maximum(force, -self._limit), self._limit)

    def _tensor(self, values: object) -> Tensor:
        array = np.asarray(values)
        whole = array.dtype.kind in "iu"
        return torch.tensor(array, dtype=torch.int64 if whole else torch.float32, device=self._device)


LINKS = tuple(link for finger in hand.FINGERS for link in hand.FINGER_LINKS[finger])
"""Finger links that feel contacts."""
