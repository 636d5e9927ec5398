"""Rolling a method out: a queue of episodes over the worlds of a vector environment, each episode run exactly once.

A world takes the next episode of the queue when its own has ended. Start and noise of an episode come from its
episode seed alone (``reset(seed=[...], options={"reset_mask": ...})`` for the environment, ``method.reset(..., seeds)``
for the method), so neither the world nor its neighbours matter, and the result does not depend on ``num_envs``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dexcompose_agents.evaluation.manifest import EvaluationError
from dexcompose_agents.evaluation.records import OUTCOME_NAMES
from dexcompose_agents.methods.base import CompositionMethod
from dexcompose_envs import hand
from dexcompose_envs.episodes.phases import OUTCOMES

__all__ = ["Episode", "VectorWorlds", "run_episodes"]

Observation = dict[str, npt.NDArray[Any]]


class VectorWorlds(Protocol):
    """What is asked of a vector environment: autoreset disabled, per-world seeds and ``reset_mask``."""

    num_envs: int

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Observation, dict[str, Any]]:
        """Reset all worlds, or those of ``options["reset_mask"]``."""

    def step(self, actions: Any) -> tuple[Observation, Any, Any, Any, dict[str, Any]]:
        """Step all worlds."""


@dataclass(frozen=True)
class Episode:
    """One rollout to be run.

    Attributes:
        seed: Evaluation seed (block) it belongs to.
        episode_seed: Seed of its start and of all its noise.
    """

    seed: int
    episode_seed: int


def _checked(action: Any, method: CompositionMethod, worlds: Sequence[Episode | None], shape: tuple[int, ...]) -> Any:
    action = np.asarray(action)
    if action.shape != shape:
        raise EvaluationError(f"method '{method.name}' returned actions of shape {action.shape}, expected {shape}")
    bad = np.flatnonzero(~np.isfinite(action).all(axis=1))
    if bad.size:
        episode = worlds[int(bad[0])]
        where = f"in episode {episode.episode_seed}" if episode else f"in idle world {int(bad[0])}"
        raise EvaluationError(
            f"method '{method.name}' returned a NaN or infinite action {where}, expected numbers in [-1, 1]"
        )
    return action.astype(np.float32, copy=False)


def _outcome(info: dict[str, Any], world: int, episode: Episode) -> str:
    unstable = info.get("unstable")
    if unstable is not None and bool(np.asarray(unstable)[world]):
        return "error"
    name = OUTCOMES[int(np.asarray(info["outcome"])[world])]
    if name not in OUTCOME_NAMES:
        raise EvaluationError(f"episode {episode.episode_seed} ended with outcome '{name}' of the environment")
    return name


def run_episodes(
    venv: VectorWorlds,
    method: CompositionMethod,
    episodes: Sequence[Episode],
    on_finish: Callable[[Episode, str, int], None],
    on_step: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Run every episode once and report each as it ends.

    Worlds that have nothing left to do repeat their last start until the others are through; that is not reported.

    Args:
        venv: Vector environment with autoreset disabled.
        method: The composition method.
        episodes: What to run, in this order.
        on_finish: Called with ``(episode, outcome, control steps)``.
        on_step: Called with the info after the first reset and after every step (recording).

    Raises:
        EvaluationError: If the method returns a wrong shape or a non-finite action, or an episode ends without an
            outcome.
    """
    queue = deque(episodes)
    if not queue:
        return
    num_envs = venv.num_envs
    worlds: list[Episode | None] = [queue.popleft() if queue else None for _ in range(num_envs)]
    seeds = np.array([episode.episode_seed if episode else episodes[0].episode_seed for episode in worlds])
    steps = np.zeros(num_envs, dtype=np.int64)
    obs, info = venv.reset(seed=seeds.tolist())
    method.reset(obs, info, np.arange(num_envs), seeds)
    if on_step is not None:
        on_step(info)
    shape = (num_envs, hand.NUM_ACTIONS)
    while True:
        action = method.act(obs)
        obs, _, terminated, truncated, info = venv.step(_checked(action, method, worlds, shape))
        steps += 1
        if on_step is not None:
            on_step(info)
        ended = np.asarray(terminated, dtype=bool) | np.asarray(truncated, dtype=bool)
        if "unstable" in info:
            ended |= np.asarray(info["unstable"], dtype=bool)
        if not ended.any():
            continue
        for world in np.flatnonzero(ended):
            episode = worlds[world]
            if episode is None:
                continue
            on_finish(episode, _outcome(info, int(world), episode), int(steps[world]))
            worlds[world] = queue.popleft() if queue else None
            if worlds[world] is not None:
                seeds[world] = worlds[world].episode_seed  # type: ignore[union-attr]
        if all(episode is None for episode in worlds):
            return
        steps[ended] = 0
        obs = _restart(venv, method, obs, seeds, ended)


def _restart(
    venv: VectorWorlds, method: CompositionMethod, obs: Observation, seeds: npt.NDArray[np.int64], ended: Any
) -> Observation:
    fresh, info = venv.reset(seed=seeds.tolist(), options={"reset_mask": ended.copy()})
    obs = {key: np.array(value) for key, value in obs.items()}
    for key, value in fresh.items():
        obs[key][ended] = np.asarray(value)[ended]
    env_ids = np.flatnonzero(ended)
    method.reset(obs, info, env_ids, seeds[env_ids])
    return obs
