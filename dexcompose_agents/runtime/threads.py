"""One thread for torch wherever worlds are stepped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@contextmanager
def one_thread(device: torch.device | None = None) -> Iterator[None]:
    """Within the block torch calculates on one thread; blocks may lie within each other.

    What is calculated for a control step is too little to share: torch's other threads would spin most of the time, on
    cores that MuJoCo's own threads, which this leaves alone, can use. Sums also round alike whatever number of threads
    the machine offers; contacts amplify any difference.

    The number belongs to the calling thread, which has its own again after the block. Other threads keep theirs; only
    one that calculates for the first time meanwhile has one from then on, as it takes what any thread set last.

    Args:
        device: Where is calculated; nothing changes unless that is the CPU, which None is.
    """
    import torch  # not needed by whoever only imports an evaluation

    threads = torch.get_num_threads()
    if threads == 1 or (device is not None and device.type != "cpu"):
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
