"""The composition of skills in one hand, Eqs. 7 to 12, once for the wrappers, the methods and for training.

Everything here is written to the array-API standard: the same lines serve NumPy on the host and torch on a device, and
nothing is read back from a device within a control step.
"""

from dexcompose_envs.composition.bounds import NORMALISED_PER_UNIT, bounded, normalised, preservation_command
from dexcompose_envs.composition.composer import Composer
from dexcompose_envs.composition.interactor import Interactor, Nominal
from dexcompose_envs.composition.masks import MaskArrays, OwnedDimensions, mask_arrays, writable
from dexcompose_envs.composition.plan import HOLD, INTERACT, TRANSITION, PhasePlan
from dexcompose_envs.composition.policies import TaskPolicy
from dexcompose_envs.composition.preserver import Preserver, Reference, Stabiliser
from dexcompose_envs.composition.task import CompositionTask, Layout

__all__ = [
    "HOLD",
    "INTERACT",
    "NORMALISED_PER_UNIT",
    "TRANSITION",
    "Composer",
    "CompositionTask",
    "Interactor",
    "Layout",
    "MaskArrays",
    "Nominal",
    "OwnedDimensions",
    "PhasePlan",
    "Preserver",
    "Reference",
    "Stabiliser",
    "TaskPolicy",
    "bounded",
    "mask_arrays",
    "normalised",
    "preservation_command",
    "writable",
]
