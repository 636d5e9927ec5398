"""Proximal policy optimisation of a residual: collect, estimate advantages, improve, compare with the base arm."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dexcompose_agents.residual.actor_critic import ActorCritic, DeterministicPolicy
from dexcompose_agents.residual.config import PPOConfig
from dexcompose_agents.residual.rollout import Rollout, RolloutEnv, generalised_advantages
from dexcompose_agents.residual.training_log import load_checkpoint, save_checkpoint, write_csv

EVALUATION_SEED = 900_000_000
ProgressCallback = Callable[[dict[str, float]], None]


class PPO:
    """Trains the residual of one task.

    One iteration collects `horizon` steps in every world and then makes `epochs` passes over them. Every
    `evaluate_every` iterations the deterministic policy is judged against the base arm, which is the same task with a
    residual of zero, on the same episodes; the best policy so far is kept, and the base arm is the first of them, so
    training never returns a policy that was seen to be worse than no residual at all.

    A checkpoint is written at every evaluation and all episodes start afresh from seeds of the iteration's number,
    so a run that was stopped there and resumed is identical to one that was not. Ctrl-C in between saves the last
    complete iteration.

    Args:
        env: The task.
        config: Settings.
        out: Folder for `checkpoint.pt`, `metrics.csv` (one row per iteration) and `evaluations.csv` (base arm next
            to composed arm); None keeps everything in memory.
        score: Metrics by which policies are compared, the first decides, the next break ties. `return` is the
            undiscounted sum of rewards.
        evaluation_env: Task for evaluation; None evaluates in `env`.
        progress: Called after each iteration with its metrics.
    """

    def __init__(
        self,
        env: RolloutEnv,
        config: PPOConfig,
        *,
        out: str | Path | None = None,
        score: tuple[str, ...] = ("return",),
        evaluation_env: RolloutEnv | None = None,
        progress: ProgressCallback | None = None,
    ) -> None:
        if env.num_envs != config.num_envs:
            raise ValueError(f"the task has {env.num_envs} worlds; the settings say num_envs={config.num_envs}")
        self.env, self.evaluation_env, self.config = env, evaluation_env or env, config
        self.out = None if out is None else Path(out)
        self.score, self.progress = score, progress
        self.device = torch.device(config.device)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            network = ActorCritic(env.observation_size, env.action_size, config.hidden, config.initial_log_std)
        self.network = network.to(self.device)
        self.best_network = copy.deepcopy(self.network)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate, eps=1e-5)
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.iteration = 0
        self.seconds = 0.0
        self.metrics: list[dict[str, float]] = []
        self.evaluations: list[dict[str, float]] = []
        self._complete: dict[str, Any] = {}
        if self.out is not None and (self.out / "checkpoint.pt").exists():
            self._restore(load_checkpoint(self.out / "checkpoint.pt"))

    def train(self) -> ActorCritic:
        """Trains until the budget is spent.

        Returns:
            The best policy of all evaluations.

        Raises:
            KeyboardInterrupt: After Ctrl-C, once the last complete iteration has been saved.
        """
        started = time.monotonic() - self.seconds
        self._complete = self._state()
        try:
            while not self._spent():
                self._evaluate_if_due()
                observation = self._restart()
                while not self._spent():
                    rollout, observation, row = self._collect(observation)
                    row |= self._update(rollout)
                    self.network.normalizer.update(rollout.observations.flatten(0, 1))
                    self.iteration += 1
                    self.seconds = time.monotonic() - started
                    self._record(row)
                    if self.iteration % self.config.evaluate_every == 0:
                        break
            self._evaluate_if_due()
        except KeyboardInterrupt:
            self._save(self._complete)
            raise
        return self.best_network

    def _spent(self) -> bool:
        limit = self.config.max_seconds
        return self.iteration >= self.config.iterations or (limit is not None and self.seconds >= limit)

    def _restart(self) -> Tensor:
        """New episodes; before the first iteration the normaliser sees what the base arm sees."""
        observation = self.env.reset(self.config.seed + 1000 * self.iteration)
        if self.iteration == 0:
            seen = [observation]
            zero = torch.zeros(self.env.num_envs, self.env.action_size)
            seen += [self.env.step(zero).observation for _ in range(self.config.horizon)]
            self.network.normalizer.update(torch.cat(seen).to(self.device))
            observation = self.env.reset(self.config.seed)
        return observation

    @torch.no_grad()
    def _collect(self, observation: Tensor) -> tuple[Rollout, Tensor, dict[str, float]]:
        """Acts for `horizon` steps; returns the experience, the next observation and numbers to log."""
        config, env, network = self.config, self.env, self.network
        rollout = Rollout.empty(config.horizon, env.num_envs, env.observation_size, env.action_size, self.device)
        started, ended_metrics = time.monotonic(), []
        observation = observation.to(self.device)
        mean, value = network(observation)
        for t in range(config.horizon):
            action = network.sample(mean, self.generator)
            step = env.step(action.cpu())
            ended = (step.terminated | step.truncated).to(self.device)
            rollout.observations[t], rollout.actions[t] = observation, action
            rollout.log_probs[t], rollout.values[t] = network.log_prob(mean, action), value
            rollout.rewards[t] = step.reward.to(self.device)
            rollout.terminated[t], rollout.ended[t] = step.terminated.to(self.device), ended
            rollout.valid[t] = step.valid.to(self.device)

            observation = step.observation.to(self.device)
            mean, value = network(observation)
            rollout.next_values[t] = value
            if ended.any():
                rollout.next_values[t, ended] = network(step.final_observation.to(self.device)[ended])[1]
                finished = step.terminated | step.truncated
                ended_metrics.append({name: v[finished].float() for name, v in step.metrics.items()})
        elapsed = time.monotonic() - started
        row = {
            "reward": float(rollout.rewards.mean()),
            "valid_fraction": float(rollout.valid.float().mean()),
            "collect_seconds": elapsed,
            "steps_per_second": config.horizon * env.num_envs / elapsed,
        }
        for name in step.metrics:
            values = torch.cat([part[name] for part in ended_metrics]) if ended_metrics else torch.zeros(0)
            row[f"episode_{name}"] = float(values.mean()) if len(values) else float("nan")
        return rollout, observation, row

    def _update(self, rollout: Rollout) -> dict[str, float]:
        """Several passes of clipped policy improvement and value regression over the valid steps."""
        config, network = self.config, self.network
        started = time.monotonic()
        advantages = generalised_advantages(
            rollout.rewards,
            rollout.values,
            rollout.next_values,
            rollout.terminated,
            rollout.ended,
            config.gamma,
            config.gae_lambda,
        )
        valid = rollout.valid
        observations, actions = rollout.observations[valid], rollout.actions[valid]
        old_log_probs, advantages = rollout.log_probs[valid], advantages[valid]
        targets = advantages + rollout.values[valid]
        count = len(targets)
        if count < 2 * config.minibatches:
            return dict.fromkeys(("policy_loss", "value_loss", "kl", "clip_fraction"), float("nan"))
        unexplained = (targets - rollout.values[valid]).var() / targets.var().clamp(min=1e-8)
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)

        network.track_returns(targets)
        return_std = float(network.return_std)
        sums, batches, kl = torch.zeros(4), 0, 0.0
        for _ in range(config.epochs):
            order = torch.randperm(count, generator=self.generator, device=self.device)
            for batch in order.tensor_split(config.minibatches):
                mean, value = network(observations[batch])
                log_ratio = network.log_prob(mean, actions[batch]) - old_log_probs[batch]
                ratio = log_ratio.exp()
                clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
                policy_loss = -torch.minimum(ratio * advantages[batch], clipped * advantages[batch]).mean()
                value_loss = ((value - targets[batch]) / return_std).square().mean()
                loss = policy_loss + config.value_coef * value_loss - config.entropy_coef * network.entropy()
                self.optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), config.max_grad_norm)
                self.optimizer.step()
                with torch.no_grad():
                    kl = float((ratio - 1 - log_ratio).mean())
                    outside = ((ratio - 1).abs() > config.clip).float().mean()
                    sums += torch.tensor([float(policy_loss), float(value_loss), kl, float(outside)])
                batches += 1
            if config.target_kl is not None and kl > config.target_kl:
                break
        policy_loss_mean, value_loss_mean, kl_mean, clip_fraction = (sums / batches).tolist()
        return {
            "policy_loss": policy_loss_mean,
            "value_loss": value_loss_mean,
            "kl": kl_mean,
            "clip_fraction": clip_fraction,
            "explained_variance": 1.0 - float(unexplained),
            "action_std": float(network.log_std.detach().exp().mean()),
            "update_seconds": time.monotonic() - started,
        }

    @torch.no_grad()
    def evaluate(self, policy: Callable[[Tensor], Tensor] | None) -> dict[str, float]:
        """Mean return and metrics over fixed episodes, `evaluation_rounds` per world, each counted once.

        Args:
            policy: Maps observations (N, d) to residuals u (N, k); None for the base arm, u = 0.
        """
        env, totals = self.evaluation_env, dict[str, list[Tensor]]()
        for round_number in range(self.config.evaluation_rounds):
            observation = env.reset(EVALUATION_SEED + round_number * env.num_envs)
            running = torch.ones(env.num_envs, dtype=torch.bool)
            returns = torch.zeros(env.num_envs)
            while running.any():
                action = torch.zeros(env.num_envs, env.action_size) if policy is None else policy(observation)
                step = env.step(action)
                returns += step.reward * running
                ended = running & (step.terminated | step.truncated)
                for name, values in {"return": returns, **step.metrics}.items():
                    totals.setdefault(name, []).append(values[ended].double())
                running &= ~ended
                observation = step.observation
        return {name: float(torch.cat(parts).mean()) for name, parts in totals.items()}

    def _evaluate_if_due(self) -> None:
        """Judges the policy on fixed episodes, keeps it if it is the best so far, and writes a checkpoint."""
        if self.evaluations and self.evaluations[-1]["iteration"] == self.iteration:
            return
        if not self.evaluations:
            base = composed = self.evaluate(None)  # At the start the residual is exactly zero: one arm is both.
        else:
            base = {name[5:]: value for name, value in self.evaluations[0].items() if name.startswith("base_")}
            composed = self.evaluate(DeterministicPolicy(self.network))
        missing = [name for name in self.score if name not in composed]
        if missing:
            raise ValueError(f"score names {missing}; the task's metrics are {sorted(composed)}")
        best = max((self._rank(row) for row in self.evaluations), default=None)
        row = {"iteration": float(self.iteration), "steps": float(self._steps())}
        row |= {f"base_{name}": value for name, value in base.items()}
        row |= {f"composed_{name}": value for name, value in composed.items()}
        if best is None or self._rank(row) > best:
            self.best_network.load_state_dict(self.network.state_dict())
        self.evaluations.append(row)
        self._complete = self._state()
        self._save(self._complete)

    def _rank(self, row: dict[str, float]) -> tuple[float, ...]:
        return tuple(row[f"composed_{name}"] for name in self.score)

    def _steps(self) -> int:
        return self.iteration * self.config.horizon * self.config.num_envs

    def _record(self, row: dict[str, float]) -> None:
        row = {"iteration": self.iteration, "steps": self._steps(), "seconds": round(self.seconds, 2), **row}
        self.metrics.append(row)
        self._complete = self._state()
        if self.out is not None:
            write_csv(self.out / "metrics.csv", self.metrics)
        if self.progress is not None:
            self.progress(row)

    def _state(self) -> dict[str, Any]:
        """A copy of all that the next iteration depends on."""
        return {
            "iteration": self.iteration,
            "seconds": self.seconds,
            "network": copy.deepcopy(self.network.state_dict()),
            "best_network": copy.deepcopy(self.best_network.state_dict()),
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "generator": self.generator.get_state(),
            "metrics": list(self.metrics),
            "evaluations": list(self.evaluations),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self.network.load_state_dict(state["network"])
            self.best_network.load_state_dict(state["best_network"])
        except RuntimeError as error:
            first_line = str(error).splitlines()[-1].strip()
            raise ValueError(f"the checkpoint in {self.out} belongs to another task or network: {first_line}") from None
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.iteration, self.seconds = state["iteration"], state["seconds"]
        self.metrics, self.evaluations = list(state["metrics"]), list(state["evaluations"])

    def _save(self, state: dict[str, Any]) -> None:
        if self.out is None:
            return
        save_checkpoint(self.out / "checkpoint.pt", state)
        write_csv(self.out / "metrics.csv", state["metrics"])
        write_csv(self.out / "evaluations.csv", state["evaluations"])
