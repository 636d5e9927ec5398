"""What a result was made with and on: versions and machine; and the JSON files that say so."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from dexcompose_envs.errors import FileError
from dexcompose_envs.files import atomic_write

_PACKAGES = ("dexcompose", "mujoco", "gymnasium", "gymnasium-robotics", "numpy", "torch", "diffusers")


def software_versions() -> dict[str, str]:
    """Versions of Python and of the packages that an outcome depends on; a package that is absent is left out."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def machine_info() -> dict[str, Any]:
    """CPU model, number of usable cores and operating system of this machine."""
    cpu = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": cpu, "cores": cores or 1, "system": f"{platform.system()} {platform.machine()}"}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes indented JSON, whole or not at all."""
    atomic_write(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_text(path: Path) -> str:
    """The content of a UTF-8 file, line ends as they are.

    Raises:
        FileError: If it can't be read, or is no text.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise FileError(f"cannot read '{path}' ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise FileError(f"'{path}' is not a text file; expected UTF-8") from None


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        FileError: If it can't be read, isn't JSON, or holds NaN or infinity.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"it holds {constant}")

    text = read_text(path)
    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise FileError(f"'{path}' is not JSON: {error}") from None
