"""The one queue of episodes: runs a plan over the worlds of a vector environment, each episode exactly once.

```python
plan = [Episode(seed) for seed in range(100)]
for rollout in run_episodes(venv, agent, plan):  # in the plan's order
    print(rollout.episode.seed, rollout.info["success"], rollout.steps)
```

A world takes the next episode of the plan when its own is over. Start and noise of an episode come from its seed, so
neither the world nor its neighbours matter, and results do not depend on `num_envs`. The plan may be endless: whoever
has enough leaves the loop. A `Watcher` sees every step; it may end episodes by its own rules, and says what is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.agent import Agent
from dexcompose_envs.arrays import to_numpy
from dexcompose_envs.errors import UsageError
from dexcompose_envs.observations import Array


class AgentError(UsageError):
    """An agent's actions have a wrong shape or are not finite; the message names agent and episode."""


@dataclass(frozen=True)
class Episode:
    """One episode to be run.

    Attributes:
        seed: Seed of its start and of all its noise.
        options: Its reset options, such as `{"held_index": 3}`; all episodes of a plan have the same names.
        tag: Whatever the caller wants to find again.
    """

    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    tag: Any = None


@dataclass(frozen=True, eq=False)
class Moment:
    """What N worlds show after a control step, or after a reset (then the fields from `actions` on are None).

    Attributes:
        obs: Key -> (N, size).
        info: Name -> (N,).
        episodes: The episode of each world; None where a world has nothing left to do.
        steps: (N,) control steps of the episodes so far.
        actions: (N, 28) float32 as executed, within [-1, 1].
        reward: (N,).
        terminated: (N,) bool.
        truncated: (N,) bool.
    """

    obs: Mapping[str, NDArray[Any]]
    info: Mapping[str, NDArray[Any]]
    episodes: Sequence[Episode | None]
    steps: NDArray[np.int64]
    actions: Array = None
    reward: Array = None
    terminated: Array = None
    truncated: Array = None

    @property
    def unstable(self) -> NDArray[np.bool_]:
        """(N,) bool: worlds whose physics diverged in this step."""
        return np.asarray(self.info.get("unstable", np.zeros(len(self.steps), bool)), bool)

    @property
    def ended(self) -> NDArray[np.bool_]:
        """(N,) bool: worlds whose episode the environment has ended."""
        return np.asarray(self.terminated | self.truncated | self.unstable, bool)

    def row(self, world: int) -> dict[str, Any]:
        """The info of one world."""
        return {name: value[world] for name, value in self.info.items()}


class Watcher:
    """Looks at every step of a queue. This one ends episodes where the environment does, and keeps nothing."""

    def begin(self, worlds: NDArray[np.int64], moment: Moment) -> None:
        """Episodes have begun in some worlds (K,); the agent knows of them already."""

    def step(self, moment: Moment) -> NDArray[np.bool_]:
        """Worlds (N,) whose episode is over; those without an episode don't count.

        An episode that the environment has ended and that is not over goes on from the state that it ended in.
        """
        return moment.ended

    def result(self, world: int, moment: Moment) -> Any:
        """What is kept of an episode that is over, `Rollout.result`; called at once, whatever the order of the plan."""


@dataclass(frozen=True)
class Rollout:
    """An episode that was run.

    Attributes:
        episode: The episode.
        steps: Its control steps.
        info: Its last info, name -> value.
        terminated: Whether the environment ended it.
        truncated: Whether the environment cut it short.
        result: What the watcher keeps of it.
    """

    episode: Episode
    steps: int
    info: Mapping[str, Any]
    terminated: bool
    truncated: bool
    result: Any = None


def run_episodes(
    venv: Any,
    agent: Agent,
    episodes: Iterable[Episode],
    watcher: Watcher | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    in_order: bool = True,
) -> Iterator[Rollout]:
    """Runs every episode once; yields each when it, and with `in_order` all before it, are over.

    The plan is read one episode at a time, as worlds become free. Worlds that have nothing left to do keep still until
    the others are through: they repeat their last command, and an agent with a method `idle(env_ids)` is told that
    nobody reads its actions there.

    Args:
        venv: Vector environment that speaks NumPy, with autoreset disabled.
        agent: Who acts.
        episodes: The plan, finite or endless.
        watcher: Sees every step; None for one that does nothing.
        options: Reset options of all episodes, such as `{"start": "held"}`.
        in_order: Whether to hand results on in the plan's order; else as episodes end.

    Raises:
        UsageError: If autoreset is not disabled.
        AgentError: If the agent's actions have a wrong shape or are not finite.
    """
    mode = getattr(venv, "metadata", {}).get("autoreset_mode", AutoresetMode.DISABLED)
    if mode != AutoresetMode.DISABLED:
        raise UsageError(f"the queue's environment has autoreset mode {mode}; expected DISABLED")
    return _Queue(venv, agent, episodes, watcher or Watcher(), dict(options or {})).run(in_order)


class _Queue:
    """The state of one run over N worlds."""

    def __init__(
        self, venv: Any, agent: Agent, episodes: Iterable[Episode], watcher: Watcher, options: dict[str, Any]
    ) -> None:
        self.venv, self.agent, self.watcher, self.options = venv, agent, watcher, options
        self._plan = enumerate(episodes)
        n = venv.num_envs
        self._episodes: list[Episode | None] = [None] * n
        self._last: list[Episode] = []  # what each world was last reset with
        self._numbers = np.zeros(n, np.int64)
        self._steps = np.zeros(n, np.int64)
        self._actions = np.zeros((n, hand.NUM_ACTIONS), np.float32)
        self._obs: dict[str, NDArray[Any]] = {}

    @property
    def _live(self) -> NDArray[np.bool_]:
        return np.array([episode is not None for episode in self._episodes])

    def run(self, in_order: bool) -> Iterator[Rollout]:
        """See `run_episodes`."""
        n = self.venv.num_envs
        self._take(np.arange(n))
        if self._episodes[0] is None:
            return
        self._last = [self._episodes[0]] * n
        self._reset(np.ones(n, bool))
        waiting: dict[int, Rollout] = {}
        following = 0
        while self._live.any():
            moment = self._step()
            live = self._live
            over = np.asarray(self.watcher.step(moment), bool) & live
            for world in np.flatnonzero(over).tolist():
                waiting[int(self._numbers[world])] = self._finish(world, moment)
            while waiting and (following in waiting or not in_order):
                number = following if in_order else next(iter(waiting))
                yield waiting.pop(number)
                following += 1
            self._take(np.flatnonzero(over))
            self._revive(moment.ended & live & ~over)
            self._reset((over & self._live) | (moment.ended & ~self._live))
            if (gone := np.flatnonzero(over & ~self._live)).size:
                self._rest(gone)

    def _take(self, worlds: NDArray[np.int64]) -> None:
        """Gives worlds the next episodes of the plan, as long as there are some."""
        for world in worlds.tolist():
            self._numbers[world], self._episodes[world] = next(self._plan, (-1, None))

    def _rest(self, worlds: NDArray[np.int64]) -> None:
        if (idle := getattr(self.agent, "idle", None)) is not None:
            idle(worlds)

    def _reset(self, mask: NDArray[np.bool_]) -> None:
        """Resets some worlds; those that have an episode begin it, the others only begin to stand still."""
        if not mask.any():
            return
        first, worlds = not self._obs, np.flatnonzero(mask)
        for world in worlds.tolist():
            self._last[world] = self._episodes[world] or self._last[world]
        options = self.options | {
            name: np.stack([episode.options[name] for episode in self._last]) for name in self._last[0].options
        }
        if not first:
            options["reset_mask"] = mask.copy()
        seeds = np.array([episode.seed for episode in self._last], np.int64)
        obs, info = self.venv.reset(seed=seeds.tolist(), options=options)
        # The others go on with what their last step showed.
        self._obs = {
            key: np.where(mask.reshape(-1, *[1] * (np.ndim(value) - 1)), value, self._obs.get(key, value))
            for key, value in obs.items()
        }
        self._steps = np.where(mask, 0, self._steps)
        self._actions = np.where(mask[:, None], self._standing(), self._actions)
        begun = worlds if first else np.flatnonzero(mask & self._live)
        if begun.size:
            self.agent.reset(self._obs, info, begun, seeds[begun])
        if first and not self._live.all():
            self._rest(np.flatnonzero(~self._live))
        if (begun := np.flatnonzero(mask & self._live)).size:
            self.watcher.begin(begun, Moment(self._obs, info, list(self._episodes), self._steps))

    def _standing(self) -> NDArray[np.float32]:
        """Commands (N, 28) that keep worlds as they are after a reset."""
        layout = getattr(getattr(self.venv, "unwrapped", None), "layout", {})
        columns = layout.get("context", {}).get("previous_action")
        return np.zeros_like(self._actions) if columns is None else self._obs["context"][:, columns]

    def _step(self) -> Moment:
        live = self._live
        actions = np.asarray(to_numpy(self.agent.act(self._obs)))
        self._check(actions, live)
        self._actions = np.where(live[:, None], np.clip(actions, -1.0, 1.0), self._actions).astype(np.float32)
        obs, reward, terminated, truncated, info = self.venv.step(self._actions.copy())
        self._obs = dict(obs)
        self._steps = self._steps + 1
        flags = np.asarray(terminated, bool), np.asarray(truncated, bool)
        return Moment(self._obs, info, list(self._episodes), self._steps, self._actions, reward, *flags)

    def _check(self, actions: NDArray[Any], live: NDArray[np.bool_]) -> None:
        name, shape = getattr(self.agent, "name", type(self.agent).__name__), self._actions.shape
        if actions.shape != shape:
            raise AgentError(f"agent {name!r} returned actions of shape {actions.shape}; expected {shape}")
        spoilt = np.flatnonzero(live & ~np.isfinite(actions).all(axis=1))
        if spoilt.size:
            episode = self._episodes[int(spoilt[0])]
            assert episode is not None
            raise AgentError(
                f"agent {name!r} returned a NaN or infinite action in the episode with seed {episode.seed}; "
                "expected numbers in [-1, 1]"
            )

    def _finish(self, world: int, moment: Moment) -> Rollout:
        episode = self._episodes[world]
        assert episode is not None
        ends = bool(moment.terminated[world]), bool(moment.truncated[world])
        result = self.watcher.result(world, moment)
        return Rollout(episode, int(moment.steps[world]), moment.row(world), *ends, result)

    def _revive(self, mask: NDArray[np.bool_]) -> None:
        """Lets worlds that the environment has ended go on from the state they are in."""
        if mask.any():
            self.venv.reset(options={"reset_mask": mask, "state": self.venv.unwrapped.get_state()})
