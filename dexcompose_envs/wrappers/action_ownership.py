"""`ActionOwnership`: the agent commands only the dimensions that a finger mask leaves to the interaction skill.

Eq. 12 of the method without residuals: `a = M_A * a_ref + M_B * a_agent`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from array_api_compat import array_namespace
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from dexcompose_envs.hand import ACTION_HIGH, ACTION_LOW, ACTION_NAMES, NUM_ACTIONS, NUM_FINGER_JOINTS, NUM_WRIST
from dexcompose_envs.observations import Array
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.wrappers.arrays import Constant, any_array, as_float32, check_array, is_on_host
from dexcompose_envs.wrappers.common import (
    AnyEnv,
    EpisodeListener,
    Observation,
    action_size,
    autoreset_mode,
    box,
    claimed_dimensions,
    last_observation,
    observation_layout,
    recordable,
    reset_mask_of,
)

Reference = Literal["hold"] | ArrayLike | Callable[[Any], Any]
"""What preserved joints follow: "hold", 22 joint targets in rad, or a function from observation to (..., 22) rad."""

_LOW, _HIGH = ACTION_LOW[NUM_WRIST:], ACTION_HIGH[NUM_WRIST:]
_LOWEST, _RANGE = Constant(_LOW), Constant(_HIGH - _LOW)


class ActionOwnership(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Gives the agent only the dimensions that B owns; the preserved joints follow a reference.

    The action becomes `Box(-1, 1, (28 - preserved joints,))`: the owned dimensions in `ACTION_NAMES` order, listed in
    the attribute `action_indices`. Put `BoundedResidual` around this wrapper, never inside it.

    Args:
        env: An environment with the full 28-dimensional action.
        mask: Preserved fingers, as a `FingerMask` or as text such as `"TH+RF+LF"`.
        reference: What the preserved joints follow. `"hold"` is the held state's reference hold action `q_ref`, read
            from the observation, so the episode must start from a held state. An array (22,) gives constant joint
            targets in rad. A callable maps each observation to targets (22,) in rad, clipped to the joint ranges; if it
            has `reset(num_envs)`, `reset_envs(env_ids)` or `seed_envs(seeds)`, it is told of resets.

    Raises:
        ValueError: On a bad mask or reference, on an environment whose action isn't the full one, and on actions of
            the wrong shape or that aren't finite.
    """

    def __init__(self, env: gym.Env[Any, Any], mask: str | FingerMask, reference: Reference = "hold") -> None:
        RecordConstructorArgs.__init__(self, _disable_deepcopy=True, mask=str(mask), reference=recordable(reference))
        gym.Wrapper.__init__(self, env)
        self._ownership = _Ownership(env, mask, reference)
        self._listener = EpisodeListener(reference, num_envs=1)
        self._observation: Observation | None = None
        self.mask = self._ownership.mask
        self.action_indices = self._ownership.indices
        self.action_space = box(self.action_indices.size)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the environment and tells the reference."""
        self._observation, info = self.env.reset(seed=seed, options=options)
        self._listener.reset(seed, None)
        return self._observation, info

    def step(self, action: ArrayLike) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps with the owned dimensions (D,) of the normalised action; the reference fills in the others."""
        full = self._ownership.compose(last_observation(self._observation, self), action, ())
        self._observation, reward, terminated, truncated, info = self.env.step(full)
        return self._observation, reward, terminated, truncated, info


class ActionOwnershipVector(VectorWrapper[Any, Any, Any, Any, Any], RecordConstructorArgs):
    """The twin of `ActionOwnership` for vector environments, in every autoreset mode.

    Around a torch environment actions are composed on its device, from torch or NumPy actions.

    Args:
        env: A vector environment with the full 28-dimensional action.
        mask: As for `ActionOwnership`.
        reference: As for `ActionOwnership`; a callable gets the batched observation and returns (N, 22) or (22,) rad,
            NumPy or torch. Around a torch environment its `reset_envs` gets boolean masks (N,), not numbers of worlds.

    Raises:
        ValueError: As for `ActionOwnership`; on a GPU numbers aren't checked here.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], mask: str | FingerMask, reference: Reference = "hold") -> None:
        RecordConstructorArgs.__init__(self, _disable_deepcopy=True, mask=str(mask), reference=recordable(reference))
        VectorWrapper.__init__(self, env)
        self._ownership = _Ownership(env, mask, reference)
        self._listener = EpisodeListener(reference, self.num_envs, autoreset_mode(env))
        self._observation: Observation | None = None
        self.mask = self._ownership.mask
        self.action_indices = self._ownership.indices
        self.single_action_space = box(self.action_indices.size)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the worlds, or those of `options["reset_mask"]`, and tells the reference."""
        reset_mask = reset_mask_of(options)
        self._observation, info = self.env.reset(seed=seed, options=options)
        self._listener.reset(seed, reset_mask)
        return self._observation, info

    def step(self, actions: ArrayLike | Array) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps with the owned dimensions (N, D) of the normalised actions; the reference fills in the others."""
        full = self._ownership.compose(last_observation(self._observation, self), actions, (self.num_envs,))
        self._observation, reward, terminated, truncated, info = self.env.step(full)
        self._listener.step(terminated | truncated)
        return self._observation, reward, terminated, truncated, info


class _Ownership:
    """The composition itself, for observations and actions with any leading batch axes."""

    def __init__(self, env: AnyEnv, mask: str | FingerMask, reference: Reference) -> None:
        self.mask = FingerMask.parse(mask)
        if action_size(env) != NUM_ACTIONS or claimed_dimensions(env) is not None:
            raise ValueError(
                f"{env} takes {action_size(env)} action dimensions; ActionOwnership expected all {NUM_ACTIONS} joint "
                "targets: wrap the environment itself and put BoundedResidual around ActionOwnership"
            )
        self.indices = np.flatnonzero(self.mask.action_mask_b())
        preserved = np.flatnonzero(self.mask.action_mask_a())
        self._joints = Constant(preserved - NUM_WRIST)
        # Where each of the 28 dimensions stands once the preserved ones are appended to the owned ones.
        self._order = Constant(np.argsort(np.concatenate([self.indices, preserved])))
        self._hold: slice | None = None
        self._constant: Constant | None = None
        self._function: Callable[[Any], Any] | None = None
        if isinstance(reference, str):
            if reference != "hold":
                raise ValueError(
                    f"reference is {reference!r}; expected 'hold', {NUM_FINGER_JOINTS} angles or a callable"
                )
            self._hold = observation_layout(env).get("context", {}).get("reference")
            if self._hold is None:
                raise ValueError(
                    f"{env} observes no reference; expected a scene with a held object for reference='hold'"
                )
        elif callable(reference):
            self._function = reference
        else:
            self._constant = Constant(_normalize_constant(reference))

    def compose(self, observation: Observation, action: ArrayLike | Array, batch: tuple[int, ...]) -> Array:
        """Full normalised action (*batch, 28) from the owned dimensions (*batch, D), where the observation lives."""
        like = any_array(observation)
        xp = array_namespace(like)
        owned = check_array("action", action, (*batch, self.indices.size), like)
        preserved = xp.take(self._reference(observation, batch), self._joints.like(like), axis=-1)
        preserved = xp.broadcast_to(preserved, (*batch, *preserved.shape[-1:]))
        return xp.take(xp.concat([owned, preserved], axis=-1), self._order.like(like), axis=-1)

    def _reference(self, observation: Observation, batch: tuple[int, ...]) -> Array:
        """Normalised joint targets, (*batch, 22) or (22,)."""
        like = any_array(observation)
        if self._constant is not None:
            return self._constant.like(like)
        if self._function is not None:
            targets = self._function(observation)
            shape = (NUM_FINGER_JOINTS,) if np.ndim(targets) == 1 else (*batch, NUM_FINGER_JOINTS)
            return _normalize(check_array("the reference function's result (rad)", targets, shape, like))
        hold = observation["context"][..., self._hold]
        if is_on_host(hold) and not as_float32(hold).any(axis=-1).all():
            raise ValueError(
                "the observed reference is all zeros, as in an episode that starts from scratch; reference='hold' "
                "expected a start from a held state (or pass joint targets as reference)"
            )
        return hold


def _normalize(targets: Array) -> Array:
    """Finger joint targets (..., 22) in rad to [-1, 1], clipped, float32."""
    xp = array_namespace(targets)
    wide = xp.astype(targets, xp.float64)
    normalised = 2.0 * (wide - _LOWEST.like(targets)) / _RANGE.like(targets) - 1.0
    return xp.astype(normalised.clip(-1.0, 1.0), xp.float32)


def _normalize_constant(reference: ArrayLike) -> NDArray[np.float32]:
    targets = check_array("reference (rad)", reference, (NUM_FINGER_JOINTS,))
    outside = np.flatnonzero((targets < _LOW - 1e-4) | (targets > _HIGH + 1e-4))
    if outside.size:
        i = int(outside[0])
        name = ACTION_NAMES[NUM_WRIST + i]
        raise ValueError(f"reference of {name} is {targets[i]:.4g} rad; expected {_LOW[i]:.4g} to {_HIGH[i]:.4g}")
    return _normalize(targets)
