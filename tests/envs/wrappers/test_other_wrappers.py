"""Other people's wrappers: outside of ours they are welcome, inside they are refused in one line."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import vector as vector_wrappers

from dexcompose_envs.errors import DexComposeError
from dexcompose_envs.wrappers import ActionOwnership, ActionOwnershipVector, BoundedResidual, BoundedResidualVector

INNER = {
    "FlattenObservation": wrappers.FlattenObservation,
    "RescaleAction": lambda env: wrappers.RescaleAction(env, 0.0, 1.0),
    "ClipAction": wrappers.ClipAction,
    "FilterObservation": lambda env: wrappers.FilterObservation(env, ["task_b"]),
    "TimeAwareObservation": wrappers.TimeAwareObservation,
}


@pytest.mark.parametrize("name", INNER)
def test_what_changes_spaces_inside_is_refused(fake_env, name):
    if name == "TimeAwareObservation":
        fake_env = lambda make=fake_env: wrappers.TimeLimit(make(), 10)  # noqa: E731
        inner = wrappers.TimeAwareObservation(with_spec(fake_env()), flatten=False)
    else:
        inner = INNER[name](fake_env())
    what = "action" if name in ("RescaleAction", "ClipAction") else "observation"
    for make in (lambda: ActionOwnership(inner, "TH"), lambda: BoundedResidual(inner, lambda obs: np.zeros(28), 0.1)):
        with pytest.raises(
            DexComposeError, match=rf"^{name} changes the {what} space inside .*; put it outside of our"
        ):
            make()


def with_spec(env):
    env.unwrapped.spec = gym.envs.registration.EnvSpec("Fake-v0", max_episode_steps=10)
    return env


def test_what_changes_spaces_between_our_two_is_refused(fake_env):
    inner = wrappers.RescaleAction(ActionOwnership(fake_env(), "TH"), -2.0, 2.0)
    with pytest.raises(DexComposeError, match=r"^RescaleAction changes the action space inside BoundedResidual"):
        BoundedResidual(inner, lambda obs: np.zeros(28), 0.1)


def test_the_same_holds_around_vector_environments(fake_venv, fake_env):
    inner = vector_wrappers.FlattenObservation(fake_venv(2, autoreset_mode=AutoresetMode.NEXT_STEP))
    with pytest.raises(DexComposeError, match=r"^FlattenObservation changes the observation space inside"):
        ActionOwnershipVector(inner, "TH")
    with pytest.raises(DexComposeError, match=r"^RescaleAction changes the action space inside"):
        BoundedResidualVector(vector_wrappers.RescaleAction(fake_venv(2), 0.0, 1.0), lambda obs: np.zeros(28), 0.1)
    sync = gym.vector.SyncVectorEnv([lambda: wrappers.FlattenObservation(fake_env())] * 2)
    sync.metadata = fake_venv(2).metadata
    with pytest.raises(DexComposeError, match=r"^SyncVectorEnv changes the observation space inside"):
        ActionOwnershipVector(sync, "TH")


def test_outside_they_work(fake_env):
    env = BoundedResidual(ActionOwnership(fake_env(), "TH"), lambda obs: np.zeros(28), 0.5)
    env = wrappers.RescaleAction(wrappers.FlattenObservation(env), -2.0, 2.0)
    obs, _ = env.reset(seed=0)
    assert obs.shape == (59,)
    env.step(np.full(23, 2.0, np.float32))
    np.testing.assert_allclose(env.unwrapped.worlds.executed[0][0, :23], 0.5)


def test_inside_what_keeps_spaces_works(fake_env):
    env = wrappers.RecordEpisodeStatistics(wrappers.TimeLimit(fake_env(), 3))
    env = ActionOwnership(env, "TH")
    env.reset(seed=0)
    env.step(np.zeros(23))


@pytest.mark.parametrize("kind", [np.float16, np.float64, list])
def test_numbers_of_other_kinds_and_tiny_ones(fake_env, kind):
    env = BoundedResidual(ActionOwnership(fake_env(), "TH"), lambda obs: np.full(28, 1e-30), 1e-20)
    env.reset(seed=0)
    with np.errstate(all="raise"):
        env.step([1e-7] * 23 if kind is list else np.full(23, 1e-7, kind))
    assert env.unwrapped.worlds.executed[0].dtype == np.float32
