"""Finished pieces of a long work on disk, so that one that was interrupted goes on where it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dexcompose_envs import artefacts
from dexcompose_envs.artefacts import ArtefactError
from dexcompose_envs.errors import DexComposeError

Progress = Callable[[int, int], None]
"""Called with how many are done, and wanted in all."""
Piece = tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]
"""What is said of a piece (JSON values), and its arrays by name."""


class UnfinishedError(DexComposeError, RuntimeError):
    """Work that can't be finished or gone on with; the message says what came and what was expected."""


class Pieces:
    """Numbered pieces, each written in one step, besides the settings that all of them were made with.

    Args:
        folder: Where they lie.
        settings: What made them, JSON values.
        remedy: What to do with pieces that can't be used, for the message.
        force: Whether to forget what lies there.

    Attributes:
        found: Number -> piece, of those that lay there already.

    Raises:
        UnfinishedError: If they were made with other settings, or a file is damaged.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], remedy: str, force: bool = False) -> None:
        self._folder, about = folder, folder / "settings.json"
        if force:
            for path in (about, *folder.glob("*.npz")):
                path.unlink(missing_ok=True)
        try:
            if about.exists():
                artefacts.load(about, "settings", settings=settings)
            else:
                artefacts.save(about, {"kind": "settings", "settings": settings}, {}, "json")
            files = sorted(folder.glob("*.npz"))
            self.found: dict[int, Piece] = {int(path.stem): artefacts.load(path, "piece") for path in files}
        except ArtefactError as error:
            raise UnfinishedError(f"unfinished work can't go on: {error}; {remedy}") from None

    def add(self, number: int, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Saves a piece."""
        artefacts.save(self._folder / f"{number:08d}.npz", {"kind": "piece", **about}, arrays, "npz")

    def remove(self) -> None:
        """Deletes them all, once something whole is made of them."""
        shutil.rmtree(self._folder, ignore_errors=True)
