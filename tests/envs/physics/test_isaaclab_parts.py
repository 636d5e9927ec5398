"""What Isaac Lab's scenes are made from, as far as it needs no Isaac Lab; the rest is in `tests/isaaclab`."""

import subprocess
import sys
from copy import copy
from importlib import metadata

import gymnasium as gym
import mujoco
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dexcompose_envs import INTERACTION_SKILLS, PAIRS, SKILLS, env_id, hand
from dexcompose_envs.artefacts import ArtefactError, save
from dexcompose_envs.physics import BackendError
from dexcompose_envs.physics.isaaclab import frames, lab, usd
from dexcompose_envs.physics.isaaclab.collisions import pairs_apart
from dexcompose_envs.physics.isaaclab.frames import Motion
from dexcompose_envs.physics.isaaclab.mechanisms import springs_of
from dexcompose_envs.physics.isaaclab.sensing import LINKS, Felt, Sensing
from dexcompose_envs.scene import build_scene
from dexcompose_envs.scene.split import split_scene
from dexcompose_envs.skills.chain import Chain

CHAINS = [("GraspBall", ["OpenDoor"]), ("PourMug", ["OpenMicrowave", "TurnOnSwitch"]), (None, ["PushButton"])]
quaternions = st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: sum(x * x for x in q) > 0.01)


@pytest.mark.parametrize(("retention", "interactions"), CHAINS)
def test_the_parts_are_the_scene(retention, interactions):
    chain = Chain.of(retention, interactions)
    scene = build_scene(retention, *interactions).model
    parts = {name: spec.compile() for name, spec in split_scene(chain).items()}
    assert len(parts) == 2 + len(chain.skills)
    for what, fields in (
        ("joint", ("range", "damping", "armature", "frictionloss", "stiffness", "axis")),
        (
            "geom",
            ("size", "pos", "quat", "friction", "condim", "contype", "conaffinity", "solref", "solimp", "priority"),
        ),
    ):
        count = {"joint": "njnt", "geom": "ngeom"}[what]
        things = {
            getattr(m, what)(i).name: getattr(m, what)(i) for m in parts.values() for i in range(getattr(m, count))
        }
        for i in range(getattr(scene, count)):
            thing = getattr(scene, what)(i)
            if what == "joint" or thing.contype[0] or thing.conaffinity[0]:
                for field in fields:
                    np.testing.assert_allclose(
                        getattr(things[thing.name], field), getattr(thing, field), atol=1e-12, err_msg=thing.name
                    )
    masses = {m.body(i).name: m.body_mass[i] for m in parts.values() for i in range(1, m.nbody)}
    for i in range(1, scene.nbody):
        assert masses[scene.body(i).name] == pytest.approx(scene.body_mass[i], rel=1e-9)


@pytest.mark.parametrize("skill", INTERACTION_SKILLS)
def test_springs_push_as_those_of_the_mjcf(skill):
    model = copy(build_scene(skill).model)
    data, springs = mujoco.MjData(model), springs_of(model)
    assert bool(springs) == (skill == "TurnOnSwitch")
    model.tendon_stiffness[:] = 0.0  # USD has them
    for i in range(28, model.njnt):
        joint, place = model.joint(i).name, model.jnt_qposadr[i]
        for position in np.linspace(*model.jnt_range[i], 9):
            data.qpos[place] = position
            mujoco.mj_forward(model, data)
            linear = -model.jnt_stiffness[i] * (position - model.qpos_spring[place])
            ours = sum(float(s.effort(torch.tensor([position]))[0]) for s in springs if s.joint == joint)
            assert ours + linear == pytest.approx(data.qfrc_spring[model.jnt_dofadr[i]], abs=1e-5)


def test_what_the_collision_bits_keep_apart():
    apart = {frozenset(pair) for pair in pairs_apart(build_scene("PickCan", "OpenDoor").model)}
    for a, b in (
        ("C_ffproximal", "C_mfproximal"),
        ("table", "b_leaf"),
        ("b_tongue", "C_ffdistal"),
        ("b_strike", "a_can"),
    ):
        assert frozenset((a, b)) in apart
    for a, b in (("C_ffdistal", "C_thdistal"), ("b_tongue", "b_strike"), ("C_ffdistal", "b_grip"), ("a_can", "table")):
        assert frozenset((a, b)) not in apart


@given(quaternions, quaternions, st.lists(st.floats(-1, 1), min_size=3, max_size=3))
def test_rotations_are_mujocos(first, second, vector):
    a, b = (np.array(q) / np.linalg.norm(q) for q in (first, second))
    product, turned = np.zeros(4), np.zeros(3)
    mujoco.mju_mulQuat(product, a, b)
    mujoco.mju_rotVecQuat(turned, np.array(vector), a)
    ours = [torch.tensor(value, dtype=torch.float64)[None] for value in (a, b, vector)]
    np.testing.assert_allclose(frames.multiplied(ours[0], ours[1])[0], product, atol=1e-12)
    np.testing.assert_allclose(frames.rotated(ours[0], ours[2])[0], turned, atol=1e-12)
    np.testing.assert_allclose(
        frames.rotated(frames.inverse(ours[0]), frames.rotated(ours[0], ours[2])), ours[2], atol=1e-9
    )
    assert torch.equal(frames.w_first(frames.w_last(ours[0])), ours[0])
    assert frames.w_last(torch.tensor([[1.0, 0.0, 0.0, 0.0]])).tolist() == [[0.0, 0.0, 0.0, 1.0]]


@pytest.mark.parametrize(("retention", "interactions"), CHAINS)
def test_sensors_worked_out_from_bodies_are_mujocos(retention, interactions):
    model = build_scene(retention, *interactions).model
    data, rng = mujoco.MjData(model), np.random.default_rng(1)
    data.qpos[:] += 0.05 * rng.normal(size=model.nq)
    data.qvel[:] = rng.normal(size=model.nv)
    data.ctrl[:] = np.clip(data.ctrl + rng.uniform(-0.3, 0.3, 28), hand.ACTION_LOW, hand.ACTION_HIGH)
    mujoco.mj_normalizeQuat(model, data.qpos)
    mujoco.mj_forward(model, data)
    sensing = Sensing(model, torch.device("cpu"))
    velocity = np.zeros((model.nbody, 6))
    for body in range(model.nbody):
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, body, velocity[body], 0)

    def one_world(values):
        return torch.tensor(np.asarray(values), dtype=torch.float32)[None]

    bodies = Motion(*map(one_world, (data.xpos, data.xquat, velocity[:, 3:], velocity[:, :3])))
    places = [model.joint(name) for name in sensing.joints]
    position, speed = data.qpos[[p.qposadr[0] for p in places]], data.qvel[[p.dofadr[0] for p in places]]
    contact = {place: torch.zeros(1, len(LINKS), 3) for place in "abc"}
    felt = Felt(bodies, one_world(position), one_world(speed), one_world(data.ctrl), contact)
    found = sensing.read(felt)[0].numpy()
    for i in range(model.nsensor):
        start, size = model.sensor_adr[i], model.sensor_dim[i]
        if "contact" not in model.sensor(i).name:
            columns = slice(start, start + size)
            np.testing.assert_allclose(
                found[columns], data.sensordata[columns], atol=2e-5, err_msg=model.sensor(i).name
            )


def test_a_sensor_of_another_kind_is_refused():
    spec = hand.make_spec()
    spec.add_sensor(
        name="turning", type=mujoco.mjtSensor.mjSENS_GYRO, objtype=mujoco.mjtObj.mjOBJ_SITE, objname="palm_center"
    )
    with pytest.raises(BackendError, match="'turning' is of a kind that backend 'isaaclab' lacks"):
        Sensing(spec.compile(), torch.device("cpu"))


class Version(tuple):
    """Stands in for `sys.version_info`."""


@pytest.mark.parametrize(
    ("python", "versions", "message"),
    [
        ((3, 11), {}, "runs on Python 3.12 only; this is 3.11"),
        ((3, 12), {}, "needs the package isaaclab, which is missing: make isaaclab"),
        ((3, 12), {"isaaclab": "3.0.0"}, "needs the package mujoco-usd-converter, which is missing"),
        ((3, 12), {"isaaclab": "2.3.2", "mujoco-usd-converter": "0.6.1"}, "found isaaclab 2.3.2; expected one of 3.x"),
        ((3, 12), {"isaaclab": "4.0.0", "mujoco-usd-converter": "0.6.1"}, "found isaaclab 4.0.0; expected one of 3.x"),
    ],
)
def test_what_is_missing_is_said_in_one_line(monkeypatch, python, versions, message):
    def version(package):
        if package not in versions:
            raise metadata.PackageNotFoundError(package)
        return versions[package]

    monkeypatch.setattr(lab.sys, "version_info", Version((*python, 0, "final", 0)))
    monkeypatch.setattr(lab.metadata, "version", version)
    with pytest.raises(BackendError, match=message) as caught:
        gym.make_vec(env_id("PushButton"), num_envs=1, backend="isaaclab", device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_asked_for_and_absent(monkeypatch):
    monkeypatch.setattr(lab, "check_isaaclab", lambda: None)
    with pytest.raises(BackendError, match="finds no GPU") as caught:
        gym.make_vec(env_id("PushButton"), num_envs=1, backend="isaaclab")
    assert "\n" not in str(caught.value)


def test_threads_are_not_for_it():
    with pytest.raises(ValueError, match="num_threads is 2, which only backend 'mujoco' heeds"):
        gym.make_vec(env_id("PushButton"), num_envs=1, backend="isaaclab", num_threads=2)


def test_a_cache_of_another_model_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(usd.metadata, "version", lambda package: "0.6.1")
    monkeypatch.setenv(usd.FOLDER_VARIABLE, str(tmp_path))
    scene = build_scene("GraspBall", "PushButton")
    folder = usd.usd_folder(scene)
    assert folder.parent == tmp_path and scene.model_hash in folder.name
    made_by = {"format": usd.FORMAT, "converter": "0.6.1"}
    save(folder / "manifest.json", {"kind": "usd", "parts": ["hand"], "model_hash": "0" * 12, **made_by}, {}, "json")
    with pytest.raises(ArtefactError, match=f"000000000000.*{scene.model_hash}") as caught:
        usd.usd_parts(scene)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_registering_with_isaac_lab_imports_nothing_of_it():
    code = (
        "import sys, dexcompose_envs, gymnasium\n"
        "assert not any(id.startswith('Isaac-') for id in gymnasium.registry)\n"
        "import dexcompose_envs.isaaclab as registered\n"
        "assert not {'isaaclab', 'torch', 'warp', 'newton'} & set(sys.modules)\n"
        "print(*sorted(id for id in gymnasium.registry if id.startswith('Isaac-')))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    names = (*SKILLS, *("-".join(pair) for pair in PAIRS))
    assert result.stdout.split() == sorted(f"Isaac-DexCompose-{name}-Direct-v0" for name in names)
