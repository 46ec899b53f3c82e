"""The native CPU device: loops in C, built by the system's compiler; the rest by NumPy."""

from __future__ import annotations

import ctypes
import itertools
import math
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from ..codegen.program import (
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
    size_value,
)
from ..evaluate import Program
from ..graph import Op, Variable
from ..record import field, record, replace
from ..scan.op import Scan
from ..types import TensorType, TupleType
from . import compiler, memory, threads

_BREATH = 0.2  # seconds of a kernel between two chances to interrupt it


@record
class NativeLoop(Op):
    """A Scan with its program: (*the Scan's operands, *sizes, *others) -> the Scan's results.
    The others are for the loop as it was written, which runs where this one can't."""

    definition: Scan
    program: LoopProgram
    function: Any = field(compare=False)  # the kernel, loaded
    node: Variable = field(compare=False)  # the Scan as it was written
    inputs: tuple[Variable, ...] = field(compare=False)  # what this op's inputs stand for

    def infer(self, *types: TensorType) -> Any:
        return self.definition.infer(*types[: 1 + len(self.definition.step.params)])

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        return _Runner(self)


class _Runner:
    """Runs a loop's program on arrays."""

    def __init__(self, op: NativeLoop) -> None:
        self.op, self.program, self.function = op, op.program, op.function
        step = op.definition.step
        self.n_operands = 1 + len(step.params)
        self.n_inputs = self.n_operands + sum(isinstance(s, Size) for s in op.program.integers)
        self.first_init = 1 + len(step.seqs)
        self.n_seqs = len(step.seqs)
        self.plans: _Plans[_LoopPlan] = _Plans(op.program)
        self.read = {s.operand: s.whole for s in op.program.pointers if isinstance(s, Given)}
        traces = [Trace(i) for i in range(len(op.program.rows))]
        states = [State(j, k) for j in range(len(op.program.carries)) for k in (0, 1)]
        self.places = _places(op.program, [*self.read, *traces, *states], [Meeting()])
        self.constants = _constants(op.program)
        self.pack = struct.Struct(f"{len(self.places)}Q").pack
        self._interpreted: Any = None

    def definition(self, *inputs: Any) -> Any:
        """The loop as NumPy runs it: what says why an operand is wrong."""
        given = dict(zip(self.op.inputs, inputs))
        if self._interpreted is None:
            self._interpreted = Program(list(given), [self.op.node])
        return self._interpreted(*given.values())[0]

    def __call__(self, *inputs: Any) -> Any:
        operands = inputs[: self.n_operands]
        steps = int(operands[0])
        arrays = {i: _laid_out(operands[i], whole) for i, whole in self.read.items()}
        plan = self.plans.find(inputs[self.n_operands : self.n_inputs], arrays, _LoopPlan)
        if steps < 1 or not plan.fits or any(len(s) < steps for s in operands[1 : 1 + self.n_seqs]):
            return self.definition(*inputs)
        states = self._states(operands, plan.states)
        if states is None:
            return self.definition(*inputs)
        traces = [memory.empty((steps, *shape), dtype) for shape, dtype in plan.rows]
        held = [*arrays.values(), *traces]
        for pair in states:
            held += pair
        held += self.constants

        shares = []
        for k, part in enumerate(plan.parts(steps)):
            own = [
                *held,
                part.meeting,
                *[memory.scratch(size, dtype) for size, dtype in part.scratch],
            ]
            placed = [own[i] for i in self.places]
            if k == 0:
                first = placed
            else:
                placed = [self._share(i, x, first[i], part.row) for i, x in enumerate(placed)]
            shares.append((placed, self.pack(*addresses(placed)), part.integers))
        meet = len(shares) > 1 and part.row is None
        done = self._advance(steps, [share[1:] for share in shares], meet)
        if done < 0:
            return self.definition(*inputs)
        return self._results(done, operands, traces, states)

    def _share(self, k: int, array: Any, first: Any, row: int | None) -> Any:
        """The array of pointer number k for a worker that is not the first: from a row on, or
        where workers share units, the first worker's or one of its own."""
        source = self.program.pointers[k]
        if row is not None:
            axis = self.program.row_axes[k]
            if axis is not None:
                return array[(slice(None),) * axis + (slice(row, None),)]
        elif self.program.units is not None and self.program.units.one[k]:
            return first
        # what all would write alike, each but the first writes for itself
        return array.copy() if isinstance(source, Trace | State) else array

    def _advance(self, n: int, parts: Sequence[tuple[bytes, bytes]], meet: bool) -> int:
        """Steps until n or until the loop stops; -1 where a check failed. In pieces, so that an
        interrupt is seen."""
        t, piece = 0, 64
        while t < n:
            last = min(n, t + piece)
            began = time.perf_counter()
            done = threads.run(self.function, [(t, last, *part) for part in parts], meet)
            if done != last:
                return done
            t, spent = last, time.perf_counter() - began
            piece = max(1, int(piece * min(1024.0, _BREATH / max(spent, 1e-6))))
        return t

    def _states(self, operands: Sequence[Any], shapes: Sequence[Any]) -> list[Any] | None:
        """Per carry an array of its initial value, and a second one where it has two buffers;
        None where an initial value has not the shape of a state."""
        states = []
        for j, (carry, shape) in enumerate(zip(self.program.carries, shapes)):
            initial = np.asarray(operands[self.first_init + j])
            if initial.shape != shape:
                return None
            first = memory.empty(shape, carry.dtype)
            first[...] = initial
            second = memory.empty(shape, carry.dtype) if carry.kind == "buffers" else None
            states.append((first, second))
        return states

    def _results(
        self, done: int, operands: Sequence[Any], traces: list[Any], states: list[Any]
    ) -> tuple[Any, ...]:
        finals = []
        for carry, (first, second) in zip(self.program.carries, states):
            match carry.kind:
                case "trace":
                    finals.append(traces[carry.trace][done - 1].copy())
                case "buffers":
                    finals.append(second if done % 2 else first)
                case _:
                    finals.append(first[()])
        whole = done == int(operands[0])
        return (*finals, *(x if whole else x[:done] for x in traces), np.int64(done))


@record
class NativeNest(Op):
    """A nest with its program: (*operands, *sizes) -> its results."""

    values: tuple[Variable, ...]
    operands: tuple[Variable, ...]
    program: NestProgram
    function: Any = field(compare=False)

    def infer(self, *types: TensorType) -> TupleType:
        return TupleType(tuple(v.type for v in self.values))

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        return _NestRunner(self)


class _NestRunner:
    """Runs a nest's program on arrays, large ones by two threads or more."""

    def __init__(self, op: NativeNest) -> None:
        self.op, self.program, self.function = op, op.program, op.function
        self.n_operands = len(op.operands)
        self.plans: _Plans[_NestPlan] = _Plans(op.program)
        results = [Result(i) for i in range(len(op.program.shapes))]
        self.places = _places(op.program, [*range(self.n_operands), *results])
        self.constants = _constants(op.program)
        self.pack = struct.Struct(f"{len(self.places)}Q").pack
        self._interpreted: Program | None = None

    def definition(self, operands: Sequence[Any]) -> Any:
        """The values as NumPy computes them: what says why an operand is wrong."""
        if self._interpreted is None:
            self._interpreted = Program(self.op.operands, self.op.values)
        return self._interpreted(*operands)

    def __call__(self, *inputs: Any) -> Any:
        operands = [_laid_out(x, False) for x in inputs[: self.n_operands]]
        plan = self.plans.find(inputs[self.n_operands :], operands, _NestPlan)
        if not plan.fits:
            return self.definition(inputs[: self.n_operands])
        results = [memory.empty(shape, dtype) for shape, dtype in plan.results]
        scratch = [memory.scratch(size, dtype) for size, dtype in plan.scratch]
        own = [*operands, *results, *self.constants, *scratch]
        pointers = self.pack(*addresses([own[i] for i in self.places]))
        function, integers, rows = self.function, plan.integers, plan.row_count
        n = threads.size(rows) if plan.is_shared else 1
        ends = [rows * k // n for k in range(n + 1)]
        bad = threads.run(
            function, [(a, b, pointers, integers) for a, b in itertools.pairwise(ends)]
        )
        if bad:
            return self.definition(inputs[: self.n_operands])
        return tuple(results)


# ---- plans ---------------------------------------------------------------------------------------

_MOST_PLANS = 64
P = TypeVar("P")


class _Plans(Generic[P]):
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


class _Plan:
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

    def scratch_of(self, sizes: Mapping[str, int]) -> list[tuple[int, str]]:
        return [
            (size_value(s.elements, sizes), s.dtype)
            for s in self.program.pointers
            if isinstance(s, Scratch)
        ]


class _NestPlan(_Plan):
    def __init__(self, program: NestProgram, given: Sequence[int], operands: Any) -> None:
        super().__init__(program, given, operands)
        if not self.fits:
            return
        self.results = [(self.shape(shape), dtype) for dtype, shape in program.shapes]
        self.scratch = self.scratch_of(self.sizes)
        integers = [
            given[s.position] if isinstance(s, Size) else self.strides[s] for s in program.integers
        ]
        self.integers = struct.pack(f"{len(integers)}q", *integers)
        first = self.results[0][0]
        self.row_count = first[0] if first else 1
        self.is_shared = program.parts and math.prod(first) >= threads.WORTH_SHARING


class _LoopPlan(_Plan):
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
        self.made: dict[tuple[str, int], list[_Part]] = {}
        self.unit_sizes: list[int] = []
        self.unit_work = 0.0  # multiplications of a step that workers can share, for a meeting
        if program.units is not None:
            self.unit_sizes = [size_value(s, self.sizes) for s in program.units.sizes]
            work = sum(math.prod(self.shape(p)) for p in program.units.products)
            self.unit_work = work / max(1, program.units.meetings)

    def parts(self, steps: int) -> list[_Part]:
        """What each of the workers does: all steps, for some of the rows or of the units."""
        kind, n = "rows", 1
        if self.row_name is not None and steps * self.state_size >= threads.WORTH_SHARING:
            n = threads.size(self.row_count)
        few_rows = self.row_count < _FEW_ROWS * threads.count()
        if self.unit_sizes and few_rows and self.unit_work >= _WORTH_MEETING:
            most = threads.size(max(-(-size // _GRAIN) for size in self.unit_sizes))
            if most >= n:
                kind, n = "units", most
        found = self.made.get((kind, n))
        if found is None:
            found = [self._part(kind, k, n) for k in range(n)]
            self.made[kind, n] = found
        if kind == "units":
            meeting = np.zeros(_MEETING, "int64")
            meeting[0] = n
            found = [part.meeting_at(meeting) for part in found]
        return found

    def _part(self, kind: str, k: int, n: int) -> _Part:
        sizes = dict(self.sizes)
        row, units = None, [(0, size) for size in self.unit_sizes]
        if kind == "units":
            units = [_own_units(size, k, n) for size in self.unit_sizes]
        elif self.row_name is not None:
            row, end = (self.row_count * i // n for i in (k, k + 1))
            sizes[self.row_name] = end - row
        integers = [
            self._integer(source, name.text, sizes, row or 0, units)
            for source, name in zip(self.program.integers, self.program.kernel.integers)
        ]
        packed = struct.pack(f"{len(integers)}q", *integers)
        return _Part(packed, self.scratch_of(sizes), row, _ALONE)

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


_GRAIN = 64  # units; a product's columns are packed by so many
_FEW_ROWS = 4  # for each worker: with fewer, each reads all weights for too little work
_WORTH_MEETING = 1 << 16  # multiplications; a meeting takes about a microsecond
_MEETING = 24  # integers, as kernels/meetings.h has it
_ALONE = np.array([1] + [0] * (_MEETING - 1), "int64")  # the meeting of one


@record
class _Part:
    """What one worker does. row: the first of its rows, None where it has all of them."""

    integers: bytes
    scratch: list[tuple[int, str]]
    row: int | None
    meeting: Any = field(compare=False)

    def meeting_at(self, meeting: Any) -> _Part:
        return replace(self, meeting=meeting)


def _own_units(size: int, k: int, n: int) -> tuple[int, int]:
    """The units of worker k of n: the first, and the one behind the last."""
    blocks = -(-size // _GRAIN)
    first, end = (min(size, blocks * i // n * _GRAIN) for i in (k, k + 1))
    return first, end


# ---- memory --------------------------------------------------------------------------------------


def _laid_out(x: Any, whole: bool) -> Any:
    """The operand as the kernel reads it: aligned, strides that are whole elements, the last
    axis dense unless any stride will do."""
    x = np.asarray(x)
    flags = x.flags
    if not flags.aligned:
        return x.copy()
    if flags.c_contiguous:
        return x
    odd = any(s % x.itemsize for s in x.strides)
    if odd or not (whole or x.strides[-1] == x.itemsize or x.shape[-1] <= 1):
        return np.ascontiguousarray(x)
    return x


# In NumPy's ABI an array object is Python's header, the address of the data, and more; to ask
# `.ctypes.data` for the address takes ten times as long as to read it there.
_DATA = object.__basicsize__


def addresses(arrays: Sequence[Any]) -> list[int]:
    """Where the data of the arrays are."""
    read = ctypes.c_size_t.from_address
    return [read(id(x) + _DATA).value for x in arrays]


_probe = np.empty(1)
assert addresses([_probe]) == [_probe.ctypes.data], "gpuscan reads arrays of CPython's NumPy"


def _constants(program: LoopProgram | NestProgram) -> list[Any]:
    return [s.constant.data for s in program.pointers if isinstance(s, Fixed)]


def _places(
    program: LoopProgram | NestProgram, first: Sequence[Any], last: Sequence[Any] = ()
) -> list[int]:
    """Per pointer its array's position among those of `first` (operands by their numbers,
    results, traces, states), then the constants, then those of `last`, then the scratch."""
    sources = program.pointers
    order = [*first, *[s for s in sources if isinstance(s, Fixed)], *last]
    scratch = itertools.count(len(order))
    return [
        next(scratch) if isinstance(s, Scratch)
        else order.index(s.operand if isinstance(s, Given) else s)
        for s in sources
    ]  # fmt: skip


class Native:
    """Loops in C by the system's compiler. `lowered` is what codegen found for each Scan of a
    graph: a program and its sizes, or the reason why there is none."""

    name = "native"

    def load(self, source: str, names: Sequence[str]) -> list[Any]:
        """The kernels of a source by name, built and loaded."""
        library = compiler.library(source)
        return [compiler.kernel(library, name) for name in names]

    def compile(
        self, inputs: Sequence[Variable], outputs: Sequence[Variable],
        written: Mapping[Variable, Variable] | None = None,
    ) -> Program:  # fmt: skip
        return Program(inputs, outputs, written)
