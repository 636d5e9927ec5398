"""Sensor noise: as large as it says, a function of seed and time alone, and invisible to the judge."""

import gymnasium as gym
import numpy as np
import pytest

from dexcompose_envs import env_id, hand
from dexcompose_envs.errors import UsageError

BALL = env_id("GraspBall")


def worlds(num_envs, held_library, **options):
    library = {"held_states": held_library("GraspBall"), "held_split": "all", "start": "held"}
    return gym.make_vec(BALL, num_envs=num_envs, autoreset_mode="Disabled", **library, **options)


def deviations(noisy, clean, layout):
    """Standard deviation of each term's error (per key and term)."""
    return {
        (key, term): (noisy[key][:, columns] - clean[key][:, columns])
        for key, terms in layout.items()
        for term, columns in terms.items()
    }


def test_noise_has_its_size_and_touches_nothing_else(held_library):
    noisy, clean = worlds(400, held_library, sensor_noise=1.0), worlds(400, held_library)
    (first, _), (second, _) = noisy.reset(seed=0), clean.reset(seed=0)
    layout = noisy.unwrapped.layout
    error = deviations(first, second, layout)
    span = hand.ACTION_HIGH - hand.ACTION_LOW
    joints = error["task_a", "joint_position"] * span / 2
    assert joints[:, 3:].std() == pytest.approx(0.005, rel=0.05)
    assert np.abs(joints[:, :3]).max() < 1e-6
    assert (error["context", "object_position"] / 10).std() == pytest.approx(0.002, rel=0.08)
    assert error["context", "object_linear_velocity"].std() == pytest.approx(0.02, rel=0.08)
    assert error["context", "torque"].std() == pytest.approx(0.03, rel=0.05)
    np.testing.assert_allclose(error["context", "palm_offset"], error["context", "object_position"], atol=1e-5)
    for term in ("joint_velocity", "previous_action", "phase", "object_rotation", "finger_contact", "reference"):
        assert not error["context", term].any(), term


def test_noise_changes_every_step_and_not_with_neighbours(held_library):
    many, one = worlds(3, held_library, sensor_noise=1.0), worlds(1, held_library, sensor_noise=1.0)
    (seen, _), (alone, _) = many.reset(seed=5), one.reset(seed=7)
    frames = []
    for _ in range(3):
        np.testing.assert_array_equal(seen["context"][2], alone["context"][0])
        frames.append(seen["context"][:, many.unwrapped.layout["context"]["torque"]])
        action = many.unwrapped.core.snapshot().previous_action.copy()
        seen, *_ = many.step(action)
        alone, *_ = one.step(action[2:])
    assert np.abs(frames[0] - frames[1]).std() > 0.02
    assert not np.array_equal(frames[1][0], frames[1][1])


def test_judging_goes_by_the_truth(held_library):
    noisy, clean = worlds(4, held_library, sensor_noise=10.0), worlds(4, held_library)
    noisy.reset(seed=0)
    clean.reset(seed=0)
    for _ in range(5):
        action = clean.unwrapped.core.snapshot().previous_action.copy()
        _, reward, *_, info = noisy.step(action)
        _, true_reward, *_, true_info = clean.step(action)
        np.testing.assert_array_equal(reward, true_reward)
        np.testing.assert_array_equal(info["task_a_held"], true_info["task_a_held"])


@pytest.mark.parametrize("scale", [-1.0, "a", float("nan"), 100.0, True])
def test_no_other_scale(scale):
    with pytest.raises(UsageError, match=r"sensor_noise is .* expected a number from 0 to 10"):
        gym.make(BALL, sensor_noise=scale)
