"""Stabiliser A by hand: what it sees, its last residual included, whose file it takes, and torch's settings."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from dexcompose_agents.residual.config import stabiliser_preset
from dexcompose_agents.residual.stabiliser import FEATURE_SIZE, FEATURES, StabiliserObserver, StabiliserPolicy
from dexcompose_agents.residual.stabiliser_task import StabiliserTask
from dexcompose_envs.errors import FileError
from dexcompose_envs.ownership import FingerMask

from .fakes import LAYOUT, every, network, observation, uniform

MASK = FingerMask.parse("TH+MF")
PRESERVED = torch.tensor(MASK.joint_mask())


def feature(features, name):
    """The columns of one feature."""
    start = 0
    for each, size in FEATURES.items():
        if each == name:
            return features[:, start : start + size]
        start += size
    raise KeyError(name)


def _policy(seed=0, scale=0.3, **options):
    given = {"bound": 0.15, "masks": [MASK], "skill": "GraspBall"} | options
    return StabiliserPolicy(network(seed, FEATURE_SIZE, 22, scale), **given)


def test_features_by_hand():
    obs = observation(np.random.default_rng(0), 1)
    obs["task_a"][0, :6] = torch.tensor([0.2, -0.1, 0.0, 0.4, 0.0, -0.3])
    obs["task_a"][0, 6:28] = 0.25
    obs["context"][0, LAYOUT["context"]["reference"]] = 0.75
    base = torch.zeros(1, 28)
    base[0, :6] = torch.tensor([0.5, -0.1, 0.1, 0.0, 0.2, -0.7])
    base[0, 6:] = 0.6
    observer = StabiliserObserver(LAYOUT, 1)
    observer.begin(obs, every(1), PRESERVED.float(), torch.tensor(MASK.bits, dtype=torch.float32))
    moved = {key: value.clone() for key, value in obs.items()}
    moved["context"][0, LAYOUT["context"]["fingertip_distance"]] += 0.1
    features = observer.features(moved, base)
    # The wrist's lead is where it is told to go minus where it is: 0.5 - 0.2 = 0.3, 0, 0.1, -0.4, 0.2, -0.7 + 0.3.
    assert feature(features, "wrist_lead")[0].tolist() == pytest.approx([0.3, 0.0, 0.1, -0.4, 0.2, -0.4])
    # Preserved joints are 0.25 - 0.75 off their reference; released ones are told 0.6.
    assert feature(features, "joint_position")[0].tolist() == pytest.approx((-0.5 * PRESERVED).tolist())
    assert feature(features, "released_command")[0].tolist() == pytest.approx((0.6 * ~PRESERVED).tolist())
    assert feature(features, "fingertip_error")[0].tolist() == pytest.approx([0.1] * 5, abs=1e-6)
    assert feature(features, "mask")[0].tolist() == list(MASK.bits)


def test_the_policy_is_told_its_last_residual(monkeypatch):
    policy, seen = _policy(), []
    obs = observation(np.random.default_rng(0), 2)

    def says_half(features):
        seen.append(feature(features, "previous_residual").float())
        return torch.full((2, 22), 0.5)

    monkeypatch.setattr(policy._policy.network, "mean", says_half)
    policy.reset(obs, LAYOUT, every(2), MASK)
    policy.act(obs, torch.zeros(2, 28))
    policy.act(obs, torch.zeros(2, 28))
    policy.reset(obs, LAYOUT, torch.tensor([True, False]), MASK)
    policy.act(obs, torch.zeros(2, 28))
    # 0.15 * tanh(0.5) = 0.0693176 on preserved joints, none on released ones, none in an episode's first step.
    last = torch.where(PRESERVED, 0.0693176, 0.0).expand(2, 22)
    torch.testing.assert_close(torch.stack(seen[:2]), torch.stack([torch.zeros(2, 22), last]))
    torch.testing.assert_close(seen[2], torch.stack([torch.zeros(22), last[1]]))


def test_the_task_shows_the_last_residual():
    task = StabiliserTask("GraspBall", stabiliser_preset("test", masks=(str(MASK),)))
    first = task.reset(0)
    step = task.step(torch.full((2, 22), 0.5))
    task.close()
    assert (feature(first, "previous_residual") == 0.0).all()
    last = torch.where(PRESERVED, 0.15 * math.tanh(0.5), 0.0).expand(2, 22)
    torch.testing.assert_close(feature(step.observation, "previous_residual"), last)


def test_a_world_that_breaks_down_is_left_out_and_one_that_drops_pays(monkeypatch):
    task = StabiliserTask("GraspBall", stabiliser_preset("test"))
    task.reset(0)
    moves = task.worlds.step

    def first_diverges(action):
        moved, first = moves(action), torch.tensor([True, False])
        facts = {**moved.facts, "unstable": first.numpy(), "reward_terms/retention": np.array([0.0, -0.01])}
        facts["object_turn"] = np.array([0.0, 0.5])
        return moved._replace(truncated=first, terminated=~first, facts=facts)

    monkeypatch.setattr(task.worlds, "step", first_diverges)
    step = task.step(torch.zeros(2, 22))
    task.close()
    assert step.left_out.tolist() == [True, False]
    assert step.terminated.tolist() == [False, True]
    assert not step.metrics["held"].any()
    # The second is 1 cm off, has turned by half a radian, and is lost: -20 * (0.01 + 0.02 * 0.5) - 30 = -30.4.
    assert step.reward.tolist() == pytest.approx([0.0, -30.4])
    assert step.metrics["turn"].tolist() == [0.0, 0.5]
    assert (step.metrics["peak_force"] > 0.0).all()


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"skill": "PickStick"}, "skill is 'GraspBall'; expected 'PickStick'"),
        ({"mask": FingerMask.parse("TH+FF")}, r"trained with TH\+MF; expected a stabiliser of TH\+FF"),
        ({"model_hash": "new"}, "model_hash is 'old'; expected 'new'"),
    ],
)
def test_the_file_of_something_else_is_refused(tmp_path, expected, message):
    path = tmp_path / "stabiliser.safetensors"
    _policy().save(path, network(0, FEATURE_SIZE, 22, 0.3), model_hash="old")
    StabiliserPolicy.load(path, skill="GraspBall", mask=MASK, model_hash="old")
    with pytest.raises(FileError, match=message) as refusal:
        StabiliserPolicy.load(path, **expected)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.fixture
def run(tmp_path):
    """Says what the loaded policy says inside a setting, with gradients wanted of what it reads if asked, and after."""
    _policy().save(tmp_path / "stabiliser.safetensors", network(0, FEATURE_SIZE, 22, 0.3))

    def said(inside=nullcontext, gradients=False):
        rng = np.random.default_rng(0)
        obs, base, started = observation(rng, 3), uniform(rng, 3, 28), every(3)
        if gradients:
            for value in (*obs.values(), base):
                value.requires_grad_()
        with inside():
            policy = StabiliserPolicy.load(tmp_path / "stabiliser.safetensors")
            policy.reset(obs, LAYOUT, started, MASK)
            said = [policy.act(obs, base)]
        said.append(policy.act(obs, base))  # what it remembers is of use outside
        assert not any(each.requires_grad for each in said)
        return torch.stack(said)

    return said


def test_settings_change_nothing(run, caller_settings):
    assert torch.equal(run(caller_settings), run())


def test_observations_with_gradients_change_nothing(run):
    assert torch.equal(run(gradients=True), run())
