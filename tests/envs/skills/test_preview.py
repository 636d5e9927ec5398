"""The skills that are not trained yet: their experts succeed, and their mechanisms give way to the forces they say."""

import gymnasium as gym
import mujoco
import numpy as np
import pytest

from dexcompose_envs import env_id, hand, skill_names
from dexcompose_envs.scene import build_scene
from dexcompose_envs.scene.model_hash import model_hash
from dexcompose_envs.skills import make_expert, make_skill
from dexcompose_envs.skills.preview import PREVIEW, register_preview

pytestmark = pytest.mark.usefixtures("preview_skills")
NAMES = [skill.name for skill in PREVIEW]
FIXTURES = [skill.name for skill in PREVIEW if skill.kind == "interaction"]


@pytest.mark.parametrize("name", NAMES)
def test_the_expert_succeeds_in_smooth_motions(name):
    worlds = 12
    venv = gym.make_vec(env_id(name), num_envs=worlds, autoreset_mode="Disabled", terminate_on_success=False)
    obs, info = venv.reset(seed=300)
    expert = make_expert(name)
    expert.reset(obs, info, range(worlds), range(300, 300 + worlds))
    success, targets = np.zeros(worlds, bool), []
    while not success.all() and len(targets) < make_skill(name).MAX_STEPS:
        targets.append(hand.denormalize(expert.act(obs)))
        obs, *_, info = venv.step(hand.normalize(targets[-1]).astype(np.float32))
        success |= info["success"]
    venv.close()
    assert success.mean() >= 0.9, f"failed: {np.flatnonzero(~success)}"
    jumps = np.abs(np.diff(targets, axis=0)).max(axis=(0, 1))
    assert jumps[:3].max() <= 0.03
    assert jumps[3:6].max() <= 0.15
    assert jumps[6:].max() <= 0.35


def test_they_make_pairs_and_are_registered_once():
    before = skill_names()
    register_preview()
    assert skill_names() == before
    assert build_scene("GraspBall", "OpenDoor").model.nu == hand.NUM_ACTIONS


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


@pytest.mark.parametrize("name", FIXTURES)
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


@pytest.mark.parametrize("name", ["PickCan", "PourMug"])
def test_an_object_has_its_own_range_of_hidden_mass(name):
    low, high = make_skill(name).MASS_FACTORS
    for physics, lows, highs in (("randomised", low, high), ({"friction": 0.5}, low, high), ({"mass": 3.0}, 3.0, 3.0)):
        venv = gym.make_vec(env_id(name), num_envs=8, physics=physics, num_threads=1)
        venv.reset(seed=0)
        mass = venv.unwrapped.hidden_physics()["mass"]
        assert lows - 1e-9 <= mass.min() and mass.max() <= highs + 1e-9
        venv.close()
