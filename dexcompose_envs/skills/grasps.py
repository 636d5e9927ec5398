"""Fingertip grasps of the retention skills, as closing postures in the palm frame.

The postures came from inverse kinematics on chosen contact points, then a cross-entropy search that balanced the
closing depths so that the object stays when the index finger lets go. They are targets of the position actuators: the
fingers meet the object before they reach them, and the difference is the grasp force.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Grasp:
    """One grasp.

    Attributes:
        palm_point: Object centre in the palm body's frame (3,), m.
        euler: Wrist Euler angles z y x (3,) at zero object yaw, rad.
        approach: Where the hand comes from, relative to the grasp pose (3,), m.
        preshape: Finger joint targets (22,) before closing, rad.
        close: Finger joint targets (22,) of the closed grasp, rad.
        follows_yaw: Whether the wrist turns with the object.
    """

    palm_point: NDArray[np.float64]
    euler: NDArray[np.float64]
    approach: NDArray[np.float64]
    preshape: NDArray[np.float64]
    close: NDArray[np.float64]
    follows_yaw: bool = False


# fmt: off
GRASPS = {
    "PickStick": Grasp(
        palm_point=np.array([0.012, -0.0736, 0.1033]),
        euler=np.array([-0.0175, 0.126, 0.0237]),
        approach=np.array([0.0, 0.0, 0.07]),
        preshape=np.array(
            [0.161, 0.663, 0.431, 0.387,
             0.25, 0.697, 0.445, 0.391,
             0.24, 0.646, 0.438, 0.395,
             0.118, 0.028, 0.62, 0.279, 0.277,
             0.73, 1.178, 0.209, 0.524, 0.0,]
        ),
        close=np.array(
            [0.284, 0.711, 0.734, 0.612,
             0.349, 0.859, 0.823, 0.654,
             0.349, 0.764, 0.781, 0.644,
             0.006, 0.334, 0.758, 0.739, 0.611,
             0.885, 1.14, 0.02, 0.008, -0.004,]
        ),
        follows_yaw=True,
    ),
    "GraspBall": Grasp(
        palm_point=np.array([0.0105, -0.0786, 0.0854]),
        euler=np.array([-0.0995, -0.0183, 0.2018]),
        approach=np.array([0.0, 0.0, 0.07]),
        preshape=np.array(
            [0.349, 1.225, 0.023, 0.021,
             0.349, 0.86, 0.307, 0.263,
             -0.116, 1.151, 0.0, 0.0,
             0.0, 0.037, 0.74, 0.749, 0.604,
             -0.494, 1.222, 0.209, -0.351, -1.55,]
        ),
        close=np.array(
            [0.213, 1.164, 0.376, 0.309,
             0.349, 0.967, 0.698, 0.555,
             0.349, 1.024, 0.674, 0.461,
             0.54, 0.315, 0.565, 0.993, 0.809,
             0.277, 1.222, 0.158, -0.149, -0.853,]
        ),
    ),
}
# fmt: on
