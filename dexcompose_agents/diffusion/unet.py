"""The denoising network: a FiLM-conditioned one-dimensional UNet over the time axis of an action chunk.

Architecture after Chi et al., *Diffusion Policy* (2023); the code is our own.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from dexcompose_agents.diffusion.config import NetworkConfig
from dexcompose_agents.diffusion.linear_guess import LinearGuess


class StepEmbedding(nn.Module):
    """Sinusoidal embedding of the diffusion step, followed by a two-layer network; size is even, at least 4."""

    frequencies: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        half = size // 2
        exponents = torch.arange(half, dtype=torch.float32) / (half - 1)
        self.register_buffer("frequencies", torch.exp(-math.log(10_000.0) * exponents), persistent=False)
        self.layers = nn.Sequential(nn.Linear(size, 4 * size), nn.Mish(), nn.Linear(4 * size, size))

    def forward(self, step: Tensor) -> Tensor:
        """Embeds diffusion steps, (B,) -> (B, size)."""
        angle = step.to(self.frequencies.dtype)[:, None] * self.frequencies
        embedded: Tensor = self.layers(torch.cat([angle.sin(), angle.cos()], dim=-1))
        return embedded


class TimeConv(nn.Conv1d):
    """A convolution over the second axis of (B, T, channels), as one matrix product.

    Time axes are so short here (8, 4 and 2 steps) that on a CPU this is quicker than `nn.Conv1d`, whose weights it has.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__(channels_in, channels_out, kernel_size, stride, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, T, channels_in) to (B, T / stride, channels_out)."""
        (size,), (stride,) = self.kernel_size, self.stride
        padded = functional.pad(x, (0, 0, size // 2, size // 2))
        length = x.shape[1] - 1
        taps = [padded[:, tap : tap + length + 1 : stride] for tap in range(size)]
        return functional.linear(torch.stack(taps, dim=3).flatten(2), self.weight.flatten(1), self.bias)


class TimeGrow(nn.ConvTranspose1d):
    """A transposed convolution (4 taps, stride 2) over the second axis of (B, T, channels), likewise."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Maps (B, T, channels) to (B, 2 T, channels)."""
        products = functional.linear(functional.pad(x, (0, 0, 1, 1)), self.weight.permute(2, 1, 0).flatten(0, 1))
        before, here, after = (products[:, start : start + x.shape[1]].chunk(4, dim=2) for start in range(3))
        pairs = torch.cat([here[1] + before[3], here[2] + after[0]], dim=2)
        return pairs.unflatten(2, (2, -1)).flatten(1, 2) + self.bias


class ChannelNorm(nn.GroupNorm):
    """Group normalisation of (B, T, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        image = x[:, None].permute(0, 3, 1, 2)  # a picture one pixel high, in the layout that torch is quick with
        return super().forward(image).permute(0, 2, 3, 1)[:, 0]


class ConvBlock(nn.Sequential):
    """Convolution over time that keeps the length, group normalisation, Mish."""

    def __init__(self, channels_in: int, channels_out: int, config: NetworkConfig) -> None:
        super().__init__(
            TimeConv(channels_in, channels_out, config.kernel_size),
            ChannelNorm(config.groups, channels_out),
            nn.Mish(),
        )


class ResidualBlock(nn.Module):
    """Two temporal convolutions around a FiLM layer (per-channel scale and shift), with a skip connection."""

    def __init__(self, channels_in: int, channels_out: int, config: NetworkConfig) -> None:
        super().__init__()
        self.channels_out = channels_out
        self.first = ConvBlock(channels_in, channels_out, config)
        self.second = ConvBlock(channels_out, channels_out, config)
        same = channels_in == channels_out
        self.skip = nn.Identity() if same else TimeConv(channels_in, channels_out, 1)

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """Maps (B, T, channels_in) under a modulation (B, 2 * channels_out) to (B, T, channels_out)."""
        scale, shift = film[:, None].chunk(2, dim=2)
        hidden = self.second(torch.addcmul(shift, self.first(x), 1.0 + scale))
        out: Tensor = hidden + self.skip(x)
        return out


class FilmUnet(nn.Module):
    """Predicts the clean action chunk, or the noise, from a noisy chunk and the flattened observation history.

    Each level of the way down is `blocks_per_level` residual blocks followed by a halving of the time axis (none
    after the last level); the bottom has as many blocks again; the way up mirrors the way down with skip connections.
    The embedding of the diffusion step and that of the observations are joined, and a linear layer makes the
    modulations of all blocks from the two. That layer is kept as one matrix per embedding, whose products are added,
    so that a sampler computes the observations' share once per chunk instead of once per denoising step.

    `observation_size` counts the numbers in the flattened observation history. With a `guess`, chunks are what is to be
    added to it; who trains or samples does the sum.
    """

    def __init__(self, action_size: int, observation_size: int, config: NetworkConfig) -> None:
        super().__init__()
        widths, fold = config.widths, config.fold
        self.guess = LinearGuess(observation_size, action_size, config) if config.linear_guess else None
        self.fold = fold
        self.step_embedding = StepEmbedding(config.step_embedding_size)
        self.observation_embedding = nn.Sequential(
            nn.Linear(observation_size, config.observation_embedding_size),
            nn.Mish(),
            nn.Linear(config.observation_embedding_size, config.observation_embedding_size),
        )

        def level(channels_in: int, channels_out: int) -> list[ResidualBlock]:
            inputs = [channels_in] + [channels_out] * (config.blocks_per_level - 1)
            return [ResidualBlock(size, channels_out, config) for size in inputs]

        upward = widths[::-1]
        levels = [level(a, b) for a, b in pairwise((action_size * fold, *widths, widths[-1]))]
        levels += [level(2 * a, b) for a, b in pairwise(upward)]
        self.levels = nn.ModuleList(nn.ModuleList(blocks) for blocks in levels)
        self.shrink = nn.ModuleList(TimeConv(w, w, 3, stride=2) for w in widths[:-1])
        self.grow = nn.ModuleList(TimeGrow(w) for w in upward[1:])
        self.film_sizes = [2 * block.channels_out for blocks in levels for block in blocks]
        self.film_step = nn.Linear(config.step_embedding_size, sum(self.film_sizes))
        self.film_observation = nn.Linear(config.observation_embedding_size, sum(self.film_sizes), bias=False)
        self.head = nn.Sequential(
            ConvBlock(widths[0], widths[0], config),
            TimeConv(widths[0], action_size * fold, 1),
        )

    def forward(self, noisy_actions: Tensor, step: Tensor, observation: Tensor) -> Tensor:
        """The prediction, (B, H, action_size), for noisy actions of that shape, diffusion steps (B,) and observations.

        H is a multiple of `fold * 2 ** (len(widths) - 1)`; observations are (B, observation_size).
        """
        return self.denoise(noisy_actions, self.modulate_by_step(step) + self.modulate_by_observation(observation))

    def modulate_by_step(self, step: Tensor) -> Tensor:
        """The share of the diffusion step, (B,), in the modulations of all blocks, (B, M)."""
        film: Tensor = self.film_step(functional.mish(self.step_embedding(step)))
        return film

    def modulate_by_observation(self, observation: Tensor) -> Tensor:
        """The share of the observations, (B, observation_size), in the modulations of all blocks, (B, M)."""
        film: Tensor = self.film_observation(functional.mish(self.observation_embedding(observation)))
        return film

    def denoise(self, noisy_actions: Tensor, film: Tensor) -> Tensor:
        """The prediction, (B, H, action_size), under the given modulations, (B, M)."""
        batch, horizon, size = noisy_actions.shape
        x = noisy_actions.reshape(batch, horizon // self.fold, size * self.fold)
        films = iter(film.split(self.film_sizes, dim=1))
        depth = len(self.shrink)
        skips: list[Tensor] = []
        for index, blocks in enumerate(self.levels):
            if index > depth + 1:
                x = torch.cat([x, skips.pop()], dim=2)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, next(films))
            if index <= depth:
                skips.append(x)
            if index < depth:
                x = self.shrink[index](x)
            elif index > depth + 1:
                x = self.grow[index - depth - 2](x)
        predicted: Tensor = self.head(x)
        return predicted.reshape(batch, horizon, size)
