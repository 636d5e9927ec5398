"""Scripted stabilisers: whom they move, which way, how far and when."""

import numpy as np
import pytest
import torch

from dexcompose_agents.scripted import STABILISERS, ConstantSqueeze, Reflex
from dexcompose_envs import FingerMask, hand
from dexcompose_envs.composition.bounds import NORMALISED_PER_UNIT
from dexcompose_envs.composition.preserver import Stabiliser
from dexcompose_envs.composition.task import CompositionTask
from dexcompose_envs.episodes.phases import HOLD_STEPS
from dexcompose_envs.errors import UsageError

LAYOUT = CompositionTask.of_name("GraspBall-PushButton").layout
MASK = FingerMask.parse("TH+MF+LF")
PRESERVED = MASK.joint_mask()
ANGLE = 0.15
SETTLED = 60
"""Control steps after which what is sensed is what is there."""
EVERY_KIND = pytest.mark.parametrize("maker", STABILISERS.values(), ids=list(STABILISERS))


def observation(num_envs, seed=0, displacement=0.0, speed=0.0):
    """Random joints and references of N worlds, and an object displaced (m) and moving (m/s) along x."""
    rng = np.random.default_rng(seed)
    sizes = {key: max(columns.stop for columns in terms.values()) for key, terms in LAYOUT.items()}
    obs = {key: rng.uniform(-0.5, 0.5, (num_envs, size)).astype(np.float32) for key, size in sizes.items()}
    obs["context"][:, LAYOUT["context"]["palm_offset"]] = [10 * displacement, 0.0, 0.0]
    obs["context"][:, LAYOUT["context"]["object_linear_velocity"]] = [speed, 0.0, 0.0]
    return obs


def begin(stabiliser, obs, started=None):
    started = np.ones(len(obs["context"]), bool) if started is None else np.asarray(started)
    stabiliser.reset(obs, LAYOUT, started, MASK)
    return stabiliser


def act(stabiliser, obs, steps=1):
    """What it says after some steps on the same observation."""
    for _ in range(steps):
        said = stabiliser.act(obs, np.zeros((len(obs["context"]), 28), np.float32))
    return said


def ahead(obs):
    """q_ref - q of preserved joints, rad, (N, 22)."""
    joints = obs["task_a"][:, LAYOUT["task_a"]["joint_position"]][:, hand.NUM_WRIST :]
    distance = obs["context"][:, LAYOUT["context"]["reference"]] - joints
    return distance / NORMALISED_PER_UNIT[hand.NUM_WRIST :] * PRESERVED


def test_the_largest_preserved_joint_moves_by_the_angle_and_released_ones_not_at_all():
    obs = observation(5)
    said = act(begin(ConstantSqueeze(), obs), obs, HOLD_STEPS + 7)
    np.testing.assert_allclose(np.abs(said).max(axis=1), ANGLE, rtol=1e-6)
    assert not said[:, ~PRESERVED].any()
    wanted = ahead(obs)
    np.testing.assert_allclose(said, ANGLE * wanted / np.abs(wanted).max(axis=1, keepdims=True), rtol=1e-4, atol=1e-7)


def test_the_squeeze_grows_evenly_over_the_hold_and_keeps_its_direction():
    obs, squeeze = observation(2), ConstantSqueeze()
    begin(squeeze, obs)
    later = observation(2, seed=1)  # joints that have moved
    whole = act(begin(ConstantSqueeze(), obs), obs, HOLD_STEPS)
    for step in range(1, HOLD_STEPS + 5):
        np.testing.assert_allclose(act(squeeze, later), min(step / HOLD_STEPS, 1.0) * whole, rtol=1e-5)


def test_a_hand_that_does_not_press_is_left_alone():
    obs = observation(1)
    joints = obs["task_a"][:, LAYOUT["task_a"]["joint_position"]][:, hand.NUM_WRIST :]
    obs["context"][:, LAYOUT["context"]["reference"]] = joints
    with np.errstate(all="raise"):
        assert not act(begin(ConstantSqueeze(), obs), obs, HOLD_STEPS).any()


def test_reflex_rises_with_what_is_sensed_and_never_falls():
    quiet = observation(1)
    whole = act(begin(ConstantSqueeze(), quiet), quiet, HOLD_STEPS)
    reflex = begin(Reflex(), quiet)
    assert not act(reflex, quiet, HOLD_STEPS).any()
    shares = [(0.002, 0.0, 0.2), (0.0, 0.03, 0.3), (0.0, 0.0, 0.3), (0.001, 0.01, 0.3), (0.02, 0.5, 1.0), (0, 0, 1.0)]
    for displacement, speed, share in shares:
        sensed = observation(1, displacement=displacement, speed=speed)
        np.testing.assert_allclose(act(reflex, sensed, SETTLED), share * whole, rtol=1e-4, atol=1e-7)
    begin(reflex, quiet)
    assert not act(reflex, quiet, HOLD_STEPS).any()


def test_reflex_hardly_heeds_noise():
    """Millimetres and centimetres a second in every step, as sensors may err, call for less than half."""
    rng, reflex = np.random.default_rng(0), begin(Reflex(), observation(64))
    whole = act(begin(ConstantSqueeze(), observation(64)), observation(64), HOLD_STEPS)
    for _ in range(150):
        obs = observation(64)
        obs["context"][:, LAYOUT["context"]["palm_offset"]] = 10 * rng.normal(0.0, 0.002, (64, 3))
        obs["context"][:, LAYOUT["context"]["object_linear_velocity"]] = rng.normal(0.0, 0.02, (64, 3))
        said = act(reflex, obs)
    assert np.median(np.abs(said).max(axis=1)) < 0.5 * np.abs(whole).max()


@EVERY_KIND
def test_worlds_start_by_themselves_and_do_not_depend_on_their_number(maker):
    obs = observation(4, displacement=0.003)
    together = begin(maker(), obs)
    assert isinstance(together, Stabiliser)
    act(together, obs, 4)
    again = observation(4, seed=2, displacement=0.003)
    begin(together, again, [False, True, False, False])
    said = act(together, again, 3)
    for world, (first, steps) in enumerate([(obs, 7), (again, 3), (obs, 7), (obs, 7)]):
        alone = {key: value[world : world + 1] for key, value in first.items()}
        np.testing.assert_array_equal(act(begin(maker(), alone), alone, steps)[0], said[world])


@EVERY_KIND
def test_tensors_give_the_same_numbers_whatever_the_caller_has_set(maker, caller_settings):
    arrays = observation(3, displacement=0.003, speed=0.01)
    expected = act(begin(maker(), arrays), arrays, 5)
    tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
    started, moving = torch.ones(3, dtype=torch.bool, device="cpu"), torch.zeros(3, 28, device="cpu")
    stabiliser = maker()
    with caller_settings():
        stabiliser.reset(tensors, LAYOUT, started, MASK)
        said = [stabiliser.act(tensors, moving) for _ in range(4)]
    said = stabiliser.act(tensors, moving)
    assert said.dtype == torch.float32
    np.testing.assert_allclose(said.numpy(), expected, rtol=1e-5, atol=1e-8)


@EVERY_KIND
def test_what_is_refused(maker):
    with pytest.raises(RuntimeError, match="before reset"):
        act(maker(), observation(1))
    with pytest.raises(UsageError, match="expected a task with a held object"):
        maker().reset({}, {"context": {}}, np.ones(1, bool), MASK)
