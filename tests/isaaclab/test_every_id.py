"""Every skill and pair on Isaac Lab's scene: resets, 50 steps, and resets again, two worlds on the CPU."""

import gymnasium as gym
import pytest

pytest.importorskip("isaaclab", reason="Isaac Lab is not installed; see `make isaaclab`")

from dexcompose_envs import PAIRS, SKILLS, env_id

from ..vector_contract import check_vector_env

NAMES = (*SKILLS, *("-".join(pair) for pair in PAIRS))


@pytest.mark.parametrize("name", NAMES)
def test_it_keeps_the_contract(name):
    venv = gym.make_vec(env_id(name), num_envs=2, backend="isaaclab", device="cpu").unwrapped
    check_vector_env(venv, name)
    venv.close()
