"""One update by hand: the entropy's sign, the gradient's norm, what values are taught, and when passes stop."""

from dataclasses import replace

import pytest
import torch

from dexcompose_agents.rl import policy_update
from dexcompose_agents.rl.actor_critic import ActorCritic
from dexcompose_agents.rl.config import PPOConfig
from dexcompose_agents.rl.policy_update import improve
from dexcompose_agents.rl.ppo import PPO
from dexcompose_agents.rl.rollout import Rollout, Step

ONE_STEP = PPOConfig(num_envs=2, horizon=4, epochs=1, minibatches=1, hidden=(4,))


def _silent_network(value=0.0):
    """Mean residual 0 and the same value in every state."""
    network = ActorCritic(3, 4, hidden=(4,))
    torch.nn.init.zeros_(network.value_layer.weight)
    torch.nn.init.constant_(network.value_layer.bias, value)
    return network


def _improved(network, config, learning_rate, reward=0.0, action=0.0):
    """An update by plain gradient descent on 8 steps; rewards and actions vary on the given scales."""
    torch.manual_seed(0)
    rollout = Rollout.empty(4, 2, 3, 4, torch.device("cpu"))
    rollout.observations.normal_()
    rollout.rewards[:], rollout.actions[:] = reward * torch.randn(4, 2), action * torch.randn(4, 2, 4)
    rollout.log_probs[:] = network.log_prob(torch.zeros(4), rollout.actions).detach()
    rollout.valid[:] = True
    optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate)
    return improve(network, optimizer, rollout, config, torch.Generator().manual_seed(0))


def test_entropy_is_rewarded():
    network = _silent_network()
    # Advantages and value errors are 0, so the loss is -0.1 * (sum of log_std + a constant): its gradient is -0.1 for
    # each of the 4 components (norm 0.2), and a step of 0.5 raises each by 0.05.
    _improved(network, replace(ONE_STEP, entropy_coef=0.1), learning_rate=0.5)
    assert network.log_std.tolist() == pytest.approx([-1.45] * 4)


def test_gradients_are_clipped_to_their_norm():
    network = _silent_network()
    # The gradient is -10 for each of 4 components, of norm 20; scaled down to 1 it is -0.5, and a step of 0.1 is 0.05.
    _improved(network, replace(ONE_STEP, entropy_coef=10.0, max_grad_norm=1.0), learning_rate=0.1)
    assert network.log_std.tolist() == pytest.approx([-1.45] * 4)


def test_the_unit_of_reward_means_nothing_to_the_policy():
    moved, config = [], replace(ONE_STEP, value_coef=0.0, max_grad_norm=1e9)
    for reward in (1.0, 1000.0):
        torch.manual_seed(1)
        network = _silent_network()
        _improved(network, config, learning_rate=0.1, reward=reward, action=0.2)
        moved.append(network.mean_layer.weight)
    assert moved[0].abs().max() > 1e-3
    torch.testing.assert_close(*moved)


class _FourEnds:
    """Two steps of reward 1 in four worlds: one is terminated, one cut off, one goes on, one breaks down."""

    num_envs, observation_size, action_size, device = 4, 3, 4, torch.device("cpu")

    def reset(self, seed):
        self.t = 0
        return torch.zeros(4, 3)

    def step(self, action):
        self.t += 1
        ends = torch.tensor([self.t == 2] * 4)
        terminated, truncated = ends & torch.tensor([1, 0, 0, 0]).bool(), ends & torch.tensor([0, 1, 0, 1]).bool()
        broken = ends & torch.tensor([0, 0, 0, 1]).bool()
        obs = torch.zeros(4, 3)
        return Step(obs, torch.where(broken, -99.0, 1.0), terminated, truncated, obs.clone(), ~broken, {})


def test_what_values_are_taught(monkeypatch):
    trainer = PPO(_FourEnds(), replace(ONE_STEP, num_envs=4, horizon=2, gamma=0.9, gae_lambda=1.0))
    trainer.network = network = _silent_network(value=0.5)
    network.return_mean.fill_(10.0)
    network.return_std.fill_(2.0)  # so that every state is worth 0.5 * 2 + 10 = 11
    taught = []
    monkeypatch.setattr(network, "track_returns", lambda targets: taught.extend(targets.tolist()))
    rollout, _, row = trainer._collect(trainer.env.reset(0))
    trainer._update(rollout)
    # Second step: terminated, it is worth its reward of 1; cut off or at the horizon, 1 + 0.9 * 11 = 10.9.
    # First step: 1 + 0.9 * 1 = 1.9; 1 + 0.9 * 10.9 = 10.81, twice; and before the break-down, 1 + 0.9 * 11 = 10.9.
    assert taught == pytest.approx([1.9, 10.81, 10.81, 10.9, 1.0, 10.9, 10.9])
    assert row["reward"] == pytest.approx(7 / 8), "what came of the break-down is not logged either"


@pytest.mark.parametrize(("kl", "passes"), [((0.05, 0.0), 1), ((0.0, 0.03), 3)])
def test_passes_stop_by_the_mean_over_a_pass(monkeypatch, kl, passes):
    # Means over the two minibatches: 0.025, beyond 0.02, and 0.015, though its last minibatch is beyond.
    seen = []

    def losses(log_ratio, *_):
        seen.append(kl[len(seen) % 2])
        return torch.stack([0.0 * log_ratio.sum(), torch.zeros(()), torch.tensor(seen[-1]), torch.zeros(())])

    monkeypatch.setattr(policy_update, "_losses", losses)
    config = replace(ONE_STEP, epochs=3, minibatches=2, target_kl=0.02)
    row = _improved(_silent_network(), config, learning_rate=0.1)
    assert len(seen) == 2 * passes
    assert row["kl"] == pytest.approx(sum(kl) / 2)
