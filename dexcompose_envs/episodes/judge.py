"""What an episode is worth: success, loss, reward terms and outcome of N worlds after each control step."""

from __future__ import annotations

from dataclasses import dataclass, field

from dexcompose_envs.arrays import Arrays, fresh
from dexcompose_envs.episodes import phases
from dexcompose_envs.observations import Array, Snapshot
from dexcompose_envs.skills.base import InteractionTask, RetentionTask


@dataclass
class Step:
    """Result of one control step for N worlds; all arrays are fresh.

    Attributes:
        reward: (N,), in the environment's float type.
        terminated: (N,) bool.
        truncated: (N,) bool.
        info: Name -> (N,) array.
    """

    reward: Array
    terminated: Array
    truncated: Array
    info: dict[str, Array] = field(default_factory=dict)


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
        arrays: Arrays,
    ) -> None:
        """A judge of fresh episodes.

        Args:
            retention: Skill A, or None.
            interaction: Skill B, or None.
            num_worlds: Number of worlds N.
            max_episode_steps: Control steps after which an episode is truncated.
            terminate_on_success: Whether success ends the episode.
            arrays: Where the environment's arrays live.
        """
        self.retention, self.interaction = retention, interaction
        self.max_episode_steps = max_episode_steps
        self._terminate_on_success = terminate_on_success
        self._settle_steps = 0 if retention is None else phases.SETTLE_STEPS
        self._arrays, self._xp = arrays, arrays.xp
        whole = arrays.xp.int64
        self._streak = arrays.zeros(num_worlds, dtype=whole)
        self._done_since = arrays.full((num_worlds,), -1, dtype=whole)
        self._best_progress = arrays.zeros(num_worlds)
        self._outcome = arrays.zeros(num_worlds, dtype=whole)

    def memory(self) -> list[Array]:
        """What a judge remembers of its episodes, each (N,)."""
        return [self._streak, self._done_since, self._best_progress, self._outcome]

    def reset(self, worlds: Array) -> None:
        """Begins new episodes in some worlds, a mask (N,)."""
        where = self._xp.where
        self._streak = where(worlds, 0, self._streak)
        self._done_since = where(worlds, -1, self._done_since)
        self._best_progress = where(worlds, 0.0, self._best_progress)
        self._outcome = where(worlds, phases.ONGOING, self._outcome)

    def phase(self, elapsed: Array) -> Array:
        """Index into `phases.PHASES` (N,). Single skills know one phase only: interact for B, hold for A."""
        if self.retention is None or self.interaction is None:
            return self._arrays.full((len(elapsed),), 0 if self.interaction is None else 2, dtype=self._xp.int64)
        whole = self._xp.int64
        return self._xp.astype(elapsed >= phases.HOLD_STEPS, whole) + (elapsed >= phases.INTERACT_FROM)

    def judge(self, snapshot: Snapshot, elapsed: Array, is_held_start: Array, diverged: Array) -> Step:
        """Judges the control step just made.

        Args:
            snapshot: The worlds after the step.
            elapsed: Control steps since each episode's start (N,), this one included.
            is_held_start: Whether the episode started with the object in hand (N,).
            diverged: Worlds whose simulation broke down in this step (N,).
        """
        held, lost, distance = self._retention(snapshot, is_held_start)
        done, success, gained = self._progress(snapshot, held, elapsed, is_held_start)
        success, lost = success & ~diverged, lost | diverged
        terminated = lost | (success & self._terminate_on_success)
        truncated = (elapsed >= self.max_episode_steps) & ~terminated
        self._outcome = self._outcomes(success, lost, truncated, elapsed)
        terms = {
            "retention": -distance, "progress": gained, "success": self._xp.astype(success, self._arrays.float)
        }  # fmt: skip
        info: dict[str, Array] = {
            "success": success,
            "is_success": fresh(success),
            "task_a_held": held & ~diverged,
            "task_b_done": done & ~diverged,
            "outcome": fresh(self._outcome),
            "elapsed_steps": fresh(elapsed),
            "unstable": fresh(diverged),
        }
        info |= {f"reward_terms/{name}": value for name, value in terms.items()}
        return Step(terms["retention"] + terms["progress"] + terms["success"], terminated, truncated, info)

    def initial_info(self, elapsed: Array, is_held_start: Array) -> dict[str, Array]:
        """The info of a reset: the same keys as a step's, for episodes that have just begun."""
        no = self._arrays.zeros(len(elapsed), dtype=self._xp.bool)
        zero = self._arrays.zeros(len(elapsed))
        info: dict[str, Array] = {
            "success": no,
            "is_success": fresh(no),
            "task_a_held": fresh(is_held_start),
            "task_b_done": fresh(no),
            "outcome": fresh(self._outcome),
            "elapsed_steps": fresh(elapsed),
            "unstable": fresh(no),
        }
        return info | {f"reward_terms/{name}": fresh(zero) for name in ("retention", "progress", "success")}

    def _retention(self, snapshot: Snapshot, is_held_start: Array) -> tuple[Array, Array, Array]:
        """Held, lost and the object's distance from its hold target (m), each (N,)."""
        xp, n = self._xp, len(is_held_start)
        if self.retention is None:
            held = self._arrays.full((n,), True, dtype=xp.bool)
            return held, ~held, self._arrays.zeros(n)
        offset = snapshot.sensors["object_position"] - snapshot.hold_target
        distance = xp.sqrt(xp.sum(offset * offset, axis=-1))
        height = snapshot.sensors["object_world_position"][:, 2]
        kept = (distance <= phases.RETENTION_RADIUS) & (height >= phases.DROP_HEIGHT)
        achieved = self.retention.achieved(snapshot)
        self._streak = xp.where(achieved, self._streak + 1, 0)
        return xp.where(is_held_start, kept, achieved), ~kept & is_held_start, distance

    def _progress(
        self, snapshot: Snapshot, held: Array, elapsed: Array, is_held_start: Array
    ) -> tuple[Array, Array, Array]:
        """B done, success and progress gained, each (N,)."""
        if self.interaction is None:
            assert self.retention is not None
            success = (self._streak >= self.retention.STREAK) & ~is_held_start
            nowhere = self._arrays.zeros(len(held), dtype=self._xp.bool)
            return nowhere, success, self._gain(self.retention.progress(snapshot))
        done_now = self.interaction.done(snapshot) & held & (self._done_since < 0)
        self._done_since = self._xp.where(done_now, elapsed, self._done_since)
        done = self._done_since >= 0
        success = done & held & (elapsed - self._done_since >= self._settle_steps)
        return done, success, self._gain(self.interaction.progress(snapshot))

    def _gain(self, progress: Array) -> Array:
        """Progress beyond the best so far: telescopes to the best progress of the episode."""
        best = self._xp.maximum(self._best_progress, progress)
        gained, self._best_progress = best - self._best_progress, best
        return gained

    def _outcomes(self, success: Array, lost: Array, truncated: Array, elapsed: Array) -> Array:
        where = self._xp.where
        # The phase of the action just executed, not of the next one.
        lost_in = phases.LOST_INIT + self.phase(elapsed - 1)
        outcome = where(truncated, phases.B_FAIL, self._arrays.full((len(success),), phases.ONGOING, self._xp.int64))
        return where(success, phases.SUCCESS, where(lost, lost_in, outcome))
