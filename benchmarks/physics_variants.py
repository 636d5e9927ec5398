"""Variants of the physics: what is changed in a compiled model, at run time.

"new" is the product's model as it is; "old" are the settings before `mjINT_DISCRETE`; "discrete" sets what the new
physics set, for a model that hasn't got them. The order of the dofs (the object's before the hand's) can't be changed
at run time; it makes a step faster and changes trajectories by rounding alone, so the "old" of a model that has it is
old in all but some of its time. A further variant is one line in `VARIANTS`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexcompose_envs.hand import HAND_BIT, OBJECT_BIT

Change = Callable[[mujoco.MjModel], None]
ISLANDS_OFF = int(mujoco.mjtDisableBit.mjDSBL_ISLAND)
DISCRETE = getattr(mujoco.mjtIntegrator, "mjINT_DISCRETE", None)
"""The integrator that solves for the end of the step; None where MuJoCo is older than it."""


def as_it_is(model: mujoco.MjModel) -> None:
    """Changes nothing."""


def options(**values: Any) -> Change:
    """A change of `model.opt` alone."""

    def change(model: mujoco.MjModel) -> None:
        for name, value in values.items():
            setattr(model.opt, name, value)

    return change


def set_back(model: mujoco.MjModel) -> None:
    """The old physics: implicitfast, dense factors, islands, and contacts with the ball and the rod of condim 6."""
    option = model.opt
    option.integrator, option.timestep = mujoco.mjtIntegrator.mjINT_IMPLICITFAST, 0.005
    option.jacobian = mujoco.mjtJacobian.mjJAC_AUTO
    option.iterations, option.ls_iterations = 20, 50
    option.disableflags &= ~ISLANDS_OFF
    of_hand = colliding(model, HAND_BIT)
    model.geom_priority[of_hand], model.geom_condim[of_hand], model.geom_friction[of_hand, 0] = 0, 4, 0.6
    model.geom_condim[colliding(model, OBJECT_BIT)] = 6


def discrete(model: mujoco.MjModel) -> None:
    """The new physics but for the order of the dofs; a ValueError if MuJoCo has no such integrator."""
    if DISCRETE is None:
        raise ValueError(f"MuJoCo {mujoco.__version__} has no mjINT_DISCRETE; expected at least 3.13")
    option = model.opt
    option.integrator, option.timestep = DISCRETE, 0.005
    option.jacobian = mujoco.mjtJacobian.mjJAC_SPARSE
    option.iterations, option.ls_iterations = 50, 50
    option.disableflags |= ISLANDS_OFF
    of_hand = colliding(model, HAND_BIT)
    model.geom_priority[of_hand], model.geom_condim[of_hand], model.geom_friction[of_hand, 0] = 1, 4, 0.65


VARIANTS: dict[str, Change] = {
    "new": as_it_is,
    "old": set_back,
    "discrete": discrete,
    "8 ms": options(timestep=0.008),
    "pyramidal": options(cone=mujoco.mjtCone.mjCONE_PYRAMIDAL),
}
"""Name -> what it changes."""
SENSORS_IN_EACH_STEP = ("old",)
"""Variants that compute sensors in each physics step; the others do so in the last one of a control step only."""


def colliding(model: mujoco.MjModel, bit: int) -> NDArray[np.bool_]:
    """Geoms (ngeom,) of one kind: those whose contype has the bit `hand.HAND_BIT` or `hand.OBJECT_BIT`."""
    return np.asarray((model.geom_contype & bit) != 0)


def variant(model: mujoco.MjModel, *changes: Change) -> mujoco.MjModel:
    """A copy of a model with some changes, one after the other."""
    other = copy.copy(model)
    for change in changes:
        change(other)
    return other


def fine(timestep: float) -> Change:
    """Small physics steps (s), each solved to the end: the reference of a variant, whose integrator stays."""
    return options(timestep=timestep, iterations=200, ls_iterations=200, tolerance=1e-12)


@contextmanager
def changed(models: Sequence[mujoco.MjModel], change: Change) -> Iterator[None]:
    """Changes models in place for a while; afterwards all their arrays and options are as before."""
    before = [copy.copy(model) for model in models]
    try:
        for model in models:
            change(model)
        yield
    finally:
        for model, old in zip(models, before, strict=True):
            _put_back(model, old)
            _put_back(model.opt, old.opt)


def _put_back(thing: Any, before: Any) -> None:
    for name in dir(thing):
        value = getattr(thing, name)
        if name.startswith("_") or callable(value):
            continue
        if isinstance(value, np.ndarray):
            np.copyto(value, getattr(before, name))
        elif isinstance(value, (int, float)) and value != getattr(before, name):
            setattr(thing, name, getattr(before, name))
