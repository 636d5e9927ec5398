"""What a composition must know of an environment: its columns, and where each interaction starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.composition.bounds import NORMALISED_PER_UNIT
from dexcompose_envs.errors import UsageError
from dexcompose_envs.skills import parse_chain
from dexcompose_envs.skills.chain import Chain

Layout = Mapping[str, Mapping[str, slice]]
"""`env.unwrapped.layout`: the columns of every term of every entry of an observation."""


@dataclass(frozen=True, eq=False)
class CompositionTask:
    """One retention skill and k >= 1 interactions in turn, or a single skill as the one thing to be done.

    Attributes:
        layout: Columns of every term of every entry of an observation.
        task_keys: What the interactions' policies read in turn.
        starts: Where the interactions start, normalised targets (k, 28).
        offsets: What is added to the actions of the interactions' policies, normalised (k, 28).
        is_composite: Whether an object is held meanwhile: only then do hold and transition precede an interaction.
    """

    layout: Layout
    task_keys: tuple[str, ...]
    starts: NDArray[np.float64]
    offsets: NDArray[np.float64]
    is_composite: bool

    @classmethod
    def of_name(cls, name: str) -> CompositionTask:
        """The task of a composite by name, such as "GraspBall-PushButton"; equal to that of its environment.

        Raises:
            UsageError: If there is no such composite.
        """
        chain = Chain.of(*parse_chain(name))
        if not chain.is_composite:
            raise UsageError(f"{name!r} is no composite; expected a name such as 'GraspBall-PushButton'")
        offsets = chain.offsets * NORMALISED_PER_UNIT
        return cls(chain.layout, chain.task_keys, hand.normalize(chain.start_poses), offsets, True)

    @classmethod
    def of_env(cls, env: Any) -> CompositionTask:
        """The task of an environment, wrapped or not; also looks inside sync and async vector environments.

        Raises:
            UsageError: If it is not an environment of this package.
        """
        bare = env.unwrapped
        layout, retention = _attribute(bare, "layout"), _attribute(bare, "retention")
        if layout is None:
            raise UsageError(f"{bare} has no observation layout; expected a DexCompose environment")
        keys = _attribute(bare, "task_keys")
        if not keys:  # a retention skill alone, which has no hold and transition
            nowhere = np.zeros((1, hand.NUM_ACTIONS))
            return cls(layout, ("task_a",), nowhere, nowhere, False)
        starts, offsets = (_attribute(bare, name) for name in ("interaction_starts", "interaction_offsets"))
        return cls(layout, tuple(keys), starts, offsets, retention is not None)


def _attribute(bare: Any, name: str) -> Any:
    value = getattr(bare, name, None)
    if value is None and isinstance(bare, VectorEnv) and hasattr(bare, "get_attr"):
        value = bare.get_attr(name)[0]
    return value
