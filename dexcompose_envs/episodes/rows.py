"""Rows: first states, complete, with what a forward pass of native MuJoCo says of them, each one row of numbers.

The pass runs on the host whichever engine steps the worlds. An engine that lives on a GPU thus restarts worlds by
copying rows that lie there already; it needs no extra pass, and observations of a start are the same on every engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.episodes import base_shake
from dexcompose_envs.physics.constants import Constants
from dexcompose_envs.physics.workers import Workers
from dexcompose_envs.scene import Scene

PHYSICS_PARTS = ("qpos", "qvel", "targets", "fixture_pose", "warmstart", "sensordata", "constants")
"""Parts of a row that an engine takes."""
MEMORY_PARTS = ("shake", "noise", "previous_action", "reference", "hold_target", "is_held_start")
"""Parts of a row that the environment keeps of its episodes."""


class FirstStates:
    """Turns drawn starts into rows.

    Attributes:
        columns: Part name -> columns of a row.
        shapes: Part name -> shape of one world's part.
        width: Numbers per row.
    """

    def __init__(self, scene: Scene, threads: int) -> None:
        self._model, self._constants = scene.model, Constants(scene.model)
        self._workers = Workers(scene.model, threads)
        model = scene.model
        self.shapes: dict[str, tuple[int, ...]] = {
            "qpos": (model.nq,),
            "qvel": (model.nv,),
            "targets": (hand.NUM_ACTIONS,),
            "fixture_pose": (7 * model.nmocap,),
            "warmstart": (model.nv,),
            "sensordata": (model.nsensordata,),
            "physics": (2,),
            "constants": (self._constants.size,),
            "shake": base_shake.SHAPE,
            "noise": (1,),
            "previous_action": (hand.NUM_ACTIONS,),
            "reference": (hand.NUM_FINGER_JOINTS,),
            "hold_target": (3,),
            "is_held_start": (1,),
        }
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes.values()]).tolist()
        starts = [0, *ends[:-1]]
        self.columns = {name: slice(a, b) for name, a, b in zip(self.shapes, starts, ends, strict=True)}
        self.width = ends[-1]

    def rows(self, starts: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Rows (M, width) of drawn starts, which have all parts but what a forward pass says."""
        rows = np.zeros((len(starts["qpos"]), self.width))
        for name, value in starts.items():
            rows[:, self.columns[name]] = value.reshape(len(rows), -1)
        self._forward({name: rows[:, columns] for name, columns in self.columns.items()})
        return rows

    def resting(self) -> NDArray[np.float64]:
        """One row (width,): the model's own initial state, for worlds that were never reset."""
        row = np.zeros(self.width)
        row[self.columns["qpos"]] = self._model.qpos0
        row[self.columns["constants"]] = self._constants.nominal()
        if self._model.nmocap:
            data = mujoco.MjData(self._model)
            row[self.columns["fixture_pose"]] = np.hstack([data.mocap_pos, data.mocap_quat]).ravel()
        return row

    def _forward(self, part: dict[str, NDArray[np.float64]]) -> None:
        """Fills in what the hidden physics make of the model, sensor data and the solver's warm start."""

        def forward(data: mujoco.MjData, row: int) -> None:
            model = data.model
            part["constants"][row] = self._constants.of(model, data, *part["physics"][row])
            mujoco.mj_resetData(model, data)
            data.qpos[:], data.qvel[:], data.ctrl[:] = part["qpos"][row], part["qvel"][row], part["targets"][row]
            pose = part["fixture_pose"][row].reshape(-1, 7)
            data.mocap_pos[:], data.mocap_quat[:] = pose[:, :3], pose[:, 3:]
            mujoco.mj_forward(model, data)
            part["warmstart"][row], part["sensordata"][row] = data.qacc, data.sensordata

        self._workers.run(len(part["qpos"]), forward, least=16)

    def parts(self, rows: Any, names: tuple[str, ...]) -> dict[str, Any]:
        """Named parts (M, *shape) of rows (M, width), of any array library."""
        return {name: rows[:, self.columns[name]].reshape(len(rows), *self.shapes[name]) for name in names}

    def close(self) -> None:
        """Ends the threads."""
        self._workers.close()
