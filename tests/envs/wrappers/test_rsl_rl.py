import importlib.util
import sys
import types

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from dexcompose_envs.wrappers import ActionOwnershipVector, RslRlVecEnv, ToNumpy


class StandInTensorDict(dict):
    def __init__(self, source, batch_size, device):
        super().__init__(source)
        self.batch_size, self.device = batch_size, device


@pytest.fixture
def tensordict(monkeypatch):
    """The real package where it's installed, else the little of it that the adapter uses."""
    if importlib.util.find_spec("tensordict") is None:
        module = types.ModuleType("tensordict")
        module.TensorDict = StandInTensorDict
        monkeypatch.setitem(sys.modules, "tensordict", module)


@pytest.fixture(params=["numpy", "torch"])
def any_venv(request, fake_venv, fake_torch_venv):
    return fake_venv if request.param == "numpy" else fake_torch_venv


def test_it_speaks_the_interface_of_rsl_rl(tensordict, any_venv):
    env = RslRlVecEnv(any_venv(3, [2, 3, 2]), seed=5, max_episode_length=3, cfg={"name": "fake"})
    assert (env.num_envs, env.num_actions, env.max_episode_length) == (3, 28, 3)
    assert env.device == torch.device("cpu")
    assert env.cfg == {"name": "fake"}
    assert env.unwrapped.seen_seed == 5
    obs = env.get_observations()
    assert {key: (value.shape, value.dtype) for key, value in obs.items()} == {
        "task_b": ((3, 35), torch.float32),
        "context": ((3, 24), torch.float32),
    }
    assert list(obs.batch_size) == [3]
    obs, rewards, dones, extras = env.step(torch.zeros(3, 28))
    assert obs is env.get_observations()
    assert (rewards.dtype, rewards.tolist()) == (torch.float32, [1, 2, 3])
    assert (dones.dtype, dones.tolist()) == (torch.int64, [0, 0, 0])
    assert extras["time_outs"].tolist() == [False] * 3
    assert env.episode_length_buf.tolist() == [1, 1, 1]
    assert all(value.isnan() for value in extras["log"].values())  # no episode has ended
    obs, _, dones, extras = env.step(torch.zeros(3, 28))
    assert dones.tolist() == [1, 0, 1]
    assert extras["time_outs"].tolist() == [True, False, True]
    assert env.episode_length_buf.tolist() == [0, 2, 0]
    assert obs["context"][:, 0].tolist() == [0, 2, 0]  # the next episode's first observation
    # Worlds 0 and 2 succeed, with 1 and 3 a step.
    assert {key: value.item() for key, value in extras["log"].items()} == {
        "Episode/is_success": 1.0, "Episode/return": 4.0, "Episode/length": 2.0,
    }  # fmt: skip
    *_, extras = env.step(torch.zeros(3, 28))
    assert extras["log"]["Episode/is_success"].item() == pytest.approx(2 / 3)  # world 1 fails after 3 steps
    assert extras["log"]["Episode/return"].item() == pytest.approx((2 + 6 + 6) / 3)


def test_it_works_in_and_out_of_inference_mode(tensordict, any_venv):
    env = RslRlVecEnv(ActionOwnershipVector(any_venv(2, 2), "TH"), max_episode_length=2)
    for _ in range(3):
        with torch.inference_mode():
            env.step(torch.zeros(2, 23))
        env.step(torch.zeros(2, 23, requires_grad=True).detach())
    assert env.episode_length_buf.tolist() == [0, 0]


def test_nothing_is_read_back_from_the_device(tensordict, fake_torch_venv):
    env = RslRlVecEnv(fake_torch_venv(2, 1, device="meta"), max_episode_length=1)
    assert env.device.type == "meta"
    obs, rewards, dones, extras = env.step(torch.zeros(2, 28, device="meta"))
    tensors = [*obs.values(), rewards, dones, extras["time_outs"], *extras["log"].values()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


@pytest.mark.parametrize(("steps", "expected"), [(None, 150), (7, 7)])
def test_the_length_of_episodes_comes_from_the_spec(tensordict, fake_venv, steps, expected):
    venv = fake_venv(2)
    kwargs = {} if steps is None else {"max_episode_steps": steps}
    venv.spec = gym.envs.registration.EnvSpec("Fake-v0", max_episode_steps=150, kwargs=kwargs)
    assert RslRlVecEnv(venv).max_episode_length == expected
    with pytest.raises(ValueError, match="expected max_episode_steps in it"):
        RslRlVecEnv(fake_venv(2))


def test_setting_episode_lengths_warns(tensordict, fake_venv):
    env = RslRlVecEnv(fake_venv(2), max_episode_length=5)
    with pytest.warns(UserWarning, match="init_at_random_ep_len has no effect"):
        env.episode_length_buf = torch.tensor([3, 4])
    assert env.episode_length_buf.tolist() == [0, 0]


def test_an_observation_without_keys_is_the_group_policy(tensordict, fake_torch_venv):
    class Flat(gym.vector.VectorWrapper):
        def reset(self, *, seed=None, options=None):
            obs, info = self.env.reset(seed=seed, options=options)
            return obs["task_b"], info

    env = RslRlVecEnv(Flat(ToNumpy(fake_torch_venv(2))), max_episode_length=5)
    assert list(env.get_observations().keys()) == ["policy"]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_other_autoreset_modes_are_refused(tensordict, fake_venv, mode):
    with pytest.raises(ValueError, match=f"is {mode.name}; RslRlVecEnv expected SAME_STEP"):
        RslRlVecEnv(fake_venv(autoreset_mode=mode))


def test_a_missing_package_is_named(monkeypatch, fake_venv):
    monkeypatch.setitem(sys.modules, "tensordict", None)
    with pytest.raises(ImportError, match="needs the package tensordict: pip install"):
        RslRlVecEnv(fake_venv(2), max_episode_length=5)


@pytest.mark.filterwarnings("ignore")
def test_ppo_of_rsl_rl_trains(any_venv):
    pytest.importorskip("tensordict")
    runners = pytest.importorskip("rsl_rl.runners")
    groups = ["task_b", "context"]
    network = {"class_name": "MLPModel", "hidden_dims": [8], "activation": "elu"}
    distribution = {"class_name": "GaussianDistribution", "init_std": 0.5}
    config = {
        "num_steps_per_env": 8, "save_interval": 100, "obs_groups": {"actor": groups, "critic": groups},
        "actor": network | {"distribution_cfg": distribution}, "critic": network,
        "algorithm": {"class_name": "PPO", "num_learning_epochs": 1, "num_mini_batches": 1},
    }  # fmt: skip
    env = RslRlVecEnv(ActionOwnershipVector(any_venv(2), "TH+RF+LF"), max_episode_length=5)
    runners.OnPolicyRunner(env, config).learn(2)
    actions = np.stack(env.unwrapped.worlds.executed)
    assert actions.shape == (16, 2, 28)
    assert np.isfinite(actions).all()
