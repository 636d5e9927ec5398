"""What a skill says of itself: its things in the scene, its start, what is seen of it, when it is done, its expert."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import mujoco
import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.agent import Agent
from dexcompose_envs.observations import Array, Snapshot, Term


@dataclass(frozen=True)
class Things:
    """Where a skill puts its things, and how they are named: each place of a chain has a prefix of its own.

    Attributes:
        body: Body to build on: the free body of a held object, or the fixture's base, which resets move about.
        prefix: Prefix of the names, such as "b_".
        spec: The scene, for what belongs to no body, such as tendons.
    """

    body: mujoco.MjsBody
    prefix: str
    spec: mujoco.MjSpec

    def name(self, name: str) -> str:
        """The name that a body, geom, joint or site of this skill has in the scene."""
        return self.prefix + name


class Skill(ABC):
    """One skill. A subclass says everything about it in its class attributes and methods, in one file.

    Named joints and sites of its things become sensors: `snapshot.joint(name)` (N,) and `snapshot.site(name)` (N, 3).
    """

    name: ClassVar[str]
    DESCRIPTION: ClassVar[str]
    """One sentence, for people and for prompts."""
    joints: ClassVar[tuple[str, ...]] = ()
    """Articulated joints of its things that are observed."""
    sites: ClassVar[tuple[str, ...]] = ()
    """Places on its things that are observed."""
    MAX_STEPS: ClassVar[int] = 150
    """Control steps in which the skill alone must be done."""
    DEMONSTRATIONS: ClassVar[int] = 50
    """Successful demonstrations that its base policy learns from."""
    DEMONSTRATION_SHAKE: ClassVar[float] = 0.0
    """Scale of the wrist's tremble in them. A policy that has only seen steady wrists takes where the wrist is for
    where it should be; one that has seen it tremble looks at what it works on."""
    EXECUTE_STEPS: ClassVar[int] = 16
    """Actions that its base policy executes before it plans again."""
    FINGER_DROPOUT: ClassVar[float] = 0.0
    """Probability, per finger, that its base policy learns to act without seeing that finger's joints."""
    LINEAR_GUESS: ClassVar[bool] = False
    """Whether its base policy guesses wrist targets linearly and learns the rest: for long ways with a narrow end."""
    kind: ClassVar[str]
    """"retention" or "interaction"."""
    observation_key: ClassVar[str]
    """Where its base policy and its expert find their observation in the skill's own environment."""

    @abstractmethod
    def build(self, things: Things) -> None:
        """Adds its geoms, joints and sites to the scene."""

    @property
    @abstractmethod
    def nominal_pose(self) -> NDArray[np.float64]:
        """Middle of where its thing stands at the start (7,): position in m, quaternion with w first."""

    @abstractmethod
    def sample_things(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draws where its thing stands at the start (7,): position in m, quaternion with w first."""

    @abstractmethod
    def sample_hand(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draws the hand's start (28,): joint positions in m and rad, `hand.ACTION_NAMES` order."""

    @property
    @abstractmethod
    def terms(self) -> tuple[Term, ...]:
        """Task geometry that follows the joint positions in the skill's observation."""

    @abstractmethod
    def progress(self, snapshot: Snapshot) -> Array:
        """How far the skill has come (N,), in [0, 1]."""

    @abstractmethod
    def expert(self) -> Agent:
        """A scripted expert that demonstrates the skill in its own environment."""


class RetentionSkill(Skill):
    """A skill that ends with an object held in the hand.

    Subclasses define success for a world in their class docstring and in `achieved`. The environment declares success
    when `achieved` was true for `STREAK` control steps in a row.
    """

    kind = "retention"
    observation_key = "task_a"
    STREAK: ClassVar[int] = 10
    RETENTION_RADIUS: ClassVar[float] = 0.05
    """d_ret: largest distance of the held object from its hold target in the palm frame, m."""
    DROP_HEIGHT: ClassVar[float] = 0.03
    """h_drop: least height of the held object's centre above the table, m."""
    MAX_TURN: ClassVar[float | None] = None
    """Largest angle of the held object's z axis from that of the hold, in the palm frame, rad; None: it may turn."""
    MASS_FACTORS: ClassVar[tuple[float, float]] = (0.7, 2.5)
    """Range of the hidden factor on its object's mass, log-uniform."""
    HOLD_ROLL: ClassVar[float] = 0.0
    """Roll of the wrist in the hold, rad; whoever goes on to work with the palm down takes it off."""
    HOLD_SQUEEZE: ClassVar[float] = 1.0
    """How much of a grasp's squeeze is kept for the hold: q_ref is set to q + HOLD_SQUEEZE (q_ref - q), q being where
    the fingers are. It is chosen so that the hold could bear three times the object's weight, a person's margin for
    things whose weight and surface are uncertain; `benchmarks/hold_strength.py` finds it."""

    @property
    @abstractmethod
    def hold_point(self) -> NDArray[np.float64]:
        """Where in the palm frame (3,) the object's centre is to be held, m; a held state's own place replaces it."""

    @abstractmethod
    def achieved(self, snapshot: Snapshot) -> Array:
        """Whether the object is where the skill should bring it (N,), bool."""

    def sample_hand(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draws an open hand behind and above the middle of the table."""
        start = np.concatenate([[-0.09, -0.03, 0.24, 0.0, 0.0, 0.0], hand.OPEN_FINGERS])
        start[:3] += rng.uniform(-0.015, 0.015, 3)
        start[3:6] += rng.uniform(-0.05, 0.05, 3)
        start[6:] += rng.uniform(0.0, 0.05, hand.NUM_FINGER_JOINTS)
        return np.clip(start, hand.ACTION_LOW, hand.ACTION_HIGH)


class InteractionSkill(Skill):
    """A skill that works a fixture with one or more articulated joints."""

    kind = "interaction"
    observation_key = "task_b"
    DEMONSTRATIONS, DEMONSTRATION_SHAKE = 200, 1.0
    FINGER_DROPOUT = 0.5
    VIEW: ClassVar[tuple[tuple[float, float, float], tuple[float, float, float]]]
    VIEW = ((0.66, -0.34, 0.26), (0.34, 0.0, 0.09))
    """Where the camera `fixture` stands and what it looks at, m."""
    RESIDUAL_BOUND: ClassVar[tuple[float, float, float]] = (0.03, 0.15, 0.2)
    """beta_B of Eq. 10: wrist position (m), wrist Euler angles (rad), released fingers' joints (rad)."""
    RESIDUAL_DIMENSIONS: ClassVar[tuple[str, ...]] = ("wrist", "fingers")
    """What residual B may correct: "wrist", "fingers" (the released ones), or both. The fewer, the faster it learns."""

    @property
    @abstractmethod
    def start_pose(self) -> NDArray[np.float64]:
        """Nominal hand pose (28,) from which the skill starts, m and rad: the end of a composite's transition."""

    @abstractmethod
    def done(self, snapshot: Snapshot) -> Array:
        """Whether the skill has succeeded (N,), bool."""

    def approach(self, snapshot: Snapshot) -> Array:
        """How far the hand is from where the skill needs it (N,), m: a dense hint for learners, no part of the reward.

        Zeros, the default, give no hint. Best bounded, so that being far away is not worse than failing.
        """
        one_a_world = snapshot.hold_target[:, 0]
        return array_namespace(one_a_world).zeros_like(one_a_world)
