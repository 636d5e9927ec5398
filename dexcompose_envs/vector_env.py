"""The vector environment: `gymnasium.vector.VectorEnv` over a core of N worlds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from dexcompose_envs.arrays import fresh as fresh_copy
from dexcompose_envs.arrays import to_numpy
from dexcompose_envs.checks import seeds_of_worlds
from dexcompose_envs.errors import StepError, UsageError
from dexcompose_envs.faces import RENDER_FPS, Face, action_space, check_options, in_one_piece, observation_space
from dexcompose_envs.observations import Array
from dexcompose_envs.options import CoreConfig

Observation = dict[str, Array]


class DexComposeVectorEnv(Face, VectorEnv[Observation, Any, Array]):
    """N worlds stepped at once; see `DexComposeEnv` for actions, observations, rewards and ends.

    World i reset with `seed=s` equals a single environment reset with `seed=s + i`, whatever N is. Infos are dense:
    each name maps to an array with one row per world, without underscore masks; under SAME_STEP autoreset `final_obs`
    and `final_info` are dense as well (rows of worlds that have not ended equal the present observation and info), with
    masks `_final_obs` and `_final_info`.

    `backend="mujoco"` steps on CPU threads and speaks NumPy. `backend="warp"` steps on a GPU and gives torch tensors on
    its `device`; actions may be tensors there, or NumPy. A step then never waits for the GPU, which has consequences:
    `final_obs` and `final_info` are there at every step; a non-finite action or a contact overflow is raised a step
    late; a world that diverges (`info["unstable"]`) is restarted while the others go on; under DISABLED autoreset every
    step does wait, to see whether a world has ended. Physics on a GPU agree with the CPU's statistically, not bit by
    bit. `backend="isaaclab"` does the same in Isaac Lab's scene, of which a process can have one at a time.
    """

    def __init__(
        self, num_envs: int = 1, *, autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP, **options: Any
    ) -> None:
        """Builds N worlds.

        Args:
            num_envs: Number of worlds N.
            autoreset_mode: When a finished world starts again, see `gymnasium.vector.AutoresetMode`.
            **options: Fields of `CoreConfig`.

        Raises:
            UsageError: On an unknown name or a wrong value.
            BackendError: If the backend can't be used on this machine.
        """
        try:
            self.autoreset_mode = AutoresetMode(autoreset_mode)
        except ValueError:
            known = ", ".join(repr(mode.value) for mode in AutoresetMode)
            raise UsageError(f"autoreset_mode is {autoreset_mode!r}; expected one of {known}") from None
        self.metadata = {
            "autoreset_mode": self.autoreset_mode, "render_modes": ["rgb_array"], "render_fps": RENDER_FPS,
        }  # fmt: skip
        self._open(CoreConfig.of(options), num_envs)
        self.num_envs = n = self.core.num_worlds
        self.single_observation_space = observation_space(self.layout)
        self.single_action_space = action_space()
        self.observation_space = batch_space(self.single_observation_space, n)
        self.action_space = batch_space(self.single_action_space, n)
        self._ended = self.core.arrays.zeros(n, dtype=self.core.arrays.xp.bool)

    @property
    def device(self) -> Any | None:
        """The `torch.device` of all arrays; None if they are NumPy's."""
        return self.core.arrays.device

    @in_one_piece
    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Array]]:
        """Starts episodes.

        Args:
            seed: World i gets `seed + i`; a sequence gives each world its own seed, None leaves its generator.
            options: `reset_mask` (N,) bool: only these worlds start anew; `state` (N, S): set these states;
                `start`: "held" or "scratch"; `held_index` (N,): rows of the held-state library.

        Returns:
            Observations and infos of all worlds, also of those that were not reset.

        Raises:
            UsageError: On wrong shapes, unknown options, or a first reset that leaves worlds out.
        """
        options = check_options(options)
        n, core = self.num_envs, self.core
        mask = to_numpy(options.get("reset_mask", np.ones(n, bool)))
        if mask.shape != (n,) or mask.dtype != np.bool_:
            raise UsageError(f"reset_mask is {mask.dtype} of shape {mask.shape}; expected bool of shape ({n},)")
        if not mask.any():
            raise UsageError("reset_mask selects no world; expected at least one True")
        if not self._is_reset and not mask.all():
            raise UsageError("the first reset leaves worlds out by reset_mask; expected it to start all of them")
        worlds = np.flatnonzero(mask)
        state = self._per_world(options, "state", np.floating)
        index = self._per_world(options, "held_index", np.integer)
        seeds = [seeds_of_worlds(seed, n)[i] for i in worlds]
        if state is not None:
            core.set_state(state[worlds], worlds)
            core.seed(worlds, seeds)
        else:
            core.reset(worlds, seeds, options.get("start"), None if index is None else index[worlds])
        self._ended = self._ended & ~core.arrays.mask(worlds, n)
        self._is_reset = True
        return core.observe(), core.initial_info()

    @in_one_piece
    def step(self, actions: Any) -> tuple[Observation, Array, Array, Array, dict[str, Any]]:
        """Advances all worlds by one control step (40 ms) with normalised targets (N, 28).

        Raises:
            UsageError: On a wrong shape or a value that is not finite.
            StepError: Before the first reset, or under DISABLED autoreset on a world that has ended.
            ContactOverflowError: If the "warp" backend had no room for all contacts.
        """
        self._check_reset()
        core, where, mode = self.core, self.core.arrays.xp.where, self.autoreset_mode
        if mode is not AutoresetMode.DISABLED:
            core.prepare_restarts()
        elif self._ended.any():
            world = int(np.flatnonzero(to_numpy(self._ended))[0])
            raise StepError(f"world {world} has ended; reset it with options={{'reset_mask': ...}} before stepping")
        # On a device nobody asks whether a world has ended: worlds restart by mask, mostly an empty one.
        blind = core.arrays.device is not None
        fresh = self._ended
        result = core.step(actions)
        reward, terminated, truncated, info = result.reward, result.terminated, result.truncated, result.info
        if mode is AutoresetMode.NEXT_STEP and (blind or fresh.any()):
            # The action of a world that ended is ignored; its episode begins with this observation.
            core.restart(fresh)
            reward = where(fresh, 0.0, reward)
            terminated, truncated = terminated & ~fresh, truncated & ~fresh
            info = {name: where(fresh, value, info[name]) for name, value in core.initial_info().items()}
        self._ended = terminated | truncated
        observation = core.observe()
        extra: dict[str, Any] = {}
        if mode is AutoresetMode.SAME_STEP and (blind or self._ended.any()):
            ended = self._ended
            extra = {"final_obs": observation, "final_info": dict(info)}
            extra |= {"_final_obs": fresh_copy(ended), "_final_info": fresh_copy(ended)}
            core.restart(ended)
            info = {name: where(ended, value, info[name]) for name, value in core.initial_info().items()}
            observation = core.observe()
        return observation, reward, terminated, truncated, info | extra

    def _per_world(self, options: dict[str, Any], name: str, kind: type[Any]) -> NDArray[Any] | None:
        """A reset option with one row per world, or None if it isn't given."""
        if options.get(name) is None:
            return None
        value = to_numpy(options[name])
        if value.ndim == 0 or len(value) != self.num_envs or not np.issubdtype(value.dtype, kind):
            raise UsageError(
                f"{name} is {value.dtype} of shape {value.shape}; expected {kind.__name__} with {self.num_envs} rows"
            )
        return value

    def get_state(self) -> Array:
        """Full states (N, S), fresh; setting them again continues bit by bit the same (on a GPU: up to rounding)."""
        return self.core.get_state()

    @in_one_piece
    def set_state(self, state: Array, mask: Any = None) -> None:
        """Sets states (N, S) from `get_state`, in the worlds that `mask` (N,) selects; these are under way then."""
        worlds = np.arange(self.num_envs) if mask is None else np.flatnonzero(to_numpy(mask))
        self.core.set_state(to_numpy(state)[worlds], worlds)
        self._ended = self._ended & ~self.core.arrays.mask(worlds, self.num_envs)
        self._is_reset = self._is_reset or len(worlds) == self.num_envs

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """One RGB picture (height, width, 3) per world, or None without a render mode."""
        if self.render_mode is None:
            return None
        return tuple(self._draw(world) for world in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        """Frees the renderer and the engine."""
        Face.close(self)

    def close(self, **kwargs: Any) -> None:
        """Closes the environment; a second call does nothing."""
        VectorEnv.close(self, **kwargs)
