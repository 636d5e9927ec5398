"""A vector environment and a method without physics, whose episodes depend on their seeds alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dexcompose_agents.evaluation.records import EpisodeRecord, read_folder
from dexcompose_envs.episodes.phases import OUTCOMES

ENDINGS = {10: ("init", "unstable"), 50: ("transition", "success", "b_fail", "unstable"), 99: ("drop", "success")}
"""How an episode of at most so many steps can end."""


def read_episodes(folder: Path) -> list[EpisodeRecord]:
    """What a folder's files say."""
    return read_folder(folder)[0]


class FakeWorlds:
    """N worlds with a random length and a random walk that the actions push; refuses misuse of DISABLED autoreset."""

    def __init__(self, pair: str, num_envs: int, *, interrupt_after: int | None = None) -> None:
        """Worlds of ``pair``; raises KeyboardInterrupt in step number ``interrupt_after``."""
        self.pair, self.num_envs = pair, num_envs
        self.interrupt_after = interrupt_after
        self.closed = False
        self.started: list[int] = []
        self._calls = 0
        self._rngs: list[Any] = [None] * num_envs
        self._state = np.zeros(num_envs)
        self._length = np.zeros(num_envs, dtype=int)
        self._steps = np.zeros(num_envs, dtype=int)
        self._ended = np.ones(num_envs, dtype=bool)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start episodes in the worlds of the mask."""
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, dtype=bool))
        assert len(seed) == self.num_envs
        for world in np.flatnonzero(mask):
            self.started.append(seed[world])
            self._rngs[world] = np.random.default_rng(seed[world])
            self._state[world] = self._rngs[world].normal()
            self._length[world] = self._rngs[world].integers(4, 16)
            if self._length[world] == 15:
                self._length[world] = 51
            self._steps[world], self._ended[world] = 0, False
        return self._observe(), {}

    def step(self, actions: Any) -> tuple[dict[str, Any], Any, Any, Any, dict[str, Any]]:
        """Advance all worlds."""
        assert not self._ended.any(), "a finished world was stepped"
        self._calls += 1
        if self.interrupt_after is not None and self._calls > self.interrupt_after:
            raise KeyboardInterrupt
        assert actions.shape == (self.num_envs, 28) and actions.dtype == np.float32
        for world in range(self.num_envs):
            self._state[world] += actions[world].sum() + self._rngs[world].normal()
        self._steps += 1
        self._ended = self._steps >= self._length
        endings = []
        for steps, value in zip(self._steps, self._state, strict=True):
            possible = next(names for limit, names in ENDINGS.items() if steps <= limit)
            endings.append(possible[int(abs(value) * 1000) % len(possible)])
        unstable = np.array([name == "unstable" for name in endings]) & self._ended
        outcome = np.array([OUTCOMES.index("drop" if name == "unstable" else name) for name in endings])
        info = {"outcome": np.where(self._ended, outcome, 0), "unstable": unstable}
        zeros = np.zeros(self.num_envs)
        return self._observe(), zeros, self._ended.copy(), zeros.astype(bool), info

    def _observe(self) -> dict[str, Any]:
        return {"context": self._state[:, None].astype(np.float32)}

    def close(self) -> None:
        """Note that the worlds were closed."""
        self.closed = True


class FakeMethod:
    """Noise from the episode's seed plus a little of the observation."""

    name = "fake"
    selector = "none"

    def __init__(self, pair: str = "", gain: float = 0.01) -> None:
        """A method for any pair."""
        self.gain = gain
        self._rngs: dict[int, np.random.Generator] = {}

    def reset(self, obs: dict[str, Any], info: dict[str, Any], env_ids: Any, seeds: Any) -> None:
        """Seed the noise of some worlds."""
        assert len(env_ids) == len(seeds)
        for world, seed in zip(env_ids, seeds, strict=True):
            self._rngs[int(world)] = np.random.default_rng([int(seed), 1])

    def act(self, obs: dict[str, Any]) -> Any:
        """Actions (N, 28)."""
        noise = [self._rngs[world].uniform(-1, 1, 28) for world in range(len(obs["context"]))]
        return (np.array(noise) * 0.1 + self.gain * obs["context"][:, :1]).astype(np.float32)

    def describe(self) -> dict[str, Any]:
        """What determines the actions."""
        return {"gain": self.gain}
