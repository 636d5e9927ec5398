"""Properties that hold whatever a network says: bounds, ownership, and composition with a zero residual."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dexcompose_agents.residual.config import ResidualBConfig
from dexcompose_agents.residual.residual_b import ResidualBPolicy, bound_of, residual_b_features
from dexcompose_agents.residual.stabiliser import FEATURE_SIZE, StabiliserPolicy
from dexcompose_agents.rl.actor_critic import ActorCritic
from dexcompose_envs.composition.bounds import normalised
from dexcompose_envs.composition.composer import Composer
from dexcompose_envs.composition.task import CompositionTask
from dexcompose_envs.ownership import FingerMask

from .fakes import LAYOUT, RepeatingPolicy, every, network, observation, uniform

TASK = CompositionTask(LAYOUT, ("task_b",), np.zeros((1, 28)), np.zeros((1, 28)), True)
MASKS = st.sampled_from((*FingerMask.candidates(), FingerMask.all_fingers()))
SEEDS = st.integers(0, 2**31 - 1)
SCALES = st.sampled_from([1e-3, 1.0, 1e3])


def composer_at(mask, obs, step, stabiliser=None):
    """A composer whose worlds have made `step` control steps."""
    worlds = len(obs["context"])
    composer = Composer(TASK, mask, [RepeatingPolicy()], stabiliser)
    composer.reset(obs, every(worlds), torch.arange(worlds), torch.as_tensor(step).expand(worlds))
    return composer


@settings(max_examples=40, deadline=None)
@given(mask=MASKS, seed=SEEDS, scale=SCALES, bound=st.floats(0.01, 1.0))
def test_stabiliser_stays_in_its_bound_and_off_released_fingers(mask, seed, scale, bound):
    policy = StabiliserPolicy(network(seed, FEATURE_SIZE, 22, scale), bound=bound, masks=[mask], skill="GraspBall")
    rng = np.random.default_rng(seed)
    obs = observation(rng, 3, scale=10.0)
    policy.reset(obs, LAYOUT, every(3), mask)
    for _ in range(3):
        residual = policy.act(obs, uniform(rng, 3, 28))
        assert residual.shape == (3, 22)
        assert residual.abs().max() <= np.float32(bound)
        assert (residual[:, ~mask.joint_mask()] == 0).all()


@settings(max_examples=40, deadline=None)
@given(mask=MASKS, seed=SEEDS, scale=SCALES, step=st.integers(0, 60))
def test_residual_b_stays_in_its_bound_and_off_preserved_fingers(mask, seed, scale, step):
    bound = bound_of(ResidualBConfig(), "PushButton")
    obs = observation(np.random.default_rng(seed), 2, scale=10.0)
    nominal = composer_at(mask, obs, step).nominal(obs)
    size = residual_b_features(obs, nominal, mask, torch.zeros(2, 28)).shape[1]
    policy = ResidualBPolicy(network(seed, size, 28, scale), bound=bound, mask=mask, pair="GraspBall-PushButton")
    policy.reset(every(2))
    delta = policy.act(obs, nominal)
    assert (delta.abs() <= normalised(bound) * (1 + 1e-6)).all()
    assert (delta[:, mask.action_mask_a()] == 0).all()
    assert nominal.interacting.all() or (delta == 0).all()


@settings(max_examples=30, deadline=None)
@given(mask=MASKS, seed=SEEDS, step=st.integers(0, 60))
def test_untrained_residuals_leave_the_nominal_action(mask, seed, step):
    obs = observation(np.random.default_rng(seed), 2)
    untrained = ActorCritic(FEATURE_SIZE, 22, hidden=(8,))
    stabiliser = StabiliserPolicy(untrained, bound=0.15, masks=[mask], skill="GraspBall")
    composers = [composer_at(mask, obs, step, policy) for policy in (None, stabiliser)]
    assert torch.equal(*(composer.compose(obs, composer.nominal(obs)) for composer in composers))


@settings(max_examples=40, deadline=None)
@given(mask=MASKS, seed=SEEDS)
def test_residual_b_never_reaches_a_preserved_joint_or_an_early_phase(mask, seed):
    rng = np.random.default_rng(seed)
    obs = observation(rng, 4)
    composer = composer_at(mask, obs, [0, 20, 50, 51])
    nominal = composer.nominal(obs)
    assert composer.interactor.policies[0].policy.acted.tolist() == [0, 0, 1, 1]
    plain = composer.compose(obs, nominal)
    moved = composer.compose(obs, nominal, uniform(rng, 4, 28, scale=9.0))
    assert moved.abs().max() <= 1.0
    assert torch.equal(moved[:, mask.action_mask_a()], plain[:, mask.action_mask_a()])
    assert torch.equal(moved[:2], plain[:2])
    assert not torch.equal(moved[2:], plain[2:])


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, started=st.lists(st.booleans(), min_size=4, max_size=4))
def test_reset_starts_the_named_worlds_and_leaves_the_others(seed, started):
    rng = np.random.default_rng(seed)
    mask, started = FingerMask.parse("TH+MF"), torch.tensor(started)
    trained = network(seed, FEATURE_SIZE, 22, 0.3)

    def run(restart):
        stabiliser = StabiliserPolicy(trained, bound=0.15, masks=[mask], skill="GraspBall")
        composer = composer_at(mask, first, [3, 20, 49, 60], stabiliser)
        composer.compose(first, composer.nominal(first))
        if restart:
            composer.reset(second, started, torch.arange(4) + 9)
        return torch.stack([composer.compose(second, composer.nominal(second)) for _ in range(3)])

    first, second = observation(rng, 4), observation(rng, 4)
    fresh = composer_at(mask, second, 0, StabiliserPolicy(trained, bound=0.15, masks=[mask], skill="GraspBall"))
    anew = torch.stack([fresh.compose(second, fresh.nominal(second)) for _ in range(3)])
    assert torch.equal(run(True), torch.where(started[:, None], anew, run(False)))


def test_composition_does_not_depend_on_the_neighbours():
    mask = FingerMask.parse("TH+MF+RF")
    stabiliser = StabiliserPolicy(network(3, FEATURE_SIZE, 22, 0.1), bound=0.15, masks=[mask], skill="GraspBall")
    obs = observation(np.random.default_rng(0), 5)

    def run(worlds):
        part, n = {key: value[worlds] for key, value in obs.items()}, len(worlds)
        task = replace(TASK, starts=np.full((1, 28), 0.3))
        composer = Composer(task, mask, [RepeatingPolicy()], stabiliser, hold_steps=1, transition_steps=2)
        composer.reset(part, every(n), torch.tensor(worlds) + 10)
        return torch.stack([composer.compose(part, composer.nominal(part)) for _ in range(6)])

    whole = run([0, 1, 2, 3, 4])
    assert torch.equal(run([3])[:, 0], whole[:, 3])
    assert torch.equal(run([4, 1])[:, 1], whole[:, 1])
