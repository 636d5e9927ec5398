"""Tests marked `rendering` are skipped where nothing can draw; how to draw is left to the package."""

import sys
from functools import cache

import pytest
from hypothesis import settings

# Physics and a busy machine make single examples slow without anything being wrong.
settings.register_profile("dexcompose", deadline=None)
settings.load_profile("dexcompose")


def pytest_collection_modifyitems(config, items):
    drawing = [item for item in items if item.get_closest_marker("rendering")]
    if not drawing:
        return
    from dexcompose_envs.errors import MachineError
    from dexcompose_envs.scene.rendering import choose_backend

    try:
        choose_backend()
    except MachineError as error:
        for item in drawing:
            item.add_marker(pytest.mark.skip(reason=str(error)))


@pytest.fixture(scope="session")
def held_library():
    """`held_library(skill)`: eight held states of a retention skill, made by its scripted expert; made once."""
    return _held_library


@cache
def _held_library(skill):
    import gymnasium as gym
    import numpy as np

    from dexcompose_envs import env_id, hand
    from dexcompose_envs.held_states import HeldStateLibrary, Manifest
    from dexcompose_envs.skills import make_expert, make_skill

    count, seed = 8, 500
    kwargs = {"terminate_on_success": False, "autoreset_mode": "Disabled"}
    venv = gym.make_vec(env_id(skill), num_envs=count, **kwargs)
    obs, _ = venv.reset(seed=seed)
    expert = make_expert(skill)
    expert.reset(obs, {}, range(count), range(seed, seed + count))
    success = np.zeros(count, bool)
    for _ in range(make_skill(skill).MAX_STEPS - 15):
        obs, _, _, _, info = venv.step(expert.act(obs))
        success = info["success"]
    assert success.all(), f"the expert of {skill} made no held states for the tests: {success}"
    columns = venv.unwrapped.held_columns()
    columns["reference"] = columns["control"][:, hand.NUM_WRIST :]
    columns["hold_target"] = venv.unwrapped.sensors()["object_position"]
    manifest = Manifest(skill, venv.unwrapped.model_hash, policy_hash="expert")
    venv.close()
    return HeldStateLibrary.from_columns(manifest, columns)


@pytest.fixture
def skills_restored():
    """Forgets what skills and ids a test registers."""
    import gymnasium as gym

    from dexcompose_envs import skills

    before, ids = dict(skills._SKILLS), set(gym.registry)
    yield
    skills._SKILLS.clear()
    skills._SKILLS.update(before)
    for id in set(gym.registry) - ids:
        del gym.registry[id]


@pytest.fixture
def dummy_skills(skills_restored):
    """Two skills of somebody else, registered for the test: HoldBlock and PressFlap, see `tests/dummies`."""
    import importlib.util
    from pathlib import Path

    from dexcompose_envs import register_skill

    for stem, name in (("hold_block", "HoldBlock"), ("press_flap", "PressFlap")):
        spec = importlib.util.spec_from_file_location(stem, Path(__file__).parent / "dummies" / f"{stem}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[stem] = module
        spec.loader.exec_module(module)
        register_skill(getattr(module, name))
