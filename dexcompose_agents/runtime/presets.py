"""The names of the budgets, for everything that learns; what each room makes of them stands in its own `config.py`."""

from __future__ import annotations

PRESETS = ("cpu", "fast", "paper", "test")
"""A laptop's CPU; minutes on a GPU; as published, on a GPU; seconds, in which nothing is learned."""
GPU_PRESETS = ("fast", "paper")
"""Presets whose physics and networks run on a GPU."""
