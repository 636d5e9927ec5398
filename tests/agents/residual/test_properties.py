"""Properties that hold whatever a network says: bounds, ownership, and composition with a zero residual."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dexcompose_agents.composition import Composer
from dexcompose_agents.residual import ActorCritic
from dexcompose_agents.residual.bounds import NORMALISED_PER_UNIT, bounded, preservation_command
from dexcompose_agents.residual.config import ResidualBConfig
from dexcompose_agents.residual.residual_b import ResidualBPolicy, bound_of, residual_b_features
from dexcompose_agents.residual.stabiliser import FEATURE_SIZE, StabiliserPolicy
from dexcompose_envs import hand
from dexcompose_envs.ownership import FingerMask

MASKS = st.sampled_from((*FingerMask.candidates(), FingerMask.all_fingers()))
SEEDS = st.integers(0, 2**31 - 1)


def _layout():
    terms = {
        "joint_velocity": 28, "torque": 22, "previous_action": 28, "phase": 3, "object_position": 3,
        "object_rotation": 6, "object_linear_velocity": 3, "object_angular_velocity": 3, "palm_offset": 3,
        "finger_contact": 5, "fingertip_distance": 5, "reference": 22,
    }  # fmt: skip
    ends = np.cumsum(list(terms.values()))
    context = {name: slice(int(end - size), int(end)) for (name, size), end in zip(terms.items(), ends, strict=True)}
    return {"task_a": {"all": slice(0, 34)}, "task_b": {"all": slice(0, 35)}, "context": context}


LAYOUT = _layout()
CONTEXT_SIZE = LAYOUT["context"]["reference"].stop


def _observation(rng, worlds, scale=1.0):
    sizes = {"task_a": 34, "task_b": 35, "context": CONTEXT_SIZE}
    obs = {key: rng.uniform(-scale, scale, (worlds, size)).astype(np.float32) for key, size in sizes.items()}
    obs["context"][:, LAYOUT["context"]["reference"]] = rng.uniform(-1, 1, (worlds, 22))
    obs["context"][:, LAYOUT["context"]["previous_action"]] = rng.uniform(-1, 1, (worlds, 28))
    return obs


def _network(seed, observation_size, action_size, scale):
    torch.manual_seed(seed)
    network = ActorCritic(observation_size, action_size, hidden=(16,))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    return network


class _BasePolicy:
    """Deterministic stand-in for pi_B: repeats the joint positions shifted by the seed, and counts its calls."""

    def reset(self, num_envs):
        self.seeds = np.zeros(num_envs, np.int64)
        self.episodes = np.zeros(num_envs, np.int64)

    def seed_envs(self, seeds, env_ids=None):
        self.seeds[env_ids] = seeds
        self.reset_envs(env_ids)

    def reset_envs(self, env_ids):
        self.episodes[env_ids] += 1

    def hide_fingers(self, fingers):
        self.hidden = tuple(fingers)

    def act(self, task_obs, env_ids=None):
        assert len(task_obs) == len(env_ids)
        return np.clip(task_obs[:, :28] + 0.01 * self.seeds[env_ids, None], -1, 1).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(mask=MASKS, seed=SEEDS, scale=st.sampled_from([1e-3, 1.0, 1e3]), bound=st.floats(0.01, 1.0))
def test_stabiliser_stays_in_its_bound_and_off_released_fingers(mask, seed, scale, bound):
    policy = StabiliserPolicy(_network(seed, FEATURE_SIZE, 22, scale), bound=bound, masks=[mask], skill="GraspBall")
    rng = np.random.default_rng(seed)
    obs = _observation(rng, 3, scale=10.0)
    policy.reset(obs, LAYOUT, np.arange(3), mask)
    for _ in range(3):
        residual = policy.act(obs, rng.uniform(-1, 1, (3, 28)).astype(np.float32))
        assert residual.shape == (3, 22)
        assert np.abs(residual).max() <= np.float32(bound)
        assert (residual[:, ~mask.joint_mask()] == 0).all()


@settings(max_examples=40, deadline=None)
@given(mask=MASKS, seed=SEEDS, scale=st.sampled_from([1e-3, 1.0, 1e3]), step=st.integers(0, 60))
def test_residual_b_stays_in_its_bound_and_off_preserved_fingers(mask, seed, scale, step):
    bound = bound_of(ResidualBConfig())
    rng = np.random.default_rng(seed)
    obs = _observation(rng, 2, scale=10.0)
    composer = Composer(mask, _BasePolicy(), None, np.zeros(28), LAYOUT)
    composer.reset(obs, np.arange(2), np.arange(2))
    composer._step[:] = step
    nominal = composer.nominal(obs)
    size = residual_b_features(obs, nominal, mask, np.zeros((2, 28), np.float32)).shape[1]
    policy = ResidualBPolicy(_network(seed, size, 28, scale), bound=bound, mask=mask, pair="GraspBall-PushButton")
    policy.reset(2, np.arange(2))
    delta = policy.act(obs, nominal)
    assert (np.abs(delta) <= bound * NORMALISED_PER_UNIT * (1 + 1e-6)).all()
    assert (delta[:, mask.action_mask_a()] == 0).all()
    assert nominal.interacting.all() or (delta == 0).all()


@settings(max_examples=40, deadline=None)
@given(mask=MASKS, seed=SEEDS, step=st.integers(0, 60))
def test_zero_residual_is_exactly_the_nominal_action(mask, seed, step):
    obs = _observation(np.random.default_rng(seed), 3)
    composer = Composer(mask, _BasePolicy(), None, np.zeros(28), LAYOUT)
    composer.reset(obs, np.arange(3), np.arange(3))
    composer._step[:] = step
    nominal = composer.nominal(obs)
    plain = composer.compose(obs, nominal)
    assert np.array_equal(plain, composer.compose(obs, nominal, np.zeros((3, 28), np.float32)))
    # Eq. 12 spelt out: q_ref on preserved joints, a_B elsewhere.
    reference = obs["context"][:, LAYOUT["context"]["reference"]]
    joints = mask.joint_mask()
    assert np.array_equal(plain[:, 6:][:, joints], reference[:, joints])
    assert np.array_equal(plain[:, ~mask.action_mask_a()], nominal.base_action[:, ~mask.action_mask_a()])


@settings(max_examples=30, deadline=None)
@given(mask=MASKS, seed=SEEDS, step=st.integers(0, 60))
def test_untrained_residuals_leave_the_nominal_action(mask, seed, step):
    obs = _observation(np.random.default_rng(seed), 2)
    stabiliser = StabiliserPolicy(
        ActorCritic(FEATURE_SIZE, 22, hidden=(8,)), bound=0.15, masks=[mask], skill="GraspBall"
    )
    actions = []
    for policy in (None, stabiliser):
        composer = Composer(mask, _BasePolicy(), policy, np.zeros(28), LAYOUT)
        composer.reset(obs, np.arange(2), np.arange(2))
        composer._step[:] = step
        actions.append(composer.compose(obs, composer.nominal(obs)))
    assert np.array_equal(*actions)


@settings(max_examples=40, deadline=None)
@given(mask=MASKS, seed=SEEDS)
def test_residual_b_never_reaches_a_preserved_joint_or_an_early_phase(mask, seed):
    rng = np.random.default_rng(seed)
    obs = _observation(rng, 4)
    composer = Composer(mask, _BasePolicy(), None, np.zeros(28), LAYOUT)
    composer.reset(obs, np.arange(4), np.arange(4))
    composer._step[:] = [0, 20, 50, 51]
    nominal = composer.nominal(obs)
    plain = composer.compose(obs, nominal)
    moved = composer.compose(obs, nominal, rng.uniform(-9, 9, (4, 28)).astype(np.float32))
    assert np.abs(moved).max() <= 1.0
    assert np.array_equal(moved[:, mask.action_mask_a()], plain[:, mask.action_mask_a()])
    assert np.array_equal(moved[:2], plain[:2])
    assert not np.array_equal(moved[2:], plain[2:])


def test_bounded_by_hand():
    # 0.15 * tanh(0.5) = 0.15 * 0.462117 = 0.0693176; the second joint is not owned.
    result = bounded([[0.5, 0.5]], 0.15, [1.0, 0.0])
    assert result[0].tolist() == pytest.approx([0.0693176, 0.0])


def test_preservation_command_is_eq_8():
    rng = np.random.default_rng(0)
    mask = FingerMask.parse("TH+RF")
    reference, residual = rng.uniform(-0.5, 0.5, (2, 22)), rng.uniform(-0.1, 0.1, (2, 22))
    joints = hand.denormalize(np.concatenate([np.zeros((2, 6)), reference], axis=1))
    joints[:, 6:] += mask.joint_mask() * residual
    command = preservation_command(reference.astype(np.float32), residual.astype(np.float32), mask.joint_mask())
    np.testing.assert_allclose(command, hand.normalize(joints)[:, 6:], atol=1e-6)


def test_composition_does_not_depend_on_the_neighbours():
    mask = FingerMask.parse("TH+MF+RF")
    stabiliser = StabiliserPolicy(_network(3, FEATURE_SIZE, 22, 0.1), bound=0.15, masks=[mask], skill="GraspBall")
    obs = _observation(np.random.default_rng(0), 5)

    def run(worlds):
        part = {key: value[worlds] for key, value in obs.items()}
        composer = Composer(mask, _BasePolicy(), stabiliser, np.full(28, 0.3), LAYOUT, hold_steps=1, transition_steps=2)
        composer.reset(part, np.arange(len(worlds)), np.asarray(worlds) + 10)
        return np.stack([composer.compose(part, composer.nominal(part)) for _ in range(6)])

    whole = run([0, 1, 2, 3, 4])
    assert np.array_equal(run([3])[:, 0], whole[:, 3])
    assert np.array_equal(run([4, 1])[:, 1], whole[:, 1])
