"""What residual B is paid for leaves nothing to gain by losing the object."""

from dataclasses import replace

import pytest
import torch

from dexcompose_agents.artefacts.shipped import choose_mask
from dexcompose_agents.diffusion.policy import load_policy
from dexcompose_agents.methods.parts import load_stabiliser
from dexcompose_agents.residual.config import residual_b_preset
from dexcompose_agents.residual.residual_b_task import ResidualBTask
from dexcompose_envs import parse_pair

from ...pairs import covering_pairs

WORLDS = 8


@pytest.mark.parametrize("pair", covering_pairs())
def test_losing_the_object_costs_more_than_the_rest_of_an_episode_that_keeps_it(pair):
    mask = choose_mask(pair)[0]
    config = residual_b_preset("cpu", ranking_episodes=WORLDS)
    config = replace(config, ppo=replace(config.ppo, num_envs=WORLDS))
    task = ResidualBTask(pair, mask, load_policy(parse_pair(pair)[1]), load_stabiliser(pair, mask), config)
    task.reset(0)
    rewards, kept = [], torch.ones(WORLDS, dtype=torch.bool)
    running = kept.clone()
    while running.any():
        step = task.step(torch.zeros(WORLDS, task.action_size))
        rewards.append(torch.where(running, step.reward, 0.0))
        ended = step.terminated | step.truncated
        kept &= ~(running & ended) | (step.metrics["held"] > 0)
        running &= ~ended
    task.close()
    assert kept.any()
    rest = dearest = torch.zeros(WORLDS)
    for reward in reversed(rewards):
        rest = reward + config.ppo.gamma * rest
        dearest = torch.minimum(dearest, rest)
    assert dearest[kept].min() < -5  # what a residual was once charged for a loss
    assert dearest[kept].min() > -0.9 * config.drop_penalty
