"""Demonstrations in the HDF5 layout of Isaac Lab and robomimic, to and from Minari datasets.

One file: `data` with the attributes `env_args` (JSON: `env_name`, `type`) and `total`, and a group `demo_<i>` per
episode with `num_samples`, `seed`, `success` and, over its T control steps, `actions` (T, 28), `rewards` (T,), `dones`
(T,), `obs/<key>` and `next_obs/<key>` (T, size). What Minari knows besides is in `infos/<name>` (T + 1,) and, under
`dexcompose`, in `env_args`, so that nothing is lost on the way back. Files that Isaac Lab's recorder wrote have `obs`
alone, with all observations side by side in `obs/policy`; without `next_obs` the last action has no result and is
dropped.

Source: `isaaclab.utils.datasets.HDF5DatasetFileHandler` (format 1), robomimic's dataset documentation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.demonstrations.datasets import (
    METADATA_KEY,
    RecordedEpisode,
    datasets_root,
    load_demonstrations,
    write_dataset,
)
from dexcompose_envs.errors import FileError, UsageError
from dexcompose_envs.files import atomic_path, check_writable_dir, expand
from dexcompose_envs.registration import NAMESPACE, env_id
from dexcompose_envs.skills import parse_chain
from dexcompose_envs.skills.chain import Chain

FORMAT_VERSION = 1
"""Isaac Lab's number of this layout."""
_ROBOMIMIC_GYM = 2
_SUFFIXES = (".hdf5", ".h5")


def to_hdf5(dataset: Any, path: str | Path, *, root: str | Path | None = None, force: bool = False) -> int:
    """Writes a Minari dataset of ours to one HDF5 file.

    Args:
        dataset: A `minari.MinariDataset`, or the id of one.
        path: The file, with the ending .hdf5.
        root: Folder of the datasets; None for Minari's own.
        force: Whether an existing file is replaced.

    Returns:
        Number of episodes.

    Raises:
        FileError: If there is no such dataset.
        UsageError: If the file's name ends otherwise, or it exists and `force` is False.
        OutputError: If it can't be written.
    """
    import h5py

    path = expand(path)
    if path.suffix not in _SUFFIXES:
        raise UsageError(f"file {str(path)!r} ends with {path.suffix!r}; expected {' or '.join(_SUFFIXES)}")
    if path.exists() and not force:
        raise UsageError(f"file {str(path)!r} exists; pass force=True to replace it")
    if isinstance(dataset, str):
        dataset = load_demonstrations(dataset, root)
    about = dataset.storage.metadata.get(METADATA_KEY, {})
    args = {"env_name": dataset.spec.env_spec.id, "type": _ROBOMIMIC_GYM, METADATA_KEY: about}
    args["env_kwargs"] = json.loads(dataset.spec.env_spec.to_json())["kwargs"]
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format_version"] = FORMAT_VERSION
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(args)
        total = count = 0
        for episode in dataset.iterate_episodes():
            group = data.create_group(f"demo_{count}")
            seed = dataset.storage.get_episode_metadata([episode.id])
            _write(group, episode, next(iter(seed))["seed"])
            total, count = total + len(episode.actions), count + 1
        data.attrs["total"] = total
    return count


def _write(group: Any, episode: Any, seed: int) -> None:
    group.attrs["num_samples"], group.attrs["seed"], group.attrs["success"] = len(episode.actions), int(seed), True
    packed = {"compression": "gzip", "compression_opts": 2}
    group.create_dataset("actions", data=episode.actions, **packed)
    group.create_dataset("rewards", data=episode.rewards, **packed)
    group.create_dataset("dones", data=episode.terminations | episode.truncations)
    for key, value in episode.observations.items():
        group.create_dataset(f"obs/{key}", data=value[:-1], **packed)
        group.create_dataset(f"next_obs/{key}", data=value[1:], **packed)
    _write_infos(group.create_group("infos"), episode.infos, packed)


def _write_infos(group: Any, infos: Mapping[str, Any], packed: Mapping[str, Any]) -> None:
    """Writes infos, which Minari reads as nested where their names have slashes."""
    for name, value in infos.items():
        if isinstance(value, Mapping):
            _write_infos(group.create_group(name), value, packed)
        else:
            group.create_dataset(name, data=value, **packed)


def from_hdf5(
    path: str | Path,
    dataset_id: str,
    *,
    skill: str | None = None,
    root: str | Path | None = None,
    force: bool = False,
) -> int:
    """Writes the successful episodes of an HDF5 file to a Minari dataset.

    Args:
        path: The file.
        dataset_id: Id of the dataset, such as "DexCompose/OpenDoor/human-v0".
        skill: Skill or pair that it shows; None: as `env_args` says.
        root: Folder of the datasets; None for Minari's own.
        force: Whether an existing dataset of that id is replaced.

    Returns:
        Number of episodes.

    Raises:
        FileError: If the file is missing, damaged, without successful episodes, or of another shape than the skill's.
        UsageError: If the skill is unknown, or the dataset exists and `force` is False.
    """
    import h5py

    path = expand(path)
    try:
        with h5py.File(path, "r") as file:
            args = json.loads(file["data"].attrs.get("env_args", "{}"))
            name = skill or _skill_of(str(args.get("env_name", "")), path)
            layout = Chain.of(*parse_chain(name)).layout
            names = sorted(file["data"], key=lambda demo: int(demo.rpartition("_")[2]))
            demos = [file["data"][demo] for demo in names]
            kept = [demo for demo in demos if demo.attrs.get("success", True)]
            episodes = [_read(demo, layout, number, path) for number, demo in enumerate(kept)]
    except (OSError, KeyError, ValueError) as error:
        if isinstance(error, FileError | UsageError):
            raise
        raise FileError(f"can't read {str(path)!r} ({error}); expected demonstrations in Isaac Lab's layout") from None
    if not episodes:
        raise FileError(f"{str(path)!r} has no successful episode; expected at least one")
    spec = gym.spec(env_id(name))
    spec = gym.envs.registration.EnvSpec.from_json(spec.to_json())
    spec.kwargs |= args.get("env_kwargs", {})
    metadata = args.get(METADATA_KEY) or {"imported": path.name}
    folder = check_writable_dir(datasets_root(root))
    write_dataset(dataset_id, episodes, spec, metadata, root=folder, force=force, description=f"Episodes of {name}.")
    return len(episodes)


def _skill_of(env_name: str, path: Path) -> str:
    """The skill of an environment's id, ours or Isaac Lab's of ours."""
    for start, end in ((f"{NAMESPACE}/", "-v0"), (f"Isaac-{NAMESPACE}-", "-Direct-v0")):
        if env_name.startswith(start) and env_name.endswith(end):
            return env_name.removeprefix(start).removesuffix(end)
    raise FileError(f"{str(path)!r} is of the environment {env_name!r}; expected one of ours, or the argument skill")


def _read(demo: Any, layout: Mapping[str, Mapping[str, slice]], number: int, path: Path) -> RecordedEpisode:
    where = f"{demo.name!r} of {str(path)!r}"
    actions = np.asarray(demo["actions"], np.float32)
    if actions.ndim != 2 or actions.shape[1] != hand.NUM_ACTIONS or len(actions) == 0:
        raise FileError(f"actions in {where} have shape {actions.shape}; expected (T, {hand.NUM_ACTIONS})")
    before = _observations(demo["obs"], layout, where)
    if "next_obs" in demo:
        after = _observations(demo["next_obs"], layout, where)
        observations = {key: np.concatenate([value, after[key][-1:]]) for key, value in before.items()}
    else:
        observations, actions = before, actions[:-1]
    steps = len(actions)
    for key, value in observations.items():
        if len(value) != steps + 1 or not np.isfinite(value).all():
            raise FileError(f"obs/{key} in {where} has {len(value)} rows; expected {steps + 1} of finite numbers")
    if not np.isfinite(actions).all():
        raise FileError(f"actions in {where} are not all finite numbers")
    rewards = np.asarray(demo["rewards"], np.float64)[:steps] if "rewards" in demo else np.zeros(steps)
    infos: dict[str, NDArray[Any]] = {}
    if "infos" in demo:
        demo["infos"].visititems(lambda name, item: infos.update({name: item[()]}) if hasattr(item, "shape") else None)
    return RecordedEpisode(int(demo.attrs.get("seed", number)), observations, actions, rewards, infos)


def _observations(group: Any, layout: Mapping[str, Mapping[str, slice]], where: str) -> dict[str, NDArray[np.float32]]:
    """Key -> (T, size); `policy` holds all of them side by side, in the order of their names."""
    sizes = {key: max(columns.stop for columns in layout[key].values()) for key in sorted(layout)}
    if "policy" in group:
        whole = np.asarray(group["policy"], np.float32)
        if whole.ndim != 2 or whole.shape[1] != sum(sizes.values()):
            raise FileError(f"obs/policy in {where} has shape {whole.shape}; expected (T, {sum(sizes.values())})")
        return dict(zip(sizes, np.split(whole, np.cumsum([*sizes.values()])[:-1], axis=1), strict=True))
    observations = {key: np.asarray(group[key], np.float32) for key in sizes}
    for key, value in observations.items():
        if value.ndim != 2 or value.shape[1] != sizes[key]:
            raise FileError(f"obs/{key} in {where} has shape {value.shape}; expected (T, {sizes[key]})")
    return observations
