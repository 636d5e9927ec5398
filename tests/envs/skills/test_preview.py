"""The skills that are not trained yet: their experts succeed, and their pairs exist."""

import gymnasium as gym
import numpy as np
import pytest

from dexcompose_envs import env_id, hand, skill_names
from dexcompose_envs.scene import build_scene
from dexcompose_envs.skills import make_expert, make_skill
from dexcompose_envs.skills.preview import PREVIEW, register_preview

pytestmark = pytest.mark.usefixtures("preview_skills")
NAMES = [skill.name for skill in PREVIEW]


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
    assert build_scene("PourMug", "OpenMicrowave").model.nu == hand.NUM_ACTIONS


@pytest.mark.parametrize("name", ["PickCan", "PourMug"])
def test_an_object_has_its_own_range_of_hidden_mass(name):
    low, high = make_skill(name).MASS_FACTORS
    for physics, lows, highs in (("randomised", low, high), ({"friction": 0.5}, low, high), ({"mass": 3.0}, 3.0, 3.0)):
        venv = gym.make_vec(env_id(name), num_envs=8, physics=physics, num_threads=1)
        venv.reset(seed=0)
        mass = venv.unwrapped.hidden_physics()["mass"]
        assert lows - 1e-9 <= mass.min() and mass.max() <= highs + 1e-9
        venv.close()
