"""Settings of residual training: learner, stabiliser A, residual B; presets `cpu`, `fast`, `paper` and `test`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from dexcompose_agents.rl.config import PPOConfig
from dexcompose_agents.rl.learners import LEARNER_SETTINGS, LearnerName, find_learner
from dexcompose_agents.rl.off_policy_config import OffPolicyConfig
from dexcompose_agents.runtime.compute import GPU_PRESETS, PRESETS
from dexcompose_envs.checks import one_of, require, whole_number
from dexcompose_envs.physics import BACKENDS
from dexcompose_envs.skills import make_interaction

if TYPE_CHECKING:
    Backend: TypeAlias = str
else:
    Backend = Literal[tuple(BACKENDS)]


@dataclass(frozen=True)
class DisturbanceConfig:
    """Randomised base motion and finger release, the disturbances that stabiliser A is trained under.

    The paper names them without numbers; these are ours, chosen to cover what the interaction skills do to the hand.
    """

    translation: float = 0.10
    """The wrist's targets stay within this distance (m) of the hold pose along each axis."""
    descent: float = 0.03
    """...but this much (m) below it at most, since the fingers may point down at the time."""
    speed: float = 0.45
    """Largest speed of the wrist's target (m/s), jitter aside."""
    rotation: float = 0.3
    """Yaw and roll targets stay within this angle (rad) of the hold pose; pitch within half of it, ramp aside."""
    turn_rate: float = 2.0
    """Largest rate of the wrist's target angles (rad/s), ramp and jitter aside."""
    pitch: float = 1.2
    """Largest height (rad) of the pitch ramp, the move that points the fingers down to press."""
    pitch_probability: float = 0.8
    """Share of episodes with a pitch ramp."""
    jitter_translation: float = 0.005
    """Standard deviation (m) of low-pass noise on the wrist's target position."""
    jitter_rotation: float = 0.02
    """Standard deviation (rad) of low-pass noise on the wrist's target angles."""
    release_start: tuple[int, int] = (2, 30)
    """Range of the control step at which the released fingers start to open."""
    release_steps: tuple[int, int] = (10, 40)
    """Range of the number of control steps that they take."""
    finger_motion: tuple[float, float] = (-0.3, 0.6)
    """Range (rad) around the open posture in which released fingers then wander; positive is flexion."""


@dataclass(frozen=True)
class ResidualConfig:
    """What the trainings of both residuals have in common: learner and physics."""

    learner: LearnerName = "ppo"
    """What learns, one of `rl.learners.LEARNERS`."""
    ppo: PPOConfig = field(default_factory=PPOConfig)
    """Settings of learner "ppo"."""
    off_policy: OffPolicyConfig = field(default_factory=OffPolicyConfig)
    """Settings of learners "sac", "tqc" and "crossq"."""
    backend: Backend = "mujoco"
    """What steps the worlds: "mujoco" (CPU threads, NumPy) or "warp" (on the learner's device)."""
    num_threads: int | None = None
    """Threads of the simulator (backend "mujoco"); None lets it choose."""

    def __post_init__(self) -> None:
        """Refuses unknown names."""
        find_learner(self.learner)
        one_of("backend", self.backend, tuple(BACKENDS))

    @property
    def learning(self) -> Any:
        """Settings of the learner that is chosen."""
        return getattr(self, find_learner(self.learner).SETTINGS)

    @property
    def idle(self) -> tuple[str, ...]:
        """Names of the settings that are other learners', hence decide nothing."""
        return tuple(name for name in LEARNER_SETTINGS if name != find_learner(self.learner).SETTINGS)

    @property
    def env_device(self) -> str:
        """Torch device on which the environment lives; frozen policies that act in it belong there too."""
        return "cpu" if self.backend == "mujoco" else str(self.learning.device)


@dataclass(frozen=True)
class StabiliserConfig(ResidualConfig):
    """Training of stabiliser A (Eqs. 7-9 and 13)."""

    masks: tuple[str, ...] = ("TH+MF+RF+LF",)
    """Preserved fingers; with several masks each episode draws one, and the policy reads which."""
    bound: float = 0.15
    """beta_A of Eq. 7: largest correction per joint (rad)."""
    alpha: float = 0.001
    """Weight of the squared correction in Eq. 13."""
    reward_scale: float = 20.0
    """Eq. 13 is in metres, millimetres as a rule; it is multiplied by this so that returns are of order one."""
    drop_penalty: float = 30.0
    """Subtracted (after scaling) when the object is lost, which ends the episode. It must exceed what the rest of an
    episode costs (about 10 for a grasp that slips 3 mm), else dropping early would pay."""
    episode_steps: int = 150
    """Control steps per episode."""
    base_shake: float = 1.0
    """Scale of the wrist's tremble, as in composites; see `dexcompose_envs.episodes.base_shake`."""
    disturbance: DisturbanceConfig = field(default_factory=DisturbanceConfig)
    """What the grasp has to withstand."""
    disturbance_bank: int = 2048
    """Disturbances drawn at the start; every episode picks one of them. Each takes 0.7 ms and 19 kB."""

    def __post_init__(self) -> None:
        """Refuses empty or senseless settings."""
        super().__post_init__()
        require(len(self.masks) > 0, "masks", self.masks, "at least one mask such as 'TH+RF+LF'")
        require(self.bound > 0.0, "bound", self.bound, "a positive angle in rad")
        whole_number("episode_steps", self.episode_steps, 2)
        whole_number("disturbance_bank", self.disturbance_bank)


@dataclass(frozen=True)
class ResidualBConfig(ResidualConfig):
    """Training of residual B (Eqs. 10-12 and 14)."""

    bound_translation: float | None = None
    """beta_B of Eq. 10 for the wrist's position (m); None, as below: what the interaction skill says of itself."""
    bound_rotation: float | None = None
    """beta_B for the wrist's Euler angles (rad)."""
    bound_fingers: float | None = None
    """beta_B for the released fingers' joints (rad)."""
    alpha: float = 0.001
    """Weight of the squared residual (m and rad) in Eq. 14."""
    beta: float = 1.0
    """Weight of the held object's distance in Eq. 14."""
    progress_scale: float = 5.0
    """R_taskB is the progress of the interaction (0 to 1 over an episode) times this."""
    success_bonus: float = 5.0
    """Added when the composite succeeds, which ends the episode."""
    drop_penalty: float = 5.0
    """Subtracted when the held object is lost, which ends the episode."""
    episode_steps: int | None = None
    """Control steps after which an episode is cut short; None: that of the pair."""

    def __post_init__(self) -> None:
        """Refuses bounds that leave nothing to learn."""
        super().__post_init__()
        for name in ("bound_translation", "bound_rotation", "bound_fingers"):
            bound = getattr(self, name)
            require(bound is None or bound >= 0.0, name, bound, "a bound of at least 0, or None for the skill's")

    def bounds(self, interaction: str) -> tuple[float, ...]:
        """beta_B for an interaction skill: wrist position (m), wrist Euler angles (rad), finger joints (rad)."""
        chosen = (self.bound_translation, self.bound_rotation, self.bound_fingers)
        of_skill = make_interaction(interaction).RESIDUAL_BOUND
        return tuple(own if mine is None else mine for mine, own in zip(chosen, of_skill, strict=True))


_TINY = PPOConfig(num_envs=2, horizon=8, total_steps=32, epochs=1, minibatches=2, hidden=(16,), evaluate_every=2)

_STABILISER: Mapping[str, PPOConfig] = {
    # 24 steps x 64 worlds x 162 iterations; about seven minutes on one core.
    "cpu": PPOConfig(num_envs=64, horizon=24, total_steps=250_000, evaluate_every=52, evaluation_rounds=2),
    # 16 steps x 8192 worlds x 62 iterations; minibatches of 16384.
    "fast": PPOConfig(
        num_envs=8192, horizon=16, total_steps=8192 * 16 * 62, minibatches=8, evaluate_every=31, device="cuda"
    ),
    "paper": PPOConfig(num_envs=1024, horizon=24, total_steps=1024 * 24 * 1000, evaluate_every=50, device="cuda"),
    "test": _TINY,
}
_RESIDUAL_B: Mapping[str, PPOConfig] = {
    # 64 steps x 32 worlds x 108 iterations; about twelve minutes on one core. Without a bound on its steps the policy
    # moved by a KL of up to 0.08 per iteration, too far for so few samples.
    "cpu": PPOConfig(
        num_envs=32, horizon=64, total_steps=221_184, target_kl=0.02, evaluate_every=27, evaluation_rounds=6
    ),
    # 40 steps x 1024 worlds x 40 iterations; minibatches of 5120 slots. A block between evaluations is four episodes.
    "fast": PPOConfig(
        num_envs=1024, horizon=40, total_steps=1024 * 40 * 40, minibatches=8, evaluate_every=20, device="cuda"
    ),
    # Minibatches of 400: 8 worlds x 200 steps in four parts.
    "paper": PPOConfig(
        num_envs=8, horizon=200, total_steps=8 * 200 * 1000, evaluate_every=50, evaluation_rounds=4, device="cuda"
    ),
    "test": _TINY,
}


def _off_policy(ppo: PPOConfig, name: str) -> OffPolicyConfig:
    """Settings that give an off-policy learner the worlds, steps and evaluations that PPO has in a preset."""
    shared = ("num_envs", "horizon", "total_steps", "gamma", "evaluate_every", "evaluation_rounds", "device")
    budget = {each: getattr(ppo, each) for each in shared}
    if name == "test":
        small = {"hidden": (16,), "critic_hidden": (16,), "batch_size": 4, "learning_starts": 4, "critic_warmup": 1}
        return OffPolicyConfig(**budget | small)
    if name in GPU_PRESETS:
        return OffPolicyConfig(**budget, batch_size=4096, updates_per_step=0.02, buffer_size=1_000_000)
    return OffPolicyConfig(**budget)


def _preset(table: Mapping[str, PPOConfig], name: str, **tiny: Any) -> dict[str, Any]:
    """Fields of a preset; `tiny` are those of "test"."""
    one_of("preset", name, PRESETS)
    learning = {"ppo": table[name], "off_policy": _off_policy(table[name], name)}
    settings = {**learning, "backend": "warp" if name in GPU_PRESETS else "mujoco"}
    return settings | tiny if name == "test" else settings


def stabiliser_preset(name: str, **changes: Any) -> StabiliserConfig:
    """Settings of stabiliser A under one of `runtime.compute.PRESETS`, with some fields changed.

    Raises:
        UsageError: If the preset is unknown.
    """
    return StabiliserConfig(**_preset(_STABILISER, name, episode_steps=20, disturbance_bank=16) | changes)


def residual_b_preset(name: str, **changes: Any) -> ResidualBConfig:
    """Settings of residual B, likewise."""
    return ResidualBConfig(**_preset(_RESIDUAL_B, name, episode_steps=60) | changes)
