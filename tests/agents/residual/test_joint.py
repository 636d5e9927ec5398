"""Stabiliser A that learns beside residual B."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dexcompose_agents.residual.config import residual_b_preset
from dexcompose_agents.residual.joint import OwnedActorCritic, TunedStabiliser
from dexcompose_agents.residual.stabiliser import FEATURE_SIZE, StabiliserPolicy
from dexcompose_agents.residual.training import train_residual_b
from dexcompose_agents.rl.actor_critic import ActorCritic
from dexcompose_agents.rl.mlp_actor import MLPActor
from dexcompose_agents.rl.policy_evaluation import EVALUATION_SEED
from dexcompose_envs.errors import UsageError
from dexcompose_envs.ownership import FingerMask

from .fakes import LAYOUT, RepeatingPolicy, every, network, observation

MASK = FingerMask.parse("TH+MF+RF+LF")
OPTIONS = {"max_episode_steps": 60, "physics": {"mass": 0.5, "friction": 0.9}}
"""Ten steps of interaction with what no hand loses until then."""
PAIR = "GraspBall-PushButton"
OWN = torch.as_tensor(MASK.action_mask_a()[-22:], dtype=torch.float32)


def stabiliser(scale=0.05):
    return StabiliserPolicy(network(1, FEATURE_SIZE, 22, scale), bound=0.1, masks=[MASK], skill="GraspBall")


def settings(**changes):
    config = residual_b_preset("test", joint=True, joint_learning_rate=0.01, **changes)
    return replace(config, ppo=replace(config.ppo, horizon=60, total_steps=240, evaluate_every=1))


def test_only_preserved_joints_are_explored_and_count():
    actor = OwnedActorCritic(FEATURE_SIZE, 22, (8,))
    actor.own(OWN)
    mean, generator = torch.zeros(500, 22), torch.Generator().manual_seed(0)
    action = actor.sample(mean, generator)
    assert ((action != 0).any(0) == (OWN > 0)).all()
    plain = ActorCritic(FEATURE_SIZE, 22, (8,))
    some = torch.where(OWN > 0, action, mean)
    alone = plain.log_prob(mean, some) - (1 - OWN).sum() * (-plain.log_std[0] - 0.5 * np.log(2 * np.pi)).detach()
    torch.testing.assert_close(actor.log_prob(mean, action), alone, rtol=1e-4, atol=1e-4)
    moved = actor.log_prob(mean + (1 - OWN), action)
    torch.testing.assert_close(moved, actor.log_prob(mean, action))


def test_roles():
    before = stabiliser()
    tuned = TunedStabiliser(before, MASK)
    obs = observation(np.random.default_rng(0), 3)
    action = torch.zeros(3, 28)

    def acts(policy):
        policy.reset(obs, LAYOUT, every(3), MASK)
        return policy.act(obs, action)

    torch.nn.init.constant_(tuned.tuned.mean_layer.bias, 0.3)
    was = acts(before)
    tuned.play("before")
    torch.testing.assert_close(acts(tuned), was)
    tuned.play("now")
    now = acts(tuned)
    assert (((now != was).any(0)) == (OWN > 0)).all() and not tuned.seen
    tuned.play("exploring")
    tuned.generator.manual_seed(0)
    explored = acts(tuned)
    assert 0 < (explored - now).abs().max() < 0.05
    assert [each.shape for each in tuned.seen[0]] == [(3, FEATURE_SIZE), (3, 22), (3,)]


def test_both_learn_and_the_stabiliser_is_written_beside_the_residual(tmp_path, monkeypatch):
    """The base arm is the stabiliser as it was, the other one as it is."""
    played = []

    def evaluate(env, policy, rounds, seed):
        partner = env.composer.preserver.stabiliser
        now = partner._policy is not partner._before
        played.append((policy is not None, now, seed == EVALUATION_SEED))
        return {"return": 0.0, "success": 0.5 + 0.1 * len(played) * (policy is not None)}

    monkeypatch.setattr("dexcompose_agents.rl.trainer.evaluate", evaluate)
    before = stabiliser()
    train_residual_b(PAIR, MASK, RepeatingPolicy(), before, settings(), tmp_path, **OPTIONS)
    assert played == [
        (False, False, True),
        (True, True, True),
        (True, True, True),
        (False, False, False),
        (True, True, False),
    ]
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert "partner_kl" in header and ",kl" in header
    after = StabiliserPolicy.load(tmp_path / "stabiliser.safetensors", skill="GraspBall", pair=PAIR)
    assert (after.bound, after.masks) == (before.bound, (MASK,))
    old, new = before.network.state_dict(), after.network.state_dict()
    assert (old["mean_layer.weight"] - new["mean_layer.weight"]).abs().max() > 5e-3
    torch.testing.assert_close(new["normalizer.mean"], old["normalizer.mean"], rtol=1e-3, atol=1e-6)


def test_what_is_interrupted_goes_on_with_both(tmp_path):
    short, whole = settings(), settings()
    short = replace(short, ppo=replace(short.ppo, total_steps=120))
    for config in (short, whole):
        train_residual_b(PAIR, MASK, RepeatingPolicy(), stabiliser(), config, tmp_path / "two", **OPTIONS)
    train_residual_b(PAIR, MASK, RepeatingPolicy(), stabiliser(), whole, tmp_path / "one", **OPTIONS)
    one, two = ((tmp_path / name / "checkpoint.pt").read_bytes() for name in ("one", "two"))
    from safetensors.torch import load

    one, two = load(one), load(two)
    assert any("partner_optimizer" in name for name in one) and one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_what_cannot_be_tuned_is_refused(tmp_path):
    with pytest.raises(UsageError, match="joint is True without a stabiliser"):
        train_residual_b(PAIR, MASK, RepeatingPolicy(), None, settings(), tmp_path)
    with pytest.raises(UsageError, match="learner is 'sac'; expected 'ppo'"):
        residual_b_preset("test", joint=True, learner="sac")
    with pytest.raises(UsageError, match="joint_learning_rate is 0"):
        residual_b_preset("test", joint_learning_rate=0.0)
    other = StabiliserPolicy(MLPActor(FEATURE_SIZE, 22, (8,)), bound=0.1, masks=[MASK], skill="GraspBall")
    with pytest.raises(UsageError, match="network is 'mlp_actor'; expected one that PPO trained"):
        TunedStabiliser(other, MASK)
