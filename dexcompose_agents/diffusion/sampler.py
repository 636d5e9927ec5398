"""Drawing action chunks: the reverse diffusion, with noise that belongs to each chunk and not to the batch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from dexcompose_agents.diffusion.config import NetworkConfig, Precision
from dexcompose_agents.diffusion.graphs import StaticFunction
from dexcompose_agents.diffusion.noise import chunk_keys, standard_normal
from dexcompose_agents.diffusion.unet import FilmUnet
from dexcompose_agents.runtime.threads import one_thread
from dexcompose_envs.checks import one_of, require

SchedulerName = Literal["ddim", "ddpm"]
BLOCK = 8
"""Chunks per call of the network on the CPU."""
CUDA_BLOCK = 256
"""Chunks per call of the network on a GPU, which a block of 8 would leave idle."""


def make_scheduler(name: SchedulerName, config: NetworkConfig) -> Any:
    """A noise scheduler of `diffusers`: `squaredcos_cap_v2`, samples clipped to [-1, 1].

    DDIM starts at the noisiest step (`trailing`) if the network predicts the clean chunk. If it predicts the noise,
    DDIM starts a little before (`leading`): at the noisiest steps a rounding error is magnified up to 20,000 times.

    Raises:
        UsageError: If the name is unknown.
    """
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    one_of("scheduler", name, get_args(SchedulerName))
    settings = {
        "num_train_timesteps": config.diffusion_steps, "beta_schedule": "squaredcos_cap_v2", "clip_sample": True,
        "prediction_type": config.prediction,
    }  # fmt: skip
    if name == "ddpm":
        return DDPMScheduler(**settings)
    return DDIMScheduler(**settings, timestep_spacing="trailing" if config.prediction == "sample" else "leading")


class ChunkSampler:
    """Samples normalised action chunks from a trained network, on the network's device.

    A chunk is a function of its observations, its world's seed and its number alone. Matrix products round differently
    for different batch sizes, so the network is always called on a block of so many chunks (`BLOCK`, `CUDA_BLOCK`), the
    last one filled up: the same chunk then comes out whatever else is sampled with it. It does to the last bit where
    the maths library treats the rows of a batch alike (oneDNN and MKL do in our tests); up to rounding, about 1e-5, is
    what we promise on the CPU. Other devices have the same noise, but round in their own ways.

    Args:
        network: The trained network; put into evaluation mode.
        config: Horizons and noise schedule.
        action_size: Numbers per action.
        scheduler: `ddim` (deterministic but for the initial noise) or `ddpm` (the full chain).
        inference_steps: Denoising steps of `ddim`; None takes the network's default. `ddpm` always takes all of them.
        precision: Arithmetic of the network.

    Raises:
        UsageError: If scheduler, steps or precision are not possible.
    """

    def __init__(
        self,
        network: FilmUnet,
        config: NetworkConfig,
        action_size: int,
        *,
        scheduler: SchedulerName = "ddim",
        inference_steps: int | None = None,
        precision: Precision = "float32",
    ) -> None:
        self._network = network.eval()
        self._device = next(network.parameters()).device
        self._block = CUDA_BLOCK if self._device.type == "cuda" else BLOCK
        self._shape = (config.action_horizon, action_size)
        self._precision = one_of("precision", precision, get_args(Precision))
        one_of("scheduler", scheduler, get_args(SchedulerName))
        if inference_steps is None:
            inference_steps = config.inference_steps if scheduler == "ddim" else config.diffusion_steps
        config.check_inference_steps(inference_steps)
        self._adds_noise = scheduler == "ddpm"
        good = not self._adds_noise or inference_steps == config.diffusion_steps
        require(good, "inference_steps", inference_steps, f"{config.diffusion_steps} (all) with ddpm")
        # Also for ddpm, whose own scheduler would draw the noise itself.
        self._scheduler = make_scheduler("ddim", config)
        self._scheduler.set_timesteps(inference_steps)
        self._timesteps: list[int] = self._scheduler.timesteps.tolist()
        with one_thread(self._device), torch.no_grad():
            self._films = network.modulate_by_step(torch.tensor(self._timesteps, device=self._device))
        self._sample_block = StaticFunction(self._denoised)

    def __call__(self, observations: Tensor, seeds: Tensor, chunks: Tensor) -> Tensor:
        """Samples n normalised chunks, (n, action_horizon, action_size); reads nothing back from the device.

        Args:
            observations: Flattened normalised observation histories, (n, d).
            seeds: Seed of each chunk's world, (n,), int64.
            chunks: Number of the chunk in its world's life, (n,), int64.
        """
        count = len(observations)
        if count == 0:
            return torch.zeros((0, *self._shape), device=self._device)
        filled = -(-count // self._block) * self._block
        order = torch.arange(filled, device=self._device) % count
        with one_thread(self._device):
            blocks = [
                self._sample_block(observations[rows], seeds[rows], chunks[rows]) for rows in order.split(self._block)
            ]
        return torch.cat(blocks)[:count]

    def _denoised(self, observations: Tensor, seeds: Tensor, chunks: Tensor) -> Tensor:
        """The whole reverse diffusion of one block."""
        keys = chunk_keys(seeds, chunks)
        sample = standard_normal(keys, 0, self._shape)
        with self._arithmetic():
            film = self._network.modulate_by_observation(observations)
        for number, (timestep, step_film) in enumerate(zip(self._timesteps, self._films, strict=True), start=1):
            with self._arithmetic():
                predicted = self._network.denoise(sample, film + step_film)
            noise = standard_normal(keys, number, self._shape) if self._adds_noise else None
            sample = self._update(predicted.float(), timestep, sample, noise)
        guess = self._network.guess
        return sample if guess is None else guess.complete(sample, observations)

    def _update(self, predicted: Tensor, timestep: int, sample: Tensor, noise: Tensor | None) -> Tensor:
        """One denoising step; with noise it is DDPM's: DDIM over all steps with eta = 1 (Song et al., 2021)."""
        stochastic = {} if noise is None else {"eta": 1.0, "use_clipped_model_output": True, "variance_noise": noise}
        updated: Tensor = self._scheduler.step(predicted, timestep, sample, **stochastic).prev_sample
        return updated

    def _arithmetic(self) -> AbstractContextManager[Any]:
        """The network's precision; no cache of converted weights, which may be freed under a recording."""
        if self._precision == "float32":
            return nullcontext()
        return torch.autocast(self._device.type, torch.bfloat16, cache_enabled=False)
