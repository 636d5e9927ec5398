"""Drawing how episodes start: on the host, one generator per world, whichever engine then runs them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.checks import one_of
from dexcompose_envs.episodes import base_shake, sensor_noise
from dexcompose_envs.episodes.hidden_physics import HiddenPhysics
from dexcompose_envs.errors import UsageError
from dexcompose_envs.held_states import HeldStateLibrary
from dexcompose_envs.scene import Scene, build_scene

STARTS = ("held", "scratch")
SPLITS = ("all", "train", "test")


class StartSampler:
    """Draws first states; see `CoreConfig` for the options. The library is loaded when first needed."""

    def __init__(
        self,
        scene: Scene,
        shake: float,
        physics: HiddenPhysics,
        held_split: str,
        held_states: HeldStateLibrary | str | Path | None,
    ) -> None:
        self._split = one_of("held_split", held_split, SPLITS)
        self._chain, self._model = scene.chain, scene.model
        self._shake, self._physics, self._source = shake, physics, held_states
        self._places = _places(scene.model)

    @cached_property
    def library(self) -> HeldStateLibrary:
        """The held-state library.

        Raises:
            ArtefactError: If it is missing or belongs to another skill or model.
        """
        if self._chain.retention is None:
            raise UsageError(f"{self._chain.name} holds no object, so it has no held states")
        skill = self._chain.retention.name
        model_hash = build_scene(skill).model_hash
        if not isinstance(self._source, HeldStateLibrary):
            return HeldStateLibrary.load(self._source or skill, skill=skill, model_hash=model_hash)
        self._source.check(skill=skill, model_hash=model_hash)
        return self._source

    def check(self, start: str, held_index: NDArray[np.int64] | None = None) -> None:
        """Refuses a start that doesn't exist or doesn't fit the skills, and a row of the library where none is used."""
        one_of("start", start, STARTS)
        if start == "held" and self._chain.retention is None:
            raise UsageError(f"start='held' needs a retention skill; {self._chain.name} has none")
        if start != "held" and held_index is not None:
            raise UsageError(f"held_index is given, but these episodes start with start={start!r}; expected 'held'")

    def draw(
        self, rngs: Sequence[np.random.Generator], start: str, held_index: NDArray[np.int64] | None = None
    ) -> dict[str, NDArray[np.float64]]:
        """Draws one first state from each of M generators; `held_index` (M,) says which held states to start from.

        Returns:
            Parts of rows, see `rows.py`: qpos (M, nq), qvel (M, nv), position targets (M, 28) in m and rad, fixture
            poses (M, k, 7) with position in m and quaternion with w first, mass factor and friction (M, 2), shake
            (M, *base_shake.SHAPE), seed of the sensor noise (M, 1), previous action (M, 28), q_ref (M, 22), normalised
            and zeros where nothing is held, hold target (M, 3) in the palm frame, m, and whether the object is in hand
            (M, 1).
        """
        count, chain, model = len(rngs), self._chain, self._model
        qpos, qvel = np.tile(model.qpos0, (count, 1)), np.zeros((count, model.nv))
        targets, hold_target = np.zeros((count, hand.NUM_ACTIONS)), np.zeros((count, 3))
        physics, noise = np.zeros((count, 2)), np.zeros((count, 1))
        shake = np.zeros((count, *base_shake.SHAPE))
        fixtures = np.zeros((count, len(chain.interactions), 7))
        rows = np.full(count, -1, np.int64)
        first = next(iter(chain.skills.values()))
        for i, rng in enumerate(rngs):
            shake[i], physics[i] = base_shake.sample(rng, self._shake), self._physics.sample(rng)
            noise[i] = rng.integers(sensor_noise.SEEDS)
            for j, skill in enumerate(chain.interactions):
                fixtures[i, j] = skill.sample_things(rng)
            if start == "held":
                rows[i] = int(self.library.sample(rng, self._split))
                continue
            targets[i] = first.sample_hand(rng)
            qpos[i, self._places["hand_qpos"]] = targets[i]
            if chain.retention is not None:
                qpos[i, self._places["object_qpos"]] = chain.retention.sample_things(rng)
                hold_target[i] = chain.retention.hold_point
        fixtures[:, :, :3] += chain.offsets[:, :3]

        reference = np.zeros((count, hand.NUM_FINGER_JOINTS))
        if start == "held":
            held = self.library.take(rows if held_index is None else held_index)
            for name, place in self._places.items():
                (qpos if name.endswith("qpos") else qvel)[:, place] = held[name]
            targets, hold_target = held["control"], held["hold_target"]
            if self._physics.own:
                physics = held["physics"]
            whole = np.concatenate([targets[:, : hand.NUM_WRIST], held["reference"]], axis=1)
            reference = hand.normalize(whole)[:, hand.NUM_WRIST :]
        return {
            "qpos": qpos,
            "qvel": qvel,
            "targets": targets,
            "fixture_pose": fixtures,
            "physics": physics,
            "shake": shake,
            "noise": noise,
            "previous_action": hand.normalize(targets),
            "reference": reference,
            "hold_target": hold_target,
            "is_held_start": np.full((count, 1), float(start == "held")),
        }

    def held_columns(self, qpos: NDArray[np.float64], qvel: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Hand and object as columns of a held-state library, from qpos (N, nq) and qvel (N, nv)."""
        return {name: (qpos if name.endswith("qpos") else qvel)[:, place] for name, place in self._places.items()}


def _places(model: mujoco.MjModel) -> dict[str, NDArray[np.int64]]:
    """Where hand and object live in qpos and qvel, by column of a held-state library."""
    joints = [model.joint(name) for name in hand.ACTION_NAMES]
    places = {"hand_qpos": [joint.qposadr[0] for joint in joints], "hand_qvel": [joint.dofadr[0] for joint in joints]}
    if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, "OBJECT_JOINT") >= 0:
        free = model.joint("OBJECT_JOINT")
        places |= {"object_qpos": free.qposadr[0] + np.arange(7), "object_qvel": free.dofadr[0] + np.arange(6)}
    return {name: np.array(place, np.int64) for name, place in places.items()}
