"""Base policies and references of any kind behind one face: told when a world starts anew, asked once per step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from array_api_compat import is_numpy_array

from dexcompose_envs.errors import UsageError
from dexcompose_envs.observations import Array


@runtime_checkable
class TaskPolicy(Protocol):
    """A batched policy that reads one skill's observation, such as a trained base policy.

    It may have more, which is used where it is there: `reset(num_envs)` starts afresh with N worlds;
    `seed_envs(seeds, worlds)` seeds the noise of some worlds and starts a new episode there, `reset_envs(worlds)` only
    starts it; `hide_fingers(names)` says which fingers another skill owns. Worlds are named by a boolean mask (N,), to
    `reset_envs` by their numbers where arrays are NumPy's. If `act` takes a second argument it gets the worlds that
    act; the others' rows then mean nothing.
    """

    def act(self, task_obs: Array) -> Any:
        """Normalised actions (N, 28) for task observations (N, obs_dim)."""
        ...


PolicyLike = TaskPolicy | Callable[[Mapping[str, Array]], Any]
"""A base policy, or a function from the whole observation to actions (N, 28) or (28,)."""


class PolicyFace:
    """Calls a `TaskPolicy`, or a function of the whole observation (always, unless `reads_task`), as it wants.

    Raises:
        UsageError: If it is neither.
    """

    def __init__(self, policy: object, reads_task: bool = True) -> None:
        if not isinstance(policy, TaskPolicy) and not callable(policy):
            raise UsageError(f"base_policy is {policy!r}; expected a callable or an object with act(task_obs)")
        self.policy: Any = policy
        self._reads_task = reads_task and isinstance(policy, TaskPolicy)
        self._takes_worlds = self._reads_task and _num_arguments(getattr(policy, "act", None)) > 1
        self._seeds_worlds = _num_arguments(getattr(policy, "seed_envs", None)) > 1

    def reset(self, num_envs: int, seeds: Array) -> None:
        """Starts afresh in N worlds with these seeds (N,)."""
        if hasattr(self.policy, "reset"):
            self.policy.reset(num_envs)
        elif hasattr(self.policy, "reset_envs"):
            self.policy.reset_envs(np.arange(num_envs))
        if hasattr(self.policy, "seed_envs") and not self._seeds_worlds:
            self.policy.seed_envs(seeds)

    def start(self, worlds: Array, seeds: Array) -> None:
        """Starts a new episode in the worlds of a mask (N,), with these seeds (N,)."""
        if is_numpy_array(worlds) and not worlds.any():
            return
        if self._seeds_worlds:
            self.policy.seed_envs(seeds, worlds)
        elif hasattr(self.policy, "reset_envs"):
            self.policy.reset_envs(np.flatnonzero(worlds) if is_numpy_array(worlds) else worlds)

    def act(self, obs: Mapping[str, Array], key: str, worlds: Array) -> Any:
        """What the policy says, whatever it is."""
        if not self._reads_task:
            return self.policy(obs)
        return self.policy.act(obs[key], worlds) if self._takes_worlds else self.policy.act(obs[key])


def _num_arguments(function: Any) -> int:
    """How many arguments a function takes by position; 0 if it is none, or doesn't say."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 0
    return sum(parameter.kind <= parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)
