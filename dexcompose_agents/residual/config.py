"""Settings of residual training: learner, stabiliser A, residual B; presets `cpu`, `fast`, `paper` and `test`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from dexcompose_agents.rl.config import PPOConfig
from dexcompose_agents.rl.learners import LEARNER_SETTINGS, LearnerName, find_learner
from dexcompose_agents.rl.off_policy_config import OffPolicyConfig
from dexcompose_agents.runtime.compute import GPU_PRESETS, PRESETS
from dexcompose_envs.checks import one_of, real_number, require, whole_number
from dexcompose_envs.physics import BACKENDS
from dexcompose_envs.skills import make_interaction

if TYPE_CHECKING:
    Backend: TypeAlias = str
else:
    Backend = Literal[tuple(BACKENDS)]

Dimensions = tuple[Literal["wrist", "fingers"], ...]


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
    ppo: PPOConfig = field(default_factory=partial(PPOConfig, evaluation_rounds=2))
    """Settings of learner "ppo"."""
    off_policy: OffPolicyConfig = field(default_factory=partial(OffPolicyConfig, evaluation_rounds=4))
    """Settings of learners "sac", "tqc" and "crossq"."""
    ranking_episodes: int = 128
    """Least number of episodes by which checkpoints are compared: by 64, one of 95 % often looks like one of 100 %."""
    sensor_noise: float = 0.0
    """Scale of the noise on what is observed, see `dexcompose_envs.episodes.sensor_noise`; rewards go by the truth."""
    backend: Backend = "mujoco"
    """What steps the worlds: "mujoco" (CPU threads, NumPy), "warp" or "isaaclab" (on the learner's device)."""
    num_threads: int | None = None
    """Threads of the simulator (backend "mujoco"); None lets it choose."""

    def __post_init__(self) -> None:
        """Refuses unknown names."""
        find_learner(self.learner)
        one_of("backend", self.backend, tuple(BACKENDS))
        real_number("sensor_noise", self.sensor_noise, 0.0, 10.0)
        whole_number("ranking_episodes", self.ranking_episodes)
        rounds, least = self.learning.evaluation_rounds, -(-self.ranking_episodes // self.learning.num_envs)
        worlds = f"{self.ranking_episodes} episodes (ranking_episodes) in {self.learning.num_envs} worlds"
        require(rounds >= least, "evaluation_rounds", rounds, f"at least {least} for {worlds}")

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

    sensor_noise: float = 1.0
    """As above: a stabiliser that never saw noise holds worse with real sensors."""
    masks: tuple[str, ...] = ("TH+MF+RF+LF",)
    """Preserved fingers; with several masks each episode draws one, and the policy reads which."""
    bound: float = 0.15
    """beta_A of Eq. 7: largest correction per joint (rad)."""
    alpha: float = 0.001
    """Weight of the squared correction in Eq. 13."""
    rotation_weight: float = 0.02
    """Weight (m/rad) of the angle by which the object has turned in the palm frame, a term that Eq. 13 hasn't: without
    it an object that only turns in the hand costs nothing. 0.1 rad then weighs as much as 2 mm."""
    reward_scale: float = 20.0
    """Eq. 13 is in metres, millimetres as a rule; it is multiplied by this so that returns are of order one."""
    drop_penalty: float = 30.0
    """Subtracted (after scaling) when the object is lost, which ends the episode. It must exceed what the rest of an
    episode costs (about 27 for a grasp that slips 3 mm and turns by 0.3 rad), else dropping early would pay."""
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
        require(self.rotation_weight >= 0.0, "rotation_weight", self.rotation_weight, "a weight of at least 0 m/rad")
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
    drop_penalty: float = 100.0
    """Subtracted when the held object is lost, which ends the episode. It must exceed what the rest of an episode costs
    (up to about 2 a step by `approach_scale` and `tracking_scale`, 60 in all with a discount of 0.97), else dropping
    early would pay. 5 in the preset `paper`, where nothing else costs."""
    approach_scale: float = 20.0
    """Subtracted in every step in which pi_B acts: this (per m) times what the skill says of itself by `approach`. It
    tells tries that failed by a hair from others, which success and progress alone don't. 0: Eq. 14 as published."""
    tracking_scale: float = 2.0
    """Subtracted in every step in which pi_B acts: this times how far the wrist's targets are from pi_B's, by the
    residual and by the base's tremble together, see `residual_b_task.wrist_astray`. The simulator knows the tremble;
    the policy has to tell it from the wrist's error. What single actions did is hardly seen in the other terms. 0:
    Eq. 14 as published."""
    shortcut: bool = True
    """Whether the mean also follows the wrist's error directly, by a linear layer; see `rl.actor_critic`. PPO only,
    and only with `wrist_error`."""
    dimensions: Dimensions | None = None
    """What the residual may move, "wrist", "fingers" (the released ones) or both; None: what the interaction skill says
    of itself (both if `residual_writes` is "all"). The learner acts in these dimensions and no others."""
    residual_writes: Literal["released", "all"] = "released"
    """Whether "fingers" means the released ones, B's own, or all of them; see `CompositionSpec`."""
    wrist_error: bool = True
    """Whether the residual sees how far the wrist heads from where it was last told to be, which is its tremble;
    without it, how far it is from where it is told to go next, which mixes that with its motion and its lag."""
    joint: bool = False
    """Whether stabiliser A, frozen otherwise, is fine-tuned beside residual B, by the same reward; PPO only."""
    joint_learning_rate: float = 1e-4
    """Adam's step size for it."""
    episode_steps: int | None = None
    """Control steps after which an episode is cut short; None: that of the pair."""

    def __post_init__(self) -> None:
        """Refuses bounds that leave nothing to learn."""
        super().__post_init__()
        for name in ("bound_translation", "bound_rotation", "bound_fingers"):
            bound = getattr(self, name)
            require(bound is None or bound >= 0.0, name, bound, "a bound of at least 0, or None for the skill's")
        require(self.approach_scale >= 0.0, "approach_scale", self.approach_scale, "a number of at least 0 per m")
        require(self.tracking_scale >= 0.0, "tracking_scale", self.tracking_scale, "a number of at least 0")
        one_of("residual_writes", self.residual_writes, ("released", "all"))
        require(
            not self.joint or self.learner == "ppo", "learner", self.learner, "'ppo', which alone trains both (joint)"
        )
        require(self.joint_learning_rate > 0.0, "joint_learning_rate", self.joint_learning_rate, "a positive number")
        if self.dimensions is not None:
            require(len(self.dimensions) > 0, "dimensions", self.dimensions, "'wrist', 'fingers', both, or None")
            for name in self.dimensions:
                one_of("dimension", name, ("wrist", "fingers"))

    def bounds(self, interaction: str) -> tuple[float, ...]:
        """beta_B for an interaction skill: wrist position (m), wrist Euler angles (rad), finger joints (rad)."""
        chosen = (self.bound_translation, self.bound_rotation, self.bound_fingers)
        of_skill = make_interaction(interaction).RESIDUAL_BOUND
        return tuple(own if mine is None else mine for mine, own in zip(chosen, of_skill, strict=True))

    def moves(self, interaction: str) -> tuple[str, ...]:
        """Which of "wrist" and "fingers" the residual may move for an interaction skill."""
        if self.dimensions is not None:
            return self.dimensions
        everything = self.residual_writes == "all"
        return ("wrist", "fingers") if everything else make_interaction(interaction).RESIDUAL_DIMENSIONS


_TINY = PPOConfig(num_envs=2, horizon=8, total_steps=32, epochs=1, minibatches=2, hidden=(16,), evaluate_every=2)

_STABILISER: Mapping[str, PPOConfig] = {
    # 24 steps x 64 worlds x 162 iterations; about seven minutes on one core.
    "cpu": PPOConfig(
        num_envs=64, horizon=24, total_steps=250_000, target_kl=0.03, evaluate_every=52, evaluation_rounds=2
    ),
    # 16 steps x 8192 worlds x 62 iterations; minibatches of 16384.
    "fast": PPOConfig(
        num_envs=8192,
        horizon=16,
        total_steps=8192 * 16 * 62,
        target_kl=0.03,
        minibatches=8,
        evaluate_every=31,
        device="cuda",
    ),
    "paper": PPOConfig(num_envs=1024, horizon=24, total_steps=1024 * 24 * 1000, evaluate_every=50, device="cuda"),
    "test": _TINY,
}
# What a correction of the wrist is good for shows within the two dozen steps of a press: a discount that sees 33 steps
# ahead will do. Steps that shrink end where the reward leads, rather than somewhere around it.
_QUICK: Any = {"gamma": 0.97, "gae_lambda": 0.9, "anneal": True, "target_kl": 0.03}
_RESIDUAL_B: Mapping[str, PPOConfig] = {
    # 64 steps x 32 worlds x 52 iterations; about five minutes on one core.
    "cpu": PPOConfig(num_envs=32, horizon=64, total_steps=106_496, evaluate_every=26, evaluation_rounds=4, **_QUICK),
    # 40 steps x 1024 worlds x 40 iterations; minibatches of 5120 slots. A block between evaluations is four episodes.
    "fast": PPOConfig(
        num_envs=1024, horizon=40, total_steps=1024 * 40 * 40, minibatches=8, evaluate_every=20, device="cuda", **_QUICK
    ),
    # Minibatches of 400: 8 worlds x 200 steps in four parts.
    "paper": PPOConfig(
        num_envs=8, horizon=200, total_steps=8 * 200 * 1000, evaluate_every=50, evaluation_rounds=16, device="cuda"
    ),
    "test": _TINY,
}


def _off_policy(ppo: PPOConfig, name: str) -> OffPolicyConfig:
    """Settings that give an off-policy learner the worlds, budget, discount and first noise of PPO in a preset."""
    shared = ["num_envs", "horizon", "total_steps", "evaluate_every", "evaluation_rounds", "device"]
    budget = {each: getattr(ppo, each) for each in [*shared, "gamma", "initial_log_std"]}
    if name == "test":
        small = {"hidden": (16,), "critic_hidden": (16,), "batch_size": 4, "learning_starts": 4, "critic_warmup": 1}
        return OffPolicyConfig(**budget | small)
    if name in GPU_PRESETS:
        return OffPolicyConfig(**budget, batch_size=4096, updates_per_step=0.02, buffer_size=1_000_000)
    return OffPolicyConfig(**budget)


def _preset(table: Mapping[str, PPOConfig], name: str, **others: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a preset; `others` are those besides the learner's, by preset."""
    one_of("preset", name, PRESETS)
    learning = {"ppo": table[name], "off_policy": _off_policy(table[name], name)}
    return {**learning, "backend": "warp" if name in GPU_PRESETS else "mujoco", **others.get(name, {})}


def stabiliser_preset(name: str, **changes: Any) -> StabiliserConfig:
    """Settings of stabiliser A under one of `runtime.compute.PRESETS`, with some fields changed.

    Raises:
        UsageError: If the preset is unknown.
    """
    tiny = {"episode_steps": 20, "disturbance_bank": 16, "ranking_episodes": 1}
    published = {"rotation_weight": 0.0}
    return StabiliserConfig(**_preset(_STABILISER, name, test=tiny, paper=published) | changes)


def residual_b_preset(name: str, **changes: Any) -> ResidualBConfig:
    """Settings of residual B, likewise."""
    tiny = {"episode_steps": 60, "ranking_episodes": 1}
    published = {"approach_scale": 0.0, "tracking_scale": 0.0, "shortcut": False, "dimensions": ("wrist", "fingers")}
    published |= {"drop_penalty": 5.0}
    return ResidualBConfig(**_preset(_RESIDUAL_B, name, test=tiny, paper=published) | changes)
