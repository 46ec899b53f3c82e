"""A program that runs on CUDA, walked without values: what it takes of the device's memory.

Where a device has arrays of its own, those of the host don't count, and what a kernel reads of them
is copied for as long as the node runs. Its library's own workspace is not known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .codegen.program import Done, Exchanged, Held, Meeting, Scratch, State, Trace
from .errors import describe
from .graph import Variable
from .memory_walk import (
    Block,
    Shape,
    Walk,
    empty_view,
    is_known,
    name_of,
    number_of,
    trace_name,
    view_of,
)
from .ops.control import Require
from .ops.index import VIEWS
from .ops.shape import Reshape
from .runtime.calls import MEETING
from .runtime.cuda import (
    CudaDevice,
    CudaLoop,
    CudaNest,
    CudaProduct,
    CudaSequence,
    OnDevice,
    OnHost,
)
from .runtime.cuda_routines import (
    CudaGather,
    CudaJoin,
    CudaScatter,
    CudaUniform,
    CudaWrite,
    four_axes,
)
from .runtime.graphs import LEAST

_GRAIN = 512  # bytes: CuPy's pool gives multiples


class CudaWalk(Walk):
    """Walks programs as they run on a device. Of an array in the host's memory the place is None
    where the device has arrays of its own."""

    def __init__(self, device: CudaDevice, stay: Sequence[bool]) -> None:
        super().__init__()
        self.stay = stay
        self.has_own_arrays = device.has_own_arrays

    # ---- memory ----

    def numpy(self, shape: Sequence[int], dtype: Any, kind: str, name: str) -> Shape:
        if self.has_own_arrays:
            return Shape(empty_view(shape, dtype), None)
        return super().numpy(shape, dtype, kind, name)

    def empty(self, shape: Sequence[int], dtype: Any, kind: str, name: str) -> Shape:
        """An array as the device makes it."""
        if not self.has_own_arrays:
            return super().numpy(shape, dtype, kind, name)
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        return self._placed(
            Block(-(-size // _GRAIN) * _GRAIN, self.ledger), tuple(shape), dtype, kind, name
        )

    def given(self, v: Variable, shape: Sequence[int], kind: str, is_on_gpu: bool) -> Shape:
        if is_on_gpu or (kind == "shared" and v.ndim):
            return self.empty(shape, v.dtype, kind, v.name or str(v))
        return super().given(v, shape, kind, is_on_gpu)

    def finish(self, results: Iterable[Any], held: Iterable[Shape]) -> None:
        if self.has_own_arrays:  # the others go to the host
            kept = [x for x, stays in zip(results, self.stay) if stays]
            results = [self._dense(x, "a result") for x in kept]
        super().finish(results, held)

    def result(self, shape: Sequence[int], dtype: Any) -> Shape:
        return self.empty(shape, dtype, "output", "")

    def _is_its_own(self, x: Shape, block: Block) -> bool:
        return x.is_whole or self.has_own_arrays  # a view that overlaps no other array is one

    def _is_there(self, x: Any) -> bool:
        return not self.has_own_arrays or (isinstance(x, Shape) and x.place is not None)

    def _as_read(self, x: Any, whole: bool, name: str) -> Any:
        return super()._as_read(self._there(x, name), whole, name)

    def _dense(self, x: Any, name: str) -> Any:
        """An array on the device in row-major order."""
        x = self._there(x, name)
        return x if view_of(x).flags.c_contiguous else self._copy(x, name)

    def _copy(self, x: Any, name: str) -> Shape:
        view = view_of(x)
        return self.empty(view.shape, view.dtype, "value", f"a copy for {name}")

    def _there(self, x: Any, name: str) -> Any:
        """An array on the device, whatever its strides."""
        return x if self._is_there(x) else self._copy(x, name)

    def _values(self, v: Variable, inputs: Sequence[Any]) -> Shape:
        return self.empty(self._shapes(v, inputs), v.dtype, "value", name_of(v))

    def _is_computed(self, v: Variable, inputs: Sequence[Any]) -> bool:
        return isinstance(v.op, OnHost | OnDevice) and super()._is_computed(v, inputs)

    # ---- kernels ----

    def loop(self, v: Variable, op: Any, inputs: list[Any]) -> tuple[Any, ...]:
        runner, name = op.evaluator(v), name_of(v)
        steps = int(number_of(inputs[0]))
        operands = inputs[: runner.n_operands]
        read = {i: self._as_read(operands[i], w, name) for i, w in runner.read.items()}
        plan = self._plan(v, runner, inputs, {i: view_of(x) for i, x in read.items()})
        carries, trace_rows = op.program.carries, plan.rows
        if steps > 0 and plan.instead is not None:
            return self.sequence(v, plan.instead, operands)
        if steps < 1:  # by NumPy
            finals = [self.numpy(s, c.dtype, "value", name) for c, s in zip(carries, plan.states)]
            rows = [self.numpy((0, *s), dtype, "history", name) for s, dtype in trace_rows]
            return (*finals, *rows, np.asarray(0, "int64"))
        labels = op.definition.results(op.node).traces
        traces: dict[int, Shape] = {}
        states: dict[tuple[int, int], Shape] = {}
        keep = [self.empty((2,), "int64", "scratch", name)]

        def trace(i: int, copies: int) -> None:
            shape, dtype = trace_rows[i]
            label = trace_name(labels[i], op)
            traces[i] = self.empty((copies, steps, *shape), dtype, "history", label)

        def state(j: int, parity: int, copies: int) -> None:
            dtype = carries[j].dtype
            states[j, parity] = self.empty((copies, *plan.states[j]), dtype, "state", name)
            if parity == 0:
                self._there(operands[runner.first_init + j], name)

        for x in plan.launch.arguments:
            match x:
                case Held(Trace(i), copies):
                    trace(i, copies)
                case Held(State(j, parity), copies):
                    state(j, parity, copies)
                case Held(Meeting(), copies):
                    keep.append(self.empty((MEETING * copies,), "int64", "scratch", name))
                case Held(Scratch() | Exchanged(), copies, elements, dtype):
                    keep.append(self.empty((max(1, copies * elements),), dtype, "scratch", name))
        for i in range(len(trace_rows)):
            if i not in traces:  # without elements
                trace(i, 1)
        finals = []
        for j, carry in enumerate(carries):
            if (kind := plan.kind(j)) == "trace":
                finals.append(self.empty(plan.states[j], carry.dtype, "value", name))
                continue
            parity = steps % 2 if kind == "buffers" else 0
            if (j, parity) not in states:
                state(j, parity, 1)
            finals.append(states[j, parity].row)
        found = [
            x.row if len(x.view) == 1 else self.empty(x.view.shape[1:], x.view.dtype,
                                                          "history", trace_name(labels[i], op))
            for i, x in sorted(traces.items())
        ]  # fmt: skip
        del keep
        return (*finals, *found, np.asarray(steps, "int64"))

    def nest(self, v: Variable, op: Any, inputs: list[Any]) -> tuple[Any, ...]:
        runner, name = op.evaluator(v), name_of(v)
        read = [self._as_read(x, w, name) for x, w in zip(inputs, runner.whole)]
        plan = self._plan(v, runner, inputs, [view_of(x) for x in read])
        results = [
            self.empty(shape, dtype, "value", name_of(x))
            for x, (shape, dtype) in zip(op.values, plan.results)
        ]
        keep = []
        for x in plan.launch.arguments:
            match x:
                case Held(Scratch(), _, elements, dtype):
                    keep.append(self.empty((max(1, elements),), dtype, "scratch", name))
                case Held(Meeting()):
                    keep.append(self.empty((MEETING,), "int64", "scratch", name))
                case Done():
                    keep.append(self.empty((2,), "int64", "scratch", name))
        del keep, read
        return tuple(results)

    def _plan(self, v: Variable, runner: Any, inputs: list[Any], arrays: Any) -> Any:
        sizes = [int(number_of(s)) for s in inputs[runner.n_operands : runner.n_inputs]]
        plan = runner.plans.find(sizes, arrays, runner._plan)
        if not plan.fits:
            raise ValueError(f"memory_report: the sizes do not fit together in {describe(v)}")
        return plan

    def product(self, v: Variable, op: Any, inputs: list[Any]) -> Shape:
        x, y = (self._there(x, name_of(v)) for x in inputs)
        shape = view_of(x).shape[:-1] + view_of(y).shape[1:]
        return self.empty(shape, v.dtype, "value", name_of(v))

    def gather(self, v: Variable, op: Any, inputs: list[Any]) -> Shape:
        x, *positions = inputs
        out = self._values(v, inputs)
        keep = self._dense(x, name_of(v)), self._rows(v, positions)
        del keep
        return out

    def scatter(self, v: Variable, op: Any, inputs: list[Any]) -> Shape:
        x, y, *positions = inputs
        keep: Any = self._dense(x, name_of(v)) if self.has_own_arrays else x
        out = self.empty(view_of(x).shape, v.dtype, "value", name_of(v))
        keep = keep, self._dense(y, name_of(v)), self._rows(v, positions)
        del keep
        return out

    def write(self, v: Variable, op: Any, inputs: list[Any]) -> Shape:
        x, y, *_ = inputs
        keep: Any = self._dense(x, name_of(v)) if self.has_own_arrays else x
        out = self.empty(view_of(x).shape, v.dtype, "value", name_of(v))
        keep = keep, self._there(y, name_of(v))
        del keep
        return out

    def _rows(self, v: Variable, positions: Sequence[Any]) -> Shape:
        """The numbers of rows that positions are made into."""
        count = max([math.prod(view_of(i).shape) for i in positions], default=0)
        return self.empty((count,), "int64", "scratch", name_of(v))

    def join(self, v: Variable, op: Any, inputs: list[Any]) -> Shape:
        out, part = self._values(v, inputs), None
        for x in inputs:
            part = self._there(x, name_of(v))  # the one before is there until then
            view, to = view_of(part), view_of(out).strides  # those of its parts, too
            if four_axes(view.shape, view.strides, to, view.itemsize) is None:
                part = part, self._dense(part, name_of(v))
        del part
        return out

    def uniform(self, v: Variable, op: Any, inputs: list[Any]) -> Shape:
        return self.empty([int(number_of(s)) for s in inputs[1:]], v.dtype, "value", name_of(v))

    def sequence(self, v: Variable, op: Any, inputs: list[Any]) -> Any:
        n, *operands = inputs
        if op.launches.steps and int(number_of(n)) >= LEAST:
            raise NotImplementedError(
                f"memory_report: {name_of(v)} runs as a CUDA graph of a step's launches, and what "
                "that takes is known only when it is recorded"
            )
        name, program = name_of(v), op.step
        there = [x if s else self._dense(x, name) for x, s in zip(operands, op.stay)]
        # sizes may follow from values that are known
        given = [x if is_known(x) else y for x, y in zip(operands, there)]
        return self._steps(
            v, op.definition, program.inputs, program.outputs, [n, *given], self.empty,
            lambda x: self._dense(x, name),
        )  # fmt: skip

    # ---- other ops ----

    def view(self, v: Variable, op: Any, inputs: list[Any]) -> Shape:
        x, *rest = inputs
        view = view_of(x)
        place = x.place if isinstance(x, Shape) else None
        if isinstance(op.definition, Require):
            return x
        if isinstance(op.definition, VIEWS) and v.ndim:
            call = op.definition.evaluator(op.node)
            return Shape(call(view, *map(number_of, rest)), place)
        if isinstance(op.definition, Reshape) and not view.flags.c_contiguous:
            return self._values(v, inputs) if self._is_there(x) else self._numpys(v, inputs)
        shape = self._shapes(v, inputs)
        return Shape(empty_view(shape, view.dtype), place)


CudaWalk.walks = {
    CudaLoop: CudaWalk.loop,
    CudaNest: CudaWalk.nest,
    CudaProduct: CudaWalk.product,
    CudaGather: CudaWalk.gather,
    CudaScatter: CudaWalk.scatter,
    CudaWrite: CudaWalk.write,
    CudaJoin: CudaWalk.join,
    CudaUniform: CudaWalk.uniform,
    CudaSequence: CudaWalk.sequence,
    OnDevice: CudaWalk.view,
}
