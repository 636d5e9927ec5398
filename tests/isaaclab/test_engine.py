"""Isaac Lab's scene against the MJCF that it is made from."""

import gymnasium as gym
import mujoco
import numpy as np
import pytest
import torch

pytest.importorskip("isaaclab", reason="Isaac Lab is not installed; see `make isaaclab`")

from dexcompose_envs import INTERACTION_SKILLS, env_id, hand
from dexcompose_envs.physics import BackendError
from dexcompose_envs.scene import build_scene

from ..vector_contract import stay

PAIR = "PickStick-OpenDoor"


@pytest.fixture(scope="module")
def venv():
    venv = gym.make_vec(env_id(PAIR), num_envs=2, backend="isaaclab", device="cpu", base_shake=0.0).unwrapped
    yield venv
    venv.close()


def test_sensors_say_what_native_mujoco_says_of_the_same_state(venv):
    venv.reset(seed=4)
    engine, model = venv.core.engine, venv.scene.model
    rng = np.random.default_rng(0)
    state = engine.get_state()
    count = sum(len(asset.joint_names) for asset in engine._articulations)
    # Everything moves, so that velocities are seen too; the object's quaternion stays one.
    state[:, : 2 * count] += torch.tensor(0.01 * rng.normal(size=(2, 2 * count)), dtype=torch.float32)
    start = 2 * count + 7
    state[:, start : start + 6] += torch.tensor(0.3 * rng.normal(size=(2, 6)), dtype=torch.float32)
    engine.set_state(state, torch.arange(2))
    engine.look()
    computed = engine._sensing.read(engine._seen).numpy()
    data = mujoco.MjData(model)
    for world in range(2):
        engine.load_into(data, world)
        for group, columns in venv.scene.sensors.items():
            if "contact" not in group:  # known after a step only
                np.testing.assert_allclose(
                    computed[world, columns], data.sensordata[columns], atol=2e-6, rtol=1e-5, err_msg=group
                )


def test_contacts_are_felt_as_in_mujoco(venv):
    """Two seconds of holding still: forces of the object on the finger links in the world's axes."""
    obs, _ = venv.reset(seed=4)
    expected = venv.sensors()["a_contact"]
    action = stay(venv, obs)
    for _ in range(50):
        obs, *_, info = venv.step(action)
    felt = venv.sensors()["a_contact"]
    assert info["task_a_held"].all()
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(felt, expected, atol=0.5)


def test_masses_limits_and_damping_are_those_of_the_mjcf(venv):
    model, engine = venv.scene.model, venv.core.engine
    venv.reset(seed=4, options={"start": "held"})
    for asset in engine._articulations:
        masses = dict(zip(asset.body_names, asset.data.body_mass.torch[0].tolist(), strict=True))
        for name, mass in masses.items():
            expected = model.body(name).mass[0]
            assert mass == pytest.approx(expected, rel=1e-5, abs=1e-9) or model.body(name).weldid[0] == 0, name
        limits = asset.data.joint_pos_limits.torch[0].numpy()
        for name, (low, high) in zip(asset.joint_names, limits, strict=True):
            np.testing.assert_allclose([low, high], model.joint(name).range, atol=1e-5, err_msg=name)
    gains = venv.core.engine._hand.data
    order = engine._actions
    np.testing.assert_allclose(gains.joint_stiffness.torch[0, order].numpy(), hand.KP, rtol=1e-5)
    np.testing.assert_allclose(gains.joint_damping.torch[0, order].numpy(), hand.KV, rtol=1e-5)
    np.testing.assert_allclose(gains.joint_effort_limits.torch[0, order].numpy(), hand.ACTION_FORCE_LIMITS, rtol=1e-5)


def test_the_solvers_model_lets_the_same_things_touch(venv):
    from isaaclab_newton.physics import NewtonManager

    ours, theirs = venv.scene.model, NewtonManager._solver.mj_model
    names = [theirs.geom(i).name.rsplit("/", 1)[-1].rpartition("_")[0] for i in range(theirs.ngeom)]
    found = {name: i for i, name in enumerate(names)}

    def meet(model, a, b):
        bits = (model.geom_contype[a] & model.geom_conaffinity[b]) | (model.geom_contype[b] & model.geom_conaffinity[a])
        pair = sorted((int(model.geom_bodyid[a]), int(model.geom_bodyid[b])))
        apart = {tuple(sorted(divmod(int(signature), 1 << 16))) for signature in model.exclude_signature}
        return bool(bits) and tuple(pair) not in apart

    colliding = [i for i in range(ours.ngeom) if ours.geom_contype[i] or ours.geom_conaffinity[i]]
    assert {ours.geom(i).name for i in colliding} <= set(found)
    moving = [i for i in colliding if ours.body_weldid[ours.geom_bodyid[i]] > 0]
    checked = 0
    for a in moving:
        for b in colliding:
            body, other = int(ours.geom_bodyid[a]), int(ours.geom_bodyid[b])
            family = body == other or body == ours.body_parentid[other] or other == ours.body_parentid[body]
            if a != b and not family:
                names = ours.geom(a).name, ours.geom(b).name
                assert meet(ours, a, b) == meet(theirs, found[names[0]], found[names[1]]), names
                checked += 1
    assert checked > 500


def test_hidden_physics_reach_the_solver(venv):
    from isaaclab_newton.physics import NewtonManager

    venv.reset(seed=4)
    model = NewtonManager._solver.mjw_model
    hidden = venv.hidden_physics()
    nominal = build_scene("PickStick", "OpenDoor").model.body("object").mass[0]
    names = [NewtonManager._solver.mj_model.body(i).name for i in range(NewtonManager._solver.mj_model.nbody)]
    body = next(i for i, name in enumerate(names) if name.endswith("object"))
    np.testing.assert_allclose(model.body_mass.numpy()[:, body], hidden["mass"] * nominal, rtol=1e-5)
    geoms = [NewtonManager._solver.mj_model.geom(i).name for i in range(NewtonManager._solver.mj_model.ngeom)]
    tip = next(i for i, name in enumerate(geoms) if "C_ffdistal" in name)
    np.testing.assert_allclose(model.geom_friction.numpy()[:, tip, 0], hidden["friction"], rtol=1e-5)


def test_a_state_that_is_set_goes_on_as_it_did(venv):
    obs, _ = venv.reset(seed=4)
    state, action = venv.get_state(), stay(venv, obs)
    for _ in range(3):
        venv.step(action)
    expected = venv.get_state()
    venv.set_state(state)
    np.testing.assert_array_equal(venv.get_state().numpy(), state.numpy())
    for _ in range(3):
        venv.step(action)
    np.testing.assert_array_equal(venv.get_state().numpy(), expected.numpy())


def test_a_world_that_restarts_leaves_the_others_alone(venv):
    obs, _ = venv.reset(seed=4)
    action = stay(venv, obs)
    venv.step(action)
    before = venv.get_state()
    venv.reset(options={"reset_mask": np.array([True, False])})
    after = venv.get_state()
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


def test_a_process_has_one_simulation(venv):
    with pytest.raises(BackendError, match="one simulation per process"):
        gym.make_vec(env_id("PushButton"), num_envs=1, backend="isaaclab", device="cpu")


def test_closing_makes_room_for_another(venv):
    venv.close()
    gym.make_vec(env_id("PushButton"), num_envs=1, backend="isaaclab", device="cpu").close()


@pytest.mark.parametrize("skill", INTERACTION_SKILLS)
def test_mechanisms_resist_as_in_the_mjcf(skill):
    """Springs, tendons and what is left to efforts, summed up, over each joint's range."""
    from isaaclab_newton.physics import NewtonManager

    from dexcompose_envs.physics.isaaclab.mechanisms import springs_of

    venv = gym.make_vec(env_id(skill), num_envs=1, backend="isaaclab", device="cpu").unwrapped
    ours, theirs = venv.scene.model, NewtonManager._solver.mj_model
    data, other = mujoco.MjData(ours), mujoco.MjData(theirs)
    springs = {spring.joint: spring for spring in springs_of(ours)}
    names = [theirs.joint(i).name for i in range(theirs.njnt)]
    for i in range(hand.NUM_ACTIONS, ours.njnt):
        joint = ours.joint(i)
        same = theirs.joint(next(name for name in names if name.endswith(joint.name)))
        forces = []
        for position in np.linspace(*joint.range, 11):
            data.qpos[joint.qposadr[0]] = other.qpos[same.qposadr[0]] = position
            mujoco.mj_forward(ours, data)
            mujoco.mj_forward(theirs, other)
            effort = float(springs[joint.name].effort(torch.tensor([position]))[0]) if joint.name in springs else 0.0
            forces.append((data.qfrc_spring[joint.dofadr[0]], other.qfrc_spring[same.dofadr[0]] + effort))
        expected, found = np.transpose(forces)
        np.testing.assert_allclose(found, expected, atol=2e-4, err_msg=joint.name)
    venv.close()
