"""Named, sized observation terms: the one table that environments, agents, docs and tests read.

A term is a pure function of a `Snapshot`, written to the array-API standard, so that the same line serves NumPy on the
CPU and torch on the GPU. Environments concatenate terms into the arrays `task_a`, `task_b` and `context`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from array_api_compat import array_namespace

from dexcompose_envs import hand

Array = Any
"""A batched array of any array-API library, first axis = world."""


@dataclass(frozen=True)
class Snapshot:
    """What observation terms and tasks may look at, for N worlds.

    Attributes:
        sensors: Sensor group name -> (N, size), SI units; see `scene/sensors.py` for the groups.
        previous_action: Last executed action (N, 28), in [-1, 1].
        reference: Finger targets q_ref of the reference hold action (N, 22), in [-1, 1]; zeros before a hold.
        hold_target: Object position to keep, in the palm frame (N, 3), m.
        phase: Index into `phases.PHASES`, one-hot (N, 3).
        joint_low: Lower joint limits (28,), m and rad.
        joint_span: Upper minus lower joint limits (28,), m and rad.
        force_limit: Force limits of the finger actuators (22,), Nm.
        place: Letter of the skill that looks, which says whose joints and sites `joint` and `site` mean.
        offset: Where the looking skill's things are placed, as joint positions (28,), m and rad: where they would stand
            in the skill's own environment, plus this.
        stage: Index of the interaction in turn (N,).
    """

    sensors: Mapping[str, Array]
    previous_action: Array
    reference: Array
    hold_target: Array
    phase: Array
    joint_low: Array
    joint_span: Array
    force_limit: Array
    place: str
    offset: Array
    stage: Array

    def at(self, place: str, offset: Array) -> Snapshot:
        """The same worlds as the skill at another place of the chain sees them."""
        return replace(self, place=place, offset=offset)

    def joint(self, name: str) -> Array:
        """Position of one of the skill's articulated joints (N,), m or rad."""
        return self.sensors[f"{self.place}_joint_{name}"][:, 0]

    def site(self, name: str) -> Array:
        """World position of one of the skill's named places (N, 3), m."""
        return self.sensors[f"{self.place}_site_{name}"]

    def tip(self, finger: str) -> Array:
        """World position of a fingertip (N, 3), m."""
        start = 3 * hand.FINGERS.index(finger)
        return self.sensors["tip_position"][:, start : start + 3]

    @property
    def contact(self) -> Array:
        """Net force of the skill's thing on each finger link (N, 45), N."""
        return self.sensors[f"{self.place}_contact"]


@dataclass(frozen=True)
class Term:
    """One named block of an observation.

    Attributes:
        name: Key in the layout.
        size: Numbers per world.
        doc: Meaning and unit.
        compute: Snapshot -> (N, size).
    """

    name: str
    size: int
    doc: str
    compute: Callable[[Snapshot], Array]


def matrix6_from_quaternion(quat: Array) -> Array:
    """First two columns of the rotation matrices (N, 6) of unit quaternions (N, 4), w first."""
    xp = array_namespace(quat)
    w, x, y, z = (quat[..., i] for i in range(4))
    columns = [
        1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y),
        2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x),
    ]  # fmt: skip
    return xp.stack(columns, axis=-1)


def fingertip_distances(snapshot: Snapshot) -> Array:
    """Distance of each fingertip to the object's centre (N, 5), m, in `hand.FINGERS` order."""
    tips = snapshot.sensors["tip_in_palm"]
    xp = array_namespace(tips)
    offset = xp.reshape(tips, (-1, 5, 3)) - snapshot.sensors["object_position"][:, None, :]
    return xp.sqrt(xp.sum(offset * offset, axis=-1))


def finger_forces(contact: Array) -> Array:
    """Contact force of each finger (N, 5), N, from its three links' net forces (N, 5 * 3 * 3)."""
    xp = array_namespace(contact)
    links = xp.reshape(contact, (-1, 5, 3, 3))
    return xp.sum(xp.sqrt(xp.sum(links * links, axis=-1)), axis=-1)


LENGTH_SCALE, VELOCITY_SCALE, FORCE_SCALE = 10.0, 0.1, 0.1
"""What metres, angular and joint velocities, and newtons are multiplied by in the context, to be of order one."""

JOINT_POSITION = Term(
    "joint_position", 28, "wrist and finger joint positions, joint range scaled to [-1, 1]",
    lambda s: 2 * (s.sensors["joint_position"] - s.offset - s.joint_low) / s.joint_span - 1,
)  # fmt: skip

HAND_CONTEXT = (
    Term(
        "joint_velocity", 28, "joint velocities, 0.1 x m/s and rad/s",
        lambda s: VELOCITY_SCALE * s.sensors["joint_velocity"],
    ),
    Term(
        "torque", 22, "finger actuator forces as a fraction of their limits",
        lambda s: s.sensors["finger_force"] / s.force_limit,
    ),
    Term("previous_action", 28, "last executed action", lambda s: s.previous_action),
    Term("phase", 3, "one-hot: hold, transition, interact", lambda s: s.phase),
)  # fmt: skip

OBJECT_CONTEXT = (
    Term(
        "object_position", 3, "object in the palm frame, 10 x m",
        lambda s: LENGTH_SCALE * s.sensors["object_position"],
    ),
    Term(
        "object_rotation", 6, "first two columns of the object's rotation in the palm frame",
        lambda s: matrix6_from_quaternion(s.sensors["object_quaternion"]),
    ),
    Term("object_linear_velocity", 3, "relative to the palm, m/s", lambda s: s.sensors["object_linear_velocity"]),
    Term(
        "object_angular_velocity", 3, "in the object's frame, 0.1 x rad/s",
        lambda s: VELOCITY_SCALE * s.sensors["object_angular_velocity"],
    ),
    Term(
        "palm_offset", 3, "object minus hold target in the palm frame, 10 x m",
        lambda s: LENGTH_SCALE * (s.sensors["object_position"] - s.hold_target),
    ),
    Term(
        "finger_contact", 5, "contact force of each finger on the object, 0.1 x N",
        lambda s: FORCE_SCALE * finger_forces(s.contact),
    ),
    Term(
        "fingertip_distance", 5, "fingertip to object centre, 10 x m",
        lambda s: LENGTH_SCALE * fingertip_distances(s),
    ),
    Term("reference", 22, "q_ref: finger targets of the reference hold action, scaled", lambda s: s.reference),
)  # fmt: skip

FIXTURE_CONTEXT = (
    Term(
        "fixture_contact", 5, "contact force of each finger on the fixture, 0.1 x N",
        lambda s: FORCE_SCALE * finger_forces(s.contact),
    ),
)  # fmt: skip
STAGE = Term(
    "stage", 1, "index of the interaction in turn, from 0; where there are several", lambda s: s.stage[:, None]
)


def layout_of(terms: Sequence[Term]) -> dict[str, slice]:
    """Columns of each term in the concatenated observation.

    Raises:
        ValueError: If two terms share a name.
    """
    layout: dict[str, slice] = {}
    start = 0
    for term in terms:
        if term.name in layout:
            raise ValueError(f"two observation terms are named {term.name!r}; names must be unique")
        layout[term.name] = slice(start, start + term.size)
        start += term.size
    return layout


def compute(terms: Sequence[tuple[str, Term]], views: Mapping[str, Snapshot]) -> Array:
    """Concatenated terms (N, total size), each with the letter of the skill that looks, of what each skill sees."""
    xp = array_namespace(next(iter(views.values())).previous_action)
    return xp.concat([term.compute(views[place]) for place, term in terms], axis=-1)
