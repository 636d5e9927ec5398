"""The README's picture: one successful rollout per pair, as a strip of moments.

python benchmarks/picture.py --out benchmarks/results/overview.png
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import tyro

from dexcompose_agents.evaluation.protocol import make_worlds
from dexcompose_agents.methods import make_method
from dexcompose_envs import OUTCOMES, PAIRS


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


def strip(pair: str, config: Config) -> np.ndarray:
    """Moments of the pair's first successful episode, side by side (height, width, 3)."""
    width, height = config.size
    venv = make_worlds(pair, 1, render_mode="rgb_array", camera=config.camera, width=width, height=height)
    method = make_method(config.method, pair)
    for seed in range(config.seed, config.seed + 20):
        obs, info = venv.reset(seed=[seed])
        method.reset(obs, info, np.array([0]), np.array([seed]))
        pictures = []
        for step in range(10_000):
            obs, _, terminated, truncated, info = venv.step(method.act(obs))
            ended = bool(terminated[0] or truncated[0])
            if step in config.moments or ended:
                pictures.append(venv.render()[0])
            if ended:
                break
        if OUTCOMES[int(info["outcome"][0])] == "success":
            venv.close()
            return np.hstack([*pictures[: len(config.moments)], pictures[-1]])
    raise RuntimeError(f"{config.method} did not succeed on {pair} in 20 episodes; nothing to show")


def main(config: Config) -> None:
    """Draws and writes the picture."""
    picture = np.vstack([strip("-".join(pair), config) for pair in PAIRS])
    config.out.parent.mkdir(parents=True, exist_ok=True)
    imageio.imwrite(config.out, picture)
    print(f"written to {config.out}")


if __name__ == "__main__":
    main(tyro.cli(Config))
