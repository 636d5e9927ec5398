"""`BoundedResidual`: the agent corrects a base policy instead of replacing it.

Eqs. 10 and 11 of the method: `a_exec = pi(o) + bound * r`, with the agent's `r` in [-1, 1]. A network that ends in a
tanh gives the paper's `beta * tanh(.)`; anything outside [-1, 1] is clipped, so the correction keeps its bound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from array_api_compat import array_namespace
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from dexcompose_envs.hand import NUM_ACTIONS
from dexcompose_envs.observations import Array
from dexcompose_envs.wrappers.arrays import Constant, any_array, as_float32, check_array
from dexcompose_envs.wrappers.common import (
    AnyEnv,
    EpisodeListener,
    Observation,
    action_size,
    autoreset_mode,
    box,
    claimed_dimensions,
    last_observation,
    recordable,
    reset_mask_of,
    wrapper_chain,
)


@runtime_checkable
class TaskPolicy(Protocol):
    """A batched policy that reads one task's observation, such as a skill's base policy."""

    def act(self, task_obs: Array) -> Any:
        """Normalised actions (N, 28) for task observations (N, obs_dim)."""
        ...


BasePolicy = TaskPolicy | Callable[[Any], Any]


class BoundedResidual(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Makes the action a residual in [-1, 1] that is scaled by a bound and added to a base policy's action.

    The executed action is `clip(base + bound * residual, -1, 1)`; a zero residual executes exactly the base policy's
    action. The base policy is asked once per control step. Around `ActionOwnership` the residual has the owned
    dimensions only; the base policy may still return all 28, of which the owned ones are taken.

    Args:
        env: An environment with normalised joint targets as action, or an `ActionOwnership` around one.
        base_policy: Either an object with `act(task_obs (N, obs_dim)) -> (N, 28)`, which reads the observation's
            `task_b` (or `task_a`, where there is no `task_b`), or a callable that gets the whole observation and
            returns (28,) or (1, 28). It may have `reset(num_envs)`, `reset_envs(env_ids)` and `seed_envs(seeds)` and is
            then told of resets; its noise is seeded as the worlds are.
        bound: Largest correction in normalised units, at least 0: one number, or one for each of the 28 dimensions
            (or of the residual's own).

    Raises:
        ValueError: On a bad bound, on an environment that already has a residual, and on residuals or base actions of
            the wrong shape or that aren't finite.
    """

    def __init__(self, env: gym.Env[Any, Any], base_policy: BasePolicy, bound: ArrayLike) -> None:
        RecordConstructorArgs.__init__(self, _disable_deepcopy=True, base_policy=base_policy, bound=recordable(bound))
        gym.Wrapper.__init__(self, env)
        self._residual = _Residual(env, base_policy, bound)
        self._listener = EpisodeListener(base_policy, num_envs=1)
        self._observation: Observation | None = None
        self.action_indices = self._residual.indices
        self.bound = self._residual.bound
        self.action_space = box(self.action_indices.size)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the environment and the base policy."""
        self._observation, info = self.env.reset(seed=seed, options=options)
        self._listener.reset(seed, None)
        return self._observation, info

    def step(self, action: ArrayLike) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps with the base policy's action, corrected by the residual (D,)."""
        executed = self._residual.compose(last_observation(self._observation, self), action, ())
        self._observation, reward, terminated, truncated, info = self.env.step(executed)
        return self._observation, reward, terminated, truncated, info


class BoundedResidualVector(VectorWrapper[Any, Any, Any, Any, Any], RecordConstructorArgs):
    """The twin of `BoundedResidual` for vector environments, in every autoreset mode.

    Around a torch environment actions are composed on its device, from torch or NumPy residuals.

    Args:
        env: A vector environment with normalised joint targets as action, or an `ActionOwnershipVector` around one.
        base_policy: As for `BoundedResidual`; a callable gets the batched observation and returns (N, 28) or (28,).
            Actions may be NumPy or torch. Around a torch environment a base policy reads tensors, and its `reset_envs`
            gets boolean masks (N,), not numbers of worlds.
        bound: As for `BoundedResidual`.

    Raises:
        ValueError: As for `BoundedResidual`; on a GPU numbers aren't checked here.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], base_policy: BasePolicy, bound: ArrayLike) -> None:
        RecordConstructorArgs.__init__(self, _disable_deepcopy=True, base_policy=base_policy, bound=recordable(bound))
        VectorWrapper.__init__(self, env)
        self._residual = _Residual(env, base_policy, bound)
        self._listener = EpisodeListener(base_policy, self.num_envs, autoreset_mode(env))
        self._observation: Observation | None = None
        self.action_indices = self._residual.indices
        self.bound = self._residual.bound
        self.single_action_space = box(self.action_indices.size)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the worlds, or those of `options["reset_mask"]`, and the base policy's state for them."""
        reset_mask = reset_mask_of(options)
        self._observation, info = self.env.reset(seed=seed, options=options)
        self._listener.reset(seed, reset_mask)
        return self._observation, info

    def step(self, actions: ArrayLike | Array) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps with the base policy's actions, corrected by the residuals (N, D)."""
        executed = self._residual.compose(last_observation(self._observation, self), actions, (self.num_envs,))
        self._observation, reward, terminated, truncated, info = self.env.step(executed)
        self._listener.step(terminated | truncated)
        return self._observation, reward, terminated, truncated, info


class _Residual:
    """The composition itself, for observations and actions with or without a batch axis."""

    def __init__(self, env: AnyEnv, base_policy: BasePolicy, bound: ArrayLike) -> None:
        size = action_size(env)
        claimed = claimed_dimensions(env)
        self.indices = np.arange(NUM_ACTIONS) if claimed is None else claimed
        if any(isinstance(layer, BoundedResidual | BoundedResidualVector) for layer in wrapper_chain(env)):
            raise ValueError(f"{env} already acts by a residual; expected one BoundedResidual only")
        if size != self.indices.size:
            raise ValueError(f"{env} takes {size} action dimensions; BoundedResidual expected {self.indices.size}")
        if not isinstance(base_policy, TaskPolicy) and not callable(base_policy):
            raise ValueError(f"base_policy is {base_policy!r}; expected a callable or an object with act(task_obs)")
        self._act = base_policy.act if isinstance(base_policy, TaskPolicy) else None
        self._policy = base_policy
        self.bound = self._check_bound(bound)
        self._bound, self._indices = Constant(self.bound), Constant(self.indices)

    def compose(self, observation: Observation, residual: ArrayLike | Array, batch: tuple[int, ...]) -> Array:
        """Executed action (*batch, D) from the residual (*batch, D), one call of the base policy."""
        like = any_array(observation)
        correction = check_array("residual action", residual, (*batch, self.indices.size), like)
        base = self._base_action(observation, like, batch).clip(-1.0, 1.0)
        return (base + self._bound.like(like) * correction.clip(-1.0, 1.0)).clip(-1.0, 1.0)

    def _base_action(self, observation: Observation, like: Array, batch: tuple[int, ...]) -> Array:
        if self._act is not None:
            task = observation["task_b" if "task_b" in observation else "task_a"]
            action = as_float32(self._act(task if batch else task[None]), like)
        else:
            assert callable(self._policy)
            action = as_float32(self._policy(observation), like)
        if not batch and action.ndim == 2 and action.shape[0] == 1:
            action = action[0]
        size = NUM_ACTIONS if action.shape[-1:] == (NUM_ACTIONS,) else self.indices.size
        shape = (size,) if action.ndim == 1 else (*batch, size)
        action = check_array("the base policy's action", action, shape, like)
        if size == self.indices.size:
            return action
        return array_namespace(like).take(action, self._indices.like(like), axis=-1)

    def _check_bound(self, bound: ArrayLike) -> NDArray[np.float32]:
        """The bound of each residual dimension (D,)."""
        shape = np.shape(bound)
        if shape not in ((), (NUM_ACTIONS,), self.indices.shape):
            raise ValueError(f"bound has shape {shape}; expected one number or {NUM_ACTIONS} of them")
        values = check_array("bound", bound, shape)
        if (values < 0).any():
            raise ValueError(f"bound is {values.min()}; expected numbers of at least 0")
        if values.shape == (NUM_ACTIONS,):
            return values[self.indices]
        return np.broadcast_to(values, self.indices.shape).copy()
