import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusion_toy import QUICK, Operations, rollout
from hypothesis import given, settings
from hypothesis import strategies as st

from dexcompose_agents.artefacts.weights import ArtefactError, load_weights, save_weights
from dexcompose_agents.diffusion.policy import BasePolicy, DiffusionPolicy, load_policy
from dexcompose_agents.diffusion.training import KIND, train


@pytest.fixture(scope="module")
def policy(trained):
    return load_policy("PushButton", path=trained[0])


@pytest.fixture(scope="module")
def twins(trained):
    return [load_policy("PushButton", path=trained[0]) for _ in range(2)]


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

    def spy(observations, *keys):
        seen.append(observations)
        return original(observations, *keys)

    monkeypatch.setattr(policy, "_sampler", spy)
    policy.reset(1)
    for value in (0.0, 0.1, 0.2, 0.3, 0.4):
        policy.act([[value, 0.0, 0.0]])
    before, now, later = (policy._observed.normalize(torch.tensor([value, 0.0, 0.0]))[0] for value in (0.0, 0.3, 0.4))
    np.testing.assert_allclose(seen[0][0, [0, 3]], [before, before], atol=1e-6)
    np.testing.assert_allclose(seen[1][0, [0, 3]], [now, later], atol=1e-6)


def test_which_actions_of_a_chunk_are_executed(policy, monkeypatch):
    """Every action of a chunk tells its number: action 1 belongs to the current observation, action 0 to the last."""

    def numbered(observations, seeds, chunks):
        numbers = 10.0 * chunks[:, None] + torch.arange(8)
        return policy._acted.normalize(numbers[..., None])

    monkeypatch.setattr(policy, "_sampler", numbered)
    policy.reset(2)
    actions = [policy.act(np.zeros((2, 3)))[:, 0].round().astype(int).tolist() for _ in range(9)]
    whole, short = zip(*actions, strict=True)
    assert whole == (1, 2, 3, 4, 11, 12, 13, 14, 21)
    assert short == (1, 2, 3, 11, 12, 13, 14, 21, 22)  # seed 1 cuts its first chunk short by 1 of 4


def test_observations_far_outside_the_demonstrations_are_clipped(policy):
    far, farther = (policy._prepared(torch.tensor([[value, 0.0, 0.0]])) for value in (1e3, 1e6))
    assert torch.equal(far, farther)
    assert far[0, 0] == 1.5
    assert policy._prepared(torch.tensor([[-1e3, 0.0, 0.0]]))[0, 0] == -1.5


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
    for bad in ([1, -2], [1, 2.5], [1, 2**63], [1, 2**64], torch.tensor([1.0, 2.0]), torch.tensor([-1, 2])):
        with pytest.raises(ValueError, match=r"seeds are \[.*\]; expected 2 whole numbers >= 0"):
            policy.seed_envs(bad)
    policy.seed_envs([2**63 - 1, 0])
    policy.seed_envs([-1, 0], np.array([False, True]))
    policy.seed_envs([], [])
    with pytest.raises(ValueError, match=r"env_ids are \[2\]; expected numbers from 0 to 1"):
        policy.reset_envs([2])
    with pytest.raises(ValueError, match=r"env_ids is a mask of shape \(3,\); expected \(2,\)"):
        policy.reset_envs([True, False, True])
    with pytest.raises(ValueError, match="num_envs is 0"):
        policy.reset(0)


def test_bad_rows_outside_the_mask_are_ignored(policy):
    policy.reset(2)
    good = policy.act(np.zeros((2, 3)), np.array([True, False]))
    policy.reset(2)
    found = policy.act(np.array([[0, 0, 0], [np.nan, 0, np.inf]]), np.array([True, False]))
    assert found[0] == good[0]
    assert np.isfinite(policy.act(np.zeros((2, 3)))).all()
    with pytest.raises(ValueError, match="row 1 holds NaN"):
        policy.act(np.array([[np.nan, 0, 0], [np.nan, 0, 0]]), np.array([False, True]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_tensors_come_back_as_tensors_with_the_same_actions(policy, dtype):
    observations = torch.linspace(-1, 1, 60).reshape(5, 4, 3).to(dtype)
    policy.reset(4)
    expected = [policy.act(each.float().numpy()) for each in observations]
    policy.reset(4)
    policy.seed_envs(torch.arange(4))
    for each, actions in zip(observations, expected, strict=True):
        found = policy.act(each)
        assert isinstance(found, torch.Tensor)
        assert (found.dtype, found.device) == (torch.float32, each.device)
        np.testing.assert_array_equal(found.numpy(), actions)


MASK = st.lists(st.booleans(), min_size=5, max_size=5)
CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("act"), MASK),
        st.tuples(st.just("reset_envs"), MASK),
        st.tuples(st.just("seed_envs"), MASK, st.lists(st.integers(0, 99), min_size=5, max_size=5)),
    ),
    min_size=1,
    max_size=15,
)


@settings(max_examples=40, deadline=None)
@given(CALLS, st.booleans())
def test_a_mask_means_the_same_as_numbers(twins, calls, in_torch):
    masked, numbered = twins
    for policy in twins:
        policy.reset(5)
    observations = np.random.default_rng(0).uniform(-1, 1, (len(calls), 5, 3)).astype(np.float32)
    for (name, mask, *seeds), observation in zip(calls, observations, strict=True):
        ids, given = np.flatnonzero(mask), torch.tensor(mask) if in_torch else np.array(mask)
        if name == "reset_envs":
            masked.reset_envs(given)
            numbered.reset_envs(ids)
        elif name == "seed_envs":
            masked.seed_envs(torch.tensor(seeds[0]) if in_torch else seeds[0], given)
            numbered.seed_envs(np.array(seeds[0])[ids], ids)
        else:
            found = masked.act(torch.from_numpy(observation) if in_torch else observation, given)
            assert found.shape == (5, 1)
            np.testing.assert_allclose(np.asarray(found)[ids], numbered.act(observation[ids], ids), atol=1e-5)


def test_noise_goes_on_after_a_reset_and_starts_again_with_a_seed(policy, monkeypatch):
    drawn = []
    original = policy._sampler

    def spy(observations, seeds, chunks):
        drawn.append([*zip(seeds.tolist(), chunks.tolist(), strict=True)])
        return original(observations, seeds, chunks)

    monkeypatch.setattr(policy, "_sampler", spy)
    policy.reset(2)
    policy.seed_envs([4, 8])
    for env_ids in ([0], np.array([False, True]), [0]):
        policy.act(np.zeros((2, 3)))
        policy.reset_envs(env_ids)
    policy.seed_envs(np.array([9]), [0])
    policy.act(np.zeros((2, 3)))
    assert drawn == [[(4, 0), (8, 0)], [(4, 1)], [(8, 1)], [(9, 0)]]


def test_only_how_many_worlds_plan_is_read_back(policy):
    policy.reset(40)
    mask = torch.arange(40) % 3 > 0
    # What comes from the CPU is checked, which is what CUDA tensors are spared; so this looks behind the checks.
    with Operations() as operations:
        policy.reset_envs(mask)
        policy._step(torch.zeros(40, 3), policy._worlds(mask).mask)
    assert operations.names.count("nonzero") == 1
    assert "_local_scalar_dense" not in operations.names


def test_inference_mode_of_the_caller_leaves_no_traces(policy):
    with torch.inference_mode():
        policy.reset(2)
        policy.act(torch.zeros(2, 3))
        policy.reset_envs([0])
    weight = torch.ones(1, requires_grad=True)
    (policy.act(torch.zeros(2, 3)) * weight).sum().backward()
    assert weight.grad is not None


def test_missing_device_is_refused(trained):
    with pytest.raises(ValueError, match="device is 'cuda:99'; expected one of 'cpu'"):
        load_policy("PushButton", path=trained[0], device="cuda:99")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("scheduler", ["ddim", "ddpm"])
def test_a_policy_on_cuda_acts_as_on_the_cpu(trained, policy, scheduler):
    on_cuda = load_policy("PushButton", path=trained[0], scheduler=scheduler, device="cuda")
    on_cpu = load_policy("PushButton", path=trained[0], scheduler=scheduler)
    for each in (on_cuda, on_cpu):
        each.reset(6)
    mask = torch.tensor([True, True, False, True, True, False])
    for observation in torch.linspace(-1, 1, 10 * 18).reshape(10, 6, 3):
        found = on_cuda.act(observation.cuda(), mask.cuda())
        assert found.is_cuda
        torch.testing.assert_close(found.cpu()[mask], on_cpu.act(observation, mask)[mask], atol=0.02, rtol=0)


def test_hidden_fingers_do_not_matter(tmp_path):
    rng = np.random.default_rng(0)
    demos = [{"obs": rng.uniform(-1, 1, (9, 30)), "action": rng.uniform(-1, 1, (9, 28))} for _ in range(3)]
    config = dataclasses.replace(QUICK, finger_dropout=0.5)
    path = tmp_path / "w.safetensors"
    train(demos, config, path)
    policy = DiffusionPolicy(*load_weights(path, KIND))
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


def test_missing_weights_name_the_command_that_makes_them(tmp_path, monkeypatch):
    monkeypatch.setenv("DEXCOMPOSE_PRETRAINED", str(tmp_path))
    with pytest.raises(ArtefactError, match="dexcompose train policy PushButton"):
        load_policy("PushButton")
    with pytest.raises(ArtefactError, match=r"can't read .*nothing\.safetensors"):
        load_policy("PushButton", path=tmp_path / "nothing.safetensors")
    with pytest.raises(ValueError, match=r"unknown .*skill 'Juggle'; expected one of"):
        load_policy("Juggle")


def test_weights_of_another_skill_or_kind_are_refused(trained, tmp_path):
    with pytest.raises(ArtefactError, match="skill is 'PushButton'; expected 'GraspBall'"):
        load_policy("GraspBall", path=trained[0])
    tensors, manifest = load_weights(trained[0], KIND)
    save_weights(tmp_path / "moved.safetensors", tensors, {**manifest, "model_hash": "another"})
    with pytest.raises(ArtefactError, match="model_hash is 'another'; expected"):
        load_policy("PushButton", path=tmp_path / "moved.safetensors")
    save_weights(tmp_path / "other.safetensors", tensors, {**manifest, "kind": "stabiliser"})
    with pytest.raises(ArtefactError, match="kind is 'stabiliser'; expected 'diffusion_policy'"):
        load_policy("PushButton", path=tmp_path / "other.safetensors")
    tensors.pop("film_step.bias")
    save_weights(tmp_path / "part.safetensors", tensors, manifest)
    with pytest.raises(ArtefactError, match=r"don't fit together .*film_step\.bias"):
        load_policy("PushButton", path=tmp_path / "part.safetensors")


def test_importing_the_packages_is_light():
    code = "import sys, dexcompose_agents, dexcompose_agents.diffusion; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
