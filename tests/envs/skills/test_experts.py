"""Every skill has a scripted expert that succeeds, in smooth motions inside the action space."""

from functools import cache

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dexcompose_envs import env_id, hand
from dexcompose_envs.agent import Agent
from dexcompose_envs.skills import make_expert, make_skill, skill_names
from dexcompose_envs.skills.trajectories import Waypoint, minimum_jerk, through

EXPERTS = skill_names()
EPISODES = 16
# Largest change of a target in one control step (40 ms).
MAX_WRIST_JUMP, MAX_TURN, MAX_JOINT_JUMP = 0.03, 0.15, 0.35


@cache
def rollouts(skill):
    """Actions (T, N, 28), success of each episode, first joint targets (N, 28)."""
    venv = gym.make_vec(env_id(skill), num_envs=EPISODES, autoreset_mode="Disabled", terminate_on_success=False)
    obs, _ = venv.reset(seed=2000)
    start = hand.denormalize(obs["context"][:, venv.unwrapped.layout["context"]["previous_action"]])
    expert = make_expert(skill)
    expert.reset(obs, {}, range(EPISODES), range(2000, 2000 + EPISODES))
    actions, success = [], np.zeros(EPISODES, bool)
    for _ in range(make_skill(skill).MAX_STEPS):
        actions.append(expert.act(obs))
        obs, *_, info = venv.step(actions[-1])
        success |= info["success"]
        if success.all():
            break
    venv.close()
    return np.array(actions), success, start


@pytest.mark.parametrize("skill", EXPERTS)
def test_the_expert_succeeds(skill):
    _, success, _ = rollouts(skill)
    assert success.mean() >= 0.9, f"failed: {np.flatnonzero(~success)}"


@pytest.mark.parametrize("skill", EXPERTS)
def test_actions_are_smooth_and_inside_the_action_space(skill):
    actions, _, start = rollouts(skill)
    assert actions.dtype == np.float32
    assert np.abs(actions).max() <= 1.0
    targets = np.concatenate([start[None], hand.denormalize(actions)])
    jumps = np.abs(np.diff(targets, axis=0)).max(axis=(0, 1))
    assert jumps[:3].max() <= MAX_WRIST_JUMP
    assert jumps[3:6].max() <= MAX_TURN
    assert jumps[6:].max() <= MAX_JOINT_JUMP


@pytest.mark.parametrize("skill", EXPERTS)
def test_episodes_vary(skill):
    actions, _, _ = rollouts(skill)
    spread = hand.denormalize(actions[:40]).std(axis=1).max(axis=0)
    assert spread[:3].min() > 0.002
    assert spread[6:].max() > 0.01


@pytest.mark.parametrize("skill", EXPERTS)
def test_an_experts_plan_depends_on_observation_and_seed_alone(skill):
    venv = gym.make_vec(env_id(skill), num_envs=3, num_threads=1)
    obs, _ = venv.reset(seed=[5, 6, 7])
    together = make_expert(skill)
    together.reset(obs, {}, [0, 1, 2], [5, 6, 7])
    later = make_expert(skill)
    later.reset(obs, {}, [2, 0], [7, 50])
    later.act(obs)
    later.reset(obs, {}, [1], [6])
    expected = [together.act(obs) for _ in range(12)]
    np.testing.assert_array_equal([later.act(obs)[1] for _ in range(12)], [row[1] for row in expected])
    alone = make_expert(skill)
    one = {key: value[2:] for key, value in obs.items()}
    alone.reset(one, {}, [0], [7])
    np.testing.assert_array_equal([alone.act(one)[0] for _ in range(12)], [row[2] for row in expected])
    venv.close()


def test_unknown_skills_are_refused():
    with pytest.raises(ValueError, match="unknown skill 'OpenWindow'; expected one of"):
        make_expert("OpenWindow")


@pytest.mark.parametrize("skill", skill_names())
def test_every_skill_has_an_expert(skill):
    assert isinstance(make_expert(skill), Agent)


@settings(max_examples=30, deadline=None)
@given(
    steps=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    late=st.integers(0, 5),
    goals=st.lists(st.floats(-2, 2), min_size=4, max_size=4),
)
def test_trajectories_pass_their_waypoints_without_overshoot(steps, late, goals):
    points = [
        Waypoint(count, np.array([goal, -goal]), np.array([0, min(late, count - 1)]))
        for count, goal in zip(steps, goals, strict=False)
    ]
    path = through(np.zeros(2), points)
    assert path.shape == (sum(steps), 2)
    for end, point in zip(np.cumsum(steps), points, strict=True):
        np.testing.assert_allclose(path[end - 1], point.target, atol=1e-12)
    reach = max(abs(goal) for goal, _ in zip(goals, steps, strict=False))
    assert np.abs(path).max() <= reach + 1e-12


def test_minimum_jerk_by_hand():
    # s^3 (10 - 15 s + 6 s^2) at 1/2: 0.125 * (10 - 7.5 + 1.5) = 0.5; steepest there with slope 1.875.
    np.testing.assert_allclose(minimum_jerk(np.array([-1.0, 0.0, 0.5, 1.0, 2.0])), [0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(np.diff(minimum_jerk(np.array([0.4995, 0.5005])))[0] / 0.001, 1.875, rtol=1e-4)
