"""How long an evaluated episode lasts, and what its end is called."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dexcompose_envs.episodes.phases import ONGOING
from dexcompose_envs.rollouts import Moment, Watcher


class UntilDecided(Watcher):
    """Ends an episode as soon as its outcome is known: a failed one need not wait for the time limit."""

    def step(self, moment: Moment) -> NDArray[np.bool_]:
        """Worlds (N,) that are through."""
        return moment.ended | (np.asarray(moment.info["outcome"]) != ONGOING)
