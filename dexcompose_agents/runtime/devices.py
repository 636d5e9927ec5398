"""Torch: devices by name, found before anything is put there, how they calculate, and arrays as their tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from dexcompose_envs.errors import UsageError

Observation = Mapping[str, Tensor]
"""Observation of N worlds, each entry float32 (N, size) on one device."""


def find_device(name: str | torch.device) -> torch.device:
    """The device of that name; "cuda" is the GPU that is the current one now. A UsageError says which there are."""
    try:
        return torch.empty(1, device=torch.device(name)).device
    # AssertionError: torch was built without that kind of device.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        count = torch.cuda.device_count()
        known = ", ".join(repr(each) for each in ("cpu", *(f"cuda:{index}" for index in range(count))))
        has = {0: "no CUDA device", 1: "1 CUDA device"}.get(count, f"{count} CUDA devices")
        raise UsageError(f"device is {str(name)!r}; expected one of {known} (this machine has {has})") from error


@contextmanager
def plain_torch() -> Iterator[None]:
    """Makes tensors as if the caller had set nothing: float32, on the CPU, no inference; keeps the global generator."""
    dtype = torch.get_default_dtype()
    # A device's block slows every single operation, so it's entered only where it changes something.
    on_cpu = nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")
    torch.set_default_dtype(torch.float32)
    try:
        with on_cpu, torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_default_dtype(dtype)


@contextmanager
def tensor_cores(device: torch.device) -> Iterator[None]:
    """Lets a GPU multiply matrices in TF32, as it does convolutions anyway; changes nothing for other devices."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def to_tensors(obs: Mapping[str, Any], device: torch.device) -> dict[str, Tensor]:
    """Float32 tensors of arrays or tensors; what lies on the device already (NumPy: the CPU) is not copied."""
    return {key: torch.as_tensor(value, dtype=torch.float32, device=device) for key, value in obs.items()}


def as_given(result: Tensor, given: Any) -> Any:
    """A result as a tensor on the device of `given` if that is a tensor, else as a NumPy array."""
    return result.to(given.device) if isinstance(given, Tensor) else result.cpu().numpy()
