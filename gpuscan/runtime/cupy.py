"""CUDA by CuPy: its memory, current device and current stream, its cuBLAS. The kernels are started
by the driver (driver.py)."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..codegen.limits import Limits
from ..codegen.program import Launch
from ..errors import DeviceError, first_line
from . import driver
from .tape import Tape

_OLDEST = 12  # of CuPy's major versions
_PER_THREAD = 2  # the stream that is another one in each thread
# cublas_api.h: CUBLAS_COMPUTE_32F and _64F; CUBLAS_COMPUTE_32F_FAST_16F, _16BF and _TF32
_COMPUTE = {"float32": 68, "float64": 70, "fp16": 74, "bf16": 75, "tf32": 77}
_KIND = {"float32": 0, "float64": 1}  # CUDA_R_32F and _64F
_NUMBERS = {dtype: np.array([1, 0], dtype) for dtype in _KIND}  # cuBLAS reads them from the host
_DEFAULT, _TENSOR_OP = -1, 99  # CUBLAS_GEMM_DEFAULT and _TENSOR_OP
_INSTALL = "pip install cupy-cuda13x (for CUDA 13) or cupy-cuda12x"


@functools.cache
def missing() -> str:
    """Why CuPy can't be used here, or nothing. Imports it where there is a GPU."""
    from importlib.util import find_spec

    if reason := driver.missing():
        return reason
    if find_spec("cupy") is None:
        return f"CuPy is not installed: {_INSTALL}"
    try:
        import cupy  # type: ignore[import-not-found,unused-ignore]

        return _unusable(cupy)
    except Exception as e:  # the import of a CuPy for another CUDA fails in many ways
        known = ".".join(map(str, driver.version()))
        return f"CuPy fails: {first_line(e)}. The driver is for CUDA {known}: {_INSTALL}"


def _unusable(cupy: Any) -> str:
    if int(cupy.__version__.partition(".")[0]) < _OLDEST:
        return f"CuPy {cupy.__version__} is too old, {_OLDEST} is needed: {_INSTALL}"
    if getattr(cupy.cuda.runtime, "is_hip", False):
        return f"this CuPy is for AMD's GPUs: {_INSTALL}"
    return "" if cupy.cuda.runtime.getDeviceCount() else "CuPy finds no GPU"


class _Thread(threading.local):
    """Where a thread works: the current device's number and context. What it records: the graph,
    and the stream that it worked on before."""

    device = context = 0
    graph: driver.Graph | None = None
    stream: Any = None


_own = _Thread()


def _check_place(x: Any) -> None:
    """Raises DeviceError for an array on a GPU that is not the current one."""
    if (there := x.data.device_id) != _own.device:
        raise DeviceError(
            f"an array is on GPU {there}, and GPU {_own.device} is CuPy's current device: make the "
            f"call within cupy.cuda.Device({there}), or copy the array: "
            f"with cupy.cuda.Device({_own.device}): x = cupy.asarray(x)"
        )


def _by_rows(x: Any) -> tuple[Any, int, int]:
    """A matrix that is not empty as cuBLAS can read it: where rows, or else (1) columns, are dense;
    and how many elements they are apart. Another one is copied."""
    (rows, columns), size = x.shape, x.itemsize
    down, right = x.strides
    if (right == size or columns == 1) and (down >= columns * size or rows == 1):
        return x, 0, columns if rows == 1 else down // size
    if (down == size or rows == 1) and (right >= rows * size or columns == 1):
        return x, 1, rows if columns == 1 else right // size
    return x.copy(order="C"), 0, columns


@functools.cache
def _cublas(version: int) -> Any:
    """The library that CuPy has loaded; version: as cuBLAS says it."""
    major = version // (10000 if version >= 100000 else 1000)
    library = ctypes.CDLL(f"libcublas.so.{major}", mode=getattr(os, "RTLD_NOLOAD", 0))
    at, n = ctypes.c_void_p, ctypes.c_int
    library.cublasSetStream_v2.argtypes = at, at
    library.cublasGemmEx.argtypes = (
        at, n, n, n, n, n, at, at, n, n, at, n, n, at, at, n, n, n, n,
    )  # fmt: skip
    return library


class CuPy:
    """All arrays are `cupy.ndarray`, from the current allocator, on the current device; all work is
    on the current stream."""

    name = "cupy"
    scope = ""
    has_own_arrays = True
    tape: Tape | None = None

    def __init__(self) -> None:
        import cupy

        self.cupy = cupy

    @property
    def limits(self) -> Limits:
        return driver.limits(self.cupy.cuda.Device().id)

    @property
    def place(self) -> Any:
        return _own.context

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        _own.device = self.cupy.cuda.Device().id
        _own.context = driver.make_current(_own.device)
        cuda = self.cupy.cuda
        try:
            yield
        except (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError) as e:
            raise driver.failed(e, "work on the GPU") from e
        except cuda.cublas.CUBLASError as e:
            raise driver.failed(e, "a product by cuBLAS") from e
        except cuda.memory.OutOfMemoryError as e:
            raise driver.failed(e, "allocating memory on the GPU") from e

    def array(self, x: Any) -> Any:
        """A cupy.ndarray in row-major order: `x` itself where it is one. Of other GPU arrays no
        copy is made, and what computes them is waited for."""
        cupy = self.cupy
        if isinstance(x, np.ndarray | np.generic):
            return self._uploaded(x) if _own.graph else cupy.asarray(x, order="C")
        if not isinstance(x, cupy.ndarray):
            x = self._of_others(x)
        _check_place(x)
        return x if x.flags.c_contiguous else x.copy(order="C")

    def there(self, x: Any) -> Any:
        if not isinstance(x, self.cupy.ndarray):
            return self.array(x)
        _check_place(x)
        return x

    def keep(self, x: np.ndarray) -> Any:
        """Waits for the copy, which has no order with work on other streams."""
        stream = _own.stream or self.cupy.cuda.get_current_stream()
        with driver.relaxed() if _own.graph else contextlib.nullcontext(), stream:
            kept = self.cupy.asarray(x, order="C")
            stream.synchronize()
        return kept

    def _uploaded(self, x: Any) -> Any:
        """While a graph is recorded: the host's array is copied to the GPU now, and from there in
        each run. A graph that copied it from the host would find other memory there."""
        kept = self.keep(x)
        assert _own.graph is not None
        _own.graph.held.append(kept)
        found = self.empty(kept.shape, kept.dtype)
        self.copy(found, kept)
        return found

    def _of_others(self, x: Any) -> Any:
        """By DLPack the array's owner makes our stream wait. The other protocol names a stream to
        wait for, which PyCUDA leaves out: its own is the default stream."""
        if hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__"):
            return self.cupy.from_dlpack(x)
        if type(x).__module__.startswith("pycuda"):
            self.cupy.cuda.Stream.null.synchronize()
        return self.cupy.asarray(x)

    def empty(self, shape: Sequence[int], dtype: str) -> Any:
        return self.cupy.empty(tuple(shape), dtype)

    def fill(self, x: Any, value: Any) -> None:
        x.fill(value)

    def host(self, x: Any) -> Any:
        if not isinstance(x, self.cupy.ndarray):
            return x
        if _own.graph is not None:
            raise driver.not_read()
        return self.cupy.asnumpy(x)

    def address(self, x: Any) -> int:
        return int(x.data.ptr)

    def build(self, source: str, name: str) -> Any:
        return driver.build(source, name)

    def launch(self, kernel: Any, launch: Launch, arguments: Sequence[int]) -> None:
        driver.launch(kernel, launch, arguments, self.cupy.cuda.get_current_stream().ptr)

    def multiply(self, found: Any, x: Any, y: Any, precision: str) -> None:
        """By cuBLAS, which has matrices by columns: of what is by rows it finds y.T and x.T in
        memory, and it leaves (x @ y).T, which is y.T @ x.T."""
        x, x_turned, x_apart = _by_rows(x)
        y, y_turned, y_apart = _by_rows(y)
        (rows, depth), wide = x.shape, y.shape[1]
        dtype = x.dtype.name
        how = precision if dtype == "float32" else dtype
        kind, one = _KIND[dtype], _NUMBERS[dtype].ctypes.data
        algorithm = _DEFAULT
        if how == dtype and self.limits.architecture != "sm_75":
            algorithm = _TENSOR_OP  # as CuPy has it
        cuda = self.cupy.cuda
        handle = cuda.device.get_cublas_handle()
        given = (
            handle, y_turned, x_turned, wide, rows, depth, one, y.data.ptr, kind, y_apart,
            x.data.ptr, kind, x_apart, one + x.itemsize, found.data.ptr, kind, wide,
            _COMPUTE[how], algorithm,
        )  # fmt: skip
        if _own.graph is None:
            cuda.cublas.gemmEx(*given)
            return
        # CuPy refuses to call cuBLAS where that is recorded (cupy/cupy#6290), which it can be
        library = _cublas(cuda.cublas.getVersion(handle))
        stream = cuda.get_current_stream().ptr
        if status := library.cublasSetStream_v2(handle, stream) or library.cublasGemmEx(*given):
            raise DeviceError(f"cuBLAS failed with status {status}")

    def copy(self, target: Any, source: Any) -> None:
        if target.size:
            stream = self.cupy.cuda.get_current_stream().ptr
            driver.copy(target.data.ptr, source.data.ptr, target.nbytes, stream)

    def put(self, target: Any, source: Any) -> None:
        alike = target.shape == source.shape and target.dtype == source.dtype
        if alike and target.flags.c_contiguous and source.flags.c_contiguous:
            self.copy(target, source)
        else:
            target[...] = source

    def write(self, target: int, source: np.ndarray) -> None:
        driver.write(target, source, self.cupy.cuda.get_current_stream().ptr)

    def move(self, target: int, source: int, size: int) -> None:
        driver.copy(target, source, size, self.cupy.cuda.get_current_stream().ptr)

    def allocate(self, size: int) -> tuple[Any, int]:
        memory = self.cupy.cuda.alloc(size)
        return memory, int(memory.ptr)

    def view(
        self, base: Any, address: int, shape: Sequence[int], strides: Sequence[int], dtype: Any
    ) -> Any:  # fmt: skip
        memory = base.data if isinstance(base, self.cupy.ndarray) else base
        return self.cupy.ndarray(shape, dtype, memory + (address - memory.ptr), strides)

    def stream(self) -> Any:
        stream = self.cupy.cuda.get_current_stream().ptr
        own = threading.get_ident() if stream == _PER_THREAD else 0
        return _own.context, stream, own

    @contextlib.contextmanager
    def capture(self) -> Iterator[driver.Graph]:
        """On a stream of its own, as the null stream can't be captured; the graph is started on
        the current one."""
        cuda, graph = self.cupy.cuda, driver.Graph()
        outer, stream = cuda.get_current_stream(), cuda.Stream(non_blocking=True)
        allocator = cuda.get_allocator()

        def taken(size: int) -> Any:
            with outer:  # an allocator's own work on the stream is not for the graph
                return allocator(size)

        # Each run of the graph writes to the same memory, which nobody else may get between two of
        # them: so it goes through a pool of the graph's own, from which the graph alone takes it.
        pool = cuda.MemoryPool(taken)

        def allocated(size: int) -> Any:
            with driver.relaxed():
                return pool.malloc(size)

        graph.held += [pool, stream]
        _own.graph, _own.stream = graph, outer
        try:
            with cuda.using_allocator(allocated), stream, driver.capture(graph, stream.ptr):
                yield graph
        finally:
            _own.graph = _own.stream = None

    def replay(self, graph: driver.Graph) -> None:
        graph.launch(self.cupy.cuda.get_current_stream().ptr)

    def uploads(self) -> driver.Uploads:
        return driver.Uploads(self.address, lambda: self.cupy.cuda.get_current_stream().ptr)
