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
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from dexcompose_envs.artefacts import difference
from dexcompose_envs.errors import FileError, UsageError
from dexcompose_envs.files import atomic_write

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
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def machine_info() -> dict[str, Any]:
    """CPU model, number of usable cores and operating system of this machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cpu = names[0] if names else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": cpu, "cores": cores or 1, "system": f"{platform.system()} {platform.machine()}"}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as indented JSON, atomically.

    Raises:
        OSError: If the file cannot be written.
    """
    atomic_write(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        FileError: If it can't be read, isn't JSON, or holds NaN or infinity.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"it holds {constant}")

    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except OSError as error:
        raise FileError(f"cannot read '{path}' ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise FileError(f"'{path}' is not JSON: {error}") from None


def _checked(key: str, entry: Any) -> dict[str, Any]:
    """A run of a manifest; raises whatever error comes of it not being one."""
    config, plan, machine, seconds = entry["config"], entry["plan"], entry["machine"], entry["wall_time_s"]
    numbers = [plan["seeds"], plan["rollouts"], plan["num_envs"], machine["cores"]]
    texts = [machine["cpu"], machine["system"], *entry["versions"].values()]
    if not all(type(number) is int and number >= 1 for number in numbers):
        raise ValueError("a number of seeds, rollouts, num_envs or cores is not a whole number of at least 1")
    if type(seconds) not in (int, float) or not 0.0 <= seconds < math.inf:
        raise ValueError(f"wall_time_s is {seconds!r}, expected a number of at least 0")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a version, or the machine, is not text")
    if key.split("/")[:2] != [config["pair"], config["method"]["name"]] or key.count("/") != 2:
        raise ValueError("it has the configuration of another run")
    if entry["config_hash"] != config_hash(config):
        raise ValueError("its configuration does not fit its hash")
    return dict(entry)


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
        content, key = read_json(path), ""
        try:
            if content["format"] != MANIFEST_FORMAT:
                raise ValueError(f"it has format {content['format']!r}, expected {MANIFEST_FORMAT}")
            return cls({(key := name): _checked(name, entry) for name, entry in content["runs"].items()})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else error
            raise FileError(f"'{path}' is not a manifest: {f'run {key!r}: ' if key else ''}{what}") from None

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
        changed = None if stored is None else difference(stored["config"], config, "config")
        if changed is not None:
            raise EvaluationError(
                f"'{folder}' has episodes of {key} whose {changed}; choose another folder or delete this one"
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
