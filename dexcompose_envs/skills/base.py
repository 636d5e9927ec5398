"""What a skill must say of itself: its things in the scene, its start, what is seen of it, and when it is done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.observations import Array, Snapshot, Term

OBJECT = "object"
"""Body name of the held object in every scene."""
FIXTURE = "fixture"
"""Body name of the fixture's movable-by-reset base in every scene; its moving part hangs below it."""


@dataclass(frozen=True)
class SurfaceFriction:
    """Contact properties of an object: sliding, torsional (m), rolling (m), contact dimensions."""

    sliding: float = 0.6
    torsional: float = 0.01
    rolling: float = 1e-4
    condim: int = 4


class RetentionTask(ABC):
    """A skill that ends with an object held in the hand.

    Subclasses define success for a world in their class docstring and in `achieved`. The environment declares success
    when `achieved` was true for `STREAK` control steps in a row.
    """

    name: ClassVar[str]
    MAX_STEPS: ClassVar[int] = 150
    STREAK: ClassVar[int] = 10
    CONDIM: ClassVar[int] = 4

    @abstractmethod
    def add_object(self, spec: mujoco.MjSpec) -> None:
        """Adds the free body `OBJECT` to the scene."""

    @abstractmethod
    def sample_object(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draws the object's start pose (7,): position in m, quaternion with w first."""

    def sample_hand(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draws the hand's start (28,): joint positions in m and rad, `hand.ACTION_NAMES` order."""
        start = np.concatenate([[-0.09, -0.03, 0.24, 0.0, 0.0, 0.0], hand.OPEN_FINGERS])
        start[:3] += rng.uniform(-0.015, 0.015, 3)
        start[3:6] += rng.uniform(-0.05, 0.05, 3)
        start[6:] += rng.uniform(0.0, 0.05, hand.NUM_FINGER_JOINTS)
        return np.clip(start, hand.ACTION_LOW, hand.ACTION_HIGH)

    @property
    @abstractmethod
    def terms(self) -> tuple[Term, ...]:
        """Task geometry that follows the joint positions in `task_a`."""

    @abstractmethod
    def achieved(self, snapshot: Snapshot) -> Array:
        """Whether the object is where the skill should bring it (N,), bool."""

    @abstractmethod
    def progress(self, snapshot: Snapshot) -> Array:
        """How far the skill has come (N,), in [0, 1]."""


class InteractionTask(ABC):
    """A skill that works a fixture with one articulated joint named `FIXTURE_JOINT`."""

    name: ClassVar[str]
    MAX_STEPS: ClassVar[int] = 150

    @abstractmethod
    def add_fixture(self, spec: mujoco.MjSpec) -> None:
        """Adds the mocap body `FIXTURE` with its articulated part to the scene."""

    @abstractmethod
    def sample_fixture(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draws the fixture's pose (7,): position in m, quaternion with w first."""

    @property
    @abstractmethod
    def start_pose(self) -> NDArray[np.float64]:
        """Nominal hand pose (28,) from which the skill starts, m and rad: the end of a composite's transition."""

    @abstractmethod
    def sample_hand(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draws the hand's start (28,) around `start_pose`."""

    @property
    @abstractmethod
    def terms(self) -> tuple[Term, ...]:
        """Task geometry that follows the joint positions in `task_b`."""

    @abstractmethod
    def progress(self, snapshot: Snapshot) -> Array:
        """How far the articulated joint has moved towards the goal (N,), in [0, 1]."""

    @abstractmethod
    def done(self, snapshot: Snapshot) -> Array:
        """Whether the skill has succeeded (N,), bool."""
