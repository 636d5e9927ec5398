"""Settings of proximal policy optimisation."""

from __future__ import annotations

from dataclasses import dataclass

from dexcompose_agents.rl.actor_critic import HIDDEN, INITIAL_LOG_STD
from dexcompose_envs.checks import LARGEST_SEED, real_number, require, whole_number


@dataclass(frozen=True)
class PPOConfig:
    """Proximal policy optimisation; the defaults are the paper's where it names them."""

    num_envs: int = 64
    """Worlds stepped at once."""
    horizon: int = 24
    """Control steps per world and iteration."""
    total_steps: int = 400_000
    """Budget in control steps over all worlds; whole iterations only."""
    max_seconds: float | None = None
    """Budget in seconds of training, resumed parts included; None for no limit."""
    learning_rate: float = 3e-4
    """Adam's step size."""
    anneal: bool = False
    """Whether the step size falls evenly to zero over the budget of steps."""
    clip: float = 0.2
    """The probability ratio is clipped to [1 - clip, 1 + clip]."""
    gae_lambda: float = 0.95
    """Decay of generalised advantage estimation."""
    gamma: float = 0.99
    """Discount per control step."""
    epochs: int = 5
    """Passes over an iteration's experience."""
    minibatches: int = 4
    """Parts that each pass is cut into."""
    entropy_coef: float = 0.001
    """Weight of the entropy bonus."""
    value_coef: float = 1.0
    """Weight of the value loss."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    target_kl: float | None = None
    """An iteration's passes stop after one whose minibatches are, on average, this far (KL) from the policy that acted;
    None for never."""
    hidden: tuple[int, ...] = HIDDEN
    """Widths of the hidden layers."""
    initial_log_std: float = INITIAL_LOG_STD
    """Log standard deviation of u at the start."""
    evaluate_every: int = 20
    """Iterations between evaluations, checkpoints and restarts of all episodes."""
    evaluation_rounds: int = 1
    """Episodes per world in one evaluation."""
    seed: int = 0
    """Seed of network, exploration and episodes."""
    device: str = "cpu"
    """Torch device of the network, and of an environment whose backend runs on torch devices."""

    def __post_init__(self) -> None:
        """Refuses values with which training cannot work."""
        counts = ("num_envs", "horizon", "total_steps", "epochs", "minibatches", "evaluate_every", "evaluation_rounds")
        for name in counts:
            whole_number(name, getattr(self, name))
        for name in ("gamma", "gae_lambda"):
            real_number(name, getattr(self, name), 0.0, 1.0)
        for name in ("learning_rate", "clip", "max_grad_norm"):
            require(getattr(self, name) > 0.0, name, getattr(self, name), "a positive number")
        for name in ("entropy_coef", "value_coef"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "a number of at least 0")
        whole_number("seed", self.seed, 0, LARGEST_SEED)
        require(self.target_kl is None or self.target_kl > 0, "target_kl", self.target_kl, "a positive number or None")
        batch = self.num_envs * self.horizon
        require(self.minibatches <= batch, "minibatches", self.minibatches, f"at most num_envs x horizon = {batch}")

    @property
    def iterations(self) -> int:
        """Iterations that the step budget pays for, at least one."""
        return max(1, self.total_steps // (self.num_envs * self.horizon))
