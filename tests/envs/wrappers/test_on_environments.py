"""The wrappers around the real environments, where the other tests use a stand-in."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from dexcompose_envs import OUTCOMES, FingerMask, env_id
from dexcompose_envs.episodes.phases import INTERACT_FROM
from dexcompose_envs.hand import OPEN_FINGERS, normalize
from dexcompose_envs.wrappers import ActionOwnership, ActionOwnershipVector, BoundedResidual, BoundedResidualVector

from ...pairs import covering_pairs

MASK = FingerMask.parse("TH+RF+LF")
IDS = [env_id(pair) for pair in covering_pairs()]


def base_policy(obs):
    """Stays where the last action was, so that only the residual moves the hand."""
    layout = base_policy.layout["context"]["previous_action"]
    return obs["context"][..., layout]


def previous_action(env, obs):
    return obs["context"][..., env.unwrapped.layout["context"]["previous_action"]]


@pytest.mark.parametrize("name", IDS)
def test_hold_transition_and_then_hold_reference_with_bounded_residual(name):
    env = gym.make(name)
    base_policy.layout = env.unwrapped.layout
    wrapped = BoundedResidual(ActionOwnership(env, MASK), base_policy, 0.01)
    obs, info = wrapped.reset(seed=3)
    assert info["residual_active"] is False
    first = previous_action(env, obs)
    hold = obs["context"][env.unwrapped.layout["context"]["reference"]]
    owned, joints = MASK.action_mask_b(), MASK.joint_mask()
    full = np.ones(wrapped.action_space.shape, np.float32)
    for step in range(INTERACT_FROM + 1):
        nominal = np.clip(previous_action(env, obs), -1, 1)
        obs, *_, info = wrapped.step(full)
        executed = previous_action(env, obs)
        np.testing.assert_allclose(executed[6:][joints], hold[joints], atol=1e-6)
        assert info["residual_active"] is (step == INTERACT_FROM)
        if step == 9:
            np.testing.assert_allclose(executed, first, atol=1e-6)
        if step == INTERACT_FROM - 1:
            start = env.unwrapped.interaction_starts[0]
            np.testing.assert_allclose(executed[owned], start[owned], atol=1e-6)
    np.testing.assert_allclose(executed[owned], np.clip(nominal + np.float32(0.01), -1, 1)[owned], atol=1e-6)
    wrapped.close()


def test_around_a_single_skill_the_base_policy_acts_at_once():
    venv = gym.make_vec("DexCompose/PushButton-v0", num_envs=2)
    base_policy.layout = venv.unwrapped.layout
    wrapped = BoundedResidualVector(venv, base_policy, 0.01)
    obs, info = wrapped.reset(seed=3)
    nominal = np.clip(previous_action(venv, obs), -1, 1)
    assert info["residual_active"].tolist() == [False, False]
    obs, *_, info = wrapped.step(np.ones((2, 28)))
    assert info["residual_active"].tolist() == [True, True]
    np.testing.assert_allclose(previous_action(venv, obs), np.clip(nominal + 0.01, -1, 1), atol=1e-6)
    wrapped.close()
    env = gym.make("DexCompose/GraspBall-v0", start="held")
    wrapped = BoundedResidual(ActionOwnership(env, "TH+FF+MF+RF+LF"), lambda obs: np.full(28, 0.5), 0.0)
    obs, _ = wrapped.reset(seed=0)
    hold = obs["context"][env.unwrapped.layout["context"]["reference"]]
    obs, *_ = wrapped.step(np.zeros(6))
    np.testing.assert_array_equal(previous_action(env, obs), np.concatenate([np.full(6, np.float32(0.5)), hold]))
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


class Noisy:
    """A base policy that is nothing but noise, drawn from the world's seed and its step."""

    def reset(self, num_envs):
        self.seeds, self.age = np.zeros((2, num_envs), np.int64)

    def seed_envs(self, seeds, env_ids):
        self.seeds = np.where(env_ids, seeds, self.seeds)
        self.age = np.where(env_ids, 0, self.age)

    def act(self, task_obs):
        self.age += 1
        drawn = [np.random.default_rng(row).uniform(-1, 1, 28) for row in zip(self.seeds, self.age, strict=True)]
        return np.array(drawn, np.float32)


def test_seeds_reach_the_base_policy_in_masked_resets_too():
    venv = gym.make_vec("DexCompose/PushButton-v0", num_envs=3)
    wrapped = BoundedResidualVector(venv, Noisy(), 0.1)
    wrapped.reset(seed=np.int64(3))
    seen = []
    for _ in range(2):
        wrapped.reset(seed=[None, 8, None], options={"reset_mask": np.array([False, True, False])})
        seen.append([previous_action(venv, wrapped.step(np.zeros((3, 28)))[0]) for _ in range(2)])
    np.testing.assert_array_equal(*(np.array(each)[:, 1] for each in seen))
    assert not np.array_equal(*(np.array(each)[:, 0] for each in seen))
    single = BoundedResidual(gym.make("DexCompose/PushButton-v0"), Noisy(), 0.1)
    single.reset(seed=8)
    for step in range(2):
        np.testing.assert_array_equal(previous_action(venv, single.step(np.zeros(28))[0]), seen[0][step][1])
    wrapped.close()


def test_episodes_that_follow_have_other_noise_than_the_first():
    wrapped = BoundedResidual(gym.make("DexCompose/PushButton-v0"), Noisy(), 0.1)
    wrapped.reset(seed=8)
    first, _, _, _, _ = wrapped.step(np.zeros(28))
    wrapped.reset()
    second, _, _, _, _ = wrapped.step(np.zeros(28))
    assert not np.array_equal(previous_action(wrapped, first), previous_action(wrapped, second))
    wrapped.reset(seed=8)
    wrapped.reset()
    again, _, _, _, _ = wrapped.step(np.zeros(28))
    np.testing.assert_array_equal(previous_action(wrapped, second), previous_action(wrapped, again))


@pytest.mark.parametrize("way", ["set_state", "reset"])
@pytest.mark.parametrize("past", [0, 4, 30, 49, 50, 55])
def test_a_restored_state_is_looked_at_and_goes_on_at_its_place(way, past):
    venv = gym.make_vec(IDS[0], num_envs=2)
    base_policy.layout = venv.unwrapped.layout
    wrapped = BoundedResidualVector(ActionOwnershipVector(venv, MASK), base_policy, 0.05)
    zeros = np.zeros(wrapped.action_space.shape)
    wrapped.reset(seed=5)
    for _ in range(past):
        wrapped.step(zeros)
    state = wrapped.get_state()
    expected = [previous_action(venv, wrapped.step(zeros)[0]) for _ in range(3)]
    wrapped.reset(seed=7)
    wrapped.step(zeros)
    if way == "set_state":
        wrapped.set_state(state)
    else:
        wrapped.reset(options={"state": state})
    got = [previous_action(venv, wrapped.step(zeros)[0]) for _ in range(3)]
    np.testing.assert_allclose(got, expected, atol=2e-6)
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
    first, _ = wrapped.reset(seed=5)
    obs, reward, *_, info = wrapped.step(torch.ones(2, 14))
    executed = previous_action(venv, obs)
    assert isinstance(executed, torch.Tensor)
    assert isinstance(reward, torch.Tensor)
    assert info["residual_active"].tolist() == info["final_info"]["residual_active"].tolist() == [False, False]
    held = np.where(MASK.action_mask_b(), previous_action(venv, first).numpy(), open_hand())
    np.testing.assert_allclose(executed.numpy(), held, atol=1e-6)

    env = SB3VecEnv(owned)
    env.reset()
    for step in range(2):
        obs, _, dones, infos = env.step(np.full((2, 14), 0.75, np.float32))
        assert [bool(info) for info in infos] == dones.tolist() == [step == 1] * 2
    final = previous_action(venv, infos[0]["terminal_observation"])
    np.testing.assert_allclose(final, np.where(MASK.action_mask_b(), 0.75, open_hand()), atol=1e-6)
    assert isinstance(obs["context"], np.ndarray)

    state = env.venv.get_state()
    assert isinstance(state, np.ndarray)
    env.venv.reset(options={"state": state, "reset_mask": np.array([True, False])})
    np.testing.assert_array_equal(env.venv.get_state(), state)
    env.close()


def open_hand():
    return normalize(np.concatenate([np.zeros(6), OPEN_FINGERS]))
