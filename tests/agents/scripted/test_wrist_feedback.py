"""Scripted wrist feedback: where it may act, and that it calms a fingertip which the base shakes."""

import gymnasium as gym
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from dexcompose_agents.scripted import WristFeedback
from dexcompose_envs import env_id, hand
from dexcompose_envs.composition.bounds import NORMALISED_PER_UNIT
from dexcompose_envs.composition.interactor import Nominal, ResidualB
from dexcompose_envs.composition.task import CompositionTask
from dexcompose_envs.skills.base import InteractionSkill

PAIR = "GraspBall-PushButton"
LAYOUT = CompositionTask.of_name(PAIR).layout
WRIST = slice(0, hand.NUM_WRIST)
WIDEST = np.repeat(InteractionSkill.RESIDUAL_BOUND[:2], 3)
HOVER = hand.normalize(np.array([0.18, -0.03, 0.35, 0.0, 0.75, 0.0, *hand.OPEN_FINGERS])).astype(np.float32)
"""The fingertip well above the button."""


def observation(position, velocity, command):
    """Worlds whose wrists are at `position` (N, 6), move with `velocity` (m/s, rad/s) and were told `command`."""
    size = max(columns.stop for columns in LAYOUT["context"].values())
    obs = {key: np.zeros((len(position), size), np.float32) for key in ("task_b", "context")}
    obs["task_b"][:, WRIST] = position
    obs["context"][:, LAYOUT["context"]["previous_action"]][:, WRIST] = command
    obs["context"][:, LAYOUT["context"]["joint_velocity"]][:, WRIST] = 0.1 * velocity
    return obs


def nominal(interacting):
    return Nominal(np.zeros((len(interacting), 28), np.float32), np.asarray(interacting, bool))


def test_a_tremor_of_the_target_is_taken_off_the_next_one():
    rng = np.random.default_rng(0)
    command, tremor, velocity = rng.uniform(-0.02, 0.02, (3, 4, 6)) / [[[1.0]], [[1.0]], [[0.1]]]
    # A wrist that follows the shaken target without inertia is behind it by its velocity times its lag.
    position = command + tremor - velocity * hand.WRIST_LAG * NORMALISED_PER_UNIT[WRIST]
    feedback = WristFeedback.of_pair(PAIR)
    assert isinstance(feedback, ResidualB)
    said = feedback.act(observation(position, velocity, command), nominal([True, True, False, True]))
    assert said.dtype == np.float32
    assert not said[:, hand.NUM_WRIST :].any() and not said[2].any()
    np.testing.assert_allclose(said[[0, 1, 3], WRIST], -tremor[[0, 1, 3]], atol=1e-6)


@given(st.lists(st.floats(-1, 1), min_size=6, max_size=6), st.lists(st.floats(-5, 5), min_size=6, max_size=6))
def test_the_correction_stays_within_the_bound_of_residual_b(position, velocity):
    obs = observation(np.array([position]), np.array([velocity]), np.zeros((1, 6)))
    said = WristFeedback.of_pair(PAIR).act(obs, nominal([True]))
    assert (np.abs(said[0, WRIST] / NORMALISED_PER_UNIT[WRIST]) <= WIDEST * (1 + 1e-6)).all()


def test_tensors_give_the_same_numbers_whatever_the_caller_has_set(caller_settings):
    rng = np.random.default_rng(2)
    seen = observation(*rng.uniform(-0.01, 0.01, (3, 2, 6)))
    expected = WristFeedback.of_pair(PAIR).act(seen, nominal([True, False]))
    acts = torch.tensor([True, False], device="cpu")
    with caller_settings():
        obs = {key: torch.from_numpy(value) for key, value in seen.items()}
        said = WristFeedback.of_pair(PAIR).act(obs, Nominal(obs["task_b"], acts))
    assert said.dtype == torch.float32 and said.shape == (2, 28)
    np.testing.assert_allclose(said.numpy(), expected, rtol=1e-5, atol=1e-8)


def test_chains_take_the_narrowest_bound():
    chain = WristFeedback.of_pair("GraspBall-PushButton-PushButton")
    assert chain.describe() == WristFeedback.of_pair(PAIR).describe() == {"gain": 1.0, "bound": [0.03, 0.15]}


def still(shake):
    """Worlds of the button alone, whose hands are commanded to stay where they start."""
    options = {"base_shake": shake, "terminate_on_success": False, "autoreset_mode": "Disabled"}
    venv = gym.make_vec(env_id("PushButton"), num_envs=8, **options)
    obs, _ = venv.reset(seed=3)
    return venv, obs, np.tile(HOVER, (8, 1))


def test_a_shaken_fingertip_deviates_less_by_a_third_at_least():
    """Sideways of the direction in which a button is pressed: root mean square over 100 steps of 8 worlds."""

    def tip(shake, feedback):
        venv, obs, actions = still(shake)
        part, paths = WristFeedback(InteractionSkill.RESIDUAL_BOUND), []
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
