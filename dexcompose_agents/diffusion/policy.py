"""Acting with a trained diffusion policy: observation history, action chunks, staggered replanning over worlds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dexcompose_agents.diffusion.config import EXECUTE_STEPS, NetworkConfig
from dexcompose_agents.diffusion.dataset import OBSERVATION_CLIP, Normalizer, finger_inputs
from dexcompose_agents.diffusion.sampler import ChunkSampler, SchedulerName
from dexcompose_agents.diffusion.training import KIND
from dexcompose_agents.diffusion.unet import FilmUnet
from dexcompose_agents.pretrained_files import pretrained_folder
from dexcompose_agents.weights import WeightsError, load_weights
from dexcompose_envs.hand import FINGERS

_NOISE_STREAM = 0xD1F
"""Keeps the policy's noise apart from other generators that are made from the same seed."""


@runtime_checkable
class BasePolicy(Protocol):
    """A policy of one skill that acts in N worlds at once and keeps its own state for each."""

    def reset(self, num_envs: int) -> None:
        """Starts afresh with `num_envs` worlds, seeded 0, 1, 2, ..."""

    def reset_envs(self, env_ids: ArrayLike) -> None:
        """Starts a new episode in some worlds; their noise goes on where it was."""

    def seed_envs(self, seeds: ArrayLike, env_ids: ArrayLike | None = None) -> None:
        """Seeds the noise of some worlds (None: all) and starts a new episode there."""

    def act(self, task_obs: ArrayLike, env_ids: ArrayLike | None = None) -> NDArray[np.float32]:
        """Normalised actions (n, 28) for the task observations (n, d) of some worlds (None: all)."""

    def hide_fingers(self, fingers: Iterable[str]) -> None:
        """Says which fingers another skill owns. A policy that was trained to do without them stops reading them."""


class DiffusionPolicy:
    """A trained diffusion policy, batched over worlds.

    Every world keeps its last observations and the chunk of actions that it is executing; when `execute_steps` of a
    chunk are used up, it plans a new one. `act` runs the network for just those worlds that must plan. The first chunk
    of an episode is cut short, depending on the world's seed, so that plans spread over control steps
    (`NetworkConfig.stagger_groups`).

    What a world does depends on its own observations and its own seed alone, never on its neighbours or their number:
    to the last bit where the maths library is kind, to 1e-5 in any case (see `ChunkSampler`).

    Args:
        tensors: Weights by name.
        manifest: Manifest of the weights.
        scheduler: `ddim` or `ddpm`.
        num_inference_steps: Denoising steps; None takes the network's default (ddim) or all (ddpm).
        device: Torch device.

    Raises:
        WeightsError: If tensors and manifest are not those of a diffusion policy.
        ValueError: If scheduler or number of steps are not possible.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        manifest: Mapping[str, Any],
        *,
        scheduler: SchedulerName = "ddim",
        num_inference_steps: int | None = None,
        device: str = "cpu",
    ) -> None:
        if manifest.get("kind") != KIND:
            raise WeightsError(f"weights are of kind {manifest.get('kind')!r}; expected {KIND!r}")
        try:
            settings = manifest["config"]["network"]
            self.config = NetworkConfig(**{item.name: settings[item.name] for item in fields(NetworkConfig)})
            self._observed = Normalizer.from_dict(manifest["observation_normalizer"])
            self._acted = Normalizer.from_dict(manifest["action_normalizer"])
            self._finger_dropout = float(manifest["config"]["finger_dropout"])
            network = FilmUnet(self.action_size, self.observation_size * self.config.observation_horizon, self.config)
            network.load_state_dict(dict(tensors))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(f"weights and manifest of the diffusion policy don't fit together ({reason})") from error
        self.manifest = dict(manifest)
        self._sampler = ChunkSampler(
            network.to(device), self.config, self.action_size, scheduler=scheduler, inference_steps=num_inference_steps
        )
        self.hide_fingers(())
        self.reset(1)

    @property
    def observation_size(self) -> int:
        """Numbers per observation."""
        return self._observed.size

    @property
    def action_size(self) -> int:
        """Numbers per action."""
        return self._acted.size

    @property
    def num_envs(self) -> int:
        """Number of worlds."""
        return len(self._fresh)

    def hide_fingers(self, fingers: Iterable[str]) -> None:
        """Hides the joint positions of some fingers, those that another skill owns, until it is called again.

        Only a policy trained with `finger_dropout` has learned to act without them; any other goes on reading them.

        Args:
            fingers: Names of `hand.FINGERS`; empty shows all again.
        """
        if self._finger_dropout == 0.0:
            fingers = ()
        elif self._finger_dropout == 1.0:
            fingers = FINGERS
        self._hidden = finger_inputs(tuple(fingers), self.observation_size)

    def reset(self, num_envs: int) -> None:
        """Starts afresh with `num_envs` worlds, seeded 0, 1, 2, ... until `seed_envs` says otherwise."""
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}; expected at least 1")
        config = self.config
        self._history = np.zeros((num_envs, config.observation_horizon, self.observation_size), np.float32)
        self._chunk = np.zeros((num_envs, config.execute_steps, self.action_size), np.float32)
        self._fresh = np.ones(num_envs, np.bool_)
        self._position = np.zeros(num_envs, np.int64)  # of the next action in the chunk
        self._end = np.zeros(num_envs, np.int64)  # where the world plans again
        self._first_length = np.zeros(num_envs, np.int64)
        self._noise: list[np.random.Generator] = [np.random.default_rng() for _ in range(num_envs)]
        self.seed_envs(np.arange(num_envs))

    def seed_envs(self, seeds: ArrayLike, env_ids: ArrayLike | None = None) -> None:
        """Seeds the noise of some worlds and starts a new episode there.

        Args:
            seeds: One whole number >= 0 per world, (n,).
            env_ids: The worlds, (n,); None means all.
        """
        ids = self._ids(env_ids)
        values = [int(seed) for seed in np.asarray(seeds).reshape(-1)]
        if len(values) != len(ids) or min(values, default=0) < 0:
            raise ValueError(f"seeds are {values}; expected {len(ids)} whole numbers >= 0, one per world")
        groups, execute_steps = self.config.stagger_groups, self.config.execute_steps
        for env, seed in zip(ids, values, strict=True):
            self._noise[env] = np.random.default_rng([_NOISE_STREAM, seed])
            self._first_length[env] = execute_steps - (seed % groups) * execute_steps // groups
        self.reset_envs(ids)

    def reset_envs(self, env_ids: ArrayLike) -> None:
        """Starts a new episode in some worlds: history and chunk are forgotten, the noise goes on where it was."""
        self._fresh[self._ids(env_ids)] = True

    def act(self, task_obs: ArrayLike, env_ids: ArrayLike | None = None) -> NDArray[np.float32]:
        """Actions for one control step.

        Args:
            task_obs: Task observations of the worlds, (n, d).
            env_ids: The worlds that act, each at most once, (n,); None means all. The others stand still.

        Returns:
            Normalised position targets (n, 28), within the range of the demonstrations.

        Raises:
            ValueError: If the shape is wrong or a number is not finite.
        """
        ids = self._ids(env_ids)
        observations = self._prepared(task_obs, len(ids))
        fresh = self._fresh[ids]
        shifted = np.concatenate([self._history[ids, 1:], observations[:, None]], axis=1)
        self._history[ids] = np.where(fresh[:, None, None], observations[:, None], shifted)
        self._end[ids[fresh]] = self._position[ids[fresh]] = 0
        planning = ids[self._position[ids] >= self._end[ids]]
        if planning.size:
            self._plan(planning)
        self._fresh[ids] = False
        actions = self._chunk[ids, self._position[ids]]
        self._position[ids] += 1
        return actions

    def _plan(self, ids: NDArray[np.int64]) -> None:
        """New chunks for some worlds."""
        seeds = [self._noise[env].integers(2**63) for env in ids]
        chunks = self._acted.denormalize(self._sampler(self._history[ids].reshape(len(ids), -1), seeds))
        # The chunk's first action belongs to the oldest observation; the current one is `observation_horizon - 1` on.
        now = self.config.observation_horizon - 1
        self._chunk[ids] = chunks[:, now : now + self.config.execute_steps]
        self._position[ids] = 0
        self._end[ids] = np.where(self._fresh[ids], self._first_length[ids], self.config.execute_steps)

    def _prepared(self, task_obs: ArrayLike, count: int) -> NDArray[np.float32]:
        """Checked, normalised and clipped observations with the hidden inputs at 0."""
        observations = np.asarray(task_obs, np.float32)
        if observations.shape != (count, self.observation_size):
            expected = (count, self.observation_size)
            raise ValueError(f"task_obs has shape {observations.shape}; expected {expected} (worlds, observation size)")
        if not np.isfinite(observations).all():
            row = int(np.flatnonzero(~np.isfinite(observations).all(axis=1))[0])
            raise ValueError(f"task_obs row {row} holds NaN or infinity; expected finite numbers")
        normalized = np.clip(self._observed.normalize(observations), -OBSERVATION_CLIP, OBSERVATION_CLIP)
        normalized[:, self._hidden] = 0.0
        return normalized

    def _ids(self, env_ids: ArrayLike | None) -> NDArray[np.int64]:
        """World numbers, checked."""
        if env_ids is None:
            return np.arange(self.num_envs)
        ids = np.asarray(env_ids, np.int64).reshape(-1)
        if ids.size and not (ids.min() >= 0 and ids.max() < self.num_envs):
            raise ValueError(f"env_ids are {ids.tolist()}; expected numbers from 0 to {self.num_envs - 1}")
        return ids


def load_policy(
    skill: str,
    *,
    scheduler: SchedulerName = "ddim",
    num_inference_steps: int | None = None,
    path: str | Path | None = None,
    device: str = "cpu",
) -> DiffusionPolicy:
    """Loads the base policy of a skill, as shipped or from a file.

    Args:
        skill: Name of the skill, e.g. "PushButton".
        scheduler: `ddim` or `ddpm`.
        num_inference_steps: Denoising steps; None takes the network's default (ddim) or all (ddpm).
        path: Weight file; None takes the one in `pretrained_folder()`, as a rule the one that ships.
        device: Torch device.

    Raises:
        ValueError: If the skill is unknown.
        WeightsError: If there are no weights, or they can't be read, or are of another skill.
    """
    if skill not in EXECUTE_STEPS:
        raise ValueError(f"unknown skill {skill!r}; expected one of {', '.join(EXECUTE_STEPS)}")
    file = pretrained_folder() / f"{skill}.safetensors" if path is None else Path(path)
    if not file.exists():
        raise WeightsError(f"no trained weights of {skill} at {file}; make them with: dexcompose train policy {skill}")
    tensors, manifest = load_weights(file)
    trained_on = manifest.get("skill", skill)
    if trained_on != skill:
        raise WeightsError(f"weight file {file} is of skill {trained_on!r}; expected {skill!r}")
    return DiffusionPolicy(
        tensors, manifest, scheduler=scheduler, num_inference_steps=num_inference_steps, device=device
    )
