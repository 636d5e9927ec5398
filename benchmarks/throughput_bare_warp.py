"""Our model stepped by MuJoCo Warp alone: what a GPU environment's speed is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexcompose_envs.episodes.hidden_physics import HiddenPhysics
from dexcompose_envs.episodes.rows import PHYSICS_PARTS, FirstStates
from dexcompose_envs.episodes.starts import StartSampler
from dexcompose_envs.held_states import HeldStateLibrary
from dexcompose_envs.physics.base import BackendError
from dexcompose_envs.physics.contact_capacity import measure_capacity
from dexcompose_envs.physics.mujoco_warp import DIVERGED
from dexcompose_envs.physics.warp_device import check_device, load_warp
from dexcompose_envs.physics.workers import usable_cores
from dexcompose_envs.scene import Scene, build_scene
from dexcompose_envs.timing import PHYSICS_STEPS_PER_CONTROL_STEP

_SENSOR_CONTACTS = 16
"""Room of a contact sensor, as in the environment's engine."""
_HARMLESS = ("ITERATIONS", "LS_ITERATIONS")
"""Overflow flags that mean a solver's limit rather than dropped contacts."""

Parts = dict[str, NDArray[np.float64]]


def held_parts(
    retention: str, interaction: str | None, library: HeldStateLibrary, num_worlds: int, shake: float = 0.0
) -> Parts:
    """First states of N worlds with the object in hand, world i drawn as an environment seeded with 0 draws it.

    Args:
        retention: Retention skill.
        interaction: Interaction skill, or None.
        library: Held states; world i starts from row i, counted round.
        num_worlds: N.
        shake: Scale of the wrist's tremble.

    Returns:
        `PHYSICS_PARTS`, each with N rows.
    """
    scene = build_scene(retention, interaction)
    sampler = StartSampler(scene, shake, HiddenPhysics(), "all", library)
    rngs = [np.random.default_rng(world) for world in range(num_worlds)]
    starts = sampler.draw(rngs, "held", np.arange(num_worlds) % len(library))
    firsts = FirstStates(scene, usable_cores())
    return firsts.parts(firsts.rows(starts), PHYSICS_PARTS)


class BarePhysics:
    """N worlds; the eight physics steps of a control step are one CUDA graph.

    Args:
        scene: The compiled scene.
        num_worlds: Number of worlds N.
        device: "cuda:0" or "cpu".
        sensors: Whether all sensors are computed in every physics step; if not, they are switched off, which costs the
            same as a model that has none.

    Attributes:
        sensordata: Latest sensor data (N, nsensordata), a view.
    """

    def __init__(self, scene: Scene, num_worlds: int, device: str, *, sensors: bool) -> None:
        self._warp, self._mjw = load_warp()
        self.num_worlds, self.device = num_worlds, check_device(device)
        self._cuda = self.device.type == "cuda"
        room = measure_capacity(scene)
        with self._warp.ScopedDevice(str(self.device)):
            model = self._mjw.put_model(scene.model)
            model.opt.contact_sensor_maxmatch = _SENSOR_CONTACTS
            model.opt.warn_overflow = 0
            model.opt.graph_conditional = not self._cuda or self._warp.is_conditional_graph_supported()
            if not sensors:
                model.opt.disableflags |= int(self._mjw.DisableBit.SENSOR)
            data = self._mjw.make_data(scene.model, nworld=num_worlds, nconmax=room.contacts, njmax=room.rows)
        self._model, self._data = model, data
        to_torch = self._warp.to_torch
        self._control = to_torch(data.ctrl)
        self.sensordata = to_torch(data.sensordata)
        self._graph: Any = None
        self._stream: Any = None
        if self._cuda:
            # Warp's own kind of stream, as in the engine: see there.
            self._warp_stream = self._warp.Stream(str(self.device))
            self._stream = self._warp.stream_to_torch(self._warp_stream)
            self._warp.synchronize_device(str(self.device))

    def load(self, parts: Parts) -> None:
        """Puts the worlds into states: `PHYSICS_PARTS`, each with N rows."""
        data, to_torch = self._data, self._warp.to_torch
        targets = {
            "qpos": to_torch(data.qpos),
            "qvel": to_torch(data.qvel),
            "targets": self._control,
            "warmstart": to_torch(data.qacc_warmstart),
        }
        for name, target in targets.items():
            target.copy_(torch.as_tensor(parts[name]))
        if parts["fixture_pose"].shape[1]:
            pose = torch.as_tensor(parts["fixture_pose"])[:, None]
            to_torch(data.mocap_pos).copy_(pose[..., :3])
            to_torch(data.mocap_quat).copy_(pose[..., 3:])

    def forward(self) -> None:
        """Computes accelerations and sensors of the present states."""
        with self._warp.ScopedDevice(str(self.device)):
            self._mjw.forward(self._model, self._data)

    def run(self, controls: Tensor) -> None:
        """Control steps with position targets (T, N, 28), m and rad."""
        if self._stream is None:
            with self._warp.ScopedDevice(str(self.device)):
                for control in controls:
                    self._control.copy_(control)
                    self._physics()
            return
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            if self._graph is None:
                self._capture()
            for control in controls:
                self._control.copy_(control)
                self._warp.capture_launch(self._graph, stream=self._warp_stream)
        current.wait_stream(self._stream)

    def _capture(self) -> None:
        with self._warp.ScopedDevice(str(self.device)), self._warp.ScopedStream(self._warp_stream):
            self._physics()  # kernels must be compiled before
            self._warp.synchronize_stream(self._warp_stream)
            with self._warp.ScopedCapture(stream=self._warp_stream) as capture:
                self._physics()
        self._graph = capture.graph

    def _physics(self) -> None:
        for _ in range(PHYSICS_STEPS_PER_CONTROL_STEP):
            self._mjw.step(self._model, self._data)

    def usage(self) -> dict[str, float]:
        """Mean contacts and constraint rows per world now, and worlds that diverged; waits for the device.

        Raises:
            BackendError: If a sound world dropped contacts, so that the speed is that of something else.
        """
        data, to_torch = self._data, self._warp.to_torch
        sound = (to_torch(data.qpos).abs() < DIVERGED).all(dim=1)  # comparisons with NaN are false
        fatal = sum(int(flag) for flag in self._mjw.OverflowType if flag.name not in _HARMLESS)
        if (to_torch(data.overflow)[sound] & fatal).any():
            raise BackendError("bare physics dropped contacts")
        return {
            "contacts": int(to_torch(data.nacon)[0]) / self.num_worlds,
            "rows": float(to_torch(data.nefc).float().mean()),
            "diverged": int((~sound).sum()),
        }
