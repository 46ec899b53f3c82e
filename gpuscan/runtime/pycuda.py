"""CUDA by PyCUDA: its arrays and memory pool in the GPU's primary context, which CuPy and PyTorch
use, too. The kernels are started by the driver (driver.py), on the default stream.

PyCUDA has no matrix product: ours is a plain one of tiles, several times slower than cuBLAS, and
of float32 whatever precision would do. Its arrays belong to the thread that made them.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..codegen.limits import Limits
from ..codegen.program import Launch
from ..errors import first_line
from . import driver
from .cuda_routines import Elements, copying
from .tape import Tape

_INSTALL = "pip install pycuda (it is built then, with a CUDA toolkit and a C++ compiler)"


@functools.cache
def missing() -> str:
    """Why PyCUDA can't be used here, or nothing. Imports it where there is a GPU."""
    from importlib.util import find_spec

    if reason := driver.missing():
        return reason
    if find_spec("pycuda") is None:
        return f"PyCUDA is not installed: {_INSTALL}"
    try:
        import pycuda.driver as drv  # type: ignore[import-not-found,unused-ignore]

        drv.init()
        return "" if drv.Device.count() else "PyCUDA finds no GPU"
    except Exception as e:  # its extension is linked to one CUDA
        return f"PyCUDA fails: {first_line(e)}. Build it again: {_INSTALL}"


@functools.cache
def _array_class() -> Any:
    import pycuda.driver as drv
    from pycuda.gpuarray import GPUArray  # type: ignore[import-not-found,unused-ignore]

    class Array(GPUArray):  # type: ignore[misc,unused-ignore]
        """A GPUArray of which NumPy's functions make views, that is set by copies alone."""

        def get(self, *given: Any, **named: Any) -> Any:
            with _current():
                if _own.stream:
                    raise driver.not_read()
                if given or named or self.flags.c_contiguous:
                    return super().get(*given, **named)
                return self._got()

        def _got(self) -> Any:
            """What PyCUDA can't copy: memory from the first to the last element, and a view."""
            if not self.size:
                return np.empty(self.shape, self.dtype)
            steps = [s * (n - 1) for s, n in zip(self.strides, self.shape)]
            before, size = -sum(s for s in steps if s < 0), self.itemsize
            memory = np.empty(sum(map(abs, steps)) + size, "uint8")
            drv.memcpy_dtoh(memory, int(self.gpudata) - before)
            first = memory[before : before + size].view(self.dtype)
            return np.lib.stride_tricks.as_strided(first, self.shape, self.strides).copy()

        def __getitem__(self, index: Any) -> Any:
            index = index if isinstance(index, tuple) else (index,)
            if not any(i is ... for i in index):
                index = (*index, ...)  # else an element would be read
            return self._seen(lambda x: x[index])

        def __array_function__(self, function: Any, types: Any, given: Any, named: Any) -> Any:
            if function not in _VIEWS:
                return function._implementation(*given, **named)  # as without this method
            is_dense = function is not np.reshape or self.flags.c_contiguous
            whole = self if is_dense else self.copy()
            return whole._seen(lambda x: function(x, *given[1:], **named))

        def _seen(self, view_of: Callable[[np.ndarray], np.ndarray]) -> Any:
            """A view, as NumPy has it of an array of these strides."""
            none = np.lib.stride_tricks.as_strided(
                np.empty((), self.dtype), self.shape, self.strides
            )
            view = view_of(none)
            at = int(self.gpudata) + view.ctypes.data - none.ctypes.data
            with _current():
                return Array(view.shape, self.dtype, self.allocator, self, at, view.strides)

        def __setitem__(self, index: Any, value: Any) -> None:
            target = self[index]
            with _current():
                if isinstance(value, GPUArray):
                    if value.size == target.size and value.flags.c_contiguous:
                        memory = int(value.gpudata)
                        value = Array(target.shape, value.dtype, base=value, gpudata=memory)
                    else:  # to be spread over several rows, once
                        value = value.get()
                if not isinstance(value, GPUArray):
                    whole = np.broadcast_to(np.asarray(value, self.dtype), target.shape)
                    value = np.array(whole, order="C")
                if target.size:
                    target._take(value)

        def _take(self, value: Any) -> None:
            """Copies what has the same shape: at once, or row by row where that is not dense."""
            if not (self.flags.c_contiguous and value.flags.c_contiguous):
                for i in range(len(self)):
                    self[i]._take(value[i])
            elif isinstance(value, GPUArray):
                driver.copy(int(self.gpudata), int(value.gpudata), value.nbytes, _own.stream)
            else:
                drv.memcpy_htod(self.gpudata, value)

        def copy(self) -> Any:
            with _current():
                new = _made(self.shape, self.dtype)
                if self.size:
                    new._take(self)
            return new

    return Array


_VIEWS = (np.broadcast_to, np.reshape, np.squeeze, np.transpose)


def _leave(x: Any, more: Any = ctypes.pythonapi.Py_IncRef, held: Any = ctypes.py_object) -> None:
    """What PyCUDA would give back wrongly is never given back by it."""
    more(held(x))


class _Memory:
    """A part of the thread's pool. PyCUDA's pool ends the process where memory goes back to it and
    no context is current, as when a program drops a result: so one is made current. From another
    thread it takes nothing back: then the driver does."""

    leave = staticmethod(_leave)

    def __init__(self, size: int) -> None:
        self.context, self.thread = _own.context, threading.get_ident()
        self.held: Any = None
        try:
            with driver.relaxed() if _own.stream else contextlib.nullcontext():
                self.held = _own.pool.allocate(size)
        except _out_of_memory() as e:  # its words have no number
            raise driver.failed(e, f"allocating {size} bytes on the GPU") from e

    def __del__(self) -> None:
        if self.held is None:  # there was not so much
            return
        if _ended is not False:  # PyCUDA is being taken down: the driver frees what is left
            self.leave(self.held)
            return
        if self.thread != threading.get_ident():
            self.leave(self.held)  # it would warn
            with driver.relaxed() if _own.stream else contextlib.nullcontext():
                memory = ctypes.c_uint64(int(self.held))
                driver.give_back("cuMemFree_v2", self.context.handle, memory)
            return
        self.context.push()
        self.held.free()
        self.context.pop()


@functools.cache
def _out_of_memory() -> type[Exception]:
    import pycuda.driver as drv

    return drv.MemoryError


class _Pool:
    """Memory of a graph: what it allocates on the way is used again within it, in its order, and
    by nobody else."""

    leave = staticmethod(_leave)

    def __init__(self) -> None:
        self.context, self.pool = _own.context, _new_pool()

    def __del__(self) -> None:
        if _ended is not False:
            self.leave(self.pool)
            return
        self.context.push()
        self.pool.stop_holding()
        self.context.pop()


def _new_pool() -> Any:
    from pycuda.tools import (  # type: ignore[import-not-found,unused-ignore]
        DeviceMemoryPool,
    )

    return DeviceMemoryPool()


def _made(shape: Sequence[int], dtype: Any) -> Any:
    """A new array. One of no elements has an address, too."""
    dtype = np.dtype(dtype)
    memory = _Memory(max(1, math.prod(shape) * dtype.itemsize))
    return _array_class()(tuple(shape), dtype, base=memory, gpudata=int(memory.held))


class _Thread(threading.local):
    """A thread's own of what PyCUDA binds to threads."""

    context: Any = None
    pool: Any = None
    depth = 0
    outer = 0  # the context that was current before
    stream = 0  # that is captured, or the default one
    graph: driver.Graph | None = None


_own = _Thread()
_ended = False  # True when Python ends, and None when it has taken this module down


@contextlib.contextmanager
def _current() -> Iterator[None]:
    """The primary context is the thread's current one."""
    own = _own
    if own.depth == 0:
        import pycuda.driver as drv

        if own.context is None:
            own.context = drv.Device(_number()).retain_primary_context()
        own.outer = driver.current_context()
        own.context.push()
    own.depth += 1
    try:
        if own.pool is None:
            own.pool = _new_pool()
        yield
    finally:
        own.depth -= 1
        if own.depth == 0:
            own.context.pop()


@atexit.register
def _end() -> None:
    global _ended
    _ended = True
    if _own.pool is not None:
        _own.context.push()
        _own.pool.stop_holding()
        _own.context.pop()


class PyCUDA:
    name = "pycuda"
    scope = ""
    has_own_arrays = True
    tape: Tape | None = None
    place = 0  # the one primary context

    def __init__(self) -> None:
        import pycuda.driver as drv
        import pycuda.gpuarray

        self.drv = drv
        self.GPUArray = pycuda.gpuarray.GPUArray
        self.copying: dict[int, Elements] = {}  # by the size of an element

    @property
    def limits(self) -> Limits:
        return driver.limits(_number())

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        try:
            with _current():
                yield
        except self.drv.Error as e:
            raise driver.failed(e, "work on the GPU") from e

    def array(self, x: Any) -> Any:
        """A GPUArray in row-major order: over the same memory where `x` is an array on the GPU."""
        if isinstance(x, _array_class()) and x.flags.c_contiguous:
            return x
        if not isinstance(x, np.ndarray | np.generic):
            x = self._of_others(x)
            if x.flags.c_contiguous:
                return x
            found = self.empty(x.shape, x.dtype)
            if x.itemsize not in self.copying:
                self.copying[x.itemsize] = copying(self, x.itemsize)
            if self.copying[x.itemsize](found, x):
                return found
            x = self.host(x)
        x = np.asarray(x, order="C")
        found = self.empty(x.shape, x.dtype)
        if x.size and _own.graph is None:
            self.drv.memcpy_htod(found.gpudata, x)
        elif x.size:
            self._upload(found, x)
        return found

    def there(self, x: Any) -> Any:
        return x if isinstance(x, _array_class()) else self.array(x)

    def keep(self, x: np.ndarray) -> Any:
        return self.array(x)  # PyCUDA waits for its copies

    def _upload(self, target: Any, x: Any) -> None:
        """While a graph is recorded: the host's array is copied to the GPU now, and from there in
        each run."""
        assert _own.graph is not None
        kept = self.empty(x.shape, x.dtype)
        _own.graph.held.append(kept)
        with driver.relaxed():
            self.drv.memcpy_htod(kept.gpudata, x)
        self.copy(target, kept)

    def _of_others(self, x: Any) -> Any:
        if isinstance(x, self.GPUArray) and _own.outer not in (0, self._handle()):
            raise TypeError(
                "got a GPUArray of another context: pycuda.autoinit makes one of its own, "
                "import pycuda.autoprimaryctx instead"
            )
        if not hasattr(x, "__cuda_array_interface__"):
            raise TypeError(f"got {type(x).__name__}, which PyCUDA can't take: copy it to the host")
        given = x.__cuda_array_interface__
        if stream := given.get("stream"):
            driver.wait(stream)
        address, dtype = given["data"][0], np.dtype(given["typestr"])
        strides = given.get("strides")
        return _array_class()(given["shape"], dtype, base=x, gpudata=address, strides=strides)

    def _handle(self) -> int:
        return driver.current_context()

    def empty(self, shape: Sequence[int], dtype: Any) -> Any:
        return _made(shape, dtype)

    def fill(self, x: Any, value: Any) -> None:
        unit = np.asarray(value, x.dtype).tobytes()
        if unit[4:] == unit[:4]:  # the driver has no units of 8 bytes
            unit = unit[:4]
        if len(unit) > 4:
            x[...] = self.array(np.full(x.shape, value, x.dtype))
        elif x.size:
            driver.repeat(self.address(x), unit, x.nbytes // len(unit), _own.stream)

    def host(self, x: Any) -> Any:
        if isinstance(x, np.ndarray) or not hasattr(x, "__cuda_array_interface__"):
            return x
        return x.get() if isinstance(x, _array_class()) else self._of_others(x).get()

    def address(self, x: Any) -> int:
        return int(x.gpudata)

    def build(self, source: str, name: str) -> Any:
        return driver.build(source, name)

    def launch(self, kernel: Any, launch: Launch, arguments: Sequence[int]) -> None:
        driver.launch(kernel, launch, arguments, _own.stream)

    def multiply(self, found: Any, x: Any, y: Any, precision: str) -> None:
        (rows, depth), wide = x.shape, y.shape[1]
        how = _matmul(x.dtype.name, -(-rows // _TILE) * -(-wide // _TILE))
        given = [rows, wide, depth]
        for a in (x, y):
            given += [self.address(a), *(s // a.itemsize for s in a.strides)]
        self.launch(self.build(how.source, how.name), how, [*given, self.address(found)])

    def copy(self, target: Any, source: Any) -> None:
        if target.size:
            driver.copy(self.address(target), self.address(source), target.nbytes, _own.stream)

    def put(self, target: Any, source: Any) -> None:
        target[...] = source

    def write(self, target: int, source: np.ndarray) -> None:
        driver.write(target, source, _own.stream)

    def move(self, target: int, source: int, size: int) -> None:
        driver.copy(target, source, size, _own.stream)

    def allocate(self, size: int) -> tuple[Any, int]:
        memory = _Memory(size)
        return memory, int(memory.held)

    def view(
        self, base: Any, address: int, shape: Sequence[int], strides: Sequence[int], dtype: Any
    ) -> Any:  # fmt: skip
        return _array_class()(shape, dtype, base=base, gpudata=address, strides=strides)

    def stream(self) -> Any:
        return 0

    @contextlib.contextmanager
    def capture(self) -> Iterator[driver.Graph]:
        own, graph, memory = _own, driver.Graph(), _Pool()
        graph.held.append(memory)
        outer = own.pool
        with driver.own_stream() as stream:
            own.pool, own.stream, own.graph = memory.pool, stream, graph
            try:
                with driver.capture(graph, stream):
                    yield graph
            finally:
                own.pool, own.stream, own.graph = outer, 0, None

    def replay(self, graph: driver.Graph) -> None:
        graph.launch(0)

    def uploads(self) -> driver.Uploads:
        return driver.Uploads(self.address, lambda: 0)


def _number() -> int:
    """Which GPU: PyCUDA's own variable says it."""
    return int(os.environ.get("CUDA_DEVICE", "0"))


_TILE, _THREADS, _SHARED = 32, 64, 512  # as kernels/matmul.h has them


def _matmul(dtype: str, blocks: int) -> Launch:
    c = {"float32": "float", "float64": "double"}[dtype]
    source = f"""#include "matmul.h"

extern "C" __global__ void matmul(
        long long rows, long long wide, long long depth, const {c} *a, long long a_row,
        long long a_column, const {c} *b, long long b_row, long long b_column, {c} *c) {{
    GS_SHARED(shared);
    gs_matmul(rows, wide, depth, a, a_row, a_column, b, b_row, b_column, c, ({c} *)shared);
}}
"""
    return Launch(
        name="matmul", source=source, arguments=(), grid=blocks, block=_THREADS,
        shared=_SHARED * np.dtype(dtype).itemsize, cooperative=False, scope="block",
        reason="PyCUDA has no product", meetings=0,
    )  # fmt: skip
