"""The recorder: runs any agent or teleoperator and keeps its successful episodes as a Minari dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from dexcompose_envs import __version__
from dexcompose_envs.agent import Agent
from dexcompose_envs.artefacts import DATA_VERSION
from dexcompose_envs.checks import whole_number
from dexcompose_envs.demonstrations.datasets import (
    RecordedEpisode,
    dataset_id_of,
    datasets_root,
    refuse_existing,
    write_dataset,
)
from dexcompose_envs.files import check_writable_dir, lock_folder
from dexcompose_envs.observations import Array
from dexcompose_envs.pieces import Pieces, Progress, UnfinishedError
from dexcompose_envs.registration import env_id
from dexcompose_envs.rollouts import Episode, Moment, Watcher, run_episodes
from dexcompose_envs.skills import make_skill


class CallbackPolicy:
    """An agent from a function of one world's observation: the way to connect a teleoperation device.

    ```python
    def glove(obs):  # obs["context"]: (size,) float32
        return device.read_targets()  # (28,) in [-1, 1]

    record("GraspBall", CallbackPolicy(glove), num_envs=1, dataset_id="DexCompose/GraspBall/human-v0")
    ```
    """

    def __init__(
        self,
        function: Callable[[dict[str, Array]], Any],
        on_reset: Callable[[int, int], None] | None = None,
        name: str = "callback",
    ) -> None:
        """Wraps a function; `on_reset` is called with world and seed of every episode, `name` is for the dataset."""
        self.name = name
        self._function = function
        self._on_reset = on_reset

    def reset(
        self, obs: Mapping[str, Array], info: Mapping[str, Any], env_ids: Iterable[int], seeds: Iterable[int]
    ) -> None:
        """Tells `on_reset` which episodes begin."""
        if self._on_reset is not None:
            for world, seed in zip(env_ids, seeds, strict=True):
                self._on_reset(int(world), int(seed))

    def act(self, obs: Mapping[str, Array]) -> NDArray[np.float32]:
        """The function's action for each world, (N, 28)."""
        count = len(next(iter(obs.values())))
        rows = [self._function({key: value[world] for key, value in obs.items()}) for world in range(count)]
        return np.asarray(rows, np.float32)


@dataclass(frozen=True)
class Recording:
    """What a recording came to: its dataset, the episodes kept with their seeds, and the attempts that they took."""

    dataset_id: str
    path: Path
    episodes: int
    attempts: int
    seeds: tuple[int, ...]

    @property
    def success_rate(self) -> float:
        """Kept episodes over attempts."""
        return self.episodes / self.attempts


def record(
    skill: str,
    agent: Agent,
    *,
    episodes: int = 50,
    seed: int = 0,
    num_envs: int = 16,
    root: str | Path | None = None,
    dataset_id: str | None = None,
    tail: int = 15,
    base_shake: float = 0.0,
    max_attempts: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
) -> Recording:
    """Records successful episodes of one skill and stores them as a Minari dataset.

    Attempt i has episode seed `seed + i`, and the dataset holds the first successful attempts in order, so it doesn't
    depend on `num_envs`. An episode is cut `tail` control steps after its first success and kept if it is successful
    at the cut. Every finished attempt is on disk at once: an interrupted recording goes on where it was.

    Args:
        skill: Name of the skill.
        agent: Who demonstrates.
        episodes: Successful episodes to keep.
        seed: Seed of the first attempt.
        num_envs: Worlds stepped at once; 1 for a teleoperator.
        root: Folder of the datasets; None for Minari's own.
        dataset_id: Id of the dataset; None for "DexCompose/<skill>/expert-v0".
        tail: Control steps kept after success; a retention policy learns from them to go on holding.
        base_shake: Scale of the wrist's tremble, see `episodes.base_shake`: the actions are those that the agent meant,
            the observations those of a hand that doesn't quite follow, so that a policy learns to come back. This is
            what Laskey et al., *DART* (2017), inject noise for.
        max_attempts: Attempts after which to give up; None: four times `episodes`, and at least 64.
        force: Replace an existing dataset of that id, and forget an unfinished recording of it.
        progress: Called with (kept, wanted).
        env_kwargs: Further keyword arguments of the vector environment, such as `num_threads`.

    Returns:
        The report.

    Raises:
        UsageError: If the skill is unknown, a number isn't positive, the dataset exists and `force` is False, or
            another process is recording it.
        AgentError: If an action has a wrong shape or is not finite.
        UnfinishedError: If too few attempts succeed, or an unfinished recording with other settings lies there.
        OSError: If the folder can't be written.
    """
    make_skill(skill)
    episodes = whole_number("episodes", episodes)
    max_attempts = whole_number("max_attempts", max(4 * episodes, 64) if max_attempts is None else max_attempts)
    tail = whole_number("tail", tail, least=0)
    dataset_id = dataset_id or dataset_id_of(skill)
    folder = check_writable_dir(datasets_root(root))
    refuse_existing(dataset_id, folder, force)
    spec = deepcopy(gym.spec(env_id(skill)))
    spec.kwargs = {**spec.kwargs, "terminate_on_success": False, "base_shake": base_shake}
    venv = gym.make_vec(
        env_id(skill),
        num_envs=num_envs,
        terminate_on_success=False,
        base_shake=base_shake,
        autoreset_mode=AutoresetMode.DISABLED,
        **(env_kwargs or {}),
    )
    try:
        env: Any = venv.unwrapped
        settings = {
            "skill": skill,
            "policy": agent.name,
            "data_version": DATA_VERSION,
            "model_hash": env.model_hash,
            "seed": seed,
            "tail": tail,
            "base_shake": base_shake,
        }
        with lock_folder(folder / ".recording" / dataset_id.replace("/", "_")) as unfinished:
            attempts = Pieces(unfinished, settings, "force=True starts again", force)
            recorder = _Recorder(attempts, tail, episodes, progress)
            kept = recorder.run(venv, agent, seed, max_attempts)
            if len(kept) < episodes:
                raise UnfinishedError(
                    f"only {len(kept)} of {max_attempts} attempts at {skill} succeeded; expected {episodes} "
                    "(finished episodes are kept for the next call)"
                )
            seeds = tuple(episode.seed for episode in kept)
            recording = Recording(dataset_id, folder / dataset_id, episodes, seeds[-1] - seed + 1, seeds)
            packages = ("mujoco", "gymnasium", "gymnasium-robotics", "numpy", "minari")
            write_dataset(
                dataset_id,
                kept,
                spec,
                {
                    **settings,
                    "episode_seeds": list(seeds),
                    "attempts": recording.attempts,
                    "success_rate": recording.success_rate,
                    "packages": {"dexcompose": __version__, **{name: version(name) for name in packages}},
                },
                root=folder,
                algorithm_name=agent.name,
                description=f"Successful episodes of {skill}, cut {tail} control steps after success.",
                requirements=[f"dexcompose=={__version__}"],
                force=force,
            )
            attempts.remove()
            with suppress(OSError):  # other recordings lie beside it
                unfinished.parent.rmdir()
    finally:
        venv.close()
    return recording


class _Recorder(Watcher):
    """Writes the episodes of all worlds down, cuts them `tail` steps after success and saves them as they end."""

    def __init__(self, attempts: Pieces, tail: int, wanted: int, progress: Progress | None) -> None:
        self._attempts, self._tail, self._wanted, self._progress = attempts, tail, wanted, progress
        self._done = {
            number: RecordedEpisode.from_arrays(about["seed"], arrays) if arrays else None
            for number, (about, arrays) in attempts.found.items()
        }
        self._tracks: dict[int, _Track] = {}
        self._report()

    def run(self, venv: Any, agent: Agent, seed: int, most: int) -> list[RecordedEpisode]:
        """Runs the attempts that have no result yet, until the first ones hold enough successes, which it returns."""
        todo = (Episode(seed + number, tag=number) for number in range(most) if number not in self._done)
        rollouts = run_episodes(venv, agent, todo, self)
        kept: list[RecordedEpisode] = []
        for number in range(most):
            while number not in self._done:
                next(rollouts)
            if (episode := self._done[number]) is not None:
                kept.append(episode)
            if len(kept) == self._wanted:
                break
        return kept

    def begin(self, worlds: NDArray[np.int64], moment: Moment) -> None:
        for world in worlds.tolist():
            self._tracks[world] = _Track()
            self._tracks[world].see(moment, world)

    def step(self, moment: Moment) -> NDArray[np.bool_]:
        over = moment.ended
        for world, track in self._tracks.items():
            track.actions.append(moment.actions[world])
            track.rewards.append(float(moment.reward[world]))
            track.see(moment, world)
            if moment.info["success"][world] and track.success_at is None:
                track.success_at = len(track.actions)
            over[world] |= track.success_at is not None and len(track.actions) >= track.success_at + self._tail
        return over

    def result(self, world: int, moment: Moment) -> None:
        attempt, track = moment.episodes[world], self._tracks.pop(world)
        assert attempt is not None
        is_kept = moment.info["success"][world] and not (moment.terminated | moment.unstable)[world]
        episode = track.recorded(attempt.seed) if is_kept else None
        self._attempts.add(attempt.tag, {"seed": attempt.seed}, {} if episode is None else episode.arrays())
        self._done[attempt.tag] = episode
        self._report()

    def _report(self) -> None:
        if self._progress is not None:
            successes = sum(episode is not None for episode in self._done.values())
            self._progress(min(successes, self._wanted), self._wanted)


@dataclass
class _Track:
    """An episode in the making."""

    observations: list[dict[str, NDArray[np.float32]]] = field(default_factory=list)
    actions: list[NDArray[np.float32]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    infos: list[dict[str, Any]] = field(default_factory=list)
    success_at: int | None = None

    def see(self, moment: Moment, world: int) -> None:
        """Adds what one world shows now."""
        self.observations.append({key: value[world] for key, value in moment.obs.items()})
        self.infos.append(moment.row(world))

    def recorded(self, seed: int) -> RecordedEpisode:
        """The finished episode."""
        return RecordedEpisode(
            seed,
            {key: np.stack([row[key] for row in self.observations]) for key in self.observations[0]},
            np.stack(self.actions),
            np.array(self.rewards),
            {name: np.array([row[name] for row in self.infos]) for name in self.infos[0]},
        )
