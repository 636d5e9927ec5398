"""Somebody else's skills, one file each: they are found by name, keep Gymnasium's rules, and their experts succeed."""

import gymnasium as gym
import numpy as np
import pytest

from dexcompose_envs import env_id, pair_names, register_skill, skill_names
from dexcompose_envs.skills import make_expert, make_skill, parse_pair

pytestmark = pytest.mark.usefixtures("dummy_skills")
DUMMIES = ("HoldBlock", "PressFlap")


def test_they_are_skills_and_make_pairs_like_any_other():
    assert set(DUMMIES) < set(skill_names())
    assert {"HoldBlock-PressFlap", "HoldBlock-PushButton", "GraspBall-PressFlap"} < set(pair_names())
    assert parse_pair("HoldBlock-PressFlap") == DUMMIES
    assert all(env_id(name) in gym.registry for name in (*DUMMIES, "HoldBlock-PressFlap"))


def test_a_second_skill_of_a_name_is_refused():
    with pytest.raises(ValueError, match="there is a skill named 'HoldBlock' already"):
        register_skill(type(make_skill("HoldBlock")))


@pytest.mark.parametrize("name", DUMMIES)
def test_their_experts_succeed(name):
    venv = gym.make_vec(env_id(name), num_envs=8)
    obs, info = venv.reset(seed=0)
    expert = make_expert(name)
    expert.reset(obs, info, range(8), range(8))
    success, running = np.zeros(8, bool), np.ones(8, bool)
    while running.any():
        obs, _, terminated, truncated, info = venv.step(expert.act(obs))
        ended = running & (terminated | truncated)
        success |= ended & info.get("final_info", info)["success"]
        running &= ~ended
    venv.close()
    assert success.mean() >= 0.75


def test_every_joint_and_place_is_observed():
    venv = gym.make_vec(env_id("GraspBall-PressFlap"), num_envs=2)
    obs, _ = venv.reset(seed=0)
    sensors = venv.unwrapped.sensors()
    assert {"b_joint_down", "b_joint_tip", "b_site_middle", "b_site_edge", "b_contact"} < set(sensors)
    assert obs["task_b"].shape == (2, 28 + 8)
    venv.close()
