"""Draws the pictures of `docs/envs/`: moments of one successful rollout of every skill and every pair.

    python docs/pictures.py [--names GraspBall GraspBall-PushButton]

A skill is done by its base policy, a pair by `--method`. Pages show the pictures that are there (`docs/generate.py`).
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio.v3 as imageio
import numpy as np
import tyro
from numpy.typing import NDArray

from dexcompose_agents.diffusion.agent import PolicyAgent
from dexcompose_agents.evaluation.protocol import make_worlds
from dexcompose_agents.methods import make_method
from dexcompose_envs import env_id, pair_names, skill_names
from dexcompose_envs.files import atomic_path
from dexcompose_envs.rollouts import Episode, Moment, Watcher, run_episodes

FOLDER = Path(__file__).parent / "envs" / "pictures"
TRIES = 20


@dataclass
class Config:
    """What to draw."""

    names: tuple[str, ...] = (*skill_names(), *pair_names())
    """Skills and pairs."""
    method: str = "dexcompose"
    """Composition method of pairs."""
    moments: int = 3
    """Pictures of a rollout, from its start to its end."""
    seed: int = 2**29
    """Episode seed to begin with; the first successful episode is shown."""
    camera: str = "fixture"
    """Camera."""
    size: tuple[int, int] = (320, 240)
    """Width and height of one moment, pixels."""
    quality: int = 80
    """Of the JPEG files, 0 to 100."""
    out: Path = FOLDER
    """Folder."""


class Album(Watcher):
    """Keeps pictures of every fourth control step and of the end of each episode, of one world, which renders."""

    def __init__(self, venv: Any) -> None:
        self._venv, self._pictures = venv, list[Any]()

    def begin(self, worlds: NDArray[np.int64], moment: Moment) -> None:
        """A new page, with the start."""
        self._pictures = [self._venv.render()[0]]

    def step(self, moment: Moment) -> NDArray[np.bool_]:
        """A picture, where one is due."""
        if moment.steps[0] % 4 == 0 or moment.ended[0]:
            self._pictures.append(self._venv.render()[0])
        return moment.ended

    def result(self, world: int, moment: Moment) -> list[NDArray[np.uint8]]:
        """All of them."""
        return self._pictures


def strip(name: str, config: Config) -> NDArray[np.uint8]:
    """Moments of the first successful episode, side by side (height, width, 3); a RuntimeError if none succeeds."""
    look = {"render_mode": "rgb_array", "width": config.size[0], "height": config.size[1]}
    agent: Any
    if name in skill_names():
        camera = config.camera if name in skill_names("interaction") else "overview"
        venv = gym.make_vec(env_id(name), num_envs=1, autoreset_mode="Disabled", camera=camera, **look)
        agent = PolicyAgent.load(name)
    else:
        venv, agent = make_worlds(name, 1, camera=config.camera, **look), make_method(config.method, name)
    plan = [Episode(config.seed + number) for number in range(TRIES)]
    with closing(venv):
        for rollout in run_episodes(venv, agent, plan, Album(venv)):
            if rollout.info["success"]:
                shown = np.linspace(0, len(rollout.result) - 1, config.moments).round().astype(int)
                return np.hstack([rollout.result[moment] for moment in shown])
    raise RuntimeError(f"no success on {name} in {TRIES} episodes; nothing to show")


def main(config: Config) -> None:
    """Draws and writes."""
    config.out.mkdir(parents=True, exist_ok=True)
    for name in config.names:
        picture = strip(name, config)
        with atomic_path(config.out / f"{name}.jpg") as temporary:
            imageio.imwrite(temporary, picture, extension=".jpg", quality=config.quality)
        print(f"written to {config.out / name}.jpg", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
