"""MuJoCo Warp: thousands of worlds on a GPU, in and out as torch tensors without copies.

The eight physics steps of a control step are captured once as a CUDA graph and launched without the host looking at
anything. Sensors are computed in the last of them only. On the CPU the same kernels run one world after another: slow,
but enough to test everything but speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import Any

import mujoco
import numpy as np

from dexcompose_envs.arrays import Arrays, choose, to_numpy
from dexcompose_envs.checks import whole_number
from dexcompose_envs.observations import Array
from dexcompose_envs.physics.base import BackendError
from dexcompose_envs.physics.constants import Constants
from dexcompose_envs.physics.contact_capacity import ContactCapacity, measure_capacity
from dexcompose_envs.physics.warp_device import array_bytes, check_device, check_memory, load_warp
from dexcompose_envs.scene import Scene
from dexcompose_envs.timing import PHYSICS_STEPS_PER_CONTROL_STEP

DIVERGED = 1e10
"""Positions and velocities beyond this count as diverged, as in native MuJoCo."""
OVERFLOWS = {
    "NEFC": "constraint rows",
    "NJMAX_NNZ": "non-zeros of the constraint Jacobian",
    "BROADPHASE": "pairs of geoms",
    "NARROWPHASE": "contacts",
    "CCD": "convex contacts",
    "EPA_HORIZON": "edges of a convex contact",
    "CONTACT_MATCH": "contacts of a sensor",
}
"""Buffers whose overflow drops contacts. An iteration limit of the solver that was reached is no overflow."""
_SENSOR_CONTACTS = 16
"""Contacts that one contact sensor (a finger link and an object) can hold."""


def fatal_overflows(types: Any) -> int:
    """The bits of MuJoCo Warp's `OverflowType` (as far as this version has them) that mean dropped contacts."""
    return sum(int(types[name]) for name in OVERFLOWS if name in types.__members__)


def explain_overflow(problem: int, types: Any, room: ContactCapacity) -> str:
    """In words, which of these bits are set, and how much room there was."""
    full = [what for name, what in OVERFLOWS.items() if name in types.__members__ and problem & int(types[name])]
    return (
        f"no room for all {' and '.join(full)}, so contacts were dropped; there was room for {room.contacts} "
        f"contacts and {room.rows} constraint rows per world"
    )


class MujocoWarp:
    """Steps N worlds on one device. See `physics.base.Engine` for the contract.

    The first world on a new machine takes a minute, in which kernels are compiled; Warp keeps them on disk.

    A GPU's rounding depends on the order in which its threads finish, so runs agree statistically, not bit by bit; on
    the CPU they do bit by bit.
    """

    def __init__(
        self, scene: Scene, num_worlds: int, device: str = "cuda", capacity: ContactCapacity | None = None
    ) -> None:
        """Builds model and data on the device.

        Args:
            scene: The compiled scene.
            num_worlds: Number of worlds N.
            device: "cuda", "cuda:N" or "cpu".
            capacity: Room for contacts; None: measured on closed hands.

        Raises:
            UsageError: If the device's name or the number of worlds is none.
            BackendError: If a package or the device is missing, too old or too small.
        """
        num_worlds = whole_number("num_worlds", num_worlds)
        self._warp, self._mjw = load_warp()
        self.device = check_device(device)
        self.arrays = Arrays.torch(self.device)
        self.model, self.num_worlds = scene.model, num_worlds
        self.constants = Constants(scene.model)
        self.capacity = capacity or measure_capacity(scene)
        with self._warp.ScopedDevice(str(self.device)):
            self._build()
        self._fatal = fatal_overflows(self._mjw.OverflowType)
        self._graph: Any = None
        self._stream: Any = None
        self._warp_stream: Any = None

    def _build(self) -> None:
        mjw, to_torch = self._mjw, self._warp.to_torch
        if self.arrays.is_cuda:
            free = int(self._warp.get_device().free_memory)
            one, two = (array_bytes(self._make_data(count)) for count in (1, 2))
            check_memory(self.num_worlds, two - one, free, str(self.device))
        seeing = mjw.put_model(self.model)
        seeing.opt.contact_sensor_maxmatch = _SENSOR_CONTACTS
        seeing.opt.warn_overflow = 0  # overflows are raised, not printed
        # Lets the solver stop when it is done; else it goes through all iterations.
        seeing.opt.graph_conditional = not self.arrays.is_cuda or self._warp.is_conditional_graph_supported()
        self._differing = self._make_differing(seeing)
        blind = replace(seeing.opt, disableflags=int(seeing.opt.disableflags) | int(mjw.DisableBit.SENSOR))
        self._seeing, self._blind = seeing, replace(seeing, opt=blind)
        try:
            self._data = self._make_data(self.num_worlds)
        except RuntimeError as error:
            raise BackendError(f"{self.num_worlds} worlds don't fit on {self.device}: {error}") from error
        data = self._data
        self._state = {
            "qpos": to_torch(data.qpos),
            "qvel": to_torch(data.qvel),
            "targets": to_torch(data.ctrl),
            "warmstart": to_torch(data.qacc_warmstart),
        }
        self._fixture = (to_torch(data.mocap_pos), to_torch(data.mocap_quat)) if self.model.nmocap else None
        self.sensordata = to_torch(data.sensordata)
        self._overflow = to_torch(data.overflow)
        if self.arrays.is_cuda:
            self._warp.synchronize_device()  # what was made on Warp's stream is used on torch's
        self.state_size = 7 * self.model.nmocap + sum(part.shape[1] for part in self._state.values())
        self.state_size += self.constants.size

    def _make_differing(self, model: Any) -> list[tuple[Array, tuple[Any, ...], slice]]:
        """Gives each world its own numbers of the fields in `constants`; where they are, as `Constants.places` has it.

        Fields that MuJoCo Warp doesn't have it doesn't need.
        """
        self._hidden = self.arrays.of(np.tile(self.constants.nominal(), (self.num_worlds, 1)))
        places = []
        for name, (index, columns) in self.constants.fields.items():
            if not hasattr(model, name):
                continue
            value = np.asarray(getattr(self.model, name), np.float32)
            every = np.tile(value, (self.num_worlds, *[1] * value.ndim))
            array = self._warp.array(every, dtype=getattr(model, name).dtype)
            setattr(model, name, array)
            index = tuple(self._on_device(item) for item in index)
            places.append((self._warp.to_torch(array), (slice(None), *index), columns))
        return places

    def _on_device(self, index: Any) -> Any:
        return self.arrays.of(index, self.arrays.xp.int64) if isinstance(index, np.ndarray) else index

    def _differ(self) -> None:
        """Tells the model what hidden physics each world has now."""
        for array, index, columns in self._differing:
            array[index] = self._hidden[:, columns]

    def _make_data(self, num_worlds: int) -> Any:
        room = self.capacity
        return self._mjw.make_data(self.model, nworld=num_worlds, nconmax=room.contacts, njmax=room.rows)

    def step(self, targets: Array) -> Array:
        """See `Engine.step`."""
        self._state["targets"].copy_(targets)
        self._run()
        xp, qpos, qvel = self.arrays.xp, self._state["qpos"], self._state["qvel"]
        # Comparisons with NaN are false.
        sound = xp.all(xp.abs(qpos) < DIVERGED, axis=-1) & xp.all(xp.abs(qvel) < DIVERGED, axis=-1)
        diverged = ~(sound & xp.all(xp.isfinite(self.sensordata), axis=-1))
        # What a diverged world overflowed on its way is no news: it is reported as diverged.
        self._overflow.copy_(choose(diverged, xp.zeros_like(self._overflow), self._overflow))
        return diverged

    def _physics(self) -> None:
        """All physics steps of one control step."""
        for _ in range(PHYSICS_STEPS_PER_CONTROL_STEP - 1):
            self._mjw.step(self._blind, self._data)
        self._mjw.step(self._seeing, self._data)

    def _run(self) -> None:
        """One control step, queued behind what torch has been told so far."""
        if not self.arrays.is_cuda:
            with self._warp.ScopedDevice("cpu"):
                self._physics()
            return
        import torch

        current = torch.cuda.current_stream(self.device)
        if self._graph is None:
            self._capture()
        self._stream.wait_stream(current)
        self._warp.capture_launch(self._graph, stream=self._warp_stream)
        current.wait_stream(self._stream)

    def _capture(self) -> None:
        """Records the control step. Kernels must be compiled before, so it is run once, and the state put back."""
        import torch

        state, sensors, overflow = self.get_state(), self.sensordata.clone(), self._overflow.clone()
        # A graph can't be captured on the default stream. Torch's other streams don't block that one, and there Warp
        # could give a kernel's scratch memory away too early.
        self._warp_stream = self._warp.Stream(str(self.device))
        self._stream = self._warp.stream_to_torch(self._warp_stream)
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with self._warp.ScopedDevice(str(self.device)), self._warp.ScopedStream(self._warp_stream):
            self._physics()
            self._warp.synchronize_stream(self._warp_stream)
            with self._warp.ScopedCapture(stream=self._warp_stream) as capture:
                self._physics()
        self._graph = capture.graph
        torch.cuda.current_stream(self.device).wait_stream(self._stream)
        self._set(self.arrays.of(np.arange(self.num_worlds), self.arrays.xp.int64), state)
        self.sensordata.copy_(sensors)
        self._overflow.copy_(overflow)

    def write(self, worlds: Array, parts: Mapping[str, Array]) -> None:
        """See `Engine.write`. The next step computes everything else from these, so no world notices another's."""
        for name, part in self._state.items():
            part.copy_(choose(worlds, parts[name], part))
        if self._fixture is not None:
            position, rotation = self._fixture
            pose = parts["fixture_pose"].reshape(self.num_worlds, -1, 7)
            position.copy_(choose(worlds, pose[:, :, :3], position))
            rotation.copy_(choose(worlds, pose[:, :, 3:], rotation))
        self.sensordata.copy_(choose(worlds, parts["sensordata"], self.sensordata))
        self._hidden.copy_(choose(worlds, parts["constants"], self._hidden))
        self._differ()

    def problem(self) -> Array:
        """See `Engine.problem`: bits of `mujoco_warp.OverflowType`."""
        return self._overflow & self._fatal

    def explain(self, problem: int) -> str:
        """See `Engine.explain`."""
        return explain_overflow(problem, self._mjw.OverflowType, self.capacity)

    def usage(self) -> dict[str, float]:
        """Mean contacts and constraint rows per world now; the host waits for the device."""
        data, to_torch = self._data, self._warp.to_torch
        return {
            "contacts": int(to_torch(data.nacon)[0]) / self.num_worlds,
            "rows": float(to_torch(data.nefc).float().mean()),
        }

    def get_state(self) -> Array:
        """See `Engine.get_state`."""
        return self.arrays.xp.concat([part.reshape(self.num_worlds, -1) for part in self._parts()], axis=-1)

    def set_state(self, state: Array, worlds: Array) -> None:
        """See `Engine.set_state`."""
        self._set(worlds, state)

    def _set(self, worlds: Array, state: Array) -> None:
        start = 0
        for part in self._parts():
            size = part[0].numel()
            part[worlds] = state[:, start : start + size].reshape(-1, *part.shape[1:])
            start += size
        self._differ()

    def _parts(self) -> list[Array]:
        """Everything that a state consists of, each (N, ...)."""
        return [*self._state.values(), *(self._fixture or ()), self._hidden]

    def hidden(self) -> Array:
        """See `Engine.hidden`."""
        return self._hidden.clone()

    def qpos(self) -> Array:
        """See `Engine.qpos`."""
        return self._state["qpos"].clone()

    def qvel(self) -> Array:
        """See `Engine.qvel`."""
        return self._state["qvel"].clone()

    def load_into(self, data: mujoco.MjData, world: int) -> None:
        """See `Engine.load_into`."""
        data.qpos[:] = to_numpy(self._state["qpos"][world])
        data.qvel[:] = to_numpy(self._state["qvel"][world])
        data.ctrl[:] = to_numpy(self._state["targets"][world])
        if self._fixture is not None:
            data.mocap_pos[:] = to_numpy(self._fixture[0][world])
            data.mocap_quat[:] = to_numpy(self._fixture[1][world])
        model = copy(self.model)
        self.constants.put(self.constants.places(model), to_numpy(self._hidden[world]))
        mujoco.mj_forward(model, data)

    def close(self) -> None:
        """Frees the graph; arrays go with the last reference to them."""
        self._graph = None
