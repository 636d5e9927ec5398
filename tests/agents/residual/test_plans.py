"""Nominal plans and disturbances: continuous, within limits, at the speeds that they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dexcompose_agents.residual.config import DisturbanceConfig
from dexcompose_agents.residual.disturbances import CONTROL_PERIOD, draw_disturbance, wander
from dexcompose_agents.residual.transition import HOLD, INTERACT, TRANSITION, PhasePlanner
from dexcompose_envs import hand
from dexcompose_envs.demonstrations.trajectories import minimum_jerk

SEEDS = st.integers(0, 2**31 - 1)


def test_minimum_jerk_by_hand():
    # 10/8 - 15/16 + 6/32 = 1.25 - 0.9375 + 0.1875 = 0.5
    assert minimum_jerk([-1.0, 0.0, 0.5, 1.0, 2.0]).tolist() == pytest.approx([0.0, 0.0, 0.5, 1.0, 1.0])


def test_plan_holds_then_travels_then_stays():
    start, hold = np.full(28, 0.4, np.float32), np.full((1, 28), -0.2, np.float32)
    planner = PhasePlanner(start, hold_steps=3, transition_steps=10)
    steps = np.arange(20)
    plan = planner.plan(steps, np.repeat(hold, 20, axis=0))
    assert np.array_equal(plan[:3], np.repeat(hold, 3, axis=0))
    np.testing.assert_allclose(plan[12:], np.repeat(start[None], 8, axis=0), atol=1e-6)
    np.testing.assert_allclose(plan[7, 6:], start[6:], atol=1e-6)  # fingers take half of the time
    np.testing.assert_allclose(plan[7, :6], 0.1, atol=1e-6)  # the wrist is half-way
    assert (np.diff(plan, axis=0) >= 0).all()
    assert planner.phase(steps).tolist() == [HOLD] * 3 + [TRANSITION] * 10 + [INTERACT] * 7


def test_start_pose_of_a_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"shape \(22,\); expected \(..., 28\)"):
        PhasePlanner(np.zeros(22))


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_wander_keeps_speed_and_range(seed):
    low, high = np.array([-0.1, -0.1, -0.03]), np.full(3, 0.1)
    path = wander(np.random.default_rng(seed), 150, np.zeros(3), low, high, 0.45)
    assert path.shape == (150, 3)
    assert (path[0] == 0).all()
    assert ((path >= low - 1e-9) & (path <= high + 1e-9)).all()
    assert np.linalg.norm(np.diff(path, axis=0), axis=1).max() / CONTROL_PERIOD <= 0.4501


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_disturbance_starts_at_rest_and_respects_limits(seed):
    rng = np.random.default_rng(seed)
    config = DisturbanceConfig()
    low, high = hand.ACTION_LOW[6:], hand.ACTION_HIGH[6:]
    reference = rng.uniform(low, high)
    drawn = draw_disturbance(rng, reference, 151, config)
    assert drawn.wrist.shape == (151, 6)
    assert np.allclose(drawn.wrist[0], 0.0)
    jitter = 6 * config.jitter_translation
    assert np.abs(drawn.wrist[:, :3]).max() <= config.translation + jitter
    assert drawn.wrist[:, 2].min() >= -config.descent - jitter
    assert drawn.wrist[:, 4].max() <= config.pitch + config.rotation / 2 + 6 * config.jitter_rotation
    assert ((drawn.fingers >= low) & (drawn.fingers <= high)).all()
    assert np.allclose(drawn.fingers[0], reference)
    assert (np.diff(drawn.phase) >= 0).all()
    assert drawn.phase[-1] == INTERACT
    opened = int(np.argmax(drawn.phase == INTERACT))
    assert np.allclose(drawn.fingers[opened], np.clip(hand.OPEN_FINGERS, low, high), atol=1e-9)
