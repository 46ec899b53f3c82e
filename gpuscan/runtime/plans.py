"""What the host does around a program, worked out once for the sizes and strides that it meets:
shapes, integers, memory, and which worker does what."""

from __future__ import annotations

import ctypes
import math
import struct
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
    Scratch,
    Size,
    Step,
    Stride,
    Together,
    Unit,
    size_value,
)
from ..record import record
from . import memory, threads

_MOST_PLANS = 64
_MULTIPLICATIONS = 32  # that take as long as an element of elementwise work
_TURNS = 64
P = TypeVar("P")
Key = tuple[str, int]


@record
class Layout:
    """Scratch memory: per pointer number its offset, and the size of all, in bytes."""

    offsets: tuple[tuple[int, int], ...]
    size: int


@record
class Part:
    """What one worker does. row: the first of its rows, None where it has all of them."""

    integers: bytes
    scratch: Layout
    row: int | None


@record
class Split:
    """How workers share a loop, by what and how many; the part of each, the scratch memory that
    they have together, the pointers to where they meet, and whether they do."""

    key: Key
    parts: tuple[Part, ...]
    shared: Layout
    meetings: tuple[int, ...]
    meet: bool


class Plans(Generic[P]):
    """What the host does for a program, worked out once for the sizes and strides that matter."""

    def __init__(self, program: LoopProgram | NestProgram) -> None:
        self.program = program
        self.strided = sorted({s.operand for s in program.integers if isinstance(s, Stride)})
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

    def layout(self, sizes: Mapping[str, int], wanted: Callable[[Scratch], bool]) -> Layout:
        """A place for the wanted scratch memory."""
        offsets, size = [], 0
        for i, s in enumerate(self.program.pointers):
            if isinstance(s, Scratch) and wanted(s):
                offsets.append((i, size))
                size += size_value(s.elements, sizes) * np.dtype(s.dtype).itemsize
                size += -size % memory.LINE
        return Layout(tuple(offsets), size)


class NestPlan(SizedPlan):
    def __init__(self, program: NestProgram, given: Sequence[int], operands: Any) -> None:
        super().__init__(program, given, operands)
        if not self.fits:
            return
        self.results = [(self.shape(shape), dtype) for dtype, shape in program.shapes]
        self.scratch = self.layout(self.sizes, lambda s: True)
        integers = [
            given[s.position] if isinstance(s, Size) else self.strides[s] for s in program.integers
        ]
        self.integers = struct.pack(f"{len(integers)}q", *integers)
        self.rows = [size_value(piece.rows, self.sizes) for piece in program.pieces]
        self.work = [max(1, math.prod(self.shape(piece.work))) for piece in program.pieces]
        self.row_count = sum(self.rows)
        work = sum(self.work)
        if program.depth is not None:
            work = work * size_value(program.depth, self.sizes) // _MULTIPLICATIONS
        self.is_shared = program.is_divided and work >= threads.WORTH_SHARING
        self.made: dict[int, list[tuple[int, int]]] = {}

    def shares(self, n: int) -> list[tuple[int, int]]:
        """The positions of n workers, first and behind the last, that have about as much to do."""
        found = self.made.get(n)
        if found is None:
            starts = [self._position(sum(self.work) * k // n) for k in range(n)]
            found = self.made[n] = list(zip(starts, [*starts[1:], self.row_count]))
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
        is tried, then the faster one is taken, and the other now and then."""
        for key in (units, rows):
            if self.tries.get(key, 0) < 2:
                return key
        self.turns += 1
        best, other = sorted((units, rows), key=self.pace.__getitem__)
        return other if self.turns % _TURNS == 0 else best

    def took(self, split: Split, seconds: float) -> None:
        """How long a step took, where there are two ways."""
        if not self.unit_sizes:
            return
        tries = self.tries[split.key] = self.tries.get(split.key, 0) + 1
        old = self.pace[split.key] if tries > 2 else seconds  # the first call has more to do
        self.pace[split.key] = min(seconds, 0.7 * old + 0.3 * seconds)

    def _split(self, kind: str, n: int) -> Split:
        units = kind == "units"
        meetings = [i for i, s in enumerate(self.program.pointers) if isinstance(s, Meeting)]
        shared = self.layout(self.sizes, lambda s: units and s.shared)
        parts = tuple([self._part(units, k, n) for k in range(n)])
        return Split((kind, n), parts, shared, tuple(meetings), units and n > 1)

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
        packed = struct.pack(f"{len(integers)}q", *integers)
        return Part(packed, self.layout(sizes, lambda s: not (by_units and s.shared)), row)

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


def meeting_of(workers: int) -> Any:
    """Where so many workers meet."""
    meeting = np.zeros(_MEETING, "int64")
    meeting[0] = workers
    return meeting


def _own_units(size: int, k: int, n: int) -> tuple[int, int]:
    """The units of worker k of n: the first, and the one behind the last."""
    blocks = -(-size // PANEL)
    first, end = (min(size, blocks * i // n * PANEL) for i in (k, k + 1))
    return first, end


# ---- memory --------------------------------------------------------------------------------------


def laid_out(x: Any, whole: bool) -> Any:
    """The operand as the kernel reads it: aligned, strides that are whole elements, the last
    axis dense unless any stride will do."""
    x = np.asarray(x)
    return x if is_laid_out(x, whole) else np.array(x, order="C")


def is_laid_out(x: np.ndarray, whole: bool) -> bool:
    """Whether the kernel reads the operand as it is."""
    flags = x.flags
    if not flags.aligned:
        return False
    if flags.c_contiguous:
        return True
    if any(s % x.itemsize for s in x.strides):
        return False
    return whole or x.strides[-1] == x.itemsize or x.shape[-1] <= 1


# In NumPy's ABI an array object is Python's header, the address of the data, and more; to ask
# `.ctypes.data` for the address takes ten times as long as to read it there.
_DATA = object.__basicsize__


def addresses(arrays: Sequence[Any]) -> list[int]:
    """Where the data of the arrays are."""
    read = ctypes.c_size_t.from_address
    return [read(id(x) + _DATA).value for x in arrays]


_probe = np.empty(1)
assert addresses([_probe]) == [_probe.ctypes.data], "gpuscan reads arrays of CPython's NumPy"


def constants(program: LoopProgram | NestProgram) -> list[Any]:
    return [s.constant.data for s in program.pointers if isinstance(s, Fixed)]


def places(program: LoopProgram | NestProgram, first: Sequence[Any]) -> list[int | None]:
    """Per pointer its array's position among those of `first` (operands by their numbers,
    results, traces, states) and the constants behind them; None for other memory."""
    order = [*first, *[s for s in program.pointers if isinstance(s, Fixed)]]
    return [
        None if isinstance(s, Scratch | Meeting)
        else order.index(s.operand if isinstance(s, Given) else s)
        for s in program.pointers
    ]  # fmt: skip


def put(pointers: list[int], layout: Layout, keep: list[Any]) -> None:
    """New scratch memory for pointers; `keep` holds it."""
    if layout.size:
        keep.append(memory.scratch(layout.size, "uint8"))
        (start,) = addresses(keep[-1:])
        for i, offset in layout.offsets:
            pointers[i] = start + offset
