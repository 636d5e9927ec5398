"""The mask test's settings and result: how the composite ended with each mask, and the CSV file of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from dexcompose_agents.attribution.checked_csv import read_checked, write_checked
from dexcompose_agents.attribution.tables import MaskResult
from dexcompose_agents.evaluation.records import OUTCOME_NAMES
from dexcompose_agents.evaluation.statistics import Interval, wilson_interval
from dexcompose_envs.checks import real_number, whole_number
from dexcompose_envs.errors import UsageError
from dexcompose_envs.ownership import FingerMask

TABLE, SETTINGS = "mask_test.csv", "mask_test.json"


@dataclass(frozen=True)
class MaskTestConfig:
    """Settings of the mask test."""

    rollouts: int = 64
    """Rollouts per mask."""
    least_retention: float = 0.5
    """Masks with a smaller P_ret in the release test aren't tried."""
    seed: int = 0
    """Seed of the episodes."""

    def __post_init__(self) -> None:
        """Refuses settings that don't make a test."""
        whole_number("rollouts", self.rollouts)
        whole_number("seed", self.seed, 0)
        real_number("least_retention", self.least_retention, 0.0, 1.0)


@dataclass(frozen=True)
class MaskTrial:
    """Rollouts of a pair with one mask, counted by how they ended.

    Attributes:
        mask: The fingers that kept holding.
        succeeded: A kept and B done.
        init: A lost before the hand-over.
        transition: A lost in the transition.
        drop: A lost during B.
        b_fail: A kept, B not done.
        error: The world diverged.
    """

    mask: FingerMask
    succeeded: int
    init: int = 0
    transition: int = 0
    drop: int = 0
    b_fail: int = 0
    error: int = 0

    def __post_init__(self) -> None:
        """Refuses counts that aren't."""
        for name in (item.name for item in fields(self)[1:]):
            whole_number(f"{self.mask}: {name}", getattr(self, name), 0)
        whole_number(f"{self.mask}: rollouts", self.rollouts)

    @classmethod
    def of_outcomes(cls, mask: FingerMask, outcomes: Sequence[str]) -> MaskTrial:
        """Counts `OUTCOME_NAMES`."""
        return cls(mask, *(list(outcomes).count(name) for name in OUTCOME_NAMES))

    @property
    def rollouts(self) -> int:
        """Rollouts in all."""
        return sum(astuple(self)[1:])

    @property
    def success(self) -> float:
        """Fraction that succeeded."""
        return self.succeeded / self.rollouts

    @property
    def interval(self) -> Interval:
        """95 % Wilson interval of it."""
        return wilson_interval(self.succeeded, self.rollouts)


COLUMNS = ("mask", *OUTCOME_NAMES, "rate", "rate_low", "rate_high")


def write_trials(path: str | Path, trials: Sequence[MaskTrial]) -> None:
    """Writes a table in one step; counts by outcome, then the success rate and its 95 % interval as fractions."""
    rates = [[f"{value:.6f}" for value in (trial.success, *trial.interval)] for trial in trials]
    write_checked(
        path, COLUMNS, [[trial.mask, *astuple(trial)[1:], *rate] for trial, rate in zip(trials, rates, strict=True)]
    )


def read_trials(path: str | Path) -> list[MaskTrial]:
    """Reads a table back; the rates are calculated anew from the counts.

    Raises:
        FileError: On other columns, an unknown mask, numbers that aren't counts, or a table that was edited or cut off,
            naming file and line.
    """
    return read_checked(path, COLUMNS, _trial, "mask test")


def _trial(row: dict[str, str]) -> MaskTrial:
    return MaskTrial(FingerMask.parse(row["mask"]), *(int(row[name]) for name in OUTCOME_NAMES))


def plausible_masks(results: Sequence[MaskResult], config: MaskTestConfig) -> list[FingerMask]:
    """Masks of a release test that are worth a try and release something, most preserved fingers first.

    Raises:
        UsageError: If there is none.
    """
    known = {result.mask: result.p_ret for result in results}
    masks = [mask for mask in FingerMask.candidates() if known.get(mask, -1.0) >= config.least_retention]
    if not masks:
        best = max(known.values(), default=0.0)
        raise UsageError(
            f"least_retention is {config.least_retention}; expected at most {best}, the table's best P_ret"
        )
    return masks
