"""Zero residual through the wrappers is exactly the method `zero-shot`: same actions, same outcomes."""

import os

import gymnasium as gym
import numpy as np
import pytest
import torch

from dexcompose_agents import load_mask, load_policy, load_stabiliser, make_method
from dexcompose_envs import env_id
from dexcompose_envs.rollouts import Episode, Watcher, run_episodes
from dexcompose_envs.wrappers import ActionOwnership, ActionOwnershipVector, BoundedResidual, BoundedResidualVector

PAIR = "GraspBall-PushButton"
EPISODES = int(os.environ.get("DEXCOMPOSE_TEST_EPISODES", "6"))
SEEDS = np.arange(EPISODES) + 2**30


class Actions(Watcher):
    """Keeps what was executed in each world's episode."""

    def __init__(self):
        self.kept = {}

    def step(self, moment):
        for episode, action in zip(moment.episodes, moment.actions, strict=True):
            if episode is not None:
                self.kept.setdefault(episode.seed, []).append(np.array(action))
        return moment.ended

    def result(self, world, moment):
        return moment.info["outcome"][world].item()


def wrapped(venv, pair=PAIR, policy=None):
    owned = ActionOwnershipVector(venv, load_mask(pair), reference=load_stabiliser(pair))
    return BoundedResidualVector(owned, policy or load_policy("PushButton"), bound=0.1)


@pytest.mark.parametrize("pair", [PAIR, "PickStick-PushButton"])
def test_zero_residual_is_zero_shot(pair):
    count = EPISODES if pair == PAIR else 2
    options = {"num_envs": count, "autoreset_mode": "Disabled", "held_split": "test"}
    venv = gym.make_vec(env_id(pair), **options)
    watcher = Actions()
    plan = [Episode(int(seed)) for seed in SEEDS[:count]]
    rollouts = list(run_episodes(venv, make_method("zero-shot", pair), plan, watcher))
    venv.close()

    env = wrapped(gym.make_vec(env_id(pair), **options), pair)
    command = env.unwrapped.layout["context"]["previous_action"]
    env.reset(seed=SEEDS[:count].tolist())
    outcomes, ended = np.zeros(count, int), np.zeros(count, bool)
    for step in range(max(rollout.steps for rollout in rollouts)):
        obs, _, terminated, truncated, info = env.step(np.zeros(env.action_space.shape))
        for world in np.flatnonzero(~ended):
            expected = watcher.kept[int(SEEDS[world])]
            np.testing.assert_array_equal(obs["context"][world, command], expected[step], strict=True)
        now = (terminated | truncated) & ~ended
        outcomes[now], ended = info["outcome"][now], ended | now
        if ended.all():
            break
        if (terminated | truncated).any():  # worlds that are through start something else, which nobody looks at
            env.reset(options={"reset_mask": terminated | truncated})
    assert outcomes.tolist() == [rollout.result for rollout in rollouts]
    assert (outcomes == 1).any()
    env.close()


def test_a_single_environment_is_a_world_of_it():
    single = BoundedResidual(
        ActionOwnership(gym.make(env_id(PAIR)), load_mask(PAIR), reference=load_stabiliser(PAIR)),
        load_policy("PushButton"), bound=0.1,
    )  # fmt: skip
    venv = wrapped(gym.make_vec(env_id(PAIR), num_envs=2))
    venv.reset(seed=6)
    single.reset(seed=7)
    rng = np.random.default_rng(0)
    for _ in range(55):
        action = rng.uniform(-0.1, 0.1, venv.action_space.shape).astype(np.float32)
        seen, alone = venv.step(action)[0], single.step(action[1])[0]
        for key, value in alone.items():
            np.testing.assert_array_equal(value, seen[key][1])
    single.close()
    venv.close()


class TorchEnv(gym.vector.VectorWrapper):
    """A NumPy environment in the manner of one on a device."""

    device = torch.device("cpu")

    def reset(self, *, seed=None, options=None):
        return self._tensors(self.env.reset(seed=seed, options=options))

    def step(self, actions):
        assert isinstance(actions, torch.Tensor) and not actions.requires_grad
        return self._tensors(self.env.step(actions.numpy()))

    def _tensors(self, value):
        if isinstance(value, dict):
            return {key: self._tensors(item) for key, item in value.items()}
        return tuple(map(self._tensors, value)) if isinstance(value, tuple) else torch.from_numpy(value.copy())


@pytest.mark.parametrize("settings", ["plain", "others"])
def test_tensors_give_the_same_numbers_under_other_peoples_settings(settings):
    venvs = [gym.make_vec(env_id(PAIR), num_envs=2) for _ in range(2)]
    policy = (
        None
        if settings == "plain"
        else lambda obs: obs["context"][:, venvs[0].unwrapped.layout["context"]["previous_action"]]
    )
    envs = [wrapped(venvs[0], policy=policy), wrapped(TorchEnv(venvs[1]), policy=policy)]
    # Nothing is executed in hold and transition; then numbers that half precision holds exactly.
    residuals = np.random.default_rng(0).choice([-0.5, 0.0, 0.25], (53, 2, len(envs[0].action_indices)))
    others = settings == "others"
    if others:
        torch.set_default_dtype(torch.float64)
    try:
        with np.errstate(all="raise" if others else "warn"):
            for env in envs:
                env.reset(seed=3)
            for residual in residuals:
                given = torch.tensor(residual, dtype=torch.bfloat16, requires_grad=True) if others else residual
                half = residual.astype(np.float16) if others else residual
                seen = [envs[0].step(half)[0], envs[1].step(given)[0]]
                for key, value in seen[0].items():
                    np.testing.assert_array_equal(value, seen[1][key].numpy(), strict=True)
    finally:
        torch.set_default_dtype(torch.float32)
    for env in envs:
        env.close()
