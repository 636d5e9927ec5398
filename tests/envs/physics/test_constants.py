"""What hidden physics do to a model: what MuJoCo itself derives, and nothing else."""

import copy

import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexcompose_envs import RETENTION_SKILLS
from dexcompose_envs.physics.constants import Constants
from dexcompose_envs.scene import build_scene

LOOKED_AT = ("cam_poscom0", "light_poscom0")
"""Cameras and lights that could follow a centre of mass; ours don't."""
WHOLE = ("body_subtreemass",)
"""Of the world as a whole, which moves nowhere, this isn't kept."""


def arrays(model):
    """Every array of a model by name."""
    values = {name: getattr(model, name) for name in dir(model) if not name.startswith("_")}
    return {name: np.array(value) for name, value in values.items() if isinstance(value, np.ndarray)}


@pytest.mark.parametrize("names", [(skill, "PushButton") for skill in RETENTION_SKILLS] + [(None, "PushButton")])
@pytest.mark.parametrize(("mass", "friction"), [(0.7, 0.4), (2.5, 0.9), (1.0, 0.65)])
def test_a_row_makes_the_model_that_mujoco_makes(names, mass, friction):
    scene = build_scene(*names)
    constants, made = Constants(scene.model), copy.copy(scene.model)
    row = constants.of(copy.copy(scene.model), mujoco.MjData(scene.model), mass, friction)
    constants.put(constants.places(made), row)

    expected = copy.copy(scene.model)
    if scene.chain.retention is not None:
        body = expected.body("object").id
        expected.body_mass[body] *= mass
        expected.body_inertia[body] *= mass
        mujoco.mj_setConst(expected, mujoco.MjData(expected))
    for geom in range(expected.ngeom):
        if expected.geom(geom).name.startswith(("C_", "a_")) and expected.geom_contype[geom]:
            expected.geom_friction[geom, 0] = friction
    there, wanted = arrays(made), arrays(expected)
    for name in wanted:
        if name in LOOKED_AT:
            continue
        if name in WHOLE:
            there[name][0] = wanted[name][0]
        np.testing.assert_allclose(there[name], wanted[name], rtol=1e-12, err_msg=name)


@given(mass=st.floats(0.5, 5.0), friction=st.floats(0.1, 1.5))
def test_rows_tell_mass_and_friction(mass, friction):
    scene = build_scene("PickStick")
    constants = Constants(scene.model)
    rows = np.stack([constants.of(copy.copy(scene.model), mujoco.MjData(scene.model), mass, friction)])
    assert constants.mass(rows) == pytest.approx(0.2 * mass)
    assert constants.friction(rows) == pytest.approx(friction)


def test_the_scene_itself_is_never_changed():
    model = build_scene("GraspBall").model
    before = arrays(model)
    constants = Constants(model)
    constants.of(copy.copy(model), mujoco.MjData(model), 2.0, 0.4)
    after = arrays(model)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    assert constants.mass(constants.nominal()[None]) == pytest.approx(0.15)
