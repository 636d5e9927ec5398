"""Noise as a function of a key: standard normals by hashing, the same on every device and in every batch.

Nothing is drawn one after the other, so there is no state to keep, and any number of worlds is served by a few
operations on tensors. The hash is the finaliser of SplitMix64 (Steele et al., 2014); 64-bit integers wrap around.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """A 64-bit pattern as the int64 that torch calculates with."""
    return value - 2**64 if value >= 2**63 else value


_STREAM = 0xD1F
"""Keeps the policy's noise apart from other generators that are made from the same seed."""
_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FACTORS = (_signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB))
_BITS = 24
"""Bits of a uniform number: as many as float32 holds exactly."""


def chunk_keys(seeds: Tensor, chunks: Tensor) -> Tensor:
    """The key of each chunk's noise, (n,), int64, from the worlds' seeds and how many chunks each has planned (n,)."""
    return _fold(_fold(torch.full_like(seeds, _STREAM), seeds), chunks)


def standard_normal(keys: Tensor, step: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers (n, *shape), float32, at most 5.8 from zero.

    They are a function of the key (n,), the step and the place in `shape`, and of nothing else. Step 0 is where the
    chunk starts, step k what its k-th denoising step adds.
    """
    places = torch.arange(1, math.prod(shape) + 1, device=keys.device)
    bits = _mix(_fold(keys, step)[:, None] + places * _GOLDEN)
    # Box-Muller; the first uniform number is in (0, 1], so that its logarithm is finite.
    first = ((_shifted(bits, 64 - _BITS) + 1).float() * 2.0**-_BITS).log()
    angle = (bits & (2**_BITS - 1)).float() * (2 * math.pi * 2.0**-_BITS)
    return ((-2.0 * first).sqrt() * angle.cos()).reshape(-1, *shape)


def _fold(keys: Tensor, part: Tensor | int) -> Tensor:
    """New keys from keys and one more number."""
    return _mix((keys ^ part) + _GOLDEN)


def _mix(values: Tensor) -> Tensor:
    """The finaliser of SplitMix64: a permutation of the 64-bit integers in which every input bit moves every other."""
    values = (values ^ _shifted(values, 30)) * _FACTORS[0]
    values = (values ^ _shifted(values, 27)) * _FACTORS[1]
    return values ^ _shifted(values, 31)


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; torch's own repeats the sign."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)
