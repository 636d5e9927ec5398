"""HoldBlock: a retention skill in one file, as somebody else would write it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dexcompose_envs.observations import Term
from dexcompose_envs.skills.base import RetentionSkill
from dexcompose_envs.skills.grasping import GraspExpert
from dexcompose_envs.skills.parts import OBJECT_COLLISION, SurfaceFriction, add_geom
from dexcompose_envs.skills.retention import grasp_ball
from dexcompose_envs.skills.terms import in_reach, object_in_palm, palm_to_object, share

GRASP = replace(grasp_ball.GRASP, approach=np.array([0.0, 0.0, 0.09]))


class HoldBlock(RetentionSkill):
    """A block of 100 g with rounded sides and a knob on top, lifted by 10 cm."""

    name = "HoldBlock"
    DESCRIPTION = "Hold a small rounded block at the fingertips."
    sites = ("knob",)
    SIZE = 0.031

    def build(self, things):
        friction = SurfaceFriction(sliding=0.8, rolling=0.002, condim=6)
        add_geom(
            things.body, things.name("block"), "sphere", [self.SIZE], mass=0.1, rgba=[0.2, 0.4, 0.8, 1],
            friction=friction, collision=OBJECT_COLLISION,
        )  # fmt: skip
        things.body.add_site(name=things.name("knob"), pos=[0, 0, self.SIZE], size=[0.003] * 3)

    @property
    def nominal_pose(self):
        return np.array([0, 0, self.SIZE, 1, 0, 0, 0])

    def sample_things(self, rng):
        return self.nominal_pose + np.r_[rng.uniform(-0.01, 0.01, 2), np.zeros(5)]

    @property
    def terms(self):
        knob = Term("knob_height", 1, "height of the knob, 10 x m", lambda s: 10 * s.site("knob")[:, 2:])
        return object_in_palm("block_in_palm", "block"), palm_to_object("palm_to_block", "block"), knob

    @property
    def hold_point(self):
        return GRASP.hold_point

    def achieved(self, snapshot):
        return (snapshot.sensors["object_world_position"][:, 2] >= 0.10) & in_reach(snapshot, 0.10)

    def progress(self, snapshot):
        return share(snapshot.sensors["object_world_position"][:, 2], self.SIZE, 0.10)

    def expert(self):
        return GraspExpert(self, GRASP, "palm_to_block")
