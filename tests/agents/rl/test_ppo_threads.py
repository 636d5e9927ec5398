"""Learning runs on one thread of torch's, whatever the caller has, who gets back what it had."""

import pytest
import torch

from dexcompose_agents.rl.actor_critic import ActorCritic, DeterministicPolicy
from dexcompose_agents.rl.config import PPOConfig
from dexcompose_agents.rl.point_mass import PointMass
from dexcompose_agents.rl.ppo import PPO

# Large enough for torch to share the work of an update, and of drawing the first weights.
CONFIG = PPOConfig(num_envs=64, horizon=24, total_steps=2 * 64 * 24, hidden=(256, 256), evaluate_every=1, epochs=2)


class _Watched(PointMass):
    """Keeps the number of threads at every step; may fail in one."""

    def __init__(self, fails_at=None):
        super().__init__(CONFIG.num_envs, episode_steps=5)
        self.threads, self._fails_at = [], fails_at

    def step(self, action):
        self.threads.append(torch.get_num_threads())
        if len(self.threads) == self._fails_at:
            raise KeyboardInterrupt
        return super().step(action)


def test_a_task_is_stepped_on_one_thread(torch_threads):
    torch_threads(2)
    env, reported = _Watched(), []
    PPO(env, CONFIG, progress=lambda row: reported.append(torch.get_num_threads())).train()
    assert set(env.threads) == set(reported) == {1}
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("step", [1, 40])
def test_the_callers_threads_come_back_when_a_step_fails(torch_threads, step):
    torch_threads(2)
    trainer = PPO(_Watched(step), CONFIG)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert torch.get_num_threads() == 2


def test_what_is_learned_is_the_same_for_any_number_of_threads(torch_threads):
    learned = []
    for threads in (1, 2):
        torch_threads(threads)
        trainer = PPO(PointMass(CONFIG.num_envs, episode_steps=5), CONFIG)
        trainer.train()
        weights = torch.cat([value.flatten().double() for value in trainer.network.state_dict().values()])
        learned.append((weights, trainer.evaluations))
    assert torch.equal(learned[0][0], learned[1][0])
    assert learned[0][1] == learned[1][1]


def test_first_weights_are_the_same_for_any_number_of_threads(torch_threads):
    drawn = []
    for threads in (1, 2):
        torch_threads(threads)
        torch.manual_seed(0)
        drawn.append(ActorCritic(181, 22).state_dict())
        assert torch.get_num_threads() == threads
    assert all(torch.equal(value, drawn[1][name]) for name, value in drawn[0].items())


def test_a_policy_on_its_own_acts_on_one_thread(torch_threads, monkeypatch):
    torch_threads(2)
    seen = []
    policy = DeterministicPolicy(ActorCritic(4, 2, hidden=(8,)))
    monkeypatch.setattr(policy.network.normalizer, "forward", lambda x: seen.append(torch.get_num_threads()) or x)
    policy(torch.zeros(3, 4))
    assert seen == [1]
    assert torch.get_num_threads() == 2
