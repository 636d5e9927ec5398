"""Copies go on where the original stands, and a state goes only where it belongs."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest

from dexcompose_envs import env_id

PAIR = env_id("GraspBall-PushButton")


def same(a, b):
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_in_mid_episode_goes_on_bit_by_bit(duplicate):
    env = gym.make(PAIR).unwrapped
    env.reset(seed=3)
    rng = np.random.default_rng(0)
    for _ in range(5):
        env.step(rng.uniform(-1, 1, 28))
    twin = duplicate(env)
    for _ in range(5):
        action = rng.uniform(-1, 1, 28)
        one, two = env.step(action), twin.step(action)
        same(one[0], two[0])
        assert one[1:] == two[1:]
    same(env.reset()[0], twin.reset()[0])  # the generator is copied, too
    env.close()
    same(twin.reset(seed=1)[0], twin.reset(seed=1)[0])
    twin.close()


def test_a_copy_of_many_worlds_remembers_which_have_ended():
    venv = gym.make_vec(PAIR, num_envs=2, max_episode_steps=3, autoreset_mode="NextStep").unwrapped
    obs, _ = venv.reset(seed=0)
    stay = obs["context"][:, venv.layout["context"]["previous_action"]]
    for _ in range(3):
        venv.step(stay)
    twin = pickle.loads(pickle.dumps(venv))
    one, two = venv.step(stay), twin.step(stay)
    same(one[0], two[0])
    assert (two[4]["elapsed_steps"] == 0).all()
    venv.close()
    twin.close()


def test_a_restored_state_has_as_much_time_left_as_it_had():
    env = gym.make(env_id("PushButton"))
    obs, _ = env.reset(seed=0)
    stay = obs["context"][env.unwrapped.layout["context"]["previous_action"]]
    for _ in range(140):
        env.step(stay)
    state = env.unwrapped.get_state()
    env.reset(options={"state": state})
    for step in range(1, 11):
        *_, truncated, info = env.step(stay)
        assert truncated is (step == 10)
    assert info["elapsed_steps"] == 150
    env.close()


def test_set_state_forgets_that_a_world_had_ended():
    venv = gym.make_vec(env_id("PushButton"), num_envs=2, max_episode_steps=4, autoreset_mode="Disabled")
    obs, _ = venv.reset(seed=0)
    stay = obs["context"][:, venv.unwrapped.layout["context"]["previous_action"]]
    state = venv.unwrapped.get_state()
    for _ in range(4):
        venv.step(stay)
    with pytest.raises(RuntimeError, match="has ended"):
        venv.step(stay)
    venv.unwrapped.set_state(state)
    *_, info = venv.step(stay)
    assert (info["elapsed_steps"] == 1).all()
    venv.close()


def test_states_of_another_environment_and_garbage_are_refused_and_change_nothing():
    env, other = gym.make(PAIR).unwrapped, gym.make(env_id("PickStick-PushButton")).unwrapped
    env.reset(seed=0)
    other.reset(seed=0)
    state = env.get_state()
    assert state.shape == other.get_state().shape
    with pytest.raises(ValueError, match="belongs to another environment; expected GraspBall-PushButton"):
        env.set_state(other.get_state())
    rng = np.random.default_rng(0)
    for column in rng.choice(np.arange(3, len(state)), 60, replace=False):
        for value in (np.nan, np.inf, 1e300):
            garbage = state.copy()
            garbage[column] = value
            try:
                env.set_state(garbage)
            except ValueError:
                np.testing.assert_array_equal(env.get_state(), state)
                continue
            assert all(np.isfinite(seen).all() for seen in env._observe().values())
            env.set_state(state)
    env.close()
    other.close()


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        (PAIR, {"max_episode_steps": 2.5}, "max_episode_steps is 2.5; expected a whole number"),
        (PAIR, {"num_envs": 1.5}, "num_envs is 1.5; expected a whole number"),
        (PAIR, {"num_envs": True}, "num_envs is True; expected a whole number"),
        (PAIR, {"base_shake": "a"}, "base_shake is 'a'; expected a number from 0 to 5"),
        (PAIR, {"num_threads": 1.0}, "num_threads is 1.0; expected a whole number"),
        (PAIR, {"terminate_on_success": "no"}, "terminate_on_success is 'no'; expected True or False"),
        (PAIR, {"shake": 1}, "unknown environment option 'shake'; expected one of"),
        (PAIR, {"held_split": None}, "unknown held_split None; expected one of"),
    ],
)
def test_options_that_are_none_are_refused_at_the_door(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        gym.make_vec(name, **{"num_envs": 2, **kwargs})


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (env_id("PushButton"), {"options": {"held_index": 3}}, "held_index is given, but these episodes start with"),
        (PAIR, {"options": {"reset_mask": np.array([True])}}, "a single environment has one"),
        (PAIR, {"options": {"state": np.zeros(3), "start": "held"}}, "'state' and 'start'; expected one of them"),
        (PAIR, {"seed": -1}, "seed is -1; expected a whole number from 0"),
        (PAIR, {"seed": 1.0}, "seed is 1.0; expected a whole number"),
        (PAIR, {"seed": 2**64}, "seed is 18446744073709551616; expected a whole number"),
    ],
)
def test_reset_arguments_that_would_not_be_heeded_are_refused(name, arguments, message):
    env = gym.make(name).unwrapped
    with pytest.raises(ValueError, match=message):
        env.reset(**arguments)
    env.close()


def test_numpy_seeds_and_first_resets_of_all_worlds():
    venv = gym.make_vec(PAIR, num_envs=2)
    with pytest.raises(ValueError, match="first reset leaves worlds out"):
        venv.reset(options={"reset_mask": np.array([True, False])})
    first, _ = venv.reset(seed=3)
    again, _ = venv.reset(seed=np.int64(3))
    same(first, again)
    venv.close()
