"""Springs that USD can't say: those that are no lines, and tendons along one joint. They act as joint efforts.

An effort is computed from the state before each physics step, as MuJoCo computes passive forces.
"""

from __future__ import annotations

from typing import NamedTuple

import mujoco
import torch
from torch import Tensor


class Spring(NamedTuple):
    """Forces along one joint: -x (k1 x + k2 x^2) of a polynomial spring and those of springs with slack.

    Attributes:
        joint: Name of the joint.
        rest: Where the polynomial spring is at rest, m or rad.
        polynomial: k1 and k2, N/m^2 and N/m^3, or Nm/rad^2 and Nm/rad^3.
        slack: Of each tendon: coefficient of the joint, stiffness, and the lengths between which it is slack.
    """

    joint: str
    rest: float
    polynomial: tuple[float, float]
    slack: tuple[tuple[float, float, float, float], ...]

    def effort(self, position: Tensor) -> Tensor:
        """Force or torque (N,) at joint positions (N,)."""
        x = position - self.rest
        first, second = self.polynomial
        effort = -x * (first * x + second * x * x)
        for coefficient, stiffness, shortest, longest in self.slack:
            length = coefficient * position
            stretched = length - torch.clamp(length, shortest, longest)
            effort = effort - coefficient * stiffness * stretched
        return effort


def springs_of(model: mujoco.MjModel) -> list[Spring]:
    """Springs of a model that its USD hasn't.

    Raises:
        ValueError: If there is a tendon with stiffness along more than one joint.
    """
    tendons: dict[int, list[tuple[float, float, float, float]]] = {}
    for tendon in range(model.ntendon):
        first, count = int(model.tendon_adr[tendon]), int(model.tendon_num[tendon])
        if count != 1 or model.wrap_type[first] != mujoco.mjtWrap.mjWRAP_JOINT:
            raise ValueError(f"tendon {model.tendon(tendon).name!r} is along {count} things; expected one joint")
        slack = (float(model.tendon_lengthspring[tendon][0]), float(model.tendon_lengthspring[tendon][1]))
        spring = (float(model.wrap_prm[first]), float(model.tendon_stiffness[tendon]), *slack)
        tendons.setdefault(int(model.wrap_objid[first]), []).append(spring)
    springs = []
    for joint in range(model.njnt):
        polynomial = (float(model.jnt_stiffnesspoly[joint][0]), float(model.jnt_stiffnesspoly[joint][1]))
        ropes = tuple(tendons.get(joint, ()))
        if any(polynomial) or ropes:
            rest = float(model.qpos_spring[model.jnt_qposadr[joint]])
            springs.append(Spring(model.joint(joint).name, rest, polynomial, ropes))
    return springs
