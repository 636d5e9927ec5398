"""A composite is a chain: one object, and any number of interactions in turn."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from dexcompose_envs import hand, register_chain
from dexcompose_envs.episodes import phases
from dexcompose_envs.skills.chain import Chain

NAME = "GraspBall-PushButton-PushButton"
ID = f"DexCompose/{NAME}-v0"


@pytest.fixture(scope="module", autouse=True)
def registered():
    if ID not in gym.registry:
        assert register_chain(NAME) == ID
    yield
    gym.registry.pop(ID)


def test_two_buttons_stand_side_by_side_and_are_seen_alike():
    venv = gym.make_vec(ID, num_envs=16)
    obs, _ = venv.reset(seed=0)
    env = venv.unwrapped
    assert env.interactions == ("PushButton", "PushButton")
    assert env.task_keys == ("task_b", "task_c")
    assert obs["task_b"].shape == obs["task_c"].shape
    assert obs["context"].shape[1] == env.layout["context"]["stage"].stop
    sensors = env.core.snapshot().sensors
    apart = sensors["c_site_cap_top"] - sensors["b_site_cap_top"]
    assert (apart[:, 1] > 0.1).all()
    # Each is seen as if it stood where it stands alone: the wrist's place is shifted by as much.
    shift = hand.denormalize(obs["task_b"][:, :28]) - hand.denormalize(obs["task_c"][:, :28])
    np.testing.assert_allclose(shift, np.tile(Chain.of("GraspBall", ["PushButton"] * 2).offsets[1], (16, 1)), atol=1e-6)
    np.testing.assert_allclose(env.interaction_starts[1] - env.interaction_starts[0], env.interaction_offsets[1])
    assert not env.interaction_offsets[0].any()
    venv.close()


def test_interactions_are_done_in_turn(monkeypatch):
    venv = gym.make_vec(ID, num_envs=1, base_shake=0.0, autoreset_mode="Disabled")
    obs, _ = venv.reset(seed=0)
    columns = venv.unwrapped.layout["context"]
    stay = obs["context"][:, columns["previous_action"]]
    original, pressed = type(venv.unwrapped.core).snapshot, set()

    def pretend(core):
        shown = original(core)
        changed = {f"{place}_joint_travel": np.full((1, 1), 0.011) for place in pressed}
        changed |= {f"{place}_contact": np.ones((1, 45)) for place in pressed}
        return replace(shown, sensors={**shown.sensors, **changed})

    monkeypatch.setattr(type(venv.unwrapped.core), "snapshot", pretend)

    def steps(count):
        for _ in range(count):
            obs, _, terminated, _, info = venv.step(stay)
        context = obs["context"][0]
        return info, float(context[columns["stage"]][0]), int(context[columns["phase"]].argmax()), bool(terminated[0])

    pressed.add("c")  # the second first does not count
    info, stage, phase, _ = steps(60)
    assert (stage, phase, info["task_b_done"][0], info["task_c_done"][0]) == (0, 2, False, False)
    pressed.clear()
    pressed.add("b")
    info, stage, phase, _ = steps(1)
    assert (stage, phase, info["task_b_done"][0]) == (0, 2, True)
    info, stage, phase, over = steps(phases.SETTLE_STEPS)
    assert (stage, phase, over, info["success"][0]) == (1, 1, False, False)  # settling was the second's hold
    _, _, phase, _ = steps(phases.TRANSITION_STEPS)
    assert phase == 2
    pressed.add("c")
    info, *_, over = steps(1)
    assert info["task_c_done"][0] and not over
    info, *_, over = steps(phases.SETTLE_STEPS)
    assert over and info["success"][0]
    venv.close()


def test_a_chain_keeps_gymnasiums_rules():
    env = gym.make(ID)
    check_env(env.unwrapped, skip_render_check=True)
    assert env.spec.max_episode_steps == 2 * phases.INTERACTION_STEPS + phases.SETTLE_STEPS
    env.close()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("PushButton-GraspBall", "begins with 'PushButton'; expected a retention skill first"),
        ("GraspBall-PickStick", "unknown interaction skill 'PickStick'"),
        ("GraspBall-PushButton-", "unknown interaction skill ''"),
    ],
)
def test_what_makes_no_chain_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        register_chain(name)
