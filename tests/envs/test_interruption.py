"""Ctrl-C at any moment, errors on threads, closed and forked environments: nothing crashes, nothing is half done."""

import subprocess
import sys

import gymnasium as gym
import mujoco
import numpy as np
import pytest

from dexcompose_envs.errors import StepError, UsageError
from dexcompose_envs.physics import make_engine
from dexcompose_envs.physics.workers import Workers
from dexcompose_envs.scene import build_scene

BALL = "DexCompose/GraspBall-v0"
MODEL = mujoco.MjModel.from_xml_string("<mujoco/>")

# What every process below needs: 64 worlds on 4 threads, whose starts are computed on threads, too.
PRELUDE = f"""
import gymnasium as gym, numpy as np, os, random, signal, sys, threading
import dexcompose_envs
from dexcompose_envs.errors import StepError
venv = gym.make_vec("{BALL}", num_envs=64, num_threads=4).unwrapped
action = np.zeros((64, 28), np.float32)
def go_on(start=None):
    venv.reset(seed=3) if start is None else venv.set_state(start)
    venv.step(action)
    return venv.get_state()
expected = go_on()
venv.reset(seed=3)
start = venv.get_state()
"""


def printed(code):
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
    return done.stdout.split()


def test_ctrl_c_at_any_moment_leaves_a_working_environment():
    code = """
random.seed(0)
signal.signal(signal.SIGALRM, signal.default_int_handler)  # as Ctrl-C does
interrupted = refused = 0
for i in range(40):
    try:
        # Again and again: Python drops an exception that strikes within a finaliser.
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.001, 0.04), 0.5)
        venv.reset(seed=5)
        while True:
            venv.step(action)
    except KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, 0)
        interrupted += 1
    if i % 4 == 0:
        try:
            venv.step(action)
        except StepError:
            refused += 1
    assert np.array_equal(go_on(start if i % 2 else None), expected)
print(interrupted, refused > 0)
"""
    assert printed(code) == ["40", "True"]


def test_a_forked_process_steps_on_threads_of_its_own():
    code = """
import multiprocessing
def child():
    sys.exit(0 if np.array_equal(go_on(), expected) else 3)
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join(60)
print(process.exitcode, np.array_equal(go_on(), expected))
venv.close()
"""
    assert printed(code) == ["0", "True"]


def test_an_engine_whose_step_fails_is_as_before(monkeypatch):
    engine = make_engine("mujoco", build_scene("GraspBall"), 6, 3)
    targets = np.zeros((6, 28))
    engine.step(targets)
    state, sensors = engine.get_state(), engine.sensordata.copy()
    with pytest.raises(IndexError):
        engine.step(targets[:4])  # two worlds too few: the threads that step these fail
    np.testing.assert_array_equal(engine.get_state(), state)
    np.testing.assert_array_equal(engine.sensordata, sensors)
    engine.step(targets)
    assert (engine.get_state()[:, 0] > state[:, 0]).all()
    engine.close()


def test_an_error_of_our_own_in_the_middle_of_a_step_wants_a_reset(monkeypatch):
    venv = gym.make_vec(BALL, num_envs=2, num_threads=1)
    venv.reset(seed=0)
    with pytest.raises(UsageError, match="action"):
        venv.step(np.zeros((2, 27)))
    venv.step(np.zeros((2, 28)))  # what was refused has done nothing
    judge = venv.unwrapped.core.judge
    with monkeypatch.context() as patch:
        patch.setattr(judge, "judge", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            venv.step(np.zeros((2, 28)))
    with pytest.raises(StepError, match="after an interrupted one; expected a reset"):
        venv.step(np.zeros((2, 28)))
    with pytest.raises(UsageError, match="expected it to start all of them"):
        venv.reset(options={"reset_mask": np.array([True, False])})
    venv.reset()
    venv.step(np.zeros((2, 28)))
    venv.close()


@pytest.mark.parametrize("make", [lambda: gym.make(BALL).unwrapped, lambda: gym.make_vec(BALL, num_envs=2)])
def test_a_closed_environment_says_so(make):
    env = make()
    env.reset(seed=0)
    env.close()
    env.close()
    with pytest.raises(StepError, match="expected a reset"):
        env.step(env.action_space.sample())
    with pytest.raises(StepError, match="the environment is closed; expected a new one"):
        env.reset()


def test_every_index_is_worked_once_and_errors_reach_the_caller():
    workers = Workers(MODEL, 3)
    seen = np.zeros(50, int)

    def work(data, index):
        seen[index] += 1

    workers.run(50, work)
    assert (seen == 1).all()
    workers.run(50, work, least=100)  # too few for a thread
    assert (seen == 2).all()
    with pytest.raises(ZeroDivisionError):
        workers.run(50, lambda data, index: 1 // (index - 20))
    workers.run(50, work)
    assert (seen == 3).all()
    workers.close()
    with pytest.raises(StepError, match="closed"):
        workers.run(1, work)


def test_threads_never_share_data():
    import threading
    import time

    workers, users = Workers(MODEL, 4), {}

    def work(data, index):
        users.setdefault(id(data), set()).add(threading.get_ident())
        time.sleep(0.001)

    workers.run(40, work)
    assert len(users) > 1
    assert all(len(threads) == 1 for threads in users.values())
    workers.close()


@pytest.mark.parametrize("count", [0, -1, 1.0, 1.5, True, "2", None])
@pytest.mark.parametrize("name", ["num_worlds", "num_threads"])
def test_counts_are_whole_numbers(name, count):
    if name == "num_threads" and count is None:
        count = np.float64(2)
    with pytest.raises(UsageError, match=f"{name} is .*; expected a whole number of at least 1"):
        make_engine("mujoco", build_scene("GraspBall"), **{"num_worlds": 2, "num_threads": 2, name: count})
