"""Proximal policy optimisation of a residual: collect, estimate advantages, improve, compare with the base arm."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dexcompose_agents.rl.actor_critic import ActorCritic
from dexcompose_agents.rl.config import PPOConfig
from dexcompose_agents.rl.policy_evaluation import total_where
from dexcompose_agents.rl.policy_update import improve, set_learning_rate
from dexcompose_agents.rl.rollout import Rollout
from dexcompose_agents.rl.trainer import Trainer


class PPO(Trainer):
    """Trains the residual of one task on its own fresh experience; see `Trainer` for arguments, files and errors.

    One iteration collects `horizon` steps in every world and then makes `epochs` passes over them. Within a control
    step nothing is read back from a GPU: what is logged is summed up there and read once per iteration.
    """

    SETTINGS = "ppo"

    config: PPOConfig
    network: ActorCritic
    best_network: ActorCritic

    def _make(self) -> None:
        env, config = self.env, self.config
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)
            network = ActorCritic(
                env.observation_size, env.action_size, config.hidden, config.initial_log_std,
                getattr(env, "shortcut", None),
            )  # fmt: skip
        self.network = network.to(self.device)
        self.best_network = copy.deepcopy(self.network)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate, eps=1e-5)
        self.generator = torch.Generator(self.device)

    def _policy(self) -> ActorCritic:
        return self.network

    def _parts(self) -> Mapping[str, Any]:
        return {"network": self.network, "best_network": self.best_network, "optimizer": self.optimizer}

    def _see(self, observations: Tensor) -> None:
        self.network.normalizer.update(observations)

    def _iterate(self, observation: Tensor) -> tuple[Tensor, dict[str, float]]:
        rollout, observation, row = self._collect(observation)
        left = 1.0 - self.iteration / self.config.iterations if self.config.anneal else 1.0
        row |= self._update(rollout, left)
        self._see(rollout.observations.flatten(0, 1))
        return observation, row

    @torch.no_grad()
    def _collect(self, observation: Tensor) -> tuple[Rollout, Tensor, dict[str, float]]:
        """Acts for `horizon` steps; returns the experience, the next observation and numbers to log."""
        config, env, network, device = self.config, self.env, self.network, self.device
        rollout = Rollout.empty(config.horizon, env.num_envs, env.observation_size, env.action_size, device)
        # Seeded by the iteration, so that a checkpoint needs no generator's state, which differs between devices.
        self.generator.manual_seed(1_000_003 * config.seed + self.iteration)
        started, sums = time.monotonic(), dict[str, Tensor]()
        observation = observation.to(device)
        mean, value = network(observation)
        for t in range(config.horizon):
            action = network.sample(mean, self.generator)
            step = env.step(action.to(env.device))
            terminated, ended = step.terminated.to(device), (step.terminated | step.truncated).to(device)
            rollout.observations[t], rollout.actions[t] = observation, action
            rollout.log_probs[t], rollout.values[t] = network.log_prob(mean, action), value
            rollout.rewards[t] = torch.where(step.left_out, 0.0, step.reward).to(device)
            rollout.valid[t] = step.valid.to(device)
            rollout.terminated[t], rollout.ended[t] = terminated, ended
            for name, values in step.metrics.items():
                sums[name] = sums.get(name, 0.0) + total_where(ended, values.to(device))

            observation = step.observation.to(device)
            mean, value = network(observation)
            if step.final_observation is step.observation:
                rollout.next_values[t] = value
            else:
                final_value = network(step.final_observation.to(device))[1]
                rollout.next_values[t] = torch.where(ended, final_value, value)
        means = [rollout.rewards.mean(), rollout.valid.float().mean()]
        means += [total / rollout.ended.sum() for total in sums.values()]
        reward, valid_fraction, *ended_means = torch.stack([number.double() for number in means]).tolist()
        elapsed = time.monotonic() - started
        speed = config.horizon * env.num_envs / elapsed
        row = {
            "reward": reward,
            "valid_fraction": valid_fraction,
            "collect_seconds": elapsed,
            "steps_per_second": speed,
        }
        row |= {f"episode_{name}": number for name, number in zip(sums, ended_means, strict=True)}
        return rollout, observation, row

    def _update(self, rollout: Rollout, pace: float = 1.0) -> dict[str, float]:
        """Improves policy and value by steps of `pace` times their size; returns numbers to log."""
        started = time.monotonic()
        set_learning_rate(self.optimizer, pace * self.config.learning_rate)
        row = improve(self.network, self.optimizer, rollout, self.config, self.generator)
        return row | {"update_seconds": time.monotonic() - started}
