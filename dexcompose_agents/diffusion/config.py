"""Settings of the diffusion policies: the network, the training, and the presets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from dexcompose_agents.runtime.compute import PRESETS
from dexcompose_envs.checks import one_of, real_number, require, whole_number
from dexcompose_envs.skills import make_skill

Precision = Literal["float32", "bfloat16"]
"""Arithmetic of the network; with bfloat16 the weights and all sums stay in float32."""


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of the policy: horizons, noise schedule and network. The defaults are the `compact` network that ships."""

    widths: tuple[int, ...] = (64, 128)
    """Channels of each level of the UNet; every level halves the time axis of the one before."""
    kernel_size: int = 3
    """Width of the temporal convolutions; odd."""
    blocks_per_level: int = 1
    """Residual blocks per level."""
    linear_guess: bool = False
    """Whether wrist targets are guessed by linear regression first and the network adds the rest (`LinearGuess`);
    the skill's `LINEAR_GUESS`."""
    fold: int = 4
    """Consecutive actions that make one time step of the network: with 4 it is four times cheaper, weights alike."""
    groups: int = 8
    """Groups of the group normalisation; divides every width."""
    step_embedding_size: int = 32
    """Size of the embedding of the diffusion step; even."""
    observation_embedding_size: int = 128
    """Size of the embedding of the observation history."""
    observation_horizon: int = 2
    """Observations that the policy sees: the current one and those just before it."""
    action_horizon: int = 32
    """Actions in a chunk. The first belongs to the oldest observation that the policy sees."""
    execute_steps: int = 16
    """Actions executed before the policy plans again; the skill's `EXECUTE_STEPS`."""
    prediction: Literal["sample", "epsilon"] = "sample"
    """What the network predicts: the clean chunk, or the noise in it as in the paper. Noise has as many
    independent numbers as the chunk, so a network that is to predict it must nowhere be narrower than that, which a
    compact one is; the clean chunk is smooth and passes."""
    diffusion_steps: int = 100
    """Diffusion steps of the noise schedule (`squaredcos_cap_v2`)."""
    inference_steps: int = 2
    """Denoising steps of the DDIM sampler, unless the caller asks for another number; divides `diffusion_steps`."""
    stagger_groups: int = 4
    """The first chunk of an episode is cut short in one of so many ways, chosen by the episode's seed, so that worlds
    that start together don't all plan in the same control step. 1 cuts nothing."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))  # JSON has lists
        for name, value in vars(self).items():
            if name not in ("widths", "prediction", "linear_guess"):
                whole_number(name, value)
        require(self.prediction in ("sample", "epsilon"), "prediction", self.prediction, "'sample' or 'epsilon'")
        good = bool(self.widths) and all(width > 0 and width % self.groups == 0 for width in self.widths)
        require(good, "widths", self.widths, f"at least one number, each a multiple of groups = {self.groups}")
        require(self.kernel_size % 2 == 1, "kernel_size", self.kernel_size, "an odd number")
        size = self.step_embedding_size
        require(size % 2 == 0 and size >= 4, "step_embedding_size", size, "an even number >= 4")
        multiple = self.fold * 2 ** (len(self.widths) - 1)
        expected = f"a multiple of {multiple} (fold = {self.fold}, {len(self.widths)} levels)"
        require(self.action_horizon % multiple == 0, "action_horizon", self.action_horizon, expected)
        longest = self.action_horizon - self.observation_horizon + 1
        expected = f"at most {longest} (action_horizon - observation_horizon + 1)"
        require(self.execute_steps <= longest, "execute_steps", self.execute_steps, expected)
        whole_number("stagger_groups", self.stagger_groups, 1, self.execute_steps)
        self.check_inference_steps(self.inference_steps)

    def check_inference_steps(self, steps: int) -> None:
        """Refuses a number of denoising steps that does not divide the noise schedule evenly.

        Raises:
            UsageError: With the number and what was expected.
        """
        good = 1 <= steps <= self.diffusion_steps and self.diffusion_steps % steps == 0
        require(good, "inference_steps", steps, f"a divisor of diffusion_steps = {self.diffusion_steps}")


@dataclass(frozen=True)
class TrainingConfig:
    """Behaviour cloning of one skill. The defaults are the preset `cpu`."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    """The policy to train."""
    steps: int = 3000
    """Training steps."""
    time_limit: float | None = None
    """Minutes of training after which it ends early with the learning rate fully decayed (None: no limit). How many
    steps fit depends on the machine, so a run with a limit can't be repeated exactly."""
    batch_size: int = 128
    """Windows per step."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    warmup_steps: int = 200
    """Steps of linear warm-up; a cosine decay to zero follows."""
    weight_decay: float = 1e-6
    """Weight decay of AdamW."""
    gradient_clip: float = 1.0
    """Largest norm of the gradient."""
    ema_power: float = 0.75
    """Step n averages the weights with decay 1 - (1 + n) ** -ema_power, up to `ema_decay`."""
    ema_decay: float = 0.9999
    """Largest decay of the averaged weights."""
    obs_noise: float = 0.0
    """Standard deviation of Gaussian noise added to observations in training, where 1 is half an input's range."""
    finger_dropout: float = 0.0
    """Probability, per finger and window, that a finger's joint positions are hidden in training. 0 never hides them;
    1 always does, also when the policy acts. In between the policy learns to act when some fingers are not its own."""
    precision: Precision = "float32"
    """Arithmetic of the forward pass. On CPUs with bfloat16 instructions `bfloat16` trains about a third faster."""
    device: str = "cpu"
    """Torch device to train on. A run that was stopped may go on on another one."""
    seed: int = 0
    """Seed of the initial weights and of all sampling."""
    checkpoint_minutes: float = 2.0
    """Minutes between two saves of the training state."""

    def __post_init__(self) -> None:
        for name, least in {"steps": 1, "batch_size": 1, "warmup_steps": 0, "seed": 0}.items():
            whole_number(name, getattr(self, name), least)
        for name in ("learning_rate", "gradient_clip", "ema_power", "checkpoint_minutes"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a number > 0")
        for name in ("weight_decay", "obs_noise"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "a number >= 0")
        for name in ("finger_dropout", "ema_decay"):
            real_number(name, getattr(self, name), 0, 1)
        require(self.time_limit is None or self.time_limit > 0, "time_limit", self.time_limit, "minutes > 0 or None")
        one_of("precision", self.precision, get_args(Precision))

    def to_dict(self) -> dict[str, Any]:
        """All settings as numbers, strings, lists and dicts, ready for JSON."""
        values = asdict(self)
        values["network"]["widths"] = [*self.network.widths]
        return values


def preset(name: str, skill: str | None = None) -> TrainingConfig:
    """Settings by name.

    Args:
        name: `cpu` (compact network: half a million weights, minutes on one core), `fast` (the same on a GPU, where
            larger batches cost nothing: seconds), `paper` (as published, for a GPU) or `test` (learns nothing much).
        skill: Whose number of executed steps, finger dropout and linear guess to take; None keeps 16 steps and neither.

    Raises:
        UsageError: If preset or skill is unknown.
    """
    one_of("preset", name, PRESETS)
    chosen = None if skill is None else make_skill(skill)
    execute_steps = 16 if chosen is None else chosen.EXECUTE_STEPS
    compact = NetworkConfig(
        execute_steps=execute_steps, stagger_groups=min(4, execute_steps),
        linear_guess=chosen is not None and chosen.LINEAR_GUESS,
    )  # fmt: skip
    if name == "paper":
        network = replace(
            compact, widths=(256, 512, 1024), kernel_size=5, blocks_per_level=2, fold=1, prediction="epsilon",
            linear_guess=False, step_embedding_size=256, observation_embedding_size=256, inference_steps=5,
        )  # fmt: skip
        return TrainingConfig(
            network=network, steps=60_000, batch_size=256, learning_rate=1e-4, warmup_steps=2000, device="cuda"
        )
    if name == "test":
        sizes: dict[str, Any] = {"widths": (16, 16), "step_embedding_size": 8, "observation_embedding_size": 16}
        network = replace(compact, **sizes)
        return TrainingConfig(network=network, steps=50, batch_size=32, warmup_steps=5)
    dropout = 0.0 if chosen is None else chosen.FINGER_DROPOUT
    steps = 3000 if dropout == 0 else 6000  # a policy that sees only some fingers, others each time, learns more slowly
    cpu = TrainingConfig(network=compact, steps=steps, obs_noise=0.01, finger_dropout=dropout)
    return cpu if name == "cpu" else replace(cpu, batch_size=1024, precision="bfloat16", device="cuda")
