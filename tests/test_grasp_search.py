"""The search for grasps: contacts on objects, inverse kinematics, cross-entropy, and what a trial finds."""

import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest

from dexcompose_envs import hand
from dexcompose_envs.errors import UsageError
from dexcompose_envs.scene import build_scene
from dexcompose_envs.skills import make_retention
from dexcompose_envs.skills.grasping import Grasp

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import grasp_search
from grasp_search import ASIDE, DIRECTION, FingerReach, GraspSearch, Surface, as_python

del sys.path[0]


@pytest.fixture(scope="module")
def search():
    """Six worlds with the ball."""
    made = GraspSearch("GraspBall", population=6, trials=1, start=Grasp.rough(), num_threads=1)
    yield made
    made.close()


def test_contacts_on_a_ball_are_at_its_radius_and_normals_point_out():
    ball = make_retention("GraspBall")
    points, normals = Surface(build_scene("GraspBall").model, ball.nominal_pose).touch(np.zeros(3), DIRECTION, ASIDE)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), ball.RADIUS, atol=1e-9)
    np.testing.assert_allclose(normals, points / ball.RADIUS, atol=1e-6)
    np.testing.assert_allclose(points[[1, 2], 0], ASIDE[1:3], atol=1e-9)
    np.testing.assert_allclose(points[0, 0], grasp_search.ASIDE_SHARE * ball.RADIUS, atol=1e-9)  # as far as it goes


@pytest.mark.parametrize("yaw", [0.0, 0.4])
def test_contacts_on_a_rod_lie_on_its_mantle_however_the_wrist_is_turned(yaw):
    rod = make_retention("PickStick")
    euler = np.array([yaw, 0.0, 0.0])
    points, normals = Surface(build_scene("PickStick").model, rod.nominal_pose).touch(euler, DIRECTION, ASIDE)
    axis = hand.palm_rotation(euler).T @ [0.0, 1.0, 0.0]  # the rod lies along world Y
    across = points - (points @ axis)[:, None] * axis
    np.testing.assert_allclose(np.linalg.norm(across, axis=1), rod.RADIUS, atol=3e-4)  # a band lies on it
    np.testing.assert_allclose(normals @ axis, 0.0, atol=1e-6)
    np.testing.assert_allclose(points[:, 0], ASIDE, atol=1e-9)


def test_contacts_on_a_hollow_mug_taken_from_the_side_are_on_its_wall():
    mug = make_retention("PourMug")
    euler = np.array([0.0, 0.0, np.pi / 2])
    points, normals = Surface(build_scene("PourMug").model, mug.nominal_pose).touch(euler, DIRECTION, ASIDE)
    np.testing.assert_allclose(np.abs(points[:, 0]), np.abs(ASIDE), atol=1e-9)  # the palm's x axis is vertical
    across = np.linalg.norm(points[:, 1:], axis=1)
    assert (across > 0.99 * mug.RADIUS).all() and (across < mug.RADIUS / np.cos(np.pi / mug.SIDES) + 1e-6).all()
    np.testing.assert_allclose(normals[:, 0], 0.0, atol=1e-6)


def test_fingers_reach_where_they_have_been():
    model = hand.make_spec().compile()
    data, fingers, rng = mujoco.MjData(model), FingerReach(), np.random.default_rng(0)
    low, high = hand.ACTION_LOW[6:], hand.ACTION_HIGH[6:]
    for _ in range(5):
        posture = low + rng.uniform(0.2, 0.8, 22) * (high - low)
        data.qpos[6:] = posture
        mujoco.mj_kinematics(model, data)
        tips = [data.geom(f"C_{finger.lower()}distal") for finger in hand.FINGERS]
        size = [model.geom(f"C_{finger.lower()}distal").size[1] for finger in hand.FINGERS]
        points = np.array(
            [tip.xpos + tip.xmat.reshape(3, 3)[:, 2] * (half - 0.004) for tip, half in zip(tips, size, strict=True)]
        )
        joints, far = fingers.reach(points @ hand.PALM_AT_ZERO, grasp_search.HALF_CLOSED, 60, 0.0)
        assert far < 5e-3  # m, all five together
        assert ((joints >= low) & (joints <= high)).all()


def test_a_trial_tells_a_grasp_from_an_open_hand(search):
    grasp = make_retention("GraspBall").expert().grasp
    held, missed = search.try_out([grasp, Grasp.rough()], [0.0, 0.3])
    assert held["lifted"] == held["success"] == held["carried"] == held["kept"] == 1.0
    assert held["palm"] == 0.0
    assert held["still"] > 0.5 < held["creep"]
    assert missed["lifted"] < 0.1
    assert missed["success"] == missed["carried"] == missed["kept"] == missed["touching"] == 0.0
    assert missed["unreached"] == 0.3


def test_the_search_improves_and_is_the_same_for_a_seed(search, monkeypatch):
    best = np.array([0.012, -0.083, 0.081])  # what a make-believe trial likes

    def try_out(grasps, unreached):
        score = [float(np.exp(-np.linalg.norm(grasp.palm_point - best) / 0.005)) for grasp in grasps]
        return [dict.fromkeys(grasp_search.WEIGHTS, 0.0) | {"lifted": each} for each in score]

    monkeypatch.setattr(search, "try_out", try_out)
    monkeypatch.setattr(grasp_search, "SCREENED", 8)
    found, lines = [], []
    for seed in (3, 3):
        search._rng = np.random.default_rng(seed)
        found.append(search.run(5, lines.append))
    (first,) = search.evaluate([np.zeros(21)])
    assert found[0].score > 1.3 * first.score
    np.testing.assert_array_equal(found[0].numbers, found[1].numbers)
    assert len(lines) == 10
    assert lines[0].startswith("generation 1: score ")


def test_the_command_prints_a_grasp(capsys, monkeypatch):
    monkeypatch.setattr(
        grasp_search, "SPARE_STEPS", make_retention("GraspBall").MAX_STEPS - 21
    )  # nothing is lifted, but everything is run
    monkeypatch.setattr(grasp_search, "SCREENED", 6)
    words = ["GraspBall", "--generations", "1", "--population", "6", "--trials", "1", "--threads", "1"]
    found = grasp_search.main(words)
    printed = capsys.readouterr().out
    names = {"np": np, "Grasp": Grasp}
    exec(printed[printed.index("GRASP = ") :], names)
    for name in ("palm_point", "euler", "approach", "preshape", "close"):
        np.testing.assert_allclose(getattr(names["GRASP"], name), getattr(found.grasp, name), atol=6e-5)
    assert as_python(names["GRASP"]) == as_python(found.grasp)


def test_what_is_no_retention_skill_is_refused():
    with pytest.raises(UsageError, match="unknown retention skill 'PushButton'"):
        GraspSearch("PushButton")
    with pytest.raises(UsageError, match="population is 5; expected a whole number of at least 6"):
        GraspSearch("GraspBall", population=5)
