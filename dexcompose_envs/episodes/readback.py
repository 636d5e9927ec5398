"""Reading small arrays back from a device some steps late, so that the host never waits for the step in progress."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


class LaggedReader:
    """A line of copies on their way to the host, which runs at most `lag` of them ahead; 0: each comes at once."""

    def __init__(self, lag: int) -> None:
        self.lag = lag
        self._waiting: deque[tuple[Any, Any | None]] = deque()

    def push(self, tensor: Any) -> None:
        """Starts copying a tensor as it will be when the work queued so far is done."""
        if tensor.device.type != "cuda":
            self._waiting.append((tensor.clone(), None))
            return
        import torch

        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        pinned.copy_(tensor, non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(tensor.device))
        self._waiting.append((pinned, event))

    def due(self) -> Iterator[NDArray[Any]]:
        """Copies older than the lag, oldest first; waits for those that haven't arrived."""
        while len(self._waiting) > self.lag:
            yield self._take()

    def all(self) -> Iterator[NDArray[Any]]:
        """Everything under way, oldest first."""
        while self._waiting:
            yield self._take()

    def _take(self) -> NDArray[Any]:
        tensor, event = self._waiting.popleft()
        if event is not None:
            event.synchronize()
        return np.array(tensor.numpy())
