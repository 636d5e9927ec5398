"""Chunks don't depend on the number of threads that torch may use."""

import numpy as np
import torch

from dexcompose_agents.diffusion.policy import load_policy


def test_chunks_are_the_same_for_any_number_of_threads():
    before = torch.get_num_threads()
    actions = []
    observations = np.random.default_rng(0).normal(0.0, 0.3, (40, 35))
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            policy = load_policy("PushButton")
            policy.reset(40)
            policy.seed_envs(np.arange(40))
            actions.append(policy.act(observations))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(*actions)
