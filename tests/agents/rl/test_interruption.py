"""Ctrl-C or SIGTERM at any line of a training: nothing is torn, and going on gives what was to come anyway."""

import copy
import sys
from pathlib import Path

import pytest
import torch

from dexcompose_agents.rl import ppo
from dexcompose_agents.rl.config import PPOConfig
from dexcompose_agents.rl.point_mass import PointMass
from dexcompose_agents.rl.ppo import PPO

# Every iteration is evaluated, so episodes start afresh at each; going on is then as good as never having stopped.
CONFIG = PPOConfig(num_envs=2, horizon=3, total_steps=18, hidden=(4,), evaluate_every=1, epochs=1, minibatches=2)
FILES = {str(Path(ppo.__file__).parent), str(Path(torch.optim.__file__).parent), copy.__file__}


class _Interruption:
    """Raises at the n-th line that runs in the learner, the optimiser or `copy`; counts them."""

    def __init__(self, at=None):
        self.at, self.lines = at, 0

    def __enter__(self):
        sys.settrace(self._enter)
        return self

    def __exit__(self, *error):
        sys.settrace(None)

    def _enter(self, frame, event, argument):
        name = frame.f_code.co_filename
        return self._line if name in FILES or str(Path(name).parent) in FILES else None

    def _line(self, frame, event, argument):
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                raise KeyboardInterrupt
        return self._line


def _trainer(out=None):
    return PPO(PointMass(2, dimensions=2, episode_steps=3), CONFIG, out=out)


def _end(trainer):
    """All that a finished training amounts to."""
    weights = [*trainer.network.state_dict().values(), *trainer.best_network.state_dict().values()]
    moments = [value for state in trainer.optimizer.state.values() for value in state.values()]
    return torch.cat([value.flatten().double() for value in weights + moments]), trainer.evaluations


@pytest.fixture(scope="module")
def whole():
    """An undisturbed training, and the number of its lines."""
    trainer = _trainer()
    with _Interruption() as counted:
        trainer.train()
    return *_end(trainer), counted.lines


@pytest.mark.parametrize("part", range(16))
def test_interrupted_anywhere(tmp_path, whole, part):
    weights, evaluations, lines = whole
    trainer = _trainer(tmp_path)
    with pytest.raises(KeyboardInterrupt), _Interruption(1 + (2 * part + 1) * lines // 32):
        trainer.train()
    reached = trainer.iteration
    resumed = _trainer(tmp_path)
    assert resumed.iteration == len(resumed.metrics) == reached
    for each in (trainer, resumed):  # the same object goes on as well as another one
        each.train()
        end = _end(each)
        assert torch.equal(end[0], weights)
        assert end[1] == evaluations
