"""Recording, its storage, its interruption, and replay."""

import json
import os
import warnings

import numpy as np
import pytest

from dexcompose_envs.artefacts import DATA_VERSION
from dexcompose_envs.demonstrations import (
    CallbackPolicy,
    ReplayError,
    load_demonstrations,
    minari_root,
    record,
    replay_dataset,
)
from dexcompose_envs.errors import FileError, UsageError
from dexcompose_envs.pieces import UnfinishedError
from dexcompose_envs.rollouts import AgentError
from dexcompose_envs.scene import build_scene
from dexcompose_envs.skills import make_expert, skill_names

DATASET = "DexCompose/PushButton/expert-v0"


class Flawed:
    """The expert, except that it stands still in the episodes of some seeds."""

    name = "flawed"

    def __init__(self, bad, stop_after=None):
        self._expert, self._bad, self._stop = make_expert("PushButton"), set(bad), stop_after
        self._idle, self._begun = {}, 0

    def reset(self, obs, info, env_ids, seeds):
        self._expert.reset(obs, info, env_ids, seeds)
        for world, seed in zip(env_ids, seeds, strict=True):
            self._begun += 1
            self._idle[world] = seed in self._bad
        if self._stop is not None and self._begun > self._stop:
            raise KeyboardInterrupt

    def act(self, obs):
        actions = self._expert.act(obs)
        for world, idle in self._idle.items():
            if idle:
                actions[world] = 0
        return actions


FAST = {"num_threads": 1, "max_episode_steps": 90}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Four episodes of PushButton, of which the attempts 1 and 2 failed; recorded three at a time."""
    root = tmp_path_factory.mktemp("minari")
    calls = []
    report = record(
        "PushButton", Flawed([101, 102]), episodes=4, seed=100, num_envs=3, root=root,
        progress=lambda *call: calls.append(call), env_kwargs=FAST,
    )  # fmt: skip
    return root, report, calls


def episodes_of(root, dataset_id=DATASET):
    return list(load_demonstrations(dataset_id, root).iterate_episodes())


def test_the_report_counts_attempts(recorded):
    root, report, calls = recorded
    assert report.seeds == (100, 103, 104, 105)
    assert (report.episodes, report.attempts) == (4, 6)
    assert report.success_rate == pytest.approx(4 / 6)
    assert report.path == root / DATASET
    assert calls[0] == (0, 4)
    assert calls[-1] == (4, 4)


def test_episodes_hold_all_observations_and_end_a_tail_after_success(recorded):
    root, _, _ = recorded
    for episode in episodes_of(root):
        steps = len(episode.actions)
        assert episode.actions.shape == (steps, 28)
        assert episode.actions.dtype == np.float32
        assert np.abs(episode.actions).max() <= 1
        assert {key: value.shape for key, value in episode.observations.items()} == {
            "task_b": (steps + 1, 35), "context": (steps + 1, 86),
        }  # fmt: skip
        success = episode.infos["success"]
        assert len(success) == steps + 1
        assert success.argmax() == steps - 15
        assert success[-1]
        assert episode.truncations.tolist() == [False] * (steps - 1) + [True]
        assert not episode.terminations.any()
        assert episode.infos["reward_terms"]["progress"].sum() == pytest.approx(1.0)


def test_metadata_says_how_it_was_made(recorded):
    root, _, _ = recorded
    dataset = load_demonstrations(DATASET, root)
    about = dataset.storage.metadata["dexcompose"]
    assert about["data_version"] == DATA_VERSION
    assert about["model_hash"] == build_scene(None, "PushButton").model_hash
    assert about["episode_seeds"] == [100, 103, 104, 105]
    assert about["attempts"] == 6
    assert about["policy"] == "flawed"
    assert set(about["packages"]) >= {"mujoco", "gymnasium", "dexcompose"}
    assert [row["seed"] for row in dataset.storage.get_episode_metadata(range(4))] == about["episode_seeds"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where the package runs from its source folder
        env, eval_env = dataset.recover_environment(), dataset.recover_environment(eval_env=True)
    assert env.spec.id == "DexCompose/PushButton-v0"
    assert env.spec.kwargs["terminate_on_success"] is False
    assert "terminate_on_success" not in eval_env.spec.kwargs
    np.testing.assert_array_equal(env.reset(seed=103)[0]["task_b"], dataset[1].observations["task_b"][0])
    env.close()
    eval_env.close()


def test_minari_finds_the_dataset_and_no_leftovers(recorded):
    import minari

    root, _, _ = recorded
    with minari_root(root):
        assert list(minari.list_local_datasets()) == [DATASET]
    assert [path.name for path in root.iterdir()] == ["DexCompose"]


def test_replay_succeeds_again_bit_by_bit(recorded):
    root, _, _ = recorded
    report = replay_dataset(DATASET, root=root, num_envs=3, env_kwargs={"num_threads": 1})
    assert (report.episodes, report.failed, report.success_rate) == (4, (), 1.0)
    assert report.largest_deviation == 0.0


def test_an_interrupted_recording_goes_on_and_ends_the_same_for_any_number_of_worlds(recorded, tmp_path):
    root, _, _ = recorded
    with pytest.raises(KeyboardInterrupt):
        record(
            "PushButton",
            Flawed([101, 102], stop_after=3),
            episodes=4,
            seed=100,
            num_envs=1,
            root=tmp_path,
            env_kwargs=FAST,
        )
    assert len(list(tmp_path.glob(".recording/*/*.npz"))) == 3
    assert not (tmp_path / DATASET).exists()
    with pytest.raises(UnfinishedError, match="seed is 100; expected 7; force=True starts again"):
        record("PushButton", Flawed([]), episodes=4, seed=7, root=tmp_path, env_kwargs=FAST)
    resumed = Flawed([101, 102])
    report = record("PushButton", resumed, episodes=4, seed=100, num_envs=2, root=tmp_path, env_kwargs=FAST)
    assert (report.attempts, report.seeds) == (6, (100, 103, 104, 105))
    assert resumed._begun <= 5  # the three finished attempts weren't run again
    for first, second in zip(episodes_of(root), episodes_of(tmp_path), strict=True):
        np.testing.assert_array_equal(first.actions, second.actions)
        for key in first.observations:
            np.testing.assert_array_equal(first.observations[key], second.observations[key])
    assert [path.name for path in tmp_path.iterdir()] == ["DexCompose"]


def test_an_existing_dataset_is_kept_unless_forced(recorded, tmp_path):
    root, _, _ = recorded
    with pytest.raises(UsageError, match=r"exists in .*; pass force=True to replace it"):
        record("PushButton", make_expert("PushButton"), episodes=1, root=root)
    record("PushButton", make_expert("PushButton"), episodes=1, seed=1, root=tmp_path, num_envs=1, tail=2)
    report = record(
        "PushButton", make_expert("PushButton"), episodes=1, seed=2, root=tmp_path, num_envs=1, tail=0, force=True
    )
    (episode,) = episodes_of(tmp_path)
    assert report.seeds == (2,)
    assert episode.infos["success"].argmax() == len(episode.actions)


def test_too_few_successes_are_an_error_that_loses_nothing(tmp_path):
    with pytest.raises(UnfinishedError, match="only 1 of 3 attempts at PushButton succeeded; expected 2"):
        record("PushButton", Flawed([1, 2]), episodes=2, num_envs=2, root=tmp_path, max_attempts=3, env_kwargs=FAST)
    report = record("PushButton", Flawed([1, 2]), episodes=1, root=tmp_path, num_envs=1, env_kwargs=FAST)
    assert report.seeds == (0,)


def test_a_function_of_one_observation_can_demonstrate(tmp_path):
    expert, begun = make_expert("PushButton"), []

    def glove(obs):
        assert obs["task_b"].shape == (35,)
        if len(begun) == 1 and not expert._plans:
            expert.reset({"task_b": obs["task_b"][None]}, {}, [0], [begun[0][1]])
        return expert.act({"task_b": obs["task_b"][None]})[0]

    policy = CallbackPolicy(glove, on_reset=lambda world, seed: begun.append((world, seed)), name="glove")
    name = "DexCompose/PushButton/human-v0"
    report = record("PushButton", policy, episodes=1, seed=9, num_envs=1, root=tmp_path, dataset_id=name)
    assert begun == [(0, 9)]
    assert report.dataset_id == name
    assert load_demonstrations(name, tmp_path).storage.metadata["algorithm_name"] == "glove"


def test_minaris_folder_is_left_as_it_was(recorded, monkeypatch, tmp_path):
    root, _, _ = recorded
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    load_demonstrations(DATASET, root)
    assert os.environ["MINARI_DATASETS_PATH"] == str(tmp_path)
    with pytest.raises(FileError, match="no dataset 'DexCompose/PushButton/expert-v0'"):
        load_demonstrations(DATASET)
    monkeypatch.delenv("MINARI_DATASETS_PATH")
    with minari_root(root):
        pass
    assert "MINARI_DATASETS_PATH" not in os.environ


@pytest.mark.parametrize("key", ["data_version", "model_hash"])
def test_replay_refuses_another_environment(recorded, tmp_path, key):
    root, _, _ = recorded
    target = tmp_path / DATASET / "data"
    target.mkdir(parents=True)
    for path in (root / DATASET / "data").iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    metadata = json.loads((target / "metadata.json").read_text())
    metadata["dexcompose"][key] = "other"
    (target / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ReplayError, match=f"was recorded with {key} 'other', expected .*; record it again") as error:
        replay_dataset(DATASET, root=tmp_path)
    assert "\n" not in str(error.value)
    del metadata["dexcompose"]
    (target / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ReplayError, match="has no 'dexcompose' metadata"):
        replay_dataset(DATASET, root=tmp_path)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"skill": "OpenWindow"}, "unknown skill 'OpenWindow'; expected one of"),
        ({"episodes": 0}, "episodes is 0; expected a whole number of at least 1"),
        ({"num_envs": 0}, "num_envs is 0"),
        ({"tail": -1}, "tail is -1"),
        ({"episodes": 2.5}, r"episodes is 2\.5"),
    ],
)
def test_wrong_arguments_are_refused(kwargs, message, tmp_path):
    arguments = {"skill": "PushButton", "agent": make_expert("PushButton"), "root": tmp_path, **kwargs}
    with pytest.raises(ValueError, match=message):
        record(**arguments)


def test_a_damaged_unfinished_recording_is_refused_by_name(tmp_path):
    def start(**kwargs):
        record("PushButton", Flawed([], stop_after=2), episodes=3, num_envs=1, root=tmp_path, env_kwargs=FAST, **kwargs)

    with pytest.raises(KeyboardInterrupt):
        start()
    unfinished = next((tmp_path / ".recording").iterdir())
    attempt = unfinished / "00000000.npz"
    attempt.write_bytes(attempt.read_bytes()[:200])
    with pytest.raises(UnfinishedError, match=r"00000000\.npz' is truncated, damaged .*; force=True starts again"):
        start()
    (unfinished / "settings.json").write_text("[")
    with pytest.raises(UnfinishedError, match=r"settings\.json' is truncated, damaged"):
        start()
    with pytest.raises(KeyboardInterrupt):  # forgets it and begins again
        start(force=True)


def test_wrong_actions_are_refused(tmp_path):
    policy = CallbackPolicy(lambda obs: np.zeros(20))
    with pytest.raises(AgentError, match=r"'callback' returned actions of shape \(2, 20\); expected \(2, 28\)"):
        record("PushButton", policy, episodes=1, num_envs=2, root=tmp_path)


@pytest.mark.parametrize("skill", skill_names("retention"))
def test_recorded_grasps_succeed_again(skill, tmp_path):
    report = record(skill, make_expert(skill), episodes=4, seed=40, num_envs=4, root=tmp_path)
    episodes = episodes_of(tmp_path, report.dataset_id)
    assert all(episode.infos["success"][-15:].all() for episode in episodes)  # it goes on holding
    assert replay_dataset(report.dataset_id, root=tmp_path, num_envs=4).success_rate == 1.0


def test_a_trembling_hand_is_recorded_with_what_it_was_told(tmp_path):
    options = {"episodes": 2, "seed": 40, "num_envs": 2}
    still, shaken = (
        episodes_of(root, record("PushButton", make_expert("PushButton"), root=root, **options, **shake).dataset_id)
        for root, shake in ((tmp_path / "still", {}), (tmp_path / "shaken", {"base_shake": 1.0}))
    )
    for one, other in zip(still, shaken, strict=True):
        steps = min(len(one), len(other))
        np.testing.assert_array_equal(one.actions[:steps], other.actions[:steps])
        apart = np.abs(one.observations["task_b"][:steps, :3] - other.observations["task_b"][:steps, :3])
        assert apart[0].max() == 0.0 and apart.max() > 0.01
    report = replay_dataset("DexCompose/PushButton/expert-v0", root=tmp_path / "shaken", num_envs=2)
    assert report.success_rate == 1.0 and report.largest_deviation == 0.0
