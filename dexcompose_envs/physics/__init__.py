"""Physics engines behind one protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import mujoco

from dexcompose_envs.checks import one_of
from dexcompose_envs.errors import UsageError
from dexcompose_envs.physics.base import BackendError, ContactOverflowError, Engine
from dexcompose_envs.scene import Scene
from dexcompose_envs.scene.build import HAS_DISCRETE

__all__ = ["BACKENDS", "BackendError", "ContactOverflowError", "Engine", "make_engine"]


def _mujoco(scene: Scene, num_worlds: int, num_threads: int | None, device: str | None) -> Engine:
    if device not in (None, "cpu"):
        raise UsageError(f"device is {device!r}, but backend 'mujoco' runs on the CPU; expected backend='warp'")
    if not HAS_DISCRETE:
        raise BackendError(
            f"backend 'mujoco' found mujoco {mujoco.__version__}; expected at least 3.17 (beside Isaac Lab 3 there is "
            "only backend='isaaclab')"
        )
    from dexcompose_envs.physics.mujoco_cpu import MujocoCPU

    return MujocoCPU(scene, num_worlds, num_threads)


def _warp(scene: Scene, num_worlds: int, num_threads: int | None, device: str | None) -> Engine:
    if num_threads is not None:
        raise UsageError(f"num_threads is {num_threads}, which only backend 'mujoco' heeds; expected None")
    from dexcompose_envs.physics.mujoco_warp import MujocoWarp

    return MujocoWarp(scene, num_worlds, device or "cuda")


def _isaaclab(scene: Scene, num_worlds: int, num_threads: int | None, device: str | None) -> Engine:
    if num_threads is not None:
        raise UsageError(f"num_threads is {num_threads}, which only backend 'mujoco' heeds; expected None")
    from dexcompose_envs.physics.isaaclab.lab import check_isaaclab, open_lab
    from dexcompose_envs.physics.warp_device import check_device

    check_isaaclab()
    where = str(check_device(device or "cuda"))
    from dexcompose_envs.physics.isaaclab.engine import IsaacLab

    return IsaacLab(scene, open_lab(scene, num_worlds, where))


BACKENDS: Mapping[str, Callable[[Scene, int, int | None, str | None], Engine]] = MappingProxyType(
    {"mujoco": _mujoco, "warp": _warp, "isaaclab": _isaaclab}
)
"""Name -> what makes the engine. "mujoco": native MuJoCo on CPU threads, NumPy. "warp": MuJoCo Warp on a GPU, torch.
"isaaclab": Isaac Lab on Newton, torch."""


def make_engine(
    backend: str, scene: Scene, num_worlds: int, num_threads: int | None = None, device: str | None = None
) -> Engine:
    """Creates an engine that steps `num_worlds` copies of a scene.

    Args:
        backend: One of `BACKENDS`.
        scene: The compiled scene.
        num_worlds: Number of worlds N.
        num_threads: CPU threads of "mujoco"; default: as many as there are usable cores and worlds.
        device: Torch device of "warp" and "isaaclab": "cuda", "cuda:1" or, slowly, "cpu"; default: "cuda". "mujoco"
            knows "cpu" only.

    Raises:
        UsageError: If the backend is unknown, the device is none of its own, or a count is no whole number.
        BackendError: If the backend can't be used on this machine.
    """
    return BACKENDS[one_of("backend", backend, tuple(BACKENDS))](scene, num_worlds, num_threads, device)
