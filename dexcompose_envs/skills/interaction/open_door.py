"""OpenDoor: press a lever handle down, which draws the latch, and push the door open."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.observations import Array, Snapshot, Term
from dexcompose_envs.skills.base import Things
from dexcompose_envs.skills.expert import Expert, Pace
from dexcompose_envs.skills.parts import FIXTURE_COLLISION, SurfaceFriction, add_geom
from dexcompose_envs.skills.postures import INDEX_TIP
from dexcompose_envs.skills.terms import share
from dexcompose_envs.skills.trajectories import Waypoint, minimum_jerk
from dexcompose_envs.skills.upright import ALONG_X, ALONG_Y, Standing, UprightExpert, UprightFixture, turned

LATCH_BIT = 32
"""Collision bit of tongue and strike, which touch nothing else."""
_GREASED = SurfaceFriction(sliding=0.1, torsional=0.005, condim=3)


class OpenDoor(UprightFixture):
    """An interior door at half size, 34 x 34 cm, hinged on the left, with a lever handle of 90 mm and a latch.

    Where a finger presses it, the lever takes 4.6 N to leave its rest and 9 N to draw the latch's tongue out of the
    strike; the door then swings away from the hand against a closer's damping. Success: it stands open by 80 % of
    1.4 rad.
    """

    name = "OpenDoor"
    DESCRIPTION = "Press a lever handle down (5 to 9 N) to draw the latch and push the hinged door open by 64 degrees."
    joints = ("angle", "lever")
    DEMONSTRATIONS = 400
    HEIGHT = 0.22
    HINGE = (0.053, 0.22)
    """The hinge's place in the fixture's frame (m); the lever's axis lies as far before the leaf."""
    SPINDLE_Y, LENGTH, PRESSED_AT = -0.045, 0.090, 0.065
    """Where the lever turns, how long it is, and how far out a finger presses it (m)."""
    LEAF_WIDTH = 0.338
    RANGE = 1.4
    GOAL = 0.8 * RANGE
    LEVER_RANGE, LEVER_DRAWN = 0.65, 0.45
    """Angles (rad) at which the lever stops and, about, at which the door is free."""
    LEVER_PRELOAD, LEVER_STIFFNESS = 0.30, 0.70
    """Torque at rest (Nm) and its rise (Nm/rad)."""
    STRIKE_TOP = 0.031
    MAX_STEPS = 200

    @property
    def arm(self) -> NDArray[np.float64]:
        """From the hinge to where the lever is pressed."""
        return np.array([-self.HINGE[0], self.SPINDLE_Y + self.PRESSED_AT - self.HINGE[1], 0.0])

    def build(self, things: Things) -> None:
        """Adds frame and strike, leaf, lever and tongue."""
        base, name, solid = things.body, things.name, FIXTURE_COLLISION
        (x, y), z = self.HINGE, self.HEIGHT
        frame: dict[str, Any] = {"material": "wood", "collision": solid}
        for side, where in (("free", -0.170), ("hinged", y + 0.027)):
            add_geom(base, name(f"jamb_{side}"), "box", [0.022, 0.022, 0.20], pos=[x, where, 0.20], **frame)
        add_geom(base, name("lintel"), "box", [0.022, 0.231, 0.015], pos=[x, 0.0385, 0.415], **frame)
        add_geom(base, name("sill"), "box", [0.022, 0.231, 0.008], pos=[x, 0.0385, 0.008], material="wood")
        half = 0.025
        add_geom(
            base, name("strike"), "box", [0.006, 0.011, half], pos=[x + 0.013, -0.137, z + self.STRIKE_TOP - half],
            material="steel", collision=(0, LATCH_BIT), friction=_GREASED,
        )  # fmt: skip
        base.add_site(name=name("pivot"), pos=[x, y, z], size=[0.004] * 3, group=4)
        leaf = base.add_body(name=name("leaf"), pos=[x, y, 0])
        width = self.LEAF_WIDTH
        add_geom(
            leaf, name("leaf"), "box", [0.008, width / 2, 0.17], pos=[0, -width / 2, 0.20], mass=1.5, material="door",
            collision=solid,
        )  # fmt: skip
        leaf.add_joint(
            name=name("angle"), type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0, 0, 1], range=[0, self.RANGE],
            damping=[1.0, 0, 0], frictionloss=0.1, armature=0.005, solref_limit=[0.01, 1],
        )  # fmt: skip
        add_geom(
            leaf, name("rose"), "cylinder", [0.020, 0.003], pos=[-0.011, self.SPINDLE_Y - y, z], quat=ALONG_X,
            material="steel",
        )  # fmt: skip
        self._add_lever(leaf, things)

    def _add_lever(self, leaf: mujoco.MjsBody, things: Things) -> None:
        name, (x, y), half = things.name, self.HINGE, self.LENGTH / 2
        lever = leaf.add_body(name=name("lever"), pos=[-x, self.SPINDLE_Y - y, self.HEIGHT])
        steel: dict[str, Any] = {"material": "steel", "collision": FIXTURE_COLLISION}
        add_geom(lever, name("grip"), "capsule", [0.008, half], pos=[0, half, 0], quat=ALONG_Y, mass=0.10, **steel)
        add_geom(lever, name("neck"), "capsule", [0.008, 0.021], pos=[0.021, 0, 0], quat=ALONG_X, mass=0.05, **steel)
        add_geom(
            lever, name("tongue"), "capsule", [0.005, 0.046], pos=[x, -0.050, 0], quat=ALONG_Y, mass=0.02,
            material="graphite", collision=(LATCH_BIT, 0), friction=_GREASED,
        )  # fmt: skip
        lever.add_joint(
            name=name("lever"), type=mujoco.mjtJoint.mjJNT_HINGE, axis=[-1, 0, 0], range=[0, self.LEVER_RANGE],
            stiffness=[self.LEVER_STIFFNESS, 0, 0], springref=-self.LEVER_PRELOAD / self.LEVER_STIFFNESS,
            damping=[0.2, 0, 0], frictionloss=0.05, armature=5e-4, solref_limit=[0.01, 1],
        )  # fmt: skip
        lever.add_site(name=name("target"), pos=[0, self.PRESSED_AT, 0], size=[0.004] * 3, group=4)

    @property
    def start_pose(self) -> NDArray[np.float64]:
        """Index straight, hand pitched down, fingertip 6 cm before and 8 cm above where the lever is pressed."""
        return np.concatenate([[0.13, -0.015, 0.38, 0.0, 0.5, 0.0], hand.OPEN_FINGERS])

    @property
    def terms(self) -> tuple[Term, ...]:
        """Those of every upright fixture, and the lever: 11 numbers."""
        lever = Term("lever", 1, "lever angle over its range", lambda s: s.joint("lever")[:, None] / self.LEVER_RANGE)
        return (*super().terms, lever)

    def progress(self, snapshot: Snapshot) -> Array:
        """Three tenths for the lever, until the door opens, seven for the door."""
        opened = share(snapshot.joint("angle"), 0.0, self.GOAL)
        drawn = share(snapshot.joint("lever"), 0.0, self.LEVER_DRAWN)
        ajar = share(snapshot.joint("angle"), 0.0, 0.1)
        return 0.3 * (drawn + ajar * (1.0 - drawn)) + 0.7 * opened

    def expert(self) -> Expert:
        """Opens it with the index finger."""
        return OpenDoorExpert(self)


class OpenDoorExpert(UprightExpert):
    """Lays the index finger on the lever, presses it down by 5 cm and follows the door; the hand turns with it."""

    def path(self, standing: Standing, fingers: NDArray[np.float64], rng: np.random.Generator) -> list[Waypoint]:
        """Above the lever, on it, down, along the door's arc, hold."""
        pitch, roll, aside = rng.uniform(0.45, 0.60), rng.uniform(-0.08, 0.08), rng.uniform(-0.20, 0.05)

        def pose(beyond: float, height: float, angle: float = 0.0) -> NDArray[np.float64]:
            """Fingertip beyond the lever's axis and above it (m), in the frame of a door opened by `angle`."""
            tip = standing.place(turned(angle, self._arm + np.array([beyond, 0.0, 0.0])) + np.array([0, 0, height]))
            euler = np.array([standing.yaw + aside * (1.0 - min(angle, 1.0)) + angle, pitch, roll])
            return np.concatenate([hand.wrist_placing(tip, INDEX_TIP, euler), euler, fingers])

        pace, over, down = Pace(rng), 0.021, -0.058
        steps = pace.steps(38)
        swing = 1.30 * minimum_jerk(np.arange(1, steps + 1) / steps)
        arc = [
            pose(over + 0.025 * min(angle / 0.1, 1.0), down + 0.022 * min(angle / 0.5, 1.0), float(angle))
            for angle in swing
        ]
        return [
            Waypoint(pace.steps(22), pose(over - 0.015, rng.uniform(0.045, 0.060))),
            Waypoint(pace.steps(8), pose(over, 0.025)),
            Waypoint(pace.steps(12), pose(over, down)),
            *(Waypoint(1, target) for target in arc),
            Waypoint(10, arc[-1]),
        ]
