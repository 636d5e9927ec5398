"""First states of episodes. They are drawn on the host, one generator per world, whichever engine then runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.episodes import base_shake
from dexcompose_envs.held_states import HeldStateLibrary
from dexcompose_envs.scene import Scene, build_scene
from dexcompose_envs.skills.base import InteractionTask, RetentionTask

STARTS = ("held", "scratch")
SPLITS = ("all", "train", "test")


@dataclass(frozen=True)
class Starts:
    """First states of M episodes.

    Attributes:
        qpos: (M, nq).
        qvel: (M, nv).
        targets: Position targets (M, 28), m and rad.
        fixture_pose: (M, 7) position in m and quaternion with w first; None in scenes without a fixture.
        shake: Base shake (M, *base_shake.SHAPE).
        reference: q_ref (M, 22), normalised; zeros where the object isn't held.
        hold_target: (M, 3) object position in the palm frame that counts as held, m; None where the object lies on the
            table: there it is where the object is seen at the start.
    """

    qpos: NDArray[np.float64]
    qvel: NDArray[np.float64]
    targets: NDArray[np.float64]
    fixture_pose: NDArray[np.float64] | None
    shake: NDArray[np.float64]
    reference: NDArray[np.float64]
    hold_target: NDArray[np.float64] | None

    @property
    def is_held(self) -> bool:
        """Whether these episodes start with the object in hand."""
        return self.hold_target is not None


class StartSampler:
    """Draws first states.

    Args:
        scene: The compiled scene.
        retention: Skill A, or None.
        interaction: Skill B, or None.
        shake: Scale of the base shake.
        held_split: Part of the held-state library that starts are drawn from.
        held_states: Library, path or None for the shipped one; loaded when first needed.
    """

    def __init__(
        self,
        scene: Scene,
        retention: RetentionTask | None,
        interaction: InteractionTask | None,
        shake: float,
        held_split: str,
        held_states: HeldStateLibrary | str | Path | None,
    ) -> None:
        if held_split not in SPLITS:
            raise ValueError(f"unknown held_split {held_split!r}; expected one of {', '.join(SPLITS)}")
        self._retention, self._interaction = retention, interaction
        self._shake, self._split, self._source = shake, held_split, held_states
        self._model = scene.model
        self._adr = _addresses(scene.model)

    @cached_property
    def library(self) -> HeldStateLibrary:
        """The held-state library.

        Raises:
            HeldStateError: If it is missing or doesn't fit this environment.
        """
        from dexcompose_envs import __version__

        if isinstance(self._source, HeldStateLibrary):
            return self._source
        assert self._retention is not None
        model_hash = build_scene(self._retention.name, None).model_hash
        source = self._source or self._retention.name
        return HeldStateLibrary.load(source, env_version=__version__, model_hash=model_hash)

    def check(self, start: str) -> None:
        """Refuses a start that doesn't exist or doesn't fit the skills.

        Raises:
            ValueError: With the start and what was expected.
        """
        if start not in STARTS:
            raise ValueError(f"unknown start {start!r}; expected one of {', '.join(STARTS)}")
        if start == "held" and self._retention is None:
            assert self._interaction is not None
            raise ValueError(f"start='held' needs a retention skill; {self._interaction.name} has none")

    def draw(
        self, rngs: Sequence[np.random.Generator], start: str, held_index: NDArray[np.int64] | None = None
    ) -> Starts:
        """Draws one first state from each of M generators.

        Args:
            rngs: The worlds' generators.
            start: "held" or "scratch".
            held_index: Rows (M,) of the held-state library; None: drawn at random.

        Raises:
            HeldStateError: If the library is missing or doesn't fit this environment.
        """
        count = len(rngs)
        qpos = np.tile(self._model.qpos0, (count, 1))
        qvel = np.zeros((count, self._model.nv))
        targets = np.zeros((count, hand.NUM_ACTIONS))
        shake = np.zeros((count, *base_shake.SHAPE))
        fixture_pose = None if self._interaction is None else np.zeros((count, 7))
        rows = np.full(count, -1, np.int64)
        task = self._retention or self._interaction
        assert task is not None
        for i, rng in enumerate(rngs):
            shake[i] = base_shake.sample(rng, self._shake)
            if fixture_pose is not None:
                assert self._interaction is not None
                fixture_pose[i] = self._interaction.sample_fixture(rng)
            if start == "held":
                rows[i] = int(self.library.sample(rng, self._split))
                continue
            targets[i] = task.sample_hand(rng)
            qpos[i, self._adr.hand_qpos] = targets[i]
            if self._retention is not None:
                qpos[i, self._adr.object_qpos] = self._retention.sample_object(rng)

        reference, hold_target = np.zeros((count, hand.NUM_FINGER_JOINTS)), None
        if start == "held":
            held = self.library.take(rows if held_index is None else held_index)
            qpos[:, self._adr.hand_qpos], qvel[:, self._adr.hand_qvel] = held["hand_qpos"], held["hand_qvel"]
            qpos[:, self._adr.object_qpos], qvel[:, self._adr.object_qvel] = held["object_qpos"], held["object_qvel"]
            targets, hold_target = held["control"], held["hold_target"]
            whole = np.concatenate([targets[:, : hand.NUM_WRIST], held["reference"]], axis=1)
            reference = hand.normalize(whole)[:, hand.NUM_WRIST :]
        return Starts(qpos, qvel, targets, fixture_pose, shake, reference, hold_target)

    def held_columns(self, qpos: NDArray[np.float64], qvel: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """States of hand and object as columns of a held-state library, from qpos (N, nq) and qvel (N, nv)."""
        return {
            "hand_qpos": qpos[:, self._adr.hand_qpos],
            "hand_qvel": qvel[:, self._adr.hand_qvel],
            "object_qpos": qpos[:, self._adr.object_qpos],
            "object_qvel": qvel[:, self._adr.object_qvel],
        }


@dataclass(frozen=True)
class _Addresses:
    """Where hand and object live in qpos and qvel."""

    hand_qpos: NDArray[np.int64]
    hand_qvel: NDArray[np.int64]
    object_qpos: slice
    object_qvel: slice


def _addresses(model: Any) -> _Addresses:
    joints = [model.joint(name) for name in hand.ACTION_NAMES]
    names = [model.joint(i).name for i in range(model.njnt)]
    position = velocity = 0
    if "OBJECT_JOINT" in names:
        free = model.joint("OBJECT_JOINT")
        position, velocity = int(free.qposadr[0]), int(free.dofadr[0])
    return _Addresses(
        np.array([int(j.qposadr[0]) for j in joints]),
        np.array([int(j.dofadr[0]) for j in joints]),
        slice(position, position + 7),
        slice(velocity, velocity + 6),
    )
