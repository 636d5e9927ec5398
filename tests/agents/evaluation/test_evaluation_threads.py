"""Rollouts run on one thread of torch's, whatever the caller has, who gets back what it had."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dexcompose_agents.evaluation import evaluate
from dexcompose_agents.methods import make_method
from dexcompose_envs.rollouts import AgentError

from .fakes import FakeMethod, FakeWorlds

PAIR = "GraspBall-PushButton"


class Watched:
    """Another method, whose actions and number of threads at each step are kept; NaN from some step on."""

    def __init__(self, method: Any, spoilt_from: float = np.inf) -> None:
        """Watches ``method``."""
        self.name, self._method, self._spoilt_from = method.name, method, spoilt_from
        self.actions: list[Any] = []
        self.threads: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._method, name)

    def act(self, obs: dict[str, Any]) -> Any:
        """What the other says."""
        self.threads.append(torch.get_num_threads())
        self.actions.append(self._method.act(obs))
        return self.actions[-1] * (np.nan if len(self.actions) > self._spoilt_from else 1.0)


def test_a_method_acts_on_one_thread(torch_threads: Any, tmp_path: Any) -> None:
    """Also where the progress is told; afterwards the caller has its number again."""
    torch_threads(2)
    method = Watched(FakeMethod())
    evaluate(PAIR, method, seeds=1, rollouts=4, num_envs=2, worlds=FakeWorlds, out=tmp_path)
    assert set(method.threads) == {1}
    assert torch.get_num_threads() == 2


def test_the_callers_threads_come_back_after_an_error(torch_threads: Any) -> None:
    """Whether the method or the worlds fail."""
    torch_threads(2)
    with pytest.raises(AgentError):
        evaluate(PAIR, Watched(FakeMethod(), 2), seeds=1, rollouts=4, worlds=FakeWorlds)
    assert torch.get_num_threads() == 2

    def failing(pair: str, num_envs: int) -> FakeWorlds:
        return FakeWorlds(pair, num_envs, interrupt_after=2)

    with pytest.raises(KeyboardInterrupt):
        evaluate(PAIR, FakeMethod(), seeds=1, rollouts=4, worlds=failing)
    assert torch.get_num_threads() == 2


def test_rollouts_are_the_same_for_any_number_of_threads(torch_threads: Any) -> None:
    """The whole method, to the last bit of every action."""
    methods, records = [], []
    for threads in (1, 2):
        torch_threads(threads)
        methods.append(Watched(make_method("dexcompose", PAIR)))
        records.append(evaluate(PAIR, methods[-1], seeds=1, rollouts=2).records)
    assert records[0] == records[1]
    np.testing.assert_array_equal(*(np.array(method.actions) for method in methods))
    assert set(methods[1].threads) == {1}
