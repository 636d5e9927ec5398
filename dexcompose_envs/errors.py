"""The base of all errors that a user can cause and mend.

Whoever catches `DexComposeError` gets one line that names the value or file and what was expected. Anything else is a
defect of this package and deserves its traceback.
"""

from __future__ import annotations


class DexComposeError(Exception):
    """Something that the user can put right; the message is one line."""


class UsageError(DexComposeError, ValueError):
    """A wrong name, number, shape or combination of arguments."""


class StepError(DexComposeError, RuntimeError):
    """A step that comes at the wrong time: before a reset, or after an end."""


class FileError(DexComposeError, ValueError):
    """A file that is missing, damaged, or not what it should be; the message names it."""


class MachineError(DexComposeError, RuntimeError):
    """Something that this machine lacks: a device, a display, a package, room on a disk."""
