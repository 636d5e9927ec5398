"""Numbers by hand, and properties that hold for any data."""

from __future__ import annotations

import math
import statistics as stdlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexcompose_agents.evaluation.statistics import (
    bootstrap_interval,
    mean_and_sd,
    paired_difference,
    wilson_interval,
)

counts = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_wilson_by_hand() -> None:
    """z = 1.959964, z^2 = 3.841459, n = 10, p = 0.8.

    Centre: (0.8 + 3.841459/20) / (1 + 0.3841459) = 0.9920729/1.3841459 = 0.716740.
    Half width: 1.959964 * sqrt(0.8*0.2/10 + 3.841459/400) / 1.3841459 = 1.959964 * 0.160012/1.3841459 = 0.226577.
    """
    interval = wilson_interval(8, 10)
    assert interval.low == pytest.approx(0.716740 - 0.226577, abs=2e-6)
    assert interval.high == pytest.approx(0.716740 + 0.226577, abs=2e-6)


def test_wilson_at_the_ends() -> None:
    """With 0 of n the upper bound is z^2 / (n + z^2); with no trial nothing is known."""
    z2 = stdlib.NormalDist().inv_cdf(0.975) ** 2
    assert wilson_interval(0, 32).low == 0.0
    assert wilson_interval(0, 32).high == pytest.approx(z2 / (32 + z2))
    assert wilson_interval(32, 32).high == 1.0
    assert wilson_interval(32, 32).low == pytest.approx(32 / (32 + z2))
    assert (wilson_interval(0, 0).low, wilson_interval(0, 0).high) == (0.0, 1.0)


@given(counts)
def test_wilson_contains_the_proportion_and_mirrors(count: tuple[int, int]) -> None:
    """The interval contains p, stays in [0, 1], and failures have the mirrored interval."""
    successes, trials = count
    interval, mirrored = wilson_interval(successes, trials), wilson_interval(trials - successes, trials)
    assert 0.0 <= interval.low <= successes / trials <= interval.high <= 1.0
    assert interval.low < interval.high
    assert interval.low == pytest.approx(1.0 - mirrored.high, abs=1e-12)


@given(counts, st.floats(0.5, 0.98))
def test_wilson_grows_with_confidence(count: tuple[int, int], confidence: float) -> None:
    """More confidence, wider interval."""
    narrow, wide = wilson_interval(*count, confidence), wilson_interval(*count, confidence + 0.015)
    assert wide.low <= narrow.low and narrow.high <= wide.high


@pytest.mark.parametrize(("successes", "trials"), [(3, 2), (-1, 2)])
def test_wilson_refuses_nonsense(successes: int, trials: int) -> None:
    """Impossible counts are errors."""
    with pytest.raises(ValueError, match="expected 0 <= successes"):
        wilson_interval(successes, trials)


def test_mean_and_sample_sd_by_hand() -> None:
    """Mean of 0.5, 0.7, 0.9 is 0.7; the squared deviations 0.04 + 0 + 0.04 over n - 1 = 2 give SD 0.2."""
    summary = mean_and_sd([0.5, 0.7, 0.9])
    assert summary == {"mean": pytest.approx(0.7), "sd": pytest.approx(0.2), "count": 3}
    assert mean_and_sd([0.5]) == {"mean": 0.5, "sd": None, "count": 1}


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_sample_sd_agrees_with_the_standard_library(values: list[float]) -> None:
    """The divisor is n - 1."""
    summary = mean_and_sd(values)
    assert math.isclose(summary["sd"], stdlib.stdev(values), abs_tol=1e-9)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=13, unique=True))
def test_bootstrap_stays_within_the_data_and_repeats(values: list[float]) -> None:
    """A mean of resampled values lies between their extremes, and the same data give the same interval."""
    interval = bootstrap_interval(values)
    assert interval is not None
    assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9
    assert interval == bootstrap_interval(values)


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_intervals_have_their_level(confidence: float) -> None:
    """The mean of 1,000 values 0 or 1, half of each, has the standard error 0.5/sqrt(1000) = 0.01581.

    So the interval is 0.5 -+ z * 0.01581, z = 1.960 for 95 % and 0.6745 for 50 %. The 2,000 resamples place its ends to
    about 0.06 standard errors; four of these are allowed. Differences of -1, 0, 1 in shares 1/4, 1/2, 1/4 have the
    variance 1/2; averaged over two such pairs of skills with 1,000 episodes each, sqrt(0.5/1000/2) = 0.01581 again.
    """
    z = stdlib.NormalDist().inv_cdf(0.5 + confidence / 2)
    rates = bootstrap_interval([0.0, 1.0] * 500, confidence)
    _, differences = paired_difference([[-1, 0, 0, 1] * 250] * 2, confidence)
    assert rates is not None and differences is not None
    for interval, centre in ((rates, 0.5), (differences, 0.0)):
        assert interval.low == pytest.approx(centre - z * 0.01581, abs=0.004)
        assert interval.high == pytest.approx(centre + z * 0.01581, abs=0.004)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 1.0, 1.0]])
def test_no_interval_without_scatter(values: list[float]) -> None:
    """One seed, or seeds that all agree, say nothing about how far seeds scatter: no interval of 100 to 100."""
    assert bootstrap_interval(values) is None


def test_paired_difference_by_hand() -> None:
    """Differences +1, 0, +1 on one pair and -1, 0 on another: (2/3 - 1/2)/2 = 1/12; every pair weighs the same."""
    difference, interval = paired_difference([[1, 0, 1], [-1, 0]])
    assert difference == pytest.approx(1 / 12)
    # At the extremes the first pair has all of 1 or all of 0, the second all of -1 or all of 0.
    assert interval is not None and -0.5 <= interval.low <= difference <= interval.high <= 0.5
    assert paired_difference([[1, 1, 1]]) == (1.0, None)
    for pairs in ([], [[]]):
        with pytest.raises(ValueError, match="no episode seed in common"):
            paired_difference(pairs)


@given(st.lists(st.integers(-1, 1), min_size=1, max_size=40))
def test_paired_difference_mirrors(differences: list[int]) -> None:
    """The mean lies in its interval, and exchanging the methods mirrors the mean."""
    difference, interval = paired_difference([differences])
    assert paired_difference([[-value for value in differences]])[0] == pytest.approx(-difference)
    assert (interval is None) == (len(set(differences)) == 1)
    if interval is not None:
        assert interval.low <= difference <= interval.high
