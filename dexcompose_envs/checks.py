"""Arguments at the door: numbers that must be whole, or lie in a range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dexcompose_envs.errors import UsageError

LARGEST_SEED = 2**63 - 1
"""Largest seed that every random generator of the package takes."""


def whole_number(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """A Python or NumPy integer as an int, else a UsageError that says so; truth values and floats are none."""
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool | np.bool_)
    if not is_whole or value < least or (most is not None and value > most):
        expected = f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}"
        raise UsageError(f"{name} is {value!r}; expected {expected}")
    return int(value)


def real_number(name: str, value: Any, low: float, high: float) -> float:
    """A number in [low, high] as a float, else a UsageError that says so."""
    is_real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool | np.bool_)
    if not is_real or not math.isfinite(value) or not low <= value <= high:
        raise UsageError(f"{name} is {value!r}; expected a number from {low:g} to {high:g}")
    return float(value)


def one_of(name: str, value: Any, known: Sequence[str]) -> str:
    """A known name, else a UsageError with the value and the names that exist."""
    if value not in known:
        raise UsageError(f"unknown {name} {value!r}; expected one of {', '.join(known)}")
    return str(value)


def require(good: bool, name: str, value: object, expected: str) -> None:
    """Refuses any other unfitting value.

    Raises:
        UsageError: With the name, the value and what was expected.
    """
    if not good:
        raise UsageError(f"{name} is {value!r}; expected {expected}")


def seed_or_none(seed: Any) -> int | None:
    """A seed from 0 to 2**63 - 1, or None; a UsageError if it is neither."""
    return None if seed is None else whole_number("seed", seed, 0, LARGEST_SEED)


def seeds_of_worlds(seed: Any, num_worlds: int) -> list[int | None]:
    """One seed per world: world i gets `seed + i`, or the i-th of a sequence; None leaves a generator as it is."""
    if seed is None:
        return [None] * num_worlds
    if np.ndim(seed) == 0:
        first = whole_number("seed", seed, 0, LARGEST_SEED - num_worlds)
        return [first + i for i in range(num_worlds)]
    if len(seed) != num_worlds:
        raise UsageError(f"seed has {len(seed)} entries; expected one per world, {num_worlds}")
    return [seed_or_none(each) for each in seed]
