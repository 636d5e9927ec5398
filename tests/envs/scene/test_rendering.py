"""Pictures: how to draw is chosen safely, and no environment can spoil another's pictures."""

import gc
import importlib
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import gymnasium as gym
import mujoco
import numpy as np
import pytest

from dexcompose_envs import env_id
from dexcompose_envs.errors import MachineError, UsageError
from dexcompose_envs.scene import build_scene, rendering
from dexcompose_envs.scene.rendering import CAMERAS, OffscreenRenderer, check_picture

BALL = "DexCompose/GraspBall-v0"
EXAMPLE = f"""
import gymnasium as gym, dexcompose_envs
env = gym.make("{BALL}", render_mode="rgb_array", width=64, height=48)
env.reset(seed=0)
for _ in range(2):
    try:
        print(env.render().std() > 10)
    except dexcompose_envs.errors.MachineError as error:
        print(error)
"""


class Resting:
    """An engine whose world is as the model has it."""

    def __init__(self, model):
        self.model = model

    def load_into(self, data, world):
        mujoco.mj_forward(self.model, data)


def printed(code, **changes):
    """What a process of its own prints, without `MUJOCO_GL` and a display unless given."""
    hidden = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY")
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | changes
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Exception ignored" not in done.stderr
    return done.stdout.splitlines()


def make(skill="GraspBall", width=64, height=48):
    env = gym.make(env_id(skill), render_mode="rgb_array", width=width, height=height).unwrapped
    env.reset(seed=0)
    return env


@pytest.mark.rendering
def test_mujoco_may_have_been_imported_before():
    assert printed(f"import mujoco.viewer\n{EXAMPLE}") == ["True", "True"]


def test_mujoco_gl_of_the_user_is_heeded():
    off = "MUJOCO_GL is 'off'; expected egl or osmesa to render, or nothing"
    assert printed(EXAMPLE, MUJOCO_GL="off") == [off, off]


def test_a_back_end_that_aborts_is_an_error_of_one_line_each_time():
    failed = "nothing to render with: glfw failed; install libegl1 or libosmesa6"  # no display
    assert printed(EXAMPLE, MUJOCO_GL="glfw") == [failed, failed]


def test_the_first_back_end_that_works_is_chosen(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    for works, chosen in [({"egl", "osmesa"}, "egl"), ({"osmesa", "glfw"}, "osmesa"), ({"glfw"}, "glfw")]:
        monkeypatch.setattr(rendering, "_works", works.__contains__)
        assert rendering.choose_backend() == chosen
    monkeypatch.setenv("MUJOCO_GL", " OSMesa ")
    monkeypatch.setattr(rendering, "_works", {"egl", "osmesa"}.__contains__)
    assert rendering.choose_backend() == "osmesa"
    monkeypatch.setenv("MUJOCO_GL", "1")
    monkeypatch.setattr(rendering, "_works", set().__contains__)
    with pytest.raises(MachineError, match="egl and osmesa and glfw failed; install libegl1 or libosmesa6"):
        rendering.choose_backend()


@pytest.mark.rendering
def test_closing_one_environment_leaves_the_others_pictures():
    ball, stick = make("GraspBall"), make("PickStick")
    expected = {"GraspBall": ball.render(), "PickStick": stick.render()}
    assert min(picture.std() for picture in expected.values()) > 10
    venv = gym.make_vec(BALL, num_envs=2, num_threads=1, render_mode="rgb_array", width=64, height=48)
    venv.reset(seed=0)
    np.testing.assert_array_equal(ball.render(), expected["GraspBall"])
    np.testing.assert_array_equal(venv.render()[0], expected["GraspBall"])
    np.testing.assert_array_equal(stick.render(), expected["PickStick"])
    ball.close()
    np.testing.assert_array_equal(stick.render(), expected["PickStick"])
    np.testing.assert_array_equal(venv.render()[0], expected["GraspBall"])
    venv.close()
    np.testing.assert_array_equal(stick.render(), expected["PickStick"])
    dropped = make("GraspBall")
    np.testing.assert_array_equal(dropped.render(), expected["GraspBall"])
    del dropped  # never closed
    gc.collect()
    np.testing.assert_array_equal(stick.render(), expected["PickStick"])
    stick.close()


@pytest.mark.rendering
def test_a_renderer_of_the_users_and_ours_leave_each_other_alone():
    model = build_scene("GraspBall").model
    ours = OffscreenRenderer(model, width=64, height=48)
    expected = ours.render(Resting(model))
    theirs = importlib.import_module(f"mujoco.{rendering.choose_backend()}").GLContext(64, 48)
    theirs.make_current()
    context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
    np.testing.assert_array_equal(ours.render(Resting(model)), expected)
    context.free()
    theirs.free()
    np.testing.assert_array_equal(ours.render(Resting(model)), expected)
    ours.close()


@pytest.mark.rendering
def test_any_thread_may_render_and_close():
    model = build_scene("GraspBall").model
    renderers = [OffscreenRenderer(model, camera, 64, 48) for camera in CAMERAS]
    expected = [renderer.render(Resting(model)) for renderer in renderers]
    assert not np.array_equal(expected[0], expected[1])
    with ThreadPoolExecutor(4) as pool:
        jobs = [(i % 3, pool.submit(renderers[i % 3].render, Resting(model))) for i in range(12)]
        for i, job in jobs:
            np.testing.assert_array_equal(job.result(), expected[i])
    thread = threading.Thread(target=renderers[0].close)
    thread.start()
    thread.join()
    np.testing.assert_array_equal(renderers[1].render(Resting(model)), expected[1])
    np.testing.assert_array_equal(renderers[0].render(Resting(model)), expected[0])  # made anew
    for renderer in renderers:
        renderer.close()
        renderer.close()


@pytest.mark.rendering
def test_a_forked_process_refuses_instead_of_hanging():
    code = f"""
import multiprocessing
{EXAMPLE}
def child():
    try:
        env.render()
    except dexcompose_envs.errors.MachineError as error:
        print(error, flush=True)
    env.close()
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
print(process.exitcode, env.render().std() > 10)
"""
    said = "this process was forked from one that had rendered; expected start method 'spawn'"
    assert printed(code) == ["True", "True", said, "0 True"]


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (("side", 64, 48), "unknown camera 'side'; expected one of overview, hand, fixture"),
        (("hand", 0, 48), "width is 0; expected a whole number from 1 to 1280"),
        (("hand", 64, 48.0), "height is 48.0; expected a whole number from 1 to 960"),
        (("hand", True, 48), "width is True"),
        (("hand", 64, 961), "height is 961"),
        ((None, 64, 48), "unknown camera None"),
    ],
)
def test_wrong_pictures_are_refused(picture, message):
    with pytest.raises(UsageError, match=message):
        check_picture(*picture)
    with pytest.raises(UsageError, match=message):
        OffscreenRenderer(build_scene("GraspBall").model, *picture)


@pytest.mark.parametrize("make_env", [gym.make, gym.make_vec])
def test_environments_refuse_wrong_pictures_at_once(make_env):
    with pytest.raises(UsageError, match="unknown camera 'side'"):
        make_env(BALL, camera="side")
    with pytest.raises(UsageError, match="width is 0"):
        make_env(BALL, render_mode="rgb_array", width=0)


def test_numpy_integers_are_sizes():
    assert check_picture("hand", np.int32(1280), np.uint16(960)) == ("hand", 1280, 960)
