"""Progress of one job on stderr: a bar in a terminal, a line now and then elsewhere.

Nothing appears before the first report, so an early error stands alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

Advance = Callable[[float, float], None]
"""``advance(done, total)``."""
SECONDS_BETWEEN_LINES = 30.0


@contextmanager
def progress_bar(label: str) -> Iterator[Advance]:
    """Gives ``advance(done, total)``, which shows how far the job is."""
    from rich.console import Console
    from rich.progress import Progress, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(label)
        return
    progress = Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=console)
    task = progress.add_task(label, total=None)

    def advance(done: float, total: float) -> None:
        progress.start()
        progress.update(task, completed=done, total=total)

    try:
        yield advance
    finally:
        if progress.live.is_started:
            progress.stop()


def _lines(label: str) -> Advance:
    """Prints a line every half minute, and one when all is done."""
    began = last = time.monotonic()
    finished = False

    def advance(done: float, total: float) -> None:
        nonlocal last, finished
        now = time.monotonic()
        if (done >= total and not finished) or now - last >= SECONDS_BETWEEN_LINES:
            last, finished = now, done >= total
            elapsed = timedelta(seconds=round(now - began))
            print(f"{label}: {done:.0f} of {total:.0f}, {elapsed}", file=sys.stderr, flush=True)

    return advance
