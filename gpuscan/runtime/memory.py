"""Memory for kernels: on cache lines, and used again.

A block that no array refers to any more serves the next array of about its size: to get new
memory from the system, page by page, takes as long as to compute what goes into it. A block that
has not served for a while goes back.
"""

from __future__ import annotations

import bisect
import math
import operator
import os
import sys
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..types import is_on_gpu
from .recorder import recording

LINE = 64  # bytes
_BYTE = np.dtype("uint8")
LEAST = 1 << 16  # bytes of an array that gets a block
_PATIENCE = 512  # requests for which a block is kept that serves none of them


class Block(np.ndarray):
    """Memory that arrays are views of. start: where its first cache line begins; used: the request
    that it served last."""

    start: int
    used: int


def _new_block(size: int) -> Block:
    """A block with room for so many bytes behind the beginning of a cache line."""
    block = Block((size + LINE,), np.uint8)
    block.start = -block.ctypes.data % LINE
    return block


_size_of = operator.attrgetter("nbytes")


class _Pool:
    """A request never waits: it may come while another is served, from another thread, or from
    what interrupts this one (a signal, the garbage collector). Then it gets memory of its own."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.requests = 0
        self.clear()

    def array(self, shape: Sequence[int], dtype: np.dtype, size: int) -> Any:
        if not self.lock.acquire(blocking=False):
            return _in_block(_new_block(size), shape, dtype)
        try:
            return _in_block(self._block(size), shape, dtype)
        finally:
            self.lock.release()

    def _block(self, size: int) -> Any:
        now = self.requests = self.requests + 1
        best = self._free(size + LINE, size + size // 4 + LINE)
        if now % 64 == 0:  # those in use go with what uses them
            self._keep([b for b in self.blocks if b.used >= now - _PATIENCE or b is best])
        if best is None:
            # what served a shorter loop makes room for what serves the longer one
            self._drop(self._free(size // 2 + LINE, size + LINE))
            best = self._new(size)
            self._keep([*self.blocks, best])
        best.used = now
        return best

    def _free(self, least: int, most: int) -> Any:
        """The smallest block of such a size that no array refers to."""
        blocks, sizes = self.by_size
        for i in range(bisect.bisect_left(sizes, least), bisect.bisect_right(sizes, most)):
            if sys.getrefcount(blocks[i]) == _FREE:
                return blocks[i]
        return None

    def _drop(self, block: Any) -> None:
        self._keep([b for b in self.blocks if b is not block])

    def _new(self, size: int) -> Any:
        try:
            return _new_block(size)
        except MemoryError:  # which may be what others hold that serve nothing
            self.clear()
            return _new_block(size)

    def clear(self) -> None:
        self._keep([])

    def _keep(self, blocks: Iterable[Any]) -> None:
        found = sorted(blocks, key=_size_of)
        self.by_size = found, [b.nbytes for b in found]  # at once: an interrupt may come anywhere

    @property
    def blocks(self) -> list[Any]:
        return self.by_size[0]

    def alone(self) -> None:
        """In a forked process: the thread that was being served is not there."""
        self.lock = threading.Lock()


def _in_block(block: Block, shape: Sequence[int], dtype: np.dtype) -> Any:
    return np.ndarray(shape, dtype, block, block.start)


def _references() -> int:
    """What sys.getrefcount says in `_Pool._free` of a block that no array refers to."""
    blocks, i = [_new_block(1)], 0
    return sys.getrefcount(blocks[i])


_FREE = _references()
_pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.alone)


def empty(shape: Sequence[int], dtype: Any) -> Any:
    """An array that holds anything."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    found = np.empty(shape, dtype) if size < LEAST else _pool.array(shape, dtype, size)
    return _told(found)


def scratch(size: int) -> Any:
    """The same for a kernel's own use: so many bytes, on a cache line however few."""
    if size >= LEAST:
        return _told(_pool.array((size,), _BYTE, size))
    return _told(_in_block(_new_block(size), (size,), _BYTE))


def _told(array: Any) -> Any:
    if (recorder := recording.recorder) is not None:
        recorder.allocated(array)
    return array


def copy(target: Any, source: Any) -> None:
    """Copies the elements of one array of the host to another of its shape and dtype."""
    target[...] = source
    if (recorder := recording.recorder) is not None:
        recorder.copied(target, source)


def is_number(array: Any) -> None:
    """That an array has been made of numbers that the host knows in each call of a kind."""
    if (recorder := recording.recorder) is not None:
        recorder.number(array)


def numbers(values: Sequence[int]) -> Any:
    """An array of these, of int64, that a kernel may write to."""
    array = np.array(values, "int64")
    if recording.recorder is None:
        return array
    is_number(array)
    return copied(array)


def not_recorded() -> None:
    """The node that is computed does what can't be made again as it was."""
    if (recorder := recording.recorder) is not None:
        recorder.not_written()


def copied(x: Any) -> Any:
    """An array of the host once more, in row-major order."""
    found = empty(x.shape, x.dtype)
    copy(found, x)
    return found


def is_its_own(array: np.ndarray) -> bool:
    """Whether an array has most of a block."""
    base: Any = array.base
    return type(base) is Block and 2 * array.nbytes >= base.nbytes


def free() -> None:
    """Gives back what no array refers to."""
    _pool.clear()


# ---- results -------------------------------------------------------------------------------------


def span(x: Any) -> tuple[int, int]:
    """Where an array on a GPU begins, and where it ends."""
    given = x.__cuda_array_interface__
    first, shape, size = given["data"][0], given["shape"], np.dtype(given["typestr"]).itemsize
    if given.get("strides") is None or 0 in shape:
        return first, first + math.prod(shape) * size
    steps = [s * (n - 1) for s, n in zip(given["strides"], shape)]
    return first + sum(s for s in steps if s < 0), first + sum(s for s in steps if s > 0) + size


class Alone(tuple[Any, ...]):
    """Arrays that nobody has under another name."""


def owned(values: Iterable[Any], held: Iterable[Any]) -> list[Any]:
    """The values as arrays that nobody can write to through another name: neither through one of
    `held` nor through each other."""
    if isinstance(values, Alone):
        return list(values)
    taken: set[int] = set()
    spans: list[tuple[int, int]] = []
    for h in held:
        if is_on_gpu(h):
            spans.append(span(h))
            continue
        taken.add(id(h))
        if h.base is not None:
            taken.add(id(h.base))
    found: list[Any] = []
    for value in values:
        if is_on_gpu(value):
            begin, end = span(value)
            alone = not any(begin < e and b < end for b, e in spans)
            found.append(value if alone else value.copy())
            spans.append(span(found[-1]))
            continue
        array = np.asarray(value)
        base = array.base
        alone = base is None or (id(base) not in taken and is_its_own(array))
        if not alone or id(array) in taken or not array.flags.writeable:
            array, base = array.copy(), None
        taken.add(id(array))
        if base is not None:
            taken.add(id(base))
        found.append(array)
    return found
