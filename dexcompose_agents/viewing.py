"""Watching a skill or a composition: in MuJoCo's window, or as a video file where there is no display."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from dexcompose_agents.evaluation.protocol import HELD_SPLIT
from dexcompose_agents.evaluation.video import CONTROL_RATE, check_video_path, write_video
from dexcompose_agents.methods import make_method
from dexcompose_envs import OUTCOMES, SKILLS, register_chain
from dexcompose_envs.agent import Agent
from dexcompose_envs.files import check_writable_dir
from dexcompose_envs.skills import composite_name

__all__ = ["view"]


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
        Outcome of each episode.

    Raises:
        ValueError: On an unknown pair, skill or method, or no episodes.
        OSError: If the video's folder cannot be written.
        RuntimeError: If a window is asked for and there is no display.
        MachineError: If a video is asked for and cannot be rendered or encoded.
    """
    import gymnasium as gym

    if episodes < 1:
        raise ValueError(f"episodes is {episodes}; expected at least 1")
    agent: Agent
    options: dict[str, Any] = {}
    if name in SKILLS:
        from dexcompose_agents.diffusion.agent import PolicyAgent

        agent = PolicyAgent.load(name)
    else:
        name = composite_name(name)
        agent = make_method(method, name)
        options["held_split"] = HELD_SPLIT
    if video is None:
        _check_display()
    else:
        check_writable_dir(video.parent)
        check_video_path(video)
    venv = gym.make_vec(
        register_chain(name),
        num_envs=1,
        autoreset_mode=gym.vector.AutoresetMode.DISABLED,
        render_mode=None if video is None else "rgb_array",
        **options,
    )
    try:
        if video is None:
            return _in_window(venv, agent, episodes, seed)
        frames: list[Any] = []
        outcomes = _roll_out(venv, agent, episodes, seed, lambda: frames.extend(venv.render() or ()))
        write_video(frames, video, CONTROL_RATE)
        return outcomes
    finally:
        venv.close()


def _check_display() -> None:
    """Refuses where no window can be opened; the window library would end the process."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise RuntimeError("no display for a window (neither DISPLAY nor WAYLAND_DISPLAY is set); give --video FILE")


def _roll_out(venv: Any, agent: Agent, episodes: int, seed: int, show: Any) -> list[str]:
    outcomes = []
    for episode in range(episodes):
        seeds = np.array([seed + episode])
        obs, info = venv.reset(seed=seeds.tolist())
        agent.reset(obs, info, np.arange(1), seeds)
        ended = False
        while not ended and show() is not False:
            obs, _, terminated, truncated, info = venv.step(agent.act(obs))
            ended = bool(terminated[0] or truncated[0])
        show()
        outcomes.append(OUTCOMES[int(info["outcome"][0])])
    return outcomes


def _in_window(venv: Any, agent: Agent, episodes: int, seed: int) -> list[str]:
    import mujoco
    import mujoco.viewer

    env = venv.unwrapped
    data = mujoco.MjData(env.scene.model)
    try:
        window = mujoco.viewer.launch_passive(env.scene.model, data)
    except Exception as error:  # no display: every window system fails in its own way
        raise RuntimeError(f"no window can be opened ({error}); give --video FILE to write a video instead") from None
    with window:

        def show() -> bool:
            started = time.monotonic()
            env.load_into(data, 0)
            window.sync()
            time.sleep(max(0.0, 1.0 / CONTROL_RATE - (time.monotonic() - started)))
            return bool(window.is_running())

        return _roll_out(venv, agent, episodes, seed, show)
