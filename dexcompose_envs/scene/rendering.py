"""Offscreen pictures of a world. The renderer is created when first needed, one per environment."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

CAMERAS = ("overview", "hand", "fixture")


class OffscreenRenderer:
    """Renders one world to RGB; works with the EGL and OSMesa back ends (`MUJOCO_GL`)."""

    def __init__(self, model: mujoco.MjModel, camera: str = "overview", width: int = 640, height: int = 480) -> None:
        """Creates the GL context.

        Raises:
            ValueError: If the camera is unknown or the picture is larger than the model's offscreen buffer.
        """
        if camera not in CAMERAS:
            raise ValueError(f"unknown camera {camera!r}; expected one of {', '.join(CAMERAS)}")
        self._data = mujoco.MjData(model)
        self._renderer = mujoco.Renderer(model, height, width)
        self._camera = camera
        self._options = mujoco.MjvOption()
        mujoco.mjv_defaultOption(self._options)
        self._options.geomgroup[3] = self._options.sitegroup[4] = 0

    def render(self, engine: Any, world: int = 0) -> NDArray[np.uint8]:
        """A fresh picture (height, width, 3) of one world of a CPU engine."""
        engine.load_into(self._data, world)
        self._renderer.update_scene(self._data, self._camera, self._options)
        return np.array(self._renderer.render())

    def close(self) -> None:
        """Frees the GL context."""
        self._renderer.close()
