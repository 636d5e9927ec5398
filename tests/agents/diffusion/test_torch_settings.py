"""A policy acts alike whatever the caller has set in torch, and leaves the settings as they were."""

import numpy as np
import pytest
import torch
from diffusion_toy import QUICK, episodes, rollout

from dexcompose_agents.artefacts.weights import load_weights
from dexcompose_agents.diffusion.policy import load_policy
from dexcompose_agents.diffusion.training import KIND, train


@pytest.fixture(scope="module")
def expected(trained):
    return rollout(load_policy("PushButton", path=trained[0]), range(6), length=9)[0]


@pytest.mark.parametrize("also_loads", [True, False])
def test_settings_of_the_caller_change_no_action(trained, expected, caller_settings, also_loads):
    policy = load_policy("PushButton", path=trained[0])
    with caller_settings():
        if also_loads:
            policy = load_policy("PushButton", path=trained[0])
        policy.hide_fingers(())
        found = rollout(policy, range(6), length=9)[0]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(rollout(policy, range(6), length=9)[0], expected)
    assert torch.get_default_dtype() == torch.float32


def test_observations_with_gradients_change_no_action_and_keep_no_graph(trained):
    policy = load_policy("PushButton", path=trained[0])
    observation = torch.full((1, 3), 0.2)
    plain = [policy.act(observation) for _ in range(5)]
    policy.reset(1)
    for each in plain:
        found = policy.act(observation.clone().requires_grad_())
        assert torch.equal(found, each) and not found.requires_grad
    assert not policy._history.requires_grad


def test_loading_and_acting_leave_the_global_generators_alone(trained):
    before, of_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    policy = load_policy("PushButton", path=trained[0])
    rollout(policy, range(2), length=3)
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(of_numpy, np.random.get_state()[1])


def test_settings_of_the_caller_change_nothing_that_is_learned(tmp_path, caller_settings):
    demos = episodes(3, length=10)
    train(demos, QUICK, tmp_path / "plain")
    with caller_settings():
        train(demos, QUICK, tmp_path / "set")
    plain, found = (load_weights(tmp_path / name, KIND)[0] for name in ("plain", "set"))
    assert all(torch.equal(value, found[name]) for name, value in plain.items())
