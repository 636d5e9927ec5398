"""The manifest of a results folder: what configuration its episodes come from, on which machine, with what software.

A folder may hold several runs, one per (pair, method, selector). A run may be resumed or extended by more seeds, as
long as everything that can change the outcome of an episode is unchanged; ``num_envs`` and the number of seeds and
rollouts cannot, so they are not part of the comparison.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from dexcompose_envs.files import atomic_path

__all__ = [
    "MANIFEST_FILE",
    "EvaluationError",
    "Manifest",
    "config_hash",
    "machine_info",
    "software_versions",
    "write_json",
]

MANIFEST_FILE = "manifest.json"
MANIFEST_FORMAT = 1
_PACKAGES = ("dexcompose", "mujoco", "gymnasium", "gymnasium-robotics", "numpy", "torch", "diffusers")


class EvaluationError(ValueError):
    """An evaluation that cannot be run, resumed or read; the message is one line."""


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 (first 16 hex digits) of ``config`` as canonical JSON (sorted keys, no white space)."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def software_versions() -> dict[str, str]:
    """Versions of Python and of the packages that an outcome depends on; a package that is absent is left out."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine_info() -> dict[str, Any]:
    """CPU model, number of usable cores and operating system of this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": _cpu_model(), "cores": cores, "system": f"{platform.system()} {platform.machine()}"}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as indented JSON, atomically.

    Raises:
        EvaluationError: If the file cannot be written.
    """
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EvaluationError(f"cannot write '{path}': {error.strerror or error}") from None


@dataclass
class Manifest:
    """The manifest of one folder.

    Attributes:
        runs: ``{"pair/method/selector": {"config", "config_hash", "plan", "wall_time_s", "versions", "machine"}}``.
    """

    runs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path, *, must_exist: bool = False) -> Manifest:
        """Read ``folder/manifest.json``; an absent file is an empty manifest unless ``must_exist``.

        Raises:
            EvaluationError: If the file is not a manifest, or must exist and does not.
        """
        path = folder / MANIFEST_FILE
        if not path.exists():
            if must_exist:
                raise EvaluationError(f"'{folder}' has episodes but no {MANIFEST_FILE}, so it cannot be resumed")
            return cls()
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != MANIFEST_FORMAT:
                raise EvaluationError(f"'{path}' has format {content['format']}, expected {MANIFEST_FORMAT}")
            return cls(runs=dict(content["runs"]))
        except EvaluationError:
            raise
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError):
            raise EvaluationError(f"'{path}' is not a readable manifest; choose another folder") from None

    def save(self, folder: Path) -> None:
        """Write ``folder/manifest.json`` atomically."""
        write_json(folder / MANIFEST_FILE, {"format": MANIFEST_FORMAT, "runs": self.runs})

    def register(self, key: str, config: Mapping[str, Any], plan: Mapping[str, Any], folder: Path) -> None:
        """Enter a run, or check that the run already there was made with the same ``config``.

        Args:
            key: "pair/method/selector".
            config: Everything that can change the outcome of an episode.
            plan: What may change between resumptions: seeds, rollouts, ``num_envs``.
            folder: Where the manifest lives, for the message.

        Raises:
            EvaluationError: If the configurations differ; the message names the first field that does.
        """
        stored = self.runs.get(key)
        if stored is not None and stored.get("config_hash") != config_hash(config):
            raise EvaluationError(
                f"'{folder}' has episodes of {key} made with {_difference(stored.get('config', {}), config)}; "
                "choose another folder or delete this one"
            )
        wall_time = 0.0 if stored is None else float(stored["wall_time_s"])
        self.runs[key] = {
            "config": dict(config),
            "config_hash": config_hash(config),
            "plan": dict(plan),
            "wall_time_s": wall_time,
            "versions": software_versions(),
            "machine": machine_info(),
        }

    def add_wall_time(self, key: str, seconds: float) -> None:
        """Add the time (s) that a run took to what its earlier parts took."""
        self.runs[key]["wall_time_s"] = round(self.runs[key]["wall_time_s"] + seconds, 3)


def _difference(stored: Mapping[str, Any], current: Mapping[str, Any], prefix: str = "") -> str:
    for name in sorted(set(stored) | set(current)):
        old, new = stored.get(name), current.get(name)
        if old != new:
            if isinstance(old, Mapping) and isinstance(new, Mapping):
                return _difference(old, new, f"{prefix}{name}.")
            return f"{prefix}{name} = {old!r}, now {new!r}"
    return "another configuration"
