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

MOTION_WEIGHT = 0.1
"""mu: weight of the motion share against the work share."""
WORKSPACE_WEIGHT = 0.05
"""eps: weight of the share of released joints in eta_B."""
STILL_VELOCITY = 0.5
"""v0 (rad/s): joint speed at which actuator effort counts half as static load."""


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
        joints, each_finger = (steps, NUM_FINGER_JOINTS), (steps, len(FINGERS))
        shapes = (joints, joints, joints, each_finger, (steps,))
        for (name, value), shape in zip(vars(self).items(), shapes, strict=True):
            if value is None:
                continue
            if np.shape(value) != shape or steps == 0:
                raise UsageError(f"episode signal {name} has shape {np.shape(value)}, expected {shape} with T > 0")
            if not np.isfinite(value).all():
                raise UsageError(f"episode signal {name} has a value that isn't finite")

    @classmethod
    def from_observations(
        cls, observations: Mapping[str, Any], terms: Mapping[str, slice], progress: ArrayLike | None = None
    ) -> EpisodeSignals:
        """Signals of an episode recorded in a single interaction skill's environment.

        Args:
            observations: The keys `task_b` (T or T + 1 rows; the first 28 numbers are the joint positions) and
                `context`, as the environment gave them.
            terms: The context's terms, `unwrapped.layout["context"]`.
            progress: (T,) progress increments, where they were recorded.

        Raises:
            UsageError: If the progress has more steps than the observations.
        """
        task, context = (np.asarray(observations[key], dtype=np.float64) for key in ("task_b", "context"))
        made = None if progress is None else np.asarray(progress, dtype=np.float64)
        steps = len(task) if made is None else len(made)
        if steps > len(task):
            raise UsageError(f"progress has {steps} steps, expected at most the {len(task)} observations")
        rows = slice(len(task) - steps, None)  # what was seen after each action, where there are T + 1 observations
        return cls(
            joint_position=task[rows, NUM_WRIST : NUM_WRIST + NUM_FINGER_JOINTS],
            torque=context[rows, terms["torque"]],
            joint_velocity=context[rows, terms["joint_velocity"]][:, NUM_WRIST:] / VELOCITY_SCALE,
            fixture_contact=context[rows, terms["fixture_contact"]] / FORCE_SCALE,
            progress=made,
        )


@dataclass(frozen=True)
class FingerUsage:
    """Measured use of each finger by an interaction skill, in `FINGERS` order.

    Attributes:
        shares: Usage `u_f`; not negative, sums to 1.
        work: Work shares `w_f`.
        motion: Motion shares `m_f`.
        source: What the work share was measured on: "contact", "load" or "motion" (nothing else recorded).
        demonstrations: SHA-256 of what was measured.
    """

    shares: tuple[float, ...]
    work: tuple[float, ...]
    motion: tuple[float, ...]
    source: str
    demonstrations: str = ""

    def eta(self, mask: FingerMask) -> float:
        """eta_B(m) in [0, 1]: what the mask leaves B of the fingers that B's demonstrations use."""
        use = float(np.asarray(self.shares)[~np.asarray(mask.bits, dtype=bool)].sum())
        joints = NUM_FINGER_JOINTS - int(np.sum(mask.joint_mask()))
        return (1.0 - WORKSPACE_WEIGHT) * use + WORKSPACE_WEIGHT * joints / NUM_FINGER_JOINTS


def measure_usage(episodes: Sequence[EpisodeSignals]) -> FingerUsage:
    """Usage of each finger over a set of demonstrations; deterministic, and independent of the episodes' order.

    Episodes with contact forces are measured on contact only when all of them have it, likewise for static load, so
    that one table never mixes two measures.

    Raises:
        UsageError: Without episodes.
    """
    if not episodes:
        raise UsageError("finger usage needs at least one demonstration, got none")
    source, motion = "motion", [_motion(episode) for episode in episodes]
    work = motion
    for name, measure in (("contact", _contact_impulse), ("load", _static_load)):
        found = [value for episode in episodes if (value := measure(episode)) is not None and value.sum() > 0]
        if len(found) == len(episodes):
            source, work = name, found
            break
    work_share, motion_share = _mean_share(work), _mean_share(motion)
    shares = (1.0 - MOTION_WEIGHT) * work_share + MOTION_WEIGHT * motion_share
    return FingerUsage(
        shares=tuple((shares / shares.sum()).tolist()),
        work=tuple(work_share.tolist()),
        motion=tuple(motion_share.tolist()),
        source=source,
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
    terms = layout_of(HAND_CONTEXT + FIXTURE_CONTEXT)
    signals = []
    for episode in load_demonstrations(dataset_id_of(skill), root).iterate_episodes():
        progress = (episode.infos or {}).get("reward_terms", {}).get("progress")
        if progress is not None:
            progress = progress[-len(episode.actions) :]  # the first row is the info of the reset
        signals.append(EpisodeSignals.from_observations(episode.observations, terms, progress))
    return signals


def _identity(episodes: Sequence[EpisodeSignals]) -> str:
    """SHA-256 of the episodes, whatever their order."""
    contents = [b"".join(part.tobytes() for part in vars(e).values() if part is not None) for e in episodes]
    return hashlib.sha256(b"".join(sorted(hashlib.sha256(content).digest() for content in contents))).hexdigest()


def _per_finger(joints: NDArray[np.float64], reduce: Any) -> NDArray[np.float64]:
    """(22,) joint values to (5,) finger values."""
    spans = [finger_slice(finger) for finger in FINGERS]
    return np.array([reduce(joints[span.start - NUM_WRIST : span.stop - NUM_WRIST]) for span in spans])


def _mean_share(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Mean over episodes of (5,) values normalised to sum 1; an episode of zeros counts as equal shares."""
    shares = np.array([value / value.sum() if value.sum() > 0 else np.full(5, 0.2) for value in values])
    mean = np.sort(shares, axis=0).mean(axis=0)  # sorted: the sum doesn't depend on the order of the episodes
    return np.asarray(mean / mean.sum())


def _motion(episode: EpisodeSignals) -> NDArray[np.float64]:
    """Mean over each finger's joints of the share of the joint range travelled, (5,)."""
    return _per_finger(np.ptp(episode.joint_position, axis=0) / 2.0, np.mean)


def _step_weights(episode: EpisodeSignals) -> NDArray[np.float64]:
    """Weight of each step (T,): its progress where progress was recorded and made, else 1."""
    made = np.zeros(1) if episode.progress is None else np.maximum(episode.progress, 0.0)
    return made if made.sum() > 0 else np.ones(len(episode.joint_position))


def _contact_impulse(episode: EpisodeSignals) -> NDArray[np.float64] | None:
    """Weighted sum over steps of each finger's force on the fixture, (5,)."""
    if episode.fixture_contact is None:
        return None
    return np.asarray(_step_weights(episode) @ np.maximum(episode.fixture_contact, 0.0))


def _static_load(episode: EpisodeSignals) -> NDArray[np.float64] | None:
    """Weighted sum over steps of each finger's excess actuator effort at rest, (5,)."""
    if episode.torque is None or episode.joint_velocity is None:
        return None
    excess = np.abs(episode.torque - np.median(episode.torque, axis=0))
    still = 1.0 / (1.0 + (episode.joint_velocity / STILL_VELOCITY) ** 2)
    return _per_finger(_step_weights(episode) @ (excess * still), np.sum)
