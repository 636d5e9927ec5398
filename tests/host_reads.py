"""Finds what would make the host wait for a GPU, on a machine without one."""

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


class HostReads:
    """Lists what the host would wait for on a GPU, or would upload, within a `with` block."""

    _paused = False
    _OPERATORS = (
        "aten::_local_scalar_dense",
        "aten::nonzero",
        "aten::masked_select",
        "aten::equal",
        "aten::is_nonzero",
    )
    _CALLS = (Tensor.numpy, Tensor.tolist, Tensor.cpu, Tensor.__array__, torch.tensor, torch.from_numpy)

    def __init__(self):
        self.seen = []
        self._modes = (_Functions(self), _Operators(self))

    def __enter__(self):
        for mode in self._modes:
            mode.__enter__()
        return self.seen

    def __exit__(self, *error):
        for mode in reversed(self._modes):
            mode.__exit__(*error)

    def note(self, name):
        if not HostReads._paused:
            self.seen.append(name)

    @classmethod
    def allowed(cls):
        return _Pause()


class _Pause:
    def __enter__(self):
        HostReads._paused = True

    def __exit__(self, *error):
        HostReads._paused = False


class _Functions(TorchFunctionMode):
    def __init__(self, reads):
        self.reads = reads

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in HostReads._CALLS:
            self.reads.note(func.__name__)
        return func(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    def __init__(self, reads):
        super().__init__()
        self.reads = reads

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        by_mask = name in ("aten::index", "aten::index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if by_mask or name in HostReads._OPERATORS:
            self.reads.note(name)
        return func(*args, **(kwargs or {}))
