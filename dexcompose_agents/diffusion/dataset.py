"""Demonstrations cut into overlapping windows, normalised to [-1, 1]."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexcompose_agents.diffusion.config import NetworkConfig
from dexcompose_envs.errors import FileError, UsageError
from dexcompose_envs.hand import FINGERS, NUM_ACTIONS, finger_slice

_SMALLEST_HALF_RANGE = 1e-3
"""Inputs that vary less than this are scaled as if they varied so much, so that noise isn't blown up."""
OBSERVATION_CLIP = 1.5
"""Normalised observations are clipped to plus and minus this: what lies far outside the demonstrations looks as if it
were just outside."""


class DatasetError(FileError):
    """Demonstrations that can't be used; the message says which and why."""


class Episode(TypedDict):
    """One demonstration of T control steps."""

    obs: NDArray[Any]
    """What the policy sees before each action, (T, d)."""
    action: NDArray[Any]
    """The actions, (T, a)."""


@dataclass(frozen=True)
class Normalizer:
    """Maps each component's range to [-1, 1]; a constant component maps to 0 and back to its constant."""

    center: Tensor
    """Middle of each component's range, (d,), float32."""
    half_range: Tensor
    """Half the range; 1 for constant components, (d,), float32."""
    constant: Tensor
    """Whether the component never changed, (d,), bool."""

    @classmethod
    def fit(cls, values: NDArray[Any]) -> Normalizer:
        """Takes the ranges from data of shape (n, d)."""
        low, high = values.min(axis=0).astype(np.float64), values.max(axis=0).astype(np.float64)
        half = (high - low) / 2
        constant = half < 1e-6
        scale = np.where(constant, 1.0, np.maximum(half, _SMALLEST_HALF_RANGE))
        center = torch.from_numpy((low + high) / 2)
        return cls(center.float(), torch.from_numpy(scale).float(), torch.from_numpy(constant))

    def to(self, device: str | torch.device) -> Normalizer:
        """The same on another torch device."""
        return Normalizer(*(value.to(device) for value in vars(self).values()))

    def normalize(self, values: Tensor) -> Tensor:
        """Scales values (..., d), float32; the range seen in the data becomes [-1, 1]."""
        return ((values - self.center) / self.half_range).masked_fill(self.constant, 0.0)

    def denormalize(self, values: Tensor) -> Tensor:
        """Undoes `normalize`; constant components become their constant whatever came."""
        return torch.where(self.constant, self.center, values * self.half_range + self.center)

    def to_dict(self) -> dict[str, list[Any]]:
        """The numbers as lists, ready for JSON."""
        return {name: value.tolist() for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, list[Any]]) -> Normalizer:
        """Undoes `to_dict`."""
        center, half_range = (torch.tensor(values[key], dtype=torch.float32) for key in ("center", "half_range"))
        return cls(center, half_range, torch.tensor(values["constant"], dtype=torch.bool))


class WindowDataset:
    """All windows of some demonstrations: one per control step, padded at both ends of the episode.

    The window of step t holds the observations of steps t - observation_horizon + 1 .. t, and action_horizon actions
    from step t - observation_horizon + 1 on. Steps before the first repeat the first, steps after the last repeat the
    last; a policy trained on them waits at the end of what was demonstrated.

    Raises:
        DatasetError: If there are none, or shapes don't fit together, or a number is not finite.
    """

    def __init__(self, episodes: Sequence[Episode], config: NetworkConfig) -> None:
        observations, actions = _checked(episodes)
        lengths = np.array([len(episode["action"]) for episode in episodes])
        self.num_episodes = len(episodes)
        self.observation_normalizer = Normalizer.fit(observations)
        self.action_normalizer = Normalizer.fit(actions)
        self.fingerprint = hashlib.sha256(
            b"".join(map(np.ndarray.tobytes, (observations, actions, lengths)))
        ).hexdigest()
        self._observations = self.observation_normalizer.normalize(torch.from_numpy(observations))
        self._actions = self.action_normalizer.normalize(torch.from_numpy(actions))
        first = np.cumsum(lengths) - lengths
        self._step = torch.arange(int(lengths.sum()))
        self._first = torch.from_numpy(np.repeat(first, lengths))
        self._last = torch.from_numpy(np.repeat(first + lengths - 1, lengths))
        start = 1 - config.observation_horizon
        self._observation_offsets = torch.arange(start, 1)
        self._action_offsets = torch.arange(start, start + config.action_horizon)

    def __len__(self) -> int:
        return len(self._step)

    def to(self, device: torch.device) -> WindowDataset:
        """Moves the data to a torch device; returns itself."""
        vars(self).update({name: v.to(device) for name, v in vars(self).items() if isinstance(v, Tensor)})
        return self

    def windows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised observations (B, observation_horizon, d) and actions (B, action_horizon, a) of windows (B,)."""
        step, first, last = (value[index][:, None] for value in (self._step, self._first, self._last))
        observed = torch.clamp(step + self._observation_offsets, first, last)
        acted = torch.clamp(step + self._action_offsets, first, last)
        return self._observations[observed], self._actions[acted]


def augment(observations: Tensor, obs_noise: float, finger_dropout: float, generator: torch.Generator) -> Tensor:
    """Normalised observations (B, h, d) with noise and without the joints of random fingers, alike over a window.

    Args:
        observations: (B, h, d); with `finger_dropout` the first 28 of d are the joints in `hand.ACTION_NAMES` order.
        obs_noise: Standard deviation of the noise.
        finger_dropout: Probability that a finger is hidden: its inputs become 0, the middle of their range.
        generator: Source of randomness, on the device of the observations.
    """
    device = observations.device
    if obs_noise > 0:
        noise = torch.randn(observations.shape, generator=generator, dtype=torch.float32, device=device)
        observations = observations + obs_noise * noise
    if finger_dropout > 0:
        size = (len(observations), 1, len(FINGERS))
        shown = torch.rand(size, generator=generator, dtype=torch.float32, device=device) >= finger_dropout
        observations = observations.clone()
        for number, finger in enumerate(FINGERS):
            observations[:, :, finger_slice(finger)] *= shown[:, :, number, None]
    return observations


def load_minari(dataset_id: str, obs_key: str | None) -> list[Episode]:
    """Reads the demonstrations of a local Minari dataset.

    Args:
        dataset_id: For example "DexCompose/PushButton/expert-v0".
        obs_key: Entry of the observation dict to learn from ("task_a" or "task_b"); None if observations are arrays.

    Raises:
        DatasetError: If there is no such dataset, or its observations have no such key.
    """
    import minari

    try:
        dataset = minari.load_dataset(dataset_id)
    except (FileNotFoundError, ValueError) as error:
        raise DatasetError(f"can't load Minari dataset {dataset_id!r}: {error}") from error
    episodes: list[Episode] = []
    for episode in dataset.iterate_episodes():
        observations = episode.observations
        if obs_key is not None:
            if not isinstance(observations, dict) or obs_key not in observations:
                found = ", ".join(observations) if isinstance(observations, dict) else "an array"
                raise DatasetError(f"observations of dataset {dataset_id!r} have no key {obs_key!r}; found {found}")
            observations = observations[obs_key]
        actions = np.asarray(episode.actions)
        episodes.append(Episode(obs=np.asarray(observations)[: len(actions)], action=actions))  # not the last one
    return episodes


def _checked(episodes: Sequence[Episode]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """All observations (n, d) and actions (n, a), one episode after the other."""
    if not episodes:
        raise DatasetError("no demonstrations; expected at least one episode")
    arrays: dict[str, list[NDArray[np.float32]]] = {"obs": [], "action": []}
    for number, episode in enumerate(episodes):
        for key, done in arrays.items():
            array = np.asarray(episode[key], np.float32)  # type: ignore[literal-required]
            size = done[0].shape[1] if done else "d"
            if array.ndim != 2 or not len(array) or (done and array.shape[1] != size):
                raise DatasetError(
                    f"{key} of episode {number} has shape {array.shape}; expected (T, {size}) with T >= 1"
                )
            if not np.isfinite(array).all():
                raise DatasetError(f"{key} of episode {number} holds NaN or infinity; expected finite numbers")
            done.append(array)
        lengths = len(arrays["obs"][-1]), len(arrays["action"][-1])
        if lengths[0] != lengths[1]:
            raise DatasetError(
                f"episode {number} has {lengths[0]} observations and {lengths[1]} actions; expected as many"
            )
    return np.concatenate(arrays["obs"]), np.concatenate(arrays["action"])


def finger_inputs(fingers: Sequence[str], observation_size: int) -> NDArray[np.intp]:
    """Numbers of the inputs that hold the joint positions of some fingers.

    Raises:
        UsageError: If a finger is unknown or the observation is too small to hold the joints.
    """
    if fingers and observation_size < NUM_ACTIONS:
        raise UsageError(f"observations have {observation_size} numbers; expected at least the {NUM_ACTIONS} joints")
    return np.concatenate([np.zeros(0, np.intp), *(np.arange(NUM_ACTIONS)[finger_slice(name)] for name in fingers)])
