"""The manifest of a results folder: what configuration its episodes come from, on which machine, with what software.

A folder may hold several runs, one per (pair, method, selector). A run may be resumed or extended by more seeds, as
long as everything that can change the outcome of an episode is unchanged; ``num_envs`` and the number of seeds and
rollouts cannot, so they are not part of the comparison.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from dexcompose_envs.errors import FileError, UsageError
from dexcompose_envs.files import atomic_write

__all__ = [
    "MANIFEST_FILE",
    "EvaluationError",
    "Manifest",
    "config_hash",
    "machine_info",
    "read_json",
    "software_versions",
    "write_json",
]

MANIFEST_FILE = "manifest.json"
MANIFEST_FORMAT = 1
_PACKAGES = ("dexcompose", "mujoco", "gymnasium", "gymnasium-robotics", "numpy", "torch", "diffusers")


class EvaluationError(UsageError):
    """An evaluation that cannot be run or resumed; the message is one line."""


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
    return {"cpu": _cpu_model(), "cores": cores or 1, "system": f"{platform.system()} {platform.machine()}"}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as indented JSON, atomically.

    Raises:
        OSError: If the file cannot be written.
    """
    atomic_write(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, schema: Any) -> dict[str, Any]:
    """A JSON object that has at least the fields of ``schema``.

    A schema is a type (``float`` stands for a finite number of at least 0, ``int`` for a whole one of at least 1), a
    dict of fields, ``[schema]`` for a list, or ``{"*": schema}`` for an object with any names.

    Raises:
        FileError: If there is something else; the message names the file and the field.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"it holds {constant}")

    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
        _check_schema(content, schema, "")
    except OSError as error:
        raise FileError(f"cannot read '{path}' ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise FileError(f"'{path}' is not what 'dexcompose' writes: {reason}") from None
    return content


_EXPECTED = {
    dict: "an object",
    list: "a list",
    str: "text",
    int: "a whole number of at least 1",
    float: "a number of at least 0",
}


def _check_schema(value: Any, schema: Any, where: str) -> None:
    kind = schema if isinstance(schema, type) else type(schema)
    accepted = (int, float) if kind is float else kind
    fits = isinstance(value, accepted) and not isinstance(value, bool)
    if fits and kind is int:
        fits = value >= 1
    if fits and kind is float:
        fits = math.isfinite(value) and value >= 0
    if not fits:
        raise ValueError(f"{where or 'the whole'} is {_shortened(value)}, expected {_EXPECTED[kind]}")
    if isinstance(schema, list):
        for index, item in enumerate(value):
            _check_schema(item, schema[0], f"{where}[{index}]")
    if isinstance(schema, dict):
        for name in value if "*" in schema else schema:
            if name not in value:
                raise ValueError(f"{f'{where}.' if where else ''}{name} is missing")
            _check_schema(value[name], schema.get("*", schema.get(name)), f"{where}.{name}" if where else name)


def _shortened(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


_SCHEMA = {
    "format": int,
    "runs": {
        "*": {
            "config": {"pair": str, "method": {"name": str}},
            "config_hash": str,
            "plan": {"seeds": int, "rollouts": int, "num_envs": int},
            "wall_time_s": float,
            "versions": {"*": str},
            "machine": {"cpu": str, "cores": int, "system": str},
        }
    },
}


@dataclass
class Manifest:
    """The manifest of one folder.

    Attributes:
        runs: ``{"pair/method/selector": {"config", "config_hash", "plan", "wall_time_s", "versions", "machine"}}``.
    """

    runs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read ``folder/manifest.json``; an absent file is an empty manifest.

        Raises:
            FileError: If the file is not a manifest, or does not agree with itself.
        """
        path = folder / MANIFEST_FILE
        if not path.exists():
            return cls()
        content = read_json(path, _SCHEMA)
        if content["format"] != MANIFEST_FORMAT:
            raise FileError(f"'{path}' has format {content['format']}, expected {MANIFEST_FORMAT}")
        for key, entry in content["runs"].items():
            config = entry["config"]
            if key.split("/")[:2] != [config["pair"], config["method"]["name"]] or key.count("/") != 2:
                raise FileError(f"'{path}': run {key} has the configuration of another run")
            if entry["config_hash"] != config_hash(config):
                raise FileError(f"'{path}': the configuration of run {key} does not fit its hash")
        return cls(runs=content["runs"])

    def save(self, folder: Path) -> None:
        """Write ``folder/manifest.json`` atomically."""
        write_json(folder / MANIFEST_FILE, {"format": MANIFEST_FORMAT, "runs": self.runs})

    def register(self, key: str, config: Mapping[str, Any], plan: Mapping[str, int], folder: Path) -> None:
        """Enter a run, or check that the run already there was made with the same ``config``; its plan only grows.

        Args:
            key: "pair/method/selector".
            config: Everything that can change the outcome of an episode.
            plan: What may change between resumptions: seeds, rollouts, ``num_envs``.
            folder: Where the manifest lives, for the message.

        Raises:
            EvaluationError: If the configurations differ; the message names the first field that does.
        """
        stored = self.runs.get(key)
        if stored is not None and stored["config_hash"] != config_hash(config):
            raise EvaluationError(
                f"'{folder}' has episodes of {key} made with {_difference(stored['config'], config)}; "
                "choose another folder or delete this one"
            )
        before = {} if stored is None else stored["plan"]
        self.runs[key] = {
            "config": dict(config),
            "config_hash": config_hash(config),
            "plan": {**plan, **{name: max(plan[name], before.get(name, 0)) for name in ("seeds", "rollouts")}},
            "wall_time_s": 0.0 if stored is None else stored["wall_time_s"],
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
