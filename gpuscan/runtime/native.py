"""The native CPU device: loops in C, built by the system's compiler; the rest by NumPy."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ..codegen.program import FAILED_AT, LoopProgram, NestProgram, size_value
from ..evaluate import Around, Program
from ..graph import Op, Variable
from ..ops.shape import Join
from ..record import field, record
from ..scan.op import Scan
from ..types import TensorType, TupleType
from . import compiler, memory, threads
from .arrays import address
from .plans import (
    LoopPlan,
    NestPlan,
    Plans,
    Split,
    constants,
    laid_out,
    made,
    read_operands,
)
from .products import routines_of, with_native_products
from .recorder import recordable, recording
from .threads import Shares

SizeAt = tuple[int, int | None]  # of an input the size of an axis, or (None) its value
_BREATH = 0.2  # seconds of a kernel between two chances to interrupt it


def sizes_of(places: Sequence[SizeAt], inputs: Sequence[Any]) -> list[Any]:
    """The sizes that a program needs."""
    return [inputs[i] if axis is None else inputs[i].shape[axis] for i, axis in places]


def _count(places: Sequence[SizeAt]) -> int:
    """Of sizes those that are inputs of their own."""
    return sum(axis is None for _, axis in places)


@record
class NativeLoop(Op):
    """A Scan with its program: (*the Scan's operands, *sizes, *others) -> (*the Scan's results,
    *histories). The others are for the loop as it was written, which runs where this one can't.
    sizes_at: where the program's sizes are found, among the operands' and the inputs behind them;
    histories: carries whose trace has their initial value in front of it, for `NativeHistory`;
    told: of the inputs, where their sizes are not those of the run before."""

    definition: Scan
    program: LoopProgram
    function: Any = field(compare=False)  # the kernel, loaded
    node: Variable = field(compare=False)  # the Scan as it was written
    inputs: tuple[Variable, ...] = field(compare=False)  # what this op's inputs stand for
    sizes_at: tuple[SizeAt, ...]
    histories: tuple[int, ...]
    told: Callable[[Sequence[Any]], None] = field(compare=False)

    is_recorded: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> TupleType:
        items = self.definition.infer(*types[: 1 + len(self.definition.step.params)]).items
        first = len(self.program.carries)
        return TupleType((*items, *[items[first + i] for i in self.longer_traces]))

    @property
    def others(self) -> int:
        return len(self.inputs) - 1 - len(self.definition.step.params) - _count(self.sizes_at)

    @property
    def longer_traces(self) -> tuple[int, ...]:
        """Per history its trace, which has the initial value in front."""
        return tuple([self.program.carries[j].trace for j in self.histories])

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        return _Runner(self)


class _Runner:
    """Runs a loop's program on arrays."""

    def __init__(self, op: NativeLoop) -> None:
        self.op, self.program, self.function = op, op.program, op.function
        step = op.definition.step
        self.stops = step.stop is not None  # its kernel tells a stop from the end of a piece
        self.n_operands = 1 + len(step.params)
        self.first_init = 1 + len(step.seqs)
        self.n_seqs = len(step.seqs)
        self.plans: Plans[LoopPlan] = Plans(op.program)
        self.read = read_operands(op.program)
        self.constants = constants(op.program)
        self.longer_traces = op.longer_traces
        self.plan: LoopPlan | None = None  # of the last run
        self._interpreted: Any = None
        self._by_steps: Any = None

    def definition(self, *inputs: Any) -> Any:
        """The loop as NumPy runs it: what says why an operand is wrong."""
        memory.not_recorded()
        given = dict(zip(self.op.inputs, inputs))
        if self._interpreted is None:
            self._interpreted = Program(list(given), [self.op.node])
        return (*self._interpreted(*given.values())[0], *[None for _ in self.op.histories])

    def definition_from(
        self, t: int, carries: Sequence[Any], traces: list[Any], *inputs: Any
    ) -> Any:
        """The same where the first t steps were run: their carries, and traces for all steps."""
        memory.not_recorded()
        node = self.op.node
        assert isinstance(node.op, Scan)
        given = dict(zip(self.op.inputs, inputs))
        if self._by_steps is None:
            step = node.op.step
            self._by_steps = (
                Program(list(given), node.inputs), Program(step.params, step.outputs)
            )  # fmt: skip
        operands, step = self._by_steps

        def ahead(now: int, *held: Any) -> tuple[Any, ...]:
            return (0, *held) if now else (t, carries, traces)

        found = node.op.run(node, step, *operands(*given.values()), ahead=ahead)
        return (*found, *[None for _ in self.op.histories])

    def __call__(self, *inputs: Any) -> Any:
        operands = inputs[: self.n_operands]
        steps = int(operands[0])
        arrays = {i: laid_out(operands[i], whole) for i, whole in self.read.items()}
        plan = self.plans.find(sizes_of(self.op.sizes_at, inputs), arrays, LoopPlan)
        if plan is not self.plan:
            self.plan = plan
            self.op.told(inputs)
        if steps < 0 or not plan.fits or any(len(s) < steps for s in operands[1 : 1 + self.n_seqs]):
            return self.definition(*inputs)
        if self.stops or self.program.looked_up:  # the host looks at what is computed, or given
            memory.not_recorded()
        looked_up = {(k, size_value(size, plan.sizes)) for k, size in self.program.looked_up}
        if not all(_are_there(operands[k][:steps], size) for k, size in looked_up):
            return self.definition(*inputs)
        split, began = plan.split(steps), time.perf_counter()
        recorder = recording.recorder
        before = 0 if recorder is None else len(recorder.steps)
        run = self._run(steps, steps, plan, split, operands, arrays)
        if recorder is not None:
            recorder.loops.append((self, plan))
            if plan.unit_sizes:
                recorder.ways.append((plan, steps, split, recorder.steps[before:]))
        if run is None:
            return self.definition(*inputs)
        if steps:
            plan.took(split, (time.perf_counter() - began) / steps)
        done, states, traces, histories = run
        if done >= 0:
            found = self._results(done, operands, traces, states)
            return (*found, *[x[: done + 1] for x in histories.values()])
        t = done - FAILED_AT
        if not 0 < t < steps:
            return self.definition(*inputs)
        if split.shares.count > 1:  # the others went on
            run = self._run(steps, t, plan, split, operands, arrays)
            assert run is not None
            _, states, traces, _ = run
        return self.definition_from(t, self._finals(t, traces, states), traces, *inputs)

    def _run(
        self, steps: int, n: int, plan: LoopPlan, split: Split, operands: Sequence[Any],
        arrays: Mapping[int, Any],
    ) -> tuple[int, list[Any], list[Any], dict[int, Any]] | None:  # fmt: skip
        """The first n of all steps: how many these were, or what the kernel gave that failed; the
        states, the traces, and per trace its rows with the initial value in front. None where an
        initial value has not the shape of a state."""
        histories = {}
        for i in self.longer_traces:
            shape, dtype = plan.rows[i]
            histories[i] = memory.empty((steps + 1, *shape), dtype)
        states = self._states(operands, plan.states, histories)
        if states is None:
            return None
        traces = [
            histories[i][1:] if i in histories else memory.empty((steps, *shape), dtype)
            for i, (shape, dtype) in enumerate(plan.rows)
        ]
        held = [*arrays.values(), *traces]
        for pair in states:
            held += pair
        held += self.constants
        held += [made(what, held) for what in split.made]
        return self._advance(n, plan.piece, split.shares, held), states, traces, histories

    def _advance(self, n: int, piece: int, shares: Shares, arrays: Sequence[Any]) -> int:
        """Steps until n or until the loop stops; where a check failed what the kernel gave, which
        is less than 0. In pieces, so that an interrupt is seen."""
        t = 0
        while t < n:
            last = min(n, t + piece)
            began = time.perf_counter()
            ends = threads.packed((t, last)) * shares.count
            done = threads.run(self.function, shares, ends, arrays)
            if done != last + self.stops:
                return done
            t, spent = last, time.perf_counter() - began
            piece = max(1, int(piece * min(1024.0, _BREATH / max(spent, 1e-6))))
        return t

    def _states(
        self, operands: Sequence[Any], shapes: Sequence[Any], histories: Mapping[int, Any]
    ) -> list[Any] | None:
        """Per carry an array of its initial value, and a second one where it has two buffers;
        None where an initial value has not the shape of a state."""
        states = []
        for j, (carry, shape) in enumerate(zip(self.program.carries, shapes)):
            initial = np.asarray(operands[self.first_init + j])
            if initial.shape != shape:
                return None
            has_history = j in self.op.histories  # others may have the same trace
            first = histories[carry.trace][0] if has_history else memory.empty(shape, carry.dtype)
            memory.copy(first, initial)
            second = memory.empty(shape, carry.dtype) if carry.kind == "buffers" else None
            states.append((first, second))
        return states

    def _finals(self, t: int, traces: Sequence[Any], states: Sequence[Any]) -> list[Any]:
        """The carries after t steps."""
        finals = []
        for carry, (first, second) in zip(self.program.carries, states):
            match carry.kind:
                case "trace":
                    finals.append(memory.copied(traces[carry.trace][t - 1] if t else first))
                case "buffers":
                    finals.append(second if t % 2 else first)
                case _:
                    finals.append(first)
        return finals

    def _results(
        self, done: int, operands: Sequence[Any], traces: list[Any], states: list[Any]
    ) -> tuple[Any, ...]:
        finals = self._finals(done, traces, states)
        whole = done == int(operands[0])
        return (*finals, *(x if whole else x[:done] for x in traces), np.int64(done))


def _are_there(positions: Any, rows: int) -> bool:
    """Whether all of them are positions, from either end, in so many rows."""
    return not positions.size or bool(-rows <= positions.min() and positions.max() < rows)


@record
class NativeSequence(Op):
    """A Scan whose steps are run one after another, each by kernels of its own."""

    definition: Scan
    step: Callable[..., tuple[Any, ...]] = field(compare=False)
    node: Variable = field(compare=False)  # the Scan as it was written

    def infer(self, *types: TensorType) -> Any:
        return self.definition.infer(*types)

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        return functools.partial(self.definition.run, self.node, self.step, empty=memory.empty)


@record
class NativeNest(Op):
    """A nest with its program: (*operands, *sizes, *others) -> its results. `given`: the operands
    and the others, from which the values are computed as they were written; sizes_at: as in a
    `NativeLoop`."""

    values: tuple[Variable, ...]
    given: tuple[Variable, ...]
    program: NestProgram
    function: Any = field(compare=False)
    sizes_at: tuple[SizeAt, ...]

    is_recorded: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> TupleType:
        return TupleType(tuple(v.type for v in self.values))

    @property
    def others(self) -> int:
        return len(self.given) - len(read_operands(self.program))

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        return _NestRunner(self)


class _NestRunner:
    """Runs a nest's program on arrays, large ones by two threads or more."""

    def __init__(self, op: NativeNest) -> None:
        self.op, self.program, self.function = op, op.program, op.function
        self.whole = list(read_operands(op.program).values())
        self.n_operands = len(self.whole)
        self.first_other = self.n_operands + _count(op.sizes_at)
        self.plans: Plans[NestPlan] = Plans(op.program)
        self.constants = constants(op.program)
        self._interpreted: Program | None = None
        self._by_products: Program | None = None

    def definition(self, *inputs: Any) -> Any:
        """The values as NumPy computes them: what says why an operand is wrong."""
        memory.not_recorded()
        if self._interpreted is None:
            self._interpreted = Program(self.op.given, self.op.values)
        return self._interpreted(*inputs[: self.n_operands], *inputs[self.first_other :])

    def by_products(self, *inputs: Any) -> Any:
        """The same with products by their own routine, for few rows."""
        if self._by_products is None:
            values = with_native_products(self.op.values, self.op.given)
            self._by_products = Program(self.op.given, values, None, recordable)
        return self._by_products(*inputs[: self.n_operands], *inputs[self.first_other :])

    def __call__(self, *inputs: Any) -> Any:
        operands = [laid_out(x, whole) for x, whole in zip(inputs, self.whole)]
        plan = self.plans.find(sizes_of(self.op.sizes_at, inputs), operands, NestPlan)
        if not plan.fits:
            return self.definition(*inputs)
        if plan.row_count < self.program.least:
            return self.by_products(*inputs)
        results = [memory.empty(shape, dtype) for shape, dtype in plan.results]
        arrays = [*operands, *results, *self.constants]
        shares, ends = plan.shares()
        if size := plan.scratch * shares.count:
            arrays.append(memory.scratch(size))
        if threads.run(self.function, shares, ends, arrays):
            return self.definition(*inputs)
        return tuple(results)


@record
class NativeJoin(Op):
    """A Join into memory that is used again."""

    definition: Join

    is_recorded: ClassVar[bool] = True

    def infer(self, *types: TensorType) -> TensorType:
        return self.definition.infer(*types)

    def eval(self, *arrays: Any) -> Any:
        axis, end = self.definition.axis, 0
        shape = list(arrays[0].shape)
        shape[axis] = sum(x.shape[axis] for x in arrays)
        found = memory.empty(shape, arrays[0].dtype)
        np.concatenate(arrays, axis, out=found)
        if (recorder := recording.recorder) is not None:
            for x in arrays:
                begin, end = end, end + x.shape[axis]
                recorder.copied(found[(slice(None),) * axis + (slice(begin, end),)], x)
        return found


@record
class NativeHistory(Op):
    """(history, *two arrays) -> their Join along the first axis. Where it is the history of a
    carry, or that backwards, it is there already."""

    definition: Join

    is_recorded: ClassVar[bool] = True

    def infer(self, history: TensorType, *types: TensorType) -> TensorType:
        return self.definition.infer(*types)

    def eval(self, history: Any, *arrays: Any) -> Any:
        if history is not None and (found := part_of_history(history, arrays)) is not None:
            return found
        return NativeJoin(self.definition).eval(*arrays)


def part_of_history(history: Any, arrays: Sequence[Any]) -> Any:
    """The history's rows, from the first on, that are these of two arrays one after the other,
    forwards or backwards; None where there are no such rows. Of the initial value the elements
    are compared; the trace's rows have to be where they are in the history."""
    n = sum(map(len, arrays))
    if n > len(history):
        return None
    rows = history[:n]
    first, second = arrays
    if len(first) == 1 and _is_same_memory(rows[1:], second):
        return rows if _is_same(rows[:1], first) else None
    rows = rows[::-1]
    if len(second) == 1 and _is_same_memory(rows[:-1], first):
        return rows if _is_same(rows[-1:], second) else None
    return None


def _is_same_memory(a: Any, b: Any) -> bool:
    if a.shape != b.shape:
        return False
    if not len(a):
        return True
    skipped = len(a) == 1  # whose stride says nothing
    return a.strides[skipped:] == b.strides[skipped:] and address(a) == address(b)


def _is_same(a: Any, b: Any) -> bool:
    """Whether the elements are, bit by bit."""
    if (recorder := recording.recorder) is not None and not recorder.is_copy(a[0], b[0]):
        recorder.not_written()
    return a.shape == b.shape and a.tobytes() == b.tobytes()


class Native:
    """Kernels in C, built by the system's compiler; NumPy for what has none."""

    name = "native"

    def load(self, source: str, names: Sequence[str]) -> list[Any]:
        """The kernels of a source by name, built and loaded."""
        library = compiler.library(source, routines_of(source))
        return [compiler.kernel(library, name) for name in names]

    def compile(
        self, inputs: Sequence[Variable], outputs: Sequence[Variable],
        written: Mapping[Variable, Variable] | None = None, around: Around | None = None,
    ) -> Program:  # fmt: skip
        return Program(inputs, outputs, written, around)
