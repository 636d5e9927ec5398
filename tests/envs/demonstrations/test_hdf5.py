"""Demonstrations in Isaac Lab's HDF5 layout: there and back, and what is refused."""

import json

import h5py
import numpy as np
import pytest

from dexcompose_envs.demonstrations import from_hdf5, load_demonstrations, record, replay_dataset, to_hdf5
from dexcompose_envs.errors import FileError, UsageError
from dexcompose_envs.skills import make_expert

ID, COPY = "DexCompose/PushButton/expert-v0", "DexCompose/PushButton/copy-v0"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    root = tmp_path_factory.mktemp("minari")
    record("PushButton", make_expert("PushButton"), episodes=2, root=root, num_envs=2, env_kwargs={"num_threads": 1})
    path = root / "demonstrations.hdf5"
    assert to_hdf5(ID, path, root=root) == 2
    return root, path


def test_the_layout_is_isaac_labs(recorded):
    _, path = recorded
    with h5py.File(path) as file:
        data = file["data"]
        assert file.attrs["format_version"] == 1
        assert json.loads(data.attrs["env_args"])["env_name"] == "DexCompose/PushButton-v0"
        assert set(data) == {"demo_0", "demo_1"}
        assert data.attrs["total"] == sum(data[name].attrs["num_samples"] for name in data)
        demo = data["demo_1"]
        steps = demo.attrs["num_samples"]
        assert demo.attrs["success"] and demo.attrs["seed"] == 1
        assert demo["actions"].shape == (steps, 28) and demo["dones"].shape == demo["rewards"].shape == (steps,)
        np.testing.assert_array_equal(demo["obs/task_b"][1:], demo["next_obs/task_b"][:-1])


def flat(table, prefix=""):
    nested = (flat(v, f"{prefix}{k}/") if isinstance(v, dict) else {f"{prefix}{k}": v} for k, v in table.items())
    return {key: value for part in nested for key, value in part.items()}


def test_there_and_back_loses_nothing(recorded):
    root, path = recorded
    assert from_hdf5(path, COPY, root=root, force=True) == 2
    first, second = load_demonstrations(ID, root), load_demonstrations(COPY, root)
    for a, b in zip(first.iterate_episodes(), second.iterate_episodes(), strict=True):
        np.testing.assert_array_equal(a.actions, b.actions)
        np.testing.assert_array_equal(a.rewards, b.rewards)
        for group in ("observations", "infos"):
            ours, theirs = flat(getattr(a, group)), flat(getattr(b, group))
            assert ours.keys() == theirs.keys()
            for key, value in ours.items():
                np.testing.assert_array_equal(value, theirs[key], err_msg=key)
    assert replay_dataset(COPY, root=root, num_envs=2, env_kwargs={"num_threads": 1}).largest_deviation == 0.0


def test_what_isaac_labs_recorder_writes_can_be_read(recorded, tmp_path):
    root, path = recorded
    own = tmp_path / "recorded.hdf5"
    with h5py.File(path) as file, h5py.File(own, "w") as copy:
        data = copy.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Isaac-DexCompose-PushButton-Direct-v0", "type": 2})
        for name, success in (("demo_0", False), ("demo_1", True)):
            demo, source = data.create_group(name), file["data"][name]
            demo.attrs["success"] = success
            demo["actions"] = source["actions"][()]
            demo["obs/policy"] = np.concatenate([source[f"obs/{key}"][()] for key in sorted(source["obs"])], axis=1)
    assert from_hdf5(own, "DexCompose/PushButton/human-v0", root=tmp_path) == 1
    (episode,) = load_demonstrations("DexCompose/PushButton/human-v0", tmp_path).iterate_episodes()
    (_, whole) = load_demonstrations(ID, root).iterate_episodes()
    np.testing.assert_array_equal(episode.actions, whole.actions[:-1])
    for key, value in episode.observations.items():
        np.testing.assert_array_equal(value, whole.observations[key][:-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: data.attrs.__setitem__("env_args", json.dumps({"env_name": "Isaac-Cartpole"})),
            "'Isaac-Cartpole'",
        ),
        (lambda data: data["demo_0"].__delitem__("actions"), "expected demonstrations in Isaac Lab's layout"),
        (lambda data: _replace(data, "actions", np.zeros((5, 20))), r"shape \(5, 20\); expected \(T, 28\)"),
        (lambda data: _replace(data, "actions", np.zeros((5, 28))), "rows; expected 6"),
        (lambda data: data["demo_0/actions"].__setitem__((0, 3), np.nan), "actions in .* are not all finite"),
        (lambda data: _replace(data, "obs/task_b", np.zeros((5, 3))), r"obs/task_b .* shape \(5, 3\)"),
        (lambda data: [data[name].attrs.__setitem__("success", False) for name in data], "has no successful episode"),
    ],
)
def test_a_file_that_is_no_such_thing(recorded, tmp_path, change, message):
    own = tmp_path / "changed.hdf5"
    own.write_bytes(recorded[1].read_bytes())
    with h5py.File(own, "a") as file:
        change(file["data"])
    with pytest.raises(FileError, match=message) as caught:
        from_hdf5(own, COPY, root=tmp_path)
    assert str(own) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / COPY).exists()


def _replace(data, name, values):
    del data["demo_0"][name]
    data["demo_0"][name] = values


def test_files_are_not_replaced_unasked(recorded, tmp_path):
    root, path = recorded
    with pytest.raises(UsageError, match="exists; pass force=True"):
        to_hdf5(ID, path, root=root)
    with pytest.raises(UsageError, match=r"ends with '.json'; expected .hdf5 or .h5"):
        to_hdf5(ID, tmp_path / "demonstrations.json", root=root)
    with pytest.raises(FileError, match="no dataset 'DexCompose/OpenDoor/expert-v0'"):
        to_hdf5("DexCompose/OpenDoor/expert-v0", tmp_path / "x.hdf5", root=root)
    (tmp_path / "text.hdf5").write_text("no HDF5")
    with pytest.raises(FileError, match="can't read"):
        from_hdf5(tmp_path / "text.hdf5", COPY, root=tmp_path)
