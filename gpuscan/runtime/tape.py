"""What one call of a function has a GPU do, written down while it is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..codegen.program import Launch
from ..record import record
from .memory import span

_MOST_STEPS = 1 << 14  # of a tape
_MOST_KEPT = 1 << 16  # bytes of a constant that stays on the device; a larger one is made anew


class Address(int):
    """Where an array of a taped call is: also its buffer, and how many bytes behind its start."""

    buffer: int
    offset: int

    def __new__(cls, value: int, buffer: int, offset: int) -> Address:
        made = super().__new__(cls, value)
        made.buffer, made.offset = buffer, offset
        return made

    def __add__(self, more: int) -> Address:
        return Address(int(self) + more, self.buffer, self.offset + more)


class Unexpected(Exception):
    """A call does not do what was written."""


@record
class View:
    """An array of a taped call: where it is in a buffer. whole: it is the buffer."""

    buffer: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: Any
    whole: bool


class Buffers:
    """What a call has: its inputs, and the buffers of its tape."""

    def __init__(self, device: Any, inputs: Sequence[Any], count: int) -> None:
        self.device, self.inputs = device, inputs
        self.held: list[Any] = [None] * count  # arrays, or memory that none has been asked of
        self.arrays: list[Any] = [None] * count
        self.addresses = [0] * count
        self.computed: dict[int, Any] = {}  # by NumPy

    def set(self, buffer: int, array: Any) -> None:
        self.held[buffer] = self.arrays[buffer] = array
        self.addresses[buffer] = self.device.address(array)

    def put(self, buffer: int, memory: Any, address: int) -> None:
        self.held[buffer], self.arrays[buffer] = memory, None
        self.addresses[buffer] = address

    def view(self, x: View) -> Any:
        buffer = x.buffer
        if x.whole and (found := self.arrays[buffer]) is not None:
            return found
        at = self.addresses[buffer] + x.offset
        found = self.device.view(self.held[buffer], at, x.shape, x.strides, x.dtype)
        if x.whole:
            self.arrays[buffer] = found
        return found


Step = Callable[[Buffers], None]
Source = Callable[[Buffers], Any]


# ---- what is in a buffer at first ----------------------------------------------------------------


@record
class Given:
    """Input k, on the device."""

    k: int


@record
class Fixed:
    """The same array in each call."""

    array: Any


@record
class Uploaded:
    """An array of the host, of so many bytes."""

    source: Source
    size: int


@record
class Numbers:
    """Given numbers, to which a kernel writes."""

    numbers: np.ndarray


@record
class Empty:
    """Anything, in so many bytes."""

    size: int


@record
class Made:
    """What a step makes, in memory that it finds itself."""


Origin = Given | Fixed | Uploaded | Numbers | Empty | Made


@record
class Output:
    """Of a call: an array on the device, or how it is had without reading that. stays: on the
    device."""

    view: View | None
    source: Source | None
    stays: bool


class Tape:
    """What one call has the device do. `why` says why it can't be played, or nothing."""

    def __init__(self, device: Any, kept: Sequence[tuple[int, int, Any]]) -> None:
        self.device = device
        self.of_function = kept  # from where to where, and arrays that stay, whatever is taped
        self.why = ""
        self.computing: list[Step] = []  # by NumPy, of what a call has on the host
        self.steps: list[tuple[Step, tuple[int, ...]]] = []  # and the buffers that each works on
        self.bases: list[tuple[int, int, Any]] = []  # of the buffers: from where to where, and what
        self.origins: list[Origin] = []
        self.hosts: dict[int, Source] = {}  # the buffers that a call has there
        self.expected: list[tuple[View, tuple[int, int]]] = []
        self.met: list[tuple[View, Launch]] = []  # what loops say whose blocks meet
        self.outputs: list[Output] = []

    def stop(self, why: str) -> None:
        self.why = self.why or why

    def _begins(self, array: Any, origin: Origin) -> int:
        """An array of the call that is in no buffer yet. Gives the number of its own."""
        what = self.device.address(array), array.shape, array.strides
        self.bases.append((*span(array), what))
        self.origins.append(origin)
        return len(self.bases) - 1

    def _write(self, step: Step, *buffers: int) -> None:
        if len(self.steps) >= _MOST_STEPS:
            self.stop("a call does too much")
        else:
            self.steps.append((step, buffers))

    def made(self, array: Any, how: Callable[[Buffers], Any], *read: int) -> None:
        """Writes that a call makes an array, of these buffers."""
        buffer = self._begins(array, Made())
        self._write(lambda b: b.set(buffer, how(b)), buffer, *read)

    def allocated(self, array: Any) -> None:
        """An array in row-major order, of whatever is in its memory."""
        self._begins(array, Empty(max(1, array.nbytes)))

    def numbers(self, array: Any, numbers: np.ndarray) -> None:
        """An array that a kernel finds such numbers in."""
        self._begins(array, Numbers(numbers))

    def given(self, k: int, array: Any, uploaded: bool) -> None:
        """An input, and whether a call has it on the host."""
        if uploaded:
            self._uploaded(array, lambda b: b.inputs[k])
        else:
            self._begins(array, Given(k))

    def _uploaded(self, array: Any, source: Source) -> None:
        self.hosts[self._begins(array, Uploaded(source, array.nbytes))] = source

    def alone(self, array: Any) -> Any:
        """An input, or where it shares memory with one that is given its copy: what is written of
        it is to be told from what is written of the other."""
        first, last = span(array)
        if not any(begin < last and first < end for begin, end, _ in self.bases):
            return array
        device, size = self.device, last - first
        copy = device.empty((size,), "uint8")
        device.copy(copy, device.view(array, first, (size,), (1,), copy.dtype))
        at = device.address(copy) + device.address(array) - first
        return device.view(copy, at, array.shape, array.strides, array.dtype)

    def constant(self, array: Any, on_host: Any) -> None:
        """An array that the host knows when it knows the kind of the call."""
        if array.nbytes <= _MOST_KEPT:
            self._begins(array, Fixed(self.device.keep(np.ascontiguousarray(on_host))))
        elif _is_uniform(on_host):
            self.allocated(array)
            self.done(self.device.fill, [self.view(array)], on_host.flat[0])
        else:
            self._begins(array, Uploaded(lambda _: on_host, array.nbytes))

    def find(self, x: Any) -> Address:
        """Where an array is. One of no elements may be anywhere."""
        at, (first, last) = self.device.address(x), span(x)
        buffer = self._find(first, last)
        if buffer is None:
            self.stop("an array is of unknown origin")
            return Address(at, 0, 0)
        start, _, _ = self.bases[buffer][2]
        return Address(at, buffer, at - start)

    def _find(self, first: int, last: int) -> int | None:
        for begin, end, kept in self.of_function:
            if begin <= first and last <= end:
                for buffer, origin in enumerate(self.origins):
                    if isinstance(origin, Fixed) and origin.array is kept:
                        return buffer
                return self._begins(kept, Fixed(kept))
        for buffer in range(len(self.bases) - 1, -1, -1):  # memory that was free serves again
            begin, end, _ = self.bases[buffer]
            if begin <= first and last <= end:
                return buffer
        return None

    def view(self, x: Any) -> View:
        at = self.find(x)
        if self.why:
            return View(0, 0, x.shape, x.strides, x.dtype, True)
        whole = self.bases[at.buffer][2] == (int(at), x.shape, x.strides)
        return View(at.buffer, at.offset, x.shape, x.strides, x.dtype, whole)

    def launch(self, kernel: Any, launch: Launch, arguments: Sequence[int]) -> None:
        device, values = self.device, [int(a) for a in arguments]
        places = [
            (i, a.buffer, a.offset) for i, a in enumerate(arguments) if isinstance(a, Address)
        ]

        def step(b: Buffers) -> None:
            given, addresses = values.copy(), b.addresses
            for i, buffer, offset in places:
                given[i] = addresses[buffer] + offset
            device.launch(kernel, launch, given)

        self._write(step, *(buffer for _, buffer, _ in places))

    def done(self, what: Callable[..., Any], views: Sequence[View], *others: Any) -> None:
        """Writes that something is called with arrays of a call, and with what is always so."""
        self._write(lambda b: what(*map(b.view, views), *others), *(v.buffer for v in views))

    def on_host(self, x: Any) -> Callable[[Buffers], Any] | None:
        """How a call has an array as NumPy's without reading it from the device; None where it does
        not."""
        if is_hosts(x):
            return lambda _: x
        view = self.view(x)
        source = self.hosts.get(view.buffer)
        if source is None or self.why:
            return None

        def seen(b: Buffers) -> Any:
            whole = np.asarray(source(b), order="C")
            return np.ndarray(view.shape, whole.dtype, whole, view.offset, view.strides)

        return source if view.whole else seen

    def computed(self, compute: Callable[..., Any], sources: Sequence[Any], now: Any) -> Any:
        """Writes that NumPy computes an array. now: what it is in this call. Gives it as an array
        of the device, which a call makes of it if it has to."""
        number, shape = len(self.computing), np.shape(now)

        def step(b: Buffers) -> None:
            try:
                found = compute(*[source(b) for source in sources])
            except Exception as e:  # the call says of it what it says without a tape
                raise Unexpected from e
            if np.shape(found) != shape:
                raise Unexpected
            b.computed[number] = found

        self.computing.append(step)
        array = self.device.array(np.asarray(now))
        self._uploaded(array, lambda b: b.computed[number])
        return array

    def expect(self, done: Any) -> tuple[int, int]:
        """What a kernel said of itself in this call, and is to say in each."""
        steps, failed = self.device.host(done)
        found = int(steps), int(failed)
        self.expected.append((self.view(done), found))
        return found

    def end(self, outputs: Sequence[Any], stay: Sequence[bool]) -> None:
        """Writes what a call gives, and leaves out what nobody needs."""
        for x, stays in zip(outputs, stay):
            if is_hosts(x):
                self.outputs.append(Output(None, _of_host(self.device, x, stays), stays))
                continue
            view = self.view(x)
            if isinstance(self.origins[view.buffer], Fixed):
                self.stop("an output is a constant")
            if not stays and (source := self.on_host(x)) is not None:
                self.outputs.append(Output(None, _copy_of(source), stays))
            else:
                self.outputs.append(Output(view, None, stays))
        used = Counter(buffer for _, buffers in self.steps for buffer in buffers)
        live = self.live
        self.steps = [  # the first buffer of a step that makes one is what it makes
            (step, buffers)
            for step, buffers in self.steps
            if not buffers
            or used[buffers[0]] > 1
            or buffers[0] in live
            or not isinstance(self.origins[buffers[0]], Made)
        ]

    @property
    def live(self) -> set[int]:
        """The buffers that are looked at when all steps are done."""
        views = [v for v, _ in self.expected] + [v for v, _ in self.met]
        return {v.buffer for v in [*views, *(o.view for o in self.outputs if o.view)]}


def _is_uniform(x: np.ndarray) -> bool:
    """Whether all elements have the same bits, as zeros that something is added to."""
    bits = np.ascontiguousarray(x).reshape(-1).view(f"u{x.itemsize}")
    return bool((bits == bits[0]).all())


def is_hosts(x: Any) -> bool:
    return isinstance(x, np.ndarray | np.generic)


def _of_host(device: Any, x: Any, stays: bool) -> Source:
    return lambda _: device.array(x) if stays else x.copy()


def _copy_of(source: Source) -> Source:
    return lambda b: np.array(source(b))
