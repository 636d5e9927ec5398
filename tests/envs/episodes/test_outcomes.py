"""How episodes end: thresholds from both sides, every outcome, a press with the held object instead of a finger."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from dexcompose_envs import OUTCOMES, env_id, hand
from dexcompose_envs.env import DexComposeEnv
from dexcompose_envs.episodes import phases
from dexcompose_envs.observations import Snapshot
from dexcompose_envs.skills import make_interaction, make_retention
from dexcompose_envs.skills.base import InteractionSkill
from dexcompose_envs.skills.terms import rotation_angle

PAIR = env_id("GraspBall-PushButton")
TRAVEL = 0.0101
"""Just beyond the button's target travel of 10 mm."""
PRESSED = {"b_joint_travel": lambda shown: np.array([[TRAVEL]]), "b_contact": lambda shown: np.ones((1, 45))}
"""The button pressed by a finger."""


def snapshot(**sensors):
    """A snapshot of one world that holds only what a task's judgement reads."""
    arrays = {name: np.array([value], np.float64) for name, value in sensors.items()}
    empty = np.zeros((1, 0))
    return Snapshot(arrays, empty, empty, np.zeros((1, 3)), empty, empty, empty, empty, "b", empty, empty)


@pytest.mark.parametrize(("travel", "done"), [(0.0, False), (0.0099, False), (0.0101, True)])
def test_push_button_is_done_at_ten_millimetres(travel, done):
    task = make_interaction("PushButton")
    assert task.done(snapshot(b_joint_travel=[travel])).tolist() == [done]
    assert task.progress(snapshot(b_joint_travel=[travel]))[0] == pytest.approx(min(travel / 0.010, 1.0))


@pytest.mark.parametrize(
    ("height", "offset", "achieved"),
    [
        (0.18, 0.05, True), (0.131, 0.05, True), (0.129, 0.05, False), (0.229, 0.05, True), (0.231, 0.05, False),
        (0.18, 0.099, True), (0.18, 0.101, False),
    ],
)  # fmt: skip
def test_grasp_ball_is_achieved_near_its_target_height_and_the_palm(height, offset, achieved):
    task = make_retention("GraspBall")
    shown = snapshot(object_world_position=[0, 0, height], object_position=[0, -offset, 0])
    assert task.achieved(shown).tolist() == [achieved]


@pytest.mark.parametrize(
    ("height", "offset", "tilt", "achieved"),
    [
        (0.121, 0.05, 0, True), (0.119, 0.05, 0, False), (0.15, 0.099, 0, True), (0.15, 0.101, 0, False),
        (0.15, 0.05, 29, True), (0.15, 0.05, 31, False), (0.15, 0.05, -29, True), (0.15, 0.05, -31, False),
    ],
)  # fmt: skip
def test_pick_stick_is_achieved_high_near_and_level(height, offset, tilt, achieved):
    task = make_retention("PickStick")
    angle = np.deg2rad(90 - tilt) / 2  # turning the rod's own z axis from upright to level takes 90 degrees about x
    shown = snapshot(
        object_world_position=[0, 0, height],
        object_position=[0, -offset, 0],
        object_world_quaternion=[np.cos(angle), np.sin(angle), 0, 0],
    )
    assert task.achieved(shown).tolist() == [achieved]


@pytest.mark.parametrize(
    ("tip", "distance"),
    [((0.33, 0.04, 0.5), 0.05), ((0.36, 0.0, 0.0), 0.0), ((0.31, 0.0, 0.1), 0.05), ((0.36, 0.1, 0.1), 0.06)],
)
def test_push_button_is_approached_sideways(tip, distance):
    # The index fingertip is the first of five; 3 cm and 4 cm off are 5 cm, however high, and 10 cm count as 6.
    tips = [*tip, *[9.0] * 12]
    shown = snapshot(tip_position=tips, b_site_cap_top=[0.36, 0.0, 0.1])
    assert make_interaction("PushButton").approach(shown).tolist() == pytest.approx([distance])


def test_a_skill_need_not_say_how_it_is_approached():
    assert InteractionSkill.approach(make_interaction("PushButton"), snapshot()).tolist() == [0.0]


@pytest.mark.parametrize("angle", [0.0, 1e-3, 0.3, 2.0, np.pi])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_rotation_angle_by_hand(angle, sign):
    # About y from an attitude of 120 degrees about (1, 1, 1); q and -q are the same rotation.
    first = np.full((1, 4), 0.5, np.float32)
    c, s = np.cos(angle / 2), np.sin(angle / 2)
    second = np.array([[c - s, c - s, c + s, c + s]]) * 0.5  # (0.5, 0.5, 0.5, 0.5) times (c, 0, s, 0)
    turned = rotation_angle(first, (sign * second).astype(np.float32))
    assert turned.tolist() == pytest.approx([angle], abs=2e-6 if angle < 1 else 2e-3)


@pytest.fixture
def held(held_library):
    """`held(name, **kwargs)`: a single environment that starts with the ball in the hand, ready for its first step."""
    made = []

    def make(interactions=("PushButton",), **kwargs):
        env = DexComposeEnv(
            retention="GraspBall", interactions=interactions, start="held", held_states=held_library("GraspBall"),
            **kwargs,
        )  # fmt: skip
        made.append(env)
        obs, _ = env.reset(seed=0)
        return env, obs["context"][env.layout["context"]["previous_action"]]

    yield make
    for env in made:
        env.close()


def pretend(env, monkeypatch, **sensors):
    """From now on the environment sees these sensor values, whatever physics says."""
    original = type(env.core).snapshot

    def changed(core):
        shown = original(core)
        return replace(shown, sensors={**shown.sensors, **{k: v(shown) for k, v in sensors.items()}})

    monkeypatch.setattr(type(env.core), "snapshot", changed)


def after(env, action, steps):
    """The last step's (terminated, truncated, info)."""
    terminated = truncated = False
    info = {}
    for _ in range(steps):
        *_, terminated, truncated, info = env.step(action)
    return terminated, truncated, info


@pytest.mark.parametrize(("distance", "lost"), [(0.0499, False), (0.0501, True)])
@pytest.mark.parametrize(
    ("steps", "outcome"), [(0, "init"), (9, "init"), (10, "transition"), (49, "transition"), (50, "drop")]
)
def test_lost_beyond_five_centimetres_and_named_by_the_phase(held, monkeypatch, distance, lost, steps, outcome):
    env, stay = held()
    after(env, stay, steps)
    away = np.array([[0.0, 0.0, distance]])
    pretend(env, monkeypatch, object_position=lambda shown: shown.hold_target + away)
    terminated, truncated, info = after(env, stay, 1)
    assert terminated is lost
    assert not truncated
    assert info["task_a_held"] is (not lost)
    assert OUTCOMES[info["outcome"]] == (outcome if lost else "ongoing")
    assert info["reward_terms/retention"] == pytest.approx(-distance)
    assert info["reward_terms/lost"] == (-2.0 if lost else 0.0)


@pytest.mark.parametrize(("height", "lost"), [(0.0301, False), (0.0299, True)])
def test_lost_below_three_centimetres(held, monkeypatch, height, lost):
    env, stay = held()
    pretend(env, monkeypatch, object_world_position=lambda shown: np.array([[0.0, 0.0, height]]))
    terminated, _, info = after(env, stay, 1)
    assert terminated is lost
    assert info["task_a_held"] is (not lost)


def test_what_trainers_are_told_is_counted_from_the_start_and_survives_a_copy(held, monkeypatch):
    env, stay = held()
    first = env.sensors()["object_quaternion"]
    info = after(env, stay, 3)[2]
    assert info["object_turn"] == pytest.approx(rotation_angle(first, env.sensors()["object_quaternion"])[0])
    assert info["approach"] == 0.06
    state = env.get_state()
    other, _ = held()
    _, restored = other.reset(seed=9, options={"state": state})
    assert restored["object_turn"] == info["object_turn"] > 0.0
    turned = np.array([[first[0, 3], -first[0, 2], first[0, 1], -first[0, 0]]])  # half a turn about z
    pretend(other, monkeypatch, object_quaternion=lambda shown: turned)
    assert after(other, stay, 1)[2]["object_turn"] == pytest.approx(np.pi, abs=1e-6)
    assert other.reset(seed=9)[1]["object_turn"] == 0.0


@pytest.mark.parametrize(("wait", "outcome"), [(0, "init"), (11, "transition"), (51, "drop")])
def test_opening_the_hand_loses_the_object(held, wait, outcome):
    env, stay = held()
    assert not after(env, stay, wait)[0]
    opened = stay.copy()
    opened[6:] = hand.normalize(np.concatenate([np.zeros(6), hand.OPEN_FINGERS]))[6:]
    for _ in range(30):
        terminated, _, info = after(env, opened, 1)
        if terminated:
            break
    assert terminated
    assert OUTCOMES[info["outcome"]] == outcome
    assert not info["success"]


def test_success_comes_ten_held_steps_after_b(held, monkeypatch):
    env, stay = held()
    after(env, stay, 3)
    pretend(env, monkeypatch, **PRESSED)
    for step in range(phases.SETTLE_STEPS + 1):
        terminated, truncated, info = after(env, stay, 1)
        is_last = step == phases.SETTLE_STEPS
        assert terminated is info["success"] is info["is_success"] is is_last
        assert info["task_b_done"]
        assert info["reward_terms/progress"] == (1.0 if step == 0 else 0.0)
    assert OUTCOMES[info["outcome"]] == "success"
    assert info["reward_terms/success"] == 1.0
    assert not truncated


def test_what_no_finger_has_touched_is_not_done(held, monkeypatch):
    env, stay = held()
    with monkeypatch.context() as by_something_else:
        pretend(env, by_something_else, b_joint_travel=PRESSED["b_joint_travel"])
        _, _, info = after(env, stay, 5)
        assert not info["task_b_done"]
    with monkeypatch.context() as touched_once:
        pretend(env, touched_once, b_contact=PRESSED["b_contact"])
        after(env, stay, 1)
    pretend(env, monkeypatch, b_joint_travel=PRESSED["b_joint_travel"])
    _, _, info = after(env, stay, 1)
    assert info["task_b_done"]
    env.reset(seed=1)
    _, _, info = after(env, stay, 5)
    assert not info["task_b_done"]


def test_b_stays_done_when_the_button_springs_back(held, monkeypatch):
    env, stay = held()
    with monkeypatch.context() as pressed:
        pretend(env, pressed, **PRESSED)
        after(env, stay, 1)
    terminated, _, info = after(env, stay, phases.SETTLE_STEPS)
    assert terminated
    assert OUTCOMES[info["outcome"]] == "success"


def test_a_lost_after_b_is_no_success(held, monkeypatch):
    env, stay = held()
    pretend(env, monkeypatch, **PRESSED)
    after(env, stay, phases.SETTLE_STEPS)
    away = np.array([[0.0, 0.0, 0.06]])
    pretend(env, monkeypatch, object_position=lambda shown: shown.hold_target + away)
    terminated, _, info = after(env, stay, 1)
    assert terminated
    assert not info["success"]
    assert OUTCOMES[info["outcome"]] == "transition"


def test_success_need_not_end_the_episode(held, monkeypatch):
    env, stay = held(terminate_on_success=False)
    pretend(env, monkeypatch, **PRESSED)
    terminated, truncated, info = after(env, stay, phases.SETTLE_STEPS + 3)
    assert info["success"]
    assert OUTCOMES[info["outcome"]] == "success"
    assert not terminated
    assert not truncated


def test_time_over_with_the_object_held_is_b_fail(held):
    env, stay = held()
    terminated, truncated, info = after(env, stay, phases.INTERACTION_STEPS - 1)
    assert OUTCOMES[info["outcome"]] == "ongoing"
    terminated, truncated, info = after(env, stay, 1)
    assert OUTCOMES[info["outcome"]] == "b_fail"
    assert info["task_a_held"]
    assert not terminated and not truncated
    _, truncated, info = after(env, stay, phases.SETTLE_STEPS)
    assert truncated
    assert OUTCOMES[info["outcome"]] == "b_fail"


@pytest.mark.parametrize(("done_at", "outcome"), [(191, "success"), (200, "success"), (201, "b_fail")])
def test_what_is_done_in_time_may_settle_beyond_it(held, monkeypatch, done_at, outcome):
    env, stay = held()
    after(env, stay, done_at - 1)
    pretend(env, monkeypatch, **PRESSED)
    terminated = truncated = False
    while not (terminated or truncated):
        terminated, truncated, info = after(env, stay, 1)
    assert OUTCOMES[info["outcome"]] == outcome
    assert info["elapsed_steps"] == (done_at + phases.SETTLE_STEPS if outcome == "success" else 210)


@pytest.mark.parametrize("limit", [30, 205, 230])
def test_the_outcome_does_not_depend_on_how_an_id_is_vectorised(held_library, limit):
    options = {"held_states": held_library("GraspBall"), "max_episode_steps": limit}
    modes = {
        "sync": {"vector_kwargs": {"autoreset_mode": "Disabled"}},
        "vector_entry_point": {"autoreset_mode": "Disabled"},
    }
    env = gym.make(PAIR)
    columns = env.unwrapped.layout["context"]["previous_action"]
    env.close()
    ends = []
    for mode, own in modes.items():
        venv = gym.make_vec(PAIR, num_envs=2, vectorization_mode=mode, **options, **own)
        obs, _ = venv.reset(seed=0)
        stay, steps, truncated = obs["context"][:, columns], 0, np.zeros(2, bool)
        while not truncated.any():
            *_, truncated, info = venv.step(stay)
            steps += 1
        ends.append((steps, truncated.tolist(), info["outcome"].tolist()))
        venv.close()
    assert ends[0] == ends[1] == (limit, [True] * 2, [OUTCOMES.index("ongoing" if limit < 200 else "b_fail")] * 2)


def test_phases_follow_the_timeline(held):
    env, stay = held()
    seen = []
    for _ in range(52):
        obs, *_ = env.step(stay)
        seen.append(int(obs["context"][env.layout["context"]["phase"]].argmax()))
    assert seen == [0] * 9 + [1] * 40 + [2] * 3


def test_a_retention_skill_from_a_held_start_ends_only_when_lost(held, monkeypatch):
    env, stay = held(interactions=())
    terminated, _, info = after(env, stay, 15)
    assert not terminated
    assert info["task_a_held"]
    assert not info["success"]
    away = np.array([[0.0501, 0.0, 0.0]])
    pretend(env, monkeypatch, object_position=lambda shown: shown.hold_target + away)
    terminated, _, info = after(env, stay, 1)
    assert terminated
    assert not info["task_a_held"]


def test_pressing_the_button_with_the_held_ball_does_not_count(held_library):
    """All physics: the wrist carries ball and hand over the button and pushes the ball down on it."""
    options = {"held_states": held_library("GraspBall"), "physics": "nominal", "autoreset_mode": "Disabled"}
    venv = gym.make_vec(PAIR, num_envs=4, **options)
    obs, _ = venv.reset(seed=0, options={"held_index": np.arange(4)})
    layout = venv.unwrapped.layout
    stay = hand.denormalize(obs["context"][:, layout["context"]["previous_action"]])
    ball = obs["task_a"][:, layout["task_a"]["palm_to_ball"]] / 5
    button = obs["task_b"][:, layout["task_b"]["palm_to_button"]] / 5
    way = button - ball  # of the ball's centre to the button's top
    pressed, done = np.zeros(4, bool), np.zeros(4, bool)
    for step in range(120):
        level = np.clip((step - 5) / 45, 0, 1)
        down = np.clip((step - 55) / 40, 0, 1)
        target = stay.copy()
        target[:, :2] += level * way[:, :2]
        target[:, 2] += down * (way[:, 2] + 0.032 - 0.022)
        obs, _, terminated, _, info = venv.step(hand.normalize(target))
        pressed |= (obs["task_b"][:, layout["task_b"]["travel"]][:, 0] >= 1.0) & info["task_a_held"]
        done |= info["task_b_done"]
        if terminated.any():
            break
    assert pressed.any()
    assert not done.any()
    venv.close()
