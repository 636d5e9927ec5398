"""What the wrappers share: facts about the wrapped environment, and news of resets for batched policies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from array_api_compat import is_torch_array
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from dexcompose_envs.arrays import fresh
from dexcompose_envs.observations import Array
from dexcompose_envs.wrappers.arrays import as_mask

AnyEnv = gym.Env[Any, Any] | VectorEnv[Any, Any, Any]
Observation = Mapping[str, Array]
Seed = int | Sequence[int | None] | None


def box(size: int) -> gym.spaces.Box:
    """The space of `size` normalised actions."""
    return gym.spaces.Box(-1.0, 1.0, (size,), np.float32)


def recordable(value: object) -> object:
    """An argument as `RecordConstructorArgs` should keep it: arrays as lists, so that specs can be written as JSON."""
    return value.tolist() if isinstance(value, np.ndarray) or is_torch_array(value) else value


def wrapper_chain(env: AnyEnv) -> Iterator[Any]:
    """The environment, then what it wraps, down to the bare one."""
    layer: Any = env
    while layer is not None:
        yield layer
        layer = getattr(layer, "env", None)


def claimed_dimensions(env: AnyEnv) -> NDArray[np.intp] | None:
    """Indices into the 28-vector that the outermost of our wrappers takes as action; None if there is none."""
    for layer in wrapper_chain(env):
        indices = layer.__dict__.get("action_indices")
        if indices is not None:
            return np.asarray(indices)
    return None


def action_size(env: AnyEnv) -> int:
    """Number of action dimensions of a single environment, or of each world of a vector environment.

    Raises:
        ValueError: If the actions aren't a flat Box.
    """
    space = env.single_action_space if isinstance(env, VectorEnv) else env.action_space
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        raise ValueError(f"action space is {space}; expected a flat Box of normalised joint targets")
    return space.shape[0]


def observation_layout(env: AnyEnv) -> Mapping[str, Mapping[str, slice]]:
    """Where each observation term stands: key -> term -> slice. Also looks inside sync and async vector environments.

    Raises:
        ValueError: If the environment has no `layout`.
    """
    bare: Any = env.unwrapped
    layout = getattr(bare, "layout", None)
    if layout is None and isinstance(bare, VectorEnv) and hasattr(bare, "get_attr"):
        layout = bare.get_attr("layout")[0]
    if layout is None:
        raise ValueError(f"{bare} has no observation layout; expected a DexCompose environment")
    return layout


def last_observation(observation: Observation | None, wrapper: object) -> Observation:
    """The observation to act on.

    Raises:
        gymnasium.error.ResetNeeded: If there is none yet.
    """
    if observation is None:
        raise ResetNeeded(f"{type(wrapper).__name__}.step was called before reset")
    return observation


class EpisodeListener:
    """Tells a policy that keeps state per world (history, action chunk, noise) when worlds start a new episode.

    It may have any of `reset(num_envs)`, `reset_envs(worlds)` and `seed_envs(seeds)`; what it lacks isn't called.
    `reset_envs` gets the worlds' numbers where flags are NumPy arrays, and isn't called for none. Where flags are torch
    tensors it gets a boolean mask (N,) at every step, possibly without a single True: asking would stall a GPU.

    Args:
        policy: The policy, or anything else to be told.
        num_envs: Number of worlds.
        autoreset_mode: When finished worlds start again; `DISABLED` for a single environment.
    """

    def __init__(self, policy: object, num_envs: int, autoreset_mode: AutoresetMode = AutoresetMode.DISABLED) -> None:
        self._policy = policy
        self._num_envs = num_envs
        self._mode = autoreset_mode
        self._finished: Array | None = None

    def reset(self, seed: Seed, reset_mask: Array | None) -> None:
        """Passes on a call of `reset`: of all worlds, whose noise is then seeded as the worlds are, or of some."""
        if reset_mask is not None:
            if self._finished is not None:
                self._finished = self._finished & ~as_mask(reset_mask, self._finished)
            self._restart(reset_mask)
            return
        self._finished = None
        if hasattr(self._policy, "reset"):
            self._policy.reset(self._num_envs)
        else:
            self._restart(np.ones(self._num_envs, dtype=np.bool_))
        seeds = [seed + i for i in range(self._num_envs)] if isinstance(seed, int) else seed
        if seeds is not None and None not in seeds and hasattr(self._policy, "seed_envs"):
            self._policy.seed_envs(np.asarray(seeds))

    def step(self, done: Array) -> None:
        """Passes on a step after which the worlds in `done` (N,) were finished."""
        if self._mode is AutoresetMode.SAME_STEP:
            self._restart(done)
        elif self._mode is AutoresetMode.NEXT_STEP:
            if self._finished is not None:
                self._restart(self._finished)
            self._finished = fresh(done)

    def _restart(self, worlds: Array) -> None:
        if not hasattr(self._policy, "reset_envs"):
            return
        if is_torch_array(worlds):
            self._policy.reset_envs(worlds)
            return
        env_ids = np.flatnonzero(worlds)
        if env_ids.size:
            self._policy.reset_envs(env_ids)


def array_device(venv: VectorEnv[Any, Any, Any]) -> Any | None:
    """The torch device on which a vector environment's arrays are; None if it gives NumPy arrays.

    Unlike `venv.unwrapped.device` this knows of `ToNumpy` wrappers.
    """
    return next((layer.device for layer in wrapper_chain(venv) if hasattr(layer, "device")), None)


def autoreset_mode(venv: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """The vector environment's autoreset mode.

    Raises:
        ValueError: If its metadata doesn't say.
    """
    mode = venv.metadata.get("autoreset_mode")
    if not isinstance(mode, AutoresetMode):
        raise ValueError(f"metadata['autoreset_mode'] of {venv} is {mode!r}; expected a gymnasium AutoresetMode")
    return mode


def reset_mask_of(options: Mapping[str, Any] | None) -> Array | None:
    """A copy of `options["reset_mask"]` (N,), torch if it was, else NumPy; None if all worlds are to be reset."""
    mask = (options or {}).get("reset_mask")
    if mask is None:
        return None
    return as_mask(mask, like=mask if is_torch_array(mask) else np.zeros(0))
