"""Making a held-state library (Eq. 4): the trained retention policy's successes that survive a quiet hold.

Every episode starts from scratch with its own seed. When the policy reaches success, the finger targets of its last
action become the reference hold action `q_ref`, the wrist is told to stay where it is, and this constant command is
held for 2 s. The state at the end of that quiet hold is kept if the object stayed within 5 mm in the palm frame all the
time, is still held and in the air, and hardly moves any more.

Episodes are numbered; a library holds the first `count` accepted ones in the order of their numbers, so neither the
number of worlds nor an interruption changes it. Finished episodes are saved in shards beside the output; a run that
was interrupted goes on after the last shard. The library's manifest says how many episodes it took and what became of
those that were refused.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from dexcompose_agents.held_states.shards import REASONS, CollectionError, Finished, Shards, refuse_other
from dexcompose_agents.runtime.numpy_worlds import make_numpy_vec
from dexcompose_envs import __version__, env_id, hand
from dexcompose_envs.files import check_writable_dir
from dexcompose_envs.held_states import HeldStateLibrary, Manifest
from dexcompose_envs.observations import LENGTH_SCALE, VELOCITY_SCALE

SHARD_EPISODES = 128
"""Finished episodes per shard."""
Progress = Callable[[int, int], None]
"""Called with (states accepted, states wanted)."""


class RetentionPolicy(Protocol):
    """What collection needs of a base policy, such as `diffusion.policy.DiffusionPolicy`."""

    def reset(self, num_envs: int) -> None:
        """Starts afresh with so many worlds."""

    def seed_envs(self, seeds: NDArray[np.int64], env_ids: NDArray[np.int64]) -> None:
        """Starts a new episode in some worlds, whose noise comes from these seeds."""

    def act(self, task_obs: NDArray[np.float32], env_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Actions (n, 28) in [-1, 1] for the task observations (n, size) of some worlds."""


@dataclass(frozen=True)
class HoldCriteria:
    """When a state counts as held."""

    reach_steps: int = 150
    """Control steps in which the policy must reach success."""
    hold_steps: int = 50
    """Control steps of the quiet hold: 2 s at 25 Hz."""
    max_motion: float = 0.005
    """Largest distance (m) of the object in the palm frame from where it was when the hold began."""
    max_object_speed: float = 0.02
    """Largest speed (m/s) of the object relative to the palm at the end of the hold."""
    max_joint_speed: float = 0.2
    """Largest speed (rad/s) of a finger joint at the end of the hold."""


def collect(
    skill: str,
    policy: RetentionPolicy,
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
        policy: The trained policy of that skill.
        count: Number of states wanted.
        out: File to write; shards lie in `<out>.shards` until it is complete. A complete file made with the same
            settings is returned as it is.
        policy_hash: Hash of the policy's weights, for the manifest.
        seed: Seed of the first episode; episode k has `seed + k`.
        num_envs: Worlds stepped at once; the result doesn't depend on it.
        criteria: When a state counts as held.
        max_attempts: Episodes after which to give up; None: four times `count`, and at least 64.
        progress: Called whenever episodes have finished.
        make_env: Makes a vector environment that speaks NumPy, with the arguments of `make_numpy_vec`.
        env_kwargs: Further keyword arguments of the environment, such as `backend`, `device` or `num_threads`.

    Raises:
        CollectionError: If too few episodes are accepted, or shards of another run lie there.
        OSError: If `out` can't be written.
        KeyboardInterrupt: Ctrl-C; finished episodes are saved first.
    """
    criteria = criteria or HoldCriteria()
    max_attempts = max(4 * count, 64) if max_attempts is None else max_attempts
    out = Path(out)
    check_writable_dir(out.parent)
    venv = make_env(
        env_id(skill),
        num_envs=num_envs,
        start="scratch",
        terminate_on_success=False,
        max_episode_steps=criteria.reach_steps + criteria.hold_steps + 1,
        autoreset_mode=AutoresetMode.DISABLED,
        **(env_kwargs or {}),
    )
    try:
        settings = {
            "skill": skill,
            "env_version": __version__,
            "model_hash": str(getattr(venv.unwrapped, "model_hash")),  # noqa: B009
            "policy_hash": policy_hash,
            "seed": seed,
            **asdict(criteria),
        }
        if (backend := (env_kwargs or {}).get("backend", "mujoco")) != "mujoco":
            settings["backend"] = backend
        if (done := _complete(out, settings, count)) is not None:
            return done
        shards = Shards(out.with_name(out.name + ".shards"), settings)
        episodes = _Episodes(shards, count, max_attempts, progress)
        try:
            _roll_out(venv, policy, criteria, seed, episodes)
        finally:
            episodes.flush()
    finally:
        venv.close()
    library = HeldStateLibrary.from_columns(_manifest(settings, shards, count), shards.columns(count))
    library.save(out)
    shards.remove()
    return HeldStateLibrary.load(out)


class _Episodes:
    """Hands out episode numbers, takes results in any order and passes them on in order, until enough are accepted."""

    def __init__(self, shards: Shards, count: int, max_attempts: int, progress: Progress | None) -> None:
        self._shards, self._count, self._max, self._progress = shards, count, max_attempts, progress
        self._next = shards.episodes
        self._waiting: dict[int, Finished] = {}
        self._ready: list[Finished] = []
        self._accepted = shards.accepted

    @property
    def enough(self) -> bool:
        """Whether the episodes up to the first unfinished one hold enough states."""
        return self._accepted >= self._count

    def start(self) -> int:
        """The next episode's number."""
        self._next += 1
        return self._next - 1

    def finish(self, episode: int, result: Finished) -> None:
        """Takes an episode's result."""
        self._waiting[episode] = result
        while not self.enough and (first := self._shards.episodes + len(self._ready)) in self._waiting:
            self._ready.append(self._waiting.pop(first))
            self._accepted += self._ready[-1].row is not None
        if len(self._ready) >= SHARD_EPISODES:
            self.flush()
        finished = self._shards.episodes + len(self._ready)
        if self._progress is not None:
            self._progress(min(self._accepted, self._count), self._count)
        if not self.enough and finished >= self._max:
            reasons = self._shards.reasons + Counter(item.reason for item in self._ready)
            raise CollectionError(
                f"only {self._accepted} of {finished} episodes ended in a held state, expected {self._count}: "
                + ", ".join(f"{reasons[name]} {name}" for name in REASONS if reasons[name])
            )

    def flush(self) -> None:
        """Saves what has finished in order."""
        if self._ready:
            self._shards.append(self._ready)
            self._ready = []


def _roll_out(
    venv: VectorEnv[Any, Any, Any], policy: RetentionPolicy, criteria: HoldCriteria, seed: int, episodes: _Episodes
) -> None:
    """Runs episodes in all worlds until `episodes` has enough."""
    n = venv.num_envs
    unwrapped: Any = venv.unwrapped
    terms = unwrapped.layout["context"]
    episode = np.zeros(n, np.int64)
    steps = np.zeros(n, np.int64)
    holding = np.zeros(n, bool)
    command = np.zeros((n, hand.NUM_ACTIONS), np.float32)
    start = np.zeros((n, 3))
    ended = np.ones(n, bool)
    policy.reset(n)
    while not episodes.enough:
        if ended.any():
            worlds = np.flatnonzero(ended)
            episode[worlds] = [episodes.start() for _ in worlds]
            seeds: Any = (seed + episode).tolist()
            observation, _ = venv.reset(seed=seeds, options={"reset_mask": ended.copy()})
            policy.seed_envs(seed + episode[worlds], worlds)
            steps[worlds], holding[worlds], ended = 0, False, np.zeros(n, bool)
        action = command.copy()
        reaching = np.flatnonzero(~holding)
        if reaching.size:
            action[reaching] = policy.act(observation["task_a"][reaching], reaching)
        observation, _, terminated, truncated, info = venv.step(action)
        steps += 1
        context = np.asarray(observation["context"], np.float64)
        position = context[:, terms["object_position"]] / LENGTH_SCALE
        held = np.asarray(info["task_a_held"], bool)

        moved = holding & (np.linalg.norm(position - start, axis=1) > criteria.max_motion)
        unstable = np.asarray(info["unstable"], bool)
        through = holding & (steps >= criteria.hold_steps)
        speed = np.linalg.norm(context[:, terms["object_linear_velocity"]], axis=1)
        joint_speed = np.abs(context[:, terms["joint_velocity"]][:, hand.NUM_WRIST :]).max(axis=1) / VELOCITY_SCALE
        restless = through & ((speed > criteria.max_object_speed) | (joint_speed > criteria.max_joint_speed))
        late = ~holding & (steps >= criteria.reach_steps) & ~np.asarray(info["success"], bool)
        over = np.asarray(terminated, bool) | np.asarray(truncated, bool)
        columns = unwrapped.held_columns() if through.any() else {}
        for world in np.flatnonzero(unstable | (holding & ~held) | moved | through | late | over):
            if unstable[world]:
                result = Finished("unstable")
            elif not holding[world]:
                result = Finished("not_reached")
            elif not held[world] or (over[world] and not through[world]):
                result = Finished("lost")
            elif moved[world]:
                result = Finished("moved")
            elif restless[world]:
                result = Finished("not_quiet")
            else:
                row = {name: np.array(column[world], np.float64) for name, column in columns.items()}
                row["reference"] = hand.denormalize(command[world])[hand.NUM_WRIST :]
                row["hold_target"] = position[world]
                result = Finished("accepted", row)
            episodes.finish(int(episode[world]), result)
            ended[world] = True

        reached = ~holding & ~ended & np.asarray(info["success"], bool)
        wrist = np.asarray(observation["task_a"])[:, : hand.NUM_WRIST]
        stay = np.clip(np.concatenate([wrist, action[:, hand.NUM_WRIST :]], axis=1), -1.0, 1.0)
        command[reached], start[reached], steps[reached] = stay[reached], position[reached], 0
        holding |= reached


def _complete(out: Path, settings: Mapping[str, Any], count: int) -> HeldStateLibrary | None:
    """The finished library at `out`, if there is one; None where there is none or it is smaller than wanted."""
    if not out.exists():
        return None
    library = HeldStateLibrary.load(out)
    refuse_other(library.manifest.validation.get("settings", {}), json.loads(json.dumps(dict(settings))), str(out))
    if len(library) != count:
        raise CollectionError(f"{out} has {len(library)} held states, this run wants {count}; remove it first")
    return library


def _manifest(settings: Mapping[str, Any], shards: Shards, count: int) -> Manifest:
    validation = {
        "settings": dict(settings),
        "episodes": shards.episodes,
        "outcomes": {name: shards.reasons[name] for name in REASONS},
        "acceptance_rate": round(shards.reasons["accepted"] / shards.episodes, 6),
    }
    seeds = (int(settings["seed"]), int(settings["seed"]) + shards.episodes)
    own = {key: str(settings[key]) for key in ("skill", "env_version", "model_hash", "policy_hash")}
    return Manifest(**own, validation=validation, seeds=seeds)
