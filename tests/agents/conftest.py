"""What a user may have told torch and NumPy before calling us; one thread, on which small networks are fastest."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def torch_threads():
    """A function that sets the caller's number of threads, for one test."""
    threads = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(threads)


@contextmanager
def _double_precision():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def _another_device():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


CALLER_SETTINGS = {
    "double precision": _double_precision,
    "another device": _another_device,
    "another device in a block": lambda: torch.device("meta"),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "lower precision": lambda: torch.autocast("cpu", torch.bfloat16),
    "strict floats": lambda: np.errstate(all="raise"),
}


@pytest.fixture(params=CALLER_SETTINGS)
def caller_settings(request):
    """A function that makes a context manager, for each setting in turn."""
    return CALLER_SETTINGS[request.param]
