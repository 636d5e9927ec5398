"""Demonstrations as Minari datasets: where they lie, writing one in a single step, and reading it back."""

from __future__ import annotations

import os
import secrets
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from dexcompose_envs.errors import FileError, UsageError
from dexcompose_envs.faces import action_space, observation_space
from dexcompose_envs.registration import NAMESPACE
from dexcompose_envs.skills.chain import Chain

_ROOT_VARIABLE = "MINARI_DATASETS_PATH"
METADATA_KEY = "dexcompose"
"""Entry of a dataset's metadata that says how it was made."""


@dataclass(frozen=True, eq=False)
class RecordedEpisode:
    """One recorded episode of T control steps.

    Attributes:
        seed: Episode seed.
        observations: Key -> (T + 1, size) float32; the last row is what was seen after the last action.
        actions: (T, 28) float32, in [-1, 1].
        rewards: (T,) float64.
        infos: Name -> (T + 1,); the first row is the info of the reset.
    """

    seed: int
    observations: Mapping[str, NDArray[np.float32]]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float64]
    infos: Mapping[str, NDArray[Any]]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays in one table, for a file."""
        own = {"actions": self.actions, "rewards": self.rewards}
        groups: dict[str, Mapping[str, Any]] = {"own": own, "observations": self.observations, "infos": self.infos}
        return {f"{group}/{key}": value for group, entries in groups.items() for key, value in entries.items()}

    @classmethod
    def from_arrays(cls, seed: int, arrays: Mapping[str, NDArray[Any]]) -> RecordedEpisode:
        """The episode whose `arrays` these are."""
        groups: dict[str, dict[str, Any]] = {"own": {}, "observations": {}, "infos": {}}
        for name, value in arrays.items():
            group, _, key = name.partition("/")
            groups[group][key] = value
        return cls(seed, groups["observations"], infos=groups["infos"], **groups["own"])


def dataset_id_of(skill: str, source: str = "expert") -> str:
    """Id of a skill's demonstrations, for example "DexCompose/GraspBall/expert-v0"."""
    return f"{NAMESPACE}/{skill}/{source}-v0"


def datasets_root(root: str | Path | None = None) -> Path:
    """Folder of the datasets: `root`, or Minari's own (the environment's or the one in the user's home)."""
    if root is not None:
        return Path(root)
    return Path(os.environ.get(_ROOT_VARIABLE) or Path.home() / ".minari" / "datasets")


@contextmanager
def minari_root(root: str | Path | None = None) -> Iterator[Path]:
    """Lets Minari use a folder (None: its own) within the block, given as an absolute path."""
    before = os.environ.get(_ROOT_VARIABLE)
    folder = datasets_root(root).absolute()
    os.environ[_ROOT_VARIABLE] = str(folder)
    try:
        yield folder
    finally:
        if before is None:
            del os.environ[_ROOT_VARIABLE]
        else:
            os.environ[_ROOT_VARIABLE] = before


def load_demonstrations(dataset_id: str, root: str | Path | None = None) -> Any:
    """The `minari.MinariDataset` of an id such as "DexCompose/PushButton/expert-v0"; a FileError if there is none."""
    import minari

    with minari_root(root) as folder:
        if not (folder / dataset_id / "data").is_dir():
            raise FileError(f"no dataset {dataset_id!r} in {str(folder)!r}; expected one made by the recorder")
        return minari.load_dataset(dataset_id)


def write_dataset(
    dataset_id: str,
    episodes: Sequence[RecordedEpisode],
    env_spec: gym.envs.registration.EnvSpec,
    metadata: Mapping[str, Any],
    *,
    root: Path,
    force: bool,
    **described: Any,
) -> None:
    """Writes a dataset in a folder of its own, then gives it its name: readers see all of it or nothing.

    Args:
        dataset_id: Id of the dataset.
        episodes: What it holds.
        env_spec: The environment that the episodes were recorded in.
        metadata: JSON values that say how it was made, stored under `METADATA_KEY`.
        root: Folder of the datasets.
        force: Whether an existing dataset of that id is replaced.
        **described: Minari's own fields, such as the policy's name and a description.

    Raises:
        UsageError: If there is a dataset of that id and `force` is False.
    """
    import minari
    from minari.namespace import create_namespace, list_local_namespaces

    refuse_existing(dataset_id, root, force)
    final_root = root.absolute()
    scratch = final_root / f".writing-{secrets.token_hex(4)}"
    scratch.mkdir(parents=True)
    try:
        with minari_root(scratch), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # fields that Minari recommends and we leave out
            dataset = minari.create_dataset_from_buffers(
                dataset_id,
                [_buffer(number, episode) for number, episode in enumerate(episodes)],
                env=_Described(env_spec),
                eval_env=env_spec.id,
                **described,
            )
            dataset.storage.update_metadata({METADATA_KEY: dict(metadata)})
        target = final_root / dataset_id
        with minari_root(final_root):
            namespace = dataset_id.rpartition("/")[0]
            if namespace not in list_local_namespaces():
                create_namespace(namespace)
        if target.exists():
            os.replace(target, scratch / "replaced")
        os.replace(scratch / dataset_id, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def refuse_existing(dataset_id: str, root: Path, force: bool) -> None:
    """Raises a UsageError if there is a dataset of that id and `force` is False."""
    if (root / dataset_id).exists() and not force:
        raise UsageError(f"dataset {dataset_id!r} exists in {str(root)!r}; pass force=True to replace it")


class _Described(gym.Env[Any, Any]):
    """What Minari asks an environment for, without one: datasets are written where there is no engine to make it."""

    def __init__(self, spec: gym.envs.registration.EnvSpec) -> None:
        self.spec = spec
        chain = Chain.of(spec.kwargs.get("retention"), spec.kwargs.get("interactions", ()))
        self.observation_space, self.action_space = observation_space(chain.layout), action_space()


def _buffer(number: int, episode: RecordedEpisode) -> Any:
    """Minari's form of an episode. The recorder ends episodes, so their last step counts as truncated."""
    from minari.data_collector import EpisodeBuffer

    steps = len(episode.actions)
    return EpisodeBuffer(
        id=number,
        seed=episode.seed,
        observations=dict(episode.observations),
        actions=episode.actions,
        rewards=episode.rewards,
        terminations=np.zeros(steps, bool),
        truncations=np.arange(steps) == steps - 1,
        infos=dict(episode.infos),
    )
