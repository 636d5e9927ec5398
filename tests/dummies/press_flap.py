"""PressFlap: an interaction skill in one file with two joints and two places, as somebody else would write it."""

from __future__ import annotations

import mujoco
import numpy as np

from dexcompose_envs import hand
from dexcompose_envs.observations import Term
from dexcompose_envs.skills.base import InteractionSkill
from dexcompose_envs.skills.expert import Expert, Pace, seen_from_palm
from dexcompose_envs.skills.parts import FIXTURE_COLLISION, add_geom
from dexcompose_envs.skills.postures import INDEX_TIP, draw_in
from dexcompose_envs.skills.terms import palm_to_site, share, tip_to_site
from dexcompose_envs.skills.trajectories import Waypoint


class PressFlap(InteractionSkill):
    """A plate on a soft spring that also tips a little; done when its middle is 6 mm down."""

    name = "PressFlap"
    DESCRIPTION = "Press a soft plate down by 6 mm."
    MAX_STEPS = 120
    joints = ("down", "tip")
    sites = ("middle", "edge")
    RESIDUAL_BOUND = (0.02, 0.1, 0.1)

    def build(self, things):
        add_geom(
            things.body, things.name("foot"), "cylinder", [0.02, 0.025], pos=[0, 0, 0.025], rgba=[0.3, 0.3, 0.3, 1]
        )
        carrier = things.body.add_body(name=things.name("carrier"), pos=[0, 0, 0.09])
        carrier.add_joint(
            name=things.name("down"), type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, 0, -1], range=[0, 0.01],
            stiffness=[150, 0, 0], springref=-0.01, damping=[4, 0, 0], armature=0.02,
        )  # fmt: skip
        add_geom(carrier, things.name("stem"), "cylinder", [0.005, 0.01], pos=[0, 0, -0.015], mass=0.02)
        plate = carrier.add_body(name=things.name("plate"))
        plate.add_joint(
            name=things.name("tip"), type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0, 1, 0], range=[-0.05, 0.05],
            stiffness=[5, 0, 0], damping=[0.1, 0, 0], armature=0.001,
        )  # fmt: skip
        add_geom(
            plate, things.name("top"), "box", [0.03, 0.03, 0.004], mass=0.03, rgba=[0.9, 0.6, 0.1, 1],
            collision=FIXTURE_COLLISION,
        )  # fmt: skip
        plate.add_site(name=things.name("middle"), pos=[0, 0, 0.004], size=[0.003] * 3)
        plate.add_site(name=things.name("edge"), pos=[0.03, 0, 0.004], size=[0.003] * 3)

    @property
    def nominal_pose(self):
        return np.array([0.36, 0, 0, 1, 0, 0, 0])

    def sample_things(self, rng):
        return self.nominal_pose + np.r_[rng.uniform(-0.02, 0.02, 2), np.zeros(5)]

    @property
    def start_pose(self):
        return np.concatenate([[0.18, -0.03, 0.30, 0.0, 0.75, 0.0], hand.OPEN_FINGERS])

    def sample_hand(self, rng):
        return self.start_pose + np.r_[rng.uniform(-0.01, 0.01, 3), np.zeros(25)]

    @property
    def terms(self):
        slant = Term("slant", 1, "edge above middle, 10 x m", lambda s: 10 * (s.site("edge") - s.site("middle"))[:, 2:])
        return (
            tip_to_site("tip_to_plate", "FF", "middle", "plate's middle"),
            palm_to_site("palm_to_plate", "middle", "plate's middle"),
            Term("down", 1, "way down over its goal", lambda s: s.joint("down")[:, None] / 0.006),
            slant,
        )

    def progress(self, snapshot):
        return share(snapshot.joint("down"), 0.0, 0.006)

    def done(self, snapshot):
        return (snapshot.joint("down") >= 0.006) & (abs(snapshot.joint("tip")) <= 0.06)

    def expert(self):
        return PressFlapExpert(self)


class PressFlapExpert(Expert):
    """Comes from above with the index finger."""

    def waypoints(self, start, seen, rng):
        plate = seen_from_palm(start, seen["palm_to_plate"])
        euler, fingers, pace = np.array([0.0, 1.05, 0.0]), start[hand.NUM_WRIST :].copy(), Pace(rng)
        fingers[:4] = [0.0, 0.05, 0.05, 0.05]
        draw_in(fingers, rng)

        def pose(height):
            wrist = hand.wrist_placing(plate + np.array([0, 0, height]), INDEX_TIP, euler)
            return np.concatenate([wrist, euler, fingers])

        return [
            Waypoint(pace.steps(24), pose(0.04)),
            Waypoint(pace.steps(20), pose(-0.025)),
            Waypoint(10, pose(-0.025)),
        ]
