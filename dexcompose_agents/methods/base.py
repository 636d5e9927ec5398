"""What a composition method is: two calls that turn observations of a composite task into actions (Eq. 1)."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

__all__ = ["CompositionMethod", "Observation"]

Observation = dict[str, npt.NDArray[np.float32]]
"""Composite observation of N worlds: ``task_a`` (N, a), ``task_b`` (N, b) and ``context`` (N, c)."""


@runtime_checkable
class CompositionMethod(Protocol):
    """A composition ``a_comp = F(o, a_A, a_B)`` (Eq. 1), batched over N worlds.

    A class that has these two methods and a ``name``, and is constructed as ``Class(pair, **options)``, can be
    evaluated by "module:Class" or through the entry-point group ``dexcompose.methods``.

    Two more attributes are used where they exist: ``selector`` (name of the selector that chose the finger mask, for
    the results table) and ``describe()`` (a JSON-able dict of what determines the method's actions: mask, hashes of
    weights; an evaluation is resumed only if it is unchanged).

    Evaluation speaks NumPy. The methods of this package also take observations of torch tensors and then answer with a
    tensor on their device.
    """

    name: str

    def reset(
        self, obs: Observation, info: dict[str, Any], env_ids: npt.NDArray[np.int64], seeds: npt.NDArray[np.int64]
    ) -> None:
        """Start new episodes in some worlds; the first call names all worlds and so fixes N.

        Args:
            obs: Observations of all N worlds (rows of worlds that were not reset are their current ones).
            info: Info of the reset.
            env_ids: The K worlds that start an episode, (K,).
            seeds: Seeds of their noise, (K,). All randomness of an episode must come from its seed, so that the result
                depends neither on the world nor on N.
        """

    def act(self, obs: Observation) -> npt.NDArray[np.float32]:
        """Normalised absolute position targets (N, 28) in [-1, 1] for one control step of all N worlds."""
