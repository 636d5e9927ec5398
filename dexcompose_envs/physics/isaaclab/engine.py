"""Isaac Lab as an engine: its scene and its assets, stepped by Newton's MuJoCo-Warp solver, torch in and out.

Everything goes through Isaac Lab's assets, by names of joints and bodies, but for two things that they don't offer: the
friction of single geoms, and the solver's warm start, without which a state that is set doesn't go on as it did.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

import mujoco
import numpy as np
import torch
import warp as wp
from isaaclab_newton.physics import NewtonManager
from mujoco_warp import OverflowType
from newton import ModelFlags
from torch import Tensor

from dexcompose_envs import hand
from dexcompose_envs.arrays import Arrays, to_numpy
from dexcompose_envs.physics.constants import Constants
from dexcompose_envs.physics.contact_capacity import measure_capacity
from dexcompose_envs.physics.isaaclab.assets import contact_name
from dexcompose_envs.physics.isaaclab.frames import Motion, inverse, rotated, w_first, w_last
from dexcompose_envs.physics.isaaclab.lab import Lab
from dexcompose_envs.physics.isaaclab.mechanisms import springs_of
from dexcompose_envs.physics.isaaclab.sensing import LINKS, Felt, Sensing
from dexcompose_envs.physics.mujoco_warp import DIVERGED, explain_overflow, fatal_overflows
from dexcompose_envs.scene import Scene
from dexcompose_envs.scene.sensors import OBJECT, fixture_body
from dexcompose_envs.scene.split import HAND
from dexcompose_envs.timing import PHYSICS_STEP, PHYSICS_STEPS_PER_CONTROL_STEP


class IsaacLab:
    """Steps N worlds of an Isaac Lab scene. See `physics.base.Engine` for the contract.

    What an Isaac Lab environment calls in its own loop are `aim`, then `push` before each physics step and `look`
    before the last; `settle` ends the control step. `step` is all of these.

    Args:
        scene: The compiled scene.
        lab: Simulation and scene of N worlds, started.
    """

    def __init__(self, scene: Scene, lab: Lab) -> None:
        self.model, self.lab = scene.model, lab
        self.num_worlds = int(lab.scene.num_envs)
        self.device = torch.device(lab.sim.device)
        self.arrays = Arrays.torch(self.device)
        self.constants = Constants(scene.model)
        self._sensing = Sensing(scene.model, self.device)
        self._places = {place: contact_name(place) for place in scene.chain.skills}
        self._hand = lab.scene[HAND]
        self._object = lab.scene[OBJECT] if scene.chain.retention is not None else None
        self._fixtures = [lab.scene[fixture_body(place)] for place in scene.chain.interaction_places]
        self._articulations = [self._hand, *self._fixtures]
        self._index_joints()
        self._index_bodies()
        self._index_surfaces()
        n = self.num_worlds
        self._targets = self.arrays.zeros(n, hand.NUM_ACTIONS)
        self._hidden = self.arrays.of(np.tile(self.constants.nominal(), (n, 1)))
        self._warmstart = wp.to_torch(NewtonManager._solver.mjw_data.qacc_warmstart)
        self._overflow = wp.to_torch(NewtonManager._solver.mjw_data.overflow)
        self._fatal, self._room = fatal_overflows(OverflowType), measure_capacity(scene)
        self.sensordata = self.arrays.zeros(n, scene.model.nsensordata)
        self._nominal = None if self._object is None else self._object.data.body_inertia.torch.clone()
        self._seen: Felt | None = None
        self.state_size = int(self.get_state().shape[1])

    def _index_joints(self) -> None:
        """Where the joints of the sensors are in the assets, and the springs that move them."""
        names = [name for asset in self._articulations for name in asset.joint_names]
        self._joints = self._ids([names.index(name) for name in self._sensing.joints])
        self._actions = [self._hand.joint_names.index(name) for name in hand.ACTION_NAMES]
        self._springs = [
            (asset, asset.joint_names.index(spring.joint), spring)
            for spring in springs_of(self.model)
            for asset in self._fixtures
            if spring.joint in asset.joint_names
        ]

    def _index_bodies(self) -> None:
        """Where the bodies of the MJCF are among those of the assets, and "nowhere" for those that are in none."""
        names = [name for asset in self._articulations for name in asset.body_names]
        names += [OBJECT] if self._object is not None else []
        bodies = [self.model.body(i).name for i in range(self.model.nbody)]
        self._bodies = self._ids([names.index(name) if name in names else len(names) for name in bodies])
        links = self.lab.scene[next(iter(self._places.values()))].sensor_names
        self._links = self._ids([links.index(link) for link in LINKS])

    def _index_surfaces(self) -> None:
        """Newton's shapes (N, k) whose friction is hidden."""
        model = NewtonManager.get_model()
        index, _ = self.constants.fields["geom_friction"]
        names = {self.model.geom(int(geom)).name for geom in index[0]}
        shapes: list[list[int]] = [[] for _ in range(self.num_worlds)]
        for shape, (label, world) in enumerate(zip(model.shape_label, model.shape_world.numpy(), strict=True)):
            if label.rsplit("/", 1)[-1] in names:
                shapes[int(world)].append(shape)
        self._surfaces = self._ids(shapes)
        self._friction = wp.to_torch(model.shape_material_mu)

    def _ids(self, values: Any) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.device)

    def step(self, targets: Tensor) -> Tensor:
        """See `Engine.step`."""
        self.aim(targets)
        for left in reversed(range(PHYSICS_STEPS_PER_CONTROL_STEP)):
            self.push()
            if left == 0:
                self.look()
            self.lab.scene.write_data_to_sim()
            self.lab.sim.step(render=False)
            self.lab.scene.update(PHYSICS_STEP)
        return self.settle()

    def aim(self, targets: Tensor) -> None:
        """Sets the position targets (N, 28), m and rad."""
        self._targets = targets.to(self.device, torch.float32)
        self._hand.actuators.target_command.set_position_index(value=self._targets, joint_ids=self._actions)

    def push(self) -> None:
        """Sets the efforts of the springs that USD hasn't, from where their joints are now."""
        for asset, joint, spring in self._springs:
            effort = spring.effort(asset.data.joint_pos.torch[:, joint])
            asset.actuators.target_command.set_effort_index(value=effort[:, None], joint_ids=[joint])

    def look(self) -> None:
        """Remembers the state that sensors speak of: that before the control step's last physics step."""
        self._seen = self._felt()

    def settle(self) -> Tensor:
        """Reads the sensors after a control step; mask (N,), True where the simulation diverged."""
        assert self._seen is not None, "look comes before settle"
        seen = self._seen._replace(contact=self._contact())
        self.sensordata = self._sensing.read(seen)
        state = torch.cat([self.qpos(), self.qvel()], dim=1)
        sound = (state.abs() < DIVERGED).all(dim=1) & torch.isfinite(self.sensordata).all(dim=1)
        return ~sound

    def _felt(self) -> Felt:
        position = torch.cat([asset.data.joint_pos.torch for asset in self._articulations], dim=1)
        velocity = torch.cat([asset.data.joint_vel.torch for asset in self._articulations], dim=1)
        none = {place: self.arrays.zeros(self.num_worlds, len(LINKS), 3) for place in self._places}
        return Felt(
            self._motion(), position[:, self._joints].clone(), velocity[:, self._joints].clone(), self._targets, none
        )

    def _motion(self) -> Motion:
        """Of all bodies of the MJCF; those that are nowhere rest at the origin."""
        poses = [asset.data.body_link_pose_w.torch for asset in self._articulations]
        velocities = [asset.data.body_link_vel_w.torch for asset in self._articulations]
        if self._object is not None:
            poses.append(self._object.data.body_link_pose_w.torch)
            velocities.append(self._object.data.body_link_vel_w.torch)
        n = self.num_worlds
        poses.append(poses[0].new_tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]).expand(n, 1, 7))
        velocities.append(velocities[0].new_zeros(n, 1, 6))
        pose, velocity = torch.cat(poses, dim=1)[:, self._bodies], torch.cat(velocities, dim=1)[:, self._bodies]
        position = pose[..., :3] - self.lab.scene.env_origins[:, None]
        return Motion(position, w_first(pose[..., 3:]), velocity[..., :3], velocity[..., 3:])

    def _contact(self) -> dict[str, Tensor]:
        """Place of a skill -> force (N, 15, 3) of all bodies of its thing, which MuJoCo counts the other way round."""
        forces = {place: self.lab.scene[name].data.force_matrix_w.torch for place, name in self._places.items()}
        return {place: -force.sum(dim=2)[:, self._links] for place, force in forces.items()}

    def write(self, worlds: Tensor, parts: Mapping[str, Tensor]) -> None:
        """See `Engine.write`."""
        index = torch.nonzero(worlds).flatten()
        if len(index) == 0:
            return
        taken = {name: part[index].to(self.device, torch.float32) for name, part in parts.items()}
        qpos, qvel = taken["qpos"], taken["qvel"]
        pose = taken["fixture_pose"].reshape(len(index), -1, 7)
        roots = [torch.cat([pose[:, i, :3], w_last(pose[:, i, 3:])], dim=1) for i in range(len(self._fixtures))]
        joints = [self._of_joints(asset, qpos, qvel) for asset in self._articulations]
        free = []
        if self._object is not None:
            quaternion = qpos[:, 3:7]  # the object comes first
            free = [qpos[:, :3], w_last(quaternion), qvel[:, :3], rotated(quaternion, qvel[:, 3:6])]
        self._hide(index, taken["constants"])
        self._put(torch.cat([*joints, *free, *roots, taken["targets"], taken["warmstart"]], dim=1), index)
        self.sensordata = self.sensordata.index_copy(0, index, taken["sensordata"])

    def _of_joints(self, asset: Any, qpos: Tensor, qvel: Tensor) -> Tensor:
        """Positions and velocities (M, 2 k) of an asset's joints, from qpos and qvel of the MJCF."""
        joints = [self.model.joint(name) for name in asset.joint_names]
        places, speeds = [int(joint.qposadr[0]) for joint in joints], [int(joint.dofadr[0]) for joint in joints]
        return torch.cat([qpos[:, places], qvel[:, speeds]], dim=1)

    def _put(self, state: Tensor, index: Tensor) -> None:
        """Puts worlds (indices (M,)) into states (M, ...), which are in Isaac Lab's own terms, see `get_state`."""
        ids, origins = index.to(torch.int32), self.lab.scene.env_origins[index]
        rest = state

        def take(width: int) -> Tensor:
            nonlocal rest
            taken, rest = rest[:, :width].contiguous(), rest[:, width:]
            return taken

        for asset in self._articulations:
            asset.reset(ids)  # no effort or velocity target stays behind
            count = len(asset.joint_names)
            asset.write_joint_position_to_sim_index(position=take(count), env_ids=ids)
            asset.write_joint_velocity_to_sim_index(velocity=take(count), env_ids=ids)
        if self._object is not None:
            self._object.reset(ids)
            self._object.write_root_link_pose_to_sim_index(root_pose=_placed(take(7), origins), env_ids=ids)
            self._object.write_root_link_velocity_to_sim_index(root_velocity=take(6), env_ids=ids)
        for asset in self._fixtures:
            asset.write_root_pose_to_sim_index(root_pose=_placed(take(7), origins), env_ids=ids)
        targets = take(hand.NUM_ACTIONS)
        self._targets = self._targets.index_copy(0, index, targets)
        self._hand.actuators.target_command.set_position_index(value=targets, joint_ids=self._actions, env_ids=ids)
        self.lab.scene.write_data_to_sim()
        self.lab.sim.forward()  # forgets the solver's warm start of these worlds
        self._warmstart[index] = rest
        self.lab.scene.update(0.0)

    def _hide(self, index: Tensor, rows: Tensor) -> None:
        """Gives worlds (indices (M,)) their hidden mass and friction."""
        changed = (self._hidden[index] != rows).any(dim=1)
        self._hidden[index] = rows
        if not changed.any():
            return
        index, rows = index[changed], rows[changed]
        ids = index.to(torch.int32)
        if self._object is not None and self._nominal is not None:
            mass = self.constants.mass(rows)[:, None].contiguous()
            factor = mass / float(self.constants.mass(self.constants.nominal()[None])[0])
            self._object.set_masses_index(masses=mass, env_ids=ids)
            inertia = self._nominal[index].reshape(len(index), 1, 9) * factor[..., None]
            self._object.set_inertias_index(inertias=inertia.contiguous(), env_ids=ids)
        self._friction[self._surfaces[index]] = self.constants.friction(rows)[:, None]
        NewtonManager.add_model_change(ModelFlags.SHAPE_PROPERTIES)

    def problem(self) -> Tensor:
        """See `Engine.problem`: bits of `mujoco_warp.OverflowType`."""
        return self._overflow & self._fatal

    def explain(self, problem: int) -> str:
        """See `Engine.explain`."""
        return explain_overflow(problem, OverflowType, self._room)

    def get_state(self) -> Tensor:
        """See `Engine.get_state`: joints, object, fixtures' poses, targets, warm start, hidden physics."""
        parts = []
        for asset in self._articulations:
            parts += [asset.data.joint_pos.torch, asset.data.joint_vel.torch]
        if self._object is not None:
            parts += [self._root_pose(self._object), self._object.data.root_link_vel_w.torch]
        parts += [self._root_pose(asset) for asset in self._fixtures]
        return torch.cat([*parts, self._targets, self._warmstart, self._hidden], dim=1)

    def set_state(self, state: Tensor, worlds: Tensor) -> None:
        """See `Engine.set_state`."""
        width = self.state_size - self.constants.size
        self._hide(worlds, state[:, width:])
        self._put(state[:, :width], worlds)

    def _root_pose(self, asset: Any) -> Tensor:
        """Where an asset stands in its world (N, 7), quaternion w last."""
        return _placed(asset.data.root_link_pose_w.torch, -self.lab.scene.env_origins)

    def hidden(self) -> Tensor:
        """See `Engine.hidden`."""
        return self._hidden.clone()

    def qpos(self) -> Tensor:
        """See `Engine.qpos`."""
        joints = torch.cat([asset.data.joint_pos.torch for asset in self._articulations], dim=1)[:, self._joints]
        if self._object is None:
            return joints.clone()
        pose = self._root_pose(self._object)
        return torch.cat([pose[:, :3], w_first(pose[:, 3:]), joints], dim=1)  # the object comes first, as in the MJCF

    def qvel(self) -> Tensor:
        """See `Engine.qvel`."""
        joints = torch.cat([asset.data.joint_vel.torch for asset in self._articulations], dim=1)[:, self._joints]
        if self._object is None:
            return joints.clone()
        velocity, quaternion = self._object.data.root_link_vel_w.torch, w_first(self._root_pose(self._object)[:, 3:])
        return torch.cat([velocity[:, :3], rotated(inverse(quaternion), velocity[:, 3:]), joints], dim=1)

    def load_into(self, data: mujoco.MjData, world: int) -> None:
        """See `Engine.load_into`."""
        data.qpos[:], data.qvel[:] = to_numpy(self.qpos()[world]), to_numpy(self.qvel()[world])
        data.ctrl[:] = to_numpy(self._targets[world])
        for i, asset in enumerate(self._fixtures):
            pose = self._root_pose(asset)[world]
            data.mocap_pos[i], data.mocap_quat[i] = to_numpy(pose[:3]), to_numpy(w_first(pose[3:]))
        model = copy(self.model)
        self.constants.put(self.constants.places(model), to_numpy(self._hidden[world]))
        mujoco.mj_forward(model, data)

    def close(self) -> None:
        """Ends the simulation if it was made for this engine."""
        self.lab.close()


def _placed(pose: Tensor, origins: Tensor) -> Tensor:
    """Poses (M, 7) moved by (M, 3), m."""
    return torch.cat([pose[:, :3] + origins, pose[:, 3:]], dim=1)
