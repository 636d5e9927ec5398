"""Replay: recorded actions, fed to the environment again from the same episode seeds, must succeed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.artefacts import DATA_VERSION
from dexcompose_envs.checks import whole_number
from dexcompose_envs.demonstrations.datasets import METADATA_KEY, load_demonstrations
from dexcompose_envs.errors import FileError
from dexcompose_envs.observations import Array
from dexcompose_envs.pieces import Progress
from dexcompose_envs.registration import env_id
from dexcompose_envs.rollouts import Episode, Moment, Watcher, run_episodes


class ReplayError(FileError):
    """A dataset that can't be replayed here; the message says what came and what was expected."""


@dataclass(frozen=True)
class ReplayReport:
    """What a replay came to.

    Attributes:
        episodes: Episodes replayed.
        failed: Numbers of those that did not end in success.
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
        FileError: If there is no such dataset.
        ReplayError: If it wasn't made by the recorder, or in another version or physics model of the environment.
        UsageError: If `num_envs` isn't a positive whole number.
    """
    if isinstance(dataset, str):
        dataset = load_demonstrations(dataset, root)
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
        num_envs=min(whole_number("num_envs", num_envs), len(episodes)),
        max_episode_steps=1 + max(len(episode) for episode in episodes),
        terminate_on_success=False,
        base_shake=float(about.get("base_shake", 0.0)),
        autoreset_mode=AutoresetMode.DISABLED,
        **(env_kwargs or {}),
    )
    try:
        here = {"data_version": DATA_VERSION, "model_hash": venv.unwrapped.model_hash}  # type: ignore[attr-defined]
        for key, value in here.items():
            if about.get(key) != value:
                raise ReplayError(
                    f"dataset {name!r} was recorded with {key} {about.get(key)!r}, expected {value!r}; record it again"
                )
        playback = _Playback(episodes)
        plan = [Episode(seed, tag=number) for number, seed in enumerate(seeds)]
        failed: list[int] = []
        for finished, rollout in enumerate(run_episodes(venv, playback, plan, playback), 1):
            if not rollout.result:
                failed.append(int(episodes[rollout.episode.tag].id))
            if progress is not None:
                progress(finished, len(episodes))
    finally:
        venv.close()
    return ReplayReport(len(episodes), tuple(failed), playback.deviation)


class _Playback(Watcher):
    """Plays recorded actions, and compares what is seen with what was."""

    name = "playback"

    def __init__(self, episodes: Sequence[Any]) -> None:
        self.deviation = 0.0
        self._episodes = episodes
        self._playing: dict[int, Any] = {}
        self._steps = np.zeros(0, np.int64)

    def reset(self, obs: Mapping[str, Array], info: Mapping[str, Any], env_ids: Any, seeds: Any) -> None:
        """Nothing: `begin` says which episodes they are."""

    def begin(self, worlds: NDArray[np.int64], moment: Moment) -> None:
        self._look(moment)

    def act(self, obs: Mapping[str, Array]) -> NDArray[np.float32]:
        actions = np.zeros((len(self._steps), hand.NUM_ACTIONS), np.float32)
        for world, recorded in self._playing.items():
            actions[world] = recorded.actions[self._steps[world]]
        return actions

    def idle(self, env_ids: NDArray[np.int64]) -> None:
        for world in env_ids.tolist():
            self._playing.pop(world, None)

    def step(self, moment: Moment) -> NDArray[np.bool_]:
        self._look(moment)
        over = moment.ended
        for world, recorded in self._playing.items():
            over[world] |= moment.steps[world] == len(recorded.actions)
        return over

    def _look(self, moment: Moment) -> None:
        self._steps = moment.steps
        named = enumerate(moment.episodes)
        self._playing = {world: self._episodes[episode.tag] for world, episode in named if episode is not None}
        for world, recorded in self._playing.items():
            for key, seen in moment.obs.items():
                apart = np.abs(seen[world] - recorded.observations[key][self._steps[world]])
                self.deviation = max(self.deviation, float(apart.max()))

    def result(self, world: int, moment: Moment) -> bool:
        is_last = moment.steps[world] == len(self._playing[world].actions)
        return bool(is_last and moment.info["success"][world] and not (moment.terminated | moment.unstable)[world])
