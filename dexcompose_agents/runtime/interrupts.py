"""Ctrl-C and SIGTERM at a moment when they do no harm, and the end of the time that a call was given."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Paused(KeyboardInterrupt):
    """The time of this call is used up; what was finished is saved, and the same call goes on from there."""


@contextmanager
def sigterm_interrupts() -> Iterator[threading.Event]:
    """Within the block SIGTERM does what Ctrl-C would do at that moment; the event tells whether it came."""
    terminated = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield terminated
        return

    def handle(number: int, frame: Any) -> None:
        terminated.set()
        on_ctrl_c = signal.getsignal(signal.SIGINT)
        if not callable(on_ctrl_c):  # a job in the background ignores Ctrl-C
            raise KeyboardInterrupt
        on_ctrl_c(signal.SIGINT, frame)

    previous = signal.signal(signal.SIGTERM, handle)
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def saving_to(path: Path) -> Iterator[None]:
    """Lets an interruption of the block know where its state is saved, as `saved_to`."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        setattr(interrupt, "saved_to", path)  # noqa: B010  (not an attribute of the class)
        raise


@contextmanager
def interrupt_flag() -> Iterator[threading.Event]:
    """Turns the first Ctrl-C into a flag, so that a step is never torn; a second one interrupts at once."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    previous = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: Any) -> None:
        flag.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, handle)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, previous)
