"""What an episode is worth: success, loss, reward terms and outcome of N worlds after each control step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexcompose_envs import phases
from dexcompose_envs.observations import Snapshot
from dexcompose_envs.tasks.base import InteractionTask, RetentionTask

Bools = NDArray[np.bool_]


@dataclass
class Step:
    """Result of one control step for N worlds; all arrays are fresh.

    Attributes:
        reward: (N,) float64.
        terminated: (N,) bool.
        truncated: (N,) bool.
        info: Name -> (N,) array.
    """

    reward: NDArray[np.float64]
    terminated: Bools
    truncated: Bools
    info: dict[str, NDArray[Any]] = field(default_factory=dict)


class Judge:
    """Judges N worlds of one environment.

    A held object is *lost* when it is further than `phases.RETENTION_RADIUS` from its hold target in the palm frame, or
    lower than `phases.DROP_HEIGHT`. A composite *succeeds* when B is done while the object is held and the object is
    still held `phases.SETTLE_STEPS` later. A retention skill succeeds after `RetentionTask.STREAK` good steps in a row,
    an interaction skill as soon as it is done.
    """

    def __init__(
        self,
        retention: RetentionTask | None,
        interaction: InteractionTask | None,
        num_worlds: int,
        max_episode_steps: int,
        terminate_on_success: bool,
    ) -> None:
        """A judge of fresh episodes.

        Args:
            retention: Skill A, or None.
            interaction: Skill B, or None.
            num_worlds: Number of worlds N.
            max_episode_steps: Control steps after which an episode is truncated.
            terminate_on_success: Whether success ends the episode.
        """
        self.retention, self.interaction = retention, interaction
        self.max_episode_steps = max_episode_steps
        self._terminate_on_success = terminate_on_success
        self._settle_steps = 0 if retention is None else phases.SETTLE_STEPS
        self._streak = np.zeros(num_worlds, np.int64)
        self._done_since = np.full(num_worlds, -1, np.int64)
        self._best_progress = np.zeros(num_worlds)
        self._outcome = np.zeros(num_worlds, np.int64)

    def memory(self) -> list[NDArray[Any]]:
        """What a judge remembers of its episodes, each (N,)."""
        return [self._streak, self._done_since, self._best_progress, self._outcome]

    def reset(self, worlds: NDArray[np.int64]) -> None:
        """Begins new episodes in some worlds (indices)."""
        self._streak[worlds] = 0
        self._done_since[worlds] = -1
        self._best_progress[worlds] = 0.0
        self._outcome[worlds] = phases.ONGOING

    def phase(self, elapsed: NDArray[np.int64]) -> NDArray[np.int64]:
        """Index into `phases.PHASES` (N,). Single skills know one phase only: interact for B, hold for A."""
        if self.retention is None or self.interaction is None:
            return np.full(len(elapsed), 0 if self.interaction is None else 2)
        return np.digitize(elapsed, [phases.HOLD_STEPS, phases.INTERACT_FROM])

    def judge(self, snapshot: Snapshot, elapsed: NDArray[np.int64], is_held_start: Bools, diverged: Bools) -> Step:
        """Judges the control step just made.

        Args:
            snapshot: The worlds after the step.
            elapsed: Control steps since each episode's start (N,), this one included.
            is_held_start: Whether the episode started with the object in hand (N,).
            diverged: Worlds whose simulation broke down in this step (N,).
        """
        held, lost, distance = self._retention(snapshot, is_held_start)
        done, success, gained = self._progress(snapshot, held, elapsed, is_held_start)
        success &= ~diverged
        lost |= diverged
        terminated = lost | (success & self._terminate_on_success)
        truncated = (elapsed >= self.max_episode_steps) & ~terminated
        self._outcome = self._outcomes(success, lost, truncated, elapsed)
        terms = {"retention": -distance, "progress": gained, "success": success.astype(np.float64)}
        info: dict[str, NDArray[Any]] = {
            "success": success,
            "is_success": success.copy(),
            "task_a_held": held & ~diverged,
            "task_b_done": done & ~diverged,
            "outcome": self._outcome.copy(),
            "elapsed_steps": elapsed.copy(),
            "unstable": diverged.copy(),
        }
        info |= {f"reward_terms/{name}": value for name, value in terms.items()}
        return Step(np.sum(list(terms.values()), axis=0), terminated, truncated, info)

    def initial_info(self, elapsed: NDArray[np.int64], is_held_start: Bools) -> dict[str, NDArray[Any]]:
        """The info of a reset: the same keys as a step's, for episodes that have just begun."""
        no, zero = np.zeros(len(elapsed), bool), np.zeros(len(elapsed))
        info: dict[str, NDArray[Any]] = {
            "success": no,
            "is_success": no.copy(),
            "task_a_held": is_held_start.copy(),
            "task_b_done": no.copy(),
            "outcome": self._outcome.copy(),
            "elapsed_steps": elapsed.copy(),
            "unstable": no.copy(),
        }
        return info | {f"reward_terms/{name}": zero.copy() for name in ("retention", "progress", "success")}

    def _retention(self, snapshot: Snapshot, is_held_start: Bools) -> tuple[Bools, Bools, NDArray[np.float64]]:
        """Held, lost and the object's distance from its hold target (m), each (N,)."""
        n = len(is_held_start)
        if self.retention is None:
            return np.ones(n, bool), np.zeros(n, bool), np.zeros(n)
        distance = np.linalg.norm(snapshot.sensors["object_position"] - snapshot.hold_target, axis=1)
        height = snapshot.sensors["object_world_position"][:, 2]
        kept = (distance <= phases.RETENTION_RADIUS) & (height >= phases.DROP_HEIGHT)
        achieved = self.retention.achieved(snapshot)
        self._streak = np.where(achieved, self._streak + 1, 0)
        return np.where(is_held_start, kept, achieved), ~kept & is_held_start, distance

    def _progress(
        self, snapshot: Snapshot, held: Bools, elapsed: NDArray[np.int64], is_held_start: Bools
    ) -> tuple[Bools, Bools, NDArray[np.float64]]:
        """B done, success and progress gained, each (N,)."""
        if self.interaction is None:
            assert self.retention is not None
            success = (self._streak >= self.retention.STREAK) & ~is_held_start
            return np.zeros(len(held), bool), success, self._gain(self.retention.progress(snapshot))
        done_now = self.interaction.done(snapshot) & held & (self._done_since < 0)
        self._done_since = np.where(done_now, elapsed, self._done_since)
        done = self._done_since >= 0
        success = done & held & (elapsed - self._done_since >= self._settle_steps)
        return done, success, self._gain(self.interaction.progress(snapshot))

    def _gain(self, progress: NDArray[np.float64]) -> NDArray[np.float64]:
        """Progress beyond the best so far: telescopes to the best progress of the episode."""
        best = np.maximum(self._best_progress, progress)
        gained, self._best_progress = best - self._best_progress, best
        return gained

    def _outcomes(self, success: Bools, lost: Bools, truncated: Bools, elapsed: NDArray[np.int64]) -> NDArray[np.int64]:
        outcome = np.full(len(success), phases.ONGOING)
        outcome[truncated & ~success] = phases.B_FAIL
        by_phase = np.array([phases.LOST_INIT, phases.LOST_TRANSITION, phases.LOST_DROP])
        # The phase of the action just executed, not of the next one.
        outcome[lost] = by_phase[self.phase(elapsed - 1)][lost]
        outcome[success] = phases.SUCCESS
        return outcome
