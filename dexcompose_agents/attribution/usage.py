"""How much an interaction skill uses each finger, measured on its demonstrations: eta_B(m) of Eq. 6.

The paper leaves the "residual dexterity" of a mask open. We define it from what the demonstrator's fingers did:

* **work share** `w_f`: share of finger `f` in the work on the fixture. Where the contact force of each finger on
  the fixture was recorded, it is the share of the force impulse. Otherwise it is the share of *static load*: the
  finger's actuator effort (force over force limit) in excess of its median over the episode, counted only as far as
  the joint stands still, `sum_j |tau_j - median tau_j| / (1 + (qvel_j / v0)^2)`; a finger that merely curls through
  free space moves while it pulls, a finger that pushes a fixture pulls while it stands. Where B's progress was
  recorded, only the steps that made progress count, each by how much it made.
* **motion share** `m_f`: share of finger `f` in the joint ranges travelled, the mean over its joints of
  `(max q - min q) / (joint range)`. A finger that has to get out of the way needs its freedom too, though much less.

Both are normalised per episode, averaged over episodes and mixed, `u = (1 - mu) * w + mu * m` with `mu = 0.1`, so
the five usages sum to 1. Then, with `J(m)` the number of joints that the mask releases,

    eta_B(m) = (1 - eps) * sum of u_f over released fingers + eps * J(m) / 22,    eps = 0.05.

The second term is the free workspace: between two masks that release the same useful fingers, the one that leaves B
more joints is worth a little more, though too little to pay for a few percent of retention. eta_B is 0 with nothing
released, 1 with everything released, and never falls when a finger is released.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexcompose_envs.demonstrations import dataset_id_of, load_demonstrations
from dexcompose_envs.errors import UsageError
from dexcompose_envs.hand import FINGERS, NUM_FINGER_JOINTS, NUM_WRIST, finger_slice
from dexcompose_envs.observations import FIXTURE_CONTEXT, FORCE_SCALE, HAND_CONTEXT, VELOCITY_SCALE, layout_of
from dexcompose_envs.ownership import FingerMask


@dataclass(frozen=True)
class UsageConfig:
    """Weights of the usage measure."""

    motion_weight: float = 0.1
    """mu: weight of the motion share against the work share, in [0, 1]."""
    workspace_weight: float = 0.05
    """eps: weight of the share of released joints in eta_B, in [0, 1]."""
    still_velocity: float = 0.5
    """v0 (rad/s): joint speed at which actuator effort counts half as static load."""

    def __post_init__(self) -> None:
        """Refuses weights outside [0, 1] and a still velocity that isn't positive."""
        for name in ("motion_weight", "workspace_weight"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"{name} is {getattr(self, name)!r}, expected a number from 0 to 1")
        if not self.still_velocity > 0.0:
            raise UsageError(f"still_velocity is {self.still_velocity!r}, expected a positive number of rad/s")


@dataclass(frozen=True, eq=False)
class EpisodeSignals:
    """What the usage measure reads of one demonstration of T steps; None where a signal wasn't recorded.

    Attributes:
        joint_position: (T, 22) finger joint positions, normalised to [-1, 1] over the joint range.
        torque: (T, 22) finger actuator forces over their limits.
        joint_velocity: (T, 22) finger joint velocities, rad/s.
        fixture_contact: (T, 5) contact force of each finger on the fixture in `FINGERS` order, N.
        progress: (T,) progress increment of the skill at each step.
    """

    joint_position: NDArray[np.float64]
    torque: NDArray[np.float64] | None = None
    joint_velocity: NDArray[np.float64] | None = None
    fixture_contact: NDArray[np.float64] | None = None
    progress: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        """Checks that every signal has the expected shape and is finite."""
        steps = len(self.joint_position)
        shapes = {
            "joint_position": (steps, NUM_FINGER_JOINTS),
            "torque": (steps, NUM_FINGER_JOINTS),
            "joint_velocity": (steps, NUM_FINGER_JOINTS),
            "fixture_contact": (steps, len(FINGERS)),
            "progress": (steps,),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None:
                continue
            if np.shape(value) != shape or steps == 0:
                raise UsageError(f"episode signal {name} has shape {np.shape(value)}, expected {shape} with T > 0")
            if not np.isfinite(value).all():
                raise UsageError(f"episode signal {name} has a value that isn't finite")

    @classmethod
    def from_observations(
        cls,
        observations: Mapping[str, Any],
        layout: Mapping[str, Mapping[str, slice]],
        *,
        progress: ArrayLike | None = None,
    ) -> EpisodeSignals:
        """Signals of an episode recorded in a single interaction skill's environment.

        Args:
            observations: the keys `task_b` (T or T + 1 rows; the first 28 numbers are the joint positions) and
                `context`, as the environment gave them.
            layout: the environment's `unwrapped.layout`.
            progress: (T,) progress increments, where they were recorded.

        Raises:
            ValueError: where the progress has more steps than the observations.
        """
        task, context = (np.asarray(observations[key], dtype=np.float64) for key in ("task_b", "context"))
        made = None if progress is None else np.asarray(progress, dtype=np.float64)
        steps = len(task) if made is None else len(made)
        if steps > len(task):
            raise UsageError(f"progress has {steps} steps, expected at most the {len(task)} observations")
        rows = slice(len(task) - steps, None)  # what was seen after each action, where there are T + 1 observations
        terms = layout["context"]
        contact = context[rows, terms["fixture_contact"]] / FORCE_SCALE if "fixture_contact" in terms else None
        return cls(
            joint_position=task[rows, NUM_WRIST : NUM_WRIST + NUM_FINGER_JOINTS],
            torque=context[rows, terms["torque"]],
            joint_velocity=context[rows, terms["joint_velocity"]][:, NUM_WRIST:] / VELOCITY_SCALE,
            fixture_contact=contact,
            progress=made,
        )


@dataclass(frozen=True)
class FingerUsage:
    """Measured use of each finger by an interaction skill.

    Attributes:
        shares: usage `u_f` of each finger in `FINGERS` order; not negative, sums to 1.
        work: work shares `w_f`.
        motion: motion shares `m_f`.
        source: what the work share was measured on: `"contact"`, `"load"` or `"motion"` (nothing else recorded).
        episodes: number of demonstrations.
        workspace_weight: eps of eta_B.
        demonstrations: SHA-256 of what was measured.
    """

    shares: tuple[float, ...]
    work: tuple[float, ...]
    motion: tuple[float, ...]
    source: str
    episodes: int
    workspace_weight: float = UsageConfig.workspace_weight
    demonstrations: str = ""

    def eta(self, mask: FingerMask) -> float:
        """eta_B(m) in [0, 1]: what the mask leaves B of the fingers that B's demonstrations use."""
        released = ~np.asarray(mask.bits, dtype=bool)
        joints = NUM_FINGER_JOINTS - int(np.sum(mask.joint_mask()))
        use = float(np.asarray(self.shares)[released].sum())
        return (1.0 - self.workspace_weight) * use + self.workspace_weight * joints / NUM_FINGER_JOINTS


def measure_usage(episodes: Sequence[EpisodeSignals], config: UsageConfig | None = None) -> FingerUsage:
    """Usage of each finger over a set of demonstrations; deterministic, and independent of the episodes' order.

    Episodes with contact forces are measured on contact only when all of them have it, likewise for static load, so
    that one table never mixes two measures.

    Raises:
        ValueError: without episodes.
    """
    config = config or UsageConfig()
    if not episodes:
        raise UsageError("finger usage needs at least one demonstration, got none")
    motion = _mean_share([_motion(episode) for episode in episodes])
    source, raw = "motion", [_motion(episode) for episode in episodes]
    contact = [_contact_impulse(episode) for episode in episodes]
    load = [_static_load(episode, config.still_velocity) for episode in episodes]
    if all(value is not None and value.sum() > 0 for value in contact):
        source, raw = "contact", [value for value in contact if value is not None]
    elif all(value is not None and value.sum() > 0 for value in load):
        source, raw = "load", [value for value in load if value is not None]
    work = _mean_share(raw)
    shares = (1.0 - config.motion_weight) * work + config.motion_weight * motion
    return FingerUsage(
        shares=tuple((shares / shares.sum()).tolist()),
        work=tuple(work.tolist()),
        motion=tuple(motion.tolist()),
        source=source,
        episodes=len(episodes),
        workspace_weight=config.workspace_weight,
        demonstrations=_identity(episodes),
    )


def recorded_signals(skill: str, root: str | Path | None = None) -> list[EpisodeSignals]:
    """What the recorded demonstrations of an interaction skill tell about the use of each finger.

    Args:
        skill: Interaction skill.
        root: Folder of the datasets; None for Minari's own.

    Raises:
        FileError: If there is no dataset of the skill.
    """
    dataset = load_demonstrations(dataset_id_of(skill), root)
    layout = {"context": layout_of(HAND_CONTEXT + FIXTURE_CONTEXT)}
    signals = []
    for episode in dataset.iterate_episodes():
        progress = (episode.infos or {}).get("reward_terms", {}).get("progress")
        if progress is not None:
            progress = progress[-len(episode.actions) :]  # the first row is the info of the reset
        signals.append(EpisodeSignals.from_observations(episode.observations, layout, progress=progress))
    return signals


def _identity(episodes: Sequence[EpisodeSignals]) -> str:
    """SHA-256 of the episodes, whatever their order."""
    arrays = [[np.ascontiguousarray(part) for part in vars(e).values() if part is not None] for e in episodes]
    hashes = [hashlib.sha256(b"".join(part.tobytes() for part in parts)).digest() for parts in arrays]
    return hashlib.sha256(b"".join(sorted(hashes))).hexdigest()


def _per_finger(joints: NDArray[np.float64], reduce: Any) -> NDArray[np.float64]:
    """(22,) joint values to (5,) finger values."""
    spans = [finger_slice(finger) for finger in FINGERS]
    return np.array([reduce(joints[span.start - NUM_WRIST : span.stop - NUM_WRIST]) for span in spans])


def _mean_share(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Mean over episodes of (5,) values normalised to sum 1; an episode of zeros counts as equal shares."""
    even = np.full(len(FINGERS), 1.0 / len(FINGERS))
    shares = np.array([value / value.sum() if value.sum() > 0 else even for value in values])
    mean = np.sort(shares, axis=0).mean(axis=0)  # sorted: the sum doesn't depend on the order of the episodes
    return np.asarray(mean / mean.sum())


def _motion(episode: EpisodeSignals) -> NDArray[np.float64]:
    """Mean over each finger's joints of the share of the joint range travelled, (5,)."""
    return _per_finger(np.ptp(episode.joint_position, axis=0) / 2.0, np.mean)


def _step_weights(episode: EpisodeSignals) -> NDArray[np.float64]:
    """Weight of each step (T,): its progress where progress was recorded and made, else 1."""
    if episode.progress is None:
        return np.ones(len(episode.joint_position))
    made = np.maximum(episode.progress, 0.0)
    return made if made.sum() > 0 else np.ones_like(made)


def _contact_impulse(episode: EpisodeSignals) -> NDArray[np.float64] | None:
    """Weighted sum over steps of each finger's force on the fixture, (5,)."""
    if episode.fixture_contact is None:
        return None
    return np.asarray(_step_weights(episode) @ np.maximum(episode.fixture_contact, 0.0))


def _static_load(episode: EpisodeSignals, still_velocity: float) -> NDArray[np.float64] | None:
    """Weighted sum over steps of each finger's excess actuator effort at rest, (5,)."""
    if episode.torque is None or episode.joint_velocity is None:
        return None
    excess = np.abs(episode.torque - np.median(episode.torque, axis=0))
    still = 1.0 / (1.0 + (episode.joint_velocity / still_velocity) ** 2)
    return _per_finger(_step_weights(episode) @ (excess * still), np.sum)
