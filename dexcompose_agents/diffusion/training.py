"""Behaviour cloning of a diffusion policy: AdamW, warm-up and cosine, gradient clipping, averaged weights."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dexcompose_agents.artefacts.checkpoints import load_state, save_state
from dexcompose_agents.artefacts.weights import save_weights
from dexcompose_agents.diffusion.config import NetworkConfig, TrainingConfig
from dexcompose_agents.diffusion.dataset import Episode, WindowDataset, augment, finger_inputs
from dexcompose_agents.diffusion.sampler import make_scheduler
from dexcompose_agents.diffusion.unet import FilmUnet
from dexcompose_agents.runtime.devices import find_device, plain_torch, tensor_cores
from dexcompose_agents.runtime.interrupts import Paused, interrupt_flag
from dexcompose_envs.checks import require
from dexcompose_envs.hand import FINGERS

KIND = "diffusion_policy"
_LOSS_SMOOTHING = 0.99
_LOSS_INTERVAL = 50
"""Steps between two readings of the loss, for which a GPU has to finish all that it was told to do."""
_OF_THE_MACHINE = frozenset({"checkpoint_minutes", "device"})
"""Settings that may change when a run is resumed."""


@dataclass(frozen=True)
class TrainingProgress:
    """Where a run stands after a step."""

    step: int
    """Steps done."""
    steps: int
    """Steps to do."""
    loss: float
    """Smoothed loss: mean squared error of the predicted clean chunk (normalised actions) or of the predicted noise;
    read anew every 50 steps."""
    learning_rate: float
    """Learning rate of the step."""
    minutes: float
    """Minutes of training, those before an interruption included."""
    fraction: float
    """Share of the budget (steps or time) that is used up, 0 to 1."""


@torch.inference_mode(False)
@torch.enable_grad()
def train(
    episodes: Sequence[Episode],
    config: TrainingConfig,
    out: str | Path,
    *,
    provenance: Mapping[str, Any] | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
    resume: bool = True,
    max_minutes: float | None = None,
) -> dict[str, Any]:
    """Trains a policy and writes its averaged weights.

    The state of the run is saved beside `out` (`<out>.checkpoint`) every few minutes and at Ctrl-C, and removed when
    the run is through. A run that is resumed ends with the same weights as one that was never interrupted, unless it
    goes on on another kind of device, whose random numbers are others.

    Args:
        episodes: Demonstrations.
        config: Settings.
        out: Weight file to write, `<skill>.safetensors`.
        provenance: Goes into the manifest as it is: skill, dataset id, model hash; part of the run's identity.
        progress: Called after every step.
        resume: Goes on from a saved state if there is one.
        max_minutes: Wall time of this call after which it stops as at Ctrl-C, so that a long run can be done in pieces;
            None sets no limit. At least one step is done.

    Returns:
        The manifest that was written with the weights.

    Raises:
        DatasetError: If the demonstrations can't be used.
        ArtefactError: If the saved state is damaged or belongs to other settings, skills or demonstrations.
        KeyboardInterrupt: After Ctrl-C or `max_minutes` (`Paused`), with the state saved; the message says where.
        UsageError: If `config.device` is not there, or `max_minutes` is not positive.
    """
    started = time.monotonic()
    require(max_minutes is None or max_minutes > 0, "max_minutes", max_minutes, "minutes > 0 or None")
    out = Path(out)
    device = find_device(config.device)
    with plain_torch():
        run = _Run(WindowDataset(episodes, config.network), config, device, provenance or {})
    checkpoint = out.with_name(f"{out.name}.checkpoint")
    if resume and checkpoint.exists():
        run.load(checkpoint)
    saved = time.monotonic()
    # The caller's autocast would reach the backward pass, also where the forward pass has its own.
    with interrupt_flag() as interrupted, tensor_cores(device), torch.autocast(device.type, enabled=False):
        while run.fraction < 1:
            run.advance()
            if progress is not None:
                progress(run.report())
            time_is_up = max_minutes is not None and time.monotonic() - started >= 60 * max_minutes
            if interrupted.is_set() or (time_is_up and run.fraction < 1):
                run.save(checkpoint)
                stopped = KeyboardInterrupt if interrupted.is_set() else Paused
                raise stopped(
                    f"stopped at step {run.step} of {config.steps}; state saved in {checkpoint}, "
                    "the same call resumes there"
                )
            if time.monotonic() - saved > 60 * config.checkpoint_minutes:
                run.save(checkpoint)
                saved = time.monotonic()
    manifest = {**(provenance or {}), **run.manifest()}
    save_weights(out, run.averaged.state_dict(), manifest)
    checkpoint.unlink(missing_ok=True)
    return manifest


def new_network(observation_size: int, action_size: int, config: NetworkConfig, seed: int) -> FilmUnet:
    """An untrained network whose weights depend on `seed` alone; leaves torch's global generator as it was."""
    with plain_torch():
        torch.default_generator.manual_seed(seed)
        return FilmUnet(action_size, observation_size * config.observation_horizon, config)


class _Run:
    """The state of a training run and what one step does to it."""

    def __init__(
        self, dataset: WindowDataset, config: TrainingConfig, device: torch.device, provenance: Mapping[str, Any]
    ) -> None:
        self.config, self.step, self.loss, self._minutes = config, 0, 1.0, 0.0
        settings = {name: value for name, value in config.to_dict().items() if name not in _OF_THE_MACHINE}
        self._identity = {"made_from": {**provenance, "data": dataset.fingerprint}, "config": settings}
        sizes = len(dataset.observation_normalizer.center), len(dataset.action_normalizer.center)
        if config.finger_dropout > 0:
            finger_inputs(FINGERS, sizes[0])
        self._device = device
        self._dataset = dataset.to(device)
        self._network = new_network(*sizes, config.network, config.seed).to(device).train()
        if self._network.guess is not None:
            self._network.guess.fit(*dataset.windows(torch.arange(len(dataset), device=device)))
        self.averaged = copy.deepcopy(self._network).requires_grad_(False)
        weights, decay = self._network.parameters(), config.weight_decay
        self._optimizer = torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=decay, fused=True)
        self._scheduler = make_scheduler("ddpm", config.network)
        self._generator = torch.Generator(device).manual_seed(config.seed)
        self._learning_rate = 0.0
        self._smoothed_loss = torch.ones((), device=device)

    @property
    def fraction(self) -> float:
        """Share of the budget that is used up."""
        by_time = self._minutes / (self.config.time_limit or math.inf)
        return min(1.0, max(self.step / self.config.steps, by_time))

    def advance(self) -> None:
        """One training step; a GPU is only told what to do, and waited for every `_LOSS_INTERVAL` steps."""
        started, config = time.monotonic(), self.config
        observations, actions, noise, steps = self._batch()
        noisy = self._scheduler.add_noise(actions, noise, steps)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            predicted = self._network(noisy, steps, observations)
        target = actions if config.network.prediction == "sample" else noise
        loss = torch.nn.functional.mse_loss(predicted.float(), target)
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), config.gradient_clip)
        self._learning_rate = self._scheduled_rate()
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate
        self._optimizer.step()
        self._average()
        self.step += 1
        self._smoothed_loss.lerp_(loss.detach(), max(1 - _LOSS_SMOOTHING, 1 / self.step))
        if self.step % _LOSS_INTERVAL == 1:
            self.loss = self._smoothed_loss.item()
        self._minutes += (time.monotonic() - started) / 60

    def report(self) -> TrainingProgress:
        """What a progress bar shows."""
        return TrainingProgress(
            self.step, self.config.steps, self.loss, self._learning_rate, self._minutes, self.fraction
        )

    def manifest(self) -> dict[str, Any]:
        """What made the weights, and what a policy needs besides them."""
        dataset = self._dataset
        return {
            "kind": KIND,
            "config": self.config.to_dict(),
            "observation_normalizer": dataset.observation_normalizer.to_dict(),
            "action_normalizer": dataset.action_normalizer.to_dict(),
            "dataset": {
                "fingerprint": dataset.fingerprint, "episodes": dataset.num_episodes, "windows": len(dataset)
            },
            "steps": self.step,
            "final_loss": self._smoothed_loss.item(),
            "minutes": round(self._minutes, 2),
            "torch": torch.__version__,
        }  # fmt: skip

    def save(self, path: Path) -> None:
        """Writes the whole state."""
        state = {
            "step": self.step,
            "loss": self._smoothed_loss.item(),
            "minutes": self._minutes,
            "network": self._network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "generator_device": self._device.type,
        }
        save_state(path, state, self._identity)

    def load(self, path: Path) -> None:
        """Goes on from a state that `save` wrote."""
        state = load_state(path, self._identity)
        self.step, self.loss, self._minutes = state["step"], state["loss"], state["minutes"]
        self._smoothed_loss.fill_(self.loss)
        self._network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self._optimizer.load_state_dict(state["optimizer"])
        if state["generator_device"] == self._device.type:
            self._generator.set_state(state["generator"])
        else:
            # Each kind of device has a generator of its own kind; this one must not begin again where the run began.
            entropy = np.random.SeedSequence([self.config.seed, self.step])
            self._generator.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))

    def _batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Flattened observations, actions, noise and diffusion steps of one batch."""
        config, generator = self.config, self._generator
        size = (config.batch_size,)
        index = torch.randint(len(self._dataset), size, generator=generator, device=self._device)
        observations, actions = self._dataset.windows(index)
        history = augment(observations, config.obs_noise, config.finger_dropout, generator).flatten(1)
        if self._network.guess is not None:
            actions = self._network.guess.rest(actions, history)
        noise = torch.randn(actions.shape, generator=generator, dtype=torch.float32, device=self._device)
        steps = torch.randint(config.network.diffusion_steps, size, generator=generator, device=self._device)
        return history, actions, noise, steps

    def _scheduled_rate(self) -> float:
        """Linear warm-up, then a cosine to zero at the end of the budget."""
        config = self.config
        warm = min(1.0, (self.step + 1) / max(config.warmup_steps, 1))
        return config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * self.fraction))

    def _average(self) -> None:
        """Moves the averaged weights towards the current ones, the less the longer training has lasted."""
        decay = min(self.config.ema_decay, 1 - (1 + self.step) ** -self.config.ema_power)
        current = [value.detach() for value in self._network.parameters()]
        torch._foreach_lerp_([*self.averaged.parameters()], current, 1 - decay)
