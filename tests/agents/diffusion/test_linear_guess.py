"""The linear guess: exact where targets are linear, silent about fingers, undone as far as floats can."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusion_toy import QUICK
from hypothesis import given
from hypothesis import strategies as st

from dexcompose_agents.artefacts.weights import load_weights
from dexcompose_agents.diffusion.config import NetworkConfig
from dexcompose_agents.diffusion.linear_guess import LinearGuess
from dexcompose_agents.diffusion.policy import DiffusionPolicy
from dexcompose_agents.diffusion.training import KIND, train
from dexcompose_envs.errors import UsageError
from dexcompose_envs.hand import NUM_ACTIONS, NUM_WRIST

HISTORY, OBSERVED, HORIZON = 2, 35, 8
CONFIG = NetworkConfig(observation_horizon=HISTORY, action_horizon=HORIZON, execute_steps=4, linear_guess=True)


def fitted(seed: int, bend: float) -> tuple[LinearGuess, torch.Tensor, torch.Tensor]:
    """A guess fitted to chunks whose wrist is linear in wrist and task, but for `bend` times a sine."""
    generator = torch.Generator().manual_seed(seed)
    histories = torch.randn(400, HISTORY, OBSERVED, generator=generator)
    chunks = torch.randn(400, HORIZON, NUM_ACTIONS, generator=generator)
    seen = histories[:, -1, [*range(NUM_WRIST), *range(NUM_ACTIONS, OBSERVED)]]
    weight = torch.randn(seen.shape[1], HORIZON * NUM_WRIST, generator=generator)
    chunks[:, :, :NUM_WRIST] = (seen @ weight + 0.3).unflatten(1, (HORIZON, NUM_WRIST))
    chunks[:, :, :NUM_WRIST] += bend * torch.sin(3 * seen[:, :1, None])
    guess = LinearGuess(HISTORY * OBSERVED, NUM_ACTIONS, CONFIG)
    guess.fit(histories, chunks)
    return guess, histories, chunks


def test_it_knows_what_is_linear() -> None:
    guess, histories, chunks = fitted(0, bend=0.0)
    error = guess.complete(torch.zeros_like(chunks), histories.flatten(1)) - chunks
    assert error[:, :, :NUM_WRIST].abs().max() < 5e-3
    assert chunks[:, :, :NUM_WRIST].abs().max() > 5


def test_the_largest_rest_is_one_and_fingers_are_left_alone() -> None:
    guess, histories, chunks = fitted(1, bend=0.5)
    rest = guess.rest(chunks, histories.flatten(1))
    torch.testing.assert_close(rest[:, :, :NUM_WRIST].abs().amax(0), torch.ones(HORIZON, NUM_WRIST))
    torch.testing.assert_close(rest[:, :, NUM_WRIST:], chunks[:, :, NUM_WRIST:])


def test_it_does_not_read_fingers() -> None:
    guess, histories, chunks = fitted(2, bend=0.5)
    others = histories.clone()
    others[:, :, NUM_WRIST:NUM_ACTIONS] += 1.0
    rest = guess.rest(chunks, histories.flatten(1))
    torch.testing.assert_close(rest, guess.rest(chunks, others.flatten(1)))


@given(seed=st.integers(0, 2**31), size=st.floats(0.0, 3.0))
def test_rest_and_complete_undo_each_other(seed: int, size: float) -> None:
    guess, histories, _ = fitted(3, bend=0.5)
    history = histories[:5].flatten(1)
    chunks = size * torch.randn(5, HORIZON, NUM_ACTIONS, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(guess.complete(guess.rest(chunks, history), history), chunks, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("observed", "acted"), [(27, NUM_ACTIONS), (OBSERVED, 6)])
def test_what_is_not_a_hand_is_refused(observed: int, acted: int) -> None:
    with pytest.raises(UsageError, match=str(min(observed, acted))):
        LinearGuess(HISTORY * observed, acted, CONFIG)


def wrist_error(path: Path, linear_guess: bool) -> float:
    """How far a policy of few training steps is from wrist targets that are what it sees of the task."""
    rng = np.random.default_rng(0)
    demos = []
    for _ in range(20):
        obs = np.repeat(rng.uniform(-1, 1, (1, 34)), 9, axis=0)
        demos.append({"obs": obs, "action": np.concatenate([obs[:, -6:], np.zeros((9, 22))], axis=1)})
    network = dataclasses.replace(QUICK.network, linear_guess=linear_guess)
    train(demos, dataclasses.replace(QUICK, network=network), path)
    policy = DiffusionPolicy(*load_weights(path, KIND))
    policy.reset(20)
    seen = np.stack([demo["obs"][0] for demo in demos])
    return float(np.abs(policy.act(seen)[:, :6] - seen[:, -6:]).max())


def test_a_policy_with_it_needs_hardly_any_training(tmp_path: Path) -> None:
    assert wrist_error(tmp_path / "with.safetensors", True) < 0.02
    assert wrist_error(tmp_path / "without.safetensors", False) > 0.2


def test_weights_from_before_there_was_a_guess_still_load(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    wrist_error(path, False)
    tensors, manifest = load_weights(path, KIND)
    del manifest["config"]["network"]["linear_guess"]
    assert not DiffusionPolicy(tensors, manifest).config.linear_guess
