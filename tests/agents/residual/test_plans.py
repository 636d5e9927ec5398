"""Disturbances: continuous, within limits, at the speeds that they promise."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dexcompose_agents.residual.config import DisturbanceConfig
from dexcompose_agents.residual.disturbance_bank import DisturbanceBank, episode_hash
from dexcompose_agents.residual.disturbances import CONTROL_PERIOD, draw_disturbance, wander
from dexcompose_envs import hand
from dexcompose_envs.skills.trajectories import minimum_jerk

SEEDS = st.integers(0, 2**31 - 1)


def test_minimum_jerk_by_hand():
    # 10/8 - 15/16 + 6/32 = 1.25 - 0.9375 + 0.1875 = 0.5
    assert minimum_jerk([-1.0, 0.0, 0.5, 1.0, 2.0]).tolist() == pytest.approx([0.0, 0.0, 0.5, 1.0, 1.0])


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_wander_keeps_speed_and_range(seed):
    low, high = np.array([-0.1, -0.1, -0.03]), np.full(3, 0.1)
    path = wander(np.random.default_rng(seed), 150, np.zeros(3), low, high, 0.45)
    assert path.shape == (150, 3)
    assert (path[0] == 0).all()
    assert ((path >= low - 1e-9) & (path <= high + 1e-9)).all()
    assert np.linalg.norm(np.diff(path, axis=0), axis=1).max() / CONTROL_PERIOD <= 0.4501


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_disturbance_starts_at_rest_and_respects_limits(seed):
    config = DisturbanceConfig()
    drawn = draw_disturbance(np.random.default_rng(seed), 151, config)
    assert drawn.wrist.shape == (151, 6)
    assert np.allclose(drawn.wrist[0], 0.0)
    jitter = 6 * config.jitter_translation
    assert np.abs(drawn.wrist[:, :3]).max() <= config.translation + jitter
    assert drawn.wrist[:, 2].min() >= -config.descent - jitter
    assert drawn.wrist[:, 4].max() <= config.pitch + config.rotation / 2 + 6 * config.jitter_rotation
    assert drawn.share[0] == 0.0 and (np.diff(drawn.share) >= 0).all() and drawn.share[-1] == 1.0
    assert (np.diff(drawn.phase) >= 0).all()
    assert drawn.phase[-1] == 2
    opened = int(np.argmax(drawn.phase == 2))
    assert drawn.share[opened] == 1.0
    assert (drawn.motion[: opened + 1] == 0.0).all()
    assert (drawn.motion[-1] != 0.0).all()


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_bank_commands_what_was_drawn(seed):
    config, steps = DisturbanceConfig(), 40
    bank = DisturbanceBank(config, 2, steps, seed)
    holds = np.random.default_rng(seed).uniform(hand.ACTION_LOW, hand.ACTION_HIGH, (2, 28))
    for pick, hold in enumerate(holds):
        drawn = draw_disturbance(np.random.default_rng([seed, pick]), steps, config)
        share = drawn.share[:, None]
        fingers = (1 - share) * hold[6:] + share * (hand.OPEN_FINGERS + drawn.motion)
        targets = np.concatenate([hold[:6] + drawn.wrist, fingers], axis=1)
        normalised = torch.tensor(hand.normalize(hold), dtype=torch.float32).expand(steps, 28)
        command, phase = bank.command(torch.full((steps,), pick), torch.arange(steps), normalised)
        np.testing.assert_allclose(command, np.clip(hand.normalize(targets), -1, 1), atol=2e-6)
        assert phase.argmax(1).tolist() == drawn.phase.tolist()


def test_every_disturbance_of_the_bank_is_picked_about_as_often():
    seeds, episodes = torch.meshgrid(torch.arange(200) + 7, torch.arange(50), indexing="ij")
    drawn = episode_hash(seeds.flatten(), episodes.flatten())
    assert drawn.min() >= 0 and drawn.max() < 2**32
    counts = torch.bincount(drawn % 20, minlength=20)  # 10,000 draws: 500 each, standard deviation 22
    assert (counts - 500).abs().max() < 5 * 22
    # The mask is taken from the quotient, so it must not follow from the disturbance: 125 each, deviation 11.
    pairs = torch.bincount(drawn % 20 * 4 + drawn // 20 % 4, minlength=80)
    assert (pairs - 125).abs().max() < 5 * 11


def test_hash_by_hand():
    # Of seed 0 and episode 0 every step is 0; a known pair guards the numbers on every device.
    assert episode_hash(torch.tensor([0]), torch.tensor([0])).item() == 0
    x = 1
    for _ in range(2):
        x = ((x >> 16 ^ x) * 0x45D9F3B) % 2**32
    x = (x >> 16 ^ x) ^ 2
    for _ in range(2):
        x = ((x >> 16 ^ x) * 0x45D9F3B) % 2**32
    assert episode_hash(torch.tensor([1]), torch.tensor([2])).item() == x >> 16 ^ x
