import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from diffusion_toy import QUICK, rollout
from hypothesis import given, settings
from hypothesis import strategies as st

from dexcompose_agents.diffusion import BasePolicy, DiffusionPolicy, load_policy, train
from dexcompose_agents.weights import WeightsError, load_weights, save_weights


@pytest.fixture(scope="module")
def policy(trained):
    return load_policy("PushButton", path=trained[0])


@pytest.fixture(scope="module")
def reference(policy):
    """Actions of 24 worlds that run together, (30, 24)."""
    return rollout(policy, range(24))[0]


@pytest.mark.parametrize(("scheduler", "steps"), [("ddim", None), ("ddim", 10), ("ddpm", None)])
def test_the_toy_skill_is_really_learned(trained, scheduler, steps):
    policy = load_policy("PushButton", path=trained[0], scheduler=scheduler, num_inference_steps=steps)
    errors = rollout(policy, range(1000, 1050))[1]
    assert (errors < 0.1).mean() >= 0.95


def test_it_is_a_base_policy_that_returns_fresh_float32(policy):
    assert isinstance(policy, BasePolicy)
    policy.reset(3)
    first, second = (policy.act(np.zeros((3, 3))) for _ in range(2))
    assert first.shape == (3, 1)
    assert first.dtype == np.float32
    assert not np.shares_memory(first, second)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 23), min_size=1, max_size=24, unique=True))
def test_a_world_acts_alike_whatever_its_neighbours(policy, reference, seeds):
    actions = rollout(policy, seeds)[0]
    np.testing.assert_allclose(actions, reference[:, seeds], atol=1e-5)


def test_worlds_may_act_by_turns(policy, reference):
    observations = np.random.default_rng(0).uniform(-1, 1, (20, 4, 3)).astype(np.float32)
    policy.reset(4)
    together = np.array([policy.act(row) for row in observations])
    policy.reset(4)
    for row, expected in zip(observations, together, strict=True):
        odd, even = policy.act(row[1::2], env_ids=[1, 3]), policy.act(row[::2], env_ids=[0, 2])
        np.testing.assert_allclose(odd, expected[1::2], atol=1e-5)
        np.testing.assert_allclose(even, expected[::2], atol=1e-5)


def test_seeded_episode_does_not_depend_on_what_ran_before(policy):
    observation = np.full((2, 3), 0.3, np.float32)
    policy.reset(2)
    policy.seed_envs([7, 8])
    expected = [policy.act(observation) for _ in range(10)]
    policy.seed_envs([8, 7])
    found = [policy.act(observation) for _ in range(10)]
    np.testing.assert_allclose(np.array(found)[:, ::-1], expected, atol=1e-5)


def plans(policy, monkeypatch, num_envs, steps):
    """The worlds that plan in each control step."""
    planned = []
    original = DiffusionPolicy._plan

    def record(self, ids):
        planned[-1] = ids.tolist()
        original(self, ids)

    monkeypatch.setattr(DiffusionPolicy, "_plan", record)
    policy.reset(num_envs)
    for _ in range(steps):
        planned.append([])
        policy.act(np.zeros((num_envs, 3)))
    return planned


def test_plans_are_staggered_by_seed(policy, monkeypatch):
    # execute_steps 4 in 4 groups: seeds 0 1 2 3 execute 4 3 2 1 actions of their first chunk, then 4 of each.
    found = plans(policy, monkeypatch, 4, 9)
    assert found == [[0, 1, 2, 3], [3], [2], [1], [0], [3], [2], [1], [0]]


def test_reset_of_one_world_makes_only_that_one_plan(policy, monkeypatch):
    found = plans(policy, monkeypatch, 4, 2)
    policy.reset_envs([0])
    found.append([])
    policy.act(np.zeros((4, 3)))
    assert found[2] == [0, 2]  # 2 was due


def test_history_is_the_current_and_the_previous_observation(policy, monkeypatch):
    seen = []
    original = policy._sampler

    def spy(observations, seeds):
        seen.append(np.array(observations))
        return original(observations, seeds)

    monkeypatch.setattr(policy, "_sampler", spy)
    policy.reset(1)
    for value in (0.0, 0.1, 0.2, 0.3, 0.4):
        policy.act([[value, 0.0, 0.0]])
    positions = [policy._observed.normalize(np.array([value, 0.0, 0.0]))[0] for value in (0.0, 0.3, 0.4)]
    np.testing.assert_allclose(seen[0][0, [0, 3]], [positions[0], positions[0]], atol=1e-6)
    np.testing.assert_allclose(seen[1][0, [0, 3]], [positions[1], positions[2]], atol=1e-6)


def test_observations_far_outside_the_demonstrations_are_clipped(policy):
    far, farther = (policy._prepared(np.array([[value, 0.0, 0.0]]), 1) for value in (1e3, 1e6))
    np.testing.assert_array_equal(far, farther)


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (np.zeros((3, 3)), r"task_obs has shape \(3, 3\); expected \(2, 3\)"),
        (np.zeros(3), "task_obs has shape"),
        (np.array([[0, 0, 0], [0, np.nan, 0]]), "row 1 holds NaN"),
    ],
)
def test_bad_observations_are_refused(policy, observation, message):
    policy.reset(2)
    with pytest.raises(ValueError, match=message):
        policy.act(observation)


def test_bad_seeds_and_worlds_are_refused(policy):
    policy.reset(2)
    with pytest.raises(ValueError, match=r"seeds are \[1, 2, 3\]; expected 2"):
        policy.seed_envs([1, 2, 3])
    with pytest.raises(ValueError, match="whole numbers >= 0"):
        policy.seed_envs([1, -2])
    with pytest.raises(ValueError, match=r"env_ids are \[2\]; expected numbers from 0 to 1"):
        policy.reset_envs([2])
    with pytest.raises(ValueError, match="num_envs is 0"):
        policy.reset(0)


def test_hidden_fingers_do_not_matter(tmp_path):
    rng = np.random.default_rng(0)
    demos = [{"obs": rng.uniform(-1, 1, (9, 30)), "action": rng.uniform(-1, 1, (9, 28))} for _ in range(3)]
    config = dataclasses.replace(QUICK, finger_dropout=0.5)
    path = tmp_path / "w.safetensors"
    train(demos, config, path)
    policy = load_policy("GraspBall", path=path)
    observation = rng.uniform(-1, 1, (1, 30))
    moved = observation.copy()
    moved[:, 10:14] += 0.5  # middle finger

    def first_action(seen):
        policy.reset(1)
        return policy.act(seen)

    assert not np.allclose(first_action(observation), first_action(moved))
    policy.hide_fingers(["MF"])
    np.testing.assert_array_equal(first_action(observation), first_action(moved))
    policy.hide_fingers([])
    assert not np.allclose(first_action(observation), first_action(moved))


def test_missing_weights_name_the_command_that_makes_them(tmp_path):
    with pytest.raises(WeightsError, match="dexcompose train policy OpenDoor"):
        load_policy("OpenDoor", path=tmp_path / "nothing.safetensors")
    with pytest.raises(ValueError, match="unknown skill 'Juggle'; expected one of GraspBall"):
        load_policy("Juggle")


def test_weights_of_another_skill_or_kind_are_refused(trained, tmp_path):
    with pytest.raises(WeightsError, match="of skill 'PushButton'; expected 'GraspBall'"):
        load_policy("GraspBall", path=trained[0])
    tensors, manifest = load_weights(trained[0])
    save_weights(tmp_path / "other.safetensors", tensors, {**manifest, "kind": "stabiliser"})
    with pytest.raises(WeightsError, match="kind 'stabiliser'; expected 'diffusion_policy'"):
        load_policy("PushButton", path=tmp_path / "other.safetensors")
    tensors.pop("film_step.bias")
    save_weights(tmp_path / "part.safetensors", tensors, manifest)
    with pytest.raises(WeightsError, match=r"don't fit together .*film_step\.bias"):
        load_policy("PushButton", path=tmp_path / "part.safetensors")


def test_importing_the_packages_is_light():
    code = "import sys, dexcompose_agents, dexcompose_agents.diffusion; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
