"""Properties of the composition on NumPy and torch alike: partition, bounds, the plan, and chains of interactions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dexcompose_envs import hand
from dexcompose_envs.arrays import to_numpy
from dexcompose_envs.composition.bounds import bounded, normalised, preservation_command
from dexcompose_envs.composition.composer import Composer
from dexcompose_envs.composition.masks import OwnedDimensions, mask_arrays
from dexcompose_envs.composition.plan import PhasePlan
from dexcompose_envs.composition.task import CompositionTask
from dexcompose_envs.episodes.phases import INTERACT_FROM
from dexcompose_envs.errors import UsageError
from dexcompose_envs.ownership import FingerMask

MASKS = st.sampled_from((*FingerMask.candidates(), FingerMask.all_fingers()))
SEEDS = st.integers(0, 2**31 - 1)
KINDS = (np.asarray, torch.from_numpy)
CONTEXT = {"previous_action": slice(0, 28), "reference": slice(28, 50), "stage": slice(50, 51)}


def task(interactions=1, starts=0.3):
    """A composite of k interactions whose policies read task_b, task_c, ..."""
    keys = tuple(f"task_{letter}" for letter in "bcd"[:interactions])
    context = CONTEXT if interactions > 1 else {name: CONTEXT[name] for name in ("previous_action", "reference")}
    layout = {**{key: {"all": slice(0, 28)} for key in keys}, "context": context}
    poses = np.full((interactions, 28), starts) + 0.1 * np.arange(interactions)[:, None]
    return CompositionTask(layout, keys, poses, 0.01 * np.arange(interactions)[:, None] * np.ones(28), True)


def observation(rng, worlds, kind=np.asarray, stage=None, interactions=1):
    """Random observations."""
    values = {f"task_{letter}": rng.uniform(-1, 1, (worlds, 28)) for letter in "bcd"[:interactions]}
    values["context"] = rng.uniform(-1, 1, (worlds, 51))
    if stage is not None:
        values["context"][:, 50] = stage
    return {key: kind(value.astype(np.float32)) for key, value in values.items()}


class Echo:
    """Says what it reads, plus a hundredth of the seed; counts its steps in each world."""

    def seed_envs(self, seeds, worlds):
        seeds, worlds = to_numpy(seeds), to_numpy(worlds)
        self.seeds, self.age = np.where(worlds, seeds, self.seeds), np.where(worlds, 0, self.age)

    def reset(self, num_envs):
        self.seeds, self.age = np.zeros((2, num_envs), int)

    def hide_fingers(self, fingers):
        self.hidden = fingers

    def act(self, task_obs, worlds):
        self.age = self.age + to_numpy(worlds)
        return to_numpy(task_obs) + np.float32(0.01) * self.seeds[:, None].astype(np.float32)


class Plain:
    """Says what it reads."""

    def act(self, task_obs):
        return task_obs


def composer(mask="TH+MF", interactions=1, policies=None, **options):
    policies = [Plain() for _ in range(interactions)] if policies is None else policies
    return Composer(task(interactions), FingerMask.parse(mask), policies, **options)


def start(made, obs, step=None, seeds=None):
    """Starts all worlds, `step` control steps into their episodes."""
    like = obs["context"]
    place = np.asarray if isinstance(like, np.ndarray) else torch.as_tensor
    n = len(like)
    seeds = np.arange(n) if seeds is None else np.asarray(seeds)
    made.reset(obs, None, place(seeds), None if step is None else place(np.broadcast_to(step, n).copy()))
    return made


@given(mask=MASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_masks_partition_the_action(kind, mask):
    fingers = mask_arrays(mask, kind(np.zeros(1)))
    assert (fingers.action_a ^ fingers.action_b).all()
    assert fingers.action_b[:6].all()
    np.testing.assert_array_equal(to_numpy(fingers.joints), to_numpy(fingers.action_a)[6:])
    assert [finger for finger, bit in zip(hand.FINGERS, fingers.bits, strict=True) if bit] == [
        finger for finger in hand.FINGERS if fingers.action_a[hand.finger_slice(finger)].all()
    ]


@given(mask=MASKS, seed=SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_owned_dimensions_go_out_and_come_back(kind, mask, seed):
    owned = OwnedDimensions(np.flatnonzero(mask.action_mask_b()))
    values = np.random.default_rng(seed).normal(size=(3, len(owned.indices))).astype(np.float32)
    whole = owned.spread(kind(values))
    np.testing.assert_array_equal(to_numpy(owned.take(whole)), values)
    assert (to_numpy(whole)[:, mask.action_mask_a()] == 0).all()


@settings(max_examples=30)
@given(mask=MASKS, seed=SEEDS, step=st.integers(0, 60))
def test_zero_residual_is_exactly_the_nominal_action(mask, seed, step):
    executed = []
    for kind in KINDS:
        obs = observation(np.random.default_rng(seed), 3, kind)
        made = start(composer(str(mask)), obs, step)
        nominal = made.nominal(obs)
        plain = made.compose(obs, nominal)
        zero = made.compose(obs, nominal, 0.0 * nominal.base_action)
        np.testing.assert_array_equal(to_numpy(plain), to_numpy(zero))
        # Eq. 12 spelt out: q_ref on preserved joints, a_B elsewhere.
        reference, joints = to_numpy(obs["context"])[:, CONTEXT["reference"]], mask.joint_mask()
        np.testing.assert_array_equal(to_numpy(plain)[:, 6:][:, joints], reference[:, joints])
        owned = mask.action_mask_b()
        np.testing.assert_array_equal(to_numpy(plain)[:, owned], to_numpy(nominal.base_action)[:, owned])
        executed.append(to_numpy(plain))
    np.testing.assert_array_equal(*executed, strict=True)


@settings(max_examples=30)
@given(mask=MASKS, seed=SEEDS, scale=st.sampled_from([1e-30, 1.0, 1e6]), bound=st.floats(0.001, 1.0))
@pytest.mark.parametrize("writes_all", [False, True])
def test_residual_stays_in_its_bound_whatever_the_network_says(writes_all, mask, seed, scale, bound):
    rng = np.random.default_rng(seed)
    says = (scale * rng.normal(size=(4, 28))).astype(np.float32)
    made = composer(str(mask), residual_writes_all=writes_all)
    obs = observation(rng, 4)
    start(made, obs, [0, 20, 50, 51])
    nominal = made.nominal(obs)
    with np.errstate(under="ignore"):
        delta = bounded(says, bound, made.writable(nominal))
        assert delta.dtype == np.float32
        assert (np.abs(delta) <= np.float32(bound)).all()
        plain, moved = made.compose(obs, nominal), made.compose(obs, nominal, normalised(delta))
    assert np.abs(moved).max() <= 1.0
    assert (np.abs(moved - plain) <= np.abs(normalised(np.full((1, 28), np.float32(bound)))) + 1e-6).all()
    np.testing.assert_array_equal(moved[:2], plain[:2])  # hold and transition
    if not writes_all:
        np.testing.assert_array_equal(moved[:, mask.action_mask_a()], plain[:, mask.action_mask_a()])
    elif scale >= 1.0:
        assert not np.array_equal(moved[2:, mask.action_mask_a()], plain[2:, mask.action_mask_a()])


@pytest.mark.parametrize("kind", KINDS)
def test_bounded_by_hand(kind):
    # 0.15 * tanh(0.5) = 0.15 * 0.462117 = 0.0693176; the second joint is not owned.
    result = bounded(kind(np.array([[0.5, 0.5]], np.float32)), 0.15, kind(np.array([True, False])))
    assert result[0].tolist() == pytest.approx([0.0693176, 0.0])
    assert str(result.dtype).endswith("float32")


def test_preservation_command_is_eq_8():
    rng = np.random.default_rng(0)
    mask = FingerMask.parse("TH+RF")
    reference, residual = rng.uniform(-0.5, 0.5, (2, 22)), rng.uniform(-0.1, 0.1, (2, 22))
    joints = hand.denormalize(np.concatenate([np.zeros((2, 6)), reference], axis=1))
    joints[:, 6:] += mask.joint_mask() * residual
    for kind in KINDS:
        numbers = [kind(value.astype(np.float32)) for value in (reference, residual, mask.joint_mask())]
        np.testing.assert_allclose(preservation_command(*numbers), hand.normalize(joints)[:, 6:], atol=1e-6)


def test_plan_holds_then_travels_then_stays():
    plan = PhasePlan(np.full((1, 28), 0.4), hold_steps=3, transition_steps=10)
    steps, stage, hold = np.arange(20), np.zeros(20, np.int64), np.full((20, 28), np.float32(-0.2))
    targets = plan.targets(steps, stage, hold)
    np.testing.assert_array_equal(targets[:3], hold[:3])
    np.testing.assert_allclose(targets[12:], 0.4, rtol=1e-6)
    np.testing.assert_allclose(targets[7, 6:], 0.4, rtol=1e-6)  # fingers take half of the time
    np.testing.assert_allclose(targets[7, :6], 0.1, rtol=1e-6)  # the wrist is half-way
    assert (np.diff(targets, axis=0) >= 0).all()
    previous = np.concatenate([hold[:1], targets[:-1]])
    back = plan.held_action(steps, stage, previous)
    np.testing.assert_allclose(plan.targets(steps, stage, back), targets, atol=1e-6)


@pytest.mark.parametrize(("hold", "transition"), [(0, 0), (5, 0), (0, 5)])
def test_phases_may_be_left_out(hold, transition):
    obs = observation(np.random.default_rng(0), 2)
    made = start(composer(hold_steps=hold, transition_steps=transition), obs)
    acted = [made.nominal(obs).interacting.all() for _ in range(7)]
    assert acted == [False] * (hold + transition) + [True] * (7 - hold - transition)


def test_bad_plans_and_policies_are_refused():
    with pytest.raises(UsageError, match=r"shape \(1, 22\); expected \(interactions, 28\)"):
        PhasePlan(np.zeros((1, 22)))
    with pytest.raises(UsageError, match="take -1 and 40 steps"):
        PhasePlan(np.zeros((1, 28)), hold_steps=-1)
    with pytest.raises(UsageError, match="got 1 base policies; expected one per interaction, 2"):
        composer(interactions=2, policies=[Plain()])
    with pytest.raises(UsageError, match="base_policy is 3; expected a callable or an object with act"):
        composer(policies=[3])
    obs = observation(np.random.default_rng(0), 3)
    with pytest.raises(UsageError, match="names 1 worlds; expected all 3"):
        composer().reset(obs, np.array([True, False, False]), np.arange(3))


def test_preserved_fingers_are_hidden_unless_they_may_be_seen():
    for hide, expected in ((True, ("TH", "MF")), (False, ())):
        policy = Echo()
        composer(policies=[policy], hide_preserved=hide)
        assert policy.hidden == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_chain_begins_hold_and_transition_anew_with_every_interaction(kind):
    rng = np.random.default_rng(0)
    policies = [Echo(), Echo()]
    made = composer("TH+MF", interactions=2, policies=policies)
    mask = FingerMask.parse("TH+MF")
    owned = mask.action_mask_b()
    obs = observation(rng, 2, kind, stage=0, interactions=2)
    start(made, obs, seeds=[3, 8])
    turns = []
    for step in range(2 * INTERACT_FROM + 12):
        # World 1 is through with its first interaction at step 55.
        stage = np.array([0, int(step >= 55)])
        obs = observation(rng, 2, kind, stage, interactions=2)
        nominal = made.nominal(obs)
        turns.append(to_numpy(nominal.interacting).tolist())
        action = to_numpy(made.compose(obs, nominal))
        reference = to_numpy(obs["context"])[:, CONTEXT["reference"]]
        joints = mask.joint_mask()
        np.testing.assert_array_equal(action[:, 6:][:, joints], reference[:, joints])
        if step == 55:
            held = to_numpy(obs["context"])[1, CONTEXT["previous_action"]]
            # Hold has gone by while the object settled: the way begins, at minimum-jerk's 1e-4 of it.
            start_pose = np.float32(0.4)
            np.testing.assert_allclose(action[1, 5], held[5] + 1.505e-4 * (start_pose - held[5]), atol=1e-6)
        if step == 94:
            np.testing.assert_allclose(action[1, owned], 0.4, rtol=1e-5)  # where the second interaction starts
        if step >= 95:
            expected = np.clip(to_numpy(obs["task_c"])[1] + np.float32(0.09) + np.float32(0.01), -1, 1)
            np.testing.assert_allclose(action[1, owned], expected[owned], atol=1e-6)
    assert [each[0] for each in turns] == [False] * 50 + [True] * 62
    assert [each[1] for each in turns] == [False] * 50 + [True] * 5 + [False] * 40 + [True] * 17
    assert policies[0].age.tolist() == [62, 5]
    assert policies[1].age.tolist()[1] == 17
    assert policies[1].seeds.tolist()[1] == 8 + 1  # another noise for the second interaction


def test_a_restored_world_of_a_later_interaction_begins_that_one_anew():
    rng = np.random.default_rng(0)
    made = composer(interactions=2)
    obs = observation(rng, 1, stage=1, interactions=2)
    start(made, obs, step=80)
    acted = [bool(made.nominal(obs).interacting[0]) for _ in range(INTERACT_FROM + 1)]
    assert acted == [False] * INTERACT_FROM + [True]


def test_reference_may_be_constant_angles_or_a_function():
    obs = observation(np.random.default_rng(0), 2)
    expected = hand.normalize(np.concatenate([np.zeros(6), hand.OPEN_FINGERS]))[6:]
    for reference in (hand.OPEN_FINGERS, lambda obs: hand.OPEN_FINGERS):
        made = start(composer("TH+FF+MF+RF+LF", reference=reference), obs)
        action = made.compose(obs, made.nominal(obs))
        np.testing.assert_allclose(action[:, 6:], [expected] * 2, atol=1e-6)
