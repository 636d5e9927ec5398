"""Statistics of success rates: means and sample SDs over seeds, Wilson and bootstrap intervals, paired differences.

The unit of replication is the *seed* (a block of rollouts); the Wilson interval treats the rollouts of one pair as
independent Bernoulli trials. Both are reported, because each answers another question: the SD says how far the mean
of one block of rollouts scatters, the interval how well the success rate of one pair is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

BOOTSTRAP_RESAMPLES = 2000
"""Resamples of a bootstrap interval; its random generator is seeded, so the same data give the same interval."""


class Interval(NamedTuple):
    """A confidence interval ``[low, high]`` on the scale of its data."""

    low: float
    high: float


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a binomial proportion.

    With ``p = successes / trials`` and the normal quantile ``z``, the interval is
    ``(p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)`` (Wilson 1927). Unlike the normal approximation it
    stays inside [0, 1] and has a positive width at 0 % and at 100 %. With no trials it is [0, 1].

    Raises:
        ValueError: If ``0 <= successes <= trials`` does not hold.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"expected 0 <= successes <= trials, got successes={successes}, trials={trials}")
    if trials == 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    p = successes / trials
    denominator = 1.0 + z * z / trials
    centre = p + z * z / (2.0 * trials)
    half_width = z * sqrt(p * (1.0 - p) / trials + z * z / (4.0 * trials * trials))
    # At 0 and n successes the exact bound is 0 and 1; the formula misses it by a rounding error.
    low = 0.0 if successes == 0 else (centre - half_width) / denominator
    high = 1.0 if successes == trials else (centre + half_width) / denominator
    return Interval(max(low, 0.0), min(high, 1.0))


def mean_and_sd(values: Sequence[float]) -> dict[str, Any]:
    """``mean``, sample SD ``sd`` (divisor ``n - 1``; None for one value) and ``count`` of per-seed values."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "sd": sd, "count": len(values)}


def bootstrap_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Percentile bootstrap interval of the mean of independent values, such as seed means.

    None for fewer than two values or values that are all equal, which say nothing about scatter.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size < 2 or np.ptp(array) == 0.0:
        return None
    picks = np.random.default_rng(0).integers(array.size, size=(BOOTSTRAP_RESAMPLES, array.size))
    return _percentiles(array[picks].mean(axis=1), confidence)


def _percentiles(means: npt.NDArray[np.float64], confidence: float) -> Interval:
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Interval(float(low), float(high))


def paired_difference(pairs: Sequence[Sequence[int]], confidence: float = 0.95) -> tuple[float, Interval | None]:
    """Mean difference of two methods' success on episodes that both ran (same episode seed, same start).

    Episodes are resampled within each pair of skills. Since a difference is -1, 0 or 1, a resample of n episodes is one
    multinomial draw.

    Args:
        pairs: For every pair of skills its episodes' differences, each -1, 0 or 1; every pair weighs the same.
        confidence: Level of the interval.

    Returns:
        The mean, and its bootstrap interval over episodes: None where no pair's differences differ among themselves.

    Raises:
        ValueError: If there is no episode.
    """
    if not pairs or any(len(differences) == 0 for differences in pairs):
        raise ValueError("the two methods have no episode seed in common, so they cannot be compared in pairs")
    counts = [np.bincount(np.asarray(differences) + 1, minlength=3) for differences in pairs]
    mean = float(np.mean([(count[2] - count[0]) / count.sum() for count in counts]))
    if all(np.count_nonzero(count) == 1 for count in counts):
        return mean, None
    rng = np.random.default_rng(0)
    drawn = [rng.multinomial(count.sum(), count / count.sum(), BOOTSTRAP_RESAMPLES) / count.sum() for count in counts]
    return mean, _percentiles(np.mean([draw[:, 2] - draw[:, 0] for draw in drawn], axis=0), confidence)
