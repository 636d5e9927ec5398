"""The names of the budgets, for everything that learns; what each room makes of them stands in its own `config.py`."""

from __future__ import annotations

from dexcompose_envs.errors import UsageError

__all__ = ["GPU_PRESETS", "PRESETS", "check_preset"]

PRESETS = ("cpu", "fast", "paper", "test")
"""A laptop's CPU; minutes on a GPU; as published, on a GPU; seconds, in which nothing is learned."""
GPU_PRESETS = ("fast", "paper")
"""Presets whose physics and networks run on a GPU."""


def check_preset(name: str) -> None:
    """Refuses a name that is no preset.

    Raises:
        UsageError: With the names that are.
    """
    if name not in PRESETS:
        raise UsageError(f"unknown preset {name!r}; expected one of {', '.join(PRESETS)}")
