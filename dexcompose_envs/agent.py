"""Whatever acts: scripted experts, base policies, teleoperators and composition methods share one protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dexcompose_envs.observations import Array


@runtime_checkable
class Agent(Protocol):
    """Acts in N worlds at once and keeps its own state for each.

    All randomness of an episode comes from its seed, so that a result depends neither on the world nor on N. Arrays are
    NumPy's, or torch tensors where the environment gives those; actions are of the kind that observations came as.

    An agent to whom acting is dear may have a third method, `idle(env_ids)`: until these worlds begin an episode again,
    nobody reads their actions.
    """

    name: str

    def reset(
        self, obs: Mapping[str, Array], info: Mapping[str, Any], env_ids: NDArray[np.int64], seeds: NDArray[np.int64]
    ) -> None:
        """Begins episodes in the worlds `env_ids` (K,), whose noise has `seeds` (K,); the first call names all N.

        `obs` (key -> (N, size)) and `info` are those of all N worlds.
        """

    def act(self, obs: Mapping[str, Array]) -> Array:
        """Normalised position targets (N, 28) in [-1, 1] for one control step of all N worlds."""
