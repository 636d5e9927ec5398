"""The single environment: `gymnasium.Env` over a core of one world."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.arrays import to_numpy
from dexcompose_envs.checks import seed_or_none
from dexcompose_envs.errors import UsageError
from dexcompose_envs.faces import RENDER_FPS, Face, action_space, check_options, in_one_piece, observation_space
from dexcompose_envs.options import CoreConfig


class DexComposeEnv(Face, gym.Env[Any, Any]):
    """One floating Shadow Hand that keeps an object (skill A) and works a fixture (skill B).

    ## Action space
    `Box(-1, 1, (28,), float32)`: normalised absolute position targets in the order of `hand.ACTION_NAMES`; wrist x y z
    (m), wrist Euler angles z y x (rad), then the joints of FF, MF, RF, LF, TH (rad). `hand.denormalize` gives units.

    ## Observation space
    `Dict` of float32 arrays: `task_a` and `task_b` (what the skills' base policies read) and `context` (velocities,
    contacts, torques, reference, phase). `layout[key][term]` gives the columns of every term; `observations.py` says
    what each term means. Single skills have their own key and `context`. A chain of more interactions has `task_c` and
    so on, each as if its fixture stood where it stands alone, and `stage` in the context.

    ## Reward
    `info["reward_terms/retention"]` (minus the object's distance from where it is to be held in the palm frame, m) plus
    `.../progress` (new best progress of the skill or of the interaction in turn, at most 1 each in all) plus
    `.../success` (1) plus `.../lost` (-2 when the object is lost: a whole episode of holding costs less).

    No part of it, but true whatever the observations say: `info["object_turn"]`, the angle (rad) by which the object
    has turned in the palm frame since the episode's start, and `info["approach"]` (m), how far the hand is from where
    the interaction in turn needs it, as its skill says. They are 0 where there is no object or nothing to approach.

    ## Episode start
    Composites start from a held state of the library (Eq. 2), single skills with the object on the table.
    Each episode has its own mass of the object (0.7 to 2.5 times the nominal one, log-uniform) and friction of hand and
    object (0.4 to 0.9), which no observation shows; a held start has those under which five fingers were seen to keep
    it. The option `physics` fixes or widens them; `sensor_noise` makes what is observed uncertain.
    `reset(options=...)` takes `start` ("held" or "scratch"), `held_index` (a row of the library) and `state` (from
    `get_state`).

    A composite that starts from scratch begins with A's own task. Once A has succeeded and the hand holds the object
    still (its finger targets the same for 20 control steps), the episode is held from there on, as if it had started
    so: the targets become the observed `reference`, phases and limits count from then. If that has not come about 60
    control steps after A's own time, the object counts as lost. A `max_episode_steps` below the registered one also
    limits what comes before. `gym.make` limits a single environment's episode from
    its start: give it a longer `max_episode_steps`.

    ## Episode end
    Terminated on success, or when the object of a held start is lost: further from its hold target in the palm frame
    than 5 cm, lower than 3 cm above the table, or (the rod) its axis turned by more than 25 degrees in the palm frame.
    Truncated after `max_episode_steps`, and when the simulation breaks
    down (`info["unstable"]`). `info["outcome"]` indexes `OUTCOMES`; it is "b_fail" from the moment on at which the
    task's own time is over (200 control steps for each interaction of a composite) with nothing done, whatever the
    limit is. A restored state has as much time left as it had, up to the registered limit.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": RENDER_FPS}  # noqa: RUF012 (Gymnasium's own protocol)

    def __init__(self, **options: Any) -> None:
        """Builds the environment from fields of `CoreConfig`; a UsageError on an unknown name or a wrong value."""
        config = CoreConfig.of({"num_threads": 1, **options})
        if config.backend != "mujoco":
            raise UsageError(
                f"backend is {config.backend!r}; a single environment expected 'mujoco' (others: gym.make_vec)"
            )
        self._open(config, 1)
        self._is_restored = False
        self.observation_space = observation_space(self.layout)
        self.action_space = action_space()

    @in_one_piece
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
        """Starts an episode; see the class docstring for `options`."""
        options, seed = check_options(options), seed_or_none(seed)
        if "reset_mask" in options:
            raise UsageError("reset option 'reset_mask' chooses among many worlds; a single environment has one")
        super().reset(seed=seed)
        worlds = np.zeros(1, np.int64)
        if "state" in options:
            self.core.set_state(np.reshape(options["state"], (1, -1)), worlds)
            self.core.seed(worlds, [seed])
            self._is_restored = True
        else:
            self._is_restored = False
            index = options.get("held_index")
            self.core.reset(worlds, [seed], options.get("start"), None if index is None else np.reshape(index, 1))
        self._is_reset = True
        return self._observe(), _first(self.core.initial_info())

    @in_one_piece
    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[dict[str, NDArray[np.float32]], float, bool, bool, dict[str, Any]]:
        """Advances by one control step (40 ms) with normalised targets (28,).

        Raises:
            UsageError: On a wrong shape or a value that is not finite.
            StepError: Before the first reset.
        """
        self._check_reset()
        action = to_numpy(action)
        if np.shape(action) != (hand.NUM_ACTIONS,):
            raise UsageError(f"action has shape {np.shape(action)}; expected ({hand.NUM_ACTIONS},)")
        result = self.core.step(action[None])
        truncated = bool(result.truncated[0])
        if self.spec is not None and not self._is_restored:
            # `gym.make` adds a TimeLimit, which a user may have made longer than ours.
            truncated &= bool(result.info["unstable"][0])
        return self._observe(), float(result.reward[0]), bool(result.terminated[0]), truncated, _first(result.info)

    def _observe(self) -> dict[str, NDArray[np.float32]]:
        return {key: value[0] for key, value in self.core.observe().items()}

    def get_state(self) -> NDArray[np.float64]:
        """Full state (S,); `reset(options={"state": ...})` continues bit by bit the same."""
        return self.core.get_state()[0]

    @in_one_piece
    def set_state(self, state: NDArray[np.float64]) -> None:
        """Sets a state (S,) from `get_state`."""
        self.core.set_state(np.reshape(state, (1, -1)), np.zeros(1, np.int64))
        self._is_reset = self._is_restored = True

    def render(self) -> NDArray[np.uint8] | None:
        """RGB picture (height, width, 3), or None without a render mode."""
        return None if self.render_mode is None else self._draw(0)


def _first(info: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """World 0 of a dense info, as Python scalars."""
    return {name: value[0].item() for name, value in info.items()}
