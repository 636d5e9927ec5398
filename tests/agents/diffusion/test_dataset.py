import dataclasses

import minari
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from minari.data_collector import EpisodeBuffer

from dexcompose_agents.diffusion.config import NetworkConfig
from dexcompose_agents.diffusion.dataset import DatasetError, Normalizer, WindowDataset, augment, load_minari
from dexcompose_envs.hand import FINGERS, finger_slice

HORIZONS = NetworkConfig(
    widths=(8,), fold=1, observation_horizon=2, action_horizon=4, execute_steps=2, stagger_groups=1
)


def counting(first, length):
    """Observations and actions that are the step's number."""
    steps = np.arange(first, first + length, dtype=np.float32)[:, None]
    return {"obs": steps, "action": steps}


def numbers(dataset, index):
    observations, actions = dataset.windows(torch.tensor(index))
    return (
        dataset.observation_normalizer.denormalize(observations)[..., 0].numpy().round(3).tolist(),
        dataset.action_normalizer.denormalize(actions)[..., 0].numpy().round(3).tolist(),
    )


def test_windows_by_hand():
    # Episodes with steps 0 1 2 and 10 11: one window per step, both ends padded, never across the border.
    dataset = WindowDataset([counting(0, 3), counting(10, 2)], HORIZONS)
    assert len(dataset) == 5
    observations, actions = numbers(dataset, [0, 1, 2, 3, 4])
    assert observations == [[0, 0], [0, 1], [1, 2], [10, 10], [10, 11]]
    assert actions == [[0, 0, 1, 2], [0, 1, 2, 2], [1, 2, 2, 2], [10, 10, 11, 11], [10, 11, 11, 11]]


def test_longer_history_by_hand():
    dataset = WindowDataset([counting(0, 4)], dataclasses.replace(HORIZONS, observation_horizon=3))
    # Step 1 sees steps -1 0 1, its actions start at step -1.
    assert numbers(dataset, [1]) == ([[0, 0, 1]], [[0, 0, 1, 2]])


def test_data_are_scaled_to_plus_minus_one():
    observations, actions = WindowDataset([counting(3, 50)], HORIZONS).windows(torch.arange(50))
    for values in (observations, actions):
        assert values.min() == -1
        assert values.max() == 1


def test_constant_and_nearly_constant_components():
    data = np.array([[5.0, 1.0, 0.0], [5.0, 1.0002, 4.0]], np.float32)
    normalizer = Normalizer.fit(data)
    scaled = normalizer.normalize(torch.from_numpy(data))
    assert scaled[:, 0].tolist() == [0, 0]
    assert normalizer.normalize(torch.tensor([[99.0, 1.0, 0.0]]))[0, 0] == 0
    np.testing.assert_allclose(scaled[:, 1], [-0.1, 0.1], atol=1e-3)  # half range 1e-4, scaled by 1e-3
    np.testing.assert_allclose(scaled[:, 2], [-1, 1])
    assert normalizer.denormalize(torch.full((1, 3), 0.7))[0, 0] == 5


@given(arrays(np.float32, (6, 4), elements=st.floats(-100, 100, width=32)))
def test_normalizer_round_trip(data):
    normalizer = Normalizer.from_dict(Normalizer.fit(data).to_dict())
    scaled = normalizer.normalize(torch.from_numpy(data))
    assert scaled.abs().max() <= 1 + 1e-4
    np.testing.assert_allclose(normalizer.denormalize(scaled), data, atol=1e-4)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "no demonstrations"),
        ([{"obs": np.zeros((3, 2)), "action": np.zeros((4, 1))}], "episode 0 has 3 observations and 4 actions"),
        ([{"obs": np.zeros(3), "action": np.zeros((3, 1))}], r"obs of episode 0 has shape \(3,\)"),
        ([{"obs": np.zeros((0, 2)), "action": np.zeros((0, 1))}], "T >= 1"),
        ([{"obs": np.full((2, 2), np.nan), "action": np.zeros((2, 1))}], "obs of episode 0 holds NaN"),
    ],
)
def test_bad_demonstrations_are_refused(bad, message):
    with pytest.raises(DatasetError, match=message):
        WindowDataset(bad, HORIZONS)


def test_sizes_must_agree_between_episodes():
    other = {"obs": np.zeros((3, 2)), "action": np.zeros((3, 1))}
    with pytest.raises(DatasetError, match=r"obs of episode 1 has shape \(3, 2\); expected \(T, 1\)"):
        WindowDataset([counting(0, 3), other], HORIZONS)


def test_fingerprint_tells_data_and_episode_borders_apart():
    one, two = WindowDataset([counting(0, 4)], HORIZONS), WindowDataset([counting(0, 2), counting(2, 2)], HORIZONS)
    assert one.fingerprint != two.fingerprint
    assert one.fingerprint == WindowDataset([counting(0, 4)], HORIZONS).fingerprint


def test_finger_dropout_hides_whole_fingers_over_the_whole_window():
    shown = augment(torch.ones(400, 2, 35), 0.0, 0.2, torch.Generator().manual_seed(0))
    hidden = []
    for finger in FINGERS:
        joints = shown[:, :, finger_slice(finger)].flatten(1)
        assert ((joints == 0).all(1) | (joints == 1).all(1)).all()
        hidden.append((joints == 0).all(1).float().mean().item())
    assert all(0.12 < share < 0.28 for share in hidden)  # 4 standard deviations of 0.02
    assert (shown[:, :, :6] == 1).all() and (shown[:, :, 28:] == 1).all()


def test_noise_has_the_standard_deviation_asked_for_and_leaves_the_data_alone():
    clean = torch.zeros(500, 2, 35)
    noisy = augment(clean, 0.1, 0.0, torch.Generator().manual_seed(0))
    assert noisy.std().item() == pytest.approx(0.1, rel=0.05)
    assert not clean.any()


@pytest.fixture
def minari_dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    rng = np.random.default_rng(0)
    buffers = []
    for number, length in enumerate((3, 5)):
        observations = {
            "task_b": rng.normal(size=(length + 1, 4)).astype(np.float32),
            "context": np.zeros((length + 1, 2), np.float32),
        }
        done = [False] * (length - 1) + [True]
        buffers.append(
            EpisodeBuffer(
                id=number,
                observations=observations,
                actions=rng.uniform(-1, 1, (length, 28)).astype(np.float32),
                rewards=[0.0] * length,
                terminations=done,
                truncations=[False] * length,
            )
        )
    box = {"task_b": spaces.Box(-10, 10, (4,)), "context": spaces.Box(-1, 1, (2,))}
    minari.create_dataset_from_buffers(
        "DexCompose/Toy/expert-v0",
        buffers,
        observation_space=spaces.Dict(box),
        action_space=spaces.Box(-1, 1, (28,)),
    )
    return "DexCompose/Toy/expert-v0", buffers


@pytest.mark.filterwarnings("ignore")
def test_minari_episodes_lose_only_the_observation_after_the_last_action(minari_dataset):
    dataset_id, buffers = minari_dataset
    episodes = load_minari(dataset_id, "task_b")
    assert [episode["obs"].shape for episode in episodes] == [(3, 4), (5, 4)]
    np.testing.assert_array_equal(episodes[1]["obs"], buffers[1].observations["task_b"][:5])
    np.testing.assert_array_equal(episodes[1]["action"], buffers[1].actions)


@pytest.mark.filterwarnings("ignore")
def test_missing_minari_dataset_and_key(minari_dataset):
    with pytest.raises(DatasetError, match="no key 'task_a'; found"):
        load_minari(minari_dataset[0], "task_a")
    with pytest.raises(DatasetError, match="can't load Minari dataset 'DexCompose/None/expert-v0'"):
        load_minari("DexCompose/None/expert-v0", "task_a")
