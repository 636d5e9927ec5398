"""Offscreen pictures of a world.

All drawing of a process happens in one OpenGL context, on one thread that does nothing else. So no environment can
spoil another's pictures or those of a renderer of the user's, whichever thread renders or closes it. MuJoCo chooses how
to draw when it is imported, by `MUJOCO_GL` alone; here that is chosen for the first picture, from what works.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexcompose_envs.checks import one_of, whole_number
from dexcompose_envs.errors import MachineError

CAMERAS = ("overview", "hand", "fixture")
LARGEST = (1280, 960)
"""Width and height of the offscreen buffer, pixels."""

_BACKENDS = {"egl": "egl", "osmesa": "osmesa", "glfw": "glfw", "glx": "glfw", "cgl": "cgl"}
"""`MUJOCO_GL` -> the module of MuJoCo's that draws that way."""
_UNDECIDED = ("", "1", "on", "true", "enable", "enabled")
_ADVICE = "install libegl1 or libosmesa6"
_PROBE = """
import importlib, mujoco, sys
context = importlib.import_module(f"mujoco.{sys.argv[1]}").GLContext(16, 16)
context.make_current()
mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_100)
"""


def check_picture(camera: str, width: int, height: int) -> tuple[str, int, int]:
    """The arguments of a picture.

    Raises:
        UsageError: If the camera is unknown, or a size is no whole number or larger than the offscreen buffer.
    """
    camera = one_of("camera", camera, CAMERAS)
    return camera, whole_number("width", width, 1, LARGEST[0]), whole_number("height", height, 1, LARGEST[1])


class OffscreenRenderer:
    """Renders worlds of one model to RGB.

    Args:
        model: The model.
        camera: One of `CAMERAS`, or a camera of one's own, which may move between pictures.
        width: Picture width, pixels.
        height: Picture height, pixels.

    Raises:
        UsageError: See `check_picture`.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        camera: str | mujoco.MjvCamera = "overview",
        width: int = 640,
        height: int = 480,
    ) -> None:
        name, width, height = check_picture(
            "overview" if isinstance(camera, mujoco.MjvCamera) else camera, width, height
        )
        self._model, self._rectangle = model, mujoco.MjrRect(0, 0, width, height)
        self._scene, self._options = mujoco.MjvScene(model, 10_000), mujoco.MjvOption()
        self._options.geomgroup[3] = self._options.sitegroup[4] = 0
        if isinstance(camera, mujoco.MjvCamera):
            self._camera = camera
        else:
            self._camera = mujoco.MjvCamera()
            self._camera.type, self._camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, model.camera(name).id
        self._context: mujoco.MjrContext | None = None
        self._free: Any = None

    def render(self, engine: Any, world: int = 0) -> NDArray[np.uint8]:
        """A fresh picture (height, width, 3) of one world of an engine.

        Raises:
            MachineError: If this machine can't draw.
        """
        data = mujoco.MjData(self._model)  # never shared: a picture that Ctrl-C interrupts is drawn to its end
        engine.load_into(data, world)
        return _studio().submit(self._draw, data).result()

    def _draw(self, data: mujoco.MjData) -> NDArray[np.uint8]:
        if self._context is None:
            self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_150)
            self._free = weakref.finalize(self, _free, self._context)
            self._free.atexit = False
        every = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self._model, data, self._options, None, self._camera, every, self._scene)
        picture = np.empty((self._rectangle.height, self._rectangle.width, 3), np.uint8)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        mujoco.mjr_render(self._rectangle, self._scene, self._context)
        mujoco.mjr_readPixels(picture, None, self._rectangle, self._context)
        return picture[::-1].copy()

    def close(self) -> None:
        """Frees what the pictures needed; another picture makes it anew."""
        if self._free is not None:
            self._free()
        self._context = self._free = None


_lock = threading.Lock()
_thread: ThreadPoolExecutor | None = None
_kept: list[Any] = []
"""OpenGL's objects that must not be freed by chance: their own thread may, and after a fork nobody."""


def _studio() -> ThreadPoolExecutor:
    """The thread that draws, its OpenGL context current."""
    global _thread
    with _lock:
        if _thread is None:
            if _kept:
                raise MachineError("this process was forked from one that had rendered; expected start method 'spawn'")
            backend = choose_backend()
            thread = ThreadPoolExecutor(1, "rendering")
            try:
                _kept.append(thread.submit(_open_context, backend).result())
            except Exception as error:
                raise MachineError(f"rendering by {backend!r} doesn't start: {error}; {_ADVICE}") from error
            _thread = thread
        return _thread


def _open_context(backend: str) -> Any:
    context = importlib.import_module(f"mujoco.{backend}").GLContext(16, 16)
    context.make_current()
    context.free = lambda: None  # it lasts as long as the process, and its finaliser would run on the wrong thread
    return context


def _free(context: mujoco.MjrContext) -> None:
    """Frees a context on its thread, whichever thread no longer needs it."""
    if _thread is not None:
        with suppress(RuntimeError):  # the thread is gone at the end of the process
            _thread.submit(context.free)
            return
    _kept.append(context)


def choose_backend() -> str:
    """The module of MuJoCo's to draw with: what `MUJOCO_GL` says, else the first that works.

    Raises:
        MachineError: If there is none.
    """
    chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
    if chosen not in _UNDECIDED and chosen not in _BACKENDS:
        raise MachineError(f"MUJOCO_GL is {chosen!r}; expected egl or osmesa to render, or nothing")
    default = ("cgl", "glfw") if sys.platform == "darwin" else ("egl", "osmesa", "glfw")
    backends = default if chosen in _UNDECIDED else (_BACKENDS[chosen],)
    for backend in backends:
        if _works(backend):
            return backend
    raise MachineError(f"nothing to render with: {' and '.join(backends)} failed; {_ADVICE}")


def _works(backend: str) -> bool:
    """Tries a back end in a process of its own, since some abort where they don't work."""
    command = [sys.executable, "-c", _PROBE, backend]
    environment = {**os.environ, "MUJOCO_GL": "disabled"}  # heeded by MuJoCo's import only
    try:
        return subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _after_fork() -> None:
    """OpenGL, like any thread, doesn't survive a fork."""
    global _lock, _thread
    _lock, _thread = threading.Lock(), None


os.register_at_fork(after_in_child=_after_fork)
