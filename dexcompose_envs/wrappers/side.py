"""A wrapper that plays one side of the composition: told of every new episode, and of the observation to act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from dexcompose_envs.arrays import fresh
from dexcompose_envs.checks import seeds_of_worlds
from dexcompose_envs.composition.arrays import any_array, as_mask
from dexcompose_envs.composition.interactor import Interactor
from dexcompose_envs.composition.masks import OwnedDimensions
from dexcompose_envs.composition.preserver import Preserver
from dexcompose_envs.observations import Array
from dexcompose_envs.wrappers.common import autoreset_mode, box, layer_with

Seed = int | np.integer[Any] | Sequence[int | None] | None

SEED_STRIDE = 2**32
"""Between the noise seeds of a world's episodes, as long as nobody seeds them: worlds' seeds are closer together."""
_LARGEST_SEED = 2**62 - 1


class OneSide:
    """What the wrappers of single and of vector environments do alike; of 28 dimensions the agent has `action_indices`.

    The noise of base policies is seeded as the worlds are; episodes that follow without a seed of their own get seeds
    that depend on the world's last seed alone.
    """

    env: Any
    action_indices: NDArray[np.intp]

    def _play(self, side: Interactor | Preserver, owned: OwnedDimensions) -> None:
        """Called by constructors: whom to tell of episodes, and what the agent has."""
        self._side, self._owned, self.action_indices = side, owned, owned.indices
        self._is_vector = isinstance(self.env, VectorEnv)
        self._num_envs = self.env.num_envs if self._is_vector else 1
        self._mode = autoreset_mode(self.env) if self._is_vector else AutoresetMode.DISABLED
        wrapper: Any = self
        wrapper.action_space = space = box(len(owned.indices))
        if self._is_vector:
            wrapper.single_action_space, wrapper.action_space = space, batch_space(space, self._num_envs)
        self._seen: Mapping[str, Array] | None = None
        self._seeds, self._finished = None, None  # type: Array, Array

    def _executed(self, action: Any) -> tuple[Any, dict[str, Array]]:
        """What the wrapped environment is to do, and what is added to the info, name -> (N,)."""
        raise NotImplementedError

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the environment, or the worlds of `options["reset_mask"]`, and this side of the composition."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._begin(observation, info, seed, options or {})
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps with the agent's dimensions (D,), in a vector environment (N, D)."""
        executed, facts = self._executed(action)
        observation, reward, terminated, truncated, info = self.env.step(executed)
        self._see(observation)
        done = terminated | truncated
        if self._mode is AutoresetMode.SAME_STEP:
            self._restart(done)
        elif self._mode is AutoresetMode.NEXT_STEP:
            finished, self._finished = self._finished, fresh(done)
            if finished is not None:
                self._restart(finished)
        return observation, reward, terminated, truncated, self._informed(info, facts)

    def get_state(self) -> Array:
        """The environment's full state (S,), in a vector environment (N, S)."""
        return layer_with(self.env, "get_state").get_state()

    def set_state(self, state: ArrayLike | Array, mask: ArrayLike | Array | None = None) -> None:
        """Sets a state from `get_state`, in the worlds that `mask` (N,) selects, and looks at it."""
        self.reset(options={"state": state} | ({} if mask is None else {"reset_mask": mask}))

    @property
    def _batch(self) -> tuple[int, ...]:
        """Leading axes of the wrapped environment's arrays."""
        return (self._num_envs,) if self._is_vector else ()

    @property
    def _observation(self) -> Mapping[str, Array]:
        """The observations (N, size) to act on."""
        if self._seen is None:
            raise ResetNeeded(f"{type(self).__name__}.step was called before reset")
        return self._seen

    def _rows(self, values: Array) -> Array:
        """Values (N, ...) as the wrapped environment takes them."""
        return values if self._is_vector else values[0]

    def _batched(self, values: Array) -> Array:
        """Undoes `_rows`."""
        return values if self._is_vector else values[None]

    def _see(self, observation: Mapping[str, Array]) -> None:
        self._seen = {key: self._batched(value) for key, value in observation.items()}

    def _informed(self, info: dict[str, Any], facts: dict[str, Array]) -> dict[str, Any]:
        """The info with facts (N,) about the step just made, also about episodes that ended in it."""
        added = {name: value if self._is_vector else bool(value[0]) for name, value in facts.items()}
        if isinstance(info.get("final_info"), dict):
            added["final_info"] = info["final_info"] | {name: fresh(value) for name, value in facts.items()}
        return info | added

    @np.errstate(under="ignore")
    def _begin(
        self, observation: Mapping[str, Array], info: Mapping[str, Any], seed: Seed, options: Mapping[str, Any]
    ) -> None:
        self._see(observation)
        like = any_array(observation)
        mask = options.get("reset_mask") if self._is_vector else None
        started = None if mask is None or self._seeds is None else as_mask(mask, like)
        self._seeds = self._new_seeds(seed, started, like)
        if self._finished is not None:
            self._finished = None if started is None else self._finished & ~started
        step = None
        if options.get("state") is not None and "elapsed_steps" in info:
            xp = array_namespace(like)
            step = xp.reshape(xp.asarray(info["elapsed_steps"], dtype=xp.int64, device=device(like)), (-1,))
        self._side.reset(self._observation, started, self._seeds, step)

    @np.errstate(under="ignore")
    def _restart(self, worlds: Array) -> None:
        """Starts the next episodes in the worlds of a mask (N,); on a device nobody asks whether there are any."""
        if is_numpy_array(worlds) and not worlds.any():
            return
        self._seeds = array_namespace(self._seeds).where(worlds, self._seeds + SEED_STRIDE, self._seeds)
        self._side.reset(self._observation, worlds, self._seeds)

    def _new_seeds(self, seed: Seed, started: Array | None, like: Array) -> Array:
        """Seeds (N,) after a reset of some worlds, or of all where `started` is None."""
        xp, n = array_namespace(like), self._num_envs
        numbers = seeds_of_worlds(seed if self._is_vector else [seed], n)
        known = xp.asarray(np.array([number is not None for number in numbers]), device=device(like))
        values = np.array([int(number or 0) & _LARGEST_SEED for number in numbers], np.int64)
        first = xp.arange(n, dtype=xp.int64, device=device(like))
        following = first if self._seeds is None else self._seeds + SEED_STRIDE
        new = xp.where(known, xp.asarray(values, device=device(like)), following)
        return new if started is None else xp.where(started, new, self._seeds)


class OfOneWorld:
    """A function of one world's observation as a function of N = 1 worlds; whatever else it has is passed on."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def __call__(self, obs: Mapping[str, Array]) -> Any:
        """What the function says of world 0."""
        return self._function({key: value[0] for key, value in obs.items()})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)
