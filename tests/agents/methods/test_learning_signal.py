"""In every pair, doing both skills earns more than doing nothing and than flailing."""

import gymnasium as gym
import numpy as np
import pytest

from dexcompose_agents.methods import make_method
from dexcompose_envs import env_id

from ...pairs import covering_pairs

WORLDS = 6


class Idle:
    """Repeats the first command."""

    name = "idle"

    def __init__(self, columns):
        self._columns = columns

    def reset(self, obs, info, env_ids, seeds):
        self._command = obs["context"][:, self._columns]

    def act(self, obs):
        return self._command


class Wild(Idle):
    """Flails."""

    def act(self, obs):
        return np.random.default_rng(0).uniform(-1, 1, self._command.shape)


def mean_return(pair, make_agent):
    venv = gym.make_vec(env_id(pair), num_envs=WORLDS)
    obs, info = venv.reset(seed=6000)
    agent = make_agent(venv.unwrapped.layout["context"]["previous_action"])
    agent.reset(obs, info, np.arange(WORLDS), 6000 + np.arange(WORLDS))
    total, running = np.zeros(WORLDS), np.ones(WORLDS, bool)
    while running.any():
        obs, reward, terminated, truncated, _ = venv.step(agent.act(obs))
        total += reward * running
        running &= ~(terminated | truncated)
    venv.close()
    return total.mean()


@pytest.mark.parametrize("pair", covering_pairs())
def test_a_method_that_does_both_earns_most(pair):
    both = mean_return(pair, lambda _: make_method("zero-shot", pair))
    assert both > mean_return(pair, Idle) + 0.5
    assert both > mean_return(pair, Wild) + 0.5
