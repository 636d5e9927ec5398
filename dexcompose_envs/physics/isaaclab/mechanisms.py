"""Springs that USD can't say, those that are no lines; they act as joint efforts.

An effort is computed from the state before each physics step, as MuJoCo computes passive forces. Lines, and tendons
along one joint, survive the way through USD.
"""

from __future__ import annotations

from typing import NamedTuple

import mujoco
from torch import Tensor


class Spring(NamedTuple):
    """The part of a joint's spring that is no line: a force of -x (k1 x + k2 x^2).

    Attributes:
        joint: Name of the joint.
        rest: Where the spring is at rest, m or rad.
        polynomial: k1 and k2, N/m^2 and N/m^3, or Nm/rad^2 and Nm/rad^3.
    """

    joint: str
    rest: float
    polynomial: tuple[float, float]

    def effort(self, position: Tensor) -> Tensor:
        """Force or torque (N,) at joint positions (N,)."""
        x = position - self.rest
        first, second = self.polynomial
        return -x * (first * x + second * x * x)


def springs_of(model: mujoco.MjModel) -> list[Spring]:
    """Springs of a model that are no lines."""
    springs = []
    for joint in range(model.njnt):
        polynomial = (float(model.jnt_stiffnesspoly[joint][0]), float(model.jnt_stiffnesspoly[joint][1]))
        if any(polynomial):
            rest = float(model.qpos_spring[model.jnt_qposadr[joint]])
            springs.append(Spring(model.joint(joint).name, rest, polynomial))
    return springs
