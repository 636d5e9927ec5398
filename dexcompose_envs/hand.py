"""The floating right Shadow Hand: joint and finger tables, action scaling, and its MJCF with six wrist joints.

Geometry and meshes come from the `gymnasium-robotics` wheel; only its files are read, the package is not imported.
The wrist is a chain of three slides and three hinges (intrinsic z-y-x Euler angles) that carries the palm. At zero
Euler angles the fingers point along world +X, the palm faces down and the thumb lies towards +Y.
"""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexcompose_envs.checks import one_of

FINGERS = ("FF", "MF", "RF", "LF", "TH")
FINGER_JOINTS: dict[str, tuple[str, ...]] = {
    "FF": ("FFJ3", "FFJ2", "FFJ1", "FFJ0"),
    "MF": ("MFJ3", "MFJ2", "MFJ1", "MFJ0"),
    "RF": ("RFJ3", "RFJ2", "RFJ1", "RFJ0"),
    "LF": ("LFJ4", "LFJ3", "LFJ2", "LFJ1", "LFJ0"),
    "TH": ("THJ4", "THJ3", "THJ2", "THJ1", "THJ0"),
}
FINGER_LINKS = {
    finger: (f"{finger.lower()}proximal", f"{finger.lower()}middle", f"{finger.lower()}distal") for finger in FINGERS
}
WRIST_JOINTS = ("WX", "WY", "WZ", "WRZ", "WRY", "WRX")
JOINTS = tuple(joint for finger in FINGERS for joint in FINGER_JOINTS[finger])
ACTION_NAMES = WRIST_JOINTS + JOINTS
NUM_WRIST = len(WRIST_JOINTS)
NUM_FINGER_JOINTS = len(JOINTS)
NUM_ACTIONS = len(ACTION_NAMES)

# Joint ranges of the model (rad), in `JOINTS` order; LFJ4 and the thumb have their own.
_LONG_FINGER_LOW, _LONG_FINGER_HIGH = [-0.349, 0.0, 0.0, 0.0], [0.349, 1.571, 1.571, 1.571]
_FINGER_LOW = [*_LONG_FINGER_LOW * 3, 0.0, *_LONG_FINGER_LOW, -1.047, 0.0, -0.209, -0.524, -1.571]
_FINGER_HIGH = [*_LONG_FINGER_HIGH * 3, 0.785, *_LONG_FINGER_HIGH, 1.047, 1.222, 0.209, 0.524, 0.0]
WRIST_LOW = np.array([-0.4, -0.5, 0.0, -np.pi, -np.pi, -np.pi])
WRIST_HIGH = np.array([0.8, 0.5, 0.8, np.pi, np.pi, np.pi])
ACTION_LOW: NDArray[np.float64] = np.concatenate([WRIST_LOW, _FINGER_LOW])
ACTION_HIGH: NDArray[np.float64] = np.concatenate([WRIST_HIGH, _FINGER_HIGH])

# Actuator force limits of the model (Nm); J0 shares J1's tendon on the real hand, hence the same limit.
_FORCE_LIMITS = {"J4": 0.9, "J3": 0.9, "J2": 0.9, "J1": 0.7245, "J0": 0.7245}
_THUMB_FORCE_LIMITS = {"THJ4": 2.3722, "THJ3": 1.45, "THJ2": 0.99, "THJ1": 0.99, "THJ0": 0.81}
FORCE_LIMITS = np.array([_THUMB_FORCE_LIMITS.get(joint) or _FORCE_LIMITS[joint[2:]] for joint in JOINTS])

FINGER_KP, FINGER_KV = 3.0, 0.1
WRIST_FORCE_LIMITS = np.array([80.0, 80.0, 80.0, 8.0, 8.0, 8.0])
_WRIST_KP = np.array([1500.0, 1500.0, 1500.0, 40.0, 40.0, 40.0])
_WRIST_KV = np.array([80.0, 80.0, 80.0, 2.0, 2.0, 2.0])
_WRIST_DAMPING = np.array([1.0, 1.0, 1.0, 0.05, 0.05, 0.05])
KP = np.concatenate([_WRIST_KP, np.full(NUM_FINGER_JOINTS, FINGER_KP)])
KV = np.concatenate([_WRIST_KV, np.full(NUM_FINGER_JOINTS, FINGER_KV)])
ACTION_FORCE_LIMITS = np.concatenate([WRIST_FORCE_LIMITS, FORCE_LIMITS])
"""Gains (N/m and Nm/rad, N s/m and Nm s/rad) and force limits (N and Nm) of the position actuators (28,)."""
WRIST_LAG = (_WRIST_KV + _WRIST_DAMPING) / _WRIST_KP
"""Seconds by which a steadily moving wrist is behind its targets (6,): without load it heads for where it is plus its
velocity times this."""

# q_open of Eq. 5 (rad): straight fingers, thumb swung out to the side.
OPEN_FINGERS = np.array([0.0, 0.1, 0.1, 0.1] * 3 + [0.0, 0.0, 0.1, 0.1, 0.1] + [0.5, 0.0, -0.2, -0.5, 0.0])

# Collision bits, set explicitly on every geom. A pair collides when one's contype meets the other's conaffinity.
HAND_BIT, OBJECT_BIT, SELF_BIT = 1, 2, 16

FRICTION = 0.65
"""Nominal sliding friction of hand and held objects."""
CONTACT_TIME = 0.01
"""Time constant of contacts, s: stiff enough for penetrations below a millimetre, stable at a 5 ms physics step."""

# Columns: the palm frame's axes in world coordinates at zero Euler angles (z along the fingers, y out of the back).
PALM_AT_ZERO = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
PALM_CENTER = (0.0, -0.0111, 0.05)
FINGERTIP_OFFSET = {"FF": 0.026, "MF": 0.026, "RF": 0.026, "LF": 0.026, "TH": 0.0275}


def finger_slice(finger: str) -> slice:
    """Indices of one finger's joints in the 28-vector, ordered as `ACTION_NAMES`; a UsageError on an unknown finger."""
    joints = FINGER_JOINTS[one_of("finger", finger, FINGERS)]
    start = ACTION_NAMES.index(joints[0])
    return slice(start, start + len(joints))


def normalize(target: ArrayLike) -> NDArray[np.float64]:
    """Position targets (..., 28) in m and rad to actions; the joint range maps to [-1, 1]."""
    return 2.0 * (np.asarray(target, np.float64) - ACTION_LOW) / (ACTION_HIGH - ACTION_LOW) - 1.0


def denormalize(action: ArrayLike) -> NDArray[np.float64]:
    """Actions (..., 28) in [-1, 1] to position targets in m and rad."""
    return ACTION_LOW + 0.5 * (np.asarray(action, np.float64) + 1.0) * (ACTION_HIGH - ACTION_LOW)


def euler_to_matrix(euler: ArrayLike) -> NDArray[np.float64]:
    """Rotation matrices (..., 3, 3) of intrinsic z-y-x Euler angles (..., 3), rad."""
    z, y, x = np.moveaxis(np.asarray(euler, np.float64), -1, 0)
    cz, sz, cy, sy, cx, sx = np.cos(z), np.sin(z), np.cos(y), np.sin(y), np.cos(x), np.sin(x)
    rows = [
        [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
        [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
        [-sy, cy * sx, cy * cx],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def palm_rotation(euler: ArrayLike) -> NDArray[np.float64]:
    """World orientation (..., 3, 3) of the palm frame at wrist Euler angles (..., 3), rad."""
    return euler_to_matrix(euler) @ PALM_AT_ZERO


def wrist_placing(point: ArrayLike, palm_point: ArrayLike, euler: ArrayLike) -> NDArray[np.float64]:
    """Wrist position (..., 3) that brings a point of the palm body's frame to one of the world, both (..., 3), m."""
    offset = palm_rotation(euler) @ np.asarray(palm_point, np.float64)[..., None]
    return np.asarray(point, np.float64) - offset[..., 0]


@cache
def asset_folder() -> Path:
    """Folder of the Shadow Hand's MJCF and meshes inside the gymnasium-robotics wheel."""
    spec = importlib.util.find_spec("gymnasium_robotics")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("gymnasium-robotics is not installed; it provides the Shadow Hand's model files")
    return Path(spec.submodule_search_locations[0]) / "envs" / "assets"


def _hand_xml(first_body: str | None) -> str:
    """The wheel's hand from the palm outwards on the wrist chain, without forearm and name prefix."""
    folder = asset_folder()
    palm = next(
        body for body in ET.parse(folder / "hand" / "robot.xml").iter("body") if body.get("name") == "robot0:palm"
    )
    for joint in palm.findall("joint"):
        palm.remove(joint)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, PALM_AT_ZERO.flatten())
    palm.attrib.pop("pos")
    palm.attrib |= {"childclass": "robot0:asset_class", "quat": " ".join(map(str, quat))}
    for element in palm.iter():
        element.attrib.pop("user", None)

    model = ET.Element("mujoco", model="DexCompose")
    ET.SubElement(model, "compiler", angle="radian", meshdir=str(folder / "stls" / "hand"), autolimits="true")
    defaults = ET.parse(folder / "hand" / "shared.xml").getroot().find("default")
    assert defaults is not None, "the hand's shared.xml has a default section"
    model.append(defaults)
    assets = ET.SubElement(model, "asset")
    skipped = {"robot0:forearm", "robot0:forearm_cvx", "robot0:wrist"}
    for element in ET.parse(folder / "hand" / "shared_asset.xml").getroot():
        textured = element.tag == "texture" or element.get("texture")
        if not textured and element.get("name") not in skipped:
            assets.append(element)

    parent = ET.SubElement(model, "worldbody")
    if first_body is not None:
        ET.SubElement(parent, "body", name=first_body)
    for i, axis in enumerate(("1 0 0", "0 1 0", "0 0 1", "0 0 1", "0 1 0", "1 0 0")):
        name, slide = WRIST_JOINTS[i], i < 3
        parent = ET.SubElement(parent, "body", name=f"wrist_{name.lower()}")
        ET.SubElement(parent, "inertial", pos="0 0 0", mass="0.02", diaginertia="2e-4 2e-4 2e-4")
        ET.SubElement(
            parent, "joint", name=name, type="slide" if slide else "hinge", axis=axis,
            range=f"{WRIST_LOW[i]} {WRIST_HIGH[i]}", armature="0.2" if slide else "0.01",
            damping=f"{_WRIST_DAMPING[i]:g}",
        )  # fmt: skip
    parent.append(palm)
    return ET.tostring(model, encoding="unicode").replace("robot0:", "")


def make_spec(*, friction: float = FRICTION, torsional: float = 0.01, first_body: str | None = None) -> mujoco.MjSpec:
    """A model specification that holds the hand alone: wrist chain, sites and the 28 position actuators.

    Args:
        friction: Sliding friction of its surfaces.
        torsional: Torsional friction of its surfaces, m.
        first_body: Name of an empty body to stand before the hand, for a held object: where the object's degrees of
            freedom come first, the factors of the constraint solver's Hessian stay sparse.
    """
    spec = mujoco.MjSpec.from_string(_hand_xml(first_body))
    for body in spec.bodies:
        if body.name not in ("world", first_body):
            body.gravcomp = 1.0
    for geom in spec.geoms:
        if geom.name.startswith("C_"):
            # Hand surfaces touch objects and fixtures; fingertips also touch the other fingers and the palm. What they
            # touch is felt by the hand's rules: sliding and torsion, no rolling resistance.
            geom.contype = HAND_BIT | (SELF_BIT if geom.name.endswith("distal") else 0)
            geom.conaffinity, geom.condim, geom.priority, geom.margin, geom.group = SELF_BIT, 4, 1, 0.0, 3
            geom.friction, geom.solref = [friction, torsional, 1e-4], [CONTACT_TIME, 1.0]
        elif geom.name.startswith("V_"):
            geom.contype, geom.conaffinity, geom.mass, geom.group = 0, 0, 0.0, 1
    for finger, (proximal, _, distal) in FINGER_LINKS.items():
        spec.add_exclude(name=f"exclude_{finger}", bodyname1=proximal, bodyname2=distal)
        tip = spec.body(distal).add_site(name=f"{finger}_tip", pos=[0, 0, FINGERTIP_OFFSET[finger]], size=[0.004] * 3)
        tip.group = 4
    spec.body("palm").add_site(name="palm_center", pos=PALM_CENTER, size=[0.004] * 3, group=4)
    for joint in spec.joints:
        if joint.name in JOINTS:
            joint.armature, joint.damping, joint.frictionloss, joint.margin = 0.001, [0.1, 0, 0], 0.0, 0.0
    _add_actuators(spec)
    return spec


def _add_actuators(spec: mujoco.MjSpec) -> None:
    for i, name in enumerate(ACTION_NAMES):
        actuator = spec.add_actuator(name=f"A_{name}", target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.set_to_position(KP[i], KV[i])
        actuator.ctrlrange, actuator.ctrllimited = [ACTION_LOW[i], ACTION_HIGH[i]], True
        actuator.forcerange, actuator.forcelimited = [-ACTION_FORCE_LIMITS[i], ACTION_FORCE_LIMITS[i]], True
