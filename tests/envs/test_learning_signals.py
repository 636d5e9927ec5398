"""Rewards lead the right way, and worlds that break down teach nothing."""

import gymnasium as gym
import numpy as np
import pytest

from dexcompose_envs import env_id, hand, skill_names
from dexcompose_envs.skills import make_expert, make_skill

from ..pairs import covering_pairs

EPISODES = 4


def returns(name, act, **options):
    """Mean return of each world's first episode, of an agent or a function `act(obs, venv)`."""
    venv = gym.make_vec(env_id(name), num_envs=EPISODES, **options)
    obs, _ = venv.reset(seed=4000)
    total, running = np.zeros(EPISODES), np.ones(EPISODES, bool)
    begin = getattr(act, "reset", None)
    if begin is not None:
        begin(obs, {}, range(EPISODES), range(EPISODES))
    while running.any():
        obs, reward, terminated, truncated, _ = venv.step(act.act(obs) if begin else act(obs, venv))
        total += reward * running
        running &= ~(terminated | truncated)
    venv.close()
    return total.mean()


def idle(obs, venv):
    return obs["context"][:, venv.unwrapped.layout["context"]["previous_action"]]


def wild(obs, venv):
    return np.random.default_rng(0).uniform(-1, 1, (EPISODES, 28))


@pytest.mark.parametrize("name", skill_names())
def test_the_expert_earns_more_than_doing_nothing_and_than_flailing(name):
    expert = returns(name, make_expert(name))
    assert expert > returns(name, idle) + 0.5
    assert expert > returns(name, wild) + 0.5


@pytest.mark.parametrize("pair", covering_pairs())
def test_in_a_composite_keeping_the_object_earns_more_than_dropping_it(pair):
    def open_hand(obs, venv):
        action = idle(obs, venv).copy()
        action[:, hand.NUM_WRIST :] = hand.normalize(np.r_[np.zeros(6), hand.OPEN_FINGERS])[hand.NUM_WRIST :]
        return action

    assert returns(pair, idle) > returns(pair, open_hand) + 1  # to the end of the episode, the wrist trembling


def test_from_the_table_the_reward_says_where_the_object_is_to_be_held():
    env = gym.make(env_id("GraspBall"))
    obs, _ = env.reset(seed=0)
    *_, info = env.step(idle({"context": obs["context"][None]}, env)[0])
    seen = 0.1 * obs["context"][env.unwrapped.layout["context"]["object_position"]]
    away = np.linalg.norm(seen - make_skill("GraspBall").hold_point)
    assert info["reward_terms/retention"] == pytest.approx(-away, abs=2e-3)
    env.close()


def test_episodes_start_from_the_train_split_unless_told_otherwise():
    env = gym.make(env_id("GraspBall-PushButton"))
    assert env.unwrapped.core.config.held_split == "train"
    env.close()
