"""Observation terms and geometry that several skills share."""

from __future__ import annotations

from array_api_compat import array_namespace

from dexcompose_envs.observations import Array, Snapshot, Term, matrix6_from_quaternion

PALM_SCALE, NEAR_SCALE = 5.0, 10.0
"""What distances from the palm, and shorter ones, are multiplied by in observations."""


def object_in_palm(name: str, what: str) -> Term:
    """The held object in the palm frame."""
    doc = f"{what} centre in the palm frame, {NEAR_SCALE:g} x m"
    return Term(name, 3, doc, lambda s: NEAR_SCALE * s.sensors["object_position"])


def palm_to_object(name: str, what: str) -> Term:
    """From the palm centre to the held object, in world axes; experts read where the object lies from it."""
    doc = f"{what} centre minus palm centre, world axes, {PALM_SCALE:g} x m"
    return Term(name, 3, doc, lambda s: PALM_SCALE * (s.sensors["object_world_position"] - s.sensors["palm_position"]))


def palm_to_site(name: str, site: str, what: str) -> Term:
    """From the palm centre to a place on the fixture, in world axes."""
    doc = f"{what} minus palm centre, world axes, {PALM_SCALE:g} x m"
    return Term(name, 3, doc, lambda s: PALM_SCALE * (s.site(site) - s.sensors["palm_position"]))


def tip_to_site(name: str, finger: str, site: str, what: str) -> Term:
    """From a fingertip to a place on the fixture, in world axes."""
    doc = f"{what} minus {finger} fingertip, world axes, {NEAR_SCALE:g} x m"
    return Term(name, 3, doc, lambda s: NEAR_SCALE * (s.site(site) - s.tip(finger)))


def axis_of(quaternion: Array) -> Array:
    """The body z axis (N, 3) of unit quaternions (N, 4), w first."""
    columns = matrix6_from_quaternion(quaternion)
    xp = array_namespace(columns)
    return xp.linalg.cross(columns[..., :3], columns[..., 3:])


def rotation_angle(first: Array, second: Array) -> Array:
    """Angle (N,), rad in [0, pi], of the rotation between unit quaternions (N, 4), w first.

    By the chord between the two, which stays exact for small angles in single precision, as an arc cosine does not.
    """
    xp = array_namespace(first)
    apart = [xp.sum((first - sign * second) ** 2, axis=-1) for sign in (1.0, -1.0)]  # q and -q are one rotation
    return 4.0 * xp.asin(xp.clip(0.5 * xp.sqrt(xp.minimum(*apart)), 0.0, 0.5**0.5))


def lateral_distance(first: Array, second: Array, limit: float) -> Array:
    """Horizontal distance (N,) between points in the world (N, 3), at most `limit`; all in m."""
    xp = array_namespace(first)
    offset = (first - second)[..., :2]
    return xp.clip(xp.sqrt(xp.sum(offset * offset, axis=-1)), 0.0, limit)


def in_reach(snapshot: Snapshot, reach: float) -> Array:
    """Whether the object's centre is within `reach` (m) of the palm centre (N,)."""
    offset = snapshot.sensors["object_position"]
    return array_namespace(offset).sum(offset * offset, axis=-1) <= reach**2


def share(value: Array, low: float, high: float) -> Array:
    """How far a value (N,) is on its way from `low` to `high`, clipped to [0, 1]."""
    return array_namespace(value).clip((value - low) / (high - low), 0.0, 1.0)
