"""The tasks as Isaac Lab's `DirectRLEnv`, and residual B learned by rsl_rl and skrl through its own wrappers."""

import gymnasium as gym
import numpy as np
import pytest
import torch

pytest.importorskip("isaaclab", reason="Isaac Lab is not installed; see `make isaaclab`")

import dexcompose_agents.isaaclab  # noqa: F401
from dexcompose_agents.isaaclab import residual_id
from dexcompose_envs import PAIRS, SKILLS, env_id
from dexcompose_envs.errors import UsageError
from dexcompose_envs.isaaclab import isaaclab_id
from dexcompose_envs.physics import BackendError

PAIR = "GraspBall-PushButton"


def make(id, num_envs=2, **fields):
    from isaaclab_tasks.utils import parse_env_cfg

    cfg = parse_env_cfg(id, device="cpu", num_envs=num_envs)
    cfg.seed = 5
    for name, value in fields.items():
        setattr(cfg, name, value)
    return gym.make(id, cfg=cfg)


def test_isaac_lab_finds_every_task_by_its_own_entry_point():
    from isaaclab.cli import load_external_tasks

    load_external_tasks()
    names = (*SKILLS, *("-".join(pair) for pair in PAIRS))
    assert all(isaaclab_id(name) in gym.registry for name in names)
    assert all(residual_id("-".join(pair)) in gym.registry for pair in PAIRS)


def test_it_moves_exactly_as_the_vector_environment():
    env = make(isaaclab_id(PAIR), options={"base_shake": 0.5})
    obs, info = env.reset(seed=5)
    bare = env.unwrapped
    assert obs["policy"].shape == (2, bare.cfg.observation_space) == env.observation_space.shape
    assert {"success", "outcome", "task_a_held"} <= set(info)
    action = bare.core.snapshot().previous_action.clone()
    for _ in range(12):
        obs, reward, terminated, truncated, info = env.step(action)
    assert reward.shape == terminated.shape == truncated.shape == (2,)
    assert info["log"] == {} and info["task_a_held"].all()
    expected, rewards = obs["policy"].clone(), reward.clone()
    env.close()
    venv = gym.make_vec(env_id(PAIR), num_envs=2, backend="isaaclab", device="cpu", base_shake=0.5)
    other, _ = venv.reset(seed=5)
    for _ in range(12):
        other, reward, *_ = venv.step(action)
    assert torch.equal(expected, torch.cat([other[key] for key in sorted(other)], dim=1))
    assert torch.equal(reward, rewards)
    venv.close()


def test_episodes_end_and_begin_again():
    env = make(isaaclab_id("PushButton"), episode_length_s=0.2)
    obs, _ = env.reset(seed=5)
    first = obs["policy"].clone()
    bare = env.unwrapped
    assert bare.max_episode_length == 5
    action = bare.core.snapshot().previous_action.clone()
    for step in range(5):
        obs, _, terminated, truncated, info = env.step(action)
        assert truncated.tolist() == [step == 4] * 2 and not terminated.any()
    assert info["log"]["success"] == 0.0
    assert not torch.equal(obs["policy"], first)  # another episode
    again, _ = env.reset(seed=5)
    assert torch.equal(again["policy"], first)
    env.close()


def test_options_that_the_configuration_says_itself():
    with pytest.raises(UsageError, match="options have 'device', which an Isaac Lab configuration says"):
        make(isaaclab_id("PushButton"), options={"device": "cpu"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_asked_for_and_absent():
    from isaaclab_tasks.utils import parse_env_cfg

    cfg = parse_env_cfg(isaaclab_id("PushButton"), device="cuda:0", num_envs=1)
    with pytest.raises(BackendError, match="finds no GPU"):
        gym.make(isaaclab_id("PushButton"), cfg=cfg)


@pytest.fixture(scope="module")
def residual():
    env = make(residual_id(PAIR), num_envs=4)
    yield env
    env.close()


def test_without_a_residual_the_composite_is_what_it_was(residual):
    residual.reset(seed=7)
    nothing = torch.zeros(4, residual.unwrapped.cfg.action_space)
    bonus, ended = residual.unwrapped.task.config.success_bonus, 0
    for _ in range(150):
        obs, reward, terminated, _, info = residual.step(nothing)
        assert torch.isfinite(obs["policy"]).all()
        if terminated.any():
            ended += int(terminated.sum())
            assert info["log"]["success"] == 1.0
            assert (reward[terminated] > bonus - 2.0).all()  # less what the last step's distance costs
        if ended >= 4:
            break
    assert ended >= 3


def test_rsl_rl_trains_it(residual, tmp_path):
    from importlib import metadata

    from isaaclab_rl.rsl_rl import RslRlVecEnvWrapper, create_rsl_rl_runner, handle_deprecated_rsl_rl_cfg
    from isaaclab_tasks.utils import load_cfg_from_registry

    cfg = load_cfg_from_registry(residual_id(PAIR), "rsl_rl_cfg_entry_point")
    cfg = handle_deprecated_rsl_rl_cfg(cfg, metadata.version("rsl-rl-lib"))
    cfg.device, cfg.num_steps_per_env, cfg.save_interval = "cpu", 8, 1
    runner = create_rsl_rl_runner(RslRlVecEnvWrapper(residual), cfg, log_dir=str(tmp_path))
    before = [value.detach().clone() for value in runner.alg.actor.parameters()]
    runner.learn(3)
    assert any(not torch.equal(a, b) for a, b in zip(before, runner.alg.actor.parameters(), strict=True))
    assert list(tmp_path.glob("model_*.pt"))


def test_skrl_trains_it(residual, tmp_path):
    from isaaclab_rl.skrl import SkrlVecEnvWrapper
    from isaaclab_tasks.utils import load_cfg_from_registry
    from skrl.utils.runner.torch import Runner

    cfg = load_cfg_from_registry(residual_id(PAIR), "skrl_cfg_entry_point")
    cfg["agent"]["rollouts"] = 8
    cfg["trainer"] |= {"timesteps": 16, "close_environment_at_exit": False, "disable_progressbar": True}
    cfg["agent"]["experiment"] |= {"directory": str(tmp_path), "write_interval": 0, "checkpoint_interval": 0}
    runner = Runner(SkrlVecEnvWrapper(residual), cfg)
    before = [value.detach().clone() for value in runner.agent.policy.parameters()]
    runner.run()
    assert any(not torch.equal(a, b) for a, b in zip(before, runner.agent.policy.parameters(), strict=True))


def test_its_own_handler_reads_our_demonstrations(tmp_path):
    from isaaclab.utils.datasets import HDF5DatasetFileHandler

    from dexcompose_envs.demonstrations import load_demonstrations, to_hdf5
    from dexcompose_envs.demonstrations.datasets import RecordedEpisode, write_dataset

    sizes = {key: max(c.stop for c in terms.values()) for key, terms in _layout("PushButton").items()}
    observations = {key: np.zeros((4, size), np.float32) for key, size in sizes.items()}
    episode = RecordedEpisode(
        3, observations, np.zeros((3, 28), np.float32), np.zeros(3), {"success": np.zeros(4, bool)}
    )
    write_dataset(
        "DexCompose/PushButton/x-v0", [episode], gym.spec(env_id("PushButton")), {}, root=tmp_path, force=False
    )
    dataset = load_demonstrations("DexCompose/PushButton/x-v0", tmp_path)
    to_hdf5(dataset, tmp_path / "x.hdf5")
    handler = HDF5DatasetFileHandler()
    handler.open(str(tmp_path / "x.hdf5"))
    assert handler.get_env_name() == env_id("PushButton") and handler.get_num_episodes() == 1
    loaded = handler.load_episode("demo_0", "cpu")
    assert loaded.data["actions"].shape == (3, 28) and loaded.seed == 3 and loaded.success
    assert loaded.data["obs"]["task_b"].shape == (3, sizes["task_b"])
    handler.close()


def _layout(name):
    from dexcompose_envs.skills import parse_chain
    from dexcompose_envs.skills.chain import Chain

    return Chain.of(*parse_chain(name)).layout
