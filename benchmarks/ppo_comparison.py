"""Compares the package's PPO with Stable-Baselines3's on the same task and budget.

    python benchmarks/ppo_comparison.py --task point-mass
    python benchmarks/ppo_comparison.py --task GraspBall --mask TH+MF+RF --steps 100000

Prints, per learner, control steps per second (collection and updates, evaluation excluded) and the return of the
deterministic policy on the same fixed episodes, next to that of the base arm, a residual of zero. Both learners use the
published hyper-parameters; SB3 gets the same layers but no LayerNorm, since its own network has none, and its
`VecNormalize` for observations and rewards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from stable_baselines3 import PPO as SB3PPO
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor, nn

from dexcompose_agents.residual.config import stabiliser_preset
from dexcompose_agents.residual.stabiliser_task import StabiliserTask
from dexcompose_agents.rl.actor_critic import DeterministicPolicy
from dexcompose_agents.rl.config import PPOConfig
from dexcompose_agents.rl.point_mass import PointMass
from dexcompose_agents.rl.ppo import PPO
from dexcompose_agents.rl.rollout import RolloutEnv


@dataclass
class Settings:
    """What to compare on."""

    task: str = "point-mass"
    """The toy task, or stabiliser A of a retention skill such as "GraspBall"."""
    mask: str = "TH+MF+RF"
    """Preserved fingers, for stabiliser A."""
    steps: int = 100_000
    """Budget in control steps."""
    num_envs: int = 64
    """Worlds."""
    horizon: int = 24
    """Control steps per world and iteration."""
    learning_rate: float = 3e-4
    """Adam's step size."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds; each learner runs once per seed."""
    threads: int = 1
    """Threads of torch, for SB3; ours takes one on a CPU."""


class RolloutVecEnv(VecEnv):
    """A `RolloutEnv` as an SB3 `VecEnv`; infos are built only for worlds whose episode ended."""

    def __init__(self, env: RolloutEnv, seed: int) -> None:
        box = gym.spaces.Box(-np.inf, np.inf, (env.observation_size,), np.float32)
        # SB3 clips actions to the box; u is unbounded in principle, and tanh(10) is 1.
        super().__init__(env.num_envs, box, gym.spaces.Box(-10.0, 10.0, (env.action_size,), np.float32))
        self.env, self.first_seed = env, seed

    def reset(self) -> Any:
        """First observations (N, d)."""
        return self.env.reset(self.first_seed).numpy()

    def step_async(self, actions: np.ndarray) -> None:
        """Keeps the actions for `step_wait`."""
        self.actions = torch.from_numpy(np.asarray(actions, np.float32))

    def step_wait(self) -> Any:
        """Observations, rewards, dones and infos."""
        step = self.env.step(self.actions)
        ended = (step.terminated | step.truncated).numpy()
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(ended):
            infos[i]["terminal_observation"] = step.final_observation[i].numpy()
            infos[i]["TimeLimit.truncated"] = bool(step.truncated[i])
        return step.observation.numpy(), step.reward.numpy(), ended, infos

    def close(self) -> None:
        """Nothing to close."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The task's attribute, once per world."""
        return [getattr(self.env, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not needed here."""
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Not needed here."""
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Worlds are never wrapped."""
        return [False] * self.num_envs


@dataclass
class Result:
    """One run of one learner."""

    steps_per_second: float
    update_share: float
    base: dict[str, float]
    trained: dict[str, float]


def train_ours(env: RolloutEnv, config: PPOConfig) -> Result:
    """Runs the package's PPO; judges the last policy, not the best one."""
    trainer = PPO(env, config)
    trainer.train()
    seconds = sum(row["collect_seconds"] + row["update_seconds"] for row in trainer.metrics)
    updates = sum(row["update_seconds"] for row in trainer.metrics)
    last = trainer.evaluate(DeterministicPolicy(trainer.network))
    return Result(trainer.metrics[-1]["steps"] / seconds, updates / seconds, trainer.evaluate(None), last)


def train_sb3(env: RolloutEnv, config: PPOConfig) -> Result:
    """Runs SB3's PPO with the same settings."""
    venv = VecNormalize(RolloutVecEnv(env, config.seed), gamma=config.gamma)
    model = SB3PPO(
        "MlpPolicy",
        venv,
        learning_rate=config.learning_rate,
        n_steps=config.horizon,
        batch_size=config.num_envs * config.horizon // config.minibatches,
        n_epochs=config.epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip,
        ent_coef=config.entropy_coef,
        vf_coef=config.value_coef,
        max_grad_norm=config.max_grad_norm,
        policy_kwargs={"net_arch": [*config.hidden], "activation_fn": nn.ELU, "log_std_init": config.initial_log_std},
        seed=config.seed,
        device=config.device,
    )
    head = model.policy.action_net
    assert isinstance(head, nn.Linear)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    collected = [0.0]
    collect: Callable[..., bool] = model.collect_rollouts

    def timed(*args: Any, **kwargs: Any) -> bool:
        started = time.monotonic()
        result = collect(*args, **kwargs)
        collected[0] += time.monotonic() - started
        return result

    model.collect_rollouts = timed  # type: ignore[method-assign]
    started = time.monotonic()
    model.learn(config.iterations * config.num_envs * config.horizon)
    seconds = time.monotonic() - started

    def policy(observation: Tensor) -> Tensor:
        normalised = venv.normalize_obs(observation.numpy())
        return torch.from_numpy(np.asarray(model.predict(normalised, deterministic=True)[0], np.float32))

    judge = PPO(env, config)
    return Result(
        model.num_timesteps / seconds, 1 - collected[0] / seconds, judge.evaluate(None), judge.evaluate(policy)
    )


def main(settings: Settings) -> None:
    """Trains with both learners and prints the comparison."""
    torch.set_num_threads(settings.threads)
    ppo = PPOConfig(
        num_envs=settings.num_envs,
        horizon=settings.horizon,
        total_steps=settings.steps,
        learning_rate=settings.learning_rate,
        evaluate_every=10**9,
    )

    def make() -> RolloutEnv:
        if settings.task == "point-mass":
            return PointMass(settings.num_envs)
        return StabiliserTask(settings.task, stabiliser_preset("cpu", masks=(settings.mask,), ppo=ppo))

    table = Table(title=f"{settings.task}, {settings.steps} control steps, {settings.num_envs} worlds")
    for column in ("learner", "seed", "steps/s", "update share", "base return", "final return", "final metrics"):
        table.add_column(column, justify="left" if column == "learner" else "right")
    learners: Sequence[tuple[str, Callable[[RolloutEnv, PPOConfig], Result]]] = (
        ("ours", train_ours),
        ("SB3", train_sb3),
    )
    for seed in settings.seeds:
        for name, train in learners:
            result = train(make(), replace(ppo, seed=seed))
            others = " ".join(f"{key}={value:.4g}" for key, value in result.trained.items() if key != "return")
            table.add_row(
                name,
                str(seed),
                f"{result.steps_per_second:,.0f}",
                f"{result.update_share:.0%}",
                f"{result.base['return']:.3f}",
                f"{result.trained['return']:.3f}",
                others,
            )
    Console(width=130).print(table)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
