"""The README's animation: a successful rollout of every pair at the same time, one row per held object.

    python benchmarks/grid.py --out benchmarks/results/grid.webp

The first successful episode from `--seed` on is shown, all in real time; whoever is through waits for the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import tyro
from numpy.typing import NDArray

from dexcompose_agents.evaluation.protocol import make_worlds, outcome_of
from dexcompose_agents.evaluation.until_decided import UntilDecided
from dexcompose_agents.evaluation.video import CONTROL_RATE
from dexcompose_agents.methods import make_method
from dexcompose_agents.sheet import captioned, tiled
from dexcompose_envs import pair_names, parse_pair, skill_names
from dexcompose_envs.rollouts import Episode, Moment, run_episodes

TRIES = 20


@dataclass
class Config:
    """What to film."""

    method: str = "dexcompose"
    """Composition method."""
    pairs: tuple[str, ...] = pair_names()
    """Pairs."""
    seed: int = 2**29
    """Episode seed to begin with."""
    stride: int = 2
    """Control steps from one frame to the next."""
    last: int = 16
    """Frames for which the end stays."""
    camera: str = "overview"
    """Camera."""
    size: tuple[int, int] = (320, 240)
    """Width and height of one film, pixels."""
    quality: int = 35
    """Of the WebP file, 0 to 100."""
    out: Path = Path("runs/grid.webp")
    """Animation, WebP."""


class Frames(UntilDecided):
    """Keeps pictures of the episode of a single world, which renders."""

    def __init__(self, venv, stride: int) -> None:  # type: ignore[no-untyped-def]
        self._venv, self._stride = venv, stride
        self._frames: list[NDArray[np.uint8]] = []

    def begin(self, worlds: NDArray[np.int64], moment: Moment) -> None:
        """A picture of the start."""
        self._frames = [self._venv.render()[0]]

    def step(self, moment: Moment) -> NDArray[np.bool_]:
        """A picture, where one is due."""
        over = super().step(moment)
        if moment.steps[0] % self._stride == 0 or over[0]:
            self._frames.append(self._venv.render()[0])
        return over

    def result(self, world: int, moment: Moment) -> list[NDArray[np.uint8]]:
        """All pictures."""
        return self._frames


def film(pair: str, config: Config) -> list[NDArray[np.uint8]]:
    """Frames (height, width, 3) of the pair's first successful episode; a RuntimeError if none of `TRIES` succeeds."""
    width, height = config.size
    venv = make_worlds(pair, 1, render_mode="rgb_array", camera=config.camera, width=width, height=height)
    plan = [Episode(config.seed + number) for number in range(TRIES)]
    for rollout in run_episodes(venv, make_method(config.method, pair), plan, Frames(venv, config.stride)):
        if outcome_of(rollout) == "success":
            venv.close()
            return list(rollout.result)
    raise RuntimeError(f"{config.method} did not succeed on {pair} in {TRIES} episodes; nothing to show")


def main(config: Config) -> None:
    """Films and writes."""
    films = {pair: film(pair, config) for pair in config.pairs}
    length = max(map(len, films.values())) + config.last
    rows = [[pair for pair in config.pairs if parse_pair(pair)[0] == skill] for skill in skill_names("retention")]
    frames = [
        tiled([[captioned(films[pair][min(at, len(films[pair]) - 1)], pair) for pair in row] for row in rows if row])
        for at in range(length)
    ]
    config.out.parent.mkdir(parents=True, exist_ok=True)
    duration = round(1000 * config.stride / CONTROL_RATE)
    imageio.imwrite(
        config.out, np.stack(frames), plugin="pillow", duration=duration, loop=0, quality=config.quality, method=6
    )
    print(f"written to {config.out}: {len(frames)} frames, {config.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
