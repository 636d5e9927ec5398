"""Gymnasium's contract of the vector environment: autoreset, options, states, vectorisation."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from dexcompose_envs import OUTCOMES, env_id

PAIR = env_id("GraspBall-PushButton")
BUTTON = env_id("PushButton")


def make(name=BUTTON, num_envs=3, **kwargs):
    return gym.make_vec(name, num_envs=num_envs, **{"start": "scratch", "num_threads": 1, **kwargs})


def stay(venv, obs):
    return obs["context"][:, venv.unwrapped.layout["context"]["previous_action"]]


def assert_same(first, second, rows=slice(None)):
    assert first.keys() == second.keys()
    for key in first:
        np.testing.assert_array_equal(first[key][rows], second[key][rows], err_msg=key)


def test_metadata_and_spaces():
    venv = make(autoreset_mode="NextStep")
    assert venv.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert make().metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert venv.action_space.shape == (3, 28)
    obs, info = venv.reset(seed=0)
    assert venv.observation_space.contains(obs)
    assert all(value.shape == (3,) for value in info.values())
    venv.close()


def test_a_vector_environment_survives_pickling(held_library):
    venv = make(
        PAIR, start="held", held_states=held_library("GraspBall"), max_episode_steps=3, autoreset_mode="Disabled"
    )
    again = pickle.loads(pickle.dumps(venv.unwrapped))
    assert again.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    obs, _ = venv.reset(seed=3)
    obs_2, _ = again.reset(seed=3)
    for _ in range(3):
        assert_same(obs, obs_2)
        action = stay(venv, obs)
        obs, *_, truncated, _ = venv.step(action)
        obs_2, *_, truncated_2, _ = again.step(action)
    assert truncated.all() and truncated_2.all()
    venv.close()
    again.close()


@pytest.mark.parametrize("steps", [2, 160])
def test_max_episode_steps_is_enforced(steps):
    venv = make(max_episode_steps=steps, autoreset_mode="Disabled")
    obs, _ = venv.reset(seed=0)
    for step in range(1, steps + 1):
        obs, _, terminated, truncated, info = venv.step(stay(venv, obs))
        assert not terminated.any()
        assert (truncated == (step == steps)).all()
    expected = "b_fail" if steps > 150 else "ongoing"  # cut short before the task's time is over
    assert [OUTCOMES[i] for i in info["outcome"]] == [expected] * 3
    venv.close()


def test_same_step_autoreset_gives_the_final_observation_and_info():
    venv, plain = make(max_episode_steps=3), make(max_episode_steps=3, autoreset_mode="Disabled")
    obs, _ = venv.reset(seed=5)
    plain.reset(seed=5)
    first = {key: value.copy() for key, value in obs.items()}
    for _ in range(3):
        action = stay(venv, obs)
        obs, _, _, truncated, info = venv.step(action)
        last, _, _, _, last_info = plain.step(action)
    assert truncated.all()
    assert_same(info["final_obs"], last)
    assert_same(info["final_info"], last_info)
    assert info["_final_obs"].all()
    assert info["_final_info"].all()
    assert (info["elapsed_steps"] == 0).all()
    assert (info["outcome"] == 0).all()
    # A new episode of the same generators: not the first one again.
    assert (obs["task_b"] != first["task_b"]).any(axis=1).all()
    obs, _, _, truncated, info = venv.step(stay(venv, obs))
    assert "final_obs" not in info
    assert not truncated.any()
    assert (info["elapsed_steps"] == 1).all()
    venv.close()
    plain.close()


def test_same_step_autoreset_of_some_worlds_leaves_the_others_alone():
    venv = make(max_episode_steps=4)
    obs, _ = venv.reset(seed=5)
    obs, *_ = venv.step(stay(venv, obs))
    obs, _ = venv.reset(options={"reset_mask": np.array([False, True, False])})
    for _ in range(2):
        obs, *_ = venv.step(stay(venv, obs))
    obs, _, _, truncated, info = venv.step(stay(venv, obs))
    assert truncated.tolist() == [True, False, True]
    assert info["_final_obs"].tolist() == [True, False, True]
    assert info["elapsed_steps"].tolist() == [0, 3, 0]
    assert info["final_info"]["elapsed_steps"].tolist() == [4, 3, 4]
    assert_same(obs, info["final_obs"], rows=[1])
    venv.close()


def test_next_step_autoreset_ignores_one_action():
    venv = make(max_episode_steps=2, autoreset_mode="NextStep")
    obs, _ = venv.reset(seed=5)
    for _ in range(2):
        obs, _, _, truncated, info = venv.step(stay(venv, obs))
    assert truncated.all()
    assert "final_obs" not in info
    obs, reward, terminated, truncated, info = venv.step(np.ones((3, 28), np.float32))
    assert not (terminated | truncated).any()
    assert (reward == 0).all()
    assert (info["elapsed_steps"] == 0).all()
    same = make(max_episode_steps=2)
    again, _ = same.reset(seed=5)
    for _ in range(2):
        again, *_ = same.step(stay(same, again))
    assert_same(obs, again)
    venv.close()
    same.close()


def test_disabled_autoreset_wants_the_ended_worlds_reset():
    venv = make(max_episode_steps=2, autoreset_mode="Disabled")
    obs, _ = venv.reset(seed=5)
    for _ in range(2):
        obs, *_ = venv.step(stay(venv, obs))
    with pytest.raises(RuntimeError, match="world 0 has ended; reset it"):
        venv.step(stay(venv, obs))
    venv.reset(options={"reset_mask": np.array([True, True, False])})
    with pytest.raises(RuntimeError, match="world 2 has ended"):
        venv.step(stay(venv, obs))
    obs, info = venv.reset(options={"reset_mask": np.array([False, False, True])})
    assert (info["elapsed_steps"] == 0).all()
    venv.step(stay(venv, obs))
    venv.close()


def test_step_before_reset_is_refused():
    venv = make()
    with pytest.raises(RuntimeError, match="before reset"):
        venv.step(np.zeros((3, 28), np.float32))
    venv.close()


def test_reset_mask_and_seeds_touch_the_chosen_worlds_only():
    venv = make()
    obs, _ = venv.reset(seed=[3, 4, 5])
    moved, *_ = venv.step(np.clip(stay(venv, obs) + 0.05, -1, 1))
    again, info = venv.reset(seed=[30, 40, 5], options={"reset_mask": np.array([False, False, True])})
    assert_same(again, moved, rows=[0, 1])
    assert_same(again, obs, rows=[2])
    assert info["elapsed_steps"].tolist() == [1, 1, 0]
    other, _ = venv.reset(seed=3)
    assert_same(other, obs)
    venv.close()


def test_state_and_start_options(held_library):
    venv = make(PAIR, held_states=held_library("GraspBall"), start="held")
    obs, _ = venv.reset(seed=0, options={"held_index": np.array([6, 0, 6])})
    assert_same({"task_a": obs["task_a"][:1]}, {"task_a": obs["task_a"][2:]})
    assert (obs["task_a"][0] != obs["task_a"][1]).any()
    state = venv.unwrapped.get_state()
    venv.step(stay(venv, obs))
    again, info = venv.reset(options={"state": state})
    assert_same(again, obs)
    assert info["task_a_held"].all()
    obs, info = venv.reset(seed=0, options={"start": "scratch", "reset_mask": np.array([True, False, False])})
    assert info["task_a_held"].tolist() == [False, True, True]
    assert_same(obs, again, rows=[1, 2])
    venv.close()


def test_returned_arrays_are_fresh():
    venv = make()
    venv.reset(seed=0)
    action = np.zeros((3, 28), np.float32)
    results = [venv.step(action) for _ in range(2)]
    states = [venv.unwrapped.get_state(), venv.unwrapped.get_state()]
    copies = [{key: value.copy() for key, value in result[0].items()} for result in results]
    infos = [{key: value.copy() for key, value in result[4].items()} for result in results]
    flat = [[*obs.values(), *arrays, *info.values()] for obs, *arrays, info in results]
    for one, two in zip([*flat[0], states[0]], [*flat[1], states[1]], strict=True):
        assert not np.shares_memory(one, two)
    # What the caller writes into them doesn't reach the environment, and later steps don't reach them.
    state = venv.unwrapped.get_state()
    for _, *arrays, info in results:
        for array in [*arrays, *info.values()]:
            array[:] = 1
    action[:] = 0.5
    np.testing.assert_array_equal(venv.unwrapped.get_state(), state)
    venv.step(action)
    for (obs, *_), copy in zip(results, copies, strict=True):
        assert_same(obs, copy)
    assert infos[0]["elapsed_steps"].tolist() == [1, 1, 1]
    venv.close()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_gymnasiums_own_vectorisation_gives_the_same(mode):
    venv = make(num_envs=2)
    other = gym.make_vec(BUTTON, num_envs=2, vectorization_mode=mode)
    obs, _ = venv.reset(seed=11)
    obs_2, _ = other.reset(seed=11)
    for _ in range(3):
        assert_same(obs, obs_2)
        action = np.clip(stay(venv, obs) + 0.1, -1, 1)
        obs, reward, terminated, truncated, info = venv.step(action)
        obs_2, reward_2, terminated_2, truncated_2, info_2 = other.step(action)
        np.testing.assert_array_equal(reward, reward_2)
        np.testing.assert_array_equal(terminated | truncated, terminated_2 | truncated_2)
        for name, value in info.items():
            np.testing.assert_array_equal(value, info_2[name])
    venv.close()
    other.close()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_envs": 0}, "num_envs is 0; expected a whole number of at least 1"),
        ({"max_episode_steps": 0}, "max_episode_steps is 0; expected a whole number of at least 1"),
        ({"start": "air"}, "unknown start 'air'; expected one of held, scratch"),
        ({"num_threads": 0}, "num_threads is 0; expected a whole number of at least 1"),
        ({"render_mode": "human"}, "unknown render_mode 'human'"),
        ({"autoreset_mode": "sometimes"}, "autoreset_mode is 'sometimes'; expected one of"),
    ],
)
def test_wrong_arguments_are_refused(kwargs, message):
    from dexcompose_envs.vector_env import DexComposeVectorEnv

    with pytest.raises(ValueError, match=message):
        DexComposeVectorEnv(**{"num_envs": 2, "interactions": ["PushButton"], **kwargs})


def test_wrong_actions_seeds_and_options_are_refused(held_library):
    venv = make(PAIR, start="held", held_states=held_library("GraspBall"))
    venv.reset(seed=0)
    bad = np.zeros((3, 28))
    bad[2, 27] = -np.inf
    for actions, message in [
        (np.zeros((2, 28)), r"actions have shape \(2, 28\); expected \(3, 28\)"),
        (np.zeros(28), r"actions have shape \(28,\)"),
        (bad, "action THJ0 of world 2 is -inf; expected a finite number"),
    ]:
        with pytest.raises(ValueError, match=message):
            venv.step(actions)
    for arguments, message in [
        ({"seed": [1, 2]}, "seed has 2 entries; expected one per world, 3"),
        ({"options": {"reset_mask": np.zeros(3, bool)}}, "selects no world"),
        ({"options": {"reset_mask": np.ones(2, bool)}}, r"bool of shape \(2,\); expected bool of shape \(3,\)"),
        ({"options": {"reset_mask": np.ones(3)}}, "expected bool"),
        ({"options": {"hold": 1}}, "unknown reset option 'hold'"),
        ({"options": {"state": np.zeros((3, 5))}}, "state has shape"),
        ({"options": {"held_index": np.array([0, 1, 8])}}, "is outside"),
        ({"options": {"start": "floor"}}, "unknown start 'floor'"),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            venv.reset(**arguments)
        assert "\n" not in str(error.value)
    venv.close()


@pytest.mark.parametrize(
    "options",
    [{"held_index": np.array([0, 1])}, {"held_index": np.array([0.0, 1.0, 2.0])}, {"state": np.zeros((2, 9))}],
)
def test_options_of_a_wrong_length_or_type_are_refused(options, held_library):
    venv = make(PAIR, start="held", held_states=held_library("GraspBall"))
    try:
        with pytest.raises(ValueError, match="expected"):
            venv.reset(seed=0, options=options)
    finally:
        venv.close()


@pytest.mark.rendering
def test_one_picture_per_world():
    venv = make(num_envs=2, render_mode="rgb_array", width=64, height=48)
    venv.reset(seed=0)
    pictures = venv.render()
    assert [picture.shape for picture in pictures] == [(48, 64, 3)] * 2
    assert (pictures[0] != pictures[1]).any()
    venv.close()
