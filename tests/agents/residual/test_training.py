"""Both trainings end to end on the real environments, tiny."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dexcompose_agents.residual import residual_b_preset, stabiliser_preset
from dexcompose_agents.residual.config import ResidualBConfig, StabiliserConfig
from dexcompose_agents.residual.residual_b import ResidualBPolicy
from dexcompose_agents.residual.residual_b_task import ResidualBTask, composite_reward
from dexcompose_agents.residual.rollout import RolloutEnv
from dexcompose_agents.residual.stabiliser import StabiliserPolicy
from dexcompose_agents.residual.stabiliser_task import StabiliserTask, retention_reward
from dexcompose_agents.residual.training import train_residual_b, train_stabiliser
from dexcompose_envs.ownership import FingerMask

MASK = FingerMask.parse("TH+MF+RF+LF")
PAIR = "GraspBall-PushButton"


class StayPut:
    """Stand-in for pi_B: commands the joint positions that it observes."""

    def reset(self, num_envs):
        self.calls = 0

    def seed_envs(self, seeds, env_ids=None):
        pass

    def reset_envs(self, env_ids):
        pass

    def hide_fingers(self, fingers):
        self.hidden = tuple(fingers)

    def act(self, task_obs, env_ids=None):
        self.calls += 1
        return np.clip(task_obs[:, :28], -1, 1)


def test_rewards_by_hand():
    # Eq. 13: -0.01 - 0.001 * (0.1^2 + 0.2^2) = -0.01005
    residual = np.array([[0.1, 0.2]], np.float32)
    assert retention_reward(np.array([0.01], np.float32), residual, 0.001)[0] == pytest.approx(-0.01005)
    # Eq. 14: 5 * 0.2 + 5 * 1 - 1 * 0.01 - 0.001 * 0.05 = 5.98995
    one = np.ones(1, np.float32)
    total = composite_reward(0.2 * one, one, 0.01 * one, residual, ResidualBConfig())
    assert total[0] == pytest.approx(5.98995)


def test_stabiliser_task_is_deterministic_and_moves_the_hand():
    config = stabiliser_preset("test")
    runs = []
    for _ in range(2):
        task = StabiliserTask("GraspBall", config)
        assert isinstance(task, RolloutEnv)
        first = task.reset(5)
        steps = [task.step(torch.zeros(2, 22)) for _ in range(25)]  # longer than an episode of 20
        task.close()
        runs.append(torch.stack([first, *(step.observation for step in steps)]))
    assert torch.equal(*runs)
    assert torch.isfinite(runs[0]).all()
    assert steps[19].truncated.all()
    assert not torch.equal(steps[19].final_observation, steps[19].observation)
    assert torch.equal(steps[18].final_observation, steps[18].observation)


def test_train_stabiliser_writes_a_policy(tmp_path):
    config = stabiliser_preset("test")
    trained = train_stabiliser("GraspBall", config, tmp_path)
    loaded = StabiliserPolicy.load(tmp_path / "stabiliser.safetensors")
    assert (loaded.skill, loaded.bound, [str(m) for m in loaded.masks]) == ("GraspBall", 0.15, ["TH+MF+RF+LF"])
    assert trained.masks == loaded.masks
    header = (tmp_path / "evaluations.csv").read_text().splitlines()[0]
    assert "base_held" in header and "composed_held" in header
    again = train_stabiliser("GraspBall", config, tmp_path)  # resumes at the end: nothing left to do
    assert again.bound == trained.bound
    with pytest.raises(ValueError, match="expected a residual_b"):
        ResidualBPolicy.load(tmp_path / "stabiliser.safetensors")


def test_train_residual_b_learns_from_interaction_only(tmp_path):
    config = residual_b_preset("test")
    stabiliser = train_stabiliser("GraspBall", stabiliser_preset("test"), tmp_path / "a")
    options = {"max_episode_steps": 60}
    policy = StayPut()
    task = ResidualBTask(PAIR, MASK, policy, stabiliser, config, **options)
    assert policy.hidden == MASK.preserved
    task.reset(3)
    steps = [task.step(torch.zeros(2, 28)) for _ in range(60)]
    task.close()
    valid = torch.stack([step.valid for step in steps])
    alive = ~torch.stack([step.terminated for step in steps]).any(0)
    assert alive.any(), "the held object survives a slow transition"
    assert not valid[:50, alive].any()
    assert valid[50:, alive].all()
    assert steps[59].truncated[alive].all()

    trained = train_residual_b(PAIR, MASK, StayPut(), stabiliser, config, tmp_path / "b", **options)
    assert trained.mask == MASK
    assert "composed_success" in (tmp_path / "b" / "evaluations.csv").read_text()


def test_settings_name_what_is_wrong():
    with pytest.raises(ValueError, match="unknown preset 'gpu'; expected one of cpu, paper, test"):
        stabiliser_preset("gpu")
    with pytest.raises(ValueError, match="bound is -1"):
        StabiliserConfig(bound=-1)
    with pytest.raises(ValueError, match="masks is"):
        StabiliserConfig(masks=())
    paper = stabiliser_preset("paper").ppo
    assert (paper.num_envs, paper.horizon, paper.iterations) == (1024, 24, 1000)
    assert residual_b_preset("paper").ppo.iterations == 1000
    assert replace(paper, total_steps=1).iterations == 1
