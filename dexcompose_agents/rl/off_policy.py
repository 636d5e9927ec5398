"""Off-policy learning of a residual: collect with noise, replay what had an effect, compare with the base arm."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from dexcompose_agents.rl.mlp_actor import MLPActor
from dexcompose_agents.rl.normalizer import RunningNormalizer
from dexcompose_agents.rl.off_policy_config import OffPolicyConfig
from dexcompose_agents.rl.policy_evaluation import total_where
from dexcompose_agents.rl.replay import Replay
from dexcompose_agents.rl.sb3_model import SB3Model
from dexcompose_agents.rl.trainer import Trainer
from dexcompose_agents.runtime.devices import plain_torch


class OffPolicy(Trainer):
    """Trains the residual of one task from a replay buffer; see `Trainer` and `SB3Model`.

    At first the policy acts as it is made: a residual of zero plus noise, on the base policy's own states. After
    `learning_starts` such transitions the critic learns alone for `critic_warmup` updates, so that the first thing the
    actor hears is not a critic's noise; then both learn. All transitions are of valid steps, see `Replay`.

    A checkpoint holds the replay buffer, too: per transition, 8 bytes times the observation's size.
    """

    SETTINGS = "off_policy"
    ALGORITHM: ClassVar[str]
    """One of `sb3_model.ALGORITHMS`."""

    config: OffPolicyConfig
    best_network: MLPActor

    def _make(self) -> None:
        env, config = self.env, self.config
        self.identity["algorithm"] = self.ALGORITHM
        sizes = (env.observation_size, env.action_size)
        with _drawing(config.seed, self.device):
            self.normalizer = RunningNormalizer(env.observation_size).to(self.device)
            spare = config.horizon * config.num_envs
            self.replay = Replay(config.buffer_size, spare, *sizes, self.normalizer, self.device)
            self.model = SB3Model(self.ALGORITHM, *sizes, self.replay, config, self.device)
            self.best_network = self.network

    @property
    def network(self) -> MLPActor:
        """The policy as it is now, a copy."""
        return self.model.actor(self.normalizer)

    def _policy(self) -> MLPActor:
        return self.network

    def _parts(self) -> Mapping[str, Any]:
        parts = {"model": self.model, "best_network": self.best_network}
        return {**parts, "normalizer": self.normalizer, "replay": self.replay}

    def _saved(self, state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "replay": self.replay.with_rows(state["replay"])}

    def _see(self, observations: Tensor) -> None:
        self.normalizer.update(observations)

    def _iterate(self, observation: Tensor) -> tuple[Tensor, dict[str, float]]:
        # Seeded by the iteration, so that a checkpoint needs no generator's state, which differs between devices.
        with _drawing(1_000_003 * self.config.seed + self.iteration + 1, self.device):
            observation, seen, row = self._run(observation.to(self.device))
        self._see(seen)
        return observation, row

    def _run(self, observation: Tensor) -> tuple[Tensor, Tensor, dict[str, float]]:
        """Acts and learns for `horizon` steps; returns the next observation, all that were seen, and numbers to log."""
        config, env, device = self.config, self.env, self.device
        started, update_seconds, losses = time.monotonic(), 0.0, dict[str, float]()
        seen, rewards, valid, ends = [], [], [], []
        sums: dict[str, Tensor] = {}
        for t in range(config.horizon):
            with torch.no_grad():
                seen.append(observation)
                residual, std = self.model.sample(self.normalizer(observation))
                step = env.step(residual.to(env.device))
                self.replay.add(observation, residual.tanh(), step)
                ended = step.terminated | step.truncated
                rewards.append(torch.where(step.left_out, 0.0, step.reward).mean())
                valid.append(step.valid.float().mean())
                ends.append(ended.sum())
                for name, values in step.metrics.items():
                    sums[name] = sums.get(name, 0.0) + total_where(ended, values)
                observation = step.observation.to(device)
            if (t + 1) % config.train_freq == 0:
                learning = time.monotonic()
                losses = self._learn() or losses
                update_seconds += time.monotonic() - learning
        elapsed = time.monotonic() - started
        ended_worlds = float(sum(ends))
        row = {
            "reward": float(sum(rewards)) / config.horizon,
            "valid_fraction": float(sum(valid)) / config.horizon,
            "collect_seconds": elapsed - update_seconds,
            "steps_per_second": config.horizon * env.num_envs / elapsed,
            **{
                f"episode_{name}": float(total) / ended_worlds if ended_worlds else float("nan")
                for name, total in sums.items()
            },
            "replayed": float(len(self.replay)),
            "updates": float(self.model.updates),
            "action_std": float(std.mean()),
            "update_seconds": update_seconds,
            **losses,
        }
        return observation, torch.cat(seen), row

    def _learn(self) -> dict[str, float]:
        """Makes the updates that are due; returns numbers to log, none where nothing was due."""
        earned = self.config.updates_per_step * max(0, self.replay.count - self.config.learning_starts)
        due = int(earned) - self.model.updates
        return self.model.improve(due) if due > 0 else {}


class SAC(OffPolicy):
    """Soft actor-critic."""

    ALGORITHM = "sac"


class TQC(OffPolicy):
    """Truncated quantile critics: soft actor-critic that learns returns' distributions and drops the highest parts."""

    ALGORITHM = "tqc"


class CrossQ(OffPolicy):
    """Soft actor-critic with batch normalisation and without target networks."""

    ALGORITHM = "crossq"


@contextmanager
def _drawing(seed: int, device: torch.device) -> Iterator[None]:
    """Lets torch's global generators start from a seed within the block, since SB3 draws from them."""
    devices = [device] if device.type == "cuda" else []
    with plain_torch(), torch.random.fork_rng(devices=devices), torch.autocast(device.type, enabled=False):
        torch.manual_seed(seed % 2**63)
        yield
