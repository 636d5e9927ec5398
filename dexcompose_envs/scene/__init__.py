"""Scenes: arena, hand and the things of the skills, compiled to a model with named sensors; and their pictures."""

from dexcompose_envs.scene.build import (
    CONTROL_STEP,
    PHYSICS_STEP,
    PHYSICS_STEPS_PER_CONTROL_STEP,
    Scene,
    build_scene,
)

__all__ = ["CONTROL_STEP", "PHYSICS_STEP", "PHYSICS_STEPS_PER_CONTROL_STEP", "Scene", "build_scene"]
