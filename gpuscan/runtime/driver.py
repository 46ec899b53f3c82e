"""What the devices that are real share: NVIDIA's driver, called by ctypes.

It loads a cubin into the context that CuPy or PyCUDA made, knows the GPU's limits, and starts
kernels. Neither library starts a cooperative one as it must be: PyCUDA can't, and CuPy makes a grid
that is too large smaller without a word.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..codegen.limits import PRESETS, Limits, occupancy
from ..codegen.program import Launch
from ..errors import BuildError, DeviceError
from ..record import field, record, replace
from . import nvrtc
from .device import cpu, no_gpu

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_SHARED_DEFAULT = 48 * 1024  # bytes that a block has without being asked for

# of a device, as cuda.h numbers them
_THREADS_BLOCK, _WARP, _CLOCK, _MULTIPROCESSORS = 1, 10, 13, 16
_MEMORY_CLOCK, _MEMORY_BITS, _L2, _THREADS = 36, 37, 38, 39
_MAJOR, _MINOR, _SHARED, _REGISTERS, _COOPERATIVE = 75, 76, 81, 82, 95
_SHARED_BLOCK, _BLOCKS, _SHARED_RESERVED = 97, 106, 111
# of a kernel
_KERNEL_SHARED, _KERNEL_REGISTERS, _KERNEL_MOST_SHARED = 1, 4, 8

_NO_DEVICE = 100
_NO_MEMORY, _BUSY = 2, 46
_WORDS = {  # as cuda.h names them, and what the driver says
    _NO_MEMORY: ("OUT_OF_MEMORY", "out of memory"),
    _BUSY: ("DEVICE_UNAVAILABLE", "cuda-capable device(s) is/are busy or unavailable"),
    214: ("ECC_UNCORRECTABLE", "uncorrectable ecc error encountered"),
    700: ("ILLEGAL_ADDRESS", "an illegal memory access was encountered"),
    702: ("LAUNCH_TIMEOUT", "the launch timed out and was terminated"),
    709: ("CONTEXT_IS_DESTROYED", "context is destroyed"),
    710: ("ASSERT", "device-side assert triggered"),
    714: ("HARDWARE_STACK_ERROR", "hardware stack error"),
    715: ("ILLEGAL_INSTRUCTION", "an illegal instruction was encountered"),
    716: ("MISALIGNED_ADDRESS", "misaligned address"),
    717: ("INVALID_ADDRESS_SPACE", "operation not supported on global/shared address space"),
    718: ("INVALID_PC", "invalid program counter"),
    719: ("LAUNCH_FAILED", "unspecified launch failure"),
    721: ("TENSOR_MEMORY_LEAK", "tensor memory not completely freed"),
    999: ("UNKNOWN", "unknown error"),
}

_lock = threading.Lock()


@record
class Loaded:
    """A kernel in a context: the driver's handle, and what it takes of a multiprocessor."""

    name: str
    function: int
    registers: int  # a thread
    static: int  # bytes of shared memory that the launch does not name
    limits: Limits = field(compare=False)
    fitting: set[Any] = field(default_factory=set, compare=False)  # how it was started


# ---- whether there is a GPU ----------------------------------------------------------------------


def missing() -> str:
    """Why no kernel can be run by the driver, or nothing."""
    if reason := no_gpu():
        return reason
    found = _found()
    if isinstance(found, str):
        return found
    return "" if _stands_in() else nvrtc.missing()


def _stands_in() -> bool:
    """Whether the driver is the stand-in of the tests (kernels/emulated_driver.cpp)."""
    return os.environ.get("GPUSCAN_STAND_IN_DRIVER") == "1"


@functools.cache
def _found() -> Any:
    """The driver's library, or why there is none."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as e:
        return f"NVIDIA's driver is not installed, or not in this container: {e}"
    types: list[Any] = [ctypes.c_void_p, *[ctypes.c_uint] * 7, *[ctypes.c_void_p] * 3]
    library.cuLaunchKernel.argtypes = types
    library.cuLaunchCooperativeKernel.argtypes = types[:-1]
    if status := library.cuInit(0):
        if status == _NO_DEVICE:
            return "the driver sees no GPU (CUDA_VISIBLE_DEVICES hides those that it names not)"
        return f"NVIDIA's driver does not start: {_words(library, status)}"
    return library


def _driver() -> Any:
    found = _found()
    if isinstance(found, str):
        raise DeviceError(found)
    return found


def version() -> tuple[int, int]:
    """The CUDA version that the driver knows. Raises DeviceError where there is none."""
    number = ctypes.c_int()
    _check(_driver().cuDriverGetVersion(ctypes.byref(number)), "asking for the driver's version")
    return number.value // 1000, number.value % 1000 // 10


# ---- errors --------------------------------------------------------------------------------------


def _words(library: Any, status: int) -> str:
    name, text = ctypes.c_char_p(), ctypes.c_char_p()
    library.cuGetErrorName(status, ctypes.byref(name))
    library.cuGetErrorString(status, ctypes.byref(text))
    words = [x.value.decode(errors="replace") for x in (name, text) if x.value]
    return ": ".join(dict.fromkeys(words)) or f"error {status}"


def _check(status: int, doing: str) -> None:
    if status:
        raise DeviceError(f"{doing} failed: {_words(_driver(), status)}{_cure(status)}")


def _cure(status: int) -> str:
    """What helps, behind the words of an error."""
    if status not in _WORDS:
        return ""
    if status == _NO_MEMORY:
        return (
            ". Less is needed for a smaller batch, by scan(memory='carries'), and where loops are "
            "fused (function(fuse='auto')); a function's memory_report() says what takes how much"
        )
    other = f"device={cpu()!r} runs the same function without a GPU"
    if status == _BUSY:
        return (
            ". Another process may have the GPU for itself: end that, or name another GPU by "
            f"CUDA_VISIBLE_DEVICES. {other}"
        )
    return (
        f". After such an error the process's GPU context is lost: start the program again. {other}"
    )


def _status(error: Exception) -> int:
    """The driver's number for what CuPy or PyCUDA raised, or 0. CuPy's errors have it (the runtime
    counts those of `_WORDS` alike); PyCUDA's only say the driver's words."""
    if isinstance(found := getattr(error, "status", None), int):
        return found
    said = str(error)
    for status, (name, words) in _WORDS.items():
        if f"CUDA_ERROR_{name}" in said or words in said.lower():
            return status
    return 0


@contextlib.contextmanager
def _ended(end: Callable[[], int], doing: str) -> Iterator[None]:
    """A block with a clean-up. An error of the block is not replaced by one of the clean-up."""
    try:
        yield
    except BaseException as e:
        _note(e, end(), doing)
        raise
    _check(end(), doing)


def _note(error: BaseException, status: int, doing: str) -> None:
    if status:
        error.add_note(f"{doing} failed, too: {_words(_driver(), status)}")


def failed(error: Exception, doing: str) -> DeviceError:
    """What CuPy or PyCUDA say of a failure, as gpuscan says it. A kernel's failure shows at the
    next call that waits for it."""
    words = f"{doing} failed: {type(error).__name__}: {error}".rstrip(".")
    found = DeviceError(words + _cure(_status(error)))
    for note in getattr(error, "__notes__", ()):  # where in the graph, in which step
        found.add_note(note)
    return found


# ---- the device that is current ------------------------------------------------------------------


def current_context() -> int:
    """The handle of the thread's context; 0 where it has none."""
    context = ctypes.c_void_p()
    _check(_driver().cuCtxGetCurrent(ctypes.byref(context)), "asking for the current context")
    return context.value or 0


def make_current(device: int) -> int:
    """The handle of the thread's context, which is one of the device: where it has none yet, or
    another device's, it gets the primary one, as from CUDA's runtime at its first call that needs
    one."""
    if (current := current_context()) and current_device() == device:
        return current
    library, context = _driver(), ctypes.c_void_p()
    status = library.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
    _check(status or library.cuCtxSetCurrent(context), f"making GPU {device} current")
    return context.value or 0


def wait(stream: int) -> None:
    """Until all that was started on a stream is done."""
    _check(_driver().cuStreamSynchronize(ctypes.c_void_p(stream)), "waiting for a stream")


def current_device() -> int:
    """The number of the current context's device. Raises DeviceError where none is current."""
    number = ctypes.c_int()
    _check(_driver().cuCtxGetDevice(ctypes.byref(number)), "asking for the current GPU")
    return number.value


def name_of(device: int) -> str:
    name = ctypes.create_string_buffer(256)
    _check(_driver().cuDeviceGetName(name, 256, device), "asking for a GPU's name")
    return name.value.decode(errors="replace")


@functools.cache
def limits(device: int) -> Limits:
    """What the GPU of a number says of itself; what it does not say, as for the GPU that is
    described of its architecture. Raises DeviceError for one that is too old."""

    def value(attribute: int) -> int:
        found = ctypes.c_int()
        status = _driver().cuDeviceGetAttribute(ctypes.byref(found), attribute, device)
        _check(status, "asking for a GPU's limits")
        return found.value

    major, minor = value(_MAJOR), value(_MINOR)
    if (major, minor) < (7, 5):
        raise DeviceError(
            f"{name_of(device)} has compute capability {major}.{minor}; gpuscan's kernels need 7.5 "
            "(Turing, of 2018) or newer. Use device 'native'."
        )
    like = _described(major, minor)
    rate = 2 * 1000.0 * value(_MEMORY_CLOCK) * value(_MEMORY_BITS) / 8
    return replace(
        like,
        name=name_of(device),
        architecture=f"sm_{major}{minor}",
        multiprocessors=value(_MULTIPROCESSORS),
        clock=1000.0 * value(_CLOCK) or like.clock,
        threads_block=value(_THREADS_BLOCK),
        threads_multiprocessor=value(_THREADS),
        blocks_multiprocessor=value(_BLOCKS),
        registers_multiprocessor=value(_REGISTERS),
        shared_block=value(_SHARED_BLOCK),
        shared_multiprocessor=value(_SHARED),
        shared_reserved=value(_SHARED_RESERVED),
        memory_rate=rate or like.memory_rate,
        l2=value(_L2),
        warp=value(_WARP),
    )


def _described(major: int, minor: int) -> Limits:
    """The described GPU of the architecture, or of the newest that is not newer than it."""
    numbers = {int(g.architecture[3:]): g for g in reversed(PRESETS.values())}
    return numbers[max(n for n in numbers if n <= 10 * major + minor)]


# ---- kernels -------------------------------------------------------------------------------------


def image(source: str, name: str, architecture: str) -> bytes:
    """What the driver loads for a text. Raises BuildError with the numbered text."""
    if _stands_in():  # it runs what the emulator builds
        return _emulated(source, name)
    return nvrtc.compile(source, _known(architecture)).image


def _emulated(source: str, name: str) -> bytes:
    from . import emulator

    text = emulator._with_entries(source, [name])
    built: bytes = emulator._built([*emulator.FLAGS, "-shared"], text, Path.read_bytes)
    return built


@functools.cache
def _known(architecture: str) -> str:
    """The architecture, or the newest before it in its generation that NVRTC compiles for: what is
    compiled for one runs on those that follow. Raises BuildError where there is none."""
    number, known = int(architecture[3:]), [int(a[3:]) for a in nvrtc.architectures()]
    fitting = [n for n in known if n // 10 == number // 10 and n <= number]
    if not fitting:
        version = ".".join(map(str, nvrtc.version()))
        raise BuildError(
            f"NVRTC {version} does not compile for this GPU ({architecture}): "
            "pip install --upgrade nvidia-cuda-nvrtc"
        )
    return f"sm_{max(fitting)}"


_loaded: dict[Any, Loaded] = {}


def build(source: str, name: str) -> Loaded:
    """The kernel of a text, in the current context. Raises BuildError with the numbered text."""
    key = (current_context(), source, name)
    with _lock:
        if key not in _loaded:
            _loaded[key] = _load(_driver(), source, name)
        return _loaded[key]


def _load(library: Any, source: str, name: str) -> Loaded:
    found = limits(current_device())
    code = image(source, name, found.architecture)
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    if status := library.cuModuleLoadData(ctypes.byref(module), code):
        raise BuildError(_refused(library, status, name))
    status = library.cuModuleGetFunction(ctypes.byref(function), module, name.encode())
    _check(status, f"loading kernel {name!r}")
    assert function.value is not None

    def value(attribute: int) -> int:
        taken = ctypes.c_int()
        status = library.cuFuncGetAttribute(ctypes.byref(taken), attribute, function)
        _check(status, f"asking what kernel {name!r} takes")
        return taken.value

    registers, static = value(_KERNEL_REGISTERS), value(_KERNEL_SHARED)
    return Loaded(name, function.value, registers, static, found)


def _refused(library: Any, status: int, name: str) -> str:
    words = f"the driver does not load kernel {name!r}: {_words(library, status)}"
    if _stands_in():
        return words
    made, known = nvrtc.version(), version()
    if made[0] > known[0]:
        words += (
            f". NVRTC {made[0]}.{made[1]} is newer than the driver (CUDA {known[0]}.{known[1]}): "
            f"update the driver, or pip install nvidia-cuda-nvrtc-cu{known[0]}"
        )
    return words


class _Given(threading.local):
    """Where the driver reads a kernel's arguments, which it has done when a launch returns."""

    def __init__(self) -> None:
        self.made: dict[int, tuple[Any, Any]] = {}  # by their number

    def places(self, arguments: Sequence[int]) -> Any:
        n = len(arguments)
        if n not in self.made:
            values = (ctypes.c_int64 * n)()
            first = ctypes.addressof(values)
            self.made[n] = values, (ctypes.c_void_p * n)(*range(first, first + 8 * n, 8))
        values, places = self.made[n]
        values[:] = arguments
        return places


_given = _Given()


def launch(kernel: Loaded, how: Launch, arguments: Sequence[int], stream: int) -> None:
    """Starts a kernel on a stream of the current context. Raises DeviceError where it does not fit
    the GPU, or the driver refuses it."""
    start = how.grid, how.block, how.shared, how.cooperative
    if start not in kernel.fitting:
        _check_fit(kernel, how)
        kernel.fitting.add(start)
    library = _driver()
    if how.shared + kernel.static > _SHARED_DEFAULT:
        status = library.cuFuncSetAttribute(
            ctypes.c_void_p(kernel.function), _KERNEL_MOST_SHARED, how.shared
        )
        _check(status, f"asking for {how.shared} bytes of shared memory for kernel {how.name!r}")
    places = _given.places(arguments)
    given = (kernel.function, how.grid, 1, 1, how.block, 1, 1, how.shared, stream, places)
    if how.cooperative:
        status = library.cuLaunchCooperativeKernel(*given)
    else:
        status = library.cuLaunchKernel(*given, None)
    _check(status, f"kernel {how.name!r} (grid {how.grid}, block {how.block})")


def _check_fit(kernel: Loaded, how: Launch) -> None:
    """Raises DeviceError where the GPU can't run a block, or, of a cooperative grid, not all blocks
    together: they would wait for each other for ever."""
    most, shared = kernel.limits, how.shared + kernel.static
    together = occupancy(most, how.block, kernel.registers, shared)
    takes = f"{how.block} threads, {kernel.registers} registers each, {shared} bytes shared"
    if together == 0:
        raise DeviceError(
            f"kernel {how.name!r}: a block of {takes} does not fit a multiprocessor of {most.name} "
            f"({most.threads_block} threads, {most.registers_multiprocessor} registers, "
            f"{most.shared_block} bytes). {_WAY_OUT}"
        )
    room = together * most.multiprocessors
    if how.cooperative and how.grid > room:
        raise DeviceError(
            f"kernel {how.name!r}: its {how.grid} blocks must run together, and {most.name} runs "
            f"{room} ({together} on each of {most.multiprocessors} multiprocessors, for blocks of "
            f"{takes}). {_WAY_OUT}"
        )


# ---- graphs --------------------------------------------------------------------------------------

_NON_BLOCKING = 1  # of a stream: the default stream has no order with it
_THREAD_LOCAL = 1  # while a thread captures, it may do nothing that is not recorded;
_RELAXED = 2  # or anything
_OF_GRAPHS = ("cuStreamBeginCapture_v2", "cuGraphInstantiateWithFlags")  # of CUDA 11.4


class Graph:
    """What a stream was given to do while it was captured. held: what has to live as long."""

    def __init__(self) -> None:
        self.context = current_context()
        self.handle = 0
        self.held: list[Any] = []

    def launch(self, stream: int) -> None:
        """Starts it. Raises DeviceError where that is refused."""
        status = _driver().cuGraphLaunch(ctypes.c_void_p(self.handle), ctypes.c_void_p(stream))
        _check(status, "a CUDA graph")

    def __del__(self) -> None:
        if self.handle:
            give_back("cuGraphExecDestroy", self.context, ctypes.c_void_p(self.handle))


@contextlib.contextmanager
def own_stream() -> Iterator[int]:
    """A new stream of the current context, to capture on: the default one can't be captured."""
    library, stream = _driver(), ctypes.c_void_p()
    _check(library.cuStreamCreate(ctypes.byref(stream), _NON_BLOCKING), "making a stream")
    with _ended(lambda: library.cuStreamDestroy_v2(stream), "giving back a stream"):
        yield stream.value or 0


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """What the collector gives back on the way would be captured, or end the capture."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextlib.contextmanager
def capture(graph: Graph, stream: int) -> Iterator[None]:
    """What is started on a stream within it is not run, but is the graph. Raises DeviceError where
    something can't be recorded; the capture has ended then. Garbage waits: memory of the GPU that
    the collector gives back on the way would end it too."""
    library, own = _driver(), ctypes.c_void_p(stream)
    if not all(hasattr(library, name) for name in _OF_GRAPHS):
        raise DeviceError("the driver is too old for CUDA graphs: CUDA 11.4 has what is needed")
    made, executable = ctypes.c_void_p(), ctypes.c_void_p()
    with without_collector():
        status = library.cuStreamBeginCapture_v2(own, _THREAD_LOCAL)
        _check(status, "starting to record a stream")
        try:
            yield
        except BaseException as e:
            library.cuStreamEndCapture(own, ctypes.byref(made))  # fails, as the capture has
            if made:
                _note(e, library.cuGraphDestroy(made), "giving back a CUDA graph")
            raise
        status = library.cuStreamEndCapture(own, ctypes.byref(made))
    _check(status, "recording a stream")
    status = library.cuGraphInstantiateWithFlags(
        ctypes.byref(executable), made, ctypes.c_ulonglong(0)
    )
    given_back = library.cuGraphDestroy(made)
    _check(status, "making a CUDA graph")
    graph.handle = executable.value or 0
    _check(given_back, "giving back a CUDA graph")


@contextlib.contextmanager
def relaxed() -> Iterator[None]:
    """Within a capture: the thread may do what is not recorded, as allocate memory."""
    library, mode = _driver(), ctypes.c_int(_RELAXED)

    def exchange() -> int:
        status: int = library.cuThreadExchangeStreamCaptureMode(ctypes.byref(mode))
        return status

    _check(exchange(), "pausing a capture")
    with _ended(exchange, "going on with a capture"):
        yield


def copy(target: int, source: int, size: int, stream: int) -> None:
    """Copies so many bytes from one place of the GPU's memory to another, in a stream's order."""
    status = _driver().cuMemcpyDtoDAsync_v2(
        ctypes.c_uint64(target), ctypes.c_uint64(source), ctypes.c_size_t(size),
        ctypes.c_void_p(stream),
    )  # fmt: skip
    _check(status, "copying on the GPU")


def write(target: int, source: np.ndarray, stream: int) -> None:
    """Copies an array of the host, in row-major order, to a place of the GPU's memory, in a
    stream's order. The array may change when it is back: of memory that is not page-locked the
    driver makes a copy first (CUDA driver API, "API synchronization behavior")."""
    status = _driver().cuMemcpyHtoDAsync_v2(
        ctypes.c_uint64(target), ctypes.c_void_p(source.ctypes.data),
        ctypes.c_size_t(source.nbytes), ctypes.c_void_p(stream),
    )  # fmt: skip
    _check(status, "copying to the GPU")


def repeat(target: int, unit: bytes, count: int, stream: int) -> None:
    """Writes a unit of 1, 2 or 4 bytes so many times to a place of the GPU's memory, in a stream's
    order."""
    call = getattr(_driver(), f"cuMemsetD{8 * len(unit)}Async")
    value = ctypes.c_uint(int.from_bytes(unit, sys.byteorder))
    status = call(
        ctypes.c_uint64(target), value, ctypes.c_size_t(count), ctypes.c_void_p(stream)
    )  # fmt: skip
    _check(status, "writing on the GPU")


# ---- copies from the host beside other work ------------------------------------------------------

_NO_TIMING = 2  # of an event


@contextlib.contextmanager
def _pushed(context: int) -> Iterator[Any]:
    """The driver, with the context as the thread's current one."""
    library, outer = _driver(), ctypes.c_void_p()
    _check(library.cuCtxPushCurrent_v2(ctypes.c_void_p(context)), "making a context current")
    with _ended(lambda: library.cuCtxPopCurrent_v2(ctypes.byref(outer)), "leaving a context"):
        yield library


def give_back(how: str, context: int, handle: ctypes.c_void_p | ctypes.c_uint64) -> None:
    """From a destructor, where nothing can be raised: what fails is a warning, which Python shows
    where it is asked to (-W default). At its end the driver frees what is left."""
    if sys.is_finalizing():
        return
    try:
        with _pushed(context) as library:
            _check(getattr(library, how)(handle), how)
    except DeviceError as e:
        warnings.warn(str(e), ResourceWarning, stacklevel=2)


class _Owned:
    """A handle of the driver, in a context, and how it is given back."""

    def __init__(self, give_back: str, context: int, handle: ctypes.c_void_p) -> None:
        self.give_back, self.context, self.handle = give_back, context, handle

    def __del__(self) -> None:
        give_back(self.give_back, self.context, self.handle)


class Uploads:
    """Copies from page-locked memory to the GPU on a stream of their own. address: of an array on
    the GPU; stream: gives the one on which arrays are made and used."""

    def __init__(self, address: Callable[[Any], int], stream: Callable[[], int]) -> None:
        self.address, self.stream = address, stream
        self.context, handle = current_context(), ctypes.c_void_p()
        status = _driver().cuStreamCreate(ctypes.byref(handle), _NON_BLOCKING)
        _check(status, "making a stream")
        self.own = _Owned("cuStreamDestroy_v2", self.context, handle)

    def staging(self, size: int) -> np.ndarray:
        handle = ctypes.c_void_p()
        with _pushed(self.context) as library:
            status = library.cuMemHostAlloc(ctypes.byref(handle), ctypes.c_size_t(size), 0)
            _check(status, f"allocating {size} bytes of page-locked memory")
        memory = (ctypes.c_uint8 * size).from_address(handle.value or 0)
        memory.owner = _Owned("cuMemFreeHost", self.context, handle)  # type: ignore[attr-defined]
        return np.ctypeslib.as_array(memory)

    def start(self, target: Any, source: np.ndarray) -> Any:
        if current_context() != self.context:
            raise DeviceError("minibatches are for the GPU that was current when prefetch() began")
        before, copied = self._event(), self._event()
        library, own = _driver(), self.own.handle
        status = library.cuEventRecord(before.handle, ctypes.c_void_p(self.stream()))
        status = status or library.cuStreamWaitEvent(own, before.handle, 0)
        status = status or library.cuMemcpyHtoDAsync_v2(
            ctypes.c_uint64(self.address(target)), ctypes.c_void_p(source.ctypes.data),
            ctypes.c_size_t(source.nbytes), own,
        )  # fmt: skip
        _check(status or library.cuEventRecord(copied.handle, own), "copying to the GPU")
        return copied

    def finish(self, copy: Any) -> None:
        _check(_driver().cuEventSynchronize(copy.handle), "copying to the GPU")

    def _event(self) -> _Owned:
        handle = ctypes.c_void_p()
        _check(_driver().cuEventCreate(ctypes.byref(handle), _NO_TIMING), "making an event")
        return _Owned("cuEventDestroy_v2", self.context, handle)


def not_read() -> DeviceError:
    return DeviceError("a value is read while a CUDA graph is recorded")


_WAY_OUT = "Make the loop's state smaller, or give function() fuse='never' or device='native'."
