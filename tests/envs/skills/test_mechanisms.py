"""Mechanisms of upright fixtures give way to the forces they say, stay where they should, and are in fingerprints."""

import mujoco
import numpy as np
import pytest

from dexcompose_envs import hand
from dexcompose_envs.scene import build_scene
from dexcompose_envs.scene.model_hash import model_hash
from dexcompose_envs.skills import make_skill


class Bench:
    """One fixture, the hand far away, pulled at by a spring balance."""

    def __init__(self, name):
        self.model = build_scene(name).model
        self.data = mujoco.MjData(self.model)
        self.data.qpos[[self.model.joint(joint).qposadr[0] for joint in ("WX", "WZ")]] = [-0.4, 0.7]
        self.data.ctrl[:] = [self.data.joint(joint).qpos[0] for joint in hand.ACTION_NAMES]

    def run(self, seconds, force=(0.0, 0.0, 0.0), site="b_target"):
        """Lets time pass with a force (3,), N, in the fixture's axes at a place that moves along."""
        place = self.model.site(site).id
        for _ in range(round(seconds / self.model.opt.timestep)):
            self.data.qfrc_applied[:] = 0.0
            mujoco.mj_applyFT(
                self.model, self.data, np.array(force), np.zeros(3), self.data.site_xpos[place],
                int(self.model.site_bodyid[place]), self.data.qfrc_applied,
            )  # fmt: skip
            mujoco.mj_step(self.model, self.data)
        return self

    def angle(self, joint="b_angle"):
        return float(self.data.joint(joint).qpos[0])

    def gives_way(self, direction, angle, joint="b_angle"):
        """Least force (N) along a direction (3,) that turns a joint beyond an angle (rad)."""
        for force in np.arange(0.5, 30.0, 0.5):
            if self.run(0.4, force * np.array(direction)).angle(joint) > angle:
                return force
        raise AssertionError("it does not give way to 30 N")


@pytest.mark.parametrize(
    ("name", "direction", "angle", "joint", "least", "most"),
    [
        ("OpenDoor", (0.0, 0.0, -1.0), 0.02, "b_lever", 4.0, 6.0),
        ("OpenDoor", (0.0, 0.0, -1.0), 0.45, "b_lever", 8.0, 11.0),
        ("OpenMicrowave", (-1.0, 0.0, 0.0), 0.1, "b_angle", 15.0, 20.0),
        ("TurnOnSwitch", (0.0, 0.0, -1.0), 0.5, "b_angle", 5.0, 8.0),
    ],
)
def test_mechanisms_give_way_to_the_force_they_say(name, direction, angle, joint, least, most):
    assert least <= Bench(name).gives_way(direction, angle, joint) <= most


@pytest.mark.parametrize("name", ["OpenDoor", "OpenMicrowave", "TurnOnSwitch"])
def test_nothing_moves_by_itself(name):
    assert abs(Bench(name).run(2.0).angle()) < 0.02


def test_the_door_is_latched_until_the_lever_is_down():
    ahead = (20.0, 0.0, 0.0)
    assert Bench("OpenDoor").run(2.0, ahead).angle() < 0.05
    pressed = Bench("OpenDoor").run(0.5, (0.0, 0.0, -12.0))
    assert pressed.run(2.0, (10.0, 0.0, -12.0)).angle() > 0.5


def test_the_microwave_door_is_light_once_the_magnet_lets_go():
    opened = Bench("OpenMicrowave").run(0.5, (-20.0, 0.0, 0.0)).angle()
    assert opened > 0.1
    ajar = Bench("OpenMicrowave")
    ajar.data.joint("b_angle").qpos[0] = 0.1
    assert ajar.gives_way((-1.0, 0.0, 0.0), 0.3) <= 2.0


def test_the_switch_stays_where_it_is_put():
    switch = make_skill("TurnOnSwitch")
    for start, end in ((0.4, 0.0), (0.6, 2 * switch.HALF_RANGE)):  # just before dead centre, just behind it
        bench = Bench("TurnOnSwitch")
        bench.data.joint("b_angle").qpos[0] = 2 * switch.HALF_RANGE * start
        assert abs(bench.run(1.0).angle() - end) < 0.03


def test_fingerprints_cover_springs_and_magnets():
    for name, change in (("TurnOnSwitch", "jnt_stiffnesspoly"), ("OpenMicrowave", "tendon_stiffness")):
        model = build_scene(name).model
        values = getattr(model, change)
        before, kept = model_hash(model), values.copy()
        values[values != 0] *= 1.1
        try:
            assert model_hash(model) != before
        finally:
            values[:] = kept
