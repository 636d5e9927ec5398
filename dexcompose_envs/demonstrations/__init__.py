"""Demonstrations: scripted experts, a recorder for any agent or teleoperator, Minari datasets and their replay."""

from dexcompose_envs.demonstrations.datasets import dataset_id_of, load_demonstrations, minari_root
from dexcompose_envs.demonstrations.hdf5 import from_hdf5, to_hdf5
from dexcompose_envs.demonstrations.recorder import CallbackPolicy, Recording, record
from dexcompose_envs.demonstrations.replay import ReplayError, ReplayReport, replay_dataset

__all__ = [
    "CallbackPolicy",
    "Recording",
    "ReplayError",
    "ReplayReport",
    "dataset_id_of",
    "from_hdf5",
    "load_demonstrations",
    "minari_root",
    "record",
    "replay_dataset",
    "to_hdf5",
]
