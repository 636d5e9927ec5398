"""The trainer: it learns, it resumes exactly, and an interruption loses nothing."""

import csv
from dataclasses import replace

import pytest
import torch

from dexcompose_agents.rl.config import PPOConfig
from dexcompose_agents.rl.point_mass import PointMass
from dexcompose_agents.rl.ppo import PPO
from dexcompose_agents.rl.rollout import RolloutEnv, Step
from dexcompose_agents.runtime.interrupts import Paused
from dexcompose_envs.errors import FileError, UsageError

from ...host_reads import HostReads

SMALL = PPOConfig(num_envs=8, horizon=16, total_steps=8 * 16 * 6, hidden=(32, 32), evaluate_every=2, epochs=2)


def _weights(network):
    return torch.cat([value.flatten().double() for value in network.state_dict().values()])


def test_point_mass_is_a_rollout_env():
    assert isinstance(PointMass(2), RolloutEnv)


def test_learns_the_point_mass():
    config = PPOConfig(
        num_envs=32, horizon=24, total_steps=32 * 24 * 30, hidden=(64, 64), evaluate_every=15, learning_rate=1e-3
    )
    trainer = PPO(PointMass(32, dimensions=4), config)
    trainer.train()
    last = trainer.evaluations[-1]
    assert last["composed_return"] > 1.15 * last["base_return"]


def test_step_sizes_fall_to_zero_with_the_budget():
    rates = []

    class Watched(PPO):
        def _update(self, rollout, pace):
            row = super()._update(rollout, pace)
            rates.append(self.optimizer.param_groups[0]["lr"])
            return row

    for anneal, expected in ((False, [0.01] * 4), (True, [0.01, 0.0075, 0.005, 0.0025])):
        rates.clear()
        config = replace(SMALL, total_steps=4 * SMALL.num_envs * SMALL.horizon, learning_rate=0.01, anneal=anneal)
        Watched(PointMass(8), config).train()
        assert rates == pytest.approx(expected)


def test_a_task_may_name_a_shortcut():
    task = PointMass(8)
    assert PPO(task, SMALL).network.shortcut is None
    task.shortcut = (0, 2)
    assert PPO(task, SMALL).network.shortcut == (0, 2)


def test_first_minibatch_has_ratio_one():
    trainer = PPO(PointMass(8), SMALL)
    rollout, _, _ = trainer._collect(trainer._restart())
    mean, value = trainer.network(rollout.observations)
    torch.testing.assert_close(trainer.network.log_prob(mean, rollout.actions), rollout.log_probs)
    torch.testing.assert_close(value, rollout.values)


class _Counter:
    """Observes t and t^2, the steps its episode has lasted; cut off after `limit` steps, all worlds alike."""

    observation_size, action_size, device = 4, 1, torch.device("cpu")

    def __init__(self, num_envs=2, limit=3, valid_from=0):
        self.num_envs, self.limit, self.valid_from, self.t = num_envs, limit, valid_from, 0

    def _row(self, t):
        return torch.tensor([[t, t**2, 0.0, -1.0]], dtype=torch.float32).repeat(self.num_envs, 1)

    def reset(self, seed):
        self.t = 0
        return self._row(0)

    def step(self, action):
        valid = torch.full((self.num_envs,), self.t >= self.valid_from)
        self.t += 1
        final = self._row(self.t)
        ended = torch.full((self.num_envs,), self.t == self.limit)
        self.t %= self.limit
        no = torch.zeros_like(ended)
        return Step(self._row(self.t), torch.ones(self.num_envs), no, ended, final, valid, {"t": final[:, 0]})


def test_truncated_step_is_valued_at_its_final_observation():
    config = replace(SMALL, num_envs=2, horizon=4, evaluate_every=10)
    trainer = PPO(_Counter(), config)
    rollout, _, _ = trainer._collect(trainer._restart())
    value = [float(trainer.network(trainer.env._row(t))[1][0].detach()) for t in range(4)]
    assert len(set(value)) == 4
    # Steps lead to t = 1, 2, 3 (cut off there, not 0), and 1 of the next episode.
    assert rollout.next_values[:, 0].tolist() == pytest.approx([value[1], value[2], value[3], value[1]])
    assert rollout.ended[:, 0].tolist() == [False, False, True, False]


def test_only_valid_steps_are_learned_from():
    config = replace(SMALL, num_envs=2, horizon=6)
    trainer = PPO(_Counter(valid_from=3), config)
    before = _weights(trainer.network)
    rollout, _, row = trainer._collect(torch.zeros(2, 4))
    assert row["valid_fraction"] == 0.0
    trainer._update(rollout)
    assert torch.equal(_weights(trainer.network), before)


def test_evaluation_counts_each_episode_once_at_its_end():
    trainer = PPO(_Counter(num_envs=8), replace(SMALL, evaluation_rounds=2))
    # Three steps of reward 1; the metric's value at the last of them is 3.
    assert trainer.evaluate(None) == {"return": 3.0, "t": 3.0}


def test_resumed_run_equals_uninterrupted(tmp_path):
    whole = PPO(PointMass(8), SMALL, out=tmp_path / "whole")
    whole.train()
    # The normaliser has seen 17 observations of the base arm and 6 iterations of 16 steps, of 8 worlds.
    assert whole.network.normalizer.count.item() == 8 * 17 + 8 * 16 * 6
    PPO(PointMass(8), replace(SMALL, total_steps=8 * 16 * 2), out=tmp_path / "parts").train()
    parts = PPO(PointMass(8), SMALL, out=tmp_path / "parts")
    assert parts.iteration == 2
    parts.train()
    assert torch.equal(_weights(parts.network), _weights(whole.network))
    assert torch.equal(_weights(parts.best_network), _weights(whole.best_network))
    assert parts.evaluations == whole.evaluations


class _Interrupted(PointMass):
    def __init__(self, num_envs, after):
        super().__init__(num_envs)
        self.left = after

    def step(self, action):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return super().step(action)


def test_interruption_keeps_the_last_complete_iteration(tmp_path):
    # 50 evaluation steps and 16 warm-up steps come before the first iteration of 16 steps.
    reached = []
    env = _Interrupted(8, after=50 + 16 + 16 + 5)
    trainer = PPO(env, SMALL, out=tmp_path, progress=lambda row: reached.append(_weights(trainer.network)))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    resumed = PPO(PointMass(8), SMALL, out=tmp_path)
    assert resumed.iteration == 1
    assert torch.equal(_weights(resumed.network), reached[0])
    resumed.train()
    assert resumed.iteration == 6
    with open(tmp_path / "metrics.csv", newline="") as file:
        assert [row["iteration"] for row in csv.DictReader(file)] == ["1", "2", "3", "4", "5", "6"]


def test_training_in_pieces_equals_training_at_once(tmp_path):
    # Every iteration is evaluated here, so that every piece ends where episodes start afresh anyway.
    config = replace(SMALL, evaluate_every=1, total_steps=8 * 16 * 3)
    whole = PPO(PointMass(8), config)
    whole.train()
    pieces = 0
    while True:
        part = PPO(PointMass(8), config, out=tmp_path)
        try:
            part.train(max_minutes=1e-9)
            break
        except Paused as pause:
            pieces += 1
            assert f"after {part.iteration} of 3 iterations" in str(pause)
    assert pieces == 6  # first evaluation, iteration, evaluation, iteration, evaluation, iteration; then the last one
    assert torch.equal(_weights(part.network), _weights(whole.network))
    assert part.evaluations == whole.evaluations


def test_a_pause_between_evaluations_keeps_the_last_iteration(tmp_path):
    config = replace(SMALL, evaluate_every=6)
    for iteration in (0, 1, 2, 3):
        trainer = PPO(PointMass(8), config, out=tmp_path)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(max_minutes=1e-9)
        assert trainer.iteration == iteration
        assert [row["iteration"] for row in trainer.evaluations] == [0.0]
    trainer.train()
    assert [row["iteration"] for row in trainer.evaluations] == [0.0, 6.0]
    with pytest.raises(ValueError, match="max_minutes is 0"):
        trainer.train(max_minutes=0)


def test_nothing_is_read_back_in_a_control_step():
    trainer = PPO(PointMass(8, episode_steps=5), SMALL)
    observation = trainer._restart()
    with HostReads() as reads:
        rollout, _, row = trainer._collect(observation)
    assert row["episode_distance"] > 0
    assert reads == ["tolist"], "once per iteration, for the log"
    trainer.optimizer = torch.optim.SGD(trainer.network.parameters())  # Adam counts its steps on the host.
    with HostReads() as reads:
        trainer._update(rollout)
    assert reads == ["aten::index"] * 5 + ["tolist"], "valid steps are picked and numbers logged, once per iteration"


def test_logged_means_are_those_of_the_episodes_that_ended():
    trainer = PPO(_Counter(), replace(SMALL, num_envs=2, horizon=4, evaluate_every=10))
    _, _, row = trainer._collect(trainer._restart())
    assert row["episode_t"] == 3.0
    trainer.config = replace(trainer.config, horizon=2)
    _, _, row = trainer._collect(trainer._restart())
    assert row["episode_t"] != row["episode_t"], "NaN: none ended"


def test_task_and_network_must_share_the_gpu():
    class Elsewhere(PointMass):
        def __init__(self):
            super().__init__(8)
            self.device = torch.device("cuda", 1)

    with pytest.raises(ValueError, match="the task is on cuda:1; the settings say device='cpu'"):
        PPO(Elsewhere(), SMALL)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device is 'cuda'"):
            PPO(PointMass(8), replace(SMALL, device="cuda"))


def test_never_returns_less_than_the_base_arm():
    # A step size that ruins the policy at once: the base arm, a residual of zero, stays the best.
    trainer = PPO(PointMass(8), replace(SMALL, learning_rate=3.0, clip=50.0))
    best = trainer.train()
    scores = [row["composed_return"] for row in trainer.evaluations]
    assert trainer.evaluate(best.mean)["return"] == pytest.approx(max(scores), abs=1e-3)
    assert max(scores) >= trainer.evaluations[0]["base_return"]


def test_time_budget_ends_training():
    trainer = PPO(PointMass(8), replace(SMALL, max_seconds=0.0))
    trainer.train()
    assert trainer.iteration == 0
    assert len(trainer.evaluations) == 1


def test_broken_checkpoint_is_one_clear_line(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="truncated, damaged or foreign"):
        PPO(PointMass(8), SMALL, out=tmp_path)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"identity": {"skill": "PickStick", "masks": ["TH"]}}, "skill is 'GraspBall'; expected 'PickStick'"),
        ({}, {"identity": {"skill": "GraspBall", "masks": ["TH", "FF"]}}, r"masks is \['TH'\]; expected"),
        ({"learning_rate": 1e-3}, {}, r"ppo\.learning_rate is 0\.0003; expected 0\.001"),
        ({"seed": 1}, {}, r"ppo\.seed is 0; expected 1"),
        ({}, {"score": ("distance",)}, "score is"),
        ({}, {"env": PointMass(8, dimensions=3)}, "observation_size is 16; expected 6"),
    ],
)
def test_a_folder_belongs_to_one_training(tmp_path, change, options, message):
    def trainer(change, **options):
        given = {"env": PointMass(8), "identity": {"skill": "GraspBall", "masks": ("TH",)}} | options
        return PPO(given.pop("env"), replace(SMALL, **{"total_steps": 1, **change}), out=tmp_path, **given)

    trainer({}).train()
    with pytest.raises(FileError, match=message) as refusal:
        trainer(change, **options)
    assert str(tmp_path) in str(refusal.value) and "\n" not in str(refusal.value)
    trainer({"max_seconds": 60.0}).train()  # how long it takes does not make it another one
    trainer({"total_steps": SMALL.total_steps}).train()  # nor does a budget that grew
    with pytest.raises(UsageError, match=r"total_steps is 1, 1 iterations; .* has made 6 already"):
        trainer({})


def test_settings_are_checked(tmp_path):
    with pytest.raises(UsageError, match=r"gamma is 1\.5"):
        PPOConfig(gamma=1.5)
    with pytest.raises(UsageError, match=r"num_envs is 1\.5; expected a whole number of at least 1"):
        PPOConfig(num_envs=1.5)
    with pytest.raises(UsageError, match=r"target_kl is 0\.0"):
        PPOConfig(target_kl=0.0)
    with pytest.raises(ValueError, match="the task has 4 worlds"):
        PPO(PointMass(4), SMALL)
    with pytest.raises(UsageError, match="score names"):
        PPO(PointMass(8), SMALL, score=("success",), out=tmp_path).train()
    assert not any(tmp_path.iterdir()), "what fails before it has done anything takes no folder"
