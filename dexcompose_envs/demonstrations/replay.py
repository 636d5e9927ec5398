"""Replay: recorded actions, fed to the environment again from the same episode seeds, must succeed again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from dexcompose_envs.demonstrations.datasets import METADATA_KEY, load_demonstrations
from dexcompose_envs.demonstrations.recorder import version_of_envs
from dexcompose_envs.registration import env_id

Progress = Callable[[int, int], None]
"""`progress(finished, total)` in episodes."""


class ReplayError(ValueError):
    """A dataset that can't be replayed here; the message says what came and what was expected."""


@dataclass(frozen=True)
class ReplayReport:
    """What a replay came to.

    Attributes:
        episodes: Episodes replayed.
        failed: Numbers of the episodes that did not end in success.
        largest_deviation: Largest difference between a recorded and a replayed observation; 0 on the machine and with
            the package versions that recorded.
    """

    episodes: int
    failed: tuple[int, ...]
    largest_deviation: float

    @property
    def success_rate(self) -> float:
        """Share of episodes that succeeded again."""
        return 1.0 - len(self.failed) / self.episodes


def replay_dataset(
    dataset: Any,
    *,
    root: str | Path | None = None,
    num_envs: int = 16,
    progress: Progress | None = None,
    env_kwargs: dict[str, Any] | None = None,
) -> ReplayReport:
    """Replays every episode of a recorded dataset.

    Args:
        dataset: A `minari.MinariDataset`, or the id of one.
        root: Folder of the datasets; None for Minari's own.
        num_envs: Worlds stepped at once; the result doesn't depend on it.
        progress: Called with (finished, total).
        env_kwargs: Further keyword arguments of the vector environment, such as `num_threads`.

    Raises:
        FileNotFoundError: If there is no such dataset.
        ReplayError: If it wasn't made by the recorder, or in another version or physics model of the environment.
        ValueError: If `num_envs` isn't positive.
    """
    if isinstance(dataset, str):
        dataset = load_demonstrations(dataset, root)
    if num_envs < 1:
        raise ValueError(f"num_envs is {num_envs}; expected at least 1")
    about = dataset.storage.metadata.get(METADATA_KEY)
    name = dataset.spec.dataset_id
    if not isinstance(about, dict) or "skill" not in about:
        raise ReplayError(f"dataset {name!r} has no {METADATA_KEY!r} metadata; expected one made by the recorder")
    episodes = list(dataset.iterate_episodes())
    if not episodes:
        raise ReplayError(f"dataset {name!r} is empty; expected at least one episode")
    seeds = [int(row["seed"]) for row in dataset.storage.get_episode_metadata(dataset.episode_indices)]

    venv = gym.make_vec(
        env_id(about["skill"]),
        num_envs=min(num_envs, len(episodes)),
        max_episode_steps=1 + max(len(episode) for episode in episodes),
        terminate_on_success=False,
        autoreset_mode=AutoresetMode.DISABLED,
        **(env_kwargs or {}),
    )
    try:
        here = {
            "env_version": version_of_envs(),
            "model_hash": venv.unwrapped.model_hash,  # type: ignore[attr-defined]
        }
        for key, value in here.items():
            if about.get(key) != value:
                raise ReplayError(
                    f"dataset {name!r} was recorded with {key} {about.get(key)!r}, expected {value!r}; record it again"
                )
        failed: list[int] = []
        deviation = 0.0
        for first in range(0, len(episodes), venv.num_envs):
            wave = episodes[first : first + venv.num_envs]
            succeeded, largest = _replay_wave(venv, wave, seeds[first : first + len(wave)])
            failed += [int(e.id) for e, again in zip(wave, succeeded, strict=True) if not again]
            deviation = max(deviation, largest)
            if progress is not None:
                progress(first + len(wave), len(episodes))
    finally:
        venv.close()
    return ReplayReport(len(episodes), tuple(failed), deviation)


def _replay_wave(venv: Any, episodes: list[Any], seeds: list[int]) -> tuple[list[bool], float]:
    """Success of each of at most N episodes, and the largest deviation of an observation."""
    spare = venv.num_envs - len(episodes)
    obs, _ = venv.reset(seed=seeds + [0] * spare)
    lengths = [len(episode.actions) for episode in episodes]
    succeeded = [False] * len(episodes)
    over = [False] * len(episodes)
    deviation = max(_deviation(obs, episode, 0, world) for world, episode in enumerate(episodes))
    actions = np.zeros((venv.num_envs, *venv.single_action_space.shape), np.float32)
    for step in range(max(lengths)):
        for world, episode in enumerate(episodes):
            actions[world] = episode.actions[min(step, lengths[world] - 1)]
        obs, _, terminated, truncated, info = venv.step(actions)
        for world, episode in enumerate(episodes):
            if over[world] or step >= lengths[world]:
                continue
            deviation = max(deviation, _deviation(obs, episode, step + 1, world))
            is_last = step == lengths[world] - 1
            succeeded[world] = is_last and bool(info["success"][world]) and not terminated[world]
            over[world] = is_last or bool(terminated[world])
        ended = terminated | truncated
        if ended.any():  # a world that is over goes on with any episode, unobserved
            venv.reset(options={"reset_mask": ended})
    return succeeded, deviation


def _deviation(obs: dict[str, Any], episode: Any, step: int, world: int) -> float:
    return max(float(np.abs(obs[key][world] - episode.observations[key][step]).max()) for key in obs)
