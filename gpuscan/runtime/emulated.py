"""The emulated CUDA device: the texts of the kernels that a GPU runs, run by the host, for proof
where there is no GPU. Its arrays are NumPy's."""

from __future__ import annotations

import functools
import itertools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from ..codegen.limits import Limits, of
from ..codegen.program import Done, Held, Launch
from ..errors import DeviceError
from . import emulator
from .tape import Tape

_SCHEDULE = os.environ.get("GPUSCAN_EMULATED_SCHEDULE", "0")
_schedules = itertools.count(-1)


class _Thread(threading.local):
    """What a thread does not run but record."""

    recorded: Recorded | None = None


class Recorded:
    """Work to be run again, and the arrays that it is on."""

    def __init__(self) -> None:
        self.work: list[Callable[[], Any]] = []
        self.held: list[Any] = []
        self.made: set[int] = set()  # by their ids, arrays whose values are not known now


_own = _Thread()


class Uploads:
    """Copies are made as late as they may be."""

    def staging(self, size: int) -> np.ndarray:
        return np.full(size, 0xFF, "uint8")

    def start(self, target: Any, source: np.ndarray) -> Any:
        return target, source

    def finish(self, copy: Any) -> None:
        np.copyto(*copy)


_DROPPED = {"tf32": 13, "bf16": 16}  # of the bits of a float32


def rounded(x: Any, precision: str) -> Any:
    """Values of float32 as factors of a precision, to the nearest, ties to even; others as they
    are."""
    if precision == "float32" or x.dtype != "float32":
        return x
    if precision == "fp16":
        with np.errstate(over="ignore"):
            return x.astype("float16").astype("float32")
    dropped, bits = _DROPPED[precision], x.view("uint32")
    odd = bits >> dropped & 1
    nearest = (bits + (odd + (1 << dropped - 1) - 1)) >> dropped << dropped
    return np.where(np.isfinite(x), nearest.view("float32"), x)


class Emulated:
    """limits: of the GPU that it stands for; scope: in which loops run that have a kernel of it;
    schedule: whose turn it is, as `emulator.launch` says, None: another one in each launch, and two
    for a kernel's first, which have to agree."""

    name = "emulated"
    has_own_arrays = False
    tape: Tape | None = None
    place = 0
    limits: Limits = of("emulated")
    scope = os.environ.get("GPUSCAN_EMULATED_SCOPE", "")
    schedule: int | None = None if _SCHEDULE == "vary" else int(_SCHEDULE)

    def active(self) -> AbstractContextManager[None]:
        return nullcontext()

    def array(self, x: Any) -> Any:
        return self._held(np.asarray(x))

    def there(self, x: Any) -> Any:
        return self.array(x)

    def keep(self, x: np.ndarray) -> Any:
        return self.array(x)

    def empty(self, shape: Sequence[int], dtype: str) -> Any:
        found = np.empty(shape, dtype)
        found.reshape(-1).view("uint8").fill(0xFF)  # what is not written shows
        if _own.recorded is not None:
            _own.recorded.made.add(id(found))
        return self._held(found)

    def _held(self, x: Any) -> Any:
        if _own.recorded is not None:
            _own.recorded.held.append(x)
        return x

    def fill(self, x: Any, value: Any) -> None:
        x[...] = value

    def host(self, x: Any) -> Any:
        if _own.recorded is not None:
            of = x
            while of is not None:
                if id(of) in _own.recorded.made:
                    raise DeviceError("a value is read while a graph is recorded")
                of = getattr(of, "base", None)
        return x

    def address(self, x: Any) -> int:
        found = int(x.ctypes.data)
        if self.schedule is None:
            _addressed[found] = x
        return found

    def build(self, source: str, name: str) -> Any:
        return _built(source, name)

    def launch(self, kernel: Any, launch: Launch, arguments: Sequence[int]) -> None:
        self._do(lambda: self._launch(kernel, launch, arguments))

    def _launch(self, kernel: Any, launch: Launch, arguments: Sequence[int]) -> None:
        def run(schedule: int) -> None:
            emulator.launch(
                kernel, launch.grid, launch.block, launch.shared, arguments, launch.cooperative,
                schedule,
            )  # fmt: skip

        if self.schedule is not None:
            run(self.schedule)
        elif kernel.function in _agreed or (memory := _memory(launch, arguments)) is None:
            run(next(_schedules))
        else:
            _agreed.add(kernel.function)
            _agree(kernel.name, run, memory)

    def multiply(self, found: Any, x: Any, y: Any, precision: str) -> None:
        self._do(lambda: np.matmul(rounded(x, precision), rounded(y, precision), out=found))

    def copy(self, target: Any, source: Any) -> None:
        self._do(lambda: np.copyto(target, source))

    put = copy

    def stream(self) -> Any:
        return 0

    @contextmanager
    def capture(self) -> Iterator[Recorded]:
        _own.recorded = found = Recorded()
        try:
            yield found
        finally:
            _own.recorded = None

    def replay(self, graph: Recorded) -> None:
        for work in graph.work:
            work()

    def uploads(self) -> Uploads:
        return Uploads()

    def _do(self, work: Callable[[], Any]) -> None:
        if _own.recorded is None:
            work()
        else:
            _own.recorded.work.append(work)


# ---- schedules that have to agree ----------------------------------------------------------------

_SHORT = 0.2  # seconds of a run that is worth another
_addressed: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_agreed: set[int] = set()  # kernels that ran under two schedules


def _memory(launch: Launch, arguments: Sequence[int]) -> list[Any] | None:
    """The arrays that a kernel can reach, whole; None where one of them is not known."""
    found: dict[int, Any] = {}
    if not launch.arguments:
        return None
    for what, given in zip(launch.arguments, arguments, strict=True):
        if isinstance(what, Held | Done):
            array = _addressed.get(given)
            if array is None:
                return None
            while isinstance(array.base, np.ndarray):
                array = array.base
            found[id(array)] = array
    return list(found.values())


def _agree(name: str, run: Callable[[int], None], memory: Sequence[Any]) -> None:
    """Runs a kernel, and unless that takes long once more from the same memory under the next
    schedule. Raises DeviceError where a bit differs then."""
    before, schedule = [x.copy() for x in memory], next(_schedules)
    start = time.perf_counter()
    run(schedule)
    if time.perf_counter() - start > _SHORT:
        return
    once, other = [x.copy() for x in memory], next(_schedules)
    for x, a, b in zip(memory, before, once):
        if a.tobytes() != b.tobytes():
            np.copyto(x, a)
    run(other)
    if any(x.tobytes() != a.tobytes() for x, a in zip(memory, once)):
        raise DeviceError(
            f"kernel {name!r} makes something else under schedule {other} than under {schedule}"
        )


@functools.lru_cache(maxsize=4096)
def _built(source: str, name: str) -> Any:
    return emulator.build(source, [name])[name]
