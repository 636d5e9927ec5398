"""The single environment: `gymnasium.Env` over a core of one world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.core import BatchedCore, CoreConfig
from dexcompose_envs.held_states import HeldStateLibrary
from dexcompose_envs.scene import CONTROL_STEP
from dexcompose_envs.scene.rendering import OffscreenRenderer

RENDER_FPS = round(1 / CONTROL_STEP)


def observation_space(core: BatchedCore) -> spaces.Dict[Any]:
    """Unbounded float32 boxes, one per key of the core's layout."""
    sizes = {key: max(columns.stop for columns in terms.values()) for key, terms in core.layout.items()}
    return spaces.Dict({key: spaces.Box(-np.inf, np.inf, (size,), np.float32) for key, size in sizes.items()})


def action_space() -> spaces.Box:
    """Normalised absolute position targets."""
    return spaces.Box(-1.0, 1.0, (hand.NUM_ACTIONS,), np.float32)


class DexComposeEnv(gym.Env[Any, Any], gym.utils.EzPickle):
    """One floating Shadow Hand that keeps an object (skill A) and works a fixture (skill B).

    ## Action space
    `Box(-1, 1, (28,), float32)`: normalised absolute position targets in the order of `hand.ACTION_NAMES`; wrist x y z
    (m), wrist Euler angles z y x (rad), then the joints of FF, MF, RF, LF, TH (rad). `hand.denormalize` gives units.

    ## Observation space
    `Dict` of float32 arrays: `task_a` and `task_b` (what the skills' base policies read) and `context` (velocities,
    contacts, torques, reference, phase). `layout[key][term]` gives the columns of every term; `observations.py` says
    what each term means. Single skills have their own key and `context`.

    ## Reward
    `info["reward_terms/retention"]` (minus the object's distance from its hold target, m) plus `.../progress` (new best
    progress of the skill, at most 1 in all) plus `.../success`.

    ## Episode start
    Composites start from a held state of the library (Eq. 2), single skills with the object on the table.
    `reset(options=...)` takes `start` ("held" or "scratch"), `held_index` (a row of the library) and `state` (from
    `get_state`).

    ## Episode end
    Terminated on success, or when the object of a held start is further than 5 cm from its hold target in the palm
    frame or lower than 3 cm above the table. Truncated after `max_episode_steps`. `info["outcome"]` indexes `OUTCOMES`;
    "b_fail" is reported at the task's own length, whatever limit `gym.make` was given.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": RENDER_FPS}  # noqa: RUF012 (Gymnasium's own protocol)

    def __init__(
        self,
        retention: str | None = None,
        interaction: str | None = None,
        *,
        start: str | None = None,
        held_split: str = "all",
        held_states: HeldStateLibrary | str | Path | None = None,
        terminate_on_success: bool = True,
        base_shake: float | None = None,
        backend: str = "mujoco",
        render_mode: str | None = None,
        camera: str = "overview",
        width: int = 640,
        height: int = 480,
    ) -> None:
        """Builds the environment.

        Args:
            retention: Retention skill A, or None.
            interaction: Interaction skill B, or None.
            start: See `CoreConfig`; as are held_split, held_states and terminate_on_success.
            held_split: Part of the held-state library to start from.
            held_states: Held-state library, its path, or None for the shipped one.
            terminate_on_success: Whether success ends the episode.
            base_shake: Scale of the wrist's tremble; None: 1 for composites, 0 for single skills.
            backend: "mujoco"; others step many worlds, for which there is `gym.make_vec`.
            render_mode: None or "rgb_array".
            camera: "overview", "hand" or "fixture".
            width: Picture width, pixels.
            height: Picture height, pixels.

        Raises:
            ValueError: On any unknown name.
        """
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"unknown render_mode {render_mode!r}; expected None or 'rgb_array'")
        gym.utils.EzPickle.__init__(
            self, retention, interaction, start=start, held_split=held_split, held_states=held_states,
            terminate_on_success=terminate_on_success, base_shake=base_shake, backend=backend, render_mode=render_mode,
            camera=camera, width=width, height=height,
        )  # fmt: skip
        if backend != "mujoco":
            raise ValueError(f"backend is {backend!r}; a single environment expected 'mujoco' (others: gym.make_vec)")
        config = CoreConfig(
            retention,
            interaction,
            start,
            held_split,
            held_states,
            terminate_on_success,
            base_shake,
            num_threads=1,
        )
        self.core = BatchedCore(config, 1)
        self.layout = self.core.layout
        self.render_mode = render_mode
        self._picture = (camera, width, height)
        self._renderer: OffscreenRenderer | None = None
        self.observation_space = observation_space(self.core)
        self.action_space = action_space()

    @property
    def interaction_start(self) -> NDArray[np.float64] | None:
        """Normalised hand pose (28,) from which the interaction skill starts; None without one."""
        task = self.core.interaction
        return None if task is None else hand.normalize(task.start_pose)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
        """Starts an episode; see the class docstring for `options`."""
        super().reset(seed=seed)
        options = check_options(options)
        worlds = np.zeros(1, np.int64)
        if "state" in options:
            self.core.seed(worlds, [seed])
            self.core.set_state(np.asarray(options["state"], np.float64).reshape(1, -1), worlds)
        else:
            index = options.get("held_index")
            self.core.reset(worlds, [seed], options.get("start"), None if index is None else np.reshape(index, 1))
        return self._observe(), _first(self.core.initial_info())

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[dict[str, NDArray[np.float32]], float, bool, bool, dict[str, Any]]:
        """Advances by one control step (40 ms).

        Args:
            action: Normalised targets (28,).

        Raises:
            ValueError: On a wrong shape or a value that is not finite.
        """
        action = np.asarray(action)
        if action.shape != (hand.NUM_ACTIONS,):
            raise ValueError(f"action has shape {action.shape}; expected ({hand.NUM_ACTIONS},)")
        result = self.core.step(action[None])
        # `gym.make` adds a TimeLimit with the same default, and a limit of the user's must be able to exceed ours.
        truncated = bool(result.truncated[0]) and self.spec is None
        return self._observe(), float(result.reward[0]), bool(result.terminated[0]), truncated, _first(result.info)

    def _observe(self) -> dict[str, NDArray[np.float32]]:
        return {key: value[0] for key, value in self.core.observe().items()}

    def get_state(self) -> NDArray[np.float64]:
        """Full state (S,); `reset(options={"state": ...})` continues bit by bit the same."""
        return self.core.get_state()[0]

    def set_state(self, state: NDArray[np.float64]) -> None:
        """Sets a state (S,) from `get_state`."""
        self.core.set_state(np.asarray(state, np.float64)[None], np.zeros(1, np.int64))

    def render(self) -> NDArray[np.uint8] | None:
        """RGB picture (height, width, 3), or None without a render mode."""
        if self.render_mode is None:
            return None
        if self._renderer is None:
            self._renderer = OffscreenRenderer(self.core.scene.model, *self._picture)
        return self._renderer.render(self.core.engine)

    def close(self) -> None:
        """Frees the renderer and the engine."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self.core.close()


_OPTIONS = ("start", "held_index", "state", "reset_mask")


def check_options(options: dict[str, Any] | None) -> dict[str, Any]:
    """Reset options, or an empty dict.

    Raises:
        ValueError: On an unknown option.
    """
    options = options or {}
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise ValueError(f"unknown reset option {unknown[0]!r}; expected one of {', '.join(_OPTIONS)}")
    return options


def _first(info: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """World 0 of a dense info, as Python scalars."""
    return {name: value[0].item() for name, value in info.items()}
