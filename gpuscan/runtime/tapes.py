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
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ..codegen.program import Launch
from . import calls
from .memory import span
from .replay import Replay
from .tape import Tape, Unexpected, is_hosts

_MOST_TAPES = 128  # of a function
_MOST_MET = 1024  # kinds of calls of it that came once
_MOST_FAILED = 8  # kinds of calls that could not be taped, before none is tried any more


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
        if is_hosts(x):
            tape.constant(found, x)
        elif self.device.address(found) != self.device.address(x):
            view = tape.view(x)
            tape.made(found, lambda b: self.device.array(b.view(view)), view.buffer)
        return found

    def there(self, x: Any) -> Any:
        return self.array(x) if is_hosts(x) else self.device.there(x)

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

    def multiply(self, found: Any, x: Any, y: Any, precision: str) -> None:
        multiply = self.device.multiply
        multiply(found, x, y, precision)
        if (tape := self.tape) is not None:
            tape.done(
                lambda *views: multiply(*views, precision),
                [tape.view(found), tape.view(x), tape.view(y)],
            )

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
        if not is_hosts(x):
            kind.append((x.shape, x.strides))
        elif _steers(x):
            kind.append(int(x))
        else:
            kind.append(x.shape)
    return tuple(kind)


def _steers(x: Any) -> bool:
    return x.ndim == 0 and x.dtype.kind in "biu"


def delivered(device: Any, outputs: Sequence[Any], stay: Sequence[bool]) -> tuple[Any, ...]:
    """What a call gives: of each output whether it stays on the device."""
    return tuple(device.array(x) if s else device.host(x) for x, s in zip(outputs, stay))


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
        self.made: dict[Any, tuple[Replay, Mapping[Any, Any]] | None] = {}  # None: it can't be
        self.met: set[Any] = set()  # the kinds of calls that came once
        self.failed = 0

    def __call__(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        kind, inputs = self.kind(inputs)
        found = self.made.get(kind)
        if found is not None:
            replay, told = found
            with contextlib.suppress(Unexpected):
                results = replay(inputs)
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
        inputs = [x if is_hosts(x) else device.there(x) for x in inputs]
        if self.selection is not None:
            inputs = self.selection.selected(inputs)
        return _kind_of(device.place, inputs, self.idle), inputs

    def plain(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """A call without a tape."""
        return delivered(self.taped, self.run(*inputs), self.stay)

    def _tape(self, kind: Any, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """A call that is written. All that it is given is on the device then, but for numbers by
        which the host goes: what the host reads of it is noticed."""
        taped, device = self.taped, self.taped.device
        tape, there = Tape(device, taped.kept), []
        for k, x in enumerate(inputs):
            if k in self.idle or (is_hosts(x) and _steers(x)):
                there.append(x)
                continue
            there.append(device.array(x) if is_hosts(x) else tape.alone(x))
            tape.given(k, there[-1], is_hosts(x))
        taped.tape = tape
        try:
            outputs = list(self.run(*there))
            outputs = [
                taped.array(x) if s and not is_hosts(x) else x for x, s in zip(outputs, self.stay)
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
            self.made[kind] = Replay(tape), dict(self.told)
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
    return is_hosts(x) or (tape is not None and tape.on_host(x) is not None)


def not_taped(device: Any, why: str) -> None:
    """The device does what is not written."""
    if device.tape is not None:
        device.tape.stop(why)


def by_numpy(device: Any, compute: Callable[..., Any], operands: Sequence[Any]) -> Any:
    """What NumPy computes of arrays of the host and of the device. It is an array of the device
    where that is written to a tape, of operands that a call has on the host."""
    tape = device.tape
    if tape is not None and not all(map(is_hosts, operands)):
        sources = [tape.on_host(x) for x in operands]
        if None not in sources:
            now = compute(*map(tape.device.host, operands))
            if is_hosts(now):
                return tape.computed(compute, sources, now)
            tape.stop("NumPy computes several results")
    return compute(*map(device.host, operands))


def take(device: Any, pages: calls.Pages, count: int = 1) -> Any:
    """Small arrays with given numbers in them."""
    if (tape := device.tape) is None:
        return pages.take(device, count)
    found = pages.take(tape.device, count)
    tape.numbers(found, np.resize(pages.numbers, found.size))
    return found


def read_later(device: Any, launch: Launch, done: Any) -> None:
    """Reads at the end of the call whether the blocks of a loop met."""
    if (tape := device.tape) is not None:
        tape.met.append((tape.view(done), launch))
    calls.read_later(device, launch, done)
