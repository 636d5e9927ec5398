"""Advantages by hand, with both ways in which an episode can end."""

import pytest
import torch

from dexcompose_agents.rl.rollout import generalised_advantages


def _column(*values):
    return torch.tensor(values).unsqueeze(1)


def _advantages(rewards, values, next_values, terminated, truncated, left_out=(False, False, False)):
    numbers = [_column(*each) for each in (rewards, values, next_values)]
    terminated, truncated, left_out = (_column(*each) for each in (terminated, truncated, left_out[: len(rewards)]))
    return generalised_advantages(*numbers, terminated, terminated | truncated, left_out, 0.9, 0.5).squeeze(1)


def test_running_episode():
    # gamma 0.9, lambda 0.5, so the decay per step is 0.45.
    # delta_1 = 2 + 0.9 * 4 - 3 = 2.6                     -> A_1 = 2.6
    # delta_0 = 1 + 0.9 * 3 - 2 = 1.7                     -> A_0 = 1.7 + 0.45 * 2.6 = 2.87
    result = _advantages([1.0, 2.0], [2.0, 3.0], [3.0, 4.0], [False, False], [False, False])
    assert result.tolist() == pytest.approx([2.87, 2.6])


def test_termination_is_worth_its_reward_alone():
    # delta_2 = 5 + 0.9 * 1 - 1 = 4.9 belongs to the next episode.
    # delta_1 = 2 - 3 = -1 (whatever next_values says)    -> A_1 = -1
    # delta_0 = 1 + 0.9 * 3 - 2 = 1.7                     -> A_0 = 1.7 + 0.45 * -1 = 1.25
    result = _advantages([1.0, 2.0, 5.0], [2.0, 3.0, 1.0], [3.0, 99.0, 1.0], [False, True, False], [False] * 3)
    assert result.tolist() == pytest.approx([1.25, -1.0, 4.9])


def test_truncation_bootstraps_from_the_final_observation():
    # delta_1 = 2 + 0.9 * 7 - 3 = 5.3, 7 being the value of the final observation -> A_1 = 5.3, cut off from A_2
    # delta_0 = 1.7                                       -> A_0 = 1.7 + 0.45 * 5.3 = 4.085
    result = _advantages([1.0, 2.0, 5.0], [2.0, 3.0, 1.0], [3.0, 7.0, 1.0], [False] * 3, [False, True, False])
    assert result.tolist() == pytest.approx([4.085, 5.3, 4.9])


def test_a_step_that_is_left_out_counts_for_nothing():
    # As if the episode had been cut off where the step began, in a state of value 3:
    # delta_0 = 1 + 0.9 * 3 - 2 = 1.7                     -> A_0 = 1.7, whatever came of step 1
    cut = [False, True, False]
    result = _advantages([1.0, -99.0, 5.0], [2.0, 3.0, 1.0], [3.0, float("nan"), 1.0], [False] * 3, cut, cut)
    assert result.tolist() == pytest.approx([1.7, 0.0, 4.9])


def test_worlds_do_not_mix():
    torch.manual_seed(0)
    shape = (6, 3)
    numbers = [torch.randn(shape) for _ in range(3)]
    terminated = torch.rand(shape) < 0.2
    ended = terminated | (torch.rand(shape) < 0.2)
    flags = terminated, ended, ended & ~terminated & (torch.rand(shape) < 0.5)
    together = generalised_advantages(*numbers, *flags, 0.99, 0.95)
    for world in range(3):
        one = slice(world, world + 1)
        alone = generalised_advantages(*(each[:, one] for each in (*numbers, *flags)), 0.99, 0.95)
        assert torch.equal(alone, together[:, one])
