"""The native CPU device: loops in C, built by the system's compiler; the rest by NumPy."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..codegen.program import (
    FirstRow,
    Fixed,
    Given,
    LoopProgram,
    NestProgram,
    Result,
    Scratch,
    Size,
    State,
    Step,
    Stride,
    Trace,
    size_value,
)
from ..evaluate import Program
from ..graph import Op, Variable
from ..scan.op import Scan
from ..types import TensorType, TupleType
from . import compiler, threads

_BREATH = 0.2  # seconds of a kernel between two chances to interrupt it


@dataclass(frozen=True)
class NativeLoop(Op):
    """A Scan with its program: (*the Scan's operands, *sizes) -> the Scan's results."""

    definition: Scan
    program: LoopProgram
    function: Any = field(compare=False)  # the kernel, loaded
    node: Variable = field(compare=False)  # the Scan as it was written, for errors

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
        self.first_init = 1 + len(step.seqs)
        self.n_seqs = len(step.seqs)
        self.sizes = _positions_of_sizes(op.program)
        self._interpreted: Any = None

    def definition(self, operands: Sequence[Any]) -> Any:
        """The loop as NumPy runs it: what says why an operand is wrong."""
        if self._interpreted is None:
            self._interpreted = self.op.definition.evaluator(self.op.node)
        return self._interpreted(*operands)

    def __call__(self, n: Any, *rest: Any) -> Any:
        program = self.program
        operands = (n, *rest[: self.n_operands - 1])
        steps = int(n)
        given = [int(s) for s in rest[self.n_operands - 1 :]]
        sizes = {name: given[k] for name, k in self.sizes}
        if (
            steps < 1
            or any(len(s) < steps for s in operands[1 : 1 + self.n_seqs])
            or any(size_value(a, sizes) != size_value(b, sizes) for a, b in program.equal)
        ):
            return self.definition(operands)
        arrays = {
            s.operand: _laid_out(operands[s.operand], s.whole)
            for s in program.pointers
            if isinstance(s, Given)
        }
        traces = [
            np.empty((steps, *(size_value(s, sizes) for s in shape)), dtype)
            for dtype, shape in program.rows
        ]
        states = self._states(operands, sizes)
        if states is None:
            return self.definition(operands)

        def part(first: int, last: int) -> threads.Work:
            """All steps, for some of the rows."""
            own = dict(sizes)
            if program.rows_apart is not None:
                own[program.kernel.integers[program.rows_apart].text] = last - first
            memory = [
                self._memory(k, first, last, arrays, traces, states, own)
                for k in range(len(program.pointers))
            ]
            integers = [
                self._integer(source, name.text, own, arrays, traces, first)
                for source, name in zip(program.integers, program.kernel.integers)
            ]
            return lambda stop: self._advance(steps, memory, integers, stop)

        if program.rows_apart is None:
            done = part(0, 0)(threading.Event())
        else:
            rows = sizes[program.kernel.integers[program.rows_apart].text]
            work = steps * sum(first.size for first, _ in states)
            if work >= threads.WORTH_SHARING:
                done = threads.share(rows, part)
            else:
                done = part(0, rows)(threading.Event())
        if done < 0:
            return self.definition(operands)
        return self._results(done, operands, traces, states)

    def _memory(
        self, k: int, first: int, last: int, arrays: Mapping[int, Any], traces: Sequence[Any],
        states: Sequence[Any], sizes: Mapping[str, int],
    ) -> Any:  # fmt: skip
        """The array of pointer number k, for rows first .. last-1."""
        source, axis = self.program.pointers[k], self.program.row_axes[k]
        match source:
            case Scratch(elements, dtype):
                return np.empty(size_value(elements, sizes), dtype)
            case Fixed(constant):
                return constant.data
            case Given(operand):
                array = arrays[operand]
            case Trace(i):
                array = traces[i]
            case State(j, parity):
                array = states[j][parity]
            case _:
                raise TypeError(source)
        if axis is not None:
            return array[(slice(None),) * axis + (slice(first, last),)]
        # what all threads would write alike, each but the first writes for itself
        return array if first == 0 or isinstance(source, Given) else array.copy()

    def _integer(
        self, source: Any, name: str, sizes: Mapping[str, int], arrays: Mapping[int, Any],
        traces: Sequence[Any], first: int,
    ) -> int:  # fmt: skip
        match source:
            case Size():
                return sizes[name]
            case Stride(operand, axis):
                array = arrays[operand]
                return int(array.strides[axis] // array.itemsize)
            case Step(trace):
                rows = traces[trace]
                return int(rows.strides[0] // rows.itemsize)
            case FirstRow():
                return first
        raise TypeError(source)

    def _advance(
        self, n: int, memory: Sequence[Any], integers: Sequence[int], stop: threading.Event
    ) -> int:
        """Steps until n or until the loop stops; -1 where a check failed. In pieces, so that an
        interrupt is seen."""
        pointers = (ctypes.c_void_p * max(1, len(memory)))(*[x.ctypes.data for x in memory])
        values = (ctypes.c_longlong * max(1, len(integers)))(*integers)
        t, piece = 0, 64
        while t < n and not stop.is_set():
            last = min(n, t + piece)
            began = time.perf_counter()
            done = int(self.function(t, last, pointers, values))
            if done != last:
                return done
            t, spent = last, time.perf_counter() - began
            piece = max(1, int(piece * min(1024.0, _BREATH / max(spent, 1e-6))))
        return t

    def _states(self, operands: Sequence[Any], sizes: Mapping[str, int]) -> list[Any] | None:
        states = []
        for j, carry in enumerate(self.program.carries):
            initial = np.asarray(operands[self.first_init + j])
            shape = tuple(size_value(s, sizes) for s in carry.shape)
            if initial.shape != shape:
                return None
            first = np.array(initial, carry.dtype, order="C")
            second = np.empty(shape, carry.dtype) if carry.kind == "buffers" else None
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


def _laid_out(x: Any, whole: bool) -> Any:
    """The operand as the kernel reads it: aligned, strides that are whole elements, the last
    axis dense unless any stride will do."""
    x = np.asarray(x)
    if not x.flags.aligned:
        return x.copy()
    if x.ndim == 0:
        return x
    odd = any(s % x.itemsize for s in x.strides)
    if odd or not (whole or x.strides[-1] == x.itemsize or x.shape[-1] <= 1):
        return np.ascontiguousarray(x)
    return x


@dataclass(frozen=True)
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
        self.sizes = _positions_of_sizes(op.program)
        self._interpreted: Program | None = None

    def definition(self, operands: Sequence[Any]) -> Any:
        """The values as NumPy computes them: what says why an operand is wrong."""
        if self._interpreted is None:
            self._interpreted = Program(self.op.operands, self.op.values)
        return self._interpreted(*operands)

    def __call__(self, *inputs: Any) -> Any:
        program, k = self.program, len(self.op.operands)
        given = [int(s) for s in inputs[k:]]
        sizes = {name: given[position] for name, position in self.sizes}
        if any(size_value(a, sizes) != size_value(b, sizes) for a, b in program.equal):
            return self.definition(inputs[:k])
        operands = [_laid_out(x, False) for x in inputs[:k]]
        results = [
            np.empty([size_value(s, sizes) for s in shape], dtype)
            for dtype, shape in program.shapes
        ]
        memory = []
        for source in program.pointers:
            match source:
                case Given(operand):
                    memory.append(operands[operand])
                case Result(position):
                    memory.append(results[position])
                case Fixed(constant):
                    memory.append(constant.data)
                case Scratch(elements, dtype):
                    memory.append(np.empty(size_value(elements, sizes), dtype))
        pointers = (ctypes.c_void_p * len(memory))(*[x.ctypes.data for x in memory])
        integers = (ctypes.c_longlong * max(1, len(program.integers)))()
        for i, source in enumerate(program.integers):
            if isinstance(source, Size):
                integers[i] = given[source.position]
            else:
                array = operands[source.operand]
                integers[i] = array.strides[source.axis] // array.itemsize
        rows = results[0].shape[0] if results[0].ndim else 1
        work = results[0].size
        if program.parts and work >= threads.WORTH_SHARING:
            bad = threads.share(
                rows, lambda a, b: lambda stop: self.function(a, b, pointers, integers)
            )
        else:
            bad = self.function(0, rows, pointers, integers)
        if bad:
            return self.definition(inputs[:k])
        return tuple(results)


def _positions_of_sizes(program: LoopProgram | NestProgram) -> list[tuple[str, int]]:
    return [
        (name.text, source.position)
        for name, source in zip(program.kernel.integers, program.integers)
        if isinstance(source, Size)
    ]


class Native:
    """Loops in C by the system's compiler. `lowered` is what codegen found for each Scan of a
    graph: a program and its sizes, or the reason why there is none."""

    name = "native"

    def load(self, source: str, names: Sequence[str]) -> list[Any]:
        """The kernels of a source by name, built and loaded."""
        library = compiler.library(source)
        functions = []
        for name in names:
            function = getattr(library, name)
            function.restype = ctypes.c_longlong
            function.argtypes = [
                ctypes.c_longlong, ctypes.c_longlong, ctypes.c_void_p, ctypes.c_void_p,
            ]  # fmt: skip
            functions.append(function)
        return functions

    def compile(
        self, inputs: Sequence[Variable], outputs: Sequence[Variable],
        written: Mapping[Variable, Variable] | None = None,
    ) -> Program:  # fmt: skip
        return Program(inputs, outputs, written)
