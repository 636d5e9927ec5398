"""Physics engines behind one protocol."""

from __future__ import annotations

from dexcompose_envs.physics.base import BackendError, ContactOverflowError, Engine
from dexcompose_envs.scene import Scene

__all__ = ["BACKENDS", "BackendError", "ContactOverflowError", "Engine", "make_engine"]

BACKENDS = ("mujoco", "warp")


def make_engine(
    backend: str, scene: Scene, num_worlds: int, num_threads: int | None = None, device: str | None = None
) -> Engine:
    """Creates an engine that steps `num_worlds` copies of a scene.

    Args:
        backend: "mujoco": native MuJoCo on all CPU cores, NumPy arrays. "warp": MuJoCo Warp on a GPU, torch tensors.
        scene: The compiled scene.
        num_worlds: Number of worlds N.
        num_threads: CPU threads of "mujoco"; default: as many as there are usable cores and worlds.
        device: Torch device of "warp": "cuda", "cuda:1" or, slowly, "cpu"; default: "cuda". "mujoco" knows "cpu" only.

    Raises:
        ValueError: If the backend is unknown, or the device is none of its own.
        BackendError: If the backend can't be used on this machine.
    """
    if backend == "warp":
        if num_threads is not None:
            raise ValueError(f"num_threads is {num_threads}, which only backend 'mujoco' heeds; expected None")
        from dexcompose_envs.physics.mujoco_warp import MujocoWarp

        return MujocoWarp(scene, num_worlds, device or "cuda")
    if backend != "mujoco":
        raise ValueError(f"unknown backend {backend!r}; expected one of {', '.join(BACKENDS)}")
    if device not in (None, "cpu"):
        raise ValueError(f"device is {device!r}, but backend 'mujoco' runs on the CPU; expected backend='warp'")
    from dexcompose_envs.physics.mujoco_cpu import MujocoCPU

    return MujocoCPU(scene, num_worlds, num_threads)
