import subprocess
import sys

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

pytest.importorskip("stable_baselines3")

from dexcompose_envs.wrappers import ActionOwnershipVector, BoundedResidualVector, SB3VecEnv, ToNumpy


@pytest.mark.parametrize("final_obs", ["dict", "objects"])
@pytest.mark.parametrize("flatten", [False, True])
def test_infos_are_filled_only_where_an_episode_ended(fake_venv, final_obs, flatten):
    env = SB3VecEnv(fake_venv(3, [2, 3, 2], final_obs=final_obs), flatten=flatten)
    env.reset()
    actions = np.zeros((3, 28), np.float32)
    _, _, dones, infos = env.step(actions)
    assert not dones.any()
    assert infos == [{}, {}, {}]
    obs, rewards, dones, infos = env.step(actions)
    assert dones.tolist() == [True, False, True]
    assert rewards.dtype == np.float32
    assert infos[1] == {}
    for i, length, total, success in [(0, 2, 2.0, True), (2, 2, 6.0, True)]:  # the fake's reward is i + 1 per step
        assert infos[i]["TimeLimit.truncated"] is True
        assert infos[i]["is_success"] is success
        assert infos[i]["episode"]["r"] == total
        assert infos[i]["episode"]["l"] == length
    context = infos[0]["terminal_observation"]
    clock = context[:2] if flatten else context["context"][:2]  # "context" comes first in Gymnasium's sorted Dict
    assert clock.tolist() == [2, 1]  # second step of the first episode
    next_clock = obs[0, :2] if flatten else obs["context"][0, :2]
    assert next_clock.tolist() == [0, 2]  # start of the second episode


@pytest.mark.parametrize("wrapped", [False, True])
def test_torch_environments_look_like_numpy_ones(fake_venv, fake_torch_venv, wrapped):
    venv = ToNumpy(fake_torch_venv(3, [2, 3, 4])) if wrapped else fake_torch_venv(3, [2, 3, 4])
    envs = [SB3VecEnv(fake_venv(3, [2, 3, 4])), SB3VecEnv(venv)]
    for env in envs:
        env.seed(1)
    np.testing.assert_equal(*[env.reset() for env in envs])
    for _ in range(5):
        results = [env.step(np.zeros((3, 28), np.float32)) for env in envs]
        assert [bool(info) for info in results[1][3]] == results[1][2].tolist()  # though final_obs is always there
        for *_, infos in results:
            for info in infos:
                info.get("episode", {}).pop("t", None)
        np.testing.assert_equal(*results)


def test_flat_observations_are_those_of_gymnasium(fake_venv):
    from gymnasium.spaces import flatten

    venv = fake_venv(2)
    env = SB3VecEnv(venv, flatten=True)
    obs = env.reset()
    assert env.observation_space.contains(obs[0])
    world = {key: value[1] for key, value in venv.worlds.observation().items()}
    np.testing.assert_array_equal(obs[1], flatten(venv.single_observation_space, world))


def test_seeds_and_options_reach_the_worlds_once(fake_venv):
    env = SB3VecEnv(fake_venv(3))
    env.seed(5)
    env.set_options({"start": "held"})
    env.reset()
    assert env.venv.seen_seed == [5, 6, 7]
    assert env.venv.seen_options == {"start": "held"}
    env.reset()
    assert env.venv.seen_seed is None
    assert env.venv.seen_options == {}
    env.set_options([{"start": "held"}, {}, {}])
    with pytest.raises(ValueError, match="options differ between worlds"):
        env.reset()


def test_attributes_and_methods_are_found_under_the_wrappers(fake_venv):
    env = SB3VecEnv(ActionOwnershipVector(fake_venv(3), "TH"))
    assert [str(mask) for mask in env.get_attr("mask", indices=[0, 2])] == ["TH", "TH"]
    assert env.get_attr("worlds")[0] is env.venv.unwrapped.worlds
    assert env.env_is_wrapped(ActionOwnershipVector) == [True] * 3
    assert env.env_is_wrapped(BoundedResidualVector) == [False] * 3
    env.set_attr("tag", 1)
    assert env.venv.tag == 1
    with pytest.raises(ValueError, match="expected all 3 worlds"):
        env.set_attr("tag", 2, indices=[0])
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        env.get_attr("nothing")


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_other_autoreset_modes_are_refused(fake_venv, mode):
    with pytest.raises(ValueError, match=f"is {mode.name}; SB3VecEnv expected SAME_STEP"):
        SB3VecEnv(fake_venv(autoreset_mode=mode))


def test_ppo_trains_a_residual(fake_venv, counting_policy):
    import torch
    from stable_baselines3 import PPO

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        venv = BoundedResidualVector(ActionOwnershipVector(fake_venv(4), "TH+RF+LF"), counting_policy(), 0.1)
        model = PPO("MultiInputPolicy", SB3VecEnv(venv), n_steps=16, batch_size=32, n_epochs=1, device="cpu")
        model.learn(64)
    finally:
        torch.set_num_threads(threads)
    assert len(model.ep_info_buffer) == 12  # 16 steps are three episodes of 5 steps in each of 4 worlds
    assert np.mean(model.ep_success_buffer) == 0.5  # worlds 0 and 2


def test_the_wrappers_do_not_import_torch():
    code = (
        "import sys, dexcompose_envs.wrappers; sys.exit('torch' in sys.modules or 'stable_baselines3' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "stable_baselines3.common.vec_env", None)
    monkeypatch.delitem(sys.modules, "dexcompose_envs.wrappers.sb3", raising=False)
    import dexcompose_envs.wrappers as wrappers

    with pytest.raises(ImportError, match="needs the package stable-baselines3"):
        wrappers.__getattr__("SB3VecEnv")
