"""Choosing a way to render without a display, before MuJoCo is imported (it decides at import)."""

from __future__ import annotations

import os
import sys
from ctypes.util import find_library

__all__ = ["choose_gl_backend"]


def choose_gl_backend() -> str | None:
    """Set ``MUJOCO_GL`` on a Linux machine without a display, unless it is set: EGL where there is one, else OSMesa.

    Returns:
        The back end chosen, ``None`` if there was nothing to choose.
    """
    if "MUJOCO_GL" in os.environ or not sys.platform.startswith("linux") or "mujoco" in sys.modules:
        return None
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return None
    for backend, library in (("egl", "EGL"), ("osmesa", "OSMesa")):
        if find_library(library) is not None:
            os.environ["MUJOCO_GL"] = backend
            return backend
    return None
