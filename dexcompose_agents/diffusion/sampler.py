"""Drawing action chunks: the reverse diffusion, with noise that belongs to each chunk and not to the batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dexcompose_agents.diffusion.config import NetworkConfig
from dexcompose_agents.diffusion.unet import FilmUnet


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums on the CPU round alike whatever number of threads the machine offers; contacts amplify any difference."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


SchedulerName = Literal["ddim", "ddpm"]
BLOCK = 16
"""Chunks per call of the network."""


def make_scheduler(name: SchedulerName, config: NetworkConfig) -> Any:
    """A noise scheduler of `diffusers`: `squaredcos_cap_v2`, samples clipped to [-1, 1].

    DDIM starts at the noisiest step (`trailing`) if the network predicts the clean chunk. If it predicts the noise,
    DDIM starts a little before (`leading`): at the noisiest steps a rounding error is magnified up to 20,000 times.

    Raises:
        ValueError: If the name is unknown.
    """
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    if name not in get_args(SchedulerName):
        raise ValueError(f"scheduler is {name!r}; expected one of {', '.join(get_args(SchedulerName))}")
    settings = {
        "num_train_timesteps": config.diffusion_steps, "beta_schedule": "squaredcos_cap_v2", "clip_sample": True,
        "prediction_type": config.prediction,
    }  # fmt: skip
    if name == "ddpm":
        return DDPMScheduler(**settings)
    return DDIMScheduler(**settings, timestep_spacing="trailing" if config.prediction == "sample" else "leading")


class ChunkSampler:
    """Samples normalised action chunks from a trained network.

    A chunk is a function of its observations and its seed alone. Matrix products round differently for different
    batch sizes, so the network is always called on `BLOCK` chunks at a time, the last block filled up: the same chunk
    then comes out whatever else is sampled with it. It does to the last bit where the maths library treats the rows of
    a batch alike (oneDNN and MKL do in our tests); up to rounding, about 1e-5, is what we promise.

    Args:
        network: The trained network; put into evaluation mode.
        config: Horizons and noise schedule.
        action_size: Numbers per action.
        scheduler: `ddim` (deterministic but for the initial noise) or `ddpm` (the full chain).
        inference_steps: Denoising steps of `ddim`; None takes the network's default. `ddpm` always takes all of them.

    Raises:
        ValueError: If scheduler or steps are not possible.
    """

    def __init__(
        self,
        network: FilmUnet,
        config: NetworkConfig,
        action_size: int,
        *,
        scheduler: SchedulerName = "ddim",
        inference_steps: int | None = None,
    ) -> None:
        self._network = network.eval()
        self._device = next(network.parameters()).device
        self._shape = (config.action_horizon, action_size)
        self._scheduler = make_scheduler(scheduler, config)
        if inference_steps is None:
            inference_steps = config.inference_steps if scheduler == "ddim" else config.diffusion_steps
        config.check_inference_steps(inference_steps)
        if scheduler == "ddpm" and inference_steps != config.diffusion_steps:
            raise ValueError(f"inference_steps is {inference_steps}; expected {config.diffusion_steps} (all) with ddpm")
        self.inference_steps = inference_steps
        self._scheduler.set_timesteps(inference_steps)
        self._timesteps: list[int] = self._scheduler.timesteps.tolist()
        with _one_thread(), torch.inference_mode():
            self._films = network.modulate_by_step(torch.tensor(self._timesteps, device=self._device))

    def __call__(self, observations: ArrayLike, seeds: ArrayLike) -> NDArray[np.float32]:
        """Samples n chunks.

        Args:
            observations: Flattened normalised observation histories, (n, d).
            seeds: Seed of each chunk's noise, (n,), from 0 to 2**63 - 1.

        Returns:
            Normalised chunks, (n, action_horizon, action_size).
        """
        observations, seeds = np.asarray(observations, np.float32), np.asarray(seeds, np.int64)
        count = len(observations)
        filled = -(-count // BLOCK) * BLOCK
        order = np.arange(filled) % max(count, 1)
        with _one_thread():
            blocks = [self._sample(observations[rows], seeds[rows]) for rows in order.reshape(-1, BLOCK)]
        return np.concatenate(blocks)[:count] if blocks else np.zeros((0, *self._shape), np.float32)

    @torch.inference_mode()
    def _sample(self, observations: NDArray[np.float32], seeds: NDArray[np.int64]) -> NDArray[np.float32]:
        """One block."""
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        noise = torch.stack([torch.randn(self._shape, generator=generator) for generator in generators])
        sample: Tensor = noise.to(self._device)
        film = self._network.modulate_by_observation(torch.from_numpy(observations).to(self._device))
        for step, step_film in zip(self._timesteps, self._films, strict=True):
            predicted = self._network.denoise(sample, film + step_film)
            sample = self._scheduler.step(predicted, step, sample, generator=generators).prev_sample
        return sample.cpu().numpy()
