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
    "GraspBall": Grasp(
        palm_point=np.array([0.0105, -0.0786, 0.0854]),
        euler=np.array([-0.0995, -0.0183, 0.2018]),
        approach=np.array([0.0, 0.0, 0.07]),
        preshape=np.array(
            [0.349, 1.225, 0.023, 0.021,
             0.349, 0.86, 0.307, 0.263,
             -0.116, 1.151, 0.0, 0.0,
             0.0, 0.037, 0.74, 0.749, 0.604,
             -0.475, 1.188, 0.114, -0.276, -1.537,]
        ),
        close=np.array(
            [0.213, 1.164, 0.376, 0.309,
             0.349, 0.967, 0.698, 0.555,
             0.349, 1.024, 0.674, 0.461,
             0.54, 0.315, 0.565, 0.993, 0.809,
             0.292, 1.222, 0.125, -0.118, -0.859,]
        ),
    ),
}
# fmt: on
