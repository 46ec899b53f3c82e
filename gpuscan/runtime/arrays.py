"""Where NumPy's arrays are in memory."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

# In NumPy's ABI an array object is Python's header, the address of the data, and more; to ask
# `.ctypes.data` for the address takes ten times as long as to read it there.
OF_DATA = object.__basicsize__


def address(x: np.ndarray) -> int:
    """Where an array's first element is."""
    return ctypes.c_size_t.from_address(id(x) + OF_DATA).value


def bounds(x: np.ndarray) -> tuple[int, int]:
    """Where an array's elements begin and end."""
    begin = end = address(x)
    if x.flags.c_contiguous:
        return begin, end + x.nbytes
    if not x.size:
        return begin, end
    for stride, n in zip(x.strides, x.shape):
        if stride < 0:
            begin += stride * (n - 1)
        else:
            end += stride * (n - 1)
    return begin, end + x.itemsize


_probe: Any = np.empty(1)
assert address(_probe) == _probe.ctypes.data, "gpuscan reads arrays of CPython's NumPy"
