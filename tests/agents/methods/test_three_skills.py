"""Three skills in a row with what ships for two: a ball is kept while two buttons are pressed, one after the other."""

import gymnasium as gym
import pytest

from dexcompose_agents.methods import make_method
from dexcompose_envs import OUTCOMES, register_chain
from dexcompose_envs.rollouts import Episode, run_episodes

NAME = "GraspBall-PushButton-PushButton"


@pytest.fixture
def chain():
    known = set(gym.registry)
    yield register_chain(NAME)
    for id in set(gym.registry) - known:
        del gym.registry[id]


def test_two_buttons_are_pressed_with_the_ball_in_the_hand(chain):
    venv = gym.make_vec(chain, num_envs=6, autoreset_mode="Disabled", held_split="test")
    method = make_method("zero-shot", NAME, mask="TH+RF+LF")
    rollouts = list(run_episodes(venv, method, [Episode(5000 + i) for i in range(6)]))
    venv.close()
    outcomes = [OUTCOMES[rollout.info["outcome"]] for rollout in rollouts]
    assert outcomes.count("success") >= 4, outcomes
    for rollout in rollouts:
        assert rollout.info["task_b_done"] or not rollout.info["task_c_done"]
        if rollout.info["success"]:
            assert rollout.info["task_c_done"] and rollout.steps > 100  # two transitions


def test_a_single_skill_is_no_composite():
    with pytest.raises(ValueError, match="unknown pair 'PushButton'; expected one of GraspBall-OpenDoor"):
        make_method("zero-shot", "PushButton")
