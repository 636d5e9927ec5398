"""Scenes: arena, hand and the things of the skills, compiled to a model with named sensors; and their pictures."""

from dexcompose_envs.scene.build import Scene, build_scene

__all__ = ["Scene", "build_scene"]
