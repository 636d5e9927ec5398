"""Scenes: arena, hand and the things of the skills, compiled to a model with named sensors; and their pictures."""

from dexcompose_envs.scene.build import Scene, build_scene

__all__ = ["Scene", "build_scene", "model_hash_of"]


def model_hash_of(name: str) -> str:
    """Hash of the physics model of a skill or a chain of skills, such as "PushButton" or "GraspBall-PushButton"."""
    return build_scene(*name.split("-")).model_hash
