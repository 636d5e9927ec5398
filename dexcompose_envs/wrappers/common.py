"""What the wrappers share: checks of actions, the observation layout, and news of resets for batched policies."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import ArrayLike, NDArray

AnyEnv = gym.Env[Any, Any] | VectorEnv[Any, Any, Any]
Observation = Mapping[str, NDArray[Any]]
Seed = int | Sequence[int | None] | None


def box(size: int) -> gym.spaces.Box:
    """The space of `size` normalised actions."""
    return gym.spaces.Box(-1.0, 1.0, (size,), np.float32)


def check_array(name: str, value: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Converts to float32 and refuses a wrong shape and values that aren't finite.

    Raises:
        ValueError: With the name, what came and what was expected.
    """
    try:
        array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {reprlib.repr(value)}; expected numbers of shape {shape}") from None
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {shape}")
    if not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name} is {array[index]} at index {index}; expected finite numbers")
    return array


def recordable(value: object) -> object:
    """An argument as `RecordConstructorArgs` should keep it: arrays as lists, so that specs can be written as JSON."""
    return value.tolist() if isinstance(value, np.ndarray) else value


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

    It may have any of `reset(num_envs)`, `reset_envs(env_ids)` and `seed_envs(seeds)`; what it lacks isn't called.

    Args:
        policy: The policy, or anything else to be told.
        num_envs: Number of worlds.
        autoreset_mode: When finished worlds start again; `DISABLED` for a single environment.
    """

    def __init__(self, policy: object, num_envs: int, autoreset_mode: AutoresetMode = AutoresetMode.DISABLED) -> None:
        self._policy = policy
        self._num_envs = num_envs
        self._mode = autoreset_mode
        self._finished = np.zeros(num_envs, dtype=np.bool_)

    def reset(self, seed: Seed, reset_mask: NDArray[np.bool_] | None) -> None:
        """Passes on a call of `reset`: of all worlds, whose noise is then seeded as the worlds are, or of some."""
        if reset_mask is not None:
            self._finished[reset_mask] = False
            self._restart(np.flatnonzero(reset_mask))
            return
        self._finished[:] = False
        if hasattr(self._policy, "reset"):
            self._policy.reset(self._num_envs)
        else:
            self._restart(np.arange(self._num_envs))
        seeds = [seed + i for i in range(self._num_envs)] if isinstance(seed, int) else seed
        if seeds is not None and None not in seeds and hasattr(self._policy, "seed_envs"):
            self._policy.seed_envs(np.asarray(seeds))

    def step(self, done: NDArray[np.bool_]) -> None:
        """Passes on a step after which the worlds in `done` (N,) were finished."""
        if self._mode is AutoresetMode.SAME_STEP:
            self._restart(np.flatnonzero(done))
        elif self._mode is AutoresetMode.NEXT_STEP:
            self._restart(np.flatnonzero(self._finished))
            self._finished = np.array(done, dtype=np.bool_)

    def _restart(self, env_ids: NDArray[np.intp]) -> None:
        if env_ids.size and hasattr(self._policy, "reset_envs"):
            self._policy.reset_envs(env_ids)


def autoreset_mode(venv: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """The vector environment's autoreset mode.

    Raises:
        ValueError: If its metadata doesn't say.
    """
    mode = venv.metadata.get("autoreset_mode")
    if not isinstance(mode, AutoresetMode):
        raise ValueError(f"metadata['autoreset_mode'] of {venv} is {mode!r}; expected a gymnasium AutoresetMode")
    return mode


def reset_mask_of(options: Mapping[str, Any] | None) -> NDArray[np.bool_] | None:
    """A copy of `options["reset_mask"]` (N,), None if all worlds are to be reset."""
    mask = (options or {}).get("reset_mask")
    return None if mask is None else np.array(mask, dtype=np.bool_)
