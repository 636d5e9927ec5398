"""What all learners do alike: iterate, judge against the base arm, keep the best, save, stop and go on."""

from __future__ import annotations

import copy
import csv
import io
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from dexcompose_agents.artefacts.checkpoints import load_state, save_state
from dexcompose_agents.rl.actor_critic import DeterministicPolicy
from dexcompose_agents.rl.policy_evaluation import EVALUATION_SEED, Policy, evaluate
from dexcompose_agents.rl.residual_network import ResidualNetwork
from dexcompose_agents.rl.rollout import RolloutEnv
from dexcompose_agents.runtime.devices import find_device, tensor_cores
from dexcompose_agents.runtime.interrupts import Paused
from dexcompose_agents.runtime.threads import one_thread
from dexcompose_envs.checks import require
from dexcompose_envs.errors import UsageError
from dexcompose_envs.files import atomic_write

NOT_IDENTITY = ("device", "max_seconds", "total_steps")
"""Settings in which two calls may differ and still be one training: where it runs, and for how long."""

ProgressCallback = Callable[[dict[str, float]], None]


class Trainer(ABC):
    """Trains the residual of one task.

    One iteration takes `horizon` steps in every world. Every `evaluate_every` iterations the deterministic policy is
    judged against the base arm, which is the same task with a residual of zero, on the same episodes; the best policy
    so far is kept, and the base arm is the first of them, so training never returns a policy that was seen to be worse
    than no residual at all.

    A checkpoint is written at every evaluation and all episodes start afresh from seeds of the iteration's number,
    so a run that was stopped there and resumed is identical to one that was not. Whatever else ends `train` in between
    (Ctrl-C, an error, the end of the minutes given to it) saves the last complete iteration, to which the trainer goes
    back; episodes then start afresh there. A checkpoint belongs to no device, and to one training: one of another task
    or other settings is refused, be it finished or not. Only the budget may grow.

    Network and experience live on `config.device`.

    Args:
        env: The task.
        config: Settings, a dataclass; see `PPOConfig` for those that every learner has.
        out: Folder for `checkpoint.pt`, `metrics.csv` (one row per iteration) and `evaluations.csv` (base arm next
            to composed arm); None keeps everything in memory.
        score: Metrics by which policies are compared, the first decides, the next break ties. `return` is the
            undiscounted sum of rewards.
        progress: Called after each iteration with its metrics.
        identity: What the training is besides its settings, ready for JSON: task, hashes of whatever it builds on.
        base: What `evaluate(None)` gives, if it is known.

    Raises:
        UsageError: If task and settings disagree on the number of worlds, the task is on a GPU and the network is to
            be elsewhere, or the checkpoint in `out` has used up more than the budget.
        ArtefactError: If the checkpoint in `out` is unreadable or belongs to another training.
    """

    SETTINGS: ClassVar[str]
    """What `residual.config.ResidualConfig`, and a checkpoint's identity, call the learner's settings."""

    config: Any
    best_network: ResidualNetwork
    """The best policy of all evaluations."""

    @torch.inference_mode(False)
    def __init__(
        self,
        env: RolloutEnv,
        config: Any,
        *,
        out: str | Path | None = None,
        score: tuple[str, ...] = ("return",),
        progress: ProgressCallback | None = None,
        identity: Mapping[str, Any] | None = None,
        base: Mapping[str, float] | None = None,
    ) -> None:
        if env.num_envs != config.num_envs:
            raise UsageError(f"the task has {env.num_envs} worlds; the settings say num_envs={config.num_envs}")
        self.device = find_device(config.device)
        if env.device.type == "cuda" and env.device != self.device:
            raise UsageError(f"the task is on {env.device}; the settings say device={config.device!r}")
        self.env, self.config = env, config
        self.out = None if out is None else Path(out)
        self.score, self.progress, self._base = score, progress, base
        settings = {name: value for name, value in asdict(config).items() if name not in NOT_IDENTITY}
        sizes = {"observation_size": env.observation_size, "action_size": env.action_size}
        self.identity = {**(identity or {}), **sizes, "score": score, self.SETTINGS: settings}
        self.iteration = 0
        self.seconds = 0.0
        self.metrics: list[dict[str, float]] = []
        self.evaluations: list[dict[str, float]] = []
        self._complete: dict[str, Any] | None = None
        """The last complete state while `train` runs."""
        self._make()
        if self.out is not None and (self.out / "checkpoint.pt").exists():
            self._restore(load_state(self.out / "checkpoint.pt", self.identity))
        if self.iteration > config.iterations:
            asked = f"total_steps is {config.total_steps}, {config.iterations} iterations"
            raise UsageError(f"{asked}; the training in '{self.out}' has made {self.iteration} already")

    @abstractmethod
    def _policy(self) -> ResidualNetwork:
        """The policy as it is now."""

    @abstractmethod
    def _make(self) -> None:
        """Makes networks and all else that is learned, `best_network` among it, from the seed."""

    @abstractmethod
    def _parts(self) -> Mapping[str, Any]:
        """What the next iteration depends on, by name: things with a `state_dict`."""

    @abstractmethod
    def _see(self, observations: Tensor) -> None:
        """Moves the observation normaliser by observations (n, d)."""

    @abstractmethod
    def _iterate(self, observation: Tensor) -> tuple[Tensor, dict[str, float]]:
        """One iteration from observations (N, d); returns the next ones and numbers to log."""

    def _keep(self, network: ResidualNetwork) -> None:
        """Remembers the policy as it is now as the best."""
        self.best_network.load_state_dict(network.state_dict())

    def _saved(self, state: dict[str, Any]) -> dict[str, Any]:
        """A state as a checkpoint holds it."""
        return state

    @torch.inference_mode(False)
    def train(self, max_minutes: float | None = None) -> Any:
        """Trains until the budget is spent.

        Args:
            max_minutes: Wall time of this call; it stops after the first complete iteration beyond that. Every call
                completes an iteration or an evaluation, however short the time.

        Returns:
            The best policy of all evaluations.

        Raises:
            Paused: After `max_minutes`, once the last complete iteration has been saved.
            KeyboardInterrupt: After Ctrl-C, likewise.
            UsageError: If `max_minutes` is not positive.
        """
        require(max_minutes is None or max_minutes > 0, "max_minutes", max_minutes, "a positive number or None")
        began = time.monotonic()
        started, deadline = began - self.seconds, None if max_minutes is None else began + 60.0 * max_minutes
        if self._complete is not None:
            self._restore(self._complete)  # The call before was stopped while it put things right.
        self._complete = self._state()
        try:
            with self._computing():
                while True:
                    evaluated = self._evaluate_if_due()
                    if self._spent():
                        break
                    if evaluated:
                        self._pause_after(deadline)
                    self._run_block(started, deadline)
        except BaseException:
            complete = self._complete
            self._restore(complete)
            self._complete = None
            if complete["evaluations"]:  # Before that there is nothing worth keeping.
                self._save(complete)
            raise
        self._complete = None
        return self.best_network

    def _run_block(self, started: float, deadline: float | None) -> None:
        """Iterates from new episodes to the next evaluation, or until the budget is spent."""
        observation = self._restart()
        while True:
            observation, row = self._iterate(observation)
            self.iteration += 1
            self.seconds = time.monotonic() - started
            self._record(row)
            self._pause_after(deadline)
            if self._spent() or self.iteration % self.config.evaluate_every == 0:
                return

    def _spent(self) -> bool:
        limit = self.config.max_seconds
        return self.iteration >= self.config.iterations or (limit is not None and self.seconds >= limit)

    def _pause_after(self, deadline: float | None) -> None:
        if deadline is not None and time.monotonic() >= deadline:
            done = f"{self.iteration} of {self.config.iterations} iterations"
            raise Paused(f"training paused after {done}, as asked; the same call goes on from there")

    def _restart(self) -> Tensor:
        """New episodes; before the first iteration the normaliser sees what the base arm sees."""
        observation = self.env.reset(self.config.seed + 1000 * self.iteration)
        if self.iteration == 0:
            shape = (self.env.num_envs, self.env.action_size)
            zero = torch.zeros(shape, dtype=torch.float32, device=self.env.device)
            seen = [observation, *(self.env.step(zero).observation for _ in range(self.config.horizon))]
            self._see(torch.cat(seen).to(self.device))
            observation = self.env.reset(self.config.seed)
        return observation

    def evaluate(
        self, policy: Policy | None, *, rounds: int | None = None, seed: int = EVALUATION_SEED
    ) -> dict[str, float]:
        """Mean return and metrics over fixed episodes, each counted once.

        Args:
            policy: Maps observations (N, d) to residuals u (N, k), on `config.device`; None for the base arm, u = 0.
            rounds: Episodes per world; None: `evaluation_rounds`.
            seed: The first episode's; the others' follow it.
        """
        env, device = self.env, self.device
        act = None if policy is None else lambda observation: policy(observation.to(device)).to(env.device)
        with self._computing():
            return evaluate(env, act, rounds or self.config.evaluation_rounds, seed)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        # The task's device: also beside a network on a GPU, torch has much to do for worlds on the CPU.
        with one_thread(self.env.device), tensor_cores(self.device), torch.autocast(self.device.type, enabled=False):
            yield

    def _evaluate_if_due(self) -> bool:
        """Judges the policy on fixed episodes, keeps it if it is the best so far, and writes a checkpoint."""
        due = self.iteration % self.config.evaluate_every == 0 or self._spent()
        if not due or (self.evaluations and self.evaluations[-1]["iteration"] == self.iteration):
            return False
        network = self._policy()
        if not self.evaluations:
            # At the start the residual is exactly zero: one arm is both.
            base = composed = self._base or self.evaluate(None)
        else:
            base = {name[5:]: value for name, value in self.evaluations[0].items() if name.startswith("base_")}
            composed = self.evaluate(DeterministicPolicy(network))
        missing = [name for name in self.score if name not in composed]
        if missing:
            raise UsageError(f"score names {missing}; the task's metrics are {sorted(composed)}")
        best = max((self._rank(row) for row in self.evaluations), default=None)
        row = {"iteration": float(self.iteration), "steps": float(self._steps())}
        row |= {f"base_{name}": value for name, value in base.items()}
        row |= {f"composed_{name}": value for name, value in composed.items()}
        if best is None or self._rank(row) > best:
            self._keep(network)
        self.evaluations.append(row)
        self._complete = self._state()
        self._save(self._complete)
        return True

    def best_evaluation(self) -> dict[str, float]:
        """The row of `evaluations` that the best policy comes from."""
        return max(self.evaluations, key=self._rank)

    def _rank(self, row: dict[str, float]) -> tuple[float, ...]:
        return tuple(row[f"composed_{name}"] for name in self.score)

    def _steps(self) -> int:
        return int(self.iteration * self.config.horizon * self.config.num_envs)

    def _record(self, row: dict[str, float]) -> None:
        row = {"iteration": self.iteration, "steps": self._steps(), "seconds": round(self.seconds, 2), **row}
        self.metrics.append(row)
        self._complete = self._state()
        if self.out is not None:
            _write_csv(self.out / "metrics.csv", self.metrics)
        if self.progress is not None:
            self.progress(row)

    def _state(self) -> dict[str, Any]:
        """A copy of all that the next iteration depends on."""
        parts = {name: copy.deepcopy(part.state_dict()) for name, part in self._parts().items()}
        rows = {"metrics": list(self.metrics), "evaluations": list(self.evaluations)}
        return {"iteration": self.iteration, "seconds": self.seconds, **parts, **rows}

    def _restore(self, state: dict[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.iteration, self.seconds = state["iteration"], state["seconds"]
        self.metrics, self.evaluations = list(state["metrics"]), list(state["evaluations"])

    def _save(self, state: dict[str, Any]) -> None:
        if self.out is not None:
            save_state(self.out / "checkpoint.pt", self._saved(state), self.identity)
            _write_csv(self.out / "metrics.csv", state["metrics"])
            _write_csv(self.out / "evaluations.csv", state["evaluations"])


def _write_csv(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Writes rows of named numbers; a column that a row lacks stays empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in row.items()})
    atomic_write(path, text.getvalue())
