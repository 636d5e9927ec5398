"""A sheet of pictures: how every skill and every pair starts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import env_id, pair_names, parse_pair, skill_names
from dexcompose_envs.errors import MachineError, UsageError
from dexcompose_envs.files import atomic_path, check_writable_dir

SIZE = (320, 240)
"""Width and height of one picture, pixels."""
SEED = 0
STRIP_HEIGHT = 18
KINDS = (".png", ".jpg", ".webp")

Picture = NDArray[np.uint8]


def draw_sheet(out: Path) -> Path:
    """Draws the start of every skill, one row of each kind, and of every pair, one row per retention skill.

    Args:
        out: Picture file: png, jpg or webp.

    Raises:
        UsageError: If its name ends otherwise.
        OutputError: If it can't be written.
        MachineError: If there is nothing to render with.
    """
    import imageio.v3 as iio

    if out.suffix.lower() not in KINDS:
        raise UsageError(f"picture sheet '{out}' must end in {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    check_writable_dir(out.parent)
    rows = [skill_names(kind) for kind in ("retention", "interaction")]
    rows += [tuple(pair for pair in pair_names() if parse_pair(pair)[0] == first) for first in rows[0]]
    sheet = tiled([[captioned(start_of(name), name) for name in row] for row in rows])
    with atomic_path(out) as temporary:
        iio.imwrite(temporary, sheet, extension=out.suffix.lower())
    return out


def start_of(name: str, **options: Any) -> Picture:
    """Picture (height, width, 3) of an environment's start; a MachineError if there is nothing to render with."""
    width, height = SIZE
    env = gym.make(env_id(name), render_mode="rgb_array", camera="overview", width=width, height=height, **options)
    with closing(env):
        env.reset(seed=SEED)
        picture: Any = env.render()
    if picture is None:
        raise MachineError(f"{name} gave no picture")
    return np.asarray(picture)


def captioned(picture: Picture, text: str) -> Picture:
    """The picture with a dark strip on top that says something."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image, "RGBA")
    draw.rectangle((0, 0, image.width, STRIP_HEIGHT), fill=(20, 23, 26, 190))
    draw.text((6, 2), text, font=ImageFont.load_default(12), fill="white")
    return np.asarray(image)


def tiled(rows: Sequence[Sequence[Picture]]) -> Picture:
    """Rows of pictures of one size below each other; short rows are filled up with white."""
    longest = max(map(len, rows))
    blank = np.full_like(rows[0][0], 255)
    return np.vstack([np.hstack([*row, *[blank] * (longest - len(row))]) for row in rows])
