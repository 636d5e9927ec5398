"""Torch devices: found by name before anything is put there, and how they are to calculate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dexcompose_envs.errors import UsageError


def find_device(name: str | torch.device) -> torch.device:
    """The device of that name; "cuda" is the GPU that is the current one now.

    Args:
        name: For example "cpu", "cuda" or "cuda:1".

    Raises:
        UsageError: If there is no such device on this machine; says which there are.
    """
    try:
        return torch.empty(1, device=torch.device(name)).device
    # AssertionError: torch was built without that kind of device.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        count = torch.cuda.device_count()
        known = ", ".join(repr(each) for each in ("cpu", *(f"cuda:{index}" for index in range(count))))
        has = {0: "no CUDA device", 1: "1 CUDA device"}.get(count, f"{count} CUDA devices")
        raise UsageError(f"device is {str(name)!r}; expected one of {known} (this machine has {has})") from error


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """On the CPU, calculates on one thread.

    Sums then round alike whatever number of threads the machine offers; contacts amplify any difference. It also is
    faster: what a policy calculates for a step is too little to wait for a second thread.
    """
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def plain_torch() -> Iterator[None]:
    """Makes tensors as if the caller had set nothing: float32, on the CPU, no inference; keeps the global generator."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"), torch.inference_mode(False), torch.random.fork_rng(devices=[]):
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
