"""Where trained weights and masks are found: in the package, or in a folder that somebody trained."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from dexcompose_envs.held_states import FOLDER_VARIABLE as HELD_STATES_VARIABLE

__all__ = ["PRETRAINED_VARIABLE", "SUMMARY_FILE", "file_hash", "pretrained_folder", "trained_in"]

SUMMARY_FILE = "pipeline.json"
"""What the stages of an output folder took, with which preset, on which machine, with which software."""
PRETRAINED_VARIABLE = "DEXCOMPOSE_PRETRAINED"
"""Environment variable: folder of weights and masks to use instead of those that ship."""


def pretrained_folder() -> Path:
    """Folder of weights and masks: the one in ``DEXCOMPOSE_PRETRAINED``, else the one that ships with the package.

    Raises:
        ValueError: If the variable does not name a folder.
    """
    chosen = os.environ.get(PRETRAINED_VARIABLE)
    if not chosen:
        return Path(str(resources.files("dexcompose_agents"))) / "pretrained"
    if not Path(chosen).is_dir():
        raise ValueError(f"{PRETRAINED_VARIABLE} is {chosen!r}; expected a folder with weights and masks")
    return Path(chosen)


def file_hash(path: Path) -> str:
    """SHA-256 of a file, first 16 hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@contextmanager
def trained_in(folder: Path | None) -> Iterator[None]:
    """Uses weights, masks and held states of an output folder of ``dexcompose train all`` within the block.

    Args:
        folder: Folder that holds ``pretrained`` and ``held_states``; None changes nothing.

    Raises:
        ValueError: If the folder holds no such two.
    """
    chosen: dict[str, str] = {}
    if folder is not None:
        chosen = {
            PRETRAINED_VARIABLE: str(folder.absolute() / "pretrained"),
            HELD_STATES_VARIABLE: str(folder.absolute() / "held_states"),
        }
        missing = [path for path in chosen.values() if not Path(path).is_dir()]
        if missing:
            raise ValueError(f"no folder '{missing[0]}'; expected an output folder of 'dexcompose train all'")
        _warn_of_test_weights(folder)
    before = {name: os.environ.get(name) for name in chosen}
    os.environ.update(chosen)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _warn_of_test_weights(folder: Path) -> None:
    """Says on stderr that results mean nothing if the folder was made with the preset "test"."""
    try:
        preset = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))["preset"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # a folder put together by hand
    if preset == "test":
        print(f"warning: '{folder}' was made with preset 'test': its weights learned nothing", file=sys.stderr)
