"""The README's picture: one successful rollout per pair, as a strip of moments.

python benchmarks/picture.py --out benchmarks/results/overview.png
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import tyro

from dexcompose_agents.evaluation.protocol import make_worlds
from dexcompose_agents.methods import make_method
from dexcompose_envs import OUTCOMES, PAIRS
from dexcompose_envs.rollouts import Episode, Moment, Watcher, run_episodes


@dataclass
class Config:
    """What to draw."""

    method: str = "dexcompose"
    """Composition method."""
    moments: tuple[int, ...] = (4, 40, 70)
    """Control steps to show; the rollout's end is added."""
    seed: int = 2**29
    """Episode seed to begin with; the first successful episode is shown."""
    camera: str = "fixture"
    """Camera."""
    size: tuple[int, int] = (400, 300)
    """Width and height of one moment, pixels."""
    out: Path = Path("runs/overview.png")
    """Picture file."""


class Album(Watcher):
    """Keeps pictures of some control steps and of the end of each episode."""

    def __init__(self, venv: Any, moments: tuple[int, ...]) -> None:
        """An album of one world, which renders."""
        self._venv, self._moments, self._pictures = venv, moments, list[Any]()

    def begin(self, worlds: np.ndarray, moment: Moment) -> None:
        """An empty page."""
        self._pictures = []

    def step(self, moment: Moment) -> np.ndarray:
        """A picture, where one is wanted."""
        if moment.steps[0] - 1 in self._moments:
            self._pictures.append(self._venv.render()[0])
        return moment.ended

    def result(self, world: int, moment: Moment) -> list[np.ndarray]:
        """The pictures, the end's last."""
        return [*self._pictures, self._venv.render()[0]]


def strip(pair: str, config: Config) -> np.ndarray:
    """Moments of the pair's first successful episode, side by side (height, width, 3)."""
    width, height = config.size
    venv = make_worlds(pair, 1, render_mode="rgb_array", camera=config.camera, width=width, height=height)
    album = Album(venv, config.moments)
    plan = [Episode(seed) for seed in range(config.seed, config.seed + 20)]
    for rollout in run_episodes(venv, make_method(config.method, pair), plan, album):
        if OUTCOMES[int(rollout.info["outcome"])] == "success":
            venv.close()
            return np.hstack(rollout.result)
    raise RuntimeError(f"{config.method} did not succeed on {pair} in 20 episodes; nothing to show")


def main(config: Config) -> None:
    """Draws and writes the picture."""
    picture = np.vstack([strip("-".join(pair), config) for pair in PAIRS])
    config.out.parent.mkdir(parents=True, exist_ok=True)
    imageio.imwrite(config.out, picture)
    print(f"written to {config.out}")


if __name__ == "__main__":
    main(tyro.cli(Config))
