"""What a hand does between grasping and composing: it holds still, and eases its grip to a person's margin."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.skills import make_retention

Numbers = NDArray[np.float64]
SETTLE_STEPS = 15
"""Control steps in which a grasp comes to rest."""
SOFTEN_STEPS = 10
"""Control steps in which its squeeze is lowered."""


class EasedGrip:
    """Commands of N hands that have reached the object.

    A hand stays where it is, with the targets that it has; once the grasp has settled, how far its finger targets lie
    beyond the joints is lowered to the skill's share `HOLD_SQUEEZE`.

    Args:
        skill: Retention skill.
        num_envs: N.
        settle_steps: As `SETTLE_STEPS`.
        soften_steps: As `SOFTEN_STEPS`.

    Attributes:
        command: Normalised targets (N, 28).
    """

    def __init__(
        self, skill: str, num_envs: int, settle_steps: int = SETTLE_STEPS, soften_steps: int = SOFTEN_STEPS
    ) -> None:
        self._squeeze = make_retention(skill).HOLD_SQUEEZE
        self._settle_steps, self._soften_steps = settle_steps, soften_steps
        self.command = np.zeros((num_envs, hand.NUM_ACTIONS))
        self._grasp, self._reference = np.zeros((2, num_envs, hand.NUM_FINGER_JOINTS))

    def stay(self, arrived: NDArray[np.bool_], wrist: Numbers, fingers: Numbers) -> None:
        """Tells the hands of a mask (N,) to stay: wrist as measured (N, 6), finger targets (N, 22), normalised."""
        self.command[arrived] = np.concatenate([wrist, fingers], axis=1)[arrived]
        self._grasp[arrived] = self.command[arrived][:, hand.NUM_WRIST :]

    def ease(self, since: NDArray[np.int64], joints: Numbers) -> None:
        """Lowers the squeeze of the hands whose turn it is.

        Args:
            since: Control steps since they were told to stay (N,); negative where they weren't.
            joints: Measured finger joints (N, 22), normalised.
        """
        settle, soften = self._settle_steps, self._soften_steps
        settled = since == settle
        soft = joints + self._squeeze * (self._grasp - joints)
        self._reference[settled] = np.clip(soft, -1.0, 1.0)[settled]
        softening = (since >= settle) & (since < settle + soften)
        share = ((since - settle + 1) / soften)[:, None]
        fingers = self._grasp + share * (self._reference - self._grasp)
        self.command[softening, hand.NUM_WRIST :] = fingers[softening]
