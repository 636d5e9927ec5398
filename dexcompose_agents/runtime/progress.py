"""A progress bar for one job, on stderr; it appears with the first report, so an early error stands alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[float, float], None]]:
    """Gives ``advance(done, total)``, which draws the bar."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    progress = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
    task = progress.add_task(label, total=None)
    started = False

    def advance(done: float, total: float) -> None:
        nonlocal started
        if not started:
            started = True
            progress.start()
        progress.update(task, completed=done, total=total)

    try:
        yield advance
    finally:
        if started:
            progress.stop()
