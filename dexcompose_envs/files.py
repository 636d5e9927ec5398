"""Writing files: whole or not at all, one process to a folder, and errors that name the file."""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dexcompose_envs.errors import DexComposeError, UsageError

LOCK_FILE = ".lock"
"""Hidden file that `lock_folder` holds a lock on."""
_LOCKED: set[Path] = set()
"""Folders that this process has locked."""


class OutputError(DexComposeError, OSError):
    """A file or folder that can't be written; the message names it and gives the system's reason."""


def expand(path: str | os.PathLike[str]) -> Path:
    """The path with a leading ``~`` or ``~user`` replaced by that home folder; a UsageError if there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"path {str(path)!r} names a home folder that can't be found; expected ~ or a user") from error


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `path`, which takes its name only if the block succeeds.

    For writers that want a file name (safetensors, imageio); see `atomic_write` for content that is in memory.
    The temporary name keeps the suffix of `path`. Missing parent folders are made, and an older file stays whole until
    it is replaced.

    Raises:
        OutputError: If it can't be written; nothing half-written stays behind.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.tmp{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        ours = error.filename is None or Path(os.fsdecode(error.filename)) in (temporary, target, *target.parents)
        if isinstance(error, DexComposeError) or not ours:
            raise
        raise _output_error(f"can't write {str(target)!r}", error, "a writable file name") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def atomic_write(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes bytes, or text as UTF-8 with its line ends as they are, at once; see `atomic_path`."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


def check_writable_dir(path: str | os.PathLike[str]) -> Path:
    """Makes a folder where it is missing and proves that files can be written to it, before hours of work.

    Raises:
        OutputError: If the folder can't be made or written, with the system's reason.
    """
    folder = Path(path)
    probe = folder / f".writable.{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _output_error(f"can't write to output folder {str(folder)!r}", error, "a writable folder") from error
    return folder


@contextmanager
def lock_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Makes a folder where it is missing and keeps other processes from writing to it during the block.

    A process may lock the same folder again further in. The lock goes with the process, also when it crashes.

    Raises:
        UsageError: If another process is writing to it.
        OutputError: If it can't be made or written.
    """
    folder = check_writable_dir(path)
    key = folder.resolve()
    if key in _LOCKED:
        yield folder
        return
    descriptor = _lock(folder / LOCK_FILE)
    _LOCKED.add(key)
    try:
        yield folder
    finally:
        _LOCKED.discard(key)
        if descriptor is not None:
            with suppress(OSError):
                (folder / LOCK_FILE).unlink()
            os.close(descriptor)


def _lock(path: Path) -> int | None:
    """Descriptor of a file that this process holds the lock of; None where the file system has no locks."""
    while True:
        try:
            import fcntl

            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except ImportError:  # not a POSIX system
            break
        except OSError as error:
            raise _output_error(f"can't lock {str(path)!r}", error, "a writable file") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
            os.close(descriptor)  # its last owner removed the file after we opened it
        except BlockingIOError:
            os.close(descriptor)
            message = f"another process is writing to {str(path.parent)!r}; wait for it, or give another folder"
            raise UsageError(message) from None
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            break
    note = f"{str(path.parent)!r} is on a file system without locks; let only one process at a time write to it"
    warnings.warn(note, RuntimeWarning, stacklevel=4)
    return None


def _output_error(what: str, error: OSError, expected: str) -> OutputError:
    failed = OutputError(f"{what} ({error.strerror or error}); expected {expected}")
    failed.errno = error.errno
    return failed
