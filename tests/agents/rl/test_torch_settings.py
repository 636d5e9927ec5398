"""Whatever a user has told torch before, learning and acting come out the same."""

from contextlib import nullcontext

import pytest
import torch

from dexcompose_agents.rl.actor_critic import ActorCritic, DeterministicPolicy
from dexcompose_agents.rl.config import PPOConfig
from dexcompose_agents.rl.point_mass import PointMass
from dexcompose_agents.rl.ppo import PPO

CONFIG = PPOConfig(num_envs=4, horizon=6, total_steps=72, hidden=(8,), evaluate_every=1, epochs=1, target_kl=1.0)


class _WithGradients(PointMass):
    """Observations and rewards that hang on a parameter of the user's."""

    def __init__(self):
        super().__init__(4, episode_steps=5)
        self.one = torch.ones((), requires_grad=True)

    def reset(self, seed):
        return super().reset(seed) * self.one

    def step(self, action):
        assert not action.requires_grad
        step = super().step(action)
        return step._replace(observation=step.observation * self.one, reward=step.reward * self.one)


def _run(path, inside, env=None):
    """Trains within the settings; the last weights, and what the saved policy says of zeros, outside and inside."""
    with inside():
        trainer = PPO(env or PointMass(4, episode_steps=5), CONFIG, out=path)
        trainer.train()
        trainer.network.save(path / "policy.safetensors", {"kind": "stabiliser"})
        policy = DeterministicPolicy(ActorCritic.load(path / "policy.safetensors", "stabiliser")[0])
        observation = torch.full((2, 16), 0.1, dtype=torch.float32, device="cpu")
        said = [policy(observation.clone()), policy(observation.clone().requires_grad_())]
    weights = torch.cat([value.flatten().double() for value in trainer.network.state_dict().values()])
    said.append(policy(torch.full((2, 16), 0.1)))
    assert not any(each.requires_grad for each in said)
    return torch.cat([weights, *(each.flatten().double() for each in said)]), trainer.evaluations


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    return _run(tmp_path_factory.mktemp("usual"), nullcontext)


def test_settings_change_nothing(tmp_path, usual, caller_settings):
    numbers, evaluations = _run(tmp_path, caller_settings)
    assert numbers.device.type == "cpu"
    assert torch.equal(numbers, usual[0])
    assert evaluations == usual[1]


def test_observations_with_gradients_change_nothing(tmp_path, usual):
    numbers, evaluations = _run(tmp_path, nullcontext, _WithGradients())
    assert torch.equal(numbers, usual[0])
    assert evaluations == usual[1]
