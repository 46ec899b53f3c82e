"""A whole loop as one kernel: the step's values, its carries and its traces in memory."""

from __future__ import annotations

from typing import Any

from ..graph import Constant, Variable
from ..ops.linalg import Dot
from ..scan.op import Scan
from ..scan.rules.lift import clients
from .frame import Frame
from .kernel import (
    Array,
    Declare,
    If,
    Kernel,
    Let,
    Load,
    Name,
    Number,
    Point,
    Return,
    Steps,
    Store,
    binary,
    product,
    row_major,
)
from .lower import Memory
from .plan import keeps_rows_apart, walk
from .program import Carry, FirstRow, Given, LoopProgram, State, Stride, Trace
from .program import Step as Stepping
from .sizes import outside_of, scope_of

T = Name("t")


def lower_loop(node: Variable, name: str) -> tuple[LoopProgram, list[Variable]]:
    """The program of a Scan node, and the sizes that it needs, as variables outside the loop.
    Raises NotLowered with the reason where its step has no kernel."""
    loop = _Loop(node)
    return loop.program(name), loop.outer_sizes


class _Loop(Frame):
    def __init__(self, node: Variable) -> None:
        assert isinstance(node.op, Scan)
        op, o = node.op, node.op.split(node.inputs)
        super().__init__()
        self.op = op
        outside = outside_of(op, o)
        self.learn([scope_of(op.step, outside), *self.enter_loops(op.step, outside)])

    def pack(self, weight: Variable, transposed: bool) -> Array:
        m = self.place_of(weight)
        panel = self.scratch_panels(weight)
        if weight in self.op.step.consts or isinstance(weight, Constant):
            self.before.append(self.packing(weight, transposed, m, panel))
        else:  # changes from step to step
            self.emit_beside(weight, self.packing(weight, transposed, m, panel))
        self.packed.maps[-1 - self.depth_of(weight)][weight, transposed] = panel
        return panel

    def first_element(self, v: Variable) -> Any:
        row = self.integer("row0", FirstRow())
        return binary("mul", row, product(self.sizes(v)[1:])) if v.ndim else Number(0)

    # ---- parameters -------------------------------------------------------------------------

    def _parameters(self) -> None:
        step = self.op.step
        users = clients(step.outputs)
        position = 1
        for k, p in enumerate(step.seqs):
            array = Array(f"x{k}", p.dtype)
            self.pointer(array, False, Given(position, p.ndim == 0))
            time = self.integer(f"s{position}_0", Stride(position, 0))
            if p.ndim == 0:
                name = self.fresh("r", p.dtype)
                self.emit(Let(name, Load(array, binary("mul", T, time))))
                self.locals[p] = name
            else:
                strides = self.strides(position, p.ndim + 1, 1, True)
                self.memory[p] = Memory(array, strides, binary("mul", T, time))
            position += 1
        position += len(step.carries)
        for k, p in enumerate(step.consts):
            array = Array(f"k{k}", p.dtype)
            weight = p.ndim == 2 and all(
                u is not None and _is_weight(p, u) for u in users.get(p, [None])
            )
            self.pointer(array, False, Given(position, weight))
            if p.ndim == 0:
                name = self.fresh("q", p.dtype)
                self.before.append(Let(name, Load(array, Number(0))))
                self.locals[p] = name
            else:
                strides = self.strides(position, p.ndim, 0, not weight)
                self.memory[p] = Memory(array, strides)
            position += 1

    # ---- the loop ---------------------------------------------------------------------------

    def program(self, name: str) -> LoopProgram:
        step = self.op.step
        self._parameters()
        traces: list[Array] = []
        row_sizes: list[list[Any]] = []
        for i, v in enumerate(step.traces):
            traces.append(self.pointer(Array(f"y{i}", v.dtype), True, Trace(i)))
            row_sizes.append(self.fixed_sizes(v))
        apart = [self.integer(f"z{i}", Stepping(i)) for i in range(len(traces))]
        rows = [
            Memory(a, row_major(sizes), binary("mul", T, z))
            for a, sizes, z in zip(traces, row_sizes, apart)
        ]
        carries: list[Carry] = []
        nexts: list[Memory | None] = []  # where a carry's new value goes, if it is no trace's row
        numbers: dict[int, Name] = {}
        after: list[Any] = []
        for j, (p, new) in enumerate(zip(step.carries, step.new)):
            shape = tuple(self.sizes(p))
            initial = self.pointer(Array(f"a{j}", p.dtype), True, State(j, 0))
            if p.ndim == 0:
                numbers[j] = Name(f"c{j}", p.dtype)
                self.before.append(Declare(numbers[j], Load(initial, Number(0))))
                after.append(Store(initial, Number(0), numbers[j]))
                self.locals[p] = numbers[j]
                carries.append(Carry("number", p.dtype, shape))
                nexts.append(None)
                continue
            now = Array(f"c{j}", p.dtype)
            own = new in step.traces and new not in step.params and not isinstance(new, Constant)
            if own:  # the history is the trace
                i = step.traces.index(new)
                previous = binary("mul", binary("sub", T, Number(1)), apart[i])
                self.emit(Point(now, False, T, (traces[i], previous), (initial, Number(0))))
                carries.append(Carry("trace", p.dtype, shape, i))
                nexts.append(None)
            else:
                other = self.pointer(Array(f"b{j}", p.dtype), True, State(j, 1))
                odd = binary("mod", T, Number(2))
                self.emit(Point(now, False, odd, (other, Number(0)), (initial, Number(0))))
                then = Array(f"d{j}", p.dtype)
                self.emit(Point(then, True, odd, (initial, Number(0)), (other, Number(0))))
                carries.append(Carry("buffers", p.dtype, shape))
                nexts.append(Memory(then, row_major(shape)))
            self.memory[p] = Memory(now, row_major(shape))

        last = self.advance(step, rows, nexts, numbers)
        if last is not None:
            self.emit(If(last, (*after, Return(binary("add", T, Number(1))))))
        kernel = Kernel(
            name,
            tuple(p for p, _ in self.pointers),
            tuple(n for n, _ in self.integers),
            (*self.before, Steps(self.statements()), *after, Return(Name("last"))),
        )
        return LoopProgram(
            kernel,
            tuple(s for _, s in self.pointers),
            tuple(s for _, s in self.integers),
            tuple(carries),
            tuple((v.dtype, tuple(s)) for v, s in zip(step.traces, row_sizes)),
            tuple(self.equal),
            *self._rows_apart(),
        )

    def _rows_apart(self) -> tuple[int | None, tuple[int | None, ...]]:
        """The size, if there is one, that is the first axis of the carries and along which no
        value needs another row's; and where it is in each pointer's array."""
        step = self.op.step
        firsts = [self.sizes(p)[0] for p in step.carries if p.ndim]
        rows = next((s for s in firsts if isinstance(s, Name)), None)
        nowhere = (None, (None,) * len(self.pointers))
        if rows is None or step.stop is not None:
            return nowhere
        values = [*walk(step.outputs, set()), *step.params]
        if not all(keeps_rows_apart(v, rows, self.shape_of) for v in values):
            return nowhere

        def axis(v: Variable, lead: int) -> int | None:
            return lead if v.ndim and self.shape_of(v)[0] == rows else None

        axes: list[int | None] = []
        params = step.params
        for _, source in self.pointers:
            match source:
                case Given(k):
                    axes.append(axis(params[k - 1], 1 if k <= len(step.seqs) else 0))
                case Trace(i):
                    axes.append(axis(step.traces[i], 1))
                case State(j):
                    axes.append(axis(step.carries[j], 0))
                case _:
                    axes.append(None)
        names = [n for n, _ in self.integers]
        return names.index(rows), tuple(axes)


def _is_weight(p: Variable, user: Variable) -> bool:
    """Whether a product reads p as the operand that is packed."""
    if not isinstance(user.op, Dot):
        return False
    x, y = user.inputs
    return (y is p and x is not p) or (x is p and y.ndim == 1)
