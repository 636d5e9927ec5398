"""Base policies: diffusion policies trained from demonstrations.

`load_policy` gives a trained one, `train` makes one. Names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dexcompose_agents.diffusion.config import NetworkConfig, TrainingConfig, preset
    from dexcompose_agents.diffusion.dataset import DatasetError, Episode, load_minari
    from dexcompose_agents.diffusion.policy import BasePolicy, DiffusionPolicy, load_policy
    from dexcompose_agents.diffusion.training import TrainingInterrupted, TrainingProgress, train

_HOMES = {
    "BasePolicy": "policy",
    "DatasetError": "dataset",
    "DiffusionPolicy": "policy",
    "Episode": "dataset",
    "NetworkConfig": "config",
    "TrainingConfig": "config",
    "TrainingInterrupted": "training",
    "TrainingProgress": "training",
    "load_minari": "dataset",
    "load_policy": "policy",
    "preset": "config",
    "train": "training",
}

__all__ = [
    "BasePolicy",
    "DatasetError",
    "DiffusionPolicy",
    "Episode",
    "NetworkConfig",
    "TrainingConfig",
    "TrainingInterrupted",
    "TrainingProgress",
    "load_minari",
    "load_policy",
    "preset",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
