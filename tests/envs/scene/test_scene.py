"""What the compiled models contain, and what they must not."""

import subprocess
import sys
import xml.etree.ElementTree as ET

import mujoco
import numpy as np
import pytest

from dexcompose_envs import INTERACTION_SKILLS, PAIRS, RETENTION_SKILLS, hand
from dexcompose_envs.scene import build_scene
from dexcompose_envs.timing import CONTROL_STEP

SCENES = [(a, None) for a in RETENTION_SKILLS] + [(None, b) for b in INTERACTION_SKILLS] + list(PAIRS)


@pytest.fixture(params=SCENES, ids=lambda pair: "-".join(name for name in pair if name))
def scene(request):
    return build_scene(*request.param)


def test_physics_settings(scene):
    option = scene.model.opt
    assert option.timestep == 0.005
    assert pytest.approx(0.04) == CONTROL_STEP
    assert option.integrator == mujoco.mjtIntegrator.mjINT_DISCRETE
    assert option.jacobian == mujoco.mjtJacobian.mjJAC_SPARSE
    assert option.disableflags & mujoco.mjtDisableBit.mjDSBL_ISLAND
    assert option.cone == mujoco.mjtCone.mjCONE_ELLIPTIC
    assert option.impratio == 100
    assert option.iterations >= 50
    assert option.ls_iterations >= 50


def test_the_objects_degrees_of_freedom_come_first(scene):
    names = [scene.model.joint(i).name for i in range(scene.model.njnt)]
    assert ("OBJECT_JOINT" in names) == (scene.chain.retention is not None)
    assert names.index("WX") == names.count("OBJECT_JOINT")


def test_the_hand_decides_how_things_feel(scene):
    """A fingertip slides and twists on everything alike but hard caps; only what lies on the table resists rolling."""
    model = scene.model
    for geom in range(model.ngeom):
        name = model.geom(geom).name
        is_hand = name.startswith("C_")
        assert model.geom_priority[geom] == (2 if name.endswith("_cap") else is_hand)
        if is_hand:
            assert model.geom_condim[geom] == 4
            assert model.geom_friction[geom, 0] == hand.FRICTION


def test_nothing_ties_the_object_to_the_hand(scene):
    assert scene.model.neq == 0
    assert scene.model.npair == 0
    assert (scene.model.wrap_type == mujoco.mjtWrap.mjWRAP_JOINT).all()  # a tendon is a spring of fixtures' joints
    assert all(scene.model.joint(joint).name.startswith("b_") for joint in scene.model.wrap_objid)


def test_gravity_is_compensated_on_the_hand_only(scene):
    model = scene.model
    root = model.body("wrist_wx").id
    for body in range(1, model.nbody):
        is_hand = model.body_rootid[body] == root
        assert model.body_gravcomp[body] == (1.0 if is_hand else 0.0), model.body(body).name


def test_actuators_are_the_28_position_actuators_in_action_order(scene):
    model = scene.model
    assert model.nu == 28
    assert [model.actuator(i).name for i in range(28)] == [f"A_{name}" for name in hand.ACTION_NAMES]
    joints = [model.joint(int(model.actuator_trnid[i, 0])).name for i in range(28)]
    assert joints == list(hand.ACTION_NAMES)
    np.testing.assert_allclose(model.actuator_ctrlrange, np.stack([hand.ACTION_LOW, hand.ACTION_HIGH], 1))
    ranges = np.array([model.joint(name).range for name in hand.ACTION_NAMES])
    np.testing.assert_allclose(ranges, np.stack([hand.ACTION_LOW, hand.ACTION_HIGH], 1))


def test_force_limits_are_the_hands_own(scene):
    limits = {}
    for element in ET.parse(hand.asset_folder() / "hand" / "shared.xml").getroot().iter("position"):
        low, high = map(float, element.get("forcerange").split())
        assert low == -high
        limits[element.get("joint").removeprefix("robot0:")] = high
    for finger in ("FF", "MF", "RF", "LF"):
        limits[f"{finger}J0"] = limits[f"{finger}J1"]  # one tendon drives both on the real hand
    model = scene.model
    for i, name in enumerate(hand.JOINTS):
        low, high = model.actuator(f"A_{name}").forcerange
        assert -low == high == limits[name] == hand.FORCE_LIMITS[i], name
    assert model.actuator_forcelimited.all()


def test_sites_cameras_and_names_that_other_simulators_can_read(scene):
    model = scene.model
    for site in ("palm_center", *(f"{finger}_tip" for finger in hand.FINGERS)):
        assert model.site(site).id >= 0
    assert {model.camera(i).name for i in range(model.ncam)} == {"overview", "hand", "fixture"}
    names = [model.joint(i).name for i in range(model.njnt)] + [model.body(i).name for i in range(model.nbody)]
    assert all(name and name.replace("_", "").isalnum() for name in names), names
    joints_per_body = np.bincount(model.jnt_bodyid, minlength=model.nbody)
    assert joints_per_body.max() == 1


def test_collision_is_set_on_hand_objects_and_fixtures_only(scene):
    model = scene.model
    for geom in range(model.ngeom):
        name = model.geom(geom).name
        if name.startswith("V_"):
            assert model.geom_contype[geom] == model.geom_conaffinity[geom] == 0, name
    colliding = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    assert (model.geom_type[colliding] != mujoco.mjtGeom.mjGEOM_MESH).all()  # primitives


def test_sensor_groups_cover_sensordata(scene):
    columns = list(scene.sensors.values())
    assert [c.start for c in columns] == [0, *(c.stop for c in columns[:-1])]
    assert columns[-1].stop == scene.model.nsensordata


def test_object_weights():
    assert build_scene("GraspBall").model.body("object").mass[0] == pytest.approx(0.15)
    assert 0.1 <= build_scene("PickStick").model.body("object").mass[0] <= 0.2


def test_the_button_resists_with_5_to_10_newtons():
    model = build_scene(None, "PushButton").model
    joint = model.joint("b_travel")
    force = [model.jnt_stiffness[joint.id] * (travel - model.qpos_spring[joint.qposadr[0]]) for travel in (0.0, 0.012)]
    weight = 0.05 * 9.81
    assert 4.5 <= force[0] - weight <= 10
    assert force[0] < force[1] <= 10
    np.testing.assert_allclose(joint.range, [0, 0.012])


def test_the_model_hash_is_the_same_in_another_process():
    code = "from dexcompose_envs.scene import build_scene; print(build_scene('GraspBall', 'PushButton').model_hash)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == build_scene("GraspBall", "PushButton").model_hash


def test_scenes_differ_in_their_hash_and_are_built_once():
    hashes = {build_scene(*pair).model_hash for pair in SCENES}
    assert len(hashes) == len(SCENES)
    assert build_scene("GraspBall", "PushButton") is build_scene("GraspBall", "PushButton")


def test_unknown_skills_are_refused():
    with pytest.raises(ValueError, match="unknown skill 'Ball'; expected one of"):
        build_scene("Ball")
