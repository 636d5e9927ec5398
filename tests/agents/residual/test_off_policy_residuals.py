"""Off-policy learners on the real environments, tiny: same call, same kind of file."""

from dataclasses import replace

import pytest
import torch
import tyro

from dexcompose_agents.residual.config import ResidualBConfig, residual_b_preset, stabiliser_preset
from dexcompose_agents.residual.residual_b import ResidualBPolicy
from dexcompose_agents.residual.stabiliser import StabiliserPolicy
from dexcompose_agents.residual.training import train_residual_b, train_stabiliser
from dexcompose_agents.rl.actor_critic import ActorCritic
from dexcompose_agents.rl.networks import load_network
from dexcompose_agents.stages.residuals import Residual
from dexcompose_envs.errors import FileError, UsageError
from dexcompose_envs.ownership import FingerMask

from .fakes import RepeatingPolicy

MASK = FingerMask.parse("TH+MF+RF+LF")
PAIR = "GraspBall-PushButton"


def test_train_residual_b(tmp_path):
    config = residual_b_preset("test", learner="sac")
    # One block long enough for the interaction, which begins after 50 steps.
    config = replace(config, off_policy=replace(config.off_policy, horizon=58, total_steps=116, prefer=True))
    trained = train_residual_b(PAIR, MASK, RepeatingPolicy(), None, config, tmp_path, max_episode_steps=60)
    network, manifest = load_network(tmp_path / "residual_b.safetensors", "residual_b")
    about = manifest["network"]
    # It isn't kept, so what is written is a small network that says nothing.
    assert (about["class"], about["action_size"], about["critics"], about["hidden"]) == ("mlp_actor", 6, 0, [1])
    assert manifest["config"]["learner"] == "sac"
    assert manifest["config"]["off_policy"]["horizon"] == 58 and "ppo" not in manifest["config"]
    assert (manifest["steps"], trained.dimensions[0]) == (116, "WX")
    assert not manifest["kept"] and not network.mean(torch.randn(3, network.observation_size)).any()
    metrics = (tmp_path / "metrics.csv").read_text().splitlines()
    last = dict(zip(metrics[0].split(","), metrics[-1].split(","), strict=True))
    assert 0 < float(last["valid_fraction"]) < 0.2
    assert float(last["replayed"]) == pytest.approx(float(last["valid_fraction"]) * 116)
    assert float(last["updates"]) == (float(last["replayed"]) - 4) // 2 > 0
    with pytest.raises(FileError, match="holds a network of class 'mlp_actor'; expected 'actor_critic'"):
        ActorCritic.load(tmp_path / "residual_b.safetensors", "residual_b")
    with pytest.raises(FileError, match=r"learner is 'sac'; expected 'tqc'"):
        train_residual_b(
            PAIR, MASK, RepeatingPolicy(), None, replace(config, learner="tqc"), tmp_path, max_episode_steps=60
        )
    assert ResidualBPolicy.load(tmp_path / "residual_b.safetensors", pair=PAIR).mask == MASK


def test_train_stabiliser(tmp_path):
    config = stabiliser_preset("test", learner="crossq")
    train_stabiliser("GraspBall", config, tmp_path)
    path = tmp_path / "stabiliser.safetensors"
    assert StabiliserPolicy.load(path, skill="GraspBall").bound == config.bound
    assert load_network(path, "stabiliser")[1]["network"]["class"] == "mlp_actor"


def test_options_of_the_command_line():
    words = [PAIR, "--learner", "sac", "--off-policy.learning-rate", "1e-5", "--off-policy.prefer"]
    stage = tyro.cli(Residual.command(), args=[*words, "--device", "cuda:3"])
    learning = stage.config.learning
    assert (learning.learning_rate, learning.prefer, learning.device) == (1e-5, True, "cuda:3")
    ppo = residual_b_preset("cpu").ppo
    for name in ("num_envs", "horizon", "iterations", "gamma", "initial_log_std", "evaluation_rounds"):
        assert getattr(learning, name) == getattr(ppo, name), name


def test_settings_of_another_learner_decide_nothing():
    words = [PAIR, "--off-policy.gamma", "0.5"]
    stages = [tyro.cli(Residual.command(), args=given) for given in (words, words[:1])]
    assert stages[0].facts() == stages[1].facts()
    stages = [tyro.cli(Residual.command(), args=[*given, "--learner", "tqc"]) for given in (words, words[:1])]
    assert stages[0].facts() != stages[1].facts()
    assert "ppo" not in stages[0].facts()


def test_an_unknown_learner_is_named():
    with pytest.raises(UsageError, match="unknown learner 'td3'; expected one of ppo, sac, tqc, crossq"):
        ResidualBConfig(learner="td3")
