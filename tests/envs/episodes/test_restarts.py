"""Starts drawn ahead of time are those that would have been drawn at once."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dexcompose_envs.arrays import Arrays
from dexcompose_envs.episodes.readback import LaggedReader
from dexcompose_envs.episodes.restarts import Restarts, StartQueue

CPU = Arrays.torch("cpu")


def draw(rngs):
    return np.stack([rng.uniform(size=2) for rng in rngs]) if rngs else np.zeros((0, 2))


@settings(deadline=None)
@given(st.lists(st.tuples(st.lists(st.booleans(), min_size=3, max_size=3), st.integers(0, 6)), max_size=20))
def test_masked_restarts_equal_immediate_draws(steps):
    rngs, twins = ([np.random.default_rng(seed) for seed in range(3)] for _ in range(2))
    restarts = Restarts(CPU, draw, rngs, width=2)
    for ended, by_hand in steps:
        restarts.catch_up()
        restarts.report(None, None)
        rows = restarts.take(torch.tensor(ended)).numpy()
        for world in np.flatnonzero(ended):
            np.testing.assert_array_equal(rows[world], draw([twins[world]])[0].astype(np.float32))
        if by_hand < 3:  # a reset by hand in between: the generator must be where it would have been
            restarts.settle(np.array([by_hand]))
            np.testing.assert_array_equal(draw([rngs[by_hand]]), draw([twins[by_hand]]))


@settings(deadline=None)
@given(st.integers(1, 3), st.lists(st.booleans(), min_size=1, max_size=30))
def test_a_host_that_lags_never_lets_a_world_run_dry(lag, ended):
    rngs, twins = ([np.random.default_rng(5)] for _ in range(2))
    queue, reader = StartQueue(CPU, draw, rngs, depth=lag + 2, width=2), LaggedReader(lag)
    for end in ended:
        for used in reader.due():
            queue.learn(used)
        queue.fill()
        reader.push(queue.used)
        for used in reader.due():
            queue.learn(used)
        row = queue.take(torch.tensor([end])).numpy()[0]
        if end:
            np.testing.assert_array_equal(row, draw(twins)[0].astype(np.float32))


def test_the_reader_hands_over_copies_in_order_and_late():
    reader, value = LaggedReader(2), torch.zeros(1, dtype=torch.int64)
    seen = []
    for step in range(5):
        value.fill_(step)
        reader.push(value)
        seen.append([int(item[0]) for item in reader.due()])
    assert seen == [[], [], [0], [1], [2]]
    assert [int(item[0]) for item in reader.all()] == [3, 4]
