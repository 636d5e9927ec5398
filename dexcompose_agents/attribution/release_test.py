"""The release test (Eq. 5 / 15): which fingers may let go of a held object?

For every candidate mask, K rollouts start from held states drawn uniformly with replacement. The preserved fingers keep
their reference targets `q_ref` while the released ones open within T control steps:

    q_test(t) = mbar * q_ref + (1 - mbar) * [(1 - lam) * q_ref + lam * q_open],   lam = t / T,  t = 1..T

A rollout is *retained* if, at the end, the object is within `d_ret` of its hold target in the palm frame and at
least 0.03 m above the table (`phases.DROP_HEIGHT`), and was never lost on the way; it has a *clean release* if every
released finger's contact force on the object stays below `F_min` over the last 20 steps, retained or not.

**Base motion is our addition.** With `motion="shake"` the wrist moves as it will in a composite while the fingers
open: during steps 20 to 60 it pitches by 1.1 rad from its hold pose (fingers point down, as for pressing a button) and,
if the object was taken from the side, takes the roll of the hold off (the palm turns down); it swings by +-5 cm in a
random horizontal direction (one sine period, steps 40 to 90) and is still for the last 10 steps.
Otherwise a grasp that only the direction of gravity keeps would pass. The wrist trembles besides, as it does in a
composite (`base_shake`). `motion="still"` with `base_shake=0` is the test as the paper has it. Mass and friction are
those of the held state.

Rollout `k` uses the same held state, swing direction and episode seed for every mask (common random numbers), so
masks differ by what they do and not by what they drew; nothing depends on `num_envs`. A world that diverges counts as
neither retained nor clean and is reported in its own column.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from dexcompose_agents.attribution.tables import MaskResult, draw_heat_map, place_of, read_csv, write_csv
from dexcompose_agents.runtime.compute import make_numpy_vec
from dexcompose_agents.runtime.progress import Advance
from dexcompose_agents.runtime.provenance import read_json, write_json
from dexcompose_envs import env_id, hand
from dexcompose_envs.artefacts import difference
from dexcompose_envs.checks import one_of, real_number, whole_number
from dexcompose_envs.errors import UsageError
from dexcompose_envs.files import lock_folder
from dexcompose_envs.held_states import HeldStateLibrary
from dexcompose_envs.observations import FORCE_SCALE, LENGTH_SCALE, Array
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.rollouts import Episode, Moment, Watcher, run_episodes
from dexcompose_envs.skills import make_retention

MOTIONS = ("shake", "still")


@dataclass(frozen=True)
class ReleaseTestConfig:
    """Settings of the release test; the defaults are the paper's, and ours for the base motion."""

    steps: int = 100
    """T: control steps in which released fingers open."""
    rollouts: int = 100
    """K: rollouts per mask."""
    retain_distance: float = 0.05
    """d_ret (m): largest distance of a retained object from its hold target in the palm frame; at most 0.05."""
    clean_force: float = 0.1
    """F_min (N): a released finger with less contact force than this has let go."""
    clean_steps: int = 20
    """Control steps at the end over which released fingers must stay below F_min."""
    motion: str = "shake"
    """Base motion: "shake" (pitch and swing) or "still"."""
    pitch: float = 1.1
    """Pitch of the wrist (rad) under "shake", reached linearly over the pitch window."""
    pitch_window: tuple[int, int] = (20, 60)
    """Control steps in which the wrist pitches."""
    swing: float = 0.05
    """Amplitude of the horizontal swing (m) under "shake": one sine period over the swing window."""
    swing_window: tuple[int, int] = (40, 90)
    """Control steps of the swing."""
    base_shake: float = 1.0
    """Scale of the wrist's tremble; 1 is that of composites, see `dexcompose_envs.episodes.base_shake`."""
    split: str = "train"
    """Part of the held-state library that states are drawn from: "all", "train" or "test"; the last is evaluation's."""
    seed: int = 0
    """Seed of the drawn states, swing directions and episodes."""

    def __post_init__(self) -> None:
        """Refuses settings that don't make a test."""
        one_of("motion", self.motion, MOTIONS)
        whole_number("rollouts", self.rollouts)
        whole_number("steps", self.steps)
        whole_number("clean_steps", self.clean_steps, most=self.steps)
        real_number("base_shake", self.base_shake, 0.0, 5.0)
        real_number("retain_distance", self.retain_distance, 1e-6, 0.05)


class Draw(NamedTuple):
    """What rollout k draws, the same for every mask: held state, swing direction (rad), episode seed."""

    held_index: int
    direction: float
    episode_seed: int


Verdict = tuple[bool, bool, bool, float]
"""One rollout: retained, clean, unstable, slip (end distance from the hold target over d_ret, 1 where lost)."""


def draw_rollout(library: HeldStateLibrary, config: ReleaseTestConfig, k: int) -> Draw:
    """The draw of rollout `k`: depends on the seed and `k` only."""
    rng = np.random.default_rng([config.seed, k])
    index = int(library.sample(rng, config.split))
    return Draw(index, float(rng.uniform(0.0, 2.0 * np.pi)), int(rng.integers(2**31)))


def base_motion(config: ReleaseTestConfig, directions: NDArray[np.float64], roll: float = 0.0) -> NDArray[np.float64]:
    """Wrist target offsets (N, T, 6), m and rad, after steps 1..T, for swing directions (N,) and the hold's roll."""
    offsets = np.zeros((len(directions), config.steps, hand.NUM_WRIST))
    if config.motion == "still":
        return offsets
    t = np.arange(1, config.steps + 1)
    (pitch_from, pitch_to), (swing_from, swing_to) = config.pitch_window, config.swing_window
    ramp = np.clip((t - pitch_from) / max(pitch_to - pitch_from, 1), 0.0, 1.0)
    swing = np.sin(2 * np.pi * np.clip((t - swing_from) / max(swing_to - swing_from, 1), 0.0, 1.0))
    offsets[:, :, hand.WRIST_JOINTS.index("WRY")] = config.pitch * ramp
    offsets[:, :, hand.WRIST_JOINTS.index("WRX")] = -roll * ramp
    offsets[:, :, 0] = config.swing * np.cos(directions)[:, None] * swing
    offsets[:, :, 1] = config.swing * np.sin(directions)[:, None] * swing
    return offsets


def finger_targets(reference: NDArray[np.float64], preserved: NDArray[np.bool_], steps: int) -> NDArray[np.float64]:
    """Eq. 5 / 15: finger targets (N, T, 22) in rad for `q_ref` (N, 22) and expanded masks `mbar` (N, 22)."""
    lam = (np.arange(1, steps + 1) / steps)[None, :, None]
    opening = (1.0 - lam) * reference[:, None] + lam * hand.OPEN_FINGERS
    return np.where(preserved[:, None], reference[:, None], opening)


def run_release_test(
    skill: str,
    config: ReleaseTestConfig | None = None,
    *,
    library: HeldStateLibrary | None = None,
    masks: Sequence[FingerMask] | None = None,
    num_envs: int = 64,
    out: str | Path | None = None,
    progress: Advance | None = None,
    make_env: Callable[..., VectorEnv[Any, Any, Any]] = make_numpy_vec,
    env_kwargs: dict[str, Any] | None = None,
) -> list[MaskResult]:
    """Runs the release test of a retention skill.

    Args:
        skill: Retention skill, for example "GraspBall".
        config: Settings; None for the defaults.
        library: Held states; None for the ones that ship with the package.
        masks: Masks to test; None for all 30 candidates.
        num_envs: Worlds stepped at once; the result doesn't depend on it.
        out: Folder for `release_test.csv` (rewritten whenever a mask is complete), `release_test.json` (settings)
            and `release_test.png`. Masks already in the table are not run again.
        progress: Called with (control steps done, control steps in all).
        make_env: Makes a vector environment that speaks NumPy, with the arguments of `make_numpy_vec`.
        env_kwargs: Further keyword arguments of the environment, such as `backend`, `device` or `num_threads`.

    Returns:
        One row per mask, in the order given.

    Raises:
        UsageError: If `out` holds a test with other settings.
        FileError: If a file of `out` is damaged, or the skill has no usable held states.
    """
    config = config or ReleaseTestConfig()
    library = library or HeldStateLibrary.load(skill)
    masks = FingerMask.candidates() if masks is None else masks
    env_kwargs = env_kwargs or {}
    draws = [draw_rollout(library, config, k) for k in range(config.rollouts)]
    finished: dict[FingerMask, MaskResult] = {}
    with ExitStack() as stack:
        folder = None if out is None else stack.enter_context(lock_folder(out))
        if folder is not None:
            finished = _open_folder(folder, skill, config, library, env_kwargs.get("backend", "mujoco"))
        plan = [
            Episode(draw.episode_seed, {"held_index": draw.held_index}, (mask, draw))
            for mask in masks if mask not in finished for draw in draws
        ]  # fmt: skip
        if plan:
            venv = make_env(
                env_id(skill),
                num_envs=min(num_envs, len(plan)),
                start="held",
                held_states=library,
                base_shake=config.base_shake,
                terminate_on_success=False,
                max_episode_steps=config.steps + 1,
                autoreset_mode=AutoresetMode.DISABLED,
                **env_kwargs,
            )
            stack.callback(venv.close)
            release = _Release(venv.unwrapped, library, config, len(plan), progress)
            verdicts: list[Verdict] = []
            for rollout in run_episodes(venv, release, plan, release, options={"start": "held"}):
                verdicts.append(rollout.result)
                if len(verdicts) == config.rollouts:
                    mask = rollout.episode.tag[0]
                    finished[mask] = _counted(mask, verdicts)
                    verdicts = []
                    if folder is not None:
                        write_csv(folder / "release_test.csv", [finished[m] for m in sorted(finished, key=place_of)])
        results = [finished[mask] for mask in masks]
        if folder is not None and results:
            title = f"Release test of {skill}, base motion: {config.motion}"
            draw_heat_map(folder / "release_test.png", results, title)
    return results


class _Release(Watcher):
    """Opens the released fingers, moves the wrist, and judges each rollout."""

    name = "release test"

    def __init__(
        self, worlds: Any, library: HeldStateLibrary, config: ReleaseTestConfig, rollouts: int, progress: Advance | None
    ) -> None:
        self._terms = worlds.layout["context"]
        self._library, self._config, self._progress = library, config, progress
        self._roll = make_retention(library.skill).HOLD_ROLL
        self._all_steps, self._done_steps = rollouts * config.steps, 0
        n = worlds.num_envs
        self._actions = np.zeros((n, config.steps, hand.NUM_ACTIONS), np.float32)
        self._now = np.zeros(n, np.int64)
        self._released = np.zeros((n, len(hand.FINGERS)), bool)
        self._loudest, self._offset = np.zeros(n), np.zeros(n)
        self._lost = np.zeros(n, bool)

    def reset(self, obs: Mapping[str, Array], info: Mapping[str, Any], env_ids: Any, seeds: Any) -> None:
        """Nothing: `begin` says which episodes they are."""

    def begin(self, worlds: NDArray[np.int64], moment: Moment) -> None:
        tags = [episode.tag for world in worlds if (episode := moment.episodes[world]) is not None]
        masks, draws = zip(*tags, strict=True)
        states = self._library.take([draw.held_index for draw in draws])
        preserved = np.stack([mask.joint_mask() for mask in masks])
        targets = np.empty((len(worlds), self._config.steps, hand.NUM_ACTIONS))
        targets[..., : hand.NUM_WRIST] = states["control"][:, None, : hand.NUM_WRIST]
        directions = np.array([draw.direction for draw in draws])
        targets[..., : hand.NUM_WRIST] += base_motion(self._config, directions, self._roll)
        targets[..., hand.NUM_WRIST :] = finger_targets(states["reference"], preserved, self._config.steps)
        self._actions[worlds] = np.clip(hand.normalize(targets), -1.0, 1.0)
        self._released[worlds] = ~np.stack([mask.bits for mask in masks])
        self._loudest[worlds], self._lost[worlds], self._now = 0.0, False, moment.steps

    def act(self, obs: Mapping[str, Array]) -> NDArray[np.float32]:
        return self._actions[np.arange(len(self._now)), np.minimum(self._now, self._config.steps - 1)]

    def step(self, moment: Moment) -> NDArray[np.bool_]:
        self._now = moment.steps
        context = np.asarray(moment.obs["context"], np.float64)
        force = np.where(self._released, context[:, self._terms["finger_contact"]] / FORCE_SCALE, 0.0).max(axis=1)
        is_late = self._now > self._config.steps - self._config.clean_steps
        self._loudest = np.where(is_late, np.maximum(self._loudest, force), self._loudest)
        self._offset = np.linalg.norm(context[:, self._terms["palm_offset"]] / LENGTH_SCALE, axis=1)
        self._lost |= moment.terminated
        if self._progress is not None:
            self._done_steps += sum(episode is not None for episode in moment.episodes)
            self._progress(self._done_steps, self._all_steps)
        # A lost object ends the episode; going on from the same state shows whether the fingers let go of it.
        return moment.unstable | (self._now >= self._config.steps)

    def result(self, world: int, moment: Moment) -> Verdict:
        self._done_steps += self._config.steps - int(moment.steps[world])  # where it ended early
        if moment.unstable[world]:
            return False, False, True, 1.0
        offset, limit = float(self._offset[world]), self._config.retain_distance
        retained = bool(moment.info["task_a_held"][world]) and offset < limit and not self._lost[world]
        clean = bool(self._loudest[world] < self._config.clean_force)
        return retained, clean, False, min(offset / limit, 1.0) if retained else 1.0


def _counted(mask: FingerMask, verdicts: Sequence[Verdict]) -> MaskResult:
    retained, clean, unstable, slip = (sum(column) for column in zip(*verdicts, strict=True))
    slip = round(slip / len(verdicts), 6)
    return MaskResult(mask, int(retained), int(clean), len(verdicts), int(unstable), slip)


def _open_folder(
    folder: Path, skill: str, config: ReleaseTestConfig, library: HeldStateLibrary, backend: str
) -> dict[FingerMask, MaskResult]:
    """Masks already tested in the folder, which must have been made with the same settings."""
    settings = {
        "skill": skill,
        **asdict(config),
        "held_states": hashlib.sha256(library.to_bytes()).hexdigest(),
        "model_hash": library.manifest.model_hash,
        "policy_hash": library.manifest.policy_hash,
        "backend": backend,
    }
    path, table = folder / "release_test.json", folder / "release_test.csv"
    if not table.exists():
        write_json(path, settings)
        return {}
    if other := difference(read_json(path), settings, "settings"):
        raise UsageError(f"{folder} holds a release test whose {other}; give another folder or remove the old test")
    return {result.mask: result for result in read_csv(table)}
