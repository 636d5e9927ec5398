import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dexcompose_agents.diffusion.noise import _mix, chunk_keys, standard_normal

INT64 = st.integers(-(2**63), 2**63 - 1)


def keys(seeds, chunks):
    """Keys of all combinations, (seeds, chunks)."""
    seeds, chunks = torch.arange(seeds), torch.arange(chunks)
    return chunk_keys(seeds.repeat_interleave(len(chunks)), chunks.repeat(len(seeds))).reshape(len(seeds), -1)


@given(INT64)
def test_the_hash_is_that_of_splitmix64(value):
    z = value % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    assert _mix(torch.tensor([value])).item() % 2**64 == z ^ (z >> 31)


def test_numbers_are_standard_normal():
    numbers = standard_normal(keys(100, 10).flatten(), 0, (32, 28)).double().flatten()
    count = len(numbers)  # 896,000
    # Five standard errors: of the mean 1, of the square sqrt(2), of the fourth power sqrt(96).
    for power, expected, deviation in [(1, 0.0, 1.0), (2, 1.0, 2**0.5), (3, 0.0, 15**0.5), (4, 3.0, 96**0.5)]:
        assert abs((numbers**power).mean() - expected) < 5 * deviation / count**0.5
    assert 4.5 < numbers.abs().max() < 5.8
    # Kolmogorov-Smirnov at one in a thousand.
    expected = torch.special.ndtr(numbers.sort().values)
    assert (expected - (torch.arange(count) + 0.5) / count).abs().max() < 1.95 / count**0.5


@pytest.mark.parametrize(
    "pair",
    [
        lambda x: (x[1:], x[:-1]),  # seeds
        lambda x: (x[:, 1:], x[:, :-1]),  # chunks
        lambda x: (x[:, :, 1:], x[:, :, :-1]),  # denoising steps
        lambda x: (x[..., 1:, :], x[..., :-1, :]),  # actions
        lambda x: (x[..., 1:], x[..., :-1]),  # numbers of an action
        lambda x: (x[1:, :-1], x[:-1, 1:]),  # seed + chunk
    ],
)
@pytest.mark.parametrize("of", [lambda x: x, lambda x: x.square() - 1], ids=["values", "squares"])
def test_neighbours_are_independent(pair, of):
    numbers = torch.stack([standard_normal(keys(40, 8).flatten(), step, (32, 28)) for step in range(3)], dim=1)
    one, other = (of(side).double().flatten() for side in pair(numbers.reshape(40, 8, 3, 32, 28)))
    correlation = (one * other).mean() / (one.square().mean() * other.square().mean()).sqrt()
    assert abs(correlation) < 5 / len(one) ** 0.5


def test_no_two_chunks_have_the_same_noise():
    found = keys(2000, 100).flatten()
    assert len(found.unique()) == len(found)
    first = standard_normal(found, 0, (2,)).numpy().view(np.int64)
    second = standard_normal(found, 1, (2,)).numpy().view(np.int64)
    assert len(np.unique(np.concatenate([first, second]))) == 2 * len(found)


@given(st.lists(st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**40)), min_size=1, max_size=9), st.data())
def test_noise_does_not_depend_on_the_batch(worlds, data):
    seeds, chunks = torch.tensor(worlds, dtype=torch.int64).T
    together = standard_normal(chunk_keys(seeds, chunks), 3, (8, 28))
    assert together.isfinite().all()
    rows = data.draw(st.lists(st.integers(0, len(worlds) - 1), min_size=1))
    torch.testing.assert_close(standard_normal(chunk_keys(seeds[rows], chunks[rows]), 3, (8, 28)), together[rows])


def test_noise_is_pinned():
    # Results that were published with the package can be repeated only as long as this holds.
    found = standard_normal(chunk_keys(torch.tensor([0, 7]), torch.tensor([0, 2])), 1, (2, 2))
    expected = [[[-1.647645, -0.026779], [1.629515, -0.936884]], [[-0.610860, 1.465911], [0.049364, 1.947729]]]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)
