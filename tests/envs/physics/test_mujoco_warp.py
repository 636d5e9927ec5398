"""MuJoCo Warp against native MuJoCo, on Warp's CPU path; what needs a GPU is marked `gpu`."""

import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import count

import gymnasium as gym
import mujoco
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dexcompose_envs import OUTCOMES, env_id
from dexcompose_envs.arrays import to_numpy
from dexcompose_envs.errors import StepError
from dexcompose_envs.physics import BackendError, ContactOverflowError, make_engine
from dexcompose_envs.physics import mujoco_warp as engine_module
from dexcompose_envs.physics.contact_capacity import ContactCapacity, measure_capacity
from dexcompose_envs.physics.mujoco_warp import MujocoWarp
from dexcompose_envs.physics.warp_device import check_memory, load_warp
from dexcompose_envs.scene import build_scene

from ...host_reads import HostReads

PAIR, BUTTON = "GraspBall-PushButton", "PushButton"
few = settings(max_examples=3, deadline=None, phases=[Phase.explicit, Phase.generate])  # too slow to shrink
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def make(name, num_envs, held_library, warp=True, device="cpu", **kwargs):
    if "-" in name or kwargs.get("start") == "held":
        kwargs["held_states"] = held_library(name.split("-")[0])
    backend = {"backend": "warp", "device": device} if warp else {"num_threads": 1}
    return gym.make_vec(env_id(name), num_envs=num_envs, **backend, **kwargs).unwrapped


def stay(venv, obs):
    return to_numpy(obs["context"])[:, venv.layout["context"]["previous_action"]]


def assert_close(warp, native, atol, rows=slice(None)):
    assert warp.keys() == native.keys()
    for key in native:
        np.testing.assert_allclose(to_numpy(warp[key])[rows], native[key][rows], rtol=1e-6, atol=atol, err_msg=key)


@pytest.mark.parametrize("name", [PAIR, BUTTON])
def test_reset_gives_the_same_names_shapes_and_values(name, held_library):
    warp, native = (make(name, 3, held_library, flag) for flag in (True, False))
    (obs, info), (expected, expected_info) = warp.reset(seed=5), native.reset(seed=5)
    assert warp.layout == native.layout
    assert warp.observation_space == native.observation_space
    assert all(value.dtype == torch.float32 and value.device.type == "cpu" for value in obs.values())
    assert_close(obs, expected, 2e-6)
    assert_close(info, expected_info, 0)
    # What the engine itself computes in that state, by its own collision detection and solver.
    engine, sensors = warp.core.engine, warp.core.scene.sensors
    from_host = to_numpy(engine.sensordata).copy()
    warp_module, mujoco_warp = load_warp()
    with warp_module.ScopedDevice("cpu"):
        mujoco_warp.forward(engine._seeing, engine._data)
    for group, columns in sensors.items():
        atol = 0.02 if "contact" in group else 5e-6  # N; m, rad, m/s, Nm
        computed = to_numpy(engine.sensordata)[:, columns]
        np.testing.assert_allclose(computed, from_host[:, columns], atol=atol, err_msg=group)
    warp.close()
    native.close()


@pytest.mark.parametrize(("name", "shake", "steps"), [(PAIR, 0.0, 40), ("PickStick-PushButton", 1.0, 15)])
def test_the_same_actions_move_hand_and_object_alike(name, shake, steps, held_library):
    kwargs = {"base_shake": shake, "terminate_on_success": False, "max_episode_steps": 300}
    # A step costs the same however few the worlds.
    warp, native = (make(name, 6, held_library, flag, **kwargs) for flag in (True, False))
    obs, _ = warp.reset(seed=1)
    native.reset(seed=1)
    action = stay(warp, obs)
    columns = warp.layout["context"]["object_position"]
    start = to_numpy(obs["context"])[:, columns]
    for _ in range(steps):
        obs, _, terminated, _, info = warp.step(torch.from_numpy(action))
        expected, *_ = native.step(action)
        assert not terminated.any()
    assert info["task_a_held"].all()
    context, native_context = to_numpy(obs["context"]), expected["context"]
    assert np.linalg.norm(context[:, columns] - native_context[:, columns], axis=1).max() / 10 < 5e-4  # m
    sensors = warp.core.scene.sensors["palm_position"]
    palm = to_numpy(warp.core.engine.sensordata)[:, sensors] - native.core.engine.sensordata[:, sensors]
    assert np.linalg.norm(palm, axis=1).max() < 1e-4  # m
    if shake == 0.0:
        assert np.linalg.norm(context[:, columns] - start, axis=1).max() / 10 < 1e-3  # m in 1.6 s: no creep
    warp.close()
    native.close()


@pytest.mark.parametrize("mode", ["SameStep", "NextStep"])
def test_worlds_restart_as_natively_without_the_host(mode, held_library):
    kwargs = {"max_episode_steps": 2, "autoreset_mode": mode}
    warp, native = (make(BUTTON, 3, held_library, flag, **kwargs) for flag in (True, False))
    obs, _ = warp.reset(seed=7)
    expected, _ = native.reset(seed=7)
    for step in range(9):
        action = stay(native, expected)
        obs, *results, info = warp.step(torch.from_numpy(action))
        expected, *expected_results, expected_info = native.step(action)
        assert_close(obs, expected, 2e-5)
        for result, expected_result in zip(results, expected_results, strict=True):
            np.testing.assert_allclose(to_numpy(result), expected_result, atol=1e-5)
        assert_close({key: info[key] for key in ("elapsed_steps", "outcome")}, {
            key: expected_info[key] for key in ("elapsed_steps", "outcome")
        }, 0)  # fmt: skip
        if mode == "SameStep":
            assert info["_final_obs"].any() == ("final_obs" in expected_info)
            if "final_obs" in expected_info:
                assert_close(info["final_obs"], expected_info["final_obs"], 2e-5)
            else:
                assert_close(info["final_obs"], expected, 2e-5)
        if step == 3:  # by hand and without a seed: the generators go on where they would have been
            options = {"reset_mask": np.array([True, False, True])}
            obs, _ = warp.reset(options=options)
            expected, _ = native.reset(options=options)
            assert_close(obs, expected, 2e-5)
        if step == 6:
            options = {"reset_mask": torch.tensor([False, True, False])}
            obs, _ = warp.reset(seed=[0, 40, 0], options=options)
            expected, _ = native.reset(seed=[0, 40, 0], options={"reset_mask": np.array([False, True, False])})
            assert_close(obs, expected, 2e-5)
    warp.close()
    native.close()


def test_disabled_autoreset_wants_ended_worlds_reset(held_library):
    venv = make(BUTTON, 2, held_library, max_episode_steps=1, autoreset_mode="Disabled")
    obs, _ = venv.reset(seed=0)
    assert venv.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    *_, truncated, info = venv.step(stay(venv, obs))
    assert truncated.all()
    assert [OUTCOMES[i] for i in info["outcome"]] == ["ongoing"] * 2
    assert "final_obs" not in info
    with pytest.raises(RuntimeError, match="world 0 has ended"):
        venv.step(stay(venv, obs))
    venv.close()


@pytest.fixture(scope="module")
def worlds(held_library):
    """`worlds(n)`: the pair on Warp with n worlds; made once."""
    return cache(lambda num_envs: make(PAIR, num_envs, held_library))


@few
@given(seed=st.integers(0, 2**31))
def test_a_world_does_not_depend_on_its_neighbours(worlds, seed):
    num_envs = 3
    many, alone = worlds(num_envs), worlds(1)
    rng = np.random.default_rng(seed)
    obs, _ = many.reset(seed=seed)
    single, _ = alone.reset(seed=seed + num_envs - 1)
    for _ in range(2):
        actions = torch.from_numpy(stay(many, obs) + 0.05 * rng.normal(size=(num_envs, 28)).astype(np.float32))
        obs, reward, *_ = many.step(actions)
        single, single_reward, *_ = alone.step(actions[-1:])
        for key in obs:
            torch.testing.assert_close(obs[key][-1:], single[key], rtol=1e-3, atol=1e-4)  # sums in another order
        torch.testing.assert_close(reward[-1:], single_reward, rtol=1e-3, atol=1e-5)


@few
@given(seed=st.integers(0, 2**31))
def test_set_state_of_get_state_is_the_identity_and_continues_the_same(worlds, seed):
    venv = worlds(3)
    obs, _ = venv.reset(seed=seed)
    action = stay(venv, obs) + 0.02
    venv.step(action)
    state = venv.get_state()
    first, reward, *_ = venv.step(action)
    venv.set_state(state)
    torch.testing.assert_close(venv.get_state(), state, rtol=0, atol=0)
    again, reward_again, *_ = venv.step(action)
    for key in first:
        torch.testing.assert_close(first[key], again[key], rtol=0, atol=0)
    assert (reward == reward_again).all()


def test_ctrl_c_between_physics_steps_wants_a_reset(worlds, monkeypatch):
    venv = worlds(3)
    obs, _ = venv.reset(seed=4)
    action = stay(venv, obs)
    expected, *_ = venv.step(action)
    venv.reset(seed=4)
    engine, calls = venv.core.engine, count()
    step = engine._mjw.step

    def interrupted(*args):
        if next(calls) == 3:
            raise KeyboardInterrupt
        step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(engine._mjw, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            venv.step(action)
    with pytest.raises(StepError, match="expected a reset first"):
        venv.step(action)
    venv.reset(seed=4)
    again, *_ = venv.step(action)
    for key in expected:
        torch.testing.assert_close(again[key], expected[key], rtol=0, atol=0)


def test_a_world_that_diverges_is_restarted_and_counted_and_the_others_go_on(held_library):
    venv, undisturbed = (make(PAIR, 3, held_library) for _ in range(2))
    obs, _ = venv.reset(seed=0)
    undisturbed.reset(seed=0)
    action = torch.from_numpy(stay(venv, obs))
    for spoilt in (float("nan"), 1e12):
        engine = venv.core.engine
        engine._state["qvel"][1] = spoilt
        obs, reward, terminated, truncated, info = venv.step(action)
        expected, expected_reward, *_ = undisturbed.step(action)
        assert not terminated.any()
        assert truncated.tolist() == [False, True, False]
        assert info["final_info"]["unstable"].tolist() == [False, True, False]
        assert not info["final_info"]["success"].any()
        assert reward.isfinite().all()
        assert all(value.isfinite().all() for value in (*obs.values(), *info["final_obs"].values()))
        for key in obs:
            torch.testing.assert_close(obs[key][[0, 2]], expected[key][[0, 2]], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(reward[[0, 2]], expected_reward[[0, 2]], rtol=1e-3, atol=1e-5)
    for _ in range(3):
        obs, *_, info = venv.step(torch.from_numpy(stay(venv, obs)))
    assert not info["unstable"].any()
    assert info["task_a_held"].all()
    venv.close()
    undisturbed.close()


@pytest.mark.parametrize("mode", ["SameStep", "NextStep"])
def test_a_step_reads_nothing_back_but_late_reports(mode, held_library):
    venv = make(PAIR, 2, held_library, autoreset_mode=mode)
    obs, _ = venv.reset(seed=0)
    actions = torch.from_numpy(stay(venv, obs))
    venv.step(actions)
    with HostReads() as reads:
        for _ in range(3):
            venv.step(actions)
    # On the CPU alone actions are checked at the door; the report is read a step late from the host's own memory.
    assert Counter(reads) == {"aten::_local_scalar_dense": 3, "numpy": 3}
    venv.close()


def test_dropped_contacts_are_an_error(held_library, monkeypatch):
    monkeypatch.setattr(engine_module, "measure_capacity", lambda scene: ContactCapacity(2, 16, (0, 0)))
    venv = make(PAIR, 2, held_library)
    obs, _ = venv.reset(seed=0)
    with pytest.raises(ContactOverflowError, match=r"world 0: no room for all .*contacts were dropped.* 16 constraint"):
        venv.step(stay(venv, obs))
    venv.close()


@pytest.mark.parametrize("name", [PAIR, "PickStick-PushButton"])
def test_there_is_room_for_more_contacts_than_flailing_makes(name, held_library):
    scene = build_scene(*name.split("-"))
    capacity = measure_capacity(scene)
    native = make(name, 2, held_library, warp=False, autoreset_mode="Disabled", max_episode_steps=100)
    native.reset(seed=0)
    data, rng = mujoco.MjData(scene.model), np.random.default_rng(0)
    most = np.zeros(2)
    for _ in range(15):
        native.core.step(rng.uniform(-1, 1, (2, 28)))
        for world in range(2):
            native.core.engine.load_into(data, world)
            most = np.maximum(most, [data.ncon, data.nefc])
    assert capacity.contacts >= 1.5 * most[0]
    assert capacity.rows >= 1.5 * most[1]
    native.close()


def test_returned_tensors_are_fresh(held_library):
    venv = make(BUTTON, 2, held_library, max_episode_steps=2)
    venv.reset(seed=0)
    action = torch.zeros(2, 28)
    results = [venv.step(action) for _ in range(2)]
    copies = [{key: value.clone() for key, value in result[0].items()} for result in results]
    state = venv.get_state()
    for obs, *arrays, info in results:
        for array in (*arrays, *(value for value in info.values() if isinstance(value, torch.Tensor))):
            array.fill_(1)
        for value in info["final_obs"].values():
            value.fill_(0.5)
        assert not any(value.data_ptr() == venv.core.engine.sensordata.data_ptr() for value in obs.values())
    action.fill_(0.7)
    torch.testing.assert_close(venv.get_state(), state, rtol=0, atol=0)
    venv.step(action)
    for (obs, *_), copy in zip(results, copies, strict=True):
        for key in copy:
            if not (obs[key] == 0.5).all():
                torch.testing.assert_close(obs[key], copy[key], rtol=0, atol=0)
    venv.close()


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"backend": "physx"}, ValueError, "unknown backend 'physx'; expected one of mujoco, warp"),
        ({"backend": "mujoco", "device": "cuda:0"}, ValueError, "runs on the CPU; expected backend='warp'"),
        ({"backend": "warp", "device": "tpu"}, ValueError, "device is 'tpu'; expected 'cuda', 'cuda:N' or 'cpu'"),
        ({"backend": "warp", "device": "cpu", "num_threads": 2}, ValueError, "num_threads is 2"),
    ],
)
def test_wrong_backends_and_devices_are_refused(kwargs, error, message):
    with pytest.raises(error, match=message):
        gym.make_vec(env_id(BUTTON), num_envs=2, **kwargs)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:3", None])
def test_without_a_gpu_the_error_says_so(device):
    with pytest.raises(BackendError, match=r"finds no GPU; device='cpu' works without one"):
        gym.make_vec(env_id(BUTTON), num_envs=2, backend="warp", device=device)


def test_wrong_actions_are_refused(held_library):
    venv = make(BUTTON, 2, held_library)
    venv.reset(seed=0)
    bad = torch.zeros(2, 28)
    bad[1, 3] = torch.inf
    for actions, message in [(bad, "of world 1 is inf"), (torch.zeros(3, 28), r"shape \(3, 28\); expected \(2, 28\)")]:
        with pytest.raises(ValueError, match=message):
            venv.step(actions)
    with pytest.raises(ValueError, match="state has shape"):
        venv.reset(options={"state": torch.zeros(2, 5)})
    venv.close()


def test_too_little_memory_says_how_many_worlds_fit():
    with pytest.raises(BackendError, match=r"4096 worlds need about 6\.0 GiB, but cuda:0 has 2\.0 GiB .* 1228 worlds"):
        check_memory(4096, 2**20, 2 * 2**30, "cuda:0")
    check_memory(1228, 2**20, 2 * 2**30, "cuda:0")


def test_a_missing_or_old_package_names_the_extra(monkeypatch):
    from importlib import metadata

    real = metadata.version

    def missing(name):
        if name == "mujoco-warp":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(BackendError, match=r"mujoco-warp, which is missing: pip install 'dexcompose\[warp\]'"):
        make_engine("warp", build_scene(None, BUTTON), 1, device="cpu")
    monkeypatch.setattr(metadata, "version", lambda name: "1.2.0" if name == "warp-lang" else real(name))
    with pytest.raises(BackendError, match=r"warp-lang 1\.2\.0; expected at least 1\.10"):
        MujocoWarp(build_scene(None, BUTTON), 1, "cpu")


def test_the_cpu_backend_imports_neither_warp_nor_torch():
    code = (
        "import sys, gymnasium as gym, dexcompose_envs\n"
        "venv = gym.make_vec('DexCompose/GraspBall-PushButton-v0', num_envs=2, start='scratch')\n"
        "venv.reset(seed=0); venv.step(venv.action_space.sample())\n"
        "print([name for name in ('torch', 'warp', 'mujoco_warp') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


@pytest.mark.rendering
def test_worlds_on_a_device_are_rendered(held_library):
    venv = make(BUTTON, 2, held_library, render_mode="rgb_array", width=64, height=48)
    native = make(BUTTON, 2, held_library, warp=False, render_mode="rgb_array", width=64, height=48)
    for env in (venv, native):
        env.reset(seed=0)
    for picture, expected in zip(venv.render(), native.render(), strict=True):
        assert np.abs(picture.astype(float) - expected).mean() < 1.0
    venv.close()
    native.close()


@gpu
@pytest.mark.parametrize("name", [PAIR, "PickStick-PushButton"])
def test_on_a_gpu_a_step_never_waits_and_agrees_with_the_cpu(name, held_library):
    venv, native = make(name, 64, held_library, device="cuda"), make(name, 64, held_library, warp=False)
    obs, _ = venv.reset(seed=0)
    native.reset(seed=0)
    actions = obs["context"][:, venv.layout["context"]["previous_action"]].clone()
    host_actions = to_numpy(actions)
    venv.step(actions)  # captures the graph
    expected, *_ = native.step(host_actions)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(60):
            obs, *_, info = venv.step(actions)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for _ in range(60):
        expected, *_ = native.step(host_actions)
    assert not info["unstable"].any()
    columns = venv.layout["context"]["object_position"]
    apart = np.linalg.norm(to_numpy(obs["context"])[:, columns] - expected["context"][:, columns], axis=1) / 10
    assert np.median(apart) < 1e-3  # m
    venv.close()
    native.close()


@gpu
def test_on_a_gpu_wrong_actions_are_reported_late(held_library):
    venv = make(BUTTON, 8, held_library, device="cuda")
    obs, _ = venv.reset(seed=0)
    actions = obs["context"][:, venv.layout["context"]["previous_action"]].clone()
    spoilt = actions.clone()
    spoilt[3, 5] = torch.nan
    obs, *_ = venv.step(spoilt)
    assert all(value.isfinite().all() for value in obs.values())
    with pytest.raises(ValueError, match="an action of world 3 was not finite"):
        for _ in range(3):
            venv.step(actions)
    venv.close()


@gpu
def test_a_gpu_that_does_not_exist_is_refused():
    with pytest.raises(BackendError, match=r"device 'cuda:99' doesn't exist: there are \d+ GPUs"):
        gym.make_vec(env_id(BUTTON), num_envs=2, backend="warp", device="cuda:99")
