"""A double of CuPy, which can't run without a GPU: what gpuscan uses of it, by its documentation
(12 to 14), over NumPy's memory. It takes what CuPy takes, refuses what CuPy refuses, and records
every call. The driver that starts the kernels is the stand-in of kernels/emulated_driver.cpp, whose
calls are recorded, too: so results are right or wrong.

A double proves that calls are as documented, and nothing about a GPU."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stand_in import build

import gpuscan
from gpuscan.runtime import cupy as cupy_device
from gpuscan.runtime import driver
from gpuscan.runtime.emulated import rounded

ROOT = Path(gpuscan.__file__).resolve().parents[1]


# ---- the double ----------------------------------------------------------------------------------


class Error(RuntimeError): ...


class Flags:
    def __init__(self, x: np.ndarray) -> None:
        self.c_contiguous = x.flags.c_contiguous


class Memory:
    """cupy.cuda.Memory, and the pointer to it: memory of the driver."""

    def __init__(self, cupy: CuPy, size: int) -> None:
        self.cupy, self.mem, address = cupy, self, ctypes.c_uint64()
        cupy.check(cupy.library.cuMemAlloc_v2(ctypes.byref(address), size))
        self.ptr = address.value
        cupy.places[self.ptr] = size, cupy.device

    def __del__(self) -> None:
        del self.cupy.places[self.ptr]
        self.cupy.check(self.cupy.library.cuMemFree_v2(ctypes.c_uint64(self.ptr)))


class Pointer:
    """cupy.cuda.MemoryPointer: memory of a pool, which gets it back."""

    def __init__(self, pool: MemoryPool, key: tuple[int, int, int], held: Any) -> None:
        self.pool, self.key, self.held, self.ptr = pool, key, held, held.ptr

    @property
    def mem(self) -> Pointer:
        return self

    def __del__(self) -> None:
        self.pool.free.setdefault(self.key, []).append(self.held)


class MemoryPool:
    """cupy.cuda.MemoryPool: what is free serves again, on the stream that it was for."""

    def __init__(self, cupy: CuPy, allocator: Any = None) -> None:
        self.cupy = cupy
        self.allocator = allocator or functools.partial(Memory, cupy)
        self.free: dict[tuple[int, int, int], list[Any]] = {}

    def malloc(self, size: int) -> Pointer:
        key = (self.cupy.device, self.cupy.stream, size)
        if found := self.free.get(key):
            return Pointer(self, key, found.pop())
        return Pointer(self, key, self.allocator(size).mem)


class Stream:
    """cupy.cuda.Stream; within it, it is the current one."""

    def __init__(self, cupy: CuPy, non_blocking: bool = False, ptr: int | None = None) -> None:
        self.cupy, self.ptr = cupy, ptr or 0
        self.outer: list[int] = []  # it may be entered again
        self.is_own = ptr is None
        if self.is_own:
            made = ctypes.c_void_p()
            cupy.check(cupy.library.cuStreamCreate(ctypes.byref(made), int(non_blocking)))
            self.ptr = made.value or 0

    def __enter__(self) -> Stream:
        self.outer.append(self.cupy.stream)
        self.cupy.stream = self.ptr
        return self

    def __exit__(self, *_: Any) -> None:
        self.cupy.stream = self.outer.pop()

    def synchronize(self) -> None:
        self.cupy.log("wait for the stream", self.ptr)

    def __del__(self) -> None:
        if self.is_own:
            self.cupy.check(self.cupy.library.cuStreamDestroy_v2(ctypes.c_void_p(self.ptr)))


def placed(memory: np.ndarray) -> np.ndarray:
    """The same memory, which it does not keep: as what is on a GPU's stream does not."""
    return np.asarray(types.SimpleNamespace(__array_interface__=memory.__array_interface__))


class Place:
    """cupy.cuda.MemoryPointer, which keeps its memory."""

    def __init__(self, cupy: CuPy, memory: Any, ptr: int, device: int) -> None:
        self.cupy, self.memory, self.ptr, self.device_id = cupy, memory, ptr, device

    def __add__(self, offset: int) -> Place:
        return Place(self.cupy, self.memory, self.ptr + offset, self.device_id)


class ndarray:
    """cupy.ndarray: never NumPy's without being asked, and never from NumPy's in an assignment."""

    def __init__(self, shape: Any, dtype: Any, memptr: Place, strides: Any) -> None:
        given = {"data": (memptr.ptr, False), "shape": tuple(shape), "strides": tuple(strides),
                 "typestr": np.dtype(dtype).str, "version": 3}  # fmt: skip
        held = types.SimpleNamespace(__array_interface__=given, memory=memptr.memory)
        self._set(memptr.cupy, np.asarray(held))

    @classmethod
    def over(cls, cupy: CuPy, memory: np.ndarray) -> ndarray:
        made = cls.__new__(cls)
        made._set(cupy, memory)
        return made

    def _set(self, cupy: CuPy, memory: np.ndarray) -> None:
        self.cupy, self.memory = cupy, memory
        self.shape, self.dtype, self.ndim = memory.shape, memory.dtype, memory.ndim
        self.strides, self.itemsize, self.size = memory.strides, memory.itemsize, memory.size
        self.nbytes, self.flags = memory.nbytes, Flags(memory)
        device = cupy.device_of(memory.ctypes.data) if self.size else cupy.device
        self.data = Place(cupy, memory, memory.ctypes.data, device)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __array_function__(self, function: Any, kinds: Any, args: Any, kwargs: Any) -> Any:
        """CuPy has NumPy's functions of views, and is asked for them by NumPy itself."""
        if function is np.shape:
            return args[0].shape
        if function not in (np.reshape, np.broadcast_to, np.squeeze, np.transpose):
            return NotImplemented
        own = [a.memory if isinstance(a, ndarray) else a for a in args]
        return ndarray.over(self.cupy, function(*own, **kwargs))

    def transpose(self, *axes: Any) -> ndarray:
        return ndarray.over(self.cupy, self.memory.transpose(*axes))

    def __len__(self) -> int:
        return len(self.memory)

    def __bool__(self) -> bool:
        self.cupy.log("wait")
        return bool(self.memory)

    def __getitem__(self, index: Any) -> ndarray:
        index = index if isinstance(index, tuple) else (index,)
        whole = index if any(i is ... for i in index) else (*index, ...)
        return ndarray.over(self.cupy, self.memory[whole])

    def __setitem__(self, index: Any, value: Any) -> None:
        if not isinstance(value, ndarray):
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        self.cupy.log("copy", self.nbytes)
        target, source = placed(self.memory), placed(value.memory)
        self.cupy.submit(lambda: target.__setitem__(index, source))

    def fill(self, value: Any) -> None:
        assert np.ndim(value) == 0
        self.cupy.log("fill", self.nbytes)
        target = placed(self.memory)
        self.cupy.submit(lambda: target.fill(value))

    def copy(self, order: str = "C") -> ndarray:
        found = self.cupy.empty(self.shape, self.dtype)
        self.cupy.log("copy", self.nbytes)
        target, source = placed(found.memory), placed(self.memory)
        self.cupy.submit(lambda: target.__setitem__(..., source))
        return found

    def get(self) -> np.ndarray:
        return self.cupy.asnumpy(self)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self.memory.__array_interface__, "version": 3, "stream": self.cupy.stream or 1}

    def __dlpack__(self, **_: Any) -> Any:
        return self

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.data.device_id


class Own(threading.local):
    """Of a thread: its stream, its allocator where it is not the pool, and cuBLAS's stream."""

    stream = blas_stream = 0
    allocator: Any = None


class CuPy(types.ModuleType):
    """The module, and what was called: (name, *arguments, current stream)."""

    def __init__(self, library: Any, version: str = "14.2.0") -> None:
        super().__init__("cupy")
        self.library = library
        self.own, self.pool = Own(), MemoryPool(self)
        self.callbacks: list[Any] = []
        self.__version__ = version
        self.__spec__ = types.SimpleNamespace(origin="a double")  # type: ignore[assignment]
        self.calls: list[tuple[Any, ...]] = []
        self.count, self.ndarray = 1, ndarray
        self.device = 0  # the current one
        self.places: dict[int, tuple[int, int]] = {}  # of memory: its size, on which device it is
        self.broken: Exception | None = None
        cuda = types.SimpleNamespace()
        cuda.runtime = types.SimpleNamespace(
            CUDARuntimeError=type("CUDARuntimeError", (Error,), {}), is_hip=False,
            getDeviceCount=self.devices,
        )  # fmt: skip
        cuda.driver = types.SimpleNamespace(CUDADriverError=type("CUDADriverError", (Error,), {}))
        cuda.memory = types.SimpleNamespace(
            OutOfMemoryError=type("OutOfMemoryError", (MemoryError,), {})
        )
        cuda.Device = lambda: types.SimpleNamespace(id=self.device)
        cuda.get_current_stream = lambda: Stream(self, ptr=self.stream)
        cuda.Stream = functools.partial(Stream, self)
        cuda.Stream.null = Stream(self, ptr=0)
        cuda.MemoryPool = functools.partial(MemoryPool, self)
        cuda.get_allocator = lambda: self.allocator
        cuda.cublas = types.SimpleNamespace(
            CUBLASError=type("CUBLASError", (Error,), {}), gemmEx=self.gemmEx,
            getVersion=lambda handle: 130200,
        )  # fmt: skip
        cuda.device = types.SimpleNamespace(get_cublas_handle=lambda: 0xB1A5 + self.device)
        cuda.using_allocator = self.using_allocator
        cuda.alloc = self.alloc
        self.cuda = cuda

    @property
    def stream(self) -> int:
        return self.own.stream

    @stream.setter
    def stream(self, stream: int) -> None:
        self.own.stream = stream

    @property
    def allocator(self) -> Any:
        return self.own.allocator or self.pool.malloc

    @allocator.setter
    def allocator(self, allocator: Any) -> None:
        self.own.allocator = allocator

    def check(self, status: int) -> None:
        if status:
            raise self.cuda.driver.CUDADriverError(f"error {status}")

    def device_of(self, address: int) -> int:
        for start, (size, device) in self.places.items():
            if start <= address < start + size:
                return device
        return self.device

    @contextlib.contextmanager
    def using_allocator(self, allocator: Any) -> Iterator[None]:
        outer, self.own.allocator = self.own.allocator, allocator
        try:
            yield
        finally:
            self.own.allocator = outer

    def is_capturing(self) -> bool:
        status = ctypes.c_int()
        self.library.cuStreamIsCapturing(ctypes.c_void_p(self.stream), ctypes.byref(status))
        return status.value > 0

    def submit(self, work: Any) -> None:
        """Work on the current stream."""
        if not self.is_capturing():
            work()
            return
        self.callbacks.append(ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: work()))
        stream = ctypes.c_void_p(self.stream)
        self.check(self.library.cuLaunchHostFunc(stream, self.callbacks[-1], None))

    def not_capturing(self) -> None:
        if self.is_capturing():
            raise RuntimeError("the current stream is capturing, so synchronous API calls are "
                               "disallowed")  # fmt: skip

    def log(self, *call: Any) -> None:
        if self.broken is not None:
            raise self.broken
        self.calls.append((*call, self.stream))

    def devices(self) -> int:
        self.log("getDeviceCount")
        return self.count

    def alloc(self, size: int) -> Place:
        self.log("allocate", size)
        pointer = self.allocator(size)
        ctypes.memset(pointer.ptr, 0xFF, size)
        return Place(self, pointer, pointer.ptr, self.device)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> ndarray:
        assert isinstance(shape, tuple)
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.log("allocate", size)
        pointer = self.allocator(max(size, 1))
        held = (ctypes.c_ubyte * max(size, 1)).from_address(pointer.ptr)
        held.pointer = pointer  # type: ignore[attr-defined]
        if not self.is_capturing():
            ctypes.memset(pointer.ptr, 0xFF, size)
        return ndarray.over(self, np.ndarray(shape, dtype, buffer=held))

    def asarray(self, x: Any, dtype: Any = None, order: str | None = None) -> ndarray:
        if isinstance(x, ndarray):
            return x
        if hasattr(x, "__cuda_array_interface__"):
            given = x.__cuda_array_interface__
            if given.get("stream"):
                self.log("wait for stream", given["stream"])
            return ndarray.over(self, np.asarray(types.SimpleNamespace(__array_interface__=given)))
        self.not_capturing()
        found = self.empty(np.shape(x), np.asarray(x).dtype)
        found.memory[...] = x
        self.log("to the GPU", found.nbytes)
        return found

    def from_dlpack(self, x: Any) -> ndarray:
        self.log("from_dlpack")
        return ndarray.over(self, x.__dlpack__().memory)

    def asnumpy(self, x: ndarray) -> np.ndarray:
        self.log("to the host", x.nbytes)
        self.not_capturing()
        return x.memory.copy()

    def gemmEx(self, *given: Any) -> None:
        """As 14.2 does it."""
        if self.is_capturing():
            raise NotImplementedError("calling cuBLAS API during stream capture is currently "
                                      "unsupported")  # fmt: skip
        self.own.blas_stream = self.stream
        if self.cublasGemmEx(*given):
            raise self.cuda.cublas.CUBLASError("CUBLAS_STATUS_INVALID_VALUE")

    def cublasSetStream_v2(self, handle: int, stream: int) -> int:
        assert handle == 0xB1A5 + self.device
        self.own.blas_stream = stream
        return 0

    def cublasGemmEx(
        self, handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int, A: int,
        Atype: int, lda: int, B: int, Btype: int, ldb: int, beta: int, C: int, Ctype: int,
        ldc: int, computeType: int, algo: int,
    ) -> int:  # fmt: skip
        """cuBLAS's own, of matrices of floats by columns."""
        self.log("gemmEx", transa, transb, m, n, k, lda, ldb, ldc, computeType)
        assert (handle, self.own.blas_stream) == (0xB1A5 + self.device, self.stream)
        kind = {0: ctypes.c_float, 1: ctypes.c_double}[Atype]
        dtype, size = np.dtype(kind), ctypes.sizeof(kind)
        assert Atype == Btype == Ctype
        assert [kind.from_address(x).value for x in (alpha, beta)] == [1, 0]
        exact = {0: 68, 1: 70}[Atype]
        precision = {exact: "float32", 74: "fp16", 75: "bf16", 77: "tf32"}[computeType]
        assert algo == (99 if computeType == exact else -1)

        def matrix(address: int, turned: int, rows: int, columns: int, apart: int) -> np.ndarray:
            rows, columns = (columns, rows) if turned else (rows, columns)
            n = apart * (columns - 1) + rows
            inside = [a <= address and address + size * n <= a + whole
                      for a, (whole, _) in self.places.items()]  # fmt: skip
            assert any(inside)
            flat = np.frombuffer((kind * n).from_address(address), dtype)
            found = np.lib.stride_tricks.as_strided(flat, (rows, columns), (size, size * apart))
            return found.T if turned else found

        if lda < (k if transa else m) or ldb < (n if transb else k) or ldc < m:
            return 7
        a, b = matrix(A, transa, m, k, lda), matrix(B, transb, k, n, ldb)
        c = matrix(C, 0, m, n, ldc)
        self.submit(lambda: np.matmul(rounded(a, precision), rounded(b, precision), out=c))
        return 0


class Contexts(threading.local):
    """Of a thread, devices: whose context is current, and whose were before."""

    def __init__(self) -> None:
        self.now, self.before = 0, []  # type: tuple[int, list[int]]


class Recorder:
    """The driver's library, which writes down what is called. The stand-in has one context: those
    of further devices have the handles behind it. A kernel of another device than the current
    context's, or with another device's memory, is refused."""

    def __init__(self, library: Any, cupy: CuPy) -> None:
        self.library, self.cupy = library, cupy
        self.contexts, found = Contexts(), ctypes.c_void_p()
        library.cuDevicePrimaryCtxRetain(ctypes.byref(found), 0)
        self.primary = found.value or 0
        self.loaded: dict[int, int] = {}  # a kernel's device
        self.failing: set[str] = set()  # calls that are made, and say that they failed

    def cuDevicePrimaryCtxRetain(self, context: Any, device: int) -> int:
        context._obj.value = self.primary + device
        return 0

    def cuCtxGetCurrent(self, context: Any) -> int:
        status: int = self.library.cuCtxGetCurrent(context)
        if context._obj.value:
            context._obj.value += self.contexts.now
        return status

    def cuCtxGetDevice(self, device: Any) -> int:
        device._obj.value = self.contexts.now
        return 0

    def cuCtxSetCurrent(self, context: Any) -> int:
        self.contexts.now = context.value - self.primary
        status: int = self.library.cuCtxSetCurrent(ctypes.c_void_p(self.primary))
        return status

    def cuCtxPushCurrent_v2(self, context: Any) -> int:
        own = self.contexts
        own.before.append(own.now)
        own.now = context.value - self.primary
        status: int = self.library.cuCtxPushCurrent_v2(ctypes.c_void_p(self.primary))
        return status

    def cuCtxPopCurrent_v2(self, context: Any) -> int:
        self.contexts.now = self.contexts.before.pop()
        status: int = self.library.cuCtxPopCurrent_v2(context)
        return status

    def cuDeviceGetAttribute(self, found: Any, attribute: int, device: int) -> int:
        status: int = self.library.cuDeviceGetAttribute(found, attribute, device)
        if attribute == 16:  # multiprocessors: each further device has half of them
            found._obj.value >>= device
        return status

    def cuModuleGetFunction(self, function: Any, *given: Any) -> int:
        status: int = self.library.cuModuleGetFunction(function, *given)
        self.loaded[function._obj.value] = self.contexts.now
        return status

    def is_foreign(self, kernel: int, addresses: Sequence[int]) -> bool:
        own = self.contexts.now
        return self.cupy.count > 1 and (
            self.loaded[kernel] != own
            or any(
                start <= a < start + size and device != own
                for a in addresses for start, (size, device) in self.cupy.places.items()
            )
        )  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.library, name)

        def call(*arguments: Any) -> Any:
            told = [getattr(a, "value", a) for a in arguments]
            if name.startswith("cuLaunch"):  # the kernel's arguments are there for the call only
                told[9] = [ctypes.c_uint64.from_address(a).value for a in arguments[9]]
                if self.is_foreign(told[0], told[9]):
                    return 700
            self.cupy.calls.append((name, *told, self.cupy.stream))
            status = function(*arguments)
            return 201 if name in self.failing else status

        return call


@pytest.fixture(name="cupy")
def cupy_double(monkeypatch: pytest.MonkeyPatch) -> Iterator[CuPy]:
    """The double, as `import cupy` finds it, on a driver that is the stand-in."""
    try:
        place = build.driver() / "libemulated_driver.so"
    except build.Missing as e:
        pytest.skip(f"no stand-in for the driver: {e}")
    monkeypatch.setenv("GPUSCAN_STAND_IN_DRIVER", "1")
    monkeypatch.setattr(driver, "LIBRARY", str(place))
    monkeypatch.setattr(driver, "_loaded", {})
    caches = (driver._found, driver.limits, cupy_device.missing)
    for cached in caches:
        cached.cache_clear()
    library = driver._found()
    assert not isinstance(library, str), library
    found = CuPy(library)
    monkeypatch.setitem(sys.modules, "cupy", found)
    driver.make_current(0)  # as CuPy does at its first call
    recorder = Recorder(library, found)
    monkeypatch.setattr(driver, "_driver", lambda: recorder)
    monkeypatch.setattr(cupy_device, "_cublas", lambda version: found)
    yield found
    gc.collect()  # graphs, while there is what takes them back
    library.cuCtxSetCurrent(None)
    for cached in caches:
        cached.cache_clear()
