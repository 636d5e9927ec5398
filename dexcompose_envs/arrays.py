"""Where an environment's arrays live: in NumPy on the host, or in torch on a device.

The batched core, the judge and the tasks are written once, to the array-API standard; this is what they need besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_torch_array
from numpy.typing import NDArray

from dexcompose_envs.observations import Array


@dataclass(frozen=True)
class Arrays:
    """An array library and a device.

    Attributes:
        xp: Array-API namespace.
        device: A `torch.device`; None for NumPy.
        float: Type of physical quantities: float64 in NumPy, float32 in torch.
    """

    xp: Any
    device: Any | None
    float: Any

    @classmethod
    def numpy(cls) -> Arrays:
        """NumPy on the host, double precision."""
        import array_api_compat.numpy as xp

        return cls(xp, None, np.float64)

    @classmethod
    def torch(cls, device: Any) -> Arrays:
        """Torch on a device, single precision."""
        import array_api_compat.torch as xp
        import torch

        return cls(xp, torch.device(device), torch.float32)

    @property
    def is_cuda(self) -> bool:
        """Whether work is queued on a GPU, so that reading a value back makes the host wait."""
        return self.device is not None and self.device.type == "cuda"

    def zeros(self, *shape: int, dtype: Any = None) -> Array:
        """Zeros of the library's float type, or of another."""
        return self.full(shape, 0, dtype=dtype)

    def full(self, shape: tuple[int, ...], value: Any, dtype: Any = None) -> Array:
        """An array filled with one value."""
        return self.xp.full(shape, value, dtype=dtype or self.float, device=self.device or "cpu")

    def of(self, values: Any, dtype: Any = None) -> Array:
        """Host values as a fresh array of this library, by default of its float type."""
        if self.device is None:
            return np.array(values, dtype or self.float)
        import torch

        dtype = dtype or self.float
        if isinstance(values, torch.Tensor):
            return values.detach().to(self.device, dtype, copy=True)
        tensor = torch.from_numpy(np.array(values)).to(dtype)
        # Only from pinned memory does a copy not wait for the work queued on the GPU.
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.is_cuda else tensor

    def mask(self, indices: NDArray[np.int64], size: int) -> Array:
        """Boolean mask (size,), True at some indices."""
        mask = np.zeros(size, bool)
        mask[indices] = True
        return self.of(mask, self.xp.bool)


def to_numpy(array: Any) -> NDArray[Any]:
    """An array of any library in NumPy; on a GPU the host waits for it."""
    if not is_torch_array(array):
        return np.asarray(array)
    array = array.detach().cpu()
    # NumPy has no bfloat16.
    return array.float().numpy() if str(array.dtype) == "torch.bfloat16" else array.numpy()


def fresh(array: Array) -> Array:
    """A copy."""
    return array.clone() if is_torch_array(array) else array.copy()


def choose(mask: Array, new: Array, old: Array) -> Array:
    """Rows of `new` where the mask (N,) is True, else of `old`; a fresh array of `old`'s type."""
    xp = array_namespace(mask)
    return xp.where(xp.reshape(mask, (-1,) + (1,) * (old.ndim - 1)), new, old)
