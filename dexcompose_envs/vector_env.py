"""The vector environment: `gymnasium.vector.VectorEnv` over a core of N worlds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.utils import EzPickle
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.arrays import fresh as fresh_copy
from dexcompose_envs.arrays import to_numpy
from dexcompose_envs.core import BatchedCore, CoreConfig
from dexcompose_envs.env import RENDER_FPS, action_space, check_options, observation_space
from dexcompose_envs.held_states import HeldStateLibrary
from dexcompose_envs.observations import Array
from dexcompose_envs.scene.rendering import OffscreenRenderer

Observation = dict[str, Array]


class DexComposeVectorEnv(VectorEnv[Observation, Any, Array], EzPickle):
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
    bit.
    """

    def __init__(
        self,
        num_envs: int = 1,
        retention: str | None = None,
        interaction: str | None = None,
        *,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        start: str | None = None,
        held_split: str = "all",
        held_states: HeldStateLibrary | str | Path | None = None,
        terminate_on_success: bool = True,
        base_shake: float | None = None,
        backend: str = "mujoco",
        device: str | None = None,
        num_threads: int | None = None,
        render_mode: str | None = None,
        camera: str = "overview",
        width: int = 640,
        height: int = 480,
    ) -> None:
        """Builds the environment.

        Args:
            num_envs: Number of worlds N.
            retention: Retention skill A, or None.
            interaction: Interaction skill B, or None.
            max_episode_steps: Control steps after which an episode is truncated; None: the task's default.
            autoreset_mode: SAME_STEP (default), NEXT_STEP or DISABLED.
            start: See `CoreConfig`; as are held_split, held_states, terminate_on_success and num_threads.
            held_split: Part of the held-state library to start from.
            held_states: Held-state library, its path, or None for the shipped one.
            terminate_on_success: Whether success ends the episode.
            base_shake: Scale of the wrist's tremble; None: 1 for composites, 0 for single skills.
            backend: "mujoco" or "warp".
            device: Torch device of "warp": "cuda" (default), "cuda:N" or, for a handful of worlds, "cpu".
            num_threads: CPU threads of "mujoco"; None: all usable cores.
            render_mode: None or "rgb_array" (one picture per world).
            camera: "overview", "hand" or "fixture".
            width: Picture width, pixels.
            height: Picture height, pixels.

        Raises:
            ValueError: On any unknown name or a non-positive number.
            BackendError: If the backend can't be used on this machine.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}; expected at least 1")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"unknown render_mode {render_mode!r}; expected None or 'rgb_array'")
        EzPickle.__init__(
            self, num_envs, retention, interaction, max_episode_steps=max_episode_steps, autoreset_mode=autoreset_mode,
            start=start, held_split=held_split, held_states=held_states, terminate_on_success=terminate_on_success,
            base_shake=base_shake, backend=backend, device=device, num_threads=num_threads, render_mode=render_mode,
            camera=camera, width=width, height=height,
        )  # fmt: skip
        config = CoreConfig(
            retention,
            interaction,
            start,
            held_split,
            held_states,
            terminate_on_success,
            base_shake,
            backend,
            device,
            num_threads,
        )
        self.core = BatchedCore(config, num_envs, max_episode_steps)
        self.layout = self.core.layout
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {
            "autoreset_mode": self.autoreset_mode, "render_modes": ["rgb_array"], "render_fps": RENDER_FPS,
        }  # fmt: skip
        self.render_mode = render_mode
        self._picture = (camera, width, height)
        self._renderer: OffscreenRenderer | None = None
        self.single_observation_space = observation_space(self.core)
        self.single_action_space = action_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._ended = self.core.arrays.zeros(num_envs, dtype=self.core.arrays.xp.bool)
        self._is_reset = False

    @property
    def device(self) -> Any | None:
        """The `torch.device` of all arrays; None if they are NumPy's."""
        return self.core.arrays.device

    @property
    def interaction_start(self) -> NDArray[np.float64] | None:
        """Normalised hand pose (28,) from which the interaction skill starts; None without one."""
        task = self.core.interaction
        return None if task is None else hand.normalize(task.start_pose)

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
            ValueError: On wrong shapes or unknown options.
        """
        options = check_options(options)
        n = self.num_envs
        mask = to_numpy(options.get("reset_mask", np.ones(n, bool)))
        if mask.shape != (n,) or mask.dtype != np.bool_:
            raise ValueError(f"reset_mask is {mask.dtype} of shape {mask.shape}; expected bool of shape ({n},)")
        if not mask.any():
            raise ValueError("reset_mask selects no world; expected at least one True")
        seeds = [seed + i for i in range(n)] if isinstance(seed, int | np.integer) else seed
        seeds = [None] * n if seeds is None else list(seeds)
        if len(seeds) != n:
            raise ValueError(f"seed has {len(seeds)} entries; expected one per world, {n}")
        worlds = np.flatnonzero(mask)
        state = self._per_world(options, "state", np.floating)
        index = self._per_world(options, "held_index", np.integer)
        chosen = [seeds[i] for i in worlds]
        if state is not None:
            self.core.seed(worlds, chosen)
            self.core.set_state(state[worlds], worlds)
        else:
            self.core.reset(worlds, chosen, options.get("start"), None if index is None else index[worlds])
        self._ended = self._ended & ~self.core.arrays.mask(worlds, n)
        self._is_reset = True
        return self.core.observe(), self.core.initial_info()

    def step(self, actions: Any) -> tuple[Observation, Array, Array, Array, dict[str, Any]]:
        """Advances all worlds by one control step (40 ms).

        Args:
            actions: Normalised targets (N, 28).

        Raises:
            ValueError: On a wrong shape or a value that is not finite.
            RuntimeError: Before the first reset, or under DISABLED autoreset on a world that has ended.
            ContactOverflowError: If the "warp" backend had no room for all contacts.
        """
        if not self._is_reset:
            raise RuntimeError("step was called before reset")
        core, where, mode = self.core, self.core.arrays.xp.where, self.autoreset_mode
        if mode is AutoresetMode.DISABLED:
            self._refuse_ended()
        else:
            core.prepare_restarts()
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
            raise ValueError(
                f"{name} is {value.dtype} of shape {value.shape}; expected {kind.__name__} with {self.num_envs} rows"
            )
        return value

    def _refuse_ended(self) -> None:
        """Under DISABLED autoreset, worlds that have ended must be reset by hand."""
        if self._ended.any():
            world = int(np.flatnonzero(to_numpy(self._ended))[0])
            raise RuntimeError(f"world {world} has ended; reset it with options={{'reset_mask': ...}} before stepping")

    def get_state(self) -> Array:
        """Full states (N, S), fresh; setting them again continues bit by bit the same (on a GPU: up to rounding)."""
        return self.core.get_state()

    def set_state(self, state: Array, mask: Any = None) -> None:
        """Sets states (N, S) from `get_state`, in the worlds that `mask` (N,) selects."""
        worlds = np.arange(self.num_envs) if mask is None else np.flatnonzero(to_numpy(mask))
        self.core.set_state(to_numpy(state)[worlds], worlds)

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """One RGB picture (height, width, 3) per world, or None without a render mode."""
        if self.render_mode is None:
            return None
        if self._renderer is None:
            self._renderer = OffscreenRenderer(self.core.scene.model, *self._picture)
        return tuple(self._renderer.render(self.core.engine, world) for world in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        """Frees the renderer and the engine."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self.core.close()
