"""The contract that vector environments keep on every engine; on Isaac Lab's see `tests/isaaclab/test_every_id.py`."""

import gymnasium as gym
import pytest

from dexcompose_envs import PAIRS, SKILLS, env_id

from ..vector_contract import check_vector_env

NAMES = (*SKILLS, *("-".join(pair) for pair in PAIRS))


@pytest.mark.parametrize("name", NAMES)
def test_native_mujoco_keeps_it(name):
    venv = gym.make_vec(env_id(name), num_envs=2).unwrapped
    check_vector_env(venv, name)
    venv.close()


def test_mujoco_warp_keeps_it():
    pytest.importorskip("mujoco_warp")
    venv = gym.make_vec(env_id("PickStick-OpenDoor"), num_envs=2, backend="warp", device="cpu").unwrapped
    check_vector_env(venv, "PickStick-OpenDoor", steps=8)
    venv.close()
