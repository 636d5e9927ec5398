"""Native MuJoCo: how fast each pair's scene is, against the first.

A method's actions in 64 worlds are recorded once per pair; then the pairs take turns with theirs, so that policies cost
nothing and every scene is stepped through hold, transition and interaction as in an evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from throughput_common import PAIR, best_seconds, make_table, now

from dexcompose_agents.methods import make_method
from dexcompose_agents.runtime.threads import one_thread
from dexcompose_envs import env_id, pair_names


@dataclass(frozen=True)
class ScenesConfig:
    """Native MuJoCo: every pair against the first."""

    pairs: tuple[str, ...] = (PAIR, *(pair for pair in pair_names() if pair != PAIR))
    """Pairs; the first is what the others are compared with."""
    method: str = "no-stabiliser"
    """Method whose actions are recorded."""
    worlds: int = 64
    """Worlds."""
    steps: int = 110
    """Control steps per turn; B begins to act at the 50th."""
    turns: int = 3
    """Turns of each pair; the best counts."""
    out: Path | None = None
    """JSON file to write."""


class Replay:
    """Worlds of one pair, which restart as their episodes end, and the actions of a method in them."""

    def __init__(self, pair: str, config: ScenesConfig, **options: Any) -> None:
        self.venv: Any = gym.make_vec(env_id(pair), num_envs=config.worlds, num_threads=1, **options)
        self._seeds = [2**29 + world for world in range(config.worlds)]
        method, self._actions = make_method(config.method, pair), list[NDArray[np.float32]]()
        obs, info = self.venv.reset(seed=self._seeds)
        method.reset(obs, info, np.arange(config.worlds), np.array(self._seeds))
        for _ in range(config.steps):
            self._actions.append(np.array(method.act(obs), np.float32))
            obs, _, terminated, truncated, info = self.venv.step(self._actions[-1])
            if len(worlds := np.flatnonzero(terminated | truncated)):
                method.reset(obs, info, worlds, np.array(self._seeds)[worlds])

    def run(self) -> NDArray[np.float64]:
        """Seconds (wall, CPU) that the same steps take again."""
        self.venv.reset(seed=self._seeds)
        start = now()
        for action in self._actions:
            self.venv.step(action)
        return now() - start


def measure(config: ScenesConfig) -> Iterator[dict[str, Any]]:
    """One row per pair."""
    with one_thread():
        replays = {pair: Replay(pair, config) for pair in config.pairs}
        seconds = best_seconds({pair: replay.run for pair, replay in replays.items()}, config.turns)
    total, first = config.worlds * config.steps, seconds[config.pairs[0]][1]
    for pair, (wall, cpu) in seconds.items():
        replays[pair].venv.close()
        yield {"pair": pair, "steps_per_s": round(total / wall, 1), "ratio": round(first / cpu, 3)}


def table(config: ScenesConfig, rows: list[dict[str, Any]]) -> Table:
    """The rows for the terminal."""
    title = f"{config.worlds} worlds, one thread: control steps/s, and CPU time against that of {config.pairs[0]}"
    return make_table(title, ["pair", "steps_per_s", "ratio"], [[*row.values()] for row in rows])
