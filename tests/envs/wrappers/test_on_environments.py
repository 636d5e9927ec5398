"""The wrappers around the real environments, where the other tests use a stand-in."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from dexcompose_envs import OUTCOMES, PAIRS, FingerMask, env_id
from dexcompose_envs.hand import OPEN_FINGERS, normalize
from dexcompose_envs.wrappers import ActionOwnership, ActionOwnershipVector, BoundedResidual, BoundedResidualVector

MASK = FingerMask.parse("TH+RF+LF")
IDS = [env_id("-".join(pair)) for pair in PAIRS]


def base_policy(obs):
    """Stays where the last action was, so that only the residual moves the hand."""
    layout = base_policy.layout["context"]["previous_action"]
    return obs["context"][..., layout]


def previous_action(env, obs):
    return obs["context"][..., env.unwrapped.layout["context"]["previous_action"]]


@pytest.mark.parametrize("name", IDS)
def test_the_executed_action_is_hold_reference_and_bounded_residual(name):
    env = gym.make(name)
    base_policy.layout = env.unwrapped.layout
    wrapped = BoundedResidual(ActionOwnership(env, MASK), base_policy, 0.01)
    obs, _ = wrapped.reset(seed=3)
    nominal = np.clip(previous_action(env, obs), -1, 1)
    hold = obs["context"][env.unwrapped.layout["context"]["reference"]]
    obs, *_ = wrapped.step(np.ones(wrapped.action_space.shape, np.float32))
    executed = previous_action(env, obs)
    owned = MASK.action_mask_b()
    np.testing.assert_allclose(executed[owned], np.clip(nominal + np.float32(0.01), -1, 1)[owned], atol=1e-6)
    np.testing.assert_allclose(executed[6:][MASK.joint_mask()], hold[MASK.joint_mask()], atol=1e-6)
    wrapped.close()


@pytest.mark.parametrize("name", IDS[:1])
def test_worlds_of_the_vector_twins_equal_single_environments(name):
    venv = gym.make_vec(name, num_envs=2, max_episode_steps=4)
    base_policy.layout = venv.unwrapped.layout
    wrapped = BoundedResidualVector(ActionOwnershipVector(venv, MASK), base_policy, 0.05)
    wrapped.reset(seed=5)
    wrapped.action_space.seed(0)
    actions = [wrapped.action_space.sample() for _ in range(3)]
    batched = [wrapped.step(action)[0] for action in actions]
    for i in range(2):
        env = BoundedResidual(ActionOwnership(gym.make(name), MASK), base_policy, 0.05)
        env.reset(seed=5 + i)
        for action, expected in zip(actions, batched, strict=True):
            obs, *_ = env.step(action[i])
            for key, value in obs.items():
                np.testing.assert_array_equal(value, expected[key][i])
        env.close()
    wrapped.close()


@pytest.mark.parametrize("reference", ["hold", OPEN_FINGERS])
def test_a_wrapped_environment_rebuilds_from_its_spec_as_json(reference):
    env = ActionOwnership(gym.make(IDS[0]), MASK, reference)
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.action_space == env.action_space
    assert again.get_wrapper_attr("mask") == MASK
    env.close()
    again.close()


def test_sb3_gets_outcome_and_terminal_observation():
    pytest.importorskip("stable_baselines3")
    from dexcompose_envs.wrappers import SB3VecEnv

    venv = gym.make_vec(IDS[0], num_envs=2, max_episode_steps=3)
    env = SB3VecEnv(ActionOwnershipVector(venv, MASK))
    env.seed(0)
    obs = env.reset()
    owned = ActionOwnershipVector(venv, MASK).action_indices
    for step in range(3):
        obs, _, dones, infos = env.step(previous_action(venv, obs)[:, owned])
        assert dones.tolist() == [step == 2] * 2
    for info in infos:
        assert OUTCOMES[info["outcome"]] == "ongoing"
        assert info["is_success"] is False
        assert info["TimeLimit.truncated"] is True
        assert info["episode"]["l"] == 3
        assert env.observation_space.contains(info["terminal_observation"])
    env.close()


def test_wrappers_stand_around_the_warp_backend():
    pytest.importorskip("mujoco_warp")
    pytest.importorskip("stable_baselines3")
    import torch

    from dexcompose_envs.wrappers import SB3VecEnv

    venv = gym.make_vec(
        IDS[0], num_envs=2, backend="warp", device="cpu", max_episode_steps=2, start="scratch", base_shake=0.0
    )
    owned = ActionOwnershipVector(venv, MASK, reference=OPEN_FINGERS)
    wrapped = BoundedResidualVector(owned, lambda obs: torch.full((2, 28), 0.5), 0.25)
    wrapped.reset(seed=5)
    obs, reward, *_ = wrapped.step(torch.ones(2, 14))
    executed = previous_action(venv, obs)
    assert isinstance(executed, torch.Tensor)
    assert isinstance(reward, torch.Tensor)
    expected = np.where(MASK.action_mask_b(), 0.75, normalize(np.concatenate([np.zeros(6), OPEN_FINGERS])))
    np.testing.assert_allclose(executed.numpy(), [expected] * 2, atol=1e-6)

    env = SB3VecEnv(wrapped)
    env.reset()
    for step in range(2):
        obs, _, dones, infos = env.step(np.ones((2, 14), np.float32))
        assert [bool(info) for info in infos] == dones.tolist() == [step == 1] * 2
    final = previous_action(venv, infos[0]["terminal_observation"])
    np.testing.assert_allclose(final, expected, atol=1e-6)
    assert isinstance(obs["context"], np.ndarray)

    state = env.venv.get_state()
    assert isinstance(state, np.ndarray)
    env.venv.reset(options={"state": state, "reset_mask": np.array([True, False])})
    np.testing.assert_array_equal(env.venv.get_state(), state)
    env.close()
