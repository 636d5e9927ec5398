"""Scripted wrist feedback: where it may act, and that it calms a fingertip which the base shakes."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from dexcompose_agents.scripted import WristFeedback
from dexcompose_agents.scripted.wrist_feedback import STEP_SHARES
from dexcompose_envs import env_id, hand
from dexcompose_envs.composition.bounds import NORMALISED_PER_UNIT
from dexcompose_envs.composition.interactor import Nominal, ResidualB
from dexcompose_envs.composition.task import CompositionTask
from dexcompose_envs.episodes import base_shake
from dexcompose_envs.skills.base import InteractionSkill

PAIR = "GraspBall-PushButton"
LAYOUT = CompositionTask.of_name(PAIR).layout
WRIST = slice(0, hand.NUM_WRIST)
HOVER = hand.normalize(np.array([0.18, -0.03, 0.35, 0.0, 0.75, 0.0, *hand.OPEN_FINGERS])).astype(np.float32)
"""The fingertip well above the button."""


def observation(position, command, layout=LAYOUT):
    """Worlds whose wrists are at `position` (N, 6) after the targets `command` (N, 6), normalised, float32."""
    size = max(columns.stop for columns in layout["context"].values())
    obs = {key: np.zeros((len(position), size), np.float32) for key in ("task_b", "context")}
    obs["task_b"][:, WRIST] = position
    obs["context"][:, layout["context"]["previous_action"]][:, WRIST] = command
    return obs


def nominal(interacting):
    return Nominal(np.zeros((len(interacting), 28), np.float32), np.asarray(interacting, bool))


def begin(num_envs):
    feedback = WristFeedback.of_pair(PAIR)
    feedback.reset(np.ones(num_envs, bool))
    return feedback


def followed(position, target):
    """Where the wrist comes out one step later if it is a first-order lag."""
    return position + np.repeat(STEP_SHARES, 3) * (target - position)


def test_a_tremor_of_the_target_is_taken_off_the_next_one():
    rng = np.random.default_rng(0)
    position, command, tremor = rng.uniform(-0.02, 0.02, (3, 4, 6))
    feedback = begin(4)
    assert isinstance(feedback, ResidualB)
    assert not feedback.act(observation(position, command), nominal([True] * 4)).any()  # nothing to compare with
    seen = observation(followed(position, command + tremor), command)
    said = feedback.act(seen, nominal([True, True, False, True]))
    assert not said[:, hand.NUM_WRIST :].any() and not said[2].any()
    np.testing.assert_allclose(said[[0, 1, 3], WRIST], -tremor[[0, 1, 3]], atol=1e-6)


def test_the_correction_stays_within_the_bound_of_residual_b():
    feedback = begin(1)
    feedback.act(observation(np.zeros((1, 6)), np.zeros((1, 6))), nominal([True]))
    said = feedback.act(observation(np.full((1, 6), 0.9), np.zeros((1, 6))), nominal([True]))
    widest = np.repeat(InteractionSkill.RESIDUAL_BOUND[:2], 3)
    np.testing.assert_allclose(said[0, WRIST] / NORMALISED_PER_UNIT[WRIST], -widest, rtol=1e-6)


def test_a_world_that_starts_anew_remembers_nothing_and_disturbs_no_other():
    rng = np.random.default_rng(1)
    first, second, third, command = rng.uniform(-0.01, 0.01, (4, 2, 6))
    feedback, other = begin(2), begin(2)
    for each in (feedback, other):
        each.act(observation(first, command), nominal([True, True]))
        each.act(observation(second, command), nominal([True, True]))
    feedback.reset(np.array([False, True]))
    said, expected = (each.act(observation(third, command), nominal([True, True])) for each in (feedback, other))
    np.testing.assert_array_equal(said[0], expected[0])
    assert not said[1].any() and expected[1].any()


def test_tensors_give_the_same_numbers_whatever_the_caller_has_set(caller_settings):
    rng = np.random.default_rng(2)
    positions, command = rng.uniform(-0.01, 0.01, (3, 2, 6)), rng.uniform(-0.01, 0.01, (2, 6))
    feedback, expected = begin(2), None
    for position in positions:
        expected = feedback.act(observation(position, command), nominal([True, False]))
    other, acts = WristFeedback.of_pair(PAIR), torch.tensor([True, False], device="cpu")
    with caller_settings():
        other.reset(torch.ones(2, dtype=torch.bool, device="cpu"))
        for position in positions:
            obs = {key: torch.from_numpy(value) for key, value in observation(position, command).items()}
            said = other.act(obs, Nominal(obs["task_b"], acts))
    assert said.dtype == torch.float32 and said.shape == (2, 28)
    np.testing.assert_allclose(said.numpy(), expected, rtol=1e-5, atol=1e-8)


def test_act_before_reset_is_refused():
    with pytest.raises(RuntimeError, match="before reset"):
        WristFeedback.of_pair(PAIR).act(observation(np.zeros((1, 6)), np.zeros((1, 6))), nominal([True]))


def test_chains_take_the_narrowest_bound():
    chain = WristFeedback.of_pair("GraspBall-PushButton-PushButton")
    assert chain.describe() == WristFeedback.of_pair(PAIR).describe()


def still(shake):
    """Worlds of the button alone, whose hands are commanded to stay where they start."""
    options = {"base_shake": shake, "terminate_on_success": False, "autoreset_mode": "Disabled"}
    venv = gym.make_vec(env_id("PushButton"), num_envs=8, **options)
    obs, _ = venv.reset(seed=3)
    return venv, obs, np.tile(HOVER, (8, 1))


def test_the_lag_is_the_wrists_own():
    """A first-order lag, fitted anew to targets that move as shaken ones do, in a simulator without shake."""
    venv, obs, actions = still(0.0)
    parameters = np.stack([base_shake.sample(np.random.default_rng(seed), 1.0) for seed in range(8)])
    targets, positions = [], [obs["task_b"][:, WRIST]]
    for step in range(100):
        moved = actions.copy()
        moved[:, WRIST] += base_shake.offset(parameters, np.full(8, step)) * NORMALISED_PER_UNIT[WRIST]
        obs = venv.step(moved)[0]
        targets.append(moved[:, WRIST])
        positions.append(obs["task_b"][:, WRIST])
    venv.close()
    positions = np.array(positions)[20:]  # the start pose is another
    targets = np.array(targets)[20:]

    def error(share, joints):
        lagged, sum_of_squares = positions[0, :, joints], 0.0
        for target, position in zip(targets[:, :, joints], positions[1:, :, joints], strict=True):
            lagged = lagged + share * (target - lagged)
            sum_of_squares += np.square(lagged - position).sum()
        return sum_of_squares

    shares = np.arange(0.3, 0.8, 0.01)
    fitted = [min(shares, key=lambda share: error(share, joints)) for joints in (slice(0, 3), slice(3, 6))]
    np.testing.assert_allclose(fitted, STEP_SHARES, atol=0.025)


def test_a_shaken_fingertip_deviates_less_by_a_third_at_least():
    """Sideways of the direction in which a button is pressed: root mean square over 100 steps of 8 worlds."""

    def tip(shake, feedback):
        venv, obs, actions = still(shake)
        layout, paths = venv.unwrapped.layout, []
        part = WristFeedback(layout, InteractionSkill.RESIDUAL_BOUND)
        part.reset(np.ones(8, bool))
        for _ in range(130):
            correction = part.act(obs, Nominal(actions, np.full(8, feedback)))
            obs = venv.step(actions + correction)[0]
            paths.append(venv.unwrapped.sensors()["tip_position"][:, :2])
        venv.close()
        return np.array(paths)[30:]

    quiet = tip(0.0, False)
    without, calmed = (np.sqrt(np.square(tip(1.0, on) - quiet).sum(axis=-1).mean()) for on in (False, True))
    assert without > 0.005, f"the base shake moves the fingertip by {1e3 * without:.1f} mm only"
    assert calmed <= 2 / 3 * without, f"{1e3 * without:.1f} mm without feedback, {1e3 * calmed:.1f} mm with it"
