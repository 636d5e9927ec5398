"""Whether MuJoCo Warp can run here, on which device, and how many worlds fit."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from importlib import metadata
from typing import Any

from dexcompose_envs.errors import UsageError
from dexcompose_envs.physics.base import BackendError

EXTRA = "pip install 'dexcompose[warp]'"
OLDEST = {"mujoco-warp": (3, 17), "warp-lang": (1, 10)}
"""Oldest versions of the packages that the engine is written for."""
MEMORY_SHARE = 0.9
"""Share of a GPU's free memory that worlds may fill."""
SCRATCH = 1.5
"""What a step needs besides the arrays that stay: the solver's work arrays, as a multiple of those."""


def load_warp() -> tuple[Any, Any]:
    """The modules `warp` and `mujoco_warp`.

    Raises:
        BackendError: If they, or torch, are missing or too old.
    """
    for package, oldest in OLDEST.items():
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            raise BackendError(f"backend 'warp' needs the package {package}, which is missing: {EXTRA}") from None
        if tuple(int(part) for part in version.split(".")[:2]) < oldest:
            wanted = ".".join(map(str, oldest))
            raise BackendError(f"backend 'warp' found {package} {version}; expected at least {wanted}: {EXTRA} -U")
    try:
        import mujoco_warp
        import torch  # noqa: F401
        import warp
    except ImportError as error:
        raise BackendError(f"backend 'warp' can't be imported ({error}): {EXTRA}") from None
    if hasattr(warp.config, "log_level") and warp.config.log_level < warp.LOG_WARNING:
        warp.config.log_level = warp.LOG_WARNING  # else a line for each of a hundred kernels
    return warp, mujoco_warp


def check_device(name: str) -> Any:
    """The torch device of that name.

    Raises:
        BackendError: If it doesn't exist, or torch or Warp can't use it.
        UsageError: If that is no name of a device.
    """
    import torch
    import warp

    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise UsageError(f"device is {name!r}; expected 'cuda', 'cuda:N' or 'cpu'") from None
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise UsageError(f"device is {name!r}; expected 'cuda', 'cuda:N' or 'cpu'")
    slow = "device='cpu' works without one, for a handful of worlds"
    if not torch.cuda.is_available():
        build = torch.version.cuda or "none"
        raise BackendError(f"device {name!r}: torch {torch.__version__} (CUDA: {build}) finds no GPU; {slow}")
    count = torch.cuda.device_count()
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= count:
        raise BackendError(f"device {name!r} doesn't exist: there are {count} GPUs, cuda:0 to cuda:{count - 1}")
    warp.init()
    if not warp.is_cuda_available():
        raise BackendError(
            f"device {name!r}: torch finds the GPU, but Warp {warp.__version__} doesn't; the driver is too old for its "
            f"CUDA toolkit {warp.get_cuda_toolkit_version()}; update the driver"
        )
    return torch.device("cuda", index)


def array_bytes(data: Any) -> int:
    """Bytes of all arrays of a MuJoCo Warp data object."""
    total = 0
    for item in fields(data):
        value = getattr(data, item.name)
        if is_dataclass(value) and not isinstance(value, type):
            total += array_bytes(value)
        elif hasattr(value, "capacity"):
            total += int(value.capacity)
    return total


def check_memory(num_worlds: int, bytes_per_world: int, free: int, where: str) -> None:
    """Refuses more worlds than a device has memory for.

    Args:
        num_worlds: Worlds wanted.
        bytes_per_world: Bytes of one world's arrays.
        free: Bytes free on the device.
        where: The device's name, for the message.

    Raises:
        BackendError: With how many worlds fit.
    """
    fitting = int(MEMORY_SHARE * free / (SCRATCH * bytes_per_world))
    if num_worlds > fitting:
        raise BackendError(
            f"{num_worlds} worlds need about {SCRATCH * num_worlds * bytes_per_world / 2**30:.1f} GiB, but {where} has "
            f"{free / 2**30:.1f} GiB free; about {fitting} worlds fit"
        )
