"""The README's picture of a finger mask: who holds (orange), who is free (blue), before and after the release.

python benchmarks/mask_picture.py --out benchmarks/results/mask.png
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image

from dexcompose_envs import FingerMask, env_id, hand
from dexcompose_envs.episodes.phases import HOLD_STEPS, TRANSITION_STEPS
from dexcompose_envs.scene.rendering import OffscreenRenderer

COLOURS = {True: [0.95, 0.55, 0.15, 1.0], False: [0.25, 0.50, 0.90, 1.0]}
"""Of preserved and of released fingers."""


@dataclass
class Config:
    """What to draw."""

    pair: str = "GraspBall-PushButton"
    """Pair."""
    mask: str = "TH+RF+LF"
    """Preserved fingers."""
    seed: int = 0
    """Episode."""
    size: tuple[int, int] = (480, 360)
    """Width and height of each half, pixels."""
    out: Path = Path("runs/mask.png")
    """Picture file."""


def coloured(model: mujoco.MjModel, mask: FingerMask) -> mujoco.MjModel:
    """A copy of the model whose fingers show who owns them."""
    model = copy.deepcopy(model)
    for finger, links in hand.FINGER_LINKS.items():
        for geom in range(model.ngeom):
            if model.body(model.geom_bodyid[geom]).name in links and model.geom_group[geom] == 1:
                model.geom_matid[geom] = -1
                model.geom_rgba[geom] = COLOURS[finger in mask.preserved]
    return model


def main(config: Config) -> None:
    """Holds, releases, draws."""
    mask = FingerMask.parse(config.mask)
    env: Any = gym.make(env_id(config.pair), base_shake=0.0).unwrapped
    obs, _ = env.reset(seed=config.seed)
    stay = obs["context"][env.layout["context"]["previous_action"]]
    opened = hand.normalize(np.concatenate([np.zeros(hand.NUM_WRIST), hand.OPEN_FINGERS]))
    free = mask.action_mask_b()
    free[: hand.NUM_WRIST] = False
    model = coloured(env.scene.model, mask)
    camera = mujoco.MjvCamera()
    camera.azimuth, camera.elevation, camera.distance = 215.0, -5.0, 0.34
    pictures: list[NDArray[np.uint8]] = []
    renderer = OffscreenRenderer(model, camera, *config.size)
    for step in range(HOLD_STEPS + TRANSITION_STEPS):
        share = np.clip((step - HOLD_STEPS) / (TRANSITION_STEPS / 2), 0.0, 1.0)
        env.step(np.where(free, (1 - share) * stay + share * opened, stay))
        if step in (0, HOLD_STEPS + TRANSITION_STEPS - 1):
            camera.lookat[:] = env.sensors()["object_world_position"][0] + np.array([0.0, 0.0, 0.02])
            pictures.append(renderer.render(env))
    renderer.close()
    env.close()
    config.out.parent.mkdir(parents=True, exist_ok=True)
    drawn = Image.fromarray(np.hstack(pictures)).quantize(128, dither=Image.Dither.NONE)
    drawn.save(config.out, optimize=True)
    print(f"written to {config.out}")


if __name__ == "__main__":
    main(tyro.cli(Config))
