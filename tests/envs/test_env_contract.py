"""Gymnasium's contract of the single environments."""

import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

from dexcompose_envs import INTERACTION_SKILLS, OUTCOMES, PAIRS, RETENTION_SKILLS, SKILLS, env_id
from dexcompose_envs.hand import NUM_ACTIONS
from dexcompose_envs.skills import make_skill

COMPOSITES = tuple("-".join(pair) for pair in PAIRS)
NAMES = SKILLS + COMPOSITES
INFO = {
    "success", "is_success", "task_a_held", "task_b_done", "outcome", "elapsed_steps", "unstable",
    "reward_terms/retention", "reward_terms/progress", "reward_terms/success", "reward_terms/lost",
    "object_turn", "approach",
}  # fmt: skip


def make(name, **kwargs):
    """A registered environment that needs no held-state library."""
    return gym.make(env_id(name), **{"start": "scratch", **kwargs})


def near(env, obs, rng, size=0.05):
    """A random action near the last one."""
    previous = obs["context"][env.unwrapped.layout["context"]["previous_action"]]
    return np.clip(previous + size * rng.normal(size=NUM_ACTIONS), -1, 1).astype(np.float32)


def test_the_grid_is_the_product_of_the_skills():
    assert tuple((a, b) for a in RETENTION_SKILLS for b in INTERACTION_SKILLS) == PAIRS
    ids = {spec for spec in gym.registry if spec.startswith("DexCompose/")}
    assert ids == {env_id(name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_check_env_has_nothing_to_say(name):
    env = make(name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env.unwrapped, skip_render_check=True)
    messages = [str(warning.message) for warning in caught]
    # Observations have units and no meaningful bounds.
    assert [text for text in messages if "infinity" not in text] == []
    env.close()


@pytest.mark.parametrize("name", NAMES)
def test_two_instances_with_one_seed_agree_bit_by_bit(name):
    first, second = make(name), make(name)
    rng = np.random.default_rng(0)
    (obs, info), (obs_2, info_2) = first.reset(seed=7), second.reset(seed=7)
    for _ in range(6):
        assert info == info_2
        for key in obs:
            np.testing.assert_array_equal(obs[key], obs_2[key])
        action = near(first, obs, rng)
        (obs, *rest, info), (obs_2, *rest_2, info_2) = first.step(action), second.step(action)
        assert rest == rest_2
    first.close()
    second.close()


@pytest.mark.parametrize("name", NAMES)
def test_spaces_infos_and_types(name):
    env = make(name)
    obs, info = env.reset(seed=0)
    assert env.action_space == gym.spaces.Box(-1.0, 1.0, (28,), np.float32)
    assert set(obs) == {"context"} | {make_skill(skill).observation_key for skill in name.split("-")}
    for step in range(3):
        assert set(info) == INFO
        assert info["success"] is info["is_success"] is False
        assert OUTCOMES[info["outcome"]] == "ongoing"
        assert info["elapsed_steps"] == step
        assert env.observation_space.contains(obs)
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample() * 0)
        assert isinstance(reward, float)
        assert type(terminated) is type(truncated) is bool
        assert reward == pytest.approx(sum(v for k, v in info.items() if k.startswith("reward_terms/")))
    env.close()


@pytest.mark.parametrize("name", NAMES)
def test_specs_survive_json_and_pickle(name):
    spec = gym.spec(env_id(name))
    again = EnvSpec.from_json(spec.to_json())
    assert again == spec
    assert pickle.loads(pickle.dumps(spec)) == spec
    env = gym.make(again, start="scratch")
    assert EnvSpec.from_json(env.spec.to_json()) == env.spec
    env.close()


@pytest.mark.parametrize("name", ["PushButton", "GraspBall-PushButton"])
def test_max_episode_steps_is_enforced(name):
    env = make(name, max_episode_steps=4)
    env.reset(seed=0)
    ends = [env.step(np.zeros(28, np.float32))[2:] for _ in range(4)]
    assert [(terminated, truncated) for terminated, truncated, _ in ends] == [(False, False)] * 3 + [(False, True)]
    env.close()


def test_a_longer_limit_than_the_registered_one_is_honoured():
    limit = gym.spec(env_id("PushButton")).max_episode_steps
    env = make("PushButton", max_episode_steps=limit + 5)
    obs, _ = env.reset(seed=0)
    stay = obs["context"][env.unwrapped.layout["context"]["previous_action"]]
    ends = [env.step(stay)[2:4] for _ in range(limit + 5)]
    env.close()
    assert ends == [(False, False)] * (limit + 4) + [(False, True)]


def test_time_over_counts_as_b_fail_under_the_registered_limit():
    env = make("PushButton")
    obs, _ = env.reset(seed=0)
    stay = obs["context"][env.unwrapped.layout["context"]["previous_action"]]
    truncated, steps = False, 0
    while not truncated:
        *_, truncated, info = env.step(stay)
        steps += 1
    assert steps == env.spec.max_episode_steps
    assert OUTCOMES[info["outcome"]] == "b_fail"
    env.close()


def test_an_environment_survives_pickling(held_library):
    env = gym.make(env_id("GraspBall-PushButton"), held_states=held_library("GraspBall"), base_shake=0.5).unwrapped
    again = pickle.loads(pickle.dumps(env))
    rng = np.random.default_rng(0)
    obs, info = env.reset(seed=3)
    obs_2, info_2 = again.reset(seed=3)
    for _ in range(3):
        assert info == info_2
        for key in obs:
            np.testing.assert_array_equal(obs[key], obs_2[key])
        action = near(env, obs, rng)
        (obs, *_, info), (obs_2, *_, info_2) = env.step(action), again.step(action)
    env.close()
    again.close()


def test_flatten_observation_works_on_it():
    env = gym.wrappers.FlattenObservation(make("GraspBall"))
    obs, _ = env.reset(seed=0)
    assert obs.shape == (131 + 34,)
    env.close()


def test_reset_to_a_state_continues_bit_by_bit():
    env = make("GraspBall-PushButton")
    rng = np.random.default_rng(1)
    obs, _ = env.reset(seed=3)
    for _ in range(3):
        obs, *_ = env.step(near(env, obs, rng))
    state = env.unwrapped.get_state()
    actions = [near(env, obs, rng) for _ in range(3)]
    expected = [env.step(action)[0]["context"] for action in actions]
    env.reset(seed=99)
    again, info = env.reset(options={"state": state})
    assert info["elapsed_steps"] == 3
    np.testing.assert_array_equal(again["context"], obs["context"])
    for action, context in zip(actions, expected, strict=True):
        np.testing.assert_array_equal(env.step(action)[0]["context"], context)
    env.close()


def test_held_and_scratch_starts(held_library):
    library = held_library("GraspBall")
    env = gym.make(env_id("GraspBall-PushButton"), held_states=library)
    obs, info = env.reset(seed=0, options={"held_index": 5})
    assert info["task_a_held"]
    layout = env.unwrapped.layout["context"]
    np.testing.assert_allclose(obs["context"][layout["object_position"]] / 10, library.hold_target[5], atol=1e-6)
    np.testing.assert_allclose(obs["context"][layout["palm_offset"]], 0, atol=1e-5)
    assert np.abs(obs["context"][layout["reference"]]).max() > 0
    obs, info = env.reset(seed=0, options={"start": "scratch"})
    assert not info["task_a_held"]
    assert not obs["context"][layout["reference"]].any()
    env.close()


@pytest.mark.parametrize("split", ["train", "test"])
def test_held_splits_draw_from_their_part(held_library, split):
    library = held_library("GraspBall")
    env = gym.make(env_id("GraspBall"), start="held", held_split=split, held_states=library)
    layout = env.unwrapped.layout["context"]["object_position"]
    drawn = set()
    for seed in range(12):
        obs, _ = env.reset(seed=seed)
        distance = np.linalg.norm(library.hold_target - obs["context"][layout] / 10, axis=1)
        drawn.add(int(distance.argmin()))
    assert drawn <= set(library.indices(split).tolist())
    assert len(drawn) > 1
    env.close()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"start": "midair"}, "unknown start 'midair'; expected one of held, scratch"),
        ({"held_split": "validation"}, "unknown held_split 'validation'; expected one of all, train, test"),
        ({"backend": "bullet"}, "backend is 'bullet'; a single environment expected 'mujoco'"),
        ({"retention": "GrabBall"}, "unknown retention skill 'GrabBall'; expected one of GraspBall, PickCan"),
        ({"interactions": ["PullLever"]}, "unknown interaction skill 'PullLever'; expected one of OpenDoor"),
        ({"retention": None, "interactions": []}, "without a retention skill"),
        ({"retention": None, "start": "held"}, "start='held' needs a retention skill"),
        ({"render_mode": "ascii"}, "unknown render_mode 'ascii'"),
    ],
)
def test_wrong_arguments_are_refused(kwargs, message):
    from dexcompose_envs.env import DexComposeEnv

    arguments = {"retention": "GraspBall", "interactions": ["PushButton"], "start": "scratch", **kwargs}
    with pytest.raises(ValueError, match=r"expected|got neither|needs") as error:
        DexComposeEnv(**arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_actions_and_options_are_refused():
    env = make("PushButton").unwrapped
    env.reset(seed=0)
    bad = np.zeros(28, np.float32)
    bad[6] = np.nan
    for action, message in [
        (np.zeros(27), r"action has shape \(27,\); expected \(28,\)"),
        (bad, "action FFJ3 of world 0 is nan; expected a finite number"),
        (np.full(28, np.inf), "action WX of world 0 is inf"),
    ]:
        with pytest.raises(ValueError, match=message):
            env.step(action)
    for options, message in [
        ({"pose": 1}, "unknown reset option 'pose'; expected one of start, held_index, state, reset_mask"),
        ({"start": "held"}, "start='held' needs a retention skill"),
        ({"start": "there"}, "unknown start 'there'"),
        ({"state": np.zeros(3)}, "state has shape"),
        ({"state": np.full_like(env.get_state(), np.nan)}, "not finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            env.reset(options=options)
    env.close()


def test_a_missing_library_and_a_wrong_held_index_are_refused(held_library, tmp_path):
    env = gym.make(env_id("GraspBall-PushButton"), held_states=tmp_path / "none.npz")
    with pytest.raises(ValueError, match="no held states for"):
        env.reset(seed=0)
    env.close()
    env = gym.make(env_id("GraspBall-PushButton"), held_states=held_library("GraspBall"))
    with pytest.raises(ValueError, match=r"held-state index 8\.\.8 is outside 0\.\.7"):
        env.reset(seed=0, options={"held_index": 8})
    env.close()


def test_actions_beyond_the_box_are_clipped():
    first, second = make("PushButton"), make("PushButton")
    first.reset(seed=0)
    second.reset(seed=0)
    action = np.zeros(28, np.float32)
    action[7] = 1.0
    np.testing.assert_array_equal(
        first.unwrapped.step(action)[0]["context"], second.unwrapped.step(action * 5)[0]["context"]
    )
    first.close()
    second.close()


@pytest.mark.rendering
def test_pictures_are_fresh_and_show_the_scene():
    env = make("GraspBall-PushButton", render_mode="rgb_array", width=96, height=64)
    env.reset(seed=0)
    first = env.render()
    assert first.shape == (64, 96, 3)
    assert first.dtype == np.uint8
    assert first.std() > 5
    copy = first.copy()
    for _ in range(3):
        env.step(np.ones(28, np.float32))
    second = env.render()
    np.testing.assert_array_equal(first, copy)
    assert (first != second).any()
    env.close()
    env = make("PushButton")
    env.reset(seed=0)
    assert env.unwrapped.render() is None
    env.close()
