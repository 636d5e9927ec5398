"""Properties that hold for every seed, action and number of worlds, and physics over a whole episode."""

from functools import cache

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dexcompose_envs import env_id, hand
from dexcompose_envs.skills import skill_names

few = settings(max_examples=6, deadline=None)
seeds = st.integers(0, 2**31)


@pytest.fixture(scope="module")
def make(held_library):
    """`make(name, n)`: a vector environment, held starts for composites; `make(name)`: a single one. Made once."""

    @cache
    def make(name, num_envs=None):
        kwargs = {"held_states": held_library("GraspBall")} if "-" in name else {}
        if num_envs is None:
            return gym.make(env_id(name), **kwargs).unwrapped
        return gym.make_vec(env_id(name), num_envs=num_envs, num_threads=1 + num_envs % 2, **kwargs).unwrapped

    return make


def actions_near(env, obs, rng, size):
    """Random actions, `size` around the last ones; every fourth is anywhere in the box."""
    previous = obs["context"][..., env.layout["context"]["previous_action"]]
    if rng.random() < 0.25:
        return rng.uniform(-1, 1, previous.shape).astype(np.float32)
    return np.clip(previous + size * rng.normal(size=previous.shape), -1, 1).astype(np.float32)


@pytest.mark.parametrize("name", ["GraspBall", "PushButton", "GraspBall-PushButton"])
@few
@given(seed=seeds, num_envs=st.integers(1, 4), size=st.sampled_from([0.01, 0.1]))
def test_world_i_equals_a_single_env_seeded_s_plus_i(make, name, seed, num_envs, size):
    venv, env = make(name, num_envs), make(name)
    rng = np.random.default_rng(seed)
    obs, info = venv.reset(seed=seed)
    history = [(obs, info)]
    actions = []
    for _ in range(3):
        actions.append(actions_near(venv, history[-1][0], rng, size))
        obs, reward, terminated, truncated, info = venv.step(actions[-1])
        history.append((obs, info | {"reward": reward, "terminated": terminated, "truncated": truncated}))
        if (terminated | truncated).any():
            break
    for world in range(num_envs):
        obs, info = env.reset(seed=seed + world)
        for step, (expected, expected_info) in enumerate(history):
            if step > 0:
                obs, reward, terminated, truncated, info = env.step(actions[step - 1][world])
                info |= {"reward": reward, "terminated": terminated, "truncated": truncated}
            if "final_obs" in expected_info:  # under SAME_STEP the ended episode's last values are there
                ends = {key: expected_info[key] for key in ("reward", "terminated", "truncated")}
                expected, expected_info = expected_info["final_obs"], expected_info["final_info"] | ends
            for key in obs:
                np.testing.assert_array_equal(obs[key], expected[key][world])
            assert info == {key: value[world] for key, value in expected_info.items()}


@pytest.mark.parametrize("name", ["GraspBall", "GraspBall-PushButton"])
@few
@given(seed=seeds, steps=st.integers(0, 3))
def test_set_state_of_get_state_is_the_identity_and_continues_bit_by_bit(make, name, seed, steps):
    venv, other = make(name, 2), make(name, 3)
    rng = np.random.default_rng(seed)
    obs, _ = venv.reset(seed=seed)
    for _ in range(steps):
        obs, *_ = venv.step(actions_near(venv, obs, rng, 0.05))
    state = venv.get_state()
    venv.set_state(state)
    np.testing.assert_array_equal(venv.get_state(), state)

    other.reset(seed=0)
    elsewhere = np.zeros((3, state.shape[1]))
    elsewhere[1:] = state
    other.set_state(elsewhere, np.array([False, True, True]))
    np.testing.assert_array_equal(other.get_state()[1:], state)
    for _ in range(2):
        actions = actions_near(venv, obs, rng, 0.05)
        obs, reward, terminated, truncated, _ = venv.step(actions)
        obs_2, reward_2, terminated_2, _, _ = other.step(np.concatenate([actions[:1], actions]))
        np.testing.assert_array_equal(reward, reward_2[1:])
        np.testing.assert_array_equal(terminated, terminated_2[1:])
        if (terminated | truncated).any():
            break
        for key in obs:
            np.testing.assert_array_equal(obs[key], obs_2[key][1:])


@few
@given(seed=seeds)
def test_whatever_the_actions_numbers_stay_finite(make, seed):
    venv = make("GraspBall-PushButton", 2)
    rng = np.random.default_rng(seed)
    venv.reset(seed=seed)
    for _ in range(5):
        obs, reward, *_, info = venv.step(rng.uniform(-1, 1, (2, 28)).astype(np.float32))
        assert all(np.isfinite(value).all() for value in obs.values())
        assert np.isfinite(reward).all()
        assert ((info["outcome"] >= 0) & (info["outcome"] <= 5)).all()


def test_a_world_that_diverges_is_reported_and_reset(held_library, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings to a file beside the caller
    venv = gym.make_vec(
        env_id("GraspBall-PushButton"), num_envs=3, held_states=held_library("GraspBall"), num_threads=1
    )
    obs, _ = venv.reset(seed=0)
    stay = obs["context"][:, venv.unwrapped.layout["context"]["previous_action"]]
    state = venv.unwrapped.get_state()
    model = venv.unwrapped.core.scene.model
    state[1, 4 + model.nq : 4 + model.nq + model.nv] = 1e12  # tag, time, qpos, qvel
    venv.unwrapped.set_state(state)
    obs, reward, terminated, truncated, info = venv.step(stay)
    assert not terminated.any()
    assert truncated.tolist() == [False, True, False]  # nothing is known of it: no end of the task's
    assert reward[1] == 0.0
    assert info["final_info"]["unstable"].tolist() == [False, True, False]
    assert not info["final_info"]["success"].any()
    assert not info["final_info"]["outcome"].any()
    assert np.isfinite(reward).all()
    for values in (obs, info["final_obs"]):
        assert all(np.isfinite(value).all() for value in values.values())
    assert np.abs(venv.unwrapped.core.engine.qvel()).max() < 100
    *_, terminated, _, info = venv.step(stay)
    assert not terminated[[0, 2]].any()
    assert not info["unstable"].any()
    venv.close()


@pytest.mark.parametrize("skill", skill_names("retention"))
def test_quiet_hold_over_a_whole_episode(skill, held_library):
    library = held_library(skill)
    venv = gym.make_vec(
        env_id(f"{skill}-PushButton"), num_envs=len(library), held_states=library, max_episode_steps=250, base_shake=0.0
    ).unwrapped
    obs, _ = venv.reset(seed=0, options={"held_index": np.arange(len(library))})
    reference = obs["context"][:, venv.layout["context"]["previous_action"]]
    columns = venv.layout["context"]["object_position"]
    start = obs["context"][:, columns]
    data = mujoco.MjData(venv.core.scene.model)
    farthest, deepest = np.zeros(len(library)), 0.0
    for step in range(200):
        obs, _, terminated, _, info = venv.step(reference)
        assert not terminated.any()
        assert info["task_a_held"].all()
        farthest = np.maximum(farthest, np.linalg.norm(obs["context"][:, columns] - start, axis=1) / 10)
        if step % 40 == 39:
            for world in range(len(library)):
                venv.core.engine.load_into(data, world)
                deepest = min(deepest, data.contact.dist.min())
                assert data.ncon >= 2
    assert farthest.max() < 0.005
    assert deepest > -0.003
    torque = obs["context"][:, venv.layout["context"]["torque"]]
    assert np.abs(torque).max() <= 1 + 1e-6  # the hand's own force limits
    assert (obs["context"][:, venv.layout["context"]["phase"]] == [0, 0, 1]).all()
    assert torque.shape[1] == hand.NUM_FINGER_JOINTS
    venv.close()


@pytest.mark.parametrize("skill", skill_names("retention"))
def test_a_trembling_wrist_does_not_kick_the_object(skill, held_library):
    """A step that the solver leaves unsolved moves the object by millimetres at once; friction only creeps."""
    library = held_library(skill)
    venv = gym.make_vec(
        env_id(f"{skill}-PushButton"), num_envs=len(library), held_states=library, terminate_on_success=False
    ).unwrapped
    obs, _ = venv.reset(seed=0, options={"held_index": np.arange(len(library))})
    reference = obs["context"][:, venv.layout["context"]["previous_action"]]
    columns = venv.layout["context"]["object_position"]
    position, farthest = obs["context"][:, columns], 0.0
    for _ in range(60):
        obs, _, terminated, _, _ = venv.step(reference)
        assert not terminated.any()
        farthest = max(farthest, np.linalg.norm(obs["context"][:, columns] - position, axis=1).max() / 10)
        position = obs["context"][:, columns]
    assert farthest < 0.001
    venv.close()


def test_composites_are_shaken_and_single_skills_are_not(held_library):
    kwargs = {"held_states": held_library("GraspBall"), "num_envs": 2, "num_threads": 1}

    def wrist_after(name, **more):
        venv = gym.make_vec(env_id(name), start="held", **kwargs, **more).unwrapped
        obs, _ = venv.reset(seed=0, options={"held_index": np.array([3, 3])})
        stay = obs["context"][:, venv.layout["context"]["previous_action"]]
        for _ in range(12):
            obs, *_ = venv.step(stay)
        venv.close()
        return hand.denormalize(obs["task_a"][:, : hand.NUM_ACTIONS])[:, :3]

    still = wrist_after("GraspBall")
    shaken = wrist_after("GraspBall-PushButton")
    np.testing.assert_allclose(still[0], still[1], atol=1e-9)
    np.testing.assert_allclose(wrist_after("GraspBall-PushButton", base_shake=0.0), still, atol=2e-3)
    assert np.linalg.norm(shaken[0] - shaken[1]) > 1e-3  # every world its own way
    assert np.linalg.norm(shaken - still, axis=1).max() < 0.06
    np.testing.assert_array_equal(wrist_after("GraspBall-PushButton"), shaken)


@pytest.mark.parametrize("scale", [-0.1, 7.0, np.nan])
def test_a_wrong_shake_is_refused(scale):
    with pytest.raises(ValueError, match=r"base_shake is .*; expected a number from 0 to 5"):
        gym.make(env_id("PushButton"), base_shake=scale)
