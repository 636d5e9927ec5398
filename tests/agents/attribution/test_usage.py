"""eta_B: usage shares by hand, and the properties that selectors rely on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexcompose_agents.attribution.usage import EpisodeSignals, measure_usage
from dexcompose_envs.hand import FINGERS, finger_slice
from dexcompose_envs.ownership import FingerMask

INDEX = 0


def positions(steps=4, **ends):
    """Finger joints at -1; each named finger's joints travel to the given value over the episode."""
    table = np.full((steps, 22), -1.0)
    for finger, end in ends.items():
        span = finger_slice(finger)
        table[:, span.start - 6 : span.stop - 6] = np.linspace(-1.0, end, steps)[:, None]
    return table


def test_contact_by_hand():
    contact = np.zeros((4, 5))
    contact[1:, INDEX] = 3.0  # impulse 9
    contact[3, 4] = 1.0  # thumb: 1
    usage = measure_usage([EpisodeSignals(positions(FF=0.0, MF=1.0), fixture_contact=contact)])
    assert usage.source == "contact"
    # Motion: the index travels half its range, the middle finger all of it: shares 1/3 and 2/3.
    assert usage.motion == pytest.approx((1 / 3, 2 / 3, 0, 0, 0))
    assert usage.work == pytest.approx((0.9, 0, 0, 0, 0.1))
    # u = 0.9 work + 0.1 motion
    assert usage.shares == pytest.approx((0.81 + 1 / 30, 2 / 30, 0, 0, 0.09))
    # eta of TH+RF+LF, which releases FF and MF (8 of 22 joints): 0.95 * (0.81 + 0.1) + 0.05 * 8 / 22
    assert usage.eta(FingerMask.parse("TH+RF+LF")) == pytest.approx(0.95 * 0.91 + 0.05 * 8 / 22)
    assert usage.eta(FingerMask.all_fingers()) == 0.0


def test_progress_decides_which_steps_count():
    contact = np.array([[0, 8.0, 0, 0, 0], [1.0, 0, 0, 0, 0], [3.0, 0, 1.0, 0, 0]])
    episode = EpisodeSignals(positions(3, FF=1.0), fixture_contact=contact, progress=np.array([0.0, 0.5, 0.5]))
    # The middle finger's push moved nothing: index 0.5 + 1.5 = 2, ring 0.5.
    assert measure_usage([episode]).work == pytest.approx((0.8, 0, 0.2, 0, 0))
    still = EpisodeSignals(positions(3, FF=1.0), fixture_contact=contact, progress=np.zeros(3))
    assert measure_usage([still]).work == pytest.approx((4 / 13, 8 / 13, 1 / 13, 0, 0))


def test_static_load_counts_pushing_and_not_curling():
    steps = 20
    torque, velocity = np.zeros((steps, 22)), np.zeros((steps, 22))
    torque[15:, 0:4] = 0.5  # the index pushes, standing still: 5 steps x 4 joints x 0.5 = 10
    torque[2:6, 4:8] = 0.5  # the middle finger curls at 1.5 rad/s: 4 x 4 x 0.5 / (1 + 9) = 0.8
    velocity[2:6, 4:8] = 1.5
    torque[:, 8:12] = 0.9  # the ring finger pulls all the time, as it always does: no excess
    usage = measure_usage([EpisodeSignals(positions(steps, FF=1.0), torque, velocity)])
    assert usage.source == "load"
    assert usage.work == pytest.approx((10 / 10.8, 0.8 / 10.8, 0, 0, 0))


def test_motion_is_the_last_resort():
    usage = measure_usage([EpisodeSignals(positions(FF=1.0, LF=0.0))])
    assert usage.source == "motion"
    assert usage.shares == pytest.approx((2 / 3, 0, 0, 1 / 3, 0))


def test_one_episode_without_contact_decides_for_all():
    contact = np.zeros((4, 5))
    contact[:, INDEX] = 1.0
    both = [EpisodeSignals(positions(FF=1.0), fixture_contact=contact), EpisodeSignals(positions(MF=1.0))]
    assert measure_usage(both).source == "motion"


def test_signals_from_recorded_observations():
    terms = {"joint_velocity": slice(0, 28), "torque": slice(28, 50), "fixture_contact": slice(50, 55)}
    context = np.zeros((6, 55), np.float32)
    context[:, 6:28] = 0.2
    context[:, 28:50] = 0.3
    context[:, 50] = 0.4
    task = np.zeros((6, 35), np.float32)
    task[:, 6:28] = np.arange(6)[:, None] / 10
    signals = EpisodeSignals.from_observations({"task_b": task, "context": context}, terms, progress=np.ones(5))
    # Five actions and six observations: the observations after each action count.
    np.testing.assert_allclose(signals.joint_position[:, 0], [0.1, 0.2, 0.3, 0.4, 0.5], atol=1e-6)
    np.testing.assert_allclose(signals.joint_velocity, 2.0, rtol=1e-6)
    np.testing.assert_allclose(signals.torque, 0.3, rtol=1e-6)
    np.testing.assert_allclose(signals.fixture_contact[:, 0], 4.0, rtol=1e-6)
    with pytest.raises(ValueError, match="progress has 9 steps, expected at most the 6"):
        EpisodeSignals.from_observations({"task_b": task, "context": context}, terms, progress=np.ones(9))


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="at least one demonstration"):
        measure_usage([])
    with pytest.raises(ValueError, match=r"joint_position has shape \(4, 21\)"):
        EpisodeSignals(np.zeros((4, 21)))
    with pytest.raises(ValueError, match=r"torque .*isn't finite"):
        EpisodeSignals(positions(), np.full((4, 22), np.inf))


@st.composite
def episode_lists(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    signals = []
    for _ in range(draw(st.integers(1, 4))):
        steps = draw(st.integers(1, 6))
        contact = rng.uniform(0, 9, (steps, 5)) if draw(st.booleans()) else None
        position = rng.uniform(-1, 1, (steps, 22)) if draw(st.booleans()) else np.zeros((steps, 22))
        signals.append(EpisodeSignals(position, rng.normal(size=(steps, 22)), rng.normal(size=(steps, 22)), contact))
    return signals


@given(episode_lists(), st.randoms(use_true_random=False))
def test_usage_is_a_distribution_whatever_the_order(episodes, random):
    usage = measure_usage(episodes)
    assert len(usage.shares) == len(FINGERS) and min(usage.shares) >= 0
    assert sum(usage.shares) == pytest.approx(1.0)
    shuffled = random.sample(episodes, len(episodes))
    assert measure_usage(shuffled) == usage  # also in what it says of the demonstrations' identity
    assert measure_usage([*episodes, episodes[0]]).demonstrations != usage.demonstrations


@given(episode_lists())
def test_eta_grows_with_every_released_finger(episodes):
    usage = measure_usage(episodes)
    for mask in FingerMask.candidates():
        assert 0.0 < usage.eta(mask) < 1.0
        for finger in mask.preserved if len(mask.preserved) > 1 else ():
            fewer = FingerMask(tuple(f for f in mask.preserved if f != finger))
            assert usage.eta(fewer) > usage.eta(mask)
