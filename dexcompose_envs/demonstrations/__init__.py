"""Demonstrations: scripted experts, a recorder for any agent or teleoperator, Minari datasets and their replay."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dexcompose_envs.demonstrations.attempts import RecordingError
    from dexcompose_envs.demonstrations.datasets import dataset_id_of, load_demonstrations, minari_root
    from dexcompose_envs.demonstrations.recorder import (
        CallbackPolicy,
        Recording,
        record,
    )
    from dexcompose_envs.demonstrations.replay import ReplayError, ReplayReport, replay_dataset

_HOME = {
    "dataset_id_of": "datasets",
    "load_demonstrations": "datasets",
    "minari_root": "datasets",
    "CallbackPolicy": "recorder",
    "Recording": "recorder",
    "RecordingError": "attempts",
    "record": "recorder",
    "ReplayError": "replay",
    "ReplayReport": "replay",
    "replay_dataset": "replay",
}
__all__ = [
    "CallbackPolicy",
    "Recording",
    "RecordingError",
    "ReplayError",
    "ReplayReport",
    "dataset_id_of",
    "load_demonstrations",
    "minari_root",
    "record",
    "replay_dataset",
]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
