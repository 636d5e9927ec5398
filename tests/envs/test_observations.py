"""Layouts, and observation terms against numbers computed by hand."""

import gymnasium as gym
import numpy as np
import pytest

from dexcompose_envs import PAIRS, SKILLS, env_id, hand
from dexcompose_envs.core import BatchedCore, CoreConfig
from dexcompose_envs.observations import (
    Term,
    finger_forces,
    layout_of,
    matrix6_from_quaternion,
)

CONFIG = CoreConfig(retention="GraspBall", interactions=("PushButton",), start="scratch", num_threads=1)


def split(observation, layout):
    return {name: observation[..., columns] for name, columns in layout.items()}


NAMES = (*SKILLS, *("-".join(pair) for pair in PAIRS))


@pytest.mark.parametrize("name", NAMES)
def test_layouts_cover_the_observation_without_gaps(name):
    env = gym.make(env_id(name), start="scratch").unwrapped
    for key, terms in env.layout.items():
        stops = [columns.stop for columns in terms.values()]
        starts = [columns.start for columns in terms.values()]
        assert starts == [0, *stops[:-1]]
        assert env.observation_space[key].shape == (stops[-1],)
        if key != "context":
            assert 32 <= stops[-1] <= 39
            assert terms["joint_position"] == slice(0, 28)
    env.close()


@pytest.mark.parametrize(
    ("skill", "key", "size"), [("GraspBall", "task_a", 34), ("PickStick", "task_a", 37), ("PushButton", "task_b", 35)]
)
def test_task_observation_sizes(skill, key, size):
    env = gym.make(env_id(skill))
    assert env.observation_space[key].shape == (size,)
    env.close()


def test_single_and_vector_layouts_agree():
    env = gym.make(env_id("GraspBall-PushButton"), start="scratch").unwrapped
    venv = gym.make_vec(env_id("GraspBall-PushButton"), num_envs=2, start="scratch").unwrapped
    assert env.layout == venv.layout
    env.close()
    venv.close()


def test_joint_positions_are_the_normalised_joint_angles():
    core = BatchedCore(CONFIG, 3)
    core.seed(np.arange(3), [0, 1, 2])
    core.reset(np.arange(3))
    qpos = core.engine.qpos()
    joints = [int(core.scene.model.joint(name).qposadr[0]) for name in hand.ACTION_NAMES]
    observed = core.observe()
    for key in ("task_a", "task_b"):
        np.testing.assert_allclose(observed[key][:, :28], hand.normalize(qpos[:, joints]), atol=1e-6)
    context = split(observed["context"], core.layout["context"])
    np.testing.assert_allclose(context["previous_action"], observed["task_a"][:, :28], atol=1e-6)
    np.testing.assert_array_equal(context["phase"], [[1, 0, 0]] * 3)
    np.testing.assert_array_equal(context["reference"], 0)
    core.close()


def test_geometry_terms_agree_with_each_other():
    core = BatchedCore(CONFIG, 4)
    core.seed(np.arange(4), [0, 1, 2, 3])
    core.reset(np.arange(4))
    observed = core.observe()
    a, b = split(observed["task_a"], core.layout["task_a"]), split(observed["task_b"], core.layout["task_b"])
    context = split(observed["context"], core.layout["context"])
    joints = hand.denormalize(a["joint_position"])
    rotation = hand.palm_rotation(joints[:, 3:6])
    world = np.einsum("nij,nj->ni", rotation, a["ball_in_palm"] / 10)
    np.testing.assert_allclose(world, a["palm_to_ball"] / 5, atol=1e-5)
    palm = joints[:, :3] + rotation @ np.array(hand.PALM_CENTER)
    ball = core.engine.qpos()[:, core.scene.model.joint("OBJECT_JOINT").qposadr[0] :][:, :3]
    np.testing.assert_allclose(palm + a["palm_to_ball"] / 5, ball, atol=1e-5)
    np.testing.assert_allclose(context["object_position"], a["ball_in_palm"], atol=1e-6)
    # The button's top: 60 mm pedestal + 6 mm collar + 18 mm cap + 4 mm gap.
    np.testing.assert_allclose((palm + b["palm_to_button"] / 5)[:, 2], 0.088, atol=1e-3)
    np.testing.assert_allclose(b["travel"], 0, atol=0.05)
    core.close()


def test_first_two_columns_of_a_quarter_turn():
    half = np.sqrt(0.5)  # 90 degrees about z: x -> y, y -> -x
    np.testing.assert_allclose(
        matrix6_from_quaternion(np.array([[half, 0, 0, half]])), [[0, 1, 0, -1, 0, 0]], atol=1e-12
    )


def test_finger_forces_add_the_lengths_of_the_links_forces():
    links = np.zeros((1, 5, 3, 3))
    links[0, 0, 0] = [3, 4, 0]
    links[0, 0, 2] = [0, 0, 2]
    links[0, 4, 1] = [0, -1, 0]
    np.testing.assert_allclose(finger_forces(links.reshape(1, 45)), [[7, 0, 0, 0, 1]])


def test_terms_with_one_name_are_refused():
    term = Term("twice", 1, "", lambda s: s)
    with pytest.raises(ValueError, match="two observation terms are named 'twice'"):
        layout_of([term, term])
