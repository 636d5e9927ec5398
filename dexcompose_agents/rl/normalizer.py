"""Running mean and standard deviation of observations, part of the network and saved with its weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningNormalizer(nn.Module):
    """Centres and scales every observation component by what has been seen so far.

    LayerNorm in front of the first layer is not enough: it divides a whole observation by one number, so a term in
    radians would drown one in millimetres. Here every component has its own statistics. They move only in `update`,
    which the trainer calls between iterations, so that within one iteration the policy is a fixed function.

    Divisors are at least `MIN_STD`, and everything is clipped to [-LIMIT, LIMIT], so that a component that was constant
    in training cannot blow up later.
    """

    MIN_STD, LIMIT = 1e-2, 5.0

    count: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64, device="cpu"))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64, device="cpu"))
        self.register_buffer("variance", torch.ones(size, dtype=torch.float64, device="cpu"))

    @property
    def std(self) -> Tensor:
        """The divisors (d,)."""
        return self.variance.sqrt().clamp(min=self.MIN_STD)

    def forward(self, observation: Tensor) -> Tensor:
        """Normalised observations (..., d), clipped."""
        mean, std = self.mean.to(observation.dtype), self.std.to(observation.dtype)
        return ((observation - mean) / std).clamp(-self.LIMIT, self.LIMIT)

    @torch.no_grad()
    def update(self, observations: Tensor) -> None:
        """Adds observations (n, d) to the statistics (parallel variance of Chan, Golub and LeVeque)."""
        batch = observations.detach().to(torch.float64)
        batch_count = float(len(batch))
        if batch_count == 0:
            return
        total = self.count + batch_count
        shift = batch.mean(0) - self.mean
        squares = self.variance * self.count + batch.var(0, correction=0) * batch_count
        self.variance.copy_((squares + shift.square() * self.count * batch_count / total) / total)
        self.mean.add_(shift * batch_count / total)
        self.count.copy_(total)
