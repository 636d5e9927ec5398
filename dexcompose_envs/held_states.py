"""The held-state library (Eq. 4): states in which a retention skill has succeeded and the object is held.

A composed rollout starts from one of these states (Eq. 2), so the library is data of the environments and ships with
them under `dexcompose_envs/data/held_states/<skill>.npz`. `dexcompose_agents.held_states.collection` makes it. The file
is an artefact (see `artefacts.py`) with one float32 array per column.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexcompose_envs import artefacts
from dexcompose_envs.artefacts import ArtefactError, NotMadeError
from dexcompose_envs.checks import one_of
from dexcompose_envs.errors import UsageError
from dexcompose_envs.files import atomic_write

KIND = "held_states"
COLUMNS: dict[str, int | None] = {
    "hand_qpos": 28,
    "hand_qvel": 28,
    "object_qpos": 7,
    "object_qvel": 6,
    "control": 28,
    "reference": 22,
    "hold_target": 3,
    "physics": 2,
    "contact": 5,
    "warmstart": None,
}
"""Name and width of every column; None: any width, and the column may be missing."""

FOLDER_VARIABLE = "DEXCOMPOSE_HELD_STATES"
"""Environment variable: folder of `<skill>.npz` files to use instead of those that ship."""
_QUATERNION = slice(3, 7)


@dataclass(frozen=True)
class Manifest:
    """Where a library comes from."""

    skill: str
    model_hash: str
    """Of the physics model that the states belong to."""
    policy_hash: str
    """Of the policy weights that reached the states."""
    validation: Mapping[str, Any] = field(default_factory=dict)
    """How each state was checked, and how many attempts passed (JSON values)."""
    seeds: Sequence[int] = ()
    """First episode seed and one past the last."""


@dataclass(frozen=True, eq=False)
class HeldStateLibrary:
    """A table of held states; every column is a read-only float64 array with one row per state.

    The first three quarters of the rows are the `"train"` split, the last quarter is `"test"`.

    Attributes:
        manifest: where the states come from.
        hand_qpos: (n, 28) joint positions in `ACTION_NAMES` order, m and rad.
        hand_qvel: (n, 28) joint velocities, m/s and rad/s.
        object_qpos: (n, 7) object position (m, world) and unit quaternion (w, x, y, z).
        object_qvel: (n, 6) object velocity as MuJoCo's free joint has it, m/s and rad/s.
        control: (n, 28) last executed joint targets, m and rad.
        reference: (n, 22) finger targets of the reference hold action `q_ref`, rad.
        hold_target: (n, 3) object position in the palm frame that counts as held, m.
        physics: (n, 2) factor on the object's nominal mass and friction of hand and object, under which it was held.
        contact: (n, 5) contact force of each finger on the object in `FINGERS` order, N.
        warmstart: (n, nv) constraint solver's warm start (accelerations), or None where it wasn't kept.
    """

    manifest: Manifest
    hand_qpos: NDArray[np.float64]
    hand_qvel: NDArray[np.float64]
    object_qpos: NDArray[np.float64]
    object_qvel: NDArray[np.float64]
    control: NDArray[np.float64]
    reference: NDArray[np.float64]
    hold_target: NDArray[np.float64]
    physics: NDArray[np.float64]
    contact: NDArray[np.float64]
    warmstart: NDArray[np.float64] | None = None

    @classmethod
    def from_columns(cls, manifest: Manifest, columns: Mapping[str, ArrayLike]) -> HeldStateLibrary:
        """Checks and copies a table of columns, name -> (n, width) as in `COLUMNS`; quaternions are normalised.

        Raises:
            UsageError: on missing or unknown columns, wrong shapes, unequal lengths, values that aren't finite.
        """
        required = {name for name, width in COLUMNS.items() if width is not None}
        missing, unknown = sorted(required - set(columns)), sorted(set(columns) - set(COLUMNS))
        if missing or unknown:
            raise UsageError(f"held states have wrong columns: missing {missing}, unknown {unknown}")
        checked = {name: np.array(columns[name], np.float64) for name in COLUMNS if name in columns}
        for name, array in checked.items():
            width = COLUMNS[name]
            if array.ndim != 2 or (width is not None and array.shape[1] != width):
                expected = f"(count, {'nv' if width is None else width})"
                raise UsageError(f"held-state column {name!r} has shape {array.shape}, expected {expected}")
            if len(array) != len(checked["hand_qpos"]):
                expected = str(len(checked["hand_qpos"]))
                raise UsageError(f"held-state column {name!r} has {len(array)} rows, expected {expected}")
            if not np.isfinite(array).all():
                row = int(np.argwhere(~np.isfinite(array))[0, 0])
                raise UsageError(f"held-state column {name!r} has a value that isn't finite in row {row}")
        if not len(checked["hand_qpos"]):
            raise UsageError("the held-state table is empty, expected at least one state")
        norm = np.linalg.norm(checked["object_qpos"][:, _QUATERNION], axis=1, keepdims=True)
        if norm.min() < 0.5 or norm.max() > 2.0:
            raise UsageError(f"object quaternion with norm {norm.min():.3g} to {norm.max():.3g}, expected 1")
        checked["object_qpos"][:, _QUATERNION] /= norm
        for array in checked.values():
            array.setflags(write=False)
        return cls(manifest=manifest, **checked)

    def __len__(self) -> int:
        """Number of states."""
        return len(self.hand_qpos)

    @property
    def skill(self) -> str:
        """Retention skill that the states belong to."""
        return self.manifest.skill

    def columns(self) -> dict[str, NDArray[np.float64]]:
        """Column name -> array, the optional column only where it is present."""
        return {name: value for name in COLUMNS if (value := getattr(self, name)) is not None}

    def take(self, indices: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """Rows as a dict of fresh arrays; `indices` is one row number or an array of them.

        Raises:
            UsageError: on a row number outside `[0, len(self))`.
        """
        rows = np.asarray(indices)
        if not np.issubdtype(rows.dtype, np.integer):
            raise UsageError(f"held-state index must be an integer, got {rows.dtype}")
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise UsageError(f"held-state index {rows.min()}..{rows.max()} is outside 0..{len(self) - 1}")
        return {name: np.array(column[rows]) for name, column in self.columns().items()}

    def indices(self, split: str = "all") -> NDArray[np.int64]:
        """Row numbers of a split: "all", "train" (first three quarters) or "test"; a UsageError if there are none."""
        border = 3 * len(self) // 4
        bounds = {"all": (0, len(self)), "train": (0, border), "test": (border, len(self))}
        start, stop = bounds[one_of("held-state split", split, tuple(bounds))]
        if start == stop:
            raise UsageError(f"the {split!r} split of {len(self)} held states is empty")
        return np.arange(start, stop, dtype=np.int64)

    def sample(self, rng: np.random.Generator, split: str = "all", size: int | None = None) -> NDArray[np.int64]:
        """Row numbers drawn uniformly with replacement from a split; without a size a single one, as a 0-d array."""
        candidates = self.indices(split)
        return np.asarray(candidates[rng.integers(len(candidates), size=size)], dtype=np.int64)

    def check(self, *, skill: str | None = None, model_hash: str | None = None) -> None:
        """Raises an ArtefactError if it is a library of another skill or physics model; None: any."""
        artefacts.check(self._facts(), "the held-state library", skill=skill, model_hash=model_hash)

    def save(self, path: str | Path) -> None:
        """Writes the table, in single precision, whole or not at all."""
        atomic_write(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """The file's content; equal tables give equal bytes."""
        columns = {name: column.astype(np.float32) for name, column in self.columns().items()}
        return artefacts.encode(self._facts(), columns, "npz")

    def _facts(self) -> dict[str, Any]:
        return {"kind": KIND, **asdict(self.manifest)}

    @classmethod
    def load(cls, source: str | Path, *, skill: str | None = None, model_hash: str | None = None) -> HeldStateLibrary:
        """Read a library.

        Args:
            source: path of an `.npz` file, or the name of a skill whose library lies in `held_states_folder()`.
            skill: retention skill of the caller; None skips the check of a path.
            model_hash: hash of the physics model the caller runs; None skips the check.

        Raises:
            NotMadeError: where the file is missing.
            ArtefactError: where it is damaged, of another kind, skill, data version or model, or has wrong columns.
        """
        path = Path(source).expanduser()
        if isinstance(source, str) and source.isidentifier():
            path, skill = held_states_folder() / f"{source}.npz", skill or source
        if not os.path.exists(path):
            known = ", ".join(sorted(path.stem for path in held_states_folder().glob("*.npz"))) or "none yet"
            raise NotMadeError(f"no held states for {str(source)!r}; shipped: {known}; or give a .npz path")
        facts, columns = artefacts.load(path, KIND, skill=skill, model_hash=model_hash)
        try:
            about = {item.name: facts[item.name] for item in fields(Manifest)}
            return cls.from_columns(Manifest(**{**about, "seeds": tuple(about["seeds"])}), columns)
        except (KeyError, UsageError) as error:
            raise ArtefactError(f"'{path}' holds no usable held states ({error})") from None


def held_states_folder() -> Path:
    """Folder that skill names refer to: the one in `DEXCOMPOSE_HELD_STATES`, else the one that ships."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if not chosen:
        return Path(str(resources.files("dexcompose_envs"))) / "data" / "held_states"
    if not Path(chosen).is_dir():
        raise UsageError(f"{FOLDER_VARIABLE} is {chosen!r}; expected a folder with <skill>.npz files")
    return Path(chosen)
