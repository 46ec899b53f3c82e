"""What one call of a function has the native device do, written down while it is done: runs of
kernels and copies, on memory that it asks for; and nodes that NumPy computes.

Arrays are known by where they are, so each lives until the call is over. A number that is no array
is the same in each call of a kind: in a call that is recorded the nodes give arrays.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..graph import Variable
from ..ops.index import VIEWS
from ..ops.shape import Dim
from ..record import record, replace
from .arrays import address, bounds

_MOST_STEPS = 1 << 9
_MOST_HELD = 1 << 27  # bytes: to compute more takes so long that what is around it does not count

Place = tuple[int, int]  # a buffer, and an offset in bytes
NOWHERE: Place = (-1, 0)  # where what holds nothing is


@record
class Buffer:
    """Memory that a call has. kind: "given" is an input, "fixed" is the same array in each call,
    "empty" is memory like this array's, with anything in it, "made" is what NumPy makes."""

    kind: str
    array: Any
    begin: int  # where its elements begin,
    end: int  # and end
    start: int  # and where the first one is


# ---- steps ---------------------------------------------------------------------------------------


@record
class Run:
    """A run of a kernel: what it gave, its `ends`, and of each share its integers and where its
    pointers point, a buffer below 0 as `threads.shares` has it. kernel: None copies; target: the
    buffer that a copy writes to."""

    kernel: int | None
    gave: int
    ends: bytes
    meet: bool
    shares: tuple[tuple[Sequence[int], Sequence[Place]], ...]
    target: int | None = None

    @property
    def buffers(self) -> set[int]:
        return {b for _, places in self.shares for b, _ in places if b >= 0}

    def moved(self, places: Mapping[int, Place]) -> Run:
        """The same where buffers are at these places in arrays."""

        def at(place: Place) -> Place:
            buffer, offset = place
            return (places[buffer][0], places[buffer][1] + offset) if buffer >= 0 else place

        shares = tuple([(integers, [*map(at, pointers)]) for integers, pointers in self.shares])
        return replace(self, shares=shares)


@record
class View:
    """An array in a buffer; shape: None where it is all of it."""

    buffer: int
    offset: int
    shape: tuple[int, ...] | None
    strides: tuple[int, ...]
    dtype: Any


@record
class Computing:
    """A node that NumPy computes, of views and of what is the same in each call; of each result its
    buffer, None where it is no array."""

    node: Variable
    compute: Callable[..., Any]
    operands: tuple[Any, ...]
    results: tuple[int | None, ...]

    @property
    def buffers(self) -> set[int]:
        read = {x.buffer for x in self.operands if isinstance(x, View)}
        return read | {b for b in self.results if b is not None}


Step = Run | Computing


# ---- the recorder --------------------------------------------------------------------------------


class Recorder:
    """why: the call can't be made again for this reason, or nothing. inputs: what the call is to be
    made with, the buffers from `first_input` on; those that are `idle` do nothing. loops: those
    that ran, with their plans; ways: of each loop that has two ways its plan, its steps, how they
    were shared, and its runs."""

    def __init__(
        self, inputs: Sequence[Any], fixed: Iterable[Any], idle: Collection[int] = ()
    ) -> None:
        self.why = ""
        self.buffers: list[Buffer] = []
        self.steps: list[Step] = []
        self.loops: list[tuple[Any, Any]] = []
        self.ways: list[tuple[Any, int, Any, list[Step]]] = []
        self._is_written = True  # what the node does that is computed now
        self._copies: list[Any] = []
        self._held = 0
        for x in fixed:
            self._begins("fixed", x)
        self.first_input = len(self.buffers)
        self._idle = {self.first_input + k for k in idle}
        self.inputs = [self._alone(x) for x in inputs]

    def _alone(self, x: Any) -> Any:
        """An input, which has memory of its own."""
        begin, end = bounds(x)
        if any(begin < b.end and b.begin < end for b in self.buffers):
            strides, x = x.strides, np.array(x, order="K")
            if x.strides != strides:
                self.stop("inputs have memory in common")
        self._begins("given", x)
        return x

    def stop(self, why: str) -> None:
        self.why = self.why or why
        self.buffers.clear()

    def not_written(self) -> None:
        """The node does what is no step: what it gives is NumPy's work."""
        self._is_written = False

    def _begins(self, kind: str, array: Any) -> int:
        self.buffers.append(Buffer(kind, array, *bounds(array), address(array)))
        return len(self.buffers) - 1

    def allocated(self, array: Any, kind: str = "empty") -> int:
        """An array of whatever is in its memory. Gives its buffer."""
        self._held += array.nbytes
        if self._held > _MOST_HELD or len(self.steps) > _MOST_STEPS:
            self.stop("a call does too much")
        return 0 if self.why else self._begins(kind, array)

    def number(self, array: Any) -> None:
        """An array made of what is none."""
        if not self.why:
            self._begins("fixed", array)

    def find(self, x: Any) -> Place:
        """Where an array is."""
        found = self.found(x)
        if found is None:
            self.not_written()
            return NOWHERE
        return found

    def found(self, x: Any) -> Place | None:
        """The same, or None."""
        if not x.size:
            return NOWHERE
        begin, end = bounds(x)
        for number in range(len(self.buffers) - 1, -1, -1):
            buffer = self.buffers[number]
            if buffer.begin <= begin and end <= buffer.end:
                return number, address(x) - buffer.start
        return None

    # ---- steps -----------------------------------------------------------------------------------

    def ran(self, kernel: int, shares: Any, ends: bytes, arrays: Sequence[Any], gave: int) -> None:
        """A run of all shares, which gave that."""
        if self.why or not self._is_written:
            return
        found = [NOWHERE if x is None else self.find(x) for x in arrays]
        parts = []
        for integers, places in shares.parts():
            at = [(found[n][0], found[n][1] + offset) if n >= 0 else (n, 0) for n, offset in places]
            parts.append((integers, at))
        self.steps.append(Run(kernel, gave, ends, shares.meet, tuple(parts)))

    def copied(self, target: Any, source: Any) -> None:
        """A copy to an array of the same shape."""
        if self.why or not self._is_written or not target.size:
            return
        if target.dtype != source.dtype:
            self.not_written()
        to, of = self.find(target), self.find(source)
        self._copies.append((to, of, target.shape, source.strides))
        axes = list(zip(target.shape, target.strides, source.strides))
        if target.flags.c_contiguous and source.flags.c_contiguous:
            axes = [(target.size, target.itemsize, target.itemsize)]
        integers = [target.itemsize, len(axes), *itertools.chain(*axes)]
        self.steps.append(Run(None, 0, bytes(16), False, ((integers, [to, of]),), to[0]))

    def is_copy(self, x: Any, y: Any) -> bool:
        """Whether x has been made by copying y."""
        return (self.found(x), self.found(y), x.shape, y.strides) in self._copies

    def node(self, v: Variable, evaluator: Callable[..., Any], args: Sequence[Any]) -> Any:
        """What a node gives: by steps of its own, or by NumPy."""
        if self.why or not self._is_written:
            return evaluator(*args)
        parts: list[list[Any]] = [
            self.steps, self.loops, self.ways, self.buffers, self._copies
        ]  # fmt: skip
        before = [len(part) for part in parts]
        self._is_written = is_recorded(v)
        try:
            found = evaluator(*args)
            if self._is_written:
                for x in found if isinstance(found, tuple) else (found,):
                    if isinstance(x, np.ndarray):
                        self.find(x)
        finally:
            is_written, self._is_written = self._is_written, True
        if is_written or self.why:
            return found
        for part, n in zip(parts, before):
            del part[n:]
        return self._computed(v, evaluator, args, found)

    def _computed(
        self, v: Variable, compute: Callable[..., Any], args: Sequence[Any], found: Any
    ) -> Any:
        operands = tuple(map(self._operand, args))
        is_fixed = not any(isinstance(x, View) for x in operands)
        kind = "fixed" if is_fixed else "made"
        arrays: list[Any] = []
        results: list[int | None] = []
        for x in found if isinstance(found, tuple) else (found,):
            if isinstance(x, np.generic) and not is_fixed:
                x = np.asarray(x)
            results.append(self.allocated(x, kind) if isinstance(x, np.ndarray) else None)
            arrays.append(x)
        if not is_fixed:
            self.steps.append(Computing(v, compute, operands, tuple(results)))
        return tuple(arrays) if isinstance(found, tuple) else arrays[0]

    def _operand(self, x: Any) -> Any:
        """As a step has it: a view, or what is the same in each call."""
        if not isinstance(x, np.ndarray) or not x.size:
            return x
        found = self.found(x)
        if found is None or found[0] in self._idle:
            self.stop("an array is of unknown origin, or idle")
            return x
        number, offset = found
        buffer = self.buffers[number]
        if buffer.kind == "fixed":
            return x
        whole = buffer.array
        is_whole = (x.shape, x.strides, x.dtype) == (whole.shape, whole.strides, whole.dtype)
        if is_whole and buffer.kind != "empty":
            return View(number, 0, None, (), None)
        if not whole.flags.c_contiguous:
            self.stop("a view is of what is not in row-major order")
        return View(number, offset, x.shape, x.strides, x.dtype)


class _Recording(threading.local):
    recorder: Recorder | None = None


recording = _Recording()


# ---- nodes ---------------------------------------------------------------------------------------


def is_view(v: Variable) -> bool:
    """Whether a node gives a view: which needs no step."""
    return isinstance(v.op, VIEWS) and v.ndim > 0


def is_recorded(v: Variable) -> bool:
    """Whether a node tells the recorder its steps, or that it does what is none."""
    return getattr(v.op, "is_recorded", False)


def recordable(v: Variable, evaluator: Callable[..., Any]) -> Callable[..., Any]:
    """The evaluator of a node, for calls that may be recorded."""
    if isinstance(v.op, Dim) or (is_view(v) and v.inputs[0].ndim):
        return evaluator

    def run(*args: Any) -> Any:
        recorder = recording.recorder
        if recorder is None:
            return evaluator(*args)
        return recorder.node(v, evaluator, args)

    return run
