"""The held-state library (Eq. 4): states in which a retention skill has succeeded and the object is held.

A composed rollout starts from one of these states (Eq. 2), so the library is data of the environments and ships with
them under `dexcompose_envs/data/held_states/<skill>.npz`. `dexcompose_agents.held_states.collection` makes it.

File format (version 1): a NumPy `.npz` archive (zip with deflate, no pickle) with, for every column,

* `<column>`: int16 codes, shape `(count, width)`,
* `<column>.range`: float64 `(2, width)`, the smallest and largest value of each component,

and `manifest`: UTF-8 JSON as uint8. A value is restored as `low + (high - low) * (code + 32768) / 65535`.

**Error bound.** Each component is restored within `(high - low) / 131070` of what was saved (half a quantisation
step); a constant component is restored exactly. Joint angles that span 1.6 rad are thus good to 12 microradians,
positions that span 0.3 m to 2.3 micrometres. The object's quaternion is normalised to unit length after restoring,
which at most doubles the bound of its worst component. `HeldStateLibrary.error_bound` has the numbers of a library.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexcompose_envs.files import atomic_write

FORMAT = "dexcompose-held-states"
FORMAT_VERSION = 1

COLUMNS: dict[str, int | None] = {
    "hand_qpos": 28,
    "hand_qvel": 28,
    "object_qpos": 7,
    "object_qvel": 6,
    "control": 28,
    "reference": 22,
    "hold_target": 3,
    "contact": 5,
    "warmstart": None,
}
"""Name and width of every column; None: any width, and the column may be missing."""

LEVELS = 65535
FOLDER_VARIABLE = "DEXCOMPOSE_HELD_STATES"
"""Environment variable: folder of `<skill>.npz` files to use instead of those that ship."""
_QUATERNION = slice(3, 7)
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, LookupError, TypeError, ValueError, RuntimeError,
)  # fmt: skip
"""What NumPy, zip and JSON raise on spoilt bytes."""


class HeldStateError(ValueError):
    """A held-state file or table that can't be used; the message says what came and what was expected."""


@dataclass(frozen=True)
class Manifest:
    """Where a library comes from.

    Attributes:
        skill: retention skill, for example `"GraspBall"`.
        env_version: version of the environments that the states were made in.
        model_hash: hash of the compiled physics model that the states belong to.
        policy_hash: hash of the policy weights that reached the states.
        validation: how each state was checked, and how many attempts passed (free-form JSON values).
        seeds: first episode seed and one past the last.
    """

    skill: str
    env_version: str
    model_hash: str
    policy_hash: str
    validation: Mapping[str, Any] = field(default_factory=dict)
    seeds: Sequence[int] = ()

    def to_json(self, count: int, widths: Mapping[str, int]) -> dict[str, Any]:
        """The JSON object stored in the file, with the table's own numbers added."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "skill": self.skill,
            "env_version": self.env_version,
            "model_hash": self.model_hash,
            "policy_hash": self.policy_hash,
            "count": count,
            "validation": dict(self.validation),
            "seeds": list(self.seeds),
            "columns": dict(widths),
        }


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
        contact: (n, 5) contact force of each finger on the object in `FINGERS` order, N.
        warmstart: (n, nv) constraint solver's warm start (accelerations), or None where it wasn't kept.
        error_bound: largest restoring error of each column in its own unit; empty for a table that wasn't loaded.
    """

    manifest: Manifest
    hand_qpos: NDArray[np.float64]
    hand_qvel: NDArray[np.float64]
    object_qpos: NDArray[np.float64]
    object_qvel: NDArray[np.float64]
    control: NDArray[np.float64]
    reference: NDArray[np.float64]
    hold_target: NDArray[np.float64]
    contact: NDArray[np.float64]
    warmstart: NDArray[np.float64] | None = None
    error_bound: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_columns(
        cls, manifest: Manifest, columns: Mapping[str, ArrayLike], error_bound: Mapping[str, float] | None = None
    ) -> HeldStateLibrary:
        """Check and copy a table of columns; quaternions are normalised.

        Args:
            manifest: where the states come from.
            columns: column name -> array of shape `(n, width)`, see `COLUMNS`.
            error_bound: what restoring from a file may have changed, per column.

        Raises:
            HeldStateError: on missing or unknown columns, wrong shapes, unequal lengths, values that aren't finite.
        """
        required = {name for name, width in COLUMNS.items() if width is not None}
        missing, unknown = sorted(required - set(columns)), sorted(set(columns) - set(COLUMNS))
        if missing or unknown:
            raise HeldStateError(f"held states have wrong columns: missing {missing}, unknown {unknown}")
        checked: dict[str, NDArray[np.float64]] = {}
        count: int | None = None
        for name in COLUMNS:
            if name not in columns:
                continue
            array = np.array(columns[name], dtype=np.float64)
            width = COLUMNS[name]
            if array.ndim != 2 or (width is not None and array.shape[1] != width):
                expected = f"(count, {'nv' if width is None else width})"
                raise HeldStateError(f"held-state column {name!r} has shape {array.shape}, expected {expected}")
            count = len(array) if count is None else count
            if len(array) != count:
                raise HeldStateError(f"held-state column {name!r} has {len(array)} rows, expected {count}")
            if not np.isfinite(array).all():
                row = int(np.argwhere(~np.isfinite(array))[0, 0])
                raise HeldStateError(f"held-state column {name!r} has a value that isn't finite in row {row}")
            checked[name] = array
        if not count:
            raise HeldStateError("the held-state table is empty, expected at least one state")
        norm = np.linalg.norm(checked["object_qpos"][:, _QUATERNION], axis=1, keepdims=True)
        if norm.min() < 0.5 or norm.max() > 2.0:
            raise HeldStateError(f"object quaternion with norm {norm.min():.3g} to {norm.max():.3g}, expected 1")
        checked["object_qpos"][:, _QUATERNION] /= norm
        for array in checked.values():
            array.setflags(write=False)
        return cls(manifest=manifest, error_bound=dict(error_bound or {}), **checked)

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
            HeldStateError: on a row number outside `[0, len(self))`.
        """
        rows = np.asarray(indices)
        if not np.issubdtype(rows.dtype, np.integer):
            raise HeldStateError(f"held-state index must be an integer, got {rows.dtype}")
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise HeldStateError(f"held-state index {rows.min()}..{rows.max()} is outside 0..{len(self) - 1}")
        return {name: np.array(column[rows]) for name, column in self.columns().items()}

    def indices(self, split: str = "all") -> NDArray[np.int64]:
        """Row numbers of a split: "all", "train" (first three quarters) or "test" (last quarter).

        Raises:
            HeldStateError: on an unknown split, or one that is empty.
        """
        border = 3 * len(self) // 4
        bounds = {"all": (0, len(self)), "train": (0, border), "test": (border, len(self))}
        if split not in bounds:
            raise HeldStateError(f"unknown held-state split {split!r}, expected one of {', '.join(bounds)}")
        start, stop = bounds[split]
        if start == stop:
            raise HeldStateError(f"the {split!r} split of {len(self)} held states is empty")
        return np.arange(start, stop, dtype=np.int64)

    def sample(self, rng: np.random.Generator, split: str = "all", size: int | None = None) -> NDArray[np.int64]:
        """Row numbers drawn uniformly with replacement from a split.

        Args:
            rng: the generator that decides.
            split: see `indices`.
            size: number of draws; None for one draw as a 0-d array (usable as an index and in `take`).
        """
        candidates = self.indices(split)
        return np.asarray(candidates[rng.integers(len(candidates), size=size)], dtype=np.int64)

    def save(self, path: str | Path) -> None:
        """Write the table, quantised, in one step (a reader sees the old file or the new one, never a part).

        Raises:
            OSError: where the folder can't be written.
        """
        atomic_write(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """The file's content; equal tables give equal bytes."""
        arrays: dict[str, NDArray[Any]] = {}
        for name, column in self.columns().items():
            codes, limits = quantise(column)
            arrays[name], arrays[f"{name}.range"] = codes, limits
        widths = {name: column.shape[1] for name, column in self.columns().items()}
        text = json.dumps(self.manifest.to_json(len(self), widths), sort_keys=True)
        arrays["manifest"] = np.frombuffer(text.encode(), dtype=np.uint8)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    @classmethod
    def load(
        cls, source: str | Path, *, env_version: str | None = None, model_hash: str | None = None
    ) -> HeldStateLibrary:
        """Read a library.

        Args:
            source: path of an `.npz` file, or the name of a skill whose library lies in `held_states_folder()`.
            env_version: version the caller runs; None skips the check.
            model_hash: hash of the physics model the caller runs; None skips the check.

        Raises:
            HeldStateError: where the file is missing, truncated, corrupt, of another format, skill, environment version
                or model, or has wrong columns.
        """
        where, data = _read(source)
        manifest, arrays = _unpack(data, where)
        expected: dict[str, str | None] = {"env_version": env_version, "model_hash": model_hash}
        if _is_skill_name(source):
            expected["skill"] = str(source)
        for key, wanted in expected.items():
            found = getattr(manifest, key)
            if wanted is not None and found != wanted:
                raise HeldStateError(
                    f"held states in {where} were made with {key} {found!r}, expected {wanted!r}; collect them again"
                )
        columns, bounds = {}, {}
        for name in [key for key in arrays if not key.endswith(".range")]:
            limits = arrays.get(f"{name}.range")
            codes = arrays[name]
            if codes.dtype != np.int16 or codes.ndim != 2 or limits is None or limits.shape != (2, codes.shape[1]):
                raise HeldStateError(f"held states in {where}: column {name!r} isn't an int16 table with its range")
            columns[name] = dequantise(codes, limits)
            step = float(np.max(limits[1] - limits[0], initial=0.0)) / LEVELS
            bounds[name] = step if name == "object_qpos" else step / 2
        try:
            return cls.from_columns(manifest, columns, bounds)
        except HeldStateError as error:
            raise HeldStateError(f"{where}: {error}") from None


def quantise(column: NDArray[np.float64]) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Codes (n, w) int16 and limits (2, w) of a float table (n, w), each component by its own smallest and largest."""
    low, high = column.min(axis=0), column.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    codes = np.rint((column - low) / span * LEVELS) - 32768
    return codes.astype(np.int16), np.stack([low, high])


def dequantise(codes: NDArray[np.int16], limits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Float table (n, w) from :func:`quantise`; within half a step of the original, and never outside the limits."""
    low, high = limits
    return np.clip(low + (high - low) * ((codes.astype(np.float64) + 32768.0) / LEVELS), low, high)


def held_states_folder() -> Path:
    """Folder that skill names refer to: the one in `DEXCOMPOSE_HELD_STATES`, else the one that ships.

    Raises:
        HeldStateError: where the variable doesn't name a folder.
    """
    chosen = os.environ.get(FOLDER_VARIABLE)
    if not chosen:
        return Path(str(resources.files("dexcompose_envs"))) / "data" / "held_states"
    if not Path(chosen).is_dir():
        raise HeldStateError(f"{FOLDER_VARIABLE} is {chosen!r}; expected a folder with <skill>.npz files")
    return Path(chosen)


def shipped_skills() -> tuple[str, ...]:
    """Skills whose libraries lie in `held_states_folder()`, sorted."""
    return tuple(sorted(path.stem for path in held_states_folder().glob("*.npz")))


def _is_skill_name(source: str | Path) -> bool:
    return isinstance(source, str) and source.isidentifier()


def _read(source: str | Path) -> tuple[str, bytes]:
    """A name for messages, and the file's bytes."""
    try:
        if _is_skill_name(source):
            path = held_states_folder() / f"{source}.npz"
            return str(path), path.read_bytes()
        return str(source), Path(source).read_bytes()
    except FileNotFoundError:
        known = ", ".join(shipped_skills()) or "none yet"
        raise HeldStateError(f"no held states for {str(source)!r}; shipped: {known}; or give a .npz path") from None
    except OSError as error:
        raise HeldStateError(f"can't read held states from {str(source)!r}: {error}") from None


def _unpack(data: bytes, where: str) -> tuple[Manifest, dict[str, NDArray[Any]]]:
    """Manifest and raw arrays of a file's bytes, or one clear error."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        stored = json.loads(arrays.pop("manifest").tobytes().decode())
        if stored["format"] != FORMAT or stored["format_version"] != FORMAT_VERSION:
            raise HeldStateError(
                f"held states in {where} have format {stored['format']!r} version {stored['format_version']!r}, "
                f"expected {FORMAT!r} version {FORMAT_VERSION}"
            )
        manifest = Manifest(
            **{key: str(stored[key]) for key in ("skill", "env_version", "model_hash", "policy_hash")},
            validation=dict(stored["validation"]),
            seeds=tuple(stored["seeds"]),
        )
        counts = {name: len(array) for name, array in arrays.items() if not name.endswith(".range")}
        if set(counts.values()) != {stored["count"]}:
            raise HeldStateError(f"held states in {where}: manifest says {stored['count']} states, columns {counts}")
    except HeldStateError:
        raise
    except _UNREADABLE as error:
        detail = " ".join(str(error).split())[:120]
        raise HeldStateError(
            f"held-state file {where} is truncated or corrupt ({len(data)} bytes; {type(error).__name__}: {detail})"
        ) from None
    return manifest, arrays
