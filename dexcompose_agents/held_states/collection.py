"""Making a held-state library (Eq. 4): the trained retention policy's successes that survive a quiet hold.

Every episode starts from scratch with its own seed, mass and friction. When the policy reaches success, wrist and
fingers are told to stay where they are told to be; once the grasp has settled, its squeeze is lowered to a person's
margin (`HOLD_SQUEEZE` of the skill), which gives the reference hold action `q_ref`. This constant command is held for
2 s. The state at the end of that quiet hold is kept if the object stayed within 5 mm in the palm frame all the time, is
still held as it was, in the air, and hardly moves any more; and if the five fingers then keep it while the hand is
moved as in the release test. So whoever starts from a state can keep the object, under the mass and friction that are
kept with it: what a hand can't carry with all its fingers says nothing about who lets go of some.

Episodes are numbered; a library holds the first `count` accepted ones in the order of their numbers, so neither the
number of worlds nor an interruption changes it. Finished episodes are saved in shards beside the output; a run that
was interrupted goes on after the last shard. The library's manifest says how many episodes it took and what became of
those that were refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from dexcompose_agents.attribution.release_test import ReleaseTestConfig, base_motion
from dexcompose_agents.held_states.eased_grip import SETTLE_STEPS, SOFTEN_STEPS, EasedGrip
from dexcompose_agents.runtime.compute import make_numpy_vec
from dexcompose_agents.runtime.threads import one_thread
from dexcompose_envs import artefacts, env_id, hand
from dexcompose_envs.agent import Agent
from dexcompose_envs.artefacts import DATA_VERSION
from dexcompose_envs.composition.bounds import NORMALISED_PER_UNIT
from dexcompose_envs.episodes import base_shake
from dexcompose_envs.files import check_writable_dir, lock_folder
from dexcompose_envs.held_states import HeldStateLibrary, Manifest
from dexcompose_envs.observations import LENGTH_SCALE, VELOCITY_SCALE, Array
from dexcompose_envs.pieces import Pieces, Progress, UnfinishedError
from dexcompose_envs.rollouts import Episode, Moment, Rollout, Watcher, run_episodes
from dexcompose_envs.skills import make_retention

SHARD_EPISODES = 128
"""Finished episodes per shard."""
REASONS = ("accepted", "not_reached", "unstable", "lost", "moved", "not_quiet", "dropped")
"""What became of an episode."""
Row = dict[str, NDArray[np.float64]]
"""One held state: column name -> values."""


@dataclass(frozen=True)
class HoldCriteria:
    """When a state counts as held."""

    reach_steps: int = 150
    """Control steps in which the policy must reach success."""
    settle_steps: int = SETTLE_STEPS
    """Control steps in which the grasp comes to rest."""
    soften_steps: int = SOFTEN_STEPS
    """Control steps in which the squeeze is lowered."""
    hold_steps: int = 50
    """Control steps of the quiet hold: 2 s at 25 Hz."""
    max_motion: float = 0.005
    """Largest distance (m) of the object in the palm frame from where it was when the hold began."""
    max_turn: float = 0.1
    """Largest angle (rad) of the object's axis in the palm frame, likewise, where the skill is particular about it."""
    max_object_speed: float = 0.02
    """Largest speed (m/s) of the object relative to the palm at the end of the hold."""
    max_joint_speed: float = 0.2
    """Largest speed (rad/s) of a finger joint at the end of the hold."""
    carry: ReleaseTestConfig = field(default_factory=ReleaseTestConfig)
    """How the hand is then moved, as in a release test: what it can't carry with five fingers is no start."""

    @property
    def longest_episode(self) -> int:
        """Control steps that no episode outlasts."""
        return self.reach_steps + self.settle_steps + self.soften_steps + self.hold_steps + self.carry.steps + 1


def collect(
    skill: str,
    agent: Agent,
    count: int = 4096,
    *,
    out: str | Path,
    policy_hash: str,
    seed: int = 1_000_000,
    num_envs: int = 64,
    criteria: HoldCriteria | None = None,
    max_attempts: int | None = None,
    progress: Progress | None = None,
    make_env: Callable[..., VectorEnv[Any, Any, Any]] = make_numpy_vec,
    env_kwargs: dict[str, Any] | None = None,
) -> HeldStateLibrary:
    """Collects a held-state library, or goes on with one that was interrupted.

    Args:
        skill: Retention skill, for example "GraspBall".
        agent: Who grasps: the trained policy of that skill, or its scripted expert.
        count: Number of states wanted.
        out: File to write; shards lie in `<out>.shards` until it is complete. A complete file made with the same
            settings is returned as it is.
        policy_hash: Hash of the policy's weights, for the manifest.
        seed: Seed of the first episode; episode k has `seed + k`.
        num_envs: Worlds stepped at once; the result doesn't depend on it.
        criteria: When a state counts as held; None: the defaults, and as many steps to reach it as the skill has.
        max_attempts: Episodes after which to give up; None: four times `count`, and at least 64.
        progress: Called whenever episodes have finished.
        make_env: Makes a vector environment that speaks NumPy, with the arguments of `make_numpy_vec`.
        env_kwargs: Further keyword arguments of the environment, such as `backend`, `device` or `num_threads`.

    Raises:
        UnfinishedError: If too few episodes are accepted, or shards of another run lie there.
        OSError: If `out` can't be written.
        KeyboardInterrupt: Ctrl-C; finished episodes are saved first.
    """
    criteria = criteria or HoldCriteria(reach_steps=make_retention(skill).MAX_STEPS)
    max_attempts = max(4 * count, 64) if max_attempts is None else max_attempts
    out = Path(out)
    check_writable_dir(out.parent)
    venv = make_env(
        env_id(skill),
        num_envs=num_envs,
        start="scratch",
        terminate_on_success=False,
        max_episode_steps=criteria.longest_episode,
        autoreset_mode=AutoresetMode.DISABLED,
        **(env_kwargs or {}),
    )
    try:
        settings = {
            "skill": skill,
            "data_version": DATA_VERSION,
            "model_hash": str(getattr(venv.unwrapped, "model_hash")),  # noqa: B009
            "policy_hash": policy_hash,
            "seed": seed,
            "squeeze": make_retention(skill).HOLD_SQUEEZE,
            **asdict(criteria),
        }
        if (backend := (env_kwargs or {}).get("backend", "mujoco")) != "mujoco":
            settings["backend"] = backend
        if (done := _complete(out, settings, count)) is not None:
            return done
        with lock_folder(out.with_name(out.name + ".shards")) as folder, one_thread():
            shards = _Shards(Pieces(folder, settings, "give another output or remove it"))
            collector = _Collector(venv.unwrapped, agent, criteria)
            plan = (Episode(seed + number) for number in range(shards.episodes, max_attempts))
            _fill(shards, run_episodes(venv, collector, plan, collector), count, progress)
            _library(settings, shards, count).save(out)
            shards.pieces.remove()
    finally:
        venv.close()
    return HeldStateLibrary.load(out)


class _Shards:
    """Finished episodes in order: what became of each, and the states of those that were accepted."""

    def __init__(self, pieces: Pieces) -> None:
        self.pieces = pieces
        self.rows: list[Row] = []
        self.episodes = 0
        self.reasons: Counter[str] = Counter()
        for number, (about, arrays) in pieces.found.items():
            if number != self.episodes:
                raise UnfinishedError(f"a shard starts at episode {number}, expected {self.episodes}; one is missing")
            accepted = range(about["reasons"].count("accepted"))
            self._take(about["reasons"], [{name: column[i] for name, column in arrays.items()} for i in accepted])

    def append(self, finished: list[tuple[str, Row | None]]) -> None:
        """Saves the next episodes, if there are any."""
        if finished:
            reasons, rows = [reason for reason, _ in finished], [row for _, row in finished if row is not None]
            self.pieces.add(self.episodes, {"reasons": reasons}, _columns(rows))
            self._take(reasons, rows)

    def _take(self, reasons: list[str], rows: list[Row]) -> None:
        self.rows += rows
        self.episodes += len(reasons)
        self.reasons.update(reasons)


def _columns(rows: list[Row]) -> Row:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]} if rows else {}


def _fill(shards: _Shards, rollouts: Iterator[Rollout], count: int, progress: Progress | None) -> None:
    """Saves episodes, in order, until enough are accepted."""
    ready: list[tuple[str, Row | None]] = []
    accepted = len(shards.rows)
    try:
        while accepted < count and (rollout := next(rollouts, None)) is not None:
            ready.append(rollout.result)
            accepted += rollout.result[0] == "accepted"
            if len(ready) >= SHARD_EPISODES:
                shards.append(ready)
                ready = []
            if progress is not None:
                progress(accepted, count)
    finally:
        shards.append(ready)
    if accepted < count:
        raise UnfinishedError(
            f"only {accepted} of {shards.episodes} episodes ended in a held state, expected {count}: "
            + ", ".join(f"{shards.reasons[name]} {name}" for name in REASONS if shards.reasons[name])
        )


class _Collector(Watcher):
    """Lets an agent grasp, holds still where it succeeds, lowers the squeeze, judges the hold, and moves the hand."""

    def __init__(self, worlds: Any, agent: Agent, criteria: HoldCriteria) -> None:
        self.name, self._agent, self._criteria, self._worlds = agent.name, agent, criteria, worlds
        n = worlds.num_envs
        skill = make_retention(worlds.retention)
        self._max_turn, self._roll = skill.MAX_TURN or np.inf, skill.HOLD_ROLL
        self._reached, self._reached_at = np.zeros(n, bool), np.zeros(n, np.int64)
        self._grip = EasedGrip(worlds.retention, n, criteria.settle_steps, criteria.soften_steps)
        self._start, self._axis = np.zeros((2, n, 3))
        self._stayed = np.zeros((n, hand.NUM_WRIST))
        self._shake = np.zeros((n, *base_shake.SHAPE))
        self._motion = np.zeros((n, criteria.carry.steps + 1, hand.NUM_WRIST))
        self._radius = skill.RETENTION_RADIUS
        self._reasons: dict[int, str] = {}
        self._rows: dict[int, Row] = {}

    def reset(
        self, obs: Mapping[str, Array], info: Mapping[str, Any], env_ids: NDArray[np.int64], seeds: NDArray[np.int64]
    ) -> None:
        self._agent.reset(obs, info, env_ids, seeds)
        self._reached[env_ids] = False
        for world, seed in zip(env_ids.tolist(), seeds.tolist(), strict=True):
            rng, carry = np.random.default_rng([seed, 11]), self._criteria.carry
            self._shake[world] = base_shake.sample(rng, carry.base_shake)
            self._motion[world, :-1] = base_motion(carry, rng.uniform(0.0, 2.0 * np.pi, 1), self._roll)

    def act(self, obs: Mapping[str, Array]) -> NDArray[np.float32]:
        command = self._grip.command.astype(np.float32)
        if self._reached.all():
            return command
        return np.where(self._reached[:, None], command, self._agent.act(obs))

    def idle(self, env_ids: NDArray[np.int64]) -> None:
        if (idle := getattr(self._agent, "idle", None)) is not None:
            idle(env_ids)

    def step(self, moment: Moment) -> NDArray[np.bool_]:
        limits, terms, reached = self._criteria, self._worlds.layout["context"], self._reached
        context = np.asarray(moment.obs["context"], np.float64)
        success, held = (np.asarray(moment.info[name], bool) for name in ("success", "task_a_held"))
        self._position = position = context[:, terms["object_position"]] / LENGTH_SCALE
        columns = context[:, terms["object_rotation"]]
        axis = np.cross(columns[:, :3], columns[:, 3:])
        speed = np.linalg.norm(context[:, terms["object_linear_velocity"]], axis=1)
        joint_speed = np.abs(context[:, terms["joint_velocity"]][:, hand.NUM_WRIST :]).max(axis=1) / VELOCITY_SCALE
        since = np.where(reached, moment.steps - self._reached_at, -1)
        quiet = since - limits.settle_steps - limits.soften_steps  # control steps of the quiet hold
        carried = quiet - limits.hold_steps
        begins = quiet == 0
        self._start[begins], self._axis[begins] = position[begins], axis[begins]
        way = np.linalg.norm(position - self._start, axis=1)
        turn = np.arccos(np.clip(np.sum(axis * self._axis, axis=1), -1.0, 1.0))
        moved = (way > limits.max_motion) | ((turn > limits.max_turn) & np.isfinite(self._max_turn))
        held_through = carried == 0
        over = moment.ended
        # The first that is true decides.
        reasons = {
            "unstable": moment.unstable,
            "not_reached": ~reached & (over | (~success & (moment.steps >= limits.reach_steps))),
            "lost": reached & (carried <= 0) & (~held | over),
            "moved": (quiet > 0) & (carried <= 0) & moved,
            "not_quiet": held_through & ((speed > limits.max_object_speed) | (joint_speed > limits.max_joint_speed)),
            "dropped": (carried > 0) & ((way > self._radius) | (turn > self._max_turn)),
            "accepted": carried >= limits.carry.steps,
        }
        over = np.any(list(reasons.values()), axis=0)
        first = np.argmax(list(reasons.values()), axis=0)
        self._reasons = {world: list(reasons)[first[world]] for world in np.flatnonzero(over).tolist()}
        if held_through.any():
            columns = self._worlds.held_columns()
            for world in np.flatnonzero(held_through).tolist():
                self._rows[world] = self._row(world, columns)

        arrived = ~reached & ~over & success
        self._stay(arrived, moment)
        joints = np.asarray(moment.obs["task_a"][:, hand.NUM_WRIST : hand.NUM_ACTIONS], np.float64)
        self._grip.ease(since, joints)
        self._carry(carried)
        if arrived.any():
            self.idle(np.flatnonzero(arrived))
        return over

    def _stay(self, arrived: NDArray[np.bool_], moment: Moment) -> None:
        """Tells some worlds to stay where they are, with the squeeze that they have."""
        wrist = np.asarray(moment.obs["task_a"][:, : hand.NUM_WRIST], np.float64)
        self._grip.stay(arrived, wrist, moment.actions[:, hand.NUM_WRIST :])
        self._stayed[arrived] = self._grip.command[arrived][:, : hand.NUM_WRIST]
        self._reached_at[arrived] = moment.steps[arrived]
        self._reached = self._reached | arrived

    def _carry(self, carried: NDArray[np.int64]) -> None:
        """Moves the wrists of worlds whose quiet hold is over; `carried` (N,) control steps since."""
        moving = carried >= 0
        step = np.clip(carried, 0, self._criteria.carry.steps)  # a world that is through may wait for others
        offset = base_shake.offset(self._shake, carried) + self._motion[np.arange(len(carried)), step]
        moved = self._stayed + offset * NORMALISED_PER_UNIT[: hand.NUM_WRIST]
        self._grip.command[moving, : hand.NUM_WRIST] = np.clip(moved, -1.0, 1.0)[moving]

    def result(self, world: int, moment: Moment) -> tuple[str, Row | None]:
        row = self._rows.pop(world, None)
        return self._reasons[world], row if self._reasons[world] == "accepted" else None

    def _row(self, world: int, columns: Mapping[str, NDArray[Any]]) -> Row:
        """A held state: what the world is in now."""
        row = {name: np.array(column[world], np.float64) for name, column in columns.items()}
        row["reference"] = hand.denormalize(self._grip.command[world])[hand.NUM_WRIST :]
        row["hold_target"] = self._position[world]
        return row


def _complete(out: Path, settings: Mapping[str, Any], count: int) -> HeldStateLibrary | None:
    """The finished library at `out`; None where there is none."""
    if not out.exists():
        return None
    library = HeldStateLibrary.load(out)
    other = artefacts.difference(library.manifest.validation.get("settings", {}), settings, "settings")
    if other is not None:
        raise UnfinishedError(f"{out} was collected otherwise: {other}; give another output or remove it")
    if len(library) != count:
        raise UnfinishedError(f"{out} has {len(library)} held states, this run wants {count}; remove it first")
    return library


def _library(settings: Mapping[str, Any], shards: _Shards, count: int) -> HeldStateLibrary:
    """The first `count` accepted states."""
    validation = {
        "settings": settings,
        "episodes": shards.episodes,
        "outcomes": {name: shards.reasons[name] for name in REASONS},
        "acceptance_rate": round(shards.reasons["accepted"] / shards.episodes, 6),
    }
    own = {key: settings[key] for key in ("skill", "model_hash", "policy_hash")}
    seeds = (settings["seed"], settings["seed"] + shards.episodes)
    manifest = Manifest(**own, validation=validation, seeds=seeds)
    return HeldStateLibrary.from_columns(manifest, _columns(shards.rows[:count]))
