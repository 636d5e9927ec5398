"""Arguments of batched policies: which worlds are meant, and arrays of either kind as tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dexcompose_envs.checks import LARGEST_SEED
from dexcompose_envs.errors import UsageError


@dataclass(frozen=True)
class Selection:
    """Some of N worlds."""

    mask: Tensor
    """Whether a world is meant, (N,), bool."""
    ids: Tensor | None
    """Numbers of the worlds, (n,), int64, if the caller gave numbers; else what belongs to the worlds has N rows."""

    @classmethod
    def of(cls, env_ids: ArrayLike | Tensor | None, num_envs: int, device: torch.device) -> Selection:
        """The worlds that a caller names: by numbers, by a boolean mask, or all by None.

        Raises:
            UsageError: If a number is too large or too small, or a mask is not of shape (N,).
        """
        if env_ids is None:
            return cls(torch.ones(num_envs, dtype=torch.bool, device=device), None)
        given = env_ids if isinstance(env_ids, Tensor) else torch.from_numpy(np.array(env_ids))
        if given.dtype == torch.bool:
            if given.shape != (num_envs,):
                raise UsageError(f"env_ids is a mask of shape {tuple(given.shape)}; expected ({num_envs},)")
            return cls(given.to(device), None)
        ids = given.reshape(-1).long()
        if ids.numel() and not bool(((ids >= 0) & (ids < num_envs)).all()):
            raise UsageError(f"env_ids are {ids.tolist()}; expected numbers from 0 to {num_envs - 1}")
        ids = ids.to(device)
        mask = torch.zeros(num_envs, dtype=torch.bool, device=device)
        return cls(mask.index_fill(0, ids, True), ids)

    @property
    def rows(self) -> int:
        """Rows of what belongs to the worlds."""
        return len(self.mask if self.ids is None else self.ids)

    def spread(self, rows: Tensor) -> Tensor:
        """The caller's rows, as rows of all N worlds; zeros where numbers left worlds out."""
        if self.ids is None:
            return rows
        return rows.new_zeros((len(self.mask), *rows.shape[1:])).index_copy(0, self.ids, rows)

    def gather(self, rows: Tensor) -> Tensor:
        """Undoes `spread`: of rows of all N worlds, those that the caller expects."""
        return rows if self.ids is None else rows[self.ids]

    def first_bad_row(self, bad: Tensor) -> int | None:
        """The first of the caller's rows that is bad and counts; bad (rows,) is on the CPU."""
        if bad.any() and self.ids is None:
            bad = bad & self.mask.cpu()
        return int(bad.nonzero()[0]) if bad.any() else None


def observations_of(task_obs: ArrayLike | Tensor, worlds: Selection, size: int) -> Tensor:
    """Task observations of some worlds, float32, on the device where they came from.

    Raises:
        UsageError: If the shape is not (rows, size), or a number on the CPU is not finite.
    """
    given = task_obs if isinstance(task_obs, Tensor) else torch.from_numpy(np.array(task_obs, np.float32))
    expected = (worlds.rows, size)
    if given.shape != expected:
        raise UsageError(f"task_obs has shape {tuple(given.shape)}; expected {expected} (worlds, observation size)")
    if given.device.type != "cuda":
        row = worlds.first_bad_row(~given.isfinite().all(dim=1).cpu())
        if row is not None:
            raise UsageError(f"task_obs row {row} holds NaN or infinity; expected finite numbers")
    return given.float()


def seeds_of(seeds: ArrayLike | Tensor, worlds: Selection) -> Tensor:
    """Seeds of some worlds, (rows,), int64, on the device where they came from.

    Raises:
        UsageError: If they are not as many as expected, not whole numbers, or (on the CPU) out of range.
    """
    if isinstance(seeds, Tensor):
        given = seeds.reshape(-1)
    else:
        array = np.asarray(seeds).reshape(-1)
        whole = array.size == 0 or (array.dtype.kind in "iu" and int(array.max()) <= LARGEST_SEED)
        given = torch.from_numpy(array.astype(np.int64 if whole else np.float64))
    good = len(given) == worlds.rows and not given.is_floating_point()
    if good and given.device.type != "cuda":
        good = worlds.first_bad_row((given < 0).cpu()) is None
    if not good:
        raise UsageError(f"seeds are {given.tolist()}; expected {worlds.rows} whole numbers >= 0, one per world")
    return given.long()
