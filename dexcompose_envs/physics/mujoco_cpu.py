"""Native MuJoCo on all CPU cores: one model and `MjData` per thread, world states kept in one array."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexcompose_envs.arrays import Arrays
from dexcompose_envs.checks import whole_number
from dexcompose_envs.physics.constants import Constants
from dexcompose_envs.physics.workers import Workers, usable_cores
from dexcompose_envs.scene import Scene
from dexcompose_envs.timing import CONTROL_STEP, PHYSICS_STEPS_PER_CONTROL_STEP

_STATE = mujoco.mjtState
# Everything a world needs to go on bit by bit, the solver's warm start included.
_SPEC = int(
    _STATE.mjSTATE_TIME
    | _STATE.mjSTATE_QPOS
    | _STATE.mjSTATE_QVEL
    | _STATE.mjSTATE_CTRL
    | _STATE.mjSTATE_MOCAP_POS
    | _STATE.mjSTATE_MOCAP_QUAT
    | _STATE.mjSTATE_WARMSTART
)
_BLIND = int(mujoco.mjtDisableBit.mjDSBL_SENSOR)


class _Seat:
    """A thread's model and data, and those of their arrays that every step touches.

    MuJoCo's bindings make such an array anew whenever it is named.
    """

    def __init__(self, data: mujoco.MjData, constants: Constants) -> None:
        self.data, self.model = data, data.model
        self.options, self.ctrl, self.sensordata = self.model.opt, data.ctrl, data.sensordata
        self._seeing = self.options.disableflags
        self._constants, self._places, self._row = constants, constants.places(self.model), b""

    def load(self, state: NDArray[np.float64], constants: NDArray[np.float64]) -> None:
        """Puts data and model into a world's state."""
        if (row := constants.tobytes()) != self._row:
            self._row = b""  # until all of it is there
            self._constants.put(self._places, constants)
            self._row = row
        mujoco.mj_setState(self.model, self.data, state, _SPEC)

    def step(self) -> None:
        """One control step; sensors are computed in its last physics step only."""
        self.options.disableflags = self._seeing | _BLIND
        mujoco.mj_step(self.model, self.data, PHYSICS_STEPS_PER_CONTROL_STEP - 1)
        self.options.disableflags = self._seeing
        mujoco.mj_step(self.model, self.data)


class MujocoCPU:
    """Steps N worlds on a thread pool; `mj_step` runs the physics steps of a control step without the interpreter.

    A world's state ends with its hidden physics, which the thread's model takes over whenever it steps that world.

    A step that is interrupted or fails hasn't happened: worlds are stepped in copies of their states, which replace
    them when all are done.

    See `physics.base.Engine` for the contract.
    """

    def __init__(self, scene: Scene, num_worlds: int, num_threads: int | None = None) -> None:
        """Creates the engine.

        Args:
            scene: The compiled scene.
            num_worlds: Number of worlds N.
            num_threads: CPU threads; default: as many as there are usable cores and worlds.

        Raises:
            UsageError: If a count is no whole number or below one.
        """
        num_worlds = whole_number("num_worlds", num_worlds, 1)
        threads = whole_number("num_threads", usable_cores() if num_threads is None else num_threads, 1)
        self.model = scene.model
        self.constants = Constants(scene.model)
        self.arrays = Arrays.numpy()
        self.num_worlds = num_worlds
        self._moving = mujoco.mj_stateSize(self.model, _SPEC)
        self.state_size = self._moving + self.constants.size
        self._workers, self._local = Workers(self.model, min(threads, num_worlds)), threading.local()
        self._states = np.zeros((num_worlds, self.state_size))
        self.sensordata = np.zeros((num_worlds, self.model.nsensordata))
        nq, nv = self.model.nq, self.model.nv
        self._qpos, self._qvel = slice(1, 1 + nq), slice(1 + nq, 1 + nq + nv)
        mujoco.mj_getState(self.model, self._workers.data, self._states[0, : self._moving], _SPEC)
        self._states[0, self._moving :] = self.constants.nominal()
        self._states[1:] = self._states[0]

    def step(self, targets: NDArray[np.float64]) -> NDArray[np.bool_]:
        """See `Engine.step`."""
        states, sensordata = self._states.copy(), self.sensordata.copy()
        moving, constants = states[:, : self._moving], states[:, self._moving :]

        def step_world(data: mujoco.MjData, world: int) -> None:
            seat, state = self._seat(data), moving[world]
            seat.load(state, constants[world])
            seat.ctrl[:] = targets[world]
            seat.step()
            mujoco.mj_getState(seat.model, data, state, _SPEC)
            sensordata[world] = seat.sensordata

        self._workers.run(self.num_worlds, step_world)
        before, self._states, self.sensordata = self._states[:, 0], states, sensordata
        # MuJoCo resets a diverged simulation by itself, which sets its clock back.
        diverged = np.abs(states[:, 0] - before - CONTROL_STEP) > 1e-6
        return diverged | ~np.isfinite(sensordata).all(axis=1)

    def _seat(self, data: mujoco.MjData) -> _Seat:
        """The calling thread's seat, whose data these are."""
        seat: _Seat | None = getattr(self._local, "seat", None)
        if seat is None or seat.data is not data:
            seat = self._local.seat = _Seat(data, self.constants)
        return seat

    def write(self, worlds: NDArray[np.bool_], parts: Mapping[str, NDArray[np.float64]]) -> None:
        """See `Engine.write`."""
        data = self._workers.data
        for world in np.flatnonzero(worlds):
            mujoco.mj_resetData(self.model, data)
            data.time = CONTROL_STEP  # never 0, to which MuJoCo sets the clock of a diverged world
            data.qpos[:], data.qvel[:], data.ctrl[:] = (parts[name][world] for name in ("qpos", "qvel", "targets"))
            pose = parts["fixture_pose"][world].reshape(-1, 7)
            data.mocap_pos[:], data.mocap_quat[:] = pose[:, :3], pose[:, 3:]
            data.qacc_warmstart[:] = parts["warmstart"][world]
            mujoco.mj_getState(self.model, data, self._states[world, : self._moving], _SPEC)
            self._states[world, self._moving :] = parts["constants"][world]
            self.sensordata[world] = parts["sensordata"][world]

    def problem(self) -> None:
        """See `Engine.problem`: native MuJoCo allocates as it goes."""

    def explain(self, problem: int) -> str:
        """See `Engine.explain`."""
        raise ValueError(f"native MuJoCo has no problem {problem}")

    def get_state(self) -> NDArray[np.float64]:
        """See `Engine.get_state`."""
        return self._states.copy()

    def set_state(self, state: NDArray[np.float64], worlds: NDArray[np.int64]) -> None:
        """See `Engine.set_state`."""
        self._states[worlds] = state

    def hidden(self) -> NDArray[np.float64]:
        """See `Engine.hidden`."""
        return self._states[:, self._moving :].copy()

    def qpos(self) -> NDArray[np.float64]:
        """Generalised positions (N, nq), fresh."""
        return self._states[:, self._qpos].copy()

    def qvel(self) -> NDArray[np.float64]:
        """Generalised velocities (N, nv), fresh."""
        return self._states[:, self._qvel].copy()

    def load_into(self, data: mujoco.MjData, world: int) -> None:
        """Copies one world's state into `data` and computes what rendering needs."""
        seat, state = self._seat(self._workers.data), self._states[world, : self._moving]
        seat.load(state, self._states[world, self._moving :])
        mujoco.mj_setState(seat.model, data, state, _SPEC)
        mujoco.mj_forward(seat.model, data)

    def close(self) -> None:
        """Ends the thread pool."""
        self._workers.close()
