"""The recorder: runs any policy or teleoperator and keeps its successful episodes as a Minari dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from dexcompose_envs.demonstrations.attempts import Attempts, Book, Progress, RecordingError
from dexcompose_envs.demonstrations.datasets import (
    Episode,
    dataset_id_of,
    datasets_root,
    refuse_existing,
    write_dataset,
)
from dexcompose_envs.files import check_writable_dir
from dexcompose_envs.hand import NUM_ACTIONS
from dexcompose_envs.observations import Array
from dexcompose_envs.registration import env_id
from dexcompose_envs.skills import SKILLS


class DemonstrationPolicy(Protocol):
    """Anything that can demonstrate: a scripted expert, a trained policy, a person with a glove.

    The recorder steps N worlds at once. It calls `reset` whenever worlds begin an episode and `act` once per control
    step. A policy that makes the same choices for the same episode seed yields the same dataset for any N.
    """

    def reset(self, obs: Mapping[str, Array], env_ids: Sequence[int], seeds: Sequence[int]) -> None:
        """Begins episodes.

        Args:
            obs: Present observations of all worlds, key -> (N, size).
            env_ids: Worlds that begin an episode.
            seeds: Seed of each of those episodes.
        """

    def act(self, obs: Mapping[str, Array]) -> NDArray[np.floating[Any]]:
        """Normalised position targets (N, 28) for this control step; values beyond [-1, 1] are clipped."""


class CallbackPolicy:
    """A policy from a function of one world's observation: the way to connect a teleoperation device.

    ```python
    def glove(obs):  # obs["context"]: (size,) float32
        return device.read_targets()  # (28,) in [-1, 1]

    record("GraspBall", CallbackPolicy(glove), num_envs=1, dataset_id="DexCompose/GraspBall/human-v0")
    ```
    """

    def __init__(
        self, function: Callable[[dict[str, Array]], Any], on_reset: Callable[[int, int], None] | None = None
    ) -> None:
        """Wraps a function.

        Args:
            function: Observation of one world, key -> (size,), to its action (28,).
            on_reset: Called with world and episode seed at the start of every episode.
        """
        self._function = function
        self._on_reset = on_reset

    def reset(self, obs: Mapping[str, Array], env_ids: Sequence[int], seeds: Sequence[int]) -> None:
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
    """What a recording came to.

    Attributes:
        dataset_id: Id of the dataset.
        path: Its folder.
        episodes: Successful episodes kept.
        attempts: Episodes run until the last one kept.
        seeds: Seed of each kept episode.
    """

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
    policy: DemonstrationPolicy,
    *,
    episodes: int = 50,
    seed: int = 0,
    num_envs: int = 16,
    root: str | Path | None = None,
    dataset_id: str | None = None,
    tail: int = 15,
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
        skill: One of `SKILLS`.
        policy: Who demonstrates.
        episodes: Successful episodes to keep.
        seed: Seed of the first attempt.
        num_envs: Worlds stepped at once; 1 for a teleoperator.
        root: Folder of the datasets; None for Minari's own.
        dataset_id: Id of the dataset; None for "DexCompose/<skill>/expert-v0".
        tail: Control steps kept after success; a retention policy learns from them to go on holding.
        max_attempts: Attempts after which to give up; None: four times `episodes`, and at least 64.
        force: Replace an existing dataset of that id, and forget an unfinished recording of it.
        progress: Called with (kept, wanted).
        env_kwargs: Further keyword arguments of the vector environment, such as `num_threads`.

    Returns:
        The report.

    Raises:
        ValueError: If the skill is unknown or a number isn't positive.
        FileExistsError: If the dataset exists and `force` is False.
        RecordingError: If too few attempts succeed, or an unfinished recording with other settings lies there.
        OSError: If the folder can't be written.
    """
    if skill not in SKILLS:
        raise ValueError(f"unknown skill {skill!r}; expected one of {', '.join(SKILLS)}")
    max_attempts = max(4 * episodes, 64) if max_attempts is None else max_attempts
    for name, value in (("episodes", episodes), ("num_envs", num_envs), ("max_attempts", max_attempts)):
        if value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1")
    if tail < 0:
        raise ValueError(f"tail is {tail}; expected at least 0 control steps")
    dataset_id = dataset_id or dataset_id_of(skill)
    folder = check_writable_dir(datasets_root(root))
    refuse_existing(dataset_id, folder, force)

    venv = gym.make_vec(
        env_id(skill),
        num_envs=num_envs,
        terminate_on_success=False,
        autoreset_mode=AutoresetMode.DISABLED,
        **(env_kwargs or {}),
    )
    try:
        core: Any = venv.unwrapped.core  # type: ignore[attr-defined]
        settings = {
            "skill": skill,
            "policy": str(getattr(policy, "name", type(policy).__name__)),
            "env_version": version_of_envs(),
            "model_hash": core.scene.model_hash,
            "seed": seed,
            "tail": tail,
        }
        attempts = Attempts(folder / ".recording" / dataset_id.replace("/", "_"), settings, force)
        book = Book(attempts, episodes, max_attempts, progress)
        _roll_out(venv, policy, book, seed, tail)
    finally:
        venv.close()

    kept = book.kept[:episodes]
    if len(kept) < episodes:
        raise RecordingError(
            f"only {len(kept)} of {max_attempts} attempts at {skill} succeeded; expected {episodes} "
            "(finished episodes are kept for the next call)"
        )
    recording = Recording(dataset_id, folder / dataset_id, episodes, kept[-1] + 1, tuple(seed + i for i in kept))
    spec = deepcopy(gym.spec(env_id(skill)))
    spec.kwargs = {**spec.kwargs, "terminate_on_success": False}
    write_dataset(
        dataset_id,
        [episode for i in kept if (episode := attempts.done[i]) is not None],
        spec,
        {
            **settings,
            "episode_seeds": list(recording.seeds),
            "attempts": recording.attempts,
            "success_rate": recording.success_rate,
            "packages": package_versions(),
        },
        root=folder,
        algorithm_name=settings["policy"],
        description=f"Successful episodes of {skill}, cut {tail} control steps after success.",
        requirements=[f"dexcompose=={settings['env_version']}"],
        force=force,
    )
    attempts.remove()
    return recording


def version_of_envs() -> str:
    """Version of the environments."""
    from dexcompose_envs import __version__

    return __version__


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide what an episode looks like."""
    versions = {"dexcompose": version_of_envs()}
    for name in ("mujoco", "gymnasium", "gymnasium-robotics", "numpy", "minari"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "unknown"
    return versions


def _roll_out(venv: Any, policy: DemonstrationPolicy, book: Book, seed: int, tail: int) -> None:
    """Runs attempts in all worlds until the book is complete."""
    n = venv.num_envs
    numbers = np.zeros(n, np.int64)
    tracks = [_Track() for _ in range(n)]
    ended = np.ones(n, bool)
    while not book.complete:
        if ended.any():
            worlds = np.flatnonzero(ended)
            numbers[worlds] = [book.next() for _ in worlds]
            seeds = seed + numbers
            obs, info = venv.reset(seed=seeds.tolist(), options={"reset_mask": ended.copy()})
            policy.reset(obs, worlds.tolist(), seeds[worlds].tolist())
            for world in worlds.tolist():
                tracks[world] = _Track()
                tracks[world].see(obs, info, world)
            ended[:] = False
        actions = np.asarray(policy.act(obs), np.float32)
        if actions.shape != (n, NUM_ACTIONS):
            raise RecordingError(f"the policy's actions have shape {actions.shape}; expected ({n}, {NUM_ACTIONS})")
        actions = np.clip(actions, -1.0, 1.0)
        obs, reward, terminated, truncated, info = venv.step(actions)
        for world, track in enumerate(tracks):
            track.actions.append(actions[world].copy())
            track.rewards.append(float(reward[world]))
            track.see(obs, info, world)
            if info["success"][world] and track.success_at is None:
                track.success_at = len(track.actions)
            through = track.success_at is not None and len(track.actions) >= track.success_at + tail
            if through or terminated[world] or truncated[world]:
                is_kept = bool(info["success"][world]) and not terminated[world]
                number = int(numbers[world])
                book.finish(number, track.episode(seed + number) if is_kept else None)
                ended[world] = True


@dataclass
class _Track:
    """An episode in the making."""

    observations: list[dict[str, NDArray[np.float32]]] = field(default_factory=list)
    actions: list[NDArray[np.float32]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    infos: list[dict[str, Any]] = field(default_factory=list)
    success_at: int | None = None

    def see(self, obs: Mapping[str, Array], info: Mapping[str, Array], world: int) -> None:
        """Adds what one world shows now."""
        self.observations.append({key: value[world] for key, value in obs.items()})
        self.infos.append({name: value[world] for name, value in info.items()})

    def episode(self, seed: int) -> Episode:
        """The finished episode."""
        return Episode(
            seed,
            {key: np.stack([row[key] for row in self.observations]) for key in self.observations[0]},
            np.stack(self.actions),
            np.array(self.rewards),
            {name: np.array([row[name] for row in self.infos]) for name in self.infos[0]},
        )
