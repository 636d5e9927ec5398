"""Writing files so that an interrupted run never leaves half a file behind."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class OutputFolderError(OSError):
    """An output folder can't be created or written."""


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `path`, which takes its name only if the block succeeds.

    For writers that want a file name (safetensors, imageio); see `atomic_write` for content that is in memory.
    The temporary name keeps the suffix of `path`. Missing parent folders are made.

    Args:
        path: Where the finished file goes; an older file there stays whole until it is replaced.

    Yields:
        The path to write to.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.tmp{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes a whole file at once: it appears complete under its name, or not at all.

    Args:
        path: Where the file goes; an older file there stays whole until it is replaced. Missing parents are made.
        content: Bytes, or text, which is written as UTF-8 with its line ends as they are.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


def check_writable_dir(path: str | os.PathLike[str]) -> Path:
    """Makes a folder where it is missing and proves that files can be written to it.

    Call it before hours of work whose results are to go there.

    Args:
        path: The folder.

    Returns:
        The folder.

    Raises:
        OutputFolderError: If the folder can't be made or written, with the system's reason.
    """
    folder = Path(path)
    probe = folder / f".writable.{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"can't write to output folder {str(folder)!r} ({reason}); expected a writable folder"
        raise OutputFolderError(message) from error
    return folder
