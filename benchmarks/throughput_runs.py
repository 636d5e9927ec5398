"""What is timed on a GPU besides bare physics: the environment under some driver, and PPO."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch
from throughput_common import noise_scale
from torch import Tensor

from dexcompose_agents.methods import make_method
from dexcompose_agents.residual.config import stabiliser_preset
from dexcompose_agents.residual.stabiliser_task import StabiliserTask
from dexcompose_agents.rl.ppo import PPO
from dexcompose_envs import env_id, hand
from dexcompose_envs.held_states import HeldStateLibrary

GROUPS = 40
"""Groups of worlds whose episodes end together."""


class Driver(Protocol):
    """Acts in N worlds."""

    def begin(self, obs: dict[str, Tensor], info: dict[str, Tensor], started: Tensor) -> None:
        """Says in which worlds, a mask (N,), an episode has begun."""

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """Actions (N, 28)."""


class Hold:
    """The command that holds the object, plus noise.

    Args:
        control: "calm" or "rough".
        columns: Columns of `previous_action` in the context.
        num_worlds: N.
        device: Torch device.
    """

    def __init__(self, control: Any, columns: slice, num_worlds: int, device: str) -> None:
        self._columns = columns
        self._scale = torch.as_tensor(noise_scale(control), dtype=torch.float32, device=device)
        self._command = torch.zeros(num_worlds, hand.NUM_ACTIONS, device=device)

    def begin(self, obs: dict[str, Tensor], info: dict[str, Tensor], started: Tensor) -> None:
        """See `Driver`."""
        self._command = torch.where(started[:, None], obs["context"][:, self._columns], self._command)

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """See `Driver`."""
        return (self._command + self._scale * torch.randn_like(self._command)).clamp(-1.0, 1.0)


class Composition:
    """DexCompose as it ships, on the device.

    Args:
        pair: Pair of skills.
        device: Torch device.
    """

    def __init__(self, pair: str, device: str) -> None:
        self._method: Any = make_method("dexcompose", pair, device=device)
        self._episodes = 0

    def begin(self, obs: dict[str, Tensor], info: dict[str, Tensor], started: Tensor) -> None:
        """See `Driver`; the host waits, since methods are told about new episodes by number."""
        worlds = np.flatnonzero(started.cpu().numpy())
        if len(worlds):
            self._method.reset(obs, info, worlds, self._episodes + np.arange(len(worlds)))
            self._episodes += len(worlds)

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """See `Driver`."""
        return self._method.act(obs)


class DrivenEnvironment:
    """N worlds of a pair on MuJoCo Warp and a driver that acts in them; a context manager.

    Args:
        pair: Pair of skills.
        num_worlds: N.
        device: Torch device.
        driver: "calm", "rough" or "dexcompose".
        **options: Further options of the environment.
    """

    def __init__(self, pair: str, num_worlds: int, device: str, driver: str, **options: Any) -> None:
        self._venv: Any = gym.make_vec(
            env_id(pair), num_envs=num_worlds, backend="warp", device=device, start="held", base_shake=0.0, **options
        )
        columns = self._venv.unwrapped.layout["context"]["previous_action"]
        self._driver: Driver
        if driver == "dexcompose":
            self._driver = Composition(pair, device)
        else:
            self._driver = Hold(driver, columns, num_worlds, device)
        library: HeldStateLibrary = self._venv.unwrapped.held_library
        rows = np.arange(num_worlds) % len(library)
        self._obs, info = self._venv.reset(seed=0, options={"held_index": rows})
        self._driver.begin(self._obs, info, torch.ones(num_worlds, dtype=torch.bool, device=device))

    def __enter__(self) -> DrivenEnvironment:
        return self

    def __exit__(self, *exception: object) -> None:
        self._venv.close()

    def stagger(self, episode_steps: int) -> None:
        """Runs through one episode and restarts a group of worlds every few steps, so that later ends are spread."""
        num_worlds = len(self._obs["context"])
        groups = min(GROUPS, num_worlds, episode_steps)
        for group in range(1, groups):
            self.run(episode_steps // groups)
            started = np.arange(num_worlds) % groups == group
            self._obs, info = self._venv.reset(options={"reset_mask": started})
            self._driver.begin(self._obs, info, torch.as_tensor(started, device=self._obs["context"].device))

    def run(self, steps: int) -> None:
        """Control steps in all worlds."""
        for _ in range(steps):
            self._obs, _, terminated, truncated, info = self._venv.step(self._driver.act(self._obs))
            self._driver.begin(self._obs, info, terminated | truncated)

    def usage(self) -> dict[str, float]:
        """Mean contacts and constraint rows per world now."""
        return self._venv.unwrapped.engine_usage()


class _EnoughError(Exception):
    """Ends a training."""


def train_ppo(
    skill: str,
    num_worlds: int,
    device: str,
    iterations: int,
    library: HeldStateLibrary,
    now: Callable[[], float],
) -> tuple[list[float], int, dict[str, float]]:
    """Trains stabiliser A for a few iterations, on a GPU with the preset `fast`, else with `test`.

    Args:
        skill: Retention skill.
        num_worlds: N.
        device: Torch device.
        iterations: Iterations to time; one more comes before.
        library: Held states.
        now: Seconds, after all work queued on the device.

    Returns:
        Seconds per iteration (collection, update and all between), control steps per world and iteration, usage.
    """
    base = stabiliser_preset("fast" if torch.device(device).type == "cuda" else "test")
    budget = num_worlds * base.ppo.horizon * (iterations + 2)
    # Evaluation comes before the first iteration only.
    ppo = replace(base.ppo, num_envs=num_worlds, total_steps=budget, evaluate_every=10**9, device=device)
    task = StabiliserTask(skill, replace(base, backend="warp", ppo=ppo), held_states=library)
    ends: list[float] = []

    def iteration_done(row: dict[str, float]) -> None:
        ends.append(now())
        if len(ends) > iterations:
            raise _EnoughError

    try:
        PPO(task, ppo, progress=iteration_done).train()
    except _EnoughError:
        pass
    finally:
        usage = task.worlds.env.unwrapped.engine_usage()
        task.close()
    return np.diff(ends).tolist(), ppo.horizon, usage
