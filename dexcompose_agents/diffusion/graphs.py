"""A function of tensors with fixed shapes, run as it is on the CPU and as one recorded CUDA graph on a GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dexcompose_envs.errors import UsageError

_WARM_UPS = 3
"""Runs before the recording, in which libraries set themselves up; CUDA forbids that while it records."""


class StaticFunction:
    """Calls a function whose many small kernels would otherwise cost more to launch than to run.

    On CUDA the first call records everything that the function does as a CUDA graph; every call then copies its inputs
    to where the graph reads them, and replays it. So the function must launch the same kernels every time: nothing in
    it may depend on values, read them back, or copy from the host's memory. What it reads besides its inputs, such as
    weights, may change in place but not move. On any other device the function is simply called.

    Args:
        function: Takes tensors and returns one; called without gradients.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...]
        self._output: Tensor

    # Plain tensors even if the caller is in inference mode: the buffers outlive the call.
    @torch.inference_mode(False)
    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's value, as a tensor of its own; inputs are on one device, alike in shape and type at all calls.

        Raises:
            UsageError: If shapes are not those of the first call (CUDA only).
        """
        device = inputs[0].device
        if device.type != "cuda":
            return self._function(*inputs)
        with torch.cuda.device(device):
            graph = self._graph or self._record(inputs)
            for static, value in zip(self._inputs, inputs, strict=True):
                if static.shape != value.shape:
                    raise UsageError(f"input has shape {tuple(value.shape)}; expected {tuple(static.shape)}")
                static.copy_(value)
            graph.replay()
            return self._output.clone()

    def _record(self, inputs: tuple[Tensor, ...]) -> torch.cuda.CUDAGraph:
        """Records the function on the current device."""
        self._inputs = tuple(value.clone() for value in inputs)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                self._function(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = self._function(*self._inputs)
        return self._graph
