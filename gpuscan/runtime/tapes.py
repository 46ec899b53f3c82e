"""Calls of a function on a GPU that are made again. What a call has the device do - memory, copies,
launches, products - depends on the shapes of what it is given and on the numbers that the host
knows; so one call writes it to a tape, and the next ones of the same kind play that: they walk no
graph, make no views and look up no plans.

What a call reads from the device and goes by can't be on a tape; but that a loop ran all its steps
and that no check failed is expected of each, and looked at when it is over.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ..codegen.program import Launch
from ..record import record
from . import calls
from .memory import span

_MOST_TAPES = 128  # of a function
_MOST_MET = 1024  # kinds of calls of it that came once
_MOST_STEPS = 2048  # of a tape
_MOST_KEPT = 1 << 16  # bytes of a constant that stays on the device; a larger one is copied anew
_MOST_FAILED = 8  # kinds of calls that could not be taped, before none is tried any more


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
    """What a call has: its inputs, and the buffers of its tape, while they are there."""

    def __init__(self, device: Any, inputs: Sequence[Any], count: int) -> None:
        self.device, self.inputs = device, inputs
        self.held: list[Any] = [None] * count  # arrays, or memory that none has been asked of
        self.arrays: list[Any] = [None] * count
        self.addresses = [0] * count
        self.computed: dict[int, Any] = {}  # by NumPy

    def set(self, buffer: int, array: Any) -> None:
        self.held[buffer] = self.arrays[buffer] = array
        self.addresses[buffer] = self.device.address(array)

    def allocate(self, buffer: int, size: int) -> None:
        self.held[buffer], self.addresses[buffer] = self.device.allocate(size)

    def free(self, buffer: int) -> None:
        self.held[buffer] = self.arrays[buffer] = None

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


class Tape:
    """What one call has the device do. It is written while that is done; `why` says why it can't
    be played, or nothing."""

    def __init__(self, device: Any, kept: Sequence[tuple[int, int, Any]]) -> None:
        self.device = device
        self.of_function = kept  # from where to where, and arrays that stay, whatever is taped
        self.why = ""
        self.steps: list[tuple[Step, tuple[int, ...]]] = []  # and the buffers that each works on
        self.bases: list[tuple[int, int, Any]] = []  # of the buffers: from where to where, and what
        self.fixed: dict[int, Any] = {}  # the buffers that are the same array in each call
        self.hosts: dict[int, Callable[[Buffers], Any]] = {}  # the buffers that a call has there
        self.n_computed = 0
        self.expected: list[tuple[View, tuple[int, int]]] = []
        self.outputs: list[Callable[[Buffers], Any]] = []
        self.freed: list[tuple[int, ...]] = []

    # ---- writing ---------------------------------------------------------------------------------

    def stop(self, why: str) -> None:
        self.why = self.why or why

    def made(self, array: Any, how: Callable[[Buffers], Any], *read: int) -> int:
        """Writes that a call makes an array, from these buffers. Gives the number of its buffer."""
        buffer = self._base(array)
        self._write(lambda b: b.set(buffer, how(b)), buffer, *read)
        return buffer

    def allocated(self, array: Any) -> None:
        """Writes that a call makes an array in row-major order, of whatever is in its memory."""
        buffer, size = self._base(array), max(1, array.nbytes)
        self._write(lambda b: b.allocate(buffer, size), buffer)

    def _base(self, array: Any) -> int:
        what = self.device.address(array), array.shape, array.strides
        self.bases.append((*span(array), what))
        return len(self.bases) - 1

    def _write(self, step: Step, *buffers: int) -> None:
        if len(self.steps) >= _MOST_STEPS:
            self.stop("a call does too much")
        else:
            self.steps.append((step, buffers))

    def given(self, k: int, array: Any, uploaded: bool) -> None:
        """An input, and whether a call has it on the host."""
        if uploaded:
            self._upload(array, lambda b: b.inputs[k])
        else:
            self.made(array, lambda b: b.inputs[k])

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
        device = self.device
        if array.nbytes > _MOST_KEPT:
            self.made(array, lambda b: device.array(on_host))
            return
        self._hold(device.keep(np.ascontiguousarray(on_host)), array)

    def _hold(self, kept: Any, like: Any) -> int:
        buffer = self.made(like, lambda b: kept)
        self.fixed[buffer] = kept
        return buffer

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
                held = [buffer for buffer, array in self.fixed.items() if array is kept]
                return held[0] if held else self._hold(kept, kept)
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

    def _upload(self, array: Any, source: Callable[[Buffers], Any]) -> None:
        device = self.device
        self.hosts[self.made(array, lambda b: device.array(source(b)))] = source

    def on_host(self, x: Any) -> Callable[[Buffers], Any] | None:
        """How a call has an array as NumPy's without reading it from the device; None where it does
        not."""
        if _is_hosts(x):
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
        number, shape = self.n_computed, np.shape(now)
        self.n_computed += 1

        def step(b: Buffers) -> None:
            try:
                found = compute(*[source(b) for source in sources])
            except Exception as e:  # the call says of it what it says without a tape
                raise Unexpected from e
            if np.shape(found) != shape:
                raise Unexpected
            b.computed[number] = found

        self._write(step)
        array = self.device.array(np.asarray(now))
        self._upload(array, lambda b: b.computed[number])
        return array

    def expect(self, done: Any) -> tuple[int, int]:
        """What a kernel said of itself in this call, and is to say in each."""
        steps, failed = self.device.host(done)
        found = int(steps), int(failed)
        self.expected.append((self.view(done), found))
        return found

    def end(self, outputs: Sequence[Any], stay: Sequence[bool]) -> None:
        """Writes what a call gives, and when each buffer is free."""
        device, live = self.device, {view.buffer for view, _ in self.expected}
        for x, stays in zip(outputs, stay):
            if _is_hosts(x):
                self.outputs.append(_of_host(device, x, stays))
                continue
            view = self.view(x)
            if view.buffer in self.fixed:
                self.stop("an output is a constant")
            if not stays and (source := self.on_host(x)) is not None:
                self.outputs.append(_copy_of(source))
                continue
            live.add(view.buffer)
            self.outputs.append(_of_device(device, view, stays))
        used = Counter(buffer for _, buffers in self.steps for buffer in buffers)
        self.steps = [  # the first buffer of a step that makes one is what it makes
            (step, buffers)
            for step, buffers in self.steps
            if not buffers or used[buffers[0]] > 1 or buffers[0] in live
        ]
        last: dict[int, int] = {}
        for i, (_, buffers) in enumerate(self.steps):
            last.update(dict.fromkeys(buffers, i))
        freed: list[list[int]] = [[] for _ in self.steps]
        for buffer, i in last.items():
            if buffer not in live:
                freed[i].append(buffer)
        self.freed = [tuple(f) for f in freed]

    # ---- playing ---------------------------------------------------------------------------------

    def play(self, inputs: Sequence[Any]) -> list[Any]:
        """A call's outputs. Raises Unexpected where something is not as in the call that was
        written, so that it must be made without the tape."""
        b = Buffers(self.device, inputs, len(self.bases))
        for (step, _), freed in zip(self.steps, self.freed):
            step(b)
            for buffer in freed:
                b.free(buffer)
        for view, said in self.expected:
            if tuple(self.device.host(b.view(view))) != said:
                raise Unexpected
        return [output(b) for output in self.outputs]


def _of_host(device: Any, x: Any, stays: bool) -> Callable[[Buffers], Any]:
    return lambda _: device.array(x) if stays else x.copy()


def _copy_of(source: Callable[[Buffers], Any]) -> Callable[[Buffers], Any]:
    return lambda b: np.array(source(b))


def _of_device(device: Any, view: View, stays: bool) -> Callable[[Buffers], Any]:
    return lambda b: b.view(view) if stays else device.host(b.view(view))


# ---- the device that is taped --------------------------------------------------------------------


class _Own(threading.local):
    tape: Tape | None = None


class Taped:
    """A CUDA device of one function, with arrays of its own, that writes to a tape what the
    function's operations ask of it while there is one."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self._own = _Own()
        self.kept: list[tuple[int, int, Any]] = []  # from where to where, and what stays there

    def __getattr__(self, name: str) -> Any:
        return getattr(self.device, name)

    @property
    def tape(self) -> Tape | None:
        """What is written now. One that can't be played is written no more."""
        tape = self._own.tape
        return None if tape is None or tape.why else tape

    @tape.setter
    def tape(self, tape: Tape | None) -> None:
        self._own.tape = tape

    def array(self, x: Any) -> Any:
        found, tape = self.device.array(x), self.tape
        if tape is None or found is x:
            return found
        if _is_hosts(x):
            tape.constant(found, x)
        elif self.device.address(found) != self.device.address(x):
            view = tape.view(x)
            tape.made(found, lambda b: self.device.array(b.view(view)), view.buffer)
        return found

    def there(self, x: Any) -> Any:
        return self.array(x) if _is_hosts(x) else self.device.there(x)

    def keep(self, x: np.ndarray) -> Any:
        found = self.device.keep(x)
        self.kept.append((*span(found), found))
        return found

    def empty(self, shape: Sequence[int], dtype: Any) -> Any:
        found, tape = self.device.empty(shape, dtype), self.tape
        if tape is not None:
            tape.allocated(found)
        return found

    def host(self, x: Any) -> Any:
        found = self.device.host(x)
        if found is not x and (tape := self.tape) is not None:
            tape.stop("the host reads a value of the device")
        return found

    def address(self, x: Any) -> int:
        at, tape = self.device.address(x), self.tape
        if tape is None or not x.size:
            return int(at)
        return tape.find(x)

    def launch(self, kernel: Any, launch: Launch, arguments: Sequence[int]) -> None:
        self.device.launch(kernel, launch, arguments)
        if (tape := self.tape) is not None:
            tape.launch(kernel, launch, arguments)

    def product(self, x: Any, y: Any, precision: str = "float32") -> Any:
        found, tape = self.device.product(x, y, precision), self.tape
        if tape is not None:
            a, b = tape.view(x), tape.view(y)

            def product(at: Buffers) -> Any:
                return self.device.product(at.view(a), at.view(b), precision)

            tape.made(found, product, a.buffer, b.buffer)
        return found

    def fill(self, x: Any, value: Any) -> None:
        self.device.fill(x, value)
        if (tape := self.tape) is not None:
            tape.done(self.device.fill, [tape.view(x)], value)

    def copy(self, target: Any, source: Any) -> None:
        self.device.copy(target, source)
        if target.size and (tape := self.tape) is not None:
            tape.done(self.device.copy, [tape.view(target), tape.view(source)])

    def put(self, target: Any, source: Any) -> None:
        self.device.put(target, source)
        if target.size and (tape := self.tape) is not None:
            tape.done(self.device.put, [tape.view(target), tape.view(source)])


# ---- the tapes of a function ---------------------------------------------------------------------


def _kind_of(place: Any, inputs: Sequence[Any], idle: Collection[int]) -> Any:
    """What calls have in common that do the same: the GPU, and of what is not idle the shapes, and
    the numbers by which the host goes."""
    kind = [place]
    for k, x in enumerate(inputs):
        if k in idle:
            continue
        if not _is_hosts(x):
            kind.append((x.shape, x.strides))
        elif _steers(x):
            kind.append(int(x))
        else:
            kind.append(x.shape)
    return tuple(kind)


def _is_hosts(x: Any) -> bool:
    return isinstance(x, np.ndarray | np.generic)


def _steers(x: Any) -> bool:
    return x.ndim == 0 and x.dtype.kind in "biu"


def delivered(device: Any, outputs: Sequence[Any], stay: Sequence[bool]) -> list[Any]:
    """What a call gives: of each output whether it stays on the device."""
    return [device.array(x) if s else device.host(x) for x, s in zip(outputs, stay)]


class Tapes:
    """The tapes of a function. run: its program, on values; stay: which outputs stay on the
    device; told: what a call leaves behind of the sizes that it met; selection: what is done of
    each call before, and on no tape, so that the program's values are others than the inputs."""

    def __init__(
        self, run: Callable[..., Sequence[Any]], device: Taped, stay: Sequence[bool],
        told: dict[Any, Any], selection: Any,
    ) -> None:  # fmt: skip
        self.run, self.taped, self.stay, self.told = run, device, stay, told
        self.selection = selection
        self.idle: Collection[int] = selection.idle if selection else ()
        self.made: dict[Any, tuple[Tape, Mapping[Any, Any]] | None] = {}  # None: it can't be
        self.met: set[Any] = set()  # the kinds of calls that came once
        self.failed = 0

    def __call__(self, inputs: Sequence[Any]) -> list[Any]:
        kind, inputs = self.kind(inputs)
        found = self.made.get(kind)
        if found is not None:
            tape, told = found
            with contextlib.suppress(Unexpected):
                results = tape.play(inputs)
                self.told.update(told)
                return results
            results = self.plain(inputs)  # raises where something is wrong
            self.made.pop(kind, None)
            self.failed += 1
            return results
        if kind not in self.made and self.failed < _MOST_FAILED:
            if kind in self.met:
                return self._tape(kind, inputs)
            if len(self.met) >= _MOST_MET:
                self.met.clear()
            self.met.add(kind)
        return self.plain(inputs)

    def kind(self, inputs: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
        """The kind of a call, and its program's values, of which those on a GPU are the device's
        arrays."""
        device = self.taped.device
        inputs = [x if _is_hosts(x) else device.there(x) for x in inputs]
        if self.selection is not None:
            inputs = self.selection.selected(inputs)
        return _kind_of(device.place, inputs, self.idle), inputs

    def plain(self, inputs: Sequence[Any]) -> list[Any]:
        """A call without a tape."""
        return delivered(self.taped, self.run(*inputs), self.stay)

    def _tape(self, kind: Any, inputs: Sequence[Any]) -> list[Any]:
        """A call that is written. All that it is given is on the device then, but for numbers by
        which the host goes: what the host reads of it is noticed."""
        taped, device = self.taped, self.taped.device
        tape, there = Tape(device, taped.kept), []
        for k, x in enumerate(inputs):
            if k in self.idle or (_is_hosts(x) and _steers(x)):
                there.append(x)
                continue
            there.append(device.array(x) if _is_hosts(x) else tape.alone(x))
            tape.given(k, there[-1], _is_hosts(x))
        taped.tape = tape
        try:
            outputs = list(self.run(*there))
            outputs = [
                taped.array(x) if s and not _is_hosts(x) else x for x, s in zip(outputs, self.stay)
            ]
            tape.end(outputs, self.stay)
        finally:
            taped.tape = None
        while len(self.made) >= _MOST_TAPES:
            self.made.pop(next(iter(self.made)), None)  # the oldest
        if tape.why:
            self.failed += 1
            self.made[kind] = None
        else:
            self.made[kind] = tape, dict(self.told)
        return delivered(taped, outputs, self.stay)


# ---- for operations, whether they are taped or not -----------------------------------------------


def said(device: Any, done: Any, expected: bool) -> tuple[int, int]:
    """How many steps a kernel says that it ran, and whether a check failed. expected: it is to say
    the same in each such call, so that a tape may go on without."""
    tape = device.tape
    if tape is not None and expected:
        found: tuple[int, int] = tape.expect(done)
        return found
    steps, failed = device.host(done)
    return int(steps), int(failed)


def on_host(device: Any, x: Any) -> bool:
    """Whether a call has an array there without reading it from the device."""
    tape = device.tape
    return _is_hosts(x) or (tape is not None and tape.on_host(x) is not None)


def not_taped(device: Any, why: str) -> None:
    """The device does what is not written."""
    if device.tape is not None:
        device.tape.stop(why)


def by_numpy(device: Any, compute: Callable[..., Any], operands: Sequence[Any]) -> Any:
    """What NumPy computes of arrays of the host and of the device. It is an array of the device
    where that is written to a tape, of operands that a call has on the host."""
    tape = device.tape
    if tape is not None and not all(map(_is_hosts, operands)):
        sources = [tape.on_host(x) for x in operands]
        if None not in sources:
            now = compute(*map(tape.device.host, operands))
            if _is_hosts(now):
                return tape.computed(compute, sources, now)
            tape.stop("NumPy computes several results")
    return compute(*map(device.host, operands))


def take(device: Any, pages: calls.Pages, count: int = 1) -> Any:
    """Small arrays with given numbers in them."""
    if (tape := device.tape) is None:
        return pages.take(device, count)
    found = pages.take(tape.device, count)
    tape.made(found, lambda b: pages.take(tape.device, count))
    return found


def read_later(device: Any, launch: Launch, done: Any) -> None:
    """Reads at the end of the call whether the blocks of a loop met."""
    tape = device.tape
    if tape is not None:
        tape.done(lambda x: calls.read_later(tape.device, launch, x), [tape.view(done)])
    calls.read_later(device, launch, done)
