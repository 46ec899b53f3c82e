"""Memory for kernels: on cache lines, and used again.

A block that no array refers to any more serves the next array of about its size: to get new
memory from the system, page by page, takes as long as to compute what goes into it. A block that
has not served for a while goes back.
"""

from __future__ import annotations

import itertools
import math
import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

LINE = 64  # bytes
_LEAST = 1 << 16  # bytes of an array that gets a block
_PATIENCE = 512  # requests for which a block is kept that serves none of them


class Block(np.ndarray):
    """Memory that arrays are views of."""


class _Pool:
    def __init__(self) -> None:
        self.blocks: list[Any] = []
        self.used: list[int] = []  # per block the request that it served last
        self.lock = threading.Lock()
        self.requests = itertools.count()

    def array(self, shape: Sequence[int], dtype: np.dtype, size: int) -> Any:
        now = next(self.requests)
        with self.lock:
            best = -1
            for i, block in enumerate(self.blocks):
                if block.nbytes < size + LINE or block.nbytes > size + size // 4 + LINE:
                    continue
                if sys.getrefcount(block) == _FREE and (
                    best < 0 or block.nbytes < self.blocks[best].nbytes
                ):
                    best = i
            if best < 0:
                best = len(self.blocks)
                self.blocks.append(Block((size + LINE,), np.uint8))
                self.used.append(now)
            self.used[best] = now
            found = _on_a_line(self.blocks[best], shape, dtype)
            if now % 64 == 0:
                self._drop(lambda i: self.used[i] < now - _PATIENCE)
        return found

    def clear(self) -> None:
        with self.lock:
            self._drop(lambda i: True)

    def _drop(self, stale: Any) -> None:
        """Gives stale blocks back; those in use go with what uses them."""
        kept = [i for i in range(len(self.blocks)) if not stale(i)]
        self.blocks = [self.blocks[i] for i in kept]
        self.used = [self.used[i] for i in kept]


def _on_a_line(block: Any, shape: Sequence[int], dtype: np.dtype) -> Any:
    offset = -block.ctypes.data % LINE
    return np.ndarray(tuple(shape), dtype, buffer=block, offset=offset)


def _references() -> int:
    """What sys.getrefcount says in `_Pool.array` of a block that no array refers to."""
    blocks = [Block((1,), np.uint8)]
    return next(sys.getrefcount(block) for i, block in enumerate(blocks))


_FREE = _references()
_pool = _Pool()


def empty(shape: Sequence[int], dtype: Any) -> Any:
    """An array that holds anything."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    return np.empty(shape, dtype) if size < _LEAST else _pool.array(shape, dtype, size)


def scratch(elements: int, dtype: Any) -> Any:
    """The same for a kernel's own use, on a cache line however small."""
    dtype = np.dtype(dtype)
    size = elements * dtype.itemsize
    if size >= _LEAST:
        return _pool.array((elements,), dtype, size)
    return _on_a_line(np.empty(size + LINE, np.uint8), (elements,), dtype)


def is_its_own(array: np.ndarray) -> bool:
    """Whether an array has most of a block."""
    base: Any = array.base
    return type(base) is Block and 2 * array.nbytes >= base.nbytes


def free() -> None:
    """Gives back what no array refers to."""
    _pool.clear()
