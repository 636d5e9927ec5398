"""The off-policy learners: they learn, from valid steps alone, resume exactly, and deploy what they judged."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dexcompose_agents.rl.actor_critic import DeterministicPolicy
from dexcompose_agents.rl.learners import LEARNERS
from dexcompose_agents.rl.networks import load_network
from dexcompose_agents.rl.normalizer import RunningNormalizer
from dexcompose_agents.rl.off_policy import SAC, TQC, CrossQ
from dexcompose_agents.rl.off_policy_config import OffPolicyConfig
from dexcompose_agents.rl.point_mass import PointMass
from dexcompose_agents.rl.replay import Replay
from dexcompose_agents.rl.rollout import Step
from dexcompose_agents.runtime.interrupts import Paused
from dexcompose_envs.errors import FileError, UsageError

ALL = (SAC, TQC, CrossQ)
SMALL = OffPolicyConfig(
    num_envs=4, horizon=8, total_steps=4 * 8 * 4, hidden=(16, 16), critic_hidden=(16,), batch_size=16,
    learning_starts=16, critic_warmup=4, updates_per_step=0.25, evaluate_every=2, buffer_size=64,
)  # fmt: skip


def _env(num_envs=4):
    return PointMass(num_envs, dimensions=2, episode_steps=10)


def _numbers(trainer):
    """All that a training amounts to, as one row of numbers."""
    found = []

    def add(value):
        if isinstance(value, torch.Tensor):
            found.append(value.detach().flatten().double())
        elif isinstance(value, dict):
            for item in value.values():
                add(item)
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        elif isinstance(value, int | float):
            found.append(torch.tensor([value], dtype=torch.float64, device="cpu"))

    add(trainer.model.state_dict())
    add(trainer.normalizer.state_dict())
    add(trainer.best_network.state_dict())
    add(trainer.replay.with_rows(trainer.replay.state_dict()))
    return torch.cat(found)


def _trained(learner, out=None, **changes):
    trainer = learner(_env(), replace(SMALL, **changes), out=out)
    trainer.train()
    return trainer


@pytest.mark.parametrize("learner", ALL)
def test_learns_the_point_mass(learner):
    config = OffPolicyConfig(
        num_envs=16, horizon=32, total_steps=16 * 32 * 5, hidden=(32, 32), critic_hidden=(32, 32), batch_size=64,
        learning_starts=256, critic_warmup=50, updates_per_step=0.25, learning_rate=3e-3, evaluate_every=5,
    )  # fmt: skip
    trainer = learner(PointMass(16, dimensions=2), config)
    trainer.train()
    last = trainer.evaluations[-1]
    assert last["composed_return"] > 1.1 * last["base_return"]
    assert trainer.metrics[-1]["updates"] == (16 * 32 * 5 - 256) // 4


@pytest.mark.parametrize("learner", ALL)
def test_starts_at_the_base_policy_and_warms_the_critic_up_alone(learner):
    trainer = learner(_env(), replace(SMALL, critic_warmup=40, total_steps=4 * 8 * 3, learning_starts=20))
    before = {name: value.clone() for name, value in trainer.model.state_dict()["policy"].items()}
    policy = DeterministicPolicy(trainer.network)
    observations = torch.randn(50, 4)
    assert not policy(observations).any()
    drawn = trainer.model.sample(torch.randn(4000, 4))[0]
    assert drawn.mean().abs() < 0.02
    assert drawn.std().item() == pytest.approx(np.exp(SMALL.initial_log_std), rel=0.05)
    trainer.train()
    assert trainer.metrics[-1]["updates"] == 19 < 40
    after = trainer.model.state_dict()["policy"]
    learned = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert "critic" in learned
    for name, value in after.items():
        if name.startswith("actor") and not name.endswith(("ra_mean", "ra_var", "steps")):
            assert torch.equal(value, before[name]), name
    assert trainer.metrics[-1]["entropy_coef"] == pytest.approx(SMALL.initial_entropy_coef)
    assert not DeterministicPolicy(trainer.network)(observations).any()
    trainer.model.improve(21)  # the last ones of the critic alone; no momentum is left from them
    assert not trainer.model.state_dict()["optimizers"][0]["state"]
    trainer.model.improve(3)
    assert not torch.equal(trainer.model.state_dict()["policy"]["actor.mu.weight"], before["actor.mu.weight"])


def _step(reward, terminated, truncated, valid, final, observation=None):
    flags = [torch.tensor(flag) for flag in (terminated, truncated, valid)]
    final = torch.tensor(final)[:, None]
    after = final if observation is None else torch.tensor(observation)[:, None]
    return Step(after, torch.tensor(reward), flags[0], flags[1], final, flags[2], {})


@pytest.mark.parametrize("learner", ALL)
def test_exploration_is_steered_to_the_entropy_that_was_asked_for(learner):
    low, high = (_trained(learner, target_entropy=target, critic_warmup=0) for target in (-3.0, 0.6))
    assert low.metrics[-1]["entropy_coef"] < SMALL.initial_entropy_coef < high.metrics[-1]["entropy_coef"]


def test_only_valid_steps_enter_and_ends_are_told_apart():
    replay = Replay(10, 10, 1, 1, RunningNormalizer(1), torch.device("cpu"))
    # Worlds: goes on; not valid; terminates; time limit; diverges (left out); terminates while nothing had an effect.
    step = _step(
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [False, False, True, False, False, True],
        [False, False, False, True, True, False],
        [True, False, True, True, False, False], [10.0, 20.0, 30.0, 40.0, 50.0, 60.0],
        [10.0, 20.0, -1.0, -1.0, -1.0, -1.0],
    )  # fmt: skip
    replay.add(torch.arange(6.0)[:, None], torch.arange(6.0)[:, None] / 10, step)
    rows = replay.with_rows(replay.state_dict())
    assert rows["count"] == len(replay) == 3
    assert rows["observations"].flatten().tolist() == [0.0, 2.0, 3.0]
    assert rows["actions"].flatten().tolist() == pytest.approx([0.0, 0.2, 0.3])
    assert rows["rewards"].flatten().tolist() == [1.0, 3.0, 4.0]
    assert rows["next_observations"].flatten().tolist() == [10.0, 30.0, 40.0]  # final ones, not those of a new episode
    assert rows["dones"].flatten().tolist() == [0.0, 1.0, 0.0]  # after the time limit something can still be earned


def test_the_newest_transitions_are_drawn_evenly_and_what_was_added_can_be_taken_back():
    replay = Replay(4, 3, 1, 1, RunningNormalizer(1), torch.device("cpu"))

    def add(*numbers):
        ones = [True] * len(numbers)
        noes = [False] * len(numbers)
        column = torch.tensor(numbers)[:, None]
        replay.add(column, column, _step(list(numbers), noes, noes, ones, list(numbers)))

    add(0.0, 1.0, 2.0)
    add(3.0, 4.0, 5.0)
    state = replay.state_dict()
    assert replay.with_rows(state)["rewards"].flatten().tolist() == [2.0, 3.0, 4.0, 5.0]
    add(6.0, 7.0, 8.0)
    assert sorted(set(replay.sample(200).rewards.flatten().tolist())) == [5.0, 6.0, 7.0, 8.0]
    saved = replay.with_rows(state)
    replay.load_state_dict(state)
    other = Replay(4, 3, 1, 1, RunningNormalizer(1), torch.device("cpu"))
    other.load_state_dict(saved)
    for each in (replay, other):
        assert each.with_rows(each.state_dict())["rewards"].flatten().tolist() == [2.0, 3.0, 4.0, 5.0]
        counts = torch.unique(each.sample(4000).rewards, return_counts=True)[1]
        assert counts.min() > 850


def test_observations_are_normalised_when_they_are_drawn():
    normalizer = RunningNormalizer(1)
    normalizer.update(torch.tensor([[8.0], [12.0]]))
    replay = Replay(4, 1, 1, 1, normalizer, torch.device("cpu"))
    replay.add(torch.tensor([[14.0]]), torch.zeros(1, 1), _step([1.0], [False], [False], [True], [12.0]))
    batch = replay.sample(2)
    assert batch.observations.flatten().tolist() == [2.0, 2.0]
    assert batch.next_observations.flatten().tolist() == [1.0, 1.0]


class _Phases(PointMass):
    """The first steps of each episode have no effect."""

    def step(self, action):
        valid = self._steps >= 4
        return super().step(action)._replace(valid=valid)


def test_steps_without_effect_are_not_learned_from():
    trainer = SAC(_Phases(4, dimensions=2, episode_steps=8), replace(SMALL, buffer_size=1000))
    trainer.train()
    # Episodes of 8 steps, new ones at each of the 4 iterations of 8 steps: half of the steps count.
    assert trainer.replay.count == 4 * 8 * 4 // 2
    assert trainer.metrics[-1]["valid_fraction"] == 0.5
    assert trainer.metrics[-1]["updates"] == (64 - 16) // 4


@pytest.mark.parametrize("prefer", [False, True])
@pytest.mark.parametrize("learner", ALL)
def test_deployment_is_the_deterministic_action_of_training(learner, prefer, tmp_path):
    trainer = _trained(learner, prefer=prefer, critic_warmup=0, learning_rate=0.05, total_steps=4 * 8 * 6)
    algorithm, network = trainer.model._model, trainer.network
    # Far apart, so that the critics prefer the residual for some and none for others.
    observations = 4.0 * torch.randn(512, 4, generator=torch.Generator("cpu").manual_seed(0))
    seen = trainer.normalizer(observations)
    with torch.no_grad():
        share = algorithm.actor(seen, deterministic=True)

        def value(action):
            found = algorithm.critic(seen, action)
            found = found if isinstance(found, torch.Tensor) else torch.stack(found, 1)
            return found.mean(-1).amin(1)

        better = value(share) > value(torch.zeros_like(share))
    wanted = torch.where(better[:, None], share, 0.0) if prefer else share
    assert 0 < better.sum() < 512 or not prefer
    policy = DeterministicPolicy(network)
    torch.testing.assert_close(policy(observations).tanh(), wanted, atol=2e-5, rtol=1e-4)
    assert wanted.any()

    network.save(tmp_path / "policy.safetensors", {"kind": "residual_b"})
    loaded, manifest = load_network(tmp_path / "policy.safetensors", "residual_b")
    assert manifest["network"]["class"] == "mlp_actor"
    assert manifest["network"]["critics"] == (2 if prefer else 0)
    loaded.save(tmp_path / "again.safetensors", {"kind": "residual_b"})
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "policy.safetensors").read_bytes()
    # Half precision keeps three digits; where the critics hardly care, it may decide.
    near = (DeterministicPolicy(loaded)(observations).tanh() - wanted).abs() < 0.02
    assert near.all(1).sum() >= (480 if prefer else 512)


@pytest.mark.parametrize("batch", [1, 3, 17])
@pytest.mark.parametrize("learner", ALL)
def test_result_of_a_row_does_not_depend_on_the_batch(learner, batch):
    policy = DeterministicPolicy(_trained(learner, prefer=True, critic_warmup=0, learning_rate=0.05).network)
    observations = torch.randn(64, 4)
    parts = torch.cat([policy(part) for part in observations.split(batch)])
    assert np.array_equal(policy(observations).numpy(), parts.numpy())


@pytest.mark.parametrize("learner", ALL)
def test_a_seed_gives_one_training_and_leaves_the_callers_generators_alone(learner):
    torch.manual_seed(3)
    np.random.seed(3)
    first = _trained(learner)
    drawn = torch.rand(2).tolist() + np.random.rand(2).tolist()
    torch.manual_seed(3)
    np.random.seed(3)
    assert drawn == torch.rand(2).tolist() + np.random.rand(2).tolist()
    second = _trained(learner)
    assert torch.equal(_numbers(first), _numbers(second))
    assert first.evaluations == second.evaluations
    assert not torch.equal(_numbers(first), _numbers(_trained(learner, seed=1)))


@pytest.mark.parametrize("learner", ALL)
def test_resumed_run_equals_uninterrupted(learner, tmp_path):
    whole = _trained(learner, tmp_path / "whole")
    assert whole.replay.count > SMALL.buffer_size  # it has gone round
    _trained(learner, tmp_path / "parts", total_steps=4 * 8 * 2)
    parts = learner(_env(), SMALL, out=tmp_path / "parts")
    assert parts.iteration == 2
    parts.train()
    assert torch.equal(_numbers(parts), _numbers(whole))
    assert parts.evaluations == whole.evaluations
    for name in ("metrics", "evaluations"):
        assert (tmp_path / "parts" / f"{name}.csv").read_text().startswith("iteration,steps")


class _InterruptedPointMass(PointMass):
    def __init__(self, after):
        super().__init__(4, dimensions=2, episode_steps=10)
        self.left = after

    def step(self, action):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return super().step(action)


def test_interruption_keeps_the_last_complete_iteration(tmp_path):
    # Every iteration is evaluated, so going on is as good as never having stopped.
    config = replace(SMALL, evaluate_every=1)
    whole = SAC(_env(), config)
    whole.train()
    # 10 steps of the base arm and 8 for the normaliser, two iterations of 8 and 10, then 5 steps of the third.
    stopped = SAC(_InterruptedPointMass(10 + 8 + 2 * 18 + 5), config, out=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    assert stopped.iteration == 2
    for trainer in (stopped, SAC(_env(), config, out=tmp_path)):
        trainer.train()
        assert torch.equal(_numbers(trainer), _numbers(whole))
        assert trainer.evaluations == whole.evaluations


def test_pauses_after_its_minutes(tmp_path):
    with pytest.raises(Paused, match="0 of 4 iterations"):
        SAC(_env(), SMALL, out=tmp_path).train(max_minutes=1e-9)
    with pytest.raises(Paused, match="1 of 4 iterations"):
        SAC(_env(), SMALL, out=tmp_path).train(max_minutes=1e-9)
    assert SAC(_env(), SMALL, out=tmp_path).iteration == 1


def test_a_folder_belongs_to_one_training(tmp_path):
    _trained(SAC, tmp_path, total_steps=1)
    with pytest.raises(FileError, match=r"algorithm is 'sac'; expected 'tqc'"):
        TQC(_env(), SMALL, out=tmp_path)
    with pytest.raises(FileError, match=r"off_policy\.gamma is 0\.99; expected 0\.9"):
        SAC(_env(), replace(SMALL, gamma=0.9), out=tmp_path)
    assert SAC(_env(), SMALL, out=tmp_path).iteration == 1


def _run():
    trainer = _trained(CrossQ, total_steps=4 * 8 * 2, critic_warmup=0, prefer=True)
    said = DeterministicPolicy(trainer.network)(torch.full((2, 4), 0.1, dtype=torch.float32, device="cpu"))
    return torch.cat([_numbers(trainer), said.flatten().double()]), trainer.evaluations


@pytest.fixture(scope="module")
def usual():
    return _run()


def test_settings_of_the_caller_change_nothing(usual, caller_settings):
    with caller_settings():
        numbers, evaluations = _run()
    assert numbers.device.type == "cpu"
    assert torch.equal(numbers, usual[0])
    assert evaluations == usual[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma": 1.5}, r"gamma is 1\.5"),
        ({"learning_rate": 0.0}, r"learning_rate is 0\.0; expected a positive number or None"),
        ({"updates_per_step": 0}, r"updates_per_step is 0; expected a positive number"),
        ({"train_freq": 65}, r"train_freq is 65; expected a whole number from 1 to 64"),
        ({"batch_size": 1}, r"batch_size is 1; expected a whole number of at least 2"),
        ({"hidden": ()}, r"hidden is \(\); expected at least one width"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(UsageError, match=message):
        OffPolicyConfig(**change)


def test_learners_by_name():
    assert {name: LEARNERS[name] for name in ("sac", "tqc", "crossq")} == {"sac": SAC, "tqc": TQC, "crossq": CrossQ}
