"""Residual B by hand: the wrist's error, the dimensions that it moves, and files that say what they are."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from dexcompose_agents.residual.config import ResidualBConfig
from dexcompose_agents.residual.residual_b import (
    ResidualBPolicy,
    bound_of,
    dimensions_named,
    residual_b_features,
    residual_dimensions,
    wrist_error_columns,
)
from dexcompose_agents.rl.actor_critic import ActorCritic
from dexcompose_envs import env_id, hand
from dexcompose_envs.composition.bounds import normalised
from dexcompose_envs.composition.interactor import Nominal
from dexcompose_envs.errors import UsageError
from dexcompose_envs.ownership import FingerMask

from .fakes import LAYOUT, every, network, observation

MASK, PAIR = FingerMask.parse("TH+MF"), "GraspBall-PushButton"
WRIST = hand.WRIST_JOINTS
OBS = observation(np.random.default_rng(0), 2)
NOMINAL = Nominal(torch.full((2, 28), 0.3), every(2))
SIZE = residual_b_features(OBS, NOMINAL, MASK, torch.zeros(2, 28)).shape[1]
LEAD = slice(SIZE - 28 - 5 - 28, SIZE - 28 - 5)
"""Where the wrist's error and a_B's lead are, before m* and the last residual."""


def test_wrist_error_is_what_the_wrist_was_last_told_minus_where_it_heads():
    obs = {key: value.clone() for key, value in OBS.items()}
    told, place = torch.tensor([0.36, 0.0, 0.2, 0.0, 1.0, 0.1]), torch.tensor([0.35, 0.0, 0.23, 0.0, 1.2, 0.1])
    low, high = (torch.tensor(limit[:6], dtype=torch.float32) for limit in (hand.ACTION_LOW, hand.ACTION_HIGH))
    scaled = [2 * (value - low) / (high - low) - 1 for value in (told, place)]
    obs["context"][:, LAYOUT["context"]["previous_action"].start :][:, :6] = scaled[0]
    obs["task_b"][:, :6], obs["task_b"][:, 6:28] = scaled[1], 0.1
    speed = obs["context"][:, LAYOUT["context"]["joint_velocity"].start :][:, :6]
    speed.zero_()
    seen = residual_b_features(obs, NOMINAL, MASK, torch.zeros(2, 28))[0, LEAD]
    # 10 mm too far back, 30 mm too high, 0.2 rad too steep; times ten.
    assert seen[:6].tolist() == pytest.approx([0.1, 0.0, -0.3, 0.0, -2.0, 0.0], abs=1e-5)
    # Released fingers are to go from 0.1 to 0.3, whatever they were told before; preserved ones are A's.
    released = ~torch.tensor(MASK.joint_mask())
    assert seen[6:].tolist() == pytest.approx((0.2 * released).tolist())
    assert wrist_error_columns(SIZE) == (LEAD.start, LEAD.start + 6)
    # Moving on at 0.1 m/s and 1 rad/s it would be 5.4 mm and 0.051 rad further without its lag.
    speed[:] = torch.tensor([0.01, 0.0, 0.0, 0.1, 0.0, 0.0])
    moving = residual_b_features(obs, NOMINAL, MASK, torch.zeros(2, 28))[0, LEAD]
    assert moving[:6].tolist() == pytest.approx([0.046, 0.0, -0.3, -0.5125, -2.0, 0.0], abs=1e-5)
    other = residual_b_features(obs, NOMINAL, MASK, torch.zeros(2, 28), sees_error=False)[0, LEAD]
    assert other[:6].tolist() == pytest.approx((0.3 - scaled[1]).tolist(), abs=1e-6)
    assert torch.equal(other[6:], seen[6:])


def test_wrist_error_shows_the_tremble():
    """Of a hand that is told to stay; what is left is what an inert wrist can't follow."""
    venv = gym.make_vec(env_id(PAIR), num_envs=4, start="scratch", base_shake=1.0)
    obs, _ = venv.reset(seed=0)
    stay, shaken, seen = obs["context"][:, venv.unwrapped.layout["context"]["previous_action"]], [], []
    nominal = Nominal(torch.as_tensor(stay), every(4))
    for _ in range(60):
        shaken.append(venv.unwrapped.wrist_shake())
        tensors = {key: torch.as_tensor(value) for key, value in venv.step(stay)[0].items()}
        features = residual_b_features(tensors, nominal, MASK, torch.zeros(4, 28))
        seen.append(features[:, slice(*wrist_error_columns(features.shape[1]))] / 10.0)
    venv.close()
    shaken, error = np.stack(shaken[15:]), np.stack(seen[15:])
    left = np.sqrt(np.square(shaken + error).mean((0, 1)) / np.square(shaken).mean((0, 1)))
    assert (left < 0.35).all()


@pytest.mark.parametrize(
    ("moves", "writes", "expected"),
    [
        (("wrist",), "released", WRIST),
        (("fingers",), "released", [name for name in hand.JOINTS if name[:2] in ("FF", "RF", "LF")]),
        (("fingers", "wrist"), "all", hand.ACTION_NAMES),
        (("wrist",), "all", WRIST),
    ],
)
def test_dimensions_that_a_residual_moves(moves, writes, expected):
    assert residual_dimensions(moves, MASK, writes) == tuple(expected)


def test_wrong_dimensions_are_refused():
    with pytest.raises(UsageError, match=r"mask TH\+FF\+MF\+RF\+LF leaves residual B none of the dimensions fingers"):
        residual_dimensions(("fingers",), FingerMask.all_fingers())
    for names in (("WY", "WX"), ("WX", "WX"), ("wrist",)):
        with pytest.raises(UsageError, match=f"dimensions are {', '.join(names)}; expected some of WX"):
            dimensions_named(names)
    with pytest.raises(UsageError, match=r"a bound of shape \(28,\) and 7 outputs; expected 28 and 6"):
        ResidualBPolicy(network(0, SIZE, 7, 0.3), bound=torch.ones(28), mask=MASK, pair=PAIR, dimensions=WRIST)


def test_a_policy_of_some_dimensions_moves_no_others():
    dimensions = residual_dimensions(("fingers",), MASK)
    bound, spoken = bound_of(ResidualBConfig(), "PushButton"), dimensions_named(dimensions)
    says = network(1, SIZE, len(dimensions), 0.3)
    policy = ResidualBPolicy(says, bound=bound, mask=MASK, pair=PAIR, dimensions=dimensions)
    policy.reset(every(2))
    delta = policy.act(OBS, NOMINAL)
    said = torch.tanh(says.mean(residual_b_features(OBS, NOMINAL, MASK, torch.zeros(2, 28))))
    torch.testing.assert_close(spoken.take(delta), spoken.take(normalised(bound)) * said)
    rest = [name not in dimensions for name in hand.ACTION_NAMES]
    assert (delta[:, torch.tensor(rest)] == 0.0).all()


@pytest.mark.parametrize("wrist_error", [True, False])
def test_a_file_says_what_it_moves_and_reads(tmp_path, wrist_error):
    options = {"bound": torch.full((28,), 0.1), "mask": MASK, "pair": PAIR}
    small = network(2, SIZE, 6, 0.3).half().float()
    policy = ResidualBPolicy(small, **options, dimensions=WRIST, wrist_error=wrist_error)
    policy.save(tmp_path / "b.safetensors", small)
    loaded = ResidualBPolicy.load(tmp_path / "b.safetensors")
    assert loaded.dimensions == WRIST
    for each in (policy, loaded):
        each.reset(every(2))
    torch.testing.assert_close(loaded.act(OBS, NOMINAL), policy.act(OBS, NOMINAL), rtol=2e-3, atol=1e-5)


def test_a_silent_network_says_exactly_nothing_and_is_small(tmp_path):
    loud = network(4, 9, 3, 1.0)
    assert loud.mean(torch.ones(2, 9)).all()
    silent = loud.silent()
    assert isinstance(silent, ActorCritic) and silent.sizes()["hidden"] == [1]
    silent.save(tmp_path / "a.safetensors", {"kind": "residual_b"})
    for each in (silent, ActorCritic.load(tmp_path / "a.safetensors", "residual_b")[0]):
        assert not each.mean(torch.randn(20, 9)).any()
    assert loud.mean(torch.ones(2, 9)).all(), "the other is what it was"
