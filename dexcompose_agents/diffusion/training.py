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

from dexcompose_agents.artefacts.weights import save_weights
from dexcompose_agents.diffusion.config import NetworkConfig, TrainingConfig
from dexcompose_agents.diffusion.dataset import Episode, WindowDataset, augment, finger_inputs
from dexcompose_agents.diffusion.sampler import make_scheduler
from dexcompose_agents.diffusion.unet import FilmUnet
from dexcompose_agents.runtime.devices import find_device, tensor_cores
from dexcompose_agents.runtime.interrupts import Paused, interrupt_flag
from dexcompose_envs.errors import DexComposeError, UsageError
from dexcompose_envs.files import atomic_path
from dexcompose_envs.hand import FINGERS

KIND = "diffusion_policy"
_LOSS_SMOOTHING = 0.99
_LOSS_INTERVAL = 50
"""Steps between two readings of the loss, for which a GPU has to finish all that it was told to do."""
_OF_THE_MACHINE = frozenset({"checkpoint_minutes", "device"})
"""Settings that may change when a run is resumed."""


class TrainingError(DexComposeError, RuntimeError):
    """A run that can't be started or resumed; the message says why."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C came or this call's time was up; the state was saved, and the message says where."""


class TrainingPaused(TrainingInterrupted, Paused):
    """This call's time was up."""


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

    The state of the run is saved beside `out` (`<name>.checkpoint`) every few minutes and at Ctrl-C, and removed when
    the run is through. A run that is resumed ends with the same weights as one that was never interrupted, unless it
    goes on on another kind of device, whose random numbers are others.

    Args:
        episodes: Demonstrations.
        config: Settings.
        out: Weight file to write, `<skill>.safetensors`.
        provenance: Goes into the manifest as it is: skill, dataset id, env version, model hash.
        progress: Called after every step.
        resume: Goes on from a saved state if there is one.
        max_minutes: Wall time of this call after which it stops as at Ctrl-C, so that a long run can be done in pieces;
            None sets no limit. At least one step is done.

    Returns:
        The manifest that was written with the weights.

    Raises:
        DatasetError: If the demonstrations can't be used.
        TrainingError: If the saved state is corrupt or belongs to other settings or other demonstrations.
        TrainingInterrupted: After Ctrl-C or `max_minutes` (`TrainingPaused`), with the state saved.
        UsageError: If `config.device` is not there, or `max_minutes` is not positive.
    """
    started = time.monotonic()
    if max_minutes is not None and not max_minutes > 0:
        raise UsageError(f"max_minutes is {max_minutes!r}; expected minutes > 0 or None")
    out = Path(out)
    device = find_device(config.device)
    run = _Run(WindowDataset(episodes, config.network), config, device)
    checkpoint = out.with_suffix(".checkpoint")
    if resume and checkpoint.exists():
        run.load(checkpoint)
    saved = time.monotonic()
    with interrupt_flag() as interrupted, tensor_cores(device):
        while run.fraction < 1:
            run.advance()
            if progress is not None:
                progress(run.report())
            time_is_up = max_minutes is not None and time.monotonic() - started >= 60 * max_minutes
            if interrupted.is_set() or (time_is_up and run.fraction < 1):
                run.save(checkpoint)
                stopped = TrainingInterrupted if interrupted.is_set() else TrainingPaused
                raise stopped(
                    f"stopped at step {run.step} of {config.steps}; state saved in {checkpoint}, "
                    "the same call resumes there"
                )
            if time.monotonic() - saved > 60 * config.checkpoint_minutes:
                run.save(checkpoint)
                saved = time.monotonic()
    manifest = {**(provenance or {}), **run.manifest()}
    save_weights(out, run.averaged_weights(), manifest)
    checkpoint.unlink(missing_ok=True)
    return manifest


def new_network(observation_size: int, action_size: int, config: NetworkConfig, seed: int) -> FilmUnet:
    """An untrained network whose weights depend on `seed` alone; leaves torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FilmUnet(action_size, observation_size * config.observation_horizon, config)


class _Run:
    """The state of a training run and what one step does to it."""

    def __init__(self, dataset: WindowDataset, config: TrainingConfig, device: torch.device) -> None:
        self.config, self.step, self.loss, self._minutes = config, 0, 1.0, 0.0
        sizes = (dataset.observation_normalizer.size, dataset.action_normalizer.size)
        if config.finger_dropout > 0:
            finger_inputs(FINGERS, sizes[0])
        self._device = device
        self._dataset = dataset.to(device)
        self._network = new_network(*sizes, config.network, config.seed).to(device).train()
        self._averaged = copy.deepcopy(self._network).requires_grad_(False)
        parameters = self._network.parameters()
        self._optimizer = torch.optim.AdamW(
            parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self._scheduler = make_scheduler("ddpm", config.network)
        self._generator = torch.Generator(device).manual_seed(config.seed)
        self._learning_rate = 0.0
        self._smoothed_loss = torch.ones((), device=device)

    @property
    def fraction(self) -> float:
        """Share of the budget that is used up."""
        limit = self.config.time_limit
        by_time = self._minutes / limit if limit is not None else 0.0
        return min(1.0, max(self.step / self.config.steps, by_time))

    def advance(self) -> None:
        """One training step; a GPU is only told what to do, and waited for every `_LOSS_INTERVAL` steps."""
        started, config = time.monotonic(), self.config
        observations, actions, noise, steps = self._batch()
        noisy = self._scheduler.add_noise(actions, noise, steps)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            predicted = self._network(noisy, steps, observations)
        loss = torch.nn.functional.mse_loss(
            predicted.float(), actions if config.network.prediction == "sample" else noise
        )
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

    def averaged_weights(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        return self._averaged.state_dict()

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
            "config": self.config.to_dict(),
            "fingerprint": self._dataset.fingerprint,
            "step": self.step,
            "loss": self._smoothed_loss.item(),
            "minutes": self._minutes,
            "network": self._network.state_dict(),
            "averaged": self._averaged.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "generator_device": self._device.type,
        }
        with atomic_path(path) as temporary:
            torch.save(state, temporary)

    def load(self, path: Path) -> None:
        """Goes on from a state that `save` wrote."""
        try:
            state = torch.load(path, map_location=self._device, weights_only=True)
        except Exception as error:  # torch raises half a dozen kinds here
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise TrainingError(f"saved state {path} is corrupt ({reason}); remove it to start afresh") from error
        if state["fingerprint"] != self._dataset.fingerprint:
            raise TrainingError(f"saved state {path} is of a run on other demonstrations; remove it to start afresh")
        changed = _difference(state["config"], self.config.to_dict())
        if changed is not None:
            raise TrainingError(
                f"saved state {path} is of a run with {changed}; remove it to start afresh, or use its settings"
            )
        self.step, self.loss, self._minutes = state["step"], state["loss"], state["minutes"]
        self._smoothed_loss.fill_(self.loss)
        self._network.load_state_dict(state["network"])
        self._averaged.load_state_dict(state["averaged"])
        self._optimizer.load_state_dict(state["optimizer"])
        if state["generator_device"] == self._device.type:
            self._generator.set_state(state["generator"].cpu())
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
        observations = augment(observations, config.obs_noise, config.finger_dropout, generator)
        noise = torch.randn(actions.shape, generator=generator, device=self._device)
        steps = torch.randint(config.network.diffusion_steps, size, generator=generator, device=self._device)
        return observations.flatten(1), actions, noise, steps

    def _scheduled_rate(self) -> float:
        """Linear warm-up, then a cosine to zero at the end of the budget."""
        config = self.config
        warm = min(1.0, (self.step + 1) / max(config.warmup_steps, 1))
        return config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * self.fraction))

    def _average(self) -> None:
        """Moves the averaged weights towards the current ones, the less the longer training has lasted."""
        decay = min(self.config.ema_decay, 1 - (1 + self.step) ** -self.config.ema_power)
        current = [value.detach() for value in self._network.parameters()]
        torch._foreach_lerp_([*self._averaged.parameters()], current, 1 - decay)


def _difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> str | None:
    """The first setting that differs, in words; those of the machine do not count."""
    for key in sorted((old.keys() | new.keys()) - _OF_THE_MACHINE):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            nested = _difference(before, after, f"{prefix}{key}.")
            if nested is not None:
                return nested
        elif before != after:
            return f"{prefix}{key} = {before!r} where now it is {after!r}"
    return None
