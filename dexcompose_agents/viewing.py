"""Watching a skill or a composition: in MuJoCo's window, or as a video file where there is no display."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from dexcompose_agents.evaluation.protocol import HELD_SPLIT
from dexcompose_agents.evaluation.video import CONTROL_RATE, check_video_path, write_video
from dexcompose_agents.methods import make_method
from dexcompose_agents.runtime.threads import one_thread
from dexcompose_envs import OUTCOMES, register_chain
from dexcompose_envs.agent import Agent
from dexcompose_envs.checks import whole_number
from dexcompose_envs.errors import MachineError
from dexcompose_envs.files import check_writable_dir
from dexcompose_envs.rollouts import Episode, Moment, Rollout, Watcher, run_episodes
from dexcompose_envs.skills import composite_name, skill_names


def view(
    name: str, method: str = "dexcompose", episodes: int = 1, seed: int = 0, video: Path | None = None
) -> list[str]:
    """Show episodes of a pair or a single skill.

    Args:
        name: "GraspBall-PushButton", or a single skill such as "PushButton".
        method: Composition method of a pair; a single skill is driven by its base policy.
        episodes: Number of episodes.
        seed: Seed of the first; the next have seed + 1, ...
        video: Write a video to this file, mp4 or gif, instead of opening a window.

    Returns:
        Outcome of each episode; where the window was closed, of those before.

    Raises:
        UsageError: On an unknown pair, skill or method, no episodes, or a video's name that ends otherwise.
        OutputError: If the video's folder cannot be written.
        MachineError: If a window is asked for and there is no display, or a video cannot be rendered or encoded.
    """
    whole_number("episodes", episodes)
    agent: Agent
    options: dict[str, Any] = {}
    if name in skill_names():
        from dexcompose_agents.diffusion.agent import PolicyAgent

        agent = PolicyAgent.load(name)
    else:
        name = composite_name(name)
        agent = make_method(method, name)
        options["held_split"] = HELD_SPLIT
    if video is not None:
        check_writable_dir(check_video_path(video).parent)
        options["render_mode"] = "rgb_array"
    elif sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        # The window library would end the process.
        raise MachineError("no display for a window (neither DISPLAY nor WAYLAND_DISPLAY is set); give --video FILE")
    venv = gym.make_vec(register_chain(name), num_envs=1, autoreset_mode=AutoresetMode.DISABLED, **options)
    plan = [Episode(seed + number) for number in range(episodes)]
    with closing(venv), one_thread():
        if video is None:
            return _in_window(venv, agent, plan)
        frames: list[Any] = []
        shown = _Shown(lambda: frames.extend(venv.render() or ()))
        outcomes = [_outcome(rollout) for rollout in run_episodes(venv, agent, plan, shown)]
        write_video(frames, video, CONTROL_RATE)
        return outcomes


class _Shown(Watcher):
    """Shows the worlds after every reset and step."""

    def __init__(self, show: Callable[[], None]) -> None:
        self._show = show

    def begin(self, worlds: NDArray[np.int64], moment: Moment) -> None:
        self._show()

    def step(self, moment: Moment) -> NDArray[np.bool_]:
        self._show()
        return moment.ended


def _outcome(rollout: Rollout) -> str:
    return OUTCOMES[int(rollout.info["outcome"])]


class _ClosedError(Exception):
    """The window was closed."""


def _in_window(venv: Any, agent: Agent, plan: list[Episode]) -> list[str]:
    import mujoco
    import mujoco.viewer

    env = venv.unwrapped
    data = mujoco.MjData(env.scene.model)
    try:
        window = mujoco.viewer.launch_passive(env.scene.model, data)
    except Exception as error:  # no display: every window system fails in its own way
        raise MachineError(f"no window can be opened ({error}); give --video FILE to write a video instead") from None

    def show() -> None:
        if not window.is_running():
            raise _ClosedError
        started = time.monotonic()
        env.load_into(data, 0)
        window.sync()
        time.sleep(max(0.0, 1.0 / CONTROL_RATE - (time.monotonic() - started)))

    outcomes: list[str] = []
    with window, suppress(_ClosedError):
        outcomes.extend(_outcome(rollout) for rollout in run_episodes(venv, agent, plan, _Shown(show)))
    return outcomes
