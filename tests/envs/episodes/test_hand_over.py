"""Composites from scratch: A's own play comes first, and the composite begins when the hand holds still."""

import gymnasium as gym
import numpy as np
import pytest

from dexcompose_envs import OUTCOMES, env_id, hand
from dexcompose_envs.episodes.hand_over import LEEWAY, QUIET_STEPS
from dexcompose_envs.skills import make_expert, make_retention

PAIR, WORLDS, SEED = "GraspBall-PushButton", 3, 300
STREAK = make_retention("GraspBall").STREAK


class Play:
    """Worlds in which the expert grasps and then holds still."""

    def __init__(self, **options):
        steady = {"start": "scratch", "base_shake": 0.0, "autoreset_mode": "Disabled"}
        self.venv = gym.make_vec(env_id(PAIR), num_envs=WORLDS, **steady | options)
        self.obs, self.info = self.venv.reset(seed=SEED)
        self.layout = self.venv.unwrapped.layout["context"]
        self.expert = make_expert("GraspBall")
        self.expert.reset(self.obs, self.info, range(WORLDS), range(SEED, SEED + WORLDS))
        self.ended = np.zeros(WORLDS, bool)

    def step(self, action):
        self.obs, _, self.terminated, self.truncated, self.info = self.venv.step(action)
        self.ended |= self.terminated | self.truncated
        return self

    def grasp(self, steps=135):
        """Grasps and lifts, and never holds quite still."""
        for step in range(steps):
            self.last = self.expert.act(self.obs)
            self.step(self.last + 0.002 * (step % 2))
        return self

    def hold(self, steps):
        for _ in range(steps):
            self.step(self.last)
        return self

    def seen(self, name):
        return self.obs["context"][:, self.layout[name]]

    @property
    def is_held(self):
        return self.seen("reference").any(axis=1)

    @property
    def phase(self):
        return self.seen("phase").argmax(axis=1)


@pytest.fixture(scope="module")
def grasped():
    """Play until the hand-over, and the state a step before it."""
    play = Play().grasp()
    for _ in range(2 * QUIET_STEPS):
        if play.is_held.any():
            break
        play.before, play.obs_before = play.venv.unwrapped.get_state(), play.obs
        play.hold(1)
    yield play
    play.venv.close()


def test_the_hold_begins_when_the_hand_is_still(grasped):
    play = grasped
    assert play.is_held.all() and play.info["task_a_held"].all() and not play.ended.any()
    np.testing.assert_allclose(play.seen("reference"), play.last[:, hand.NUM_WRIST :], atol=1e-6)
    np.testing.assert_allclose(play.seen("palm_offset"), 0.0, atol=1e-5)
    assert (play.info["object_turn"] < 0.05).all()
    assert (play.phase == 0).all()
    assert (play.info["elapsed_steps"] > 135).all()


def test_phases_count_from_the_hand_over(grasped):
    venv = grasped.venv.unwrapped
    state = venv.get_state()
    seen = []
    for _ in range(50):
        grasped.hold(1)
        seen.append(grasped.phase.copy())
    assert [int(row[0]) for row in seen] == [0] * 9 + [1] * 40 + [2]
    assert (np.diff(np.array(seen), axis=0) >= 0).all() and not grasped.ended.any()
    venv.set_state(state)


def test_a_state_from_before_the_hand_over_goes_on_in_the_same_way(grasped):
    venv, after = grasped.venv.unwrapped, grasped.venv.unwrapped.get_state()
    venv.set_state(grasped.before)
    grasped.hold(1)
    np.testing.assert_array_equal(venv.get_state(), after)


def test_a_lost_object_is_lost_after_the_hand_over_and_not_before(grasped):
    venv = grasped.venv.unwrapped
    after = venv.get_state()
    dropped = grasped.last.copy()
    dropped[:, hand.NUM_WRIST :] = hand.normalize(np.append(np.zeros(6), hand.OPEN_FINGERS))[hand.NUM_WRIST :]
    venv.set_state(grasped.before)
    grasped.ended[:] = False
    for _ in range(25):
        grasped.step(dropped)
    assert not grasped.ended.any() and not grasped.is_held.any() and not grasped.info["task_a_held"].any()
    grasped.hold(QUIET_STEPS + 1)  # still, but of an empty hand
    assert not grasped.ended.any() and not grasped.is_held.any()
    venv.set_state(after)
    lost = np.zeros(WORLDS, bool)
    for _ in range(25):
        if lost.all():
            break
        grasped.venv.reset(options={"state": after, "reset_mask": lost}) if lost.any() else None
        grasped.step(dropped)
        lost |= grasped.terminated
    assert lost.all()
    grasped.ended[:] = False
    venv.set_state(after)


def test_moving_fingers_hand_nothing_over():
    play = Play().grasp()
    for step in range(2 * QUIET_STEPS):
        play.step(play.last + 0.002 * (step % 2))
    assert not play.is_held.any() and play.info["task_a_held"].all()
    play.hold(QUIET_STEPS + 1)
    assert play.is_held.all()
    play.venv.close()


def test_an_object_that_is_never_taken_is_lost_in_the_end():
    play = Play(num_threads=1)
    limit = make_retention("GraspBall").MAX_STEPS + LEEWAY
    still = hand.normalize(np.array([0.0, 0.0, 0.5, 0.0, 0.0, 0.0, *hand.OPEN_FINGERS]))[None].repeat(WORLDS, axis=0)
    for step in range(1, limit + 1):
        assert not play.ended.any(), step
        play.step(still.astype(np.float32))
    assert play.terminated.all()
    assert [OUTCOMES[outcome] for outcome in play.info["outcome"]] == ["init"] * WORLDS
    play.venv.close()


def test_a_short_limit_also_cuts_the_grasping_short():
    play = Play(max_episode_steps=3, num_threads=1)
    for step in range(3):
        assert not play.ended.any(), step
        play.step(play.expert.act(play.obs))
    assert play.truncated.all() and not play.terminated.any()
    play.venv.close()


def test_a_single_environment_hands_over_too():
    env = gym.make(env_id(PAIR), start="scratch", base_shake=0.0, max_episode_steps=500)
    obs, info = env.reset(seed=SEED)
    expert = make_expert("GraspBall")
    expert.reset({key: value[None] for key, value in obs.items()}, {}, [0], [SEED])
    reference = env.unwrapped.layout["context"]["reference"]
    for step in range(240):
        if step < 135:
            action = expert.act({key: value[None] for key, value in obs.items()})[0]
        obs, _, terminated, truncated, info = env.step(action)
        assert not terminated and not truncated
        if obs["context"][reference].any():
            break
    assert obs["context"][reference].any() and info["task_a_held"]
    env.close()
