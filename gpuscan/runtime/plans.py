"""What the host does around a program, worked out once for the sizes and strides that it meets:
shapes, integers, memory, and which worker does what."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from ..codegen.program import (
    PANEL,
    ROWS_AHEAD,
    FirstRow,
    Fixed,
    Given,
    LoopProgram,
    Meeting,
    NestProgram,
    Result,
    Scratch,
    Size,
    State,
    Step,
    Stride,
    Together,
    Trace,
    Unit,
    Watch,
    size_value,
)
from ..record import record
from . import memory, threads
from .threads import Shares

_MOST_PLANS = 64
_MULTIPLICATIONS = 32  # that take as long as an element of elementwise work
_TURNS = 64  # runs of a loop until its slower way is tried again,
_FIRST_TURNS = (4, 8, 16, 32)  # and before that
P = TypeVar("P")
Key = tuple[str, int]


@record
class Part:
    """What one worker does. row: the first of its rows, None where it has all of them."""

    integers: list[int]
    sizes: Mapping[str, int]
    row: int | None


@record
class Bytes:
    """Scratch memory."""

    size: int


@record
class MeetingOf:
    """Where so many workers meet."""

    workers: int


@record
class Copy:
    """One of a call's array with this number, for a worker of its own."""

    number: int


@record
class Split:
    """How workers share a loop. key: by what, and how many; made: what a call makes behind its
    arrays (`array_numbers`), Bytes, MeetingOf or Copy."""

    key: Key
    shares: Shares
    made: tuple[Any, ...]


class Plans(Generic[P]):
    """What the host does for a program, worked out once for the sizes and strides that matter."""

    def __init__(self, program: LoopProgram | NestProgram) -> None:
        self.program = program
        strided = {s.operand for s in program.integers if isinstance(s, Stride)}
        if isinstance(program, LoopProgram):
            strided |= {
                s.operand for s, axis in zip(program.pointers, program.row_axes)
                if isinstance(s, Given) and axis is not None
            }  # fmt: skip
        self.strided = sorted(strided)
        self.made: dict[Any, P] = {}

    def find(self, given: Sequence[Any], arrays: Any, make: Callable[..., P]) -> P:
        """The plan for these values of the sizes and these operands; a new one is made by
        make(program, sizes, arrays)."""
        sizes = [int(s) for s in given]
        key = (*sizes, *[arrays[i].strides for i in self.strided])
        plan = self.made.get(key)
        if plan is None:
            if len(self.made) >= _MOST_PLANS:
                self.made.clear()
            plan = self.made[key] = make(self.program, sizes, arrays)
        return plan


class SizedPlan:
    """fits: whether the sizes are such, and those that must be the same are."""

    def __init__(self, program: Any, given: Sequence[int], arrays: Any) -> None:
        self.program = program
        names = [name.text for name in program.kernel.integers]
        self.sizes = {
            name: given[source.position]
            for name, source in zip(names, program.integers)
            if isinstance(source, Size)
        }
        self.fits = min(given, default=0) >= 0 and all(
            size_value(a, self.sizes) == size_value(b, self.sizes) for a, b in program.equal
        )
        self.strides = {
            source: arrays[source.operand].strides[source.axis] // arrays[source.operand].itemsize
            for source in program.integers
            if isinstance(source, Stride)
        }

    def shape(self, sizes: Sequence[Any]) -> tuple[int, ...]:
        return tuple([size_value(s, self.sizes) for s in sizes])

    def layout(
        self, sizes: Mapping[str, int], wanted: Callable[[Scratch], bool] = lambda s: True
    ) -> tuple[dict[int, int], int]:
        """A place for the wanted scratch memory: per pointer number its offset, and the size of
        all, in bytes."""
        offsets, size = {}, 0
        for i, s in enumerate(self.program.pointers):
            if isinstance(s, Scratch) and wanted(s):
                offsets[i] = size
                size += size_value(s.elements, sizes) * np.dtype(s.dtype).itemsize
                size += -size % memory.LINE
        return (offsets, size) if size else ({}, 0)


class NestPlan(SizedPlan):
    def __init__(self, program: NestProgram, given: Sequence[int], operands: Any) -> None:
        super().__init__(program, given, operands)
        if not self.fits:
            return
        self.results = [(self.shape(shape), dtype) for dtype, shape in program.shapes]
        self.integers = [
            given[s.position] if isinstance(s, Size) else self.strides[s] for s in program.integers
        ]
        self.offsets, self.scratch = self.layout(self.sizes)  # of each worker
        self.rows = [size_value(piece.rows, self.sizes) for piece in program.pieces]
        self.work = [max(1, math.prod(self.shape(piece.work))) for piece in program.pieces]
        self.row_count = sum(self.rows)
        work = sum(self.work)
        if program.depth is not None:
            work = work * size_value(program.depth, self.sizes) // _MULTIPLICATIONS
        self.is_shared = program.is_divided and work >= threads.WORTH_SHARING
        self.made: dict[int, tuple[Shares, bytes]] = {}

    def shares(self) -> tuple[Shares, bytes]:
        """Of workers that have about as much to do, with their positions, first and behind the
        last. Scratch memory is behind a call's arrays."""
        n = threads.size(self.row_count) if self.is_shared else 1
        found = self.made.get(n)
        if found is None:
            starts = [self._position(sum(self.work) * k // n) for k in range(n)]
            numbers, behind = array_numbers(self.program)
            pointers = []
            for k in range(n):
                places = [None if number is None else (number, 0) for number in numbers]
                for i, offset in self.offsets.items():
                    places[i] = behind, k * self.scratch + offset
                pointers.append(places)
            shares = threads.shares([self.integers] * n, pointers)
            found = self.made[n] = shares, threads.in_order([*starts, self.row_count])
        return found

    def _position(self, work: int) -> int:
        """Where so much of the work is done."""
        start = 0
        for rows, here in zip(self.rows, self.work):
            if work < here:
                return start + work * rows // here
            start, work = start + rows, work - here
        return start


class LoopPlan(SizedPlan):
    def __init__(self, program: LoopProgram, given: Sequence[int], arrays: Any) -> None:
        super().__init__(program, given, arrays)
        if not self.fits:
            return
        self.rows = [(self.shape(shape), dtype) for dtype, shape in program.rows]
        self.states = [self.shape(carry.shape) for carry in program.carries]
        self.operand_strides = {i: arrays[i].strides for i in arrays}
        self.state_size = sum(map(math.prod, self.states))
        apart = program.rows_apart
        self.row_name = None if apart is None else program.kernel.integers[apart].text
        self.row_count = 1 if self.row_name is None else self.sizes[self.row_name]
        self.made: dict[Key, Split] = {}
        self.pace: dict[Key, float] = {}  # seconds of a step
        self.tries: dict[Key, int] = {}
        self.turns = 0
        self.unit_sizes: list[int] = []
        self.unit_work = 0.0  # multiplications of a step that workers can share, for a meeting
        work = 0
        if program.units is not None:
            self.unit_sizes = [size_value(s, self.sizes) for s in program.units.sizes]
            work = sum(math.prod(self.shape(p)) for p in program.units.products)
            self.unit_work = work / max(1, program.units.meetings)
        # Steps before the first chance to interrupt them, when it is known how long they take.
        self.piece = max(1, (1 << 30) // (work + 64 * self.state_size + 1))
        if program.units is None:
            self.piece = 1 if program.nested else min(64, self.piece)

    def split(self, steps: int) -> Split:
        """How workers share the loop: its rows, or its units."""
        n = 1
        if self.row_name is not None and steps * self.state_size >= threads.WORTH_SHARING:
            n = threads.size(self.row_count)
        key = ("rows", n)
        few_rows = self.row_count < FEW_ROWS * threads.count()
        if self.unit_sizes and few_rows and self.unit_work >= WORTH_MEETING:
            most = threads.size(max(-(-size // PANEL) for size in self.unit_sizes))
            if most >= max(2, n):
                key = self._faster(("units", most), key)
        found = self.made.get(key)
        if found is None:
            found = self.made[key] = self._split(*key)
        return found

    def _faster(self, units: Key, rows: Key) -> Key:
        """On a machine with other work, workers that meet wait for each other for long: each way
        is tried, then the faster one is taken, and the other now and then; at first more often, as
        what was measured then may have been disturbed. The first call has more to do."""
        for key, tries in ((units, 2), (rows, 1)):
            if self.tries.get(key, 0) < tries:
                return key
        best, other = sorted((units, rows), key=self.pace.__getitem__)
        is_tried = self.turns in _FIRST_TURNS or self.turns % _TURNS == 0
        return other if is_tried else best

    def took(self, split: Split, seconds: float) -> None:
        """How long a step took, where there are two ways."""
        if not self.unit_sizes:
            return
        self.turns += 1
        self.tries[split.key] = self.tries.get(split.key, 0) + 1
        old = self.pace.get(split.key, seconds)
        self.pace[split.key] = min(seconds, 0.7 * old + 0.3 * seconds)

    def _split(self, kind: str, n: int) -> Split:
        program, by_units = self.program, kind == "units"
        numbers, first = array_numbers(program)
        made: list[Any] = []

        def new(x: Any) -> int:
            made.append(x)
            return first + len(made) - 1

        def is_common(s: Scratch) -> bool:
            return by_units and s.shared

        parts = [self._part(by_units, k, n) for k in range(n)]
        own = [self.layout(part.sizes, lambda s: not is_common(s)) for part in parts]
        own_size = sum(size for _, size in own)
        at_own = new(Bytes(own_size)) if own_size else -1
        common, size = self.layout(self.sizes, is_common)
        at_common = new(Bytes(size)) if size else -1
        of_all = {i: (at_common, offset) for i, offset in common.items()}
        meetings = [i for i, s in enumerate(program.pointers) if isinstance(s, Meeting)]
        if meetings:
            of_all |= dict.fromkeys(meetings, (new(MeetingOf(n if by_units else 1)), 0))
        of_all |= {i: threads.WATCH for i, s in enumerate(program.pointers) if s == Watch()}
        copied = self._copied(by_units) if n > 1 else set()
        pointers, before = [], 0
        for k, (part, (offsets, size)) in enumerate(zip(parts, own)):
            places = {i: (number, 0) for i, number in enumerate(numbers) if number is not None}
            for i, (number, _) in places.items() if k else ():
                if i in copied:
                    places[i] = new(Copy(number)), 0
                elif part.row and program.row_axes[i] is not None:
                    places[i] = number, part.row * self._row_stride(i)
            places |= of_all | {i: (at_own, before + offset) for i, offset in offsets.items()}
            before += size
            pointers.append([places.get(i) for i in range(len(numbers))])
        shares = threads.shares([p.integers for p in parts], pointers, by_units and n > 1)
        return Split((kind, n), shares, tuple(made))

    def _copied(self, by_units: bool) -> set[int]:
        """The pointers to what all workers would write alike: each but the first writes it for
        itself."""
        program, units = self.program, self.program.units
        apart = units.one if units and by_units else [a is not None for a in program.row_axes]
        written = [i for i, s in enumerate(program.pointers) if isinstance(s, Trace | State)]
        return {i for i in written if not apart[i]}

    def _row_stride(self, i: int) -> int:
        """Of the array that a pointer is to, in bytes."""
        axis = self.program.row_axes[i]
        match self.program.pointers[i]:
            case Given(operand):
                return self.operand_strides[operand][axis]
            case Fixed(constant):
                return constant.data.strides[axis]
            case Trace(k):
                shape, dtype = self.rows[k]
                return math.prod(shape[axis:]) * np.dtype(dtype).itemsize
            case State(k):
                shape, dtype = self.states[k], self.program.carries[k].dtype
                return math.prod(shape[axis + 1 :]) * np.dtype(dtype).itemsize
        raise TypeError(self.program.pointers[i])

    def _part(self, by_units: bool, k: int, n: int) -> Part:
        sizes = dict(self.sizes)
        row, units = None, [_own_units(size, k, n) for size in self.unit_sizes]
        if not by_units:
            if self.row_name is not None:
                row, end = (self.row_count * i // n for i in (k, k + 1))
                sizes[self.row_name] = end - row
            spans = () if self.program.units is None else self.program.units.sizes
            units = [(0, size_value(s, sizes)) for s in spans]  # the rows may be such a span
        integers = [
            self._integer(source, name.text, sizes, row or 0, units)
            for source, name in zip(self.program.integers, self.program.kernel.integers)
        ]
        return Part(integers, sizes, row)

    def _integer(
        self, source: Any, name: str, sizes: Mapping[str, int], row: int, units: Sequence[Any]
    ) -> int:
        match source:
            case Size():
                return sizes[name]
            case Stride():
                return self.strides[source]
            case Step(trace):
                return math.prod(self.rows[trace][0])
            case FirstRow():
                return row
            case Together(rows):
                return max(1, ROWS_AHEAD // max(1, size_value(rows, sizes)))
            case Unit(size, end):
                return int(units[size][end])
        raise TypeError(source)


FEW_ROWS = 4  # for each worker: with fewer, each reads all weights for too little work
WORTH_MEETING = 1 << 16  # multiplications; a meeting takes about a microsecond
_MEETING = 24  # integers, as kernels/meetings.h has it


def _own_units(size: int, k: int, n: int) -> tuple[int, int]:
    """The units of worker k of n: the first, and the one behind the last."""
    blocks = -(-size // PANEL)
    first, end = (min(size, blocks * i // n * PANEL) for i in (k, k + 1))
    return first, end


# ---- memory --------------------------------------------------------------------------------------


def laid_out(x: Any, whole: bool) -> Any:
    """The operand as the kernel reads it: aligned, strides that are whole elements, the last
    axis dense unless any stride will do."""
    array = np.asarray(x)
    if not isinstance(x, np.ndarray):
        memory.is_number(array)
    return array if is_laid_out(array, whole) else memory.copied(array)


def is_laid_out(x: Any, whole: bool) -> bool:
    """Whether the kernel reads the operand as it is: NumPy's array, or one on a GPU."""
    flags, is_numpys = x.flags, isinstance(x, np.ndarray)
    if is_numpys and not flags.aligned:
        return False
    if flags.c_contiguous:
        return True
    by_alignment = is_numpys and x.dtype.alignment == x.itemsize  # strides are whole elements
    if not by_alignment and any(s % x.itemsize for s in x.strides):
        return False
    return whole or x.strides[-1] == x.itemsize or x.shape[-1] <= 1


def made(what: Any, arrays: Sequence[Any]) -> Any:
    """What a call with these arrays makes behind them."""
    match what:
        case Bytes(size):
            return memory.scratch(size)
        case MeetingOf(workers):
            return memory.numbers([workers] + [0] * (_MEETING - 1))
        case Copy(number):
            return memory.copied(arrays[number])
    raise TypeError(what)


def constants(program: LoopProgram | NestProgram) -> list[Any]:
    return [s.constant.data for s in program.pointers if isinstance(s, Fixed)]


def array_numbers(program: LoopProgram | NestProgram) -> tuple[list[int | None], int]:
    """A call gives arrays one after the other: operands that a kernel reads, results, traces, both
    states of each carry (None for one that is not there), and constants. Per pointer its array's
    number among them, None where it is none of them; and how many there are."""
    order: list[Any] = list(read_operands(program))
    if isinstance(program, LoopProgram):
        order += [Trace(i) for i in range(len(program.rows))]
        order += [State(j, k) for j in range(len(program.carries)) for k in (0, 1)]
    else:
        order += [Result(i) for i in range(len(program.shapes))]
    order += [s for s in program.pointers if isinstance(s, Fixed)]
    numbers = [
        None if isinstance(s, Scratch | Meeting | Watch)
        else order.index(s.operand if isinstance(s, Given) else s)
        for s in program.pointers
    ]  # fmt: skip
    return numbers, len(order)


def read_operands(program: LoopProgram | NestProgram) -> dict[int, bool]:
    """The operands that a kernel reads, in order, and of each whether any stride will do."""
    found = [s for s in program.pointers if isinstance(s, Given)]
    return {s.operand: s.whole for s in sorted(found, key=lambda s: s.operand)}
