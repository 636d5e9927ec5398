"""Opening a scene in Isaac Lab: one simulation, which is all that a process can have at a time."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from dexcompose_envs.physics.base import BackendError
from dexcompose_envs.scene import Scene

EXTRA = "make isaaclab, or pip install 'dexcompose[isaaclab]' in an environment of its own"
PYTHON, OLDEST, NEWEST = (3, 12), 3, 4
"""The only Python that Isaac Lab 3 runs on; its first major version that will do, and the first that won't."""


@dataclass
class Lab:
    """A simulation and its scene.

    Attributes:
        sim: `isaaclab.sim.SimulationContext`.
        scene: `isaaclab.scene.InteractiveScene`.
        owned: Whether closing the engine ends the simulation.
    """

    sim: Any
    scene: Any
    owned: bool

    def close(self) -> None:
        """Ends the simulation, so that the process can have another."""
        if self.owned and self.sim is not None:
            self.sim.stop()
            self.sim.clear_instance()
        self.sim = self.scene = None


def check_isaaclab() -> None:
    """Refuses what can't run Isaac Lab.

    Raises:
        BackendError: In one line, what is missing, and what was expected.
    """
    if sys.version_info[:2] != PYTHON:
        found = ".".join(map(str, sys.version_info[:2]))
        raise BackendError(f"backend 'isaaclab' runs on Python 3.12 only; this is {found} ({EXTRA})")
    versions = {}
    for package in ("isaaclab", "mujoco-usd-converter"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            raise BackendError(f"backend 'isaaclab' needs the package {package}, which is missing: {EXTRA}") from None
    version = versions["isaaclab"]
    if not OLDEST <= int(version.partition(".")[0]) < NEWEST:
        raise BackendError(f"backend 'isaaclab' found isaaclab {version}; expected one of {OLDEST}.x: {EXTRA}")


def open_lab(scene: Scene, num_worlds: int, device: str) -> Lab:
    """Makes a simulation with N worlds of a scene.

    Args:
        scene: The compiled scene.
        num_worlds: Number of worlds N.
        device: "cpu", "cuda" or "cuda:N".

    Raises:
        BackendError: If this process has a simulation already.
    """
    from isaaclab.scene import InteractiveScene
    from isaaclab.sim import SimulationContext
    from isaaclab_newton.cloner import newton_builder_world_hook

    from dexcompose_envs.physics.isaaclab.assets import scene_cfg, simulation_cfg
    from dexcompose_envs.physics.isaaclab.collisions import world_hook
    from dexcompose_envs.physics.isaaclab.usd import usd_parts

    if SimulationContext.instance() is not None:
        raise BackendError("Isaac Lab has one simulation per process, and this one has it already; close it first")
    usd = usd_parts(scene)
    sim = SimulationContext(simulation_cfg(scene, device))
    try:
        with newton_builder_world_hook(world_hook(scene.model)):
            lab = Lab(sim, InteractiveScene(scene_cfg(scene, usd, num_worlds)), owned=True)
            sim.reset()
        lab.scene.update(0.0)
    except BaseException:
        sim.clear_instance()
        raise
    return lab
