"""Settings of the off-policy learners: SAC, TQC and CrossQ."""

from __future__ import annotations

from dataclasses import dataclass

from dexcompose_agents.rl.actor_critic import INITIAL_LOG_STD
from dexcompose_envs.checks import LARGEST_SEED, real_number, require, whole_number


@dataclass(frozen=True)
class OffPolicyConfig:
    """Learning from a replay buffer; what isn't named here is as the libraries have it."""

    num_envs: int = 32
    """Worlds stepped at once."""
    horizon: int = 64
    """Control steps per world and iteration; after each iteration numbers are logged and the normaliser moves."""
    total_steps: int = 200_000
    """Budget in control steps over all worlds; whole iterations only."""
    max_seconds: float | None = None
    """Budget in seconds of training, resumed parts included; None for no limit."""
    learning_rate: float | None = None
    """Adam's step size; None for what the learner's authors use: 3e-4, and 1e-3 for CrossQ."""
    batch_size: int = 256
    """Transitions per update."""
    gamma: float = 0.99
    """Discount per control step."""
    tau: float = 0.005
    """Share by which the target critic follows at each update; CrossQ has no target critic."""
    buffer_size: int = 200_000
    """Newest transitions that are learned from."""
    learning_starts: int = 5_000
    """Transitions collected, with a residual of zero plus the noise of the start, before anything is learned."""
    critic_warmup: int = 1_000
    """Updates of the critic alone that come next; the policy goes on acting as at the start."""
    train_freq: int = 1
    """Control steps of every world between rounds of updates."""
    updates_per_step: float = 0.5
    """Updates per transition collected after `learning_starts`."""
    target_entropy: float = -1.0
    """Entropy (nats per dimension of tanh(u), the share of the bound) that the exploration is steered to."""
    initial_entropy_coef: float = 0.01
    """Weight of the entropy bonus at the start; from there it is learned, see `target_entropy`."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the actor's hidden layers."""
    critic_hidden: tuple[int, ...] = (256, 256)
    """Widths of each critic's hidden layers."""
    initial_log_std: float = INITIAL_LOG_STD
    """Log standard deviation of u at the start."""
    prefer: bool = False
    """Whether the residual is only used, when the policy is judged and later, where the critics prefer it to none."""
    evaluate_every: int = 20
    """Iterations between evaluations, checkpoints and restarts of all episodes."""
    evaluation_rounds: int = 1
    """Episodes per world in one evaluation."""
    seed: int = 0
    """Seed of networks, exploration, replay and episodes."""
    device: str = "cpu"
    """Torch device of networks and replay buffer, and of an environment whose backend runs on torch devices."""

    def __post_init__(self) -> None:
        """Refuses values with which training cannot work."""
        counts = ("num_envs", "horizon", "total_steps", "buffer_size", "evaluate_every", "evaluation_rounds")
        for name in counts:
            whole_number(name, getattr(self, name))
        whole_number("batch_size", self.batch_size, 2)  # CrossQ normalises by a batch's spread
        whole_number("learning_starts", self.learning_starts, 1)
        whole_number("critic_warmup", self.critic_warmup, 0)
        whole_number("train_freq", self.train_freq, 1, self.horizon)
        for name in ("gamma", "tau"):
            real_number(name, getattr(self, name), 0.0, 1.0)
        rate = self.learning_rate
        require(rate is None or rate > 0.0, "learning_rate", rate, "a positive number or None")
        for name in ("updates_per_step", "initial_entropy_coef"):
            require(getattr(self, name) > 0.0, name, getattr(self, name), "a positive number")
        for name in ("hidden", "critic_hidden"):
            require(len(getattr(self, name)) > 0, name, getattr(self, name), "at least one width")
        whole_number("seed", self.seed, 0, LARGEST_SEED)

    @property
    def iterations(self) -> int:
        """Iterations that the step budget pays for, at least one."""
        return max(1, self.total_steps // (self.num_envs * self.horizon))
