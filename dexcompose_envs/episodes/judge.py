"""What an episode is worth: success, loss, reward terms and outcome of N worlds after each control step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

from dexcompose_envs.arrays import Arrays, choose, fresh
from dexcompose_envs.episodes import phases
from dexcompose_envs.observations import Array, Snapshot
from dexcompose_envs.skills.chain import Chain
from dexcompose_envs.skills.terms import axis_of, rotation_angle

TOUCH_FORCE = 0.01
"""A finger touches a fixture from this force (N) on, along one of the world's axes."""
LOST_PENALTY = 2.0
"""What losing the object costs, in units of success: more than the distances of a whole episode in which it slips, else
an agent that doesn't manage B would do best to drop it at once."""


@dataclass
class Step:
    """Result of one control step: reward in the environment's float type, flags and infos, each (N,) and fresh."""

    reward: Array
    terminated: Array
    truncated: Array
    info: dict[str, Array]


class Judge:
    """Judges N worlds of one environment.

    A held object is *lost* when it is further than the skill's `RETENTION_RADIUS` from its hold target in the palm
    frame, lower than its `DROP_HEIGHT`, or turned by more than its `MAX_TURN` from how it was held. Interactions are
    done in turn, and by fingers: what moved before any finger has touched the fixture, such as a button under the held
    ball, is not done. A stage of a composite is *through* when its interaction was done while the object is held, and
    the object is still held `phases.SETTLE_STEPS` later; with the last stage the episode *succeeds*. A retention skill
    alone succeeds after `STREAK` good steps in a row, an interaction skill alone as soon as it is done.

    A stage must be done within the task's time, else the episode counts as failed, whatever limit it is cut off at;
    settling is given its time beyond that. A world that diverges is truncated: nothing is known of it, and nothing is
    paid.
    """

    def __init__(
        self, chain: Chain, num_worlds: int, max_episode_steps: int, terminate_on_success: bool, arrays: Arrays
    ) -> None:
        self._chain, self._task_steps, self.max_episode_steps = chain, task_steps(chain), max_episode_steps
        self._terminate_on_success = terminate_on_success
        self._settle_steps = phases.SETTLE_STEPS if chain.is_composite else 0
        self._arrays, self._xp = arrays, arrays.xp
        whole = arrays.xp.int64
        self._streak, self._stage, self._stage_since, self._outcome = (
            arrays.zeros(num_worlds, dtype=whole) for _ in range(4)
        )
        self._done_since = arrays.full((num_worlds,), -1, dtype=whole)
        self._touched = arrays.full((num_worlds,), False, dtype=arrays.xp.bool)
        self._best_progress = arrays.zeros(num_worlds)
        self._first_rotation = arrays.zeros(num_worlds, 4)

    @property
    def streak(self) -> Array:
        """Control steps in a row (N,) in which the retention skill was achieved."""
        return self._streak

    @property
    def stage(self) -> Array:
        """Index of the interaction in turn (N,)."""
        return self._stage

    def memory(self) -> list[Array]:
        """What a judge remembers of its episodes, each (N,), and the object's rotation at their start (N, 4)."""
        counts = [self._streak, self._stage, self._stage_since, self._done_since, self._outcome]
        return [*counts, self._touched, self._best_progress, self._first_rotation]

    def sound(self, elapsed: Array) -> Array:
        """Whether what is remembered could have come about after so many control steps (N,), bool."""
        stages, latest = max(1, len(self._chain.interactions)), elapsed
        within = [
            (self._streak, 0, latest),
            (self._stage, 0, stages - 1),
            (self._stage_since, 0, latest),
            (self._done_since, -1, latest),
            (self._outcome, 0, len(phases.OUTCOMES) - 1),
            (self._best_progress, 0.0, float(stages)),
            (self._xp.sum(self._first_rotation**2, axis=-1), 0.0, 1.001),
        ]
        return reduce(lambda good, part: good & (part[0] >= part[1]) & (part[0] <= part[2]), within, elapsed >= 0)

    def reset(self, worlds: Array, snapshot: Snapshot) -> None:
        """Begins new episodes in some worlds, a mask (N,), from what is seen of them."""
        where = self._xp.where
        self._streak = where(worlds, 0, self._streak)
        self._stage = where(worlds, 0, self._stage)
        self._stage_since = where(worlds, 0, self._stage_since)
        self._done_since = where(worlds, -1, self._done_since)
        self._touched = self._touched & ~worlds
        self._best_progress = where(worlds, 0.0, self._best_progress)
        self._outcome = where(worlds, phases.ONGOING, self._outcome)
        if self._chain.retention is not None:
            self._first_rotation = choose(worlds, snapshot.sensors["object_quaternion"], self._first_rotation)

    def phase(self, elapsed: Array) -> Array:
        """Index into `phases.PHASES` (N,). Single skills know one phase only: interact for B, hold for A."""
        whole = self._xp.int64
        if not self._chain.is_composite:
            return self._arrays.full((len(elapsed),), 2 if self._chain.interactions else 0, dtype=whole)
        elapsed = elapsed - self._stage_since
        return self._xp.astype(elapsed >= phases.HOLD_STEPS, whole) + (elapsed >= phases.INTERACT_FROM)

    def judge(self, snapshot: Snapshot, elapsed: Array, is_held_start: Array, diverged: Array, late: Array) -> Step:
        """Judges the control step just made.

        Args:
            snapshot: What is seen after it.
            elapsed: Control steps (N,) of the episode, this one included; 0 before a composite's object is held.
            is_held_start: Whether the object counts as held (N,).
            diverged: Worlds (N,) that broke down in it.
            late: Worlds (N,) whose object should have come to be held by now, which counts as lost.
        """
        xp, where = self._xp, self._xp.where
        phase = self.phase(elapsed - 1)  # of the action just executed, not of the next one
        lost_in = where((self._stage > 0) & (phase == 0), phases.LOST_DROP, phases.LOST_INIT + phase)
        facts = self._facts(snapshot)
        held, lost, distance = self._retention(snapshot, is_held_start)
        success, failed, gained = self._progress(snapshot, held, elapsed, is_held_start)
        success, lost, held = success & ~diverged, (lost | late) & ~diverged, held & ~diverged
        failed = failed & ~(success | lost | diverged)
        outcome = where(failed, phases.B_FAIL, self._arrays.full((len(success),), phases.ONGOING, xp.int64))
        self._outcome = where(success, phases.SUCCESS, where(lost, lost_in, outcome))
        terminated = lost | (success & self._terminate_on_success)
        truncated = ((elapsed >= self.max_episode_steps) | diverged) & ~terminated
        terms = {"retention": -distance, "progress": gained, "success": xp.astype(success, self._arrays.float)}
        terms["lost"] = -LOST_PENALTY * xp.astype(lost, self._arrays.float)
        terms = {name: where(diverged, 0.0, value) for name, value in terms.items()}
        info = self._info(success, held, elapsed, diverged, terms) | facts
        return Step(sum(terms.values()), terminated, truncated, info)

    def initial_info(self, elapsed: Array, is_held_start: Array, snapshot: Snapshot) -> dict[str, Array]:
        """The info of a reset: the same keys as a step's, for episodes that have just begun."""
        no = self._arrays.zeros(len(elapsed), dtype=self._xp.bool)
        terms = {name: self._arrays.zeros(len(elapsed)) for name in ("retention", "progress", "success", "lost")}
        return self._info(no, fresh(is_held_start), elapsed, fresh(no), terms) | self._facts(snapshot)

    def _facts(self, snapshot: Snapshot) -> dict[str, Array]:
        """What trainers are paid by and nothing here is judged by, each (N,); zeros where there is no such thing.

        `object_turn`: angle (rad) by which the object has turned in the palm frame since the episode's start.
        `approach`: what the interaction in turn says of itself, see `InteractionSkill.approach` (m).
        """
        turn = approach = self._arrays.zeros(len(self._stage))
        if self._chain.retention is not None:
            turn = rotation_angle(self._first_rotation, snapshot.sensors["object_quaternion"])
        if self._chain.interactions:
            both = zip(self._chain.interactions, self._views(snapshot), strict=True)
            approach = self._in_turn([skill.approach(view) for skill, view in both])
        return {"object_turn": turn, "approach": fresh(approach)}

    def _views(self, snapshot: Snapshot) -> list[Snapshot]:
        """What each interaction sees."""
        return [snapshot.at(place, snapshot.offset) for place in self._chain.interaction_places]

    def _info(
        self, success: Array, held: Array, elapsed: Array, diverged: Array, terms: dict[str, Array]
    ) -> dict[str, Array]:
        info: dict[str, Array] = {"success": success, "is_success": fresh(success), "task_a_held": held}
        for index, key in enumerate(self._chain.task_keys or ("task_b",)):
            done = (self._stage > index) | ((self._stage == index) & (self._done_since >= 0))
            info[f"{key}_done"] = done & ~diverged
        info |= {"outcome": fresh(self._outcome), "elapsed_steps": fresh(elapsed), "unstable": fresh(diverged)}
        return info | {f"reward_terms/{name}": value for name, value in terms.items()}

    def _retention(self, snapshot: Snapshot, is_held_start: Array) -> tuple[Array, Array, Array]:
        """Held, lost and the object's distance from its hold target (m), each (N,)."""
        xp, n, skill = self._xp, len(is_held_start), self._chain.retention
        if skill is None:
            held = self._arrays.full((n,), True, dtype=xp.bool)
            return held, ~held, self._arrays.zeros(n)
        kept, distance = self.in_hand(snapshot)
        if skill.MAX_TURN is not None:
            axis, first = axis_of(snapshot.sensors["object_quaternion"]), axis_of(self._first_rotation)
            kept = kept & (xp.sum(axis * first, axis=-1) >= math.cos(skill.MAX_TURN))
        achieved = skill.achieved(snapshot)
        self._streak = xp.where(achieved, self._streak + 1, 0)
        return xp.where(is_held_start, kept, achieved), ~kept & is_held_start, distance

    def in_hand(self, snapshot: Snapshot) -> tuple[Array, Array]:
        """Whether the object is near its hold target and in the air, and its distance from it (m), each (N,)."""
        skill, xp = self._chain.retention, self._xp
        assert skill is not None
        offset = snapshot.sensors["object_position"] - snapshot.hold_target
        distance = xp.sqrt(xp.sum(offset * offset, axis=-1))
        height = snapshot.sensors["object_world_position"][:, 2]
        return (distance <= skill.RETENTION_RADIUS) & (height >= skill.DROP_HEIGHT), distance

    def _progress(
        self, snapshot: Snapshot, held: Array, elapsed: Array, is_held_start: Array
    ) -> tuple[Array, Array, Array]:
        """Success, failure and progress gained, each (N,); moves on to the next stage."""
        chain, where = self._chain, self._xp.where
        late = elapsed - self._stage_since >= self._task_steps
        if not chain.interactions:
            assert chain.retention is not None
            success = (self._streak >= chain.retention.STREAK) & ~is_held_start
            return success, late, self._gain(chain.retention.progress(snapshot))
        both = list(zip(chain.interactions, self._views(snapshot), strict=True))
        forces = self._in_turn([self._xp.max(self._xp.abs(view.contact), axis=-1) for _, view in both])
        self._touched = self._touched | (forces > TOUCH_FORCE)
        done_now = self._in_turn([skill.done(view) for skill, view in both]) & self._touched
        progress = self._stage + self._in_turn([skill.progress(view) for skill, view in both])
        self._done_since = where(done_now & held & (self._done_since < 0), elapsed, self._done_since)
        done = self._done_since >= 0
        through = done & held & (elapsed - self._done_since >= self._settle_steps)
        gained = self._gain(progress)
        in_time = done & (self._done_since - self._stage_since <= self._task_steps)
        last = self._stage == len(chain.interactions) - 1
        onward = through & ~last
        self._stage_since = where(onward, self._done_since, self._stage_since)
        self._done_since = where(onward, -1, self._done_since)
        self._touched = self._touched & ~onward
        self._stage = where(onward, self._stage + 1, self._stage)
        return through & last, late & ~in_time, gained

    def _in_turn(self, values: list[Array]) -> Array:
        """Of one value (N,) per interaction, that of each world's interaction in turn."""
        numbered = list(enumerate(values))[1:]
        return reduce(lambda chosen, item: self._xp.where(self._stage == item[0], item[1], chosen), numbered, values[0])

    def _gain(self, progress: Array) -> Array:
        """Progress beyond the best so far: telescopes to the best progress of the episode."""
        best = self._xp.maximum(self._best_progress, progress)
        gained, self._best_progress = best - self._best_progress, best
        return gained


def task_steps(chain: Chain) -> int:
    """Control steps in which a single skill, or each interaction of a composite, must be done."""
    return phases.INTERACTION_STEPS if chain.is_composite else next(iter(chain.skills.values())).MAX_STEPS


def longest_episode(chain: Chain) -> int:
    """Control steps after which an episode is decided, settling included: the registered `max_episode_steps`."""
    if not chain.is_composite:
        return task_steps(chain)
    return len(chain.interactions) * task_steps(chain) + phases.SETTLE_STEPS
