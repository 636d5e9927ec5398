"""Physics engines behind one protocol."""

from __future__ import annotations

from dexcompose_envs.physics.base import Engine
from dexcompose_envs.scene import Scene

ENGINES = ("mujoco",)


def make_engine(name: str, scene: Scene, num_worlds: int, num_threads: int | None = None) -> Engine:
    """Creates an engine that steps `num_worlds` copies of a scene.

    Args:
        name: "mujoco": native MuJoCo on all CPU cores.
        scene: The compiled scene.
        num_worlds: Number of worlds N.
        num_threads: CPU threads; default: as many as there are usable cores and worlds.

    Raises:
        ValueError: If the engine is unknown.
    """
    if name != "mujoco":
        raise ValueError(f"unknown physics engine {name!r}; expected one of {', '.join(ENGINES)}")
    from dexcompose_envs.physics.mujoco_cpu import MujocoCPU

    return MujocoCPU(scene, num_worlds, num_threads)
