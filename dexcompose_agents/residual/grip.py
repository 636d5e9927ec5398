"""How hard the fingers press on the held object, for the logs: a grip that never slips is easy to have by force."""

from __future__ import annotations

import torch
from torch import Tensor

from dexcompose_agents.runtime.devices import Observation
from dexcompose_envs.composition.task import Layout
from dexcompose_envs.observations import FORCE_SCALE


class PeakForce:
    """The largest contact force (N) of any finger on the held object, per episode of N worlds.

    A finger's force is the sum of its links' net forces. Contacts are observed without noise.
    """

    def __init__(self, layout: Layout, num_envs: int, device: str | torch.device) -> None:
        self._contact = layout["context"]["finger_contact"]
        self._peak = torch.zeros(num_envs, dtype=torch.float32, device=device)

    def begin(self, started: Tensor) -> None:
        """Forgets the episodes before, in the worlds where `started` (N,) is true."""
        self._peak = torch.where(started, 0.0, self._peak)

    def seen(self, obs: Observation) -> Tensor:
        """The peak (N,) so far, N, present observations included."""
        force = obs["context"][:, self._contact].amax(dim=1) / FORCE_SCALE
        self._peak = torch.maximum(self._peak, force)
        return self._peak
