"""A whole loop as one kernel: the step's values, its carries and its traces in memory."""

from __future__ import annotations


from collections.abc import Iterator
from typing import Any

import numpy as np

from ..graph import Constant, Variable, constant_leaf, toposort
from ..ops.elemwise import Elemwise
from ..ops.linalg import Dot
from ..ops.shape import Dim
from ..rules.shapes import pushed_dims
from ..scan.op import Scan, Step
from ..scan.rules.lift import clients
from ..types import TensorType
from .kernel import (
    Array,
    Assign,
    Declare,
    If,
    Kernel,
    Let,
    Load,
    Name,
    Number,
    Point,
    Pointer,
    Return,
    Steps,
    Store,
    binary,
    product,
    row_major,
)
from .lower import Lowering, Memory, NotLowered
from .program import Carry, Given, LoopProgram, Scratch, Size, State, Stride, Trace
from .render import DTYPES

T = Name("t")
PANEL = 64  # a product's packed operand is padded to a multiple of this many columns


def lower_loop(node: Variable, name: str) -> tuple[LoopProgram, list[Variable]]:
    """The program of a Scan node, and the sizes that it needs, as variables outside the loop.
    Raises NotLowered with the reason where its step has no kernel."""
    loop = _Loop(node)
    return loop.program(name), loop.outer_sizes


class _Loop(Lowering):
    def __init__(self, node: Variable) -> None:
        super().__init__(self._size_of, self._scratch)
        assert isinstance(node.op, Scan)
        self.op, self.node = node.op, node
        self.o = node.op.split(node.inputs)
        self.outer_sizes: list[Variable] = []
        self.pointers: list[tuple[Pointer, Any]] = []
        self.integers: list[tuple[Name, Any]] = []
        self.before: list[Any] = []  # statements in front of the loop
        self._learn_sizes()

    # ---- sizes and memory -------------------------------------------------------------------

    def _learn_sizes(self) -> None:
        """Every size of every value, in terms of what is known outside. Sizes that an op takes
        to be equal are one: the host compares them before the kernel runs."""
        step = self.op.step
        nodes = toposort([*step.outputs, *step.params])
        values = [v for v in nodes if isinstance(v.type, TensorType)]
        places = [(v, i) for v in values for i, s in enumerate(v.type.shape) if s is None]
        inside = pushed_dims([Dim(i)(v) for v, i in places])
        outside = self.op.outside(inside, self.o)
        known: dict[tuple[Variable, int], Variable | None] = dict(zip(places, outside))

        def size(v: Variable, axis: int) -> Any:
            s = v.type.shape[axis]
            return constant_leaf(np.asarray(s, "int64")) if s is not None else known[v, axis]

        same = _Classes()
        for a, b in _equal_sizes(step):
            x, y = size(*a), size(*b)
            if x is not None and y is not None:
                same.join(x, y)
        self._size: dict[tuple[Variable, int], Any] = {}
        for v in values:
            for axis in range(v.ndim):
                s = size(v, axis)
                if s is not None:
                    self._size[v, axis] = self._expression(same.find(s))
        self._equal = [(self._expression(x), self._expression(y)) for x, y in same.pairs]

    def _expression(self, outside: Variable) -> Any:
        if isinstance(outside, Constant):
            return Number(int(outside.data))
        if outside not in self.outer_sizes:
            self.outer_sizes.append(outside)
        k = self.outer_sizes.index(outside)
        return self._integer(f"n{k}", Size(k))

    def _size_of(self, v: Variable, axis: int) -> Any:
        found = self._size.get((v, axis))
        if found is None:
            raise NotLowered(f"the size of {v.op_name()} is known only inside the loop")
        return found

    def sizes(self, v: Variable) -> list[Any]:
        return [self._size_of(v, i) for i in range(v.ndim)]

    def _integer(self, text: str, source: Any) -> Name:
        name = Name(text)
        if all(n != name for n, _ in self.integers):
            self.integers.append((name, source))
        return name

    def _pointer(self, array: Array, written: bool, source: Any) -> Array:
        self.pointers.append((Pointer(array, written), source))
        return array

    def _scratch(self, v: Variable) -> Array:
        array = Array(f"w{len(self.pointers)}", v.dtype)
        return self._pointer(array, True, Scratch(product(self.sizes(v)), v.dtype))

    def scratch_panels(self, weight: Variable) -> Array:
        sizes = self.sizes(weight)
        padded = [
            binary("mul", binary("int_div", binary("add", s, Number(PANEL - 1)), Number(PANEL)),
                   Number(PANEL))
            for s in sizes
        ]  # fmt: skip
        elements = product(padded) if len(sizes) == 2 else binary("mul", padded[0], Number(PANEL))
        array = Array(f"p{len(self.pointers)}", weight.dtype)
        return self._pointer(array, True, Scratch(elements, weight.dtype))

    def pack(self, weight: Variable, transposed: bool) -> Array:
        m = self.memory[weight]
        panel = self.scratch_panels(weight)
        if weight in self.op.step.consts:
            self.before.append(self.packing(weight, transposed, m, panel))
        else:  # changes from step to step
            self.emit(self.packing(weight, transposed, m, panel))
        return panel

    def _strides(self, operand: int, ndim: int, first: int, last_is_one: bool) -> list[Any]:
        names = [
            self._integer(f"s{operand}_{axis}", Stride(operand, axis))
            for axis in range(first, ndim - (1 if last_is_one else 0))
        ]
        return [*names, Number(1)] if last_is_one and ndim > first else names

    # ---- parameters -------------------------------------------------------------------------

    def _parameters(self) -> None:
        step = self.op.step
        users = clients(step.outputs)
        position = 1
        for k, p in enumerate(step.seqs):
            self._dtype(p)
            array = Array(f"x{k}", p.dtype)
            self._pointer(array, False, Given(position))
            time = self._integer(f"s{position}_0", Stride(position, 0))
            if p.ndim == 0:
                name = self.fresh("r", p.dtype)
                self.emit(Let(name, Load(array, binary("mul", T, time))))
                self.locals[p] = name
            else:
                strides = self._strides(position, p.ndim + 1, 1, True)
                self.memory[p] = Memory(array, tuple(strides), binary("mul", T, time))
            position += 1
        position += len(step.carries)
        for k, p in enumerate(step.consts):
            self._dtype(p)
            array = Array(f"k{k}", p.dtype)
            weight = p.ndim == 2 and all(
                u is not None and _is_weight(p, u) for u in users.get(p, [None])
            )
            self._pointer(array, False, Given(position, weight))
            if p.ndim == 0:
                name = self.fresh("q", p.dtype)
                self.before.append(Let(name, Load(array, Number(0))))
                self.locals[p] = name
            else:
                strides = self._strides(position, p.ndim, 0, not weight)
                self.memory[p] = Memory(array, tuple(strides))
            position += 1

    def _dtype(self, v: Variable) -> None:
        if v.dtype not in DTYPES:
            raise NotLowered(f"a value of dtype {v.dtype}")

    # ---- the loop ---------------------------------------------------------------------------

    def program(self, name: str) -> LoopProgram:
        step = self.op.step
        for v in step.outputs:
            self._dtype(v)
        self._parameters()
        traces: list[Array] = []
        row_sizes: list[list[Any]] = []
        for i, v in enumerate(step.traces):
            traces.append(self._pointer(Array(f"y{i}", v.dtype), True, Trace(i)))
            row_sizes.append(self.sizes(v))
        rows = [
            Memory(a, row_major(s), binary("mul", T, product(s))) for a, s in zip(traces, row_sizes)
        ]
        carries: list[Carry] = []
        nexts: list[Memory | None] = []  # where a carry's new value goes
        numbers: dict[int, Name] = {}
        after: list[Any] = []
        for j, (p, new) in enumerate(zip(step.carries, step.new)):
            self._dtype(p)
            shape = tuple(self.sizes(p))
            initial = self._pointer(Array(f"a{j}", p.dtype), True, State(j, 0))
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
                previous = binary("mul", binary("sub", T, Number(1)), product(row_sizes[i]))
                self.emit(Point(now, False, T, (traces[i], previous), (initial, Number(0))))
                carries.append(Carry("trace", p.dtype, shape, i))
                nexts.append(rows[i])
            else:
                other = self._pointer(Array(f"b{j}", p.dtype), True, State(j, 1))
                odd = binary("mod", T, Number(2))
                self.emit(Point(now, False, odd, (other, Number(0)), (initial, Number(0))))
                then = Array(f"d{j}", p.dtype)
                self.emit(Point(then, True, odd, (initial, Number(0)), (other, Number(0))))
                carries.append(Carry("buffers", p.dtype, shape))
                nexts.append(Memory(then, row_major(shape)))
            self.memory[p] = Memory(now, row_major(shape))

        stored: dict[Variable, Memory] = {}
        copies: list[tuple[Variable, Memory]] = []
        wanted = [(v, m) for v, m in zip(step.traces, rows)]
        wanted += [(v, m) for v, m, c in zip(step.new, nexts, carries)
                   if m is not None and c.kind != "trace"]  # fmt: skip
        given = set(self.memory) | set(self.locals)
        for v, m in wanted:
            if v in given or v in stored or isinstance(v, Constant):
                copies.append((v, m))
            else:
                stored[v] = m
        scalar_new = [v for v in step.new if v.ndim == 0 and v not in given]
        stop = [step.stop] if step.stop is not None else []
        self._scalars = {v for v in (*scalar_new, *stop) if not isinstance(v, Constant)}
        self.step([*step.outputs], stored)
        for v, m in copies:
            self._copy(v, m)
        values = {j: self._number(step.new[j]) for j in numbers}
        for j, value in values.items():
            if value != numbers[j]:
                self.emit(Assign(numbers[j], value))
        if step.stop is not None:
            done = (*after, Return(binary("add", T, Number(1))))
            self.emit(If(self.element(step.stop, []), done))
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
            tuple(self._equal),
        )

    def _number(self, v: Variable) -> Any:
        """A scalar's value, under a name of its own: the carries change all at once."""
        value = self.element(v, [])
        name = self.fresh("v", v.dtype)
        self.emit(Let(name, value))
        return name

    def _copy(self, v: Variable, m: Memory) -> None:
        def body(index: list[Any]) -> None:
            self.emit(Store(m.array, m.offset(index), self.element(v, list(index))))

        self.nest(self.sizes(v), body, True)


def _equal_sizes(step: Step) -> Iterator[tuple[tuple[Variable, int], tuple[Variable, int]]]:
    """Axes whose sizes an op takes to be equal."""
    for v in toposort(step.outputs):
        if isinstance(v.op, Elemwise):
            for axis in range(v.ndim):
                wide = [x for x in v.inputs if x.type.shape[axis] != 1]
                for x in wide[1:]:
                    yield (wide[0], axis), (x, axis)
                if wide:
                    yield (v, axis), (wide[0], axis)
        elif isinstance(v.op, Dot):
            x, y = v.inputs
            yield (x, x.ndim - 1), (y, 0)
    for p, new in zip(step.carries, step.new):
        for axis in range(p.ndim):
            yield (p, axis), (new, axis)


class _Classes:
    """Sizes that are equal, each class with the member that stands for it: a constant if one is
    in it."""

    def __init__(self) -> None:
        self._above: dict[Variable, Variable] = {}
        self.pairs: list[tuple[Variable, Variable]] = []

    def find(self, x: Variable) -> Variable:
        while x in self._above:
            x = self._above[x]
        return x

    def join(self, x: Variable, y: Variable) -> None:
        if x is not y and (x, y) not in self.pairs:
            self.pairs.append((x, y))
        x, y = self.find(x), self.find(y)
        if x is not y:
            if isinstance(y, Constant):
                x, y = y, x
            self._above[y] = x


def _is_weight(p: Variable, user: Variable) -> bool:
    """Whether a product reads p as the operand that is packed."""
    if not isinstance(user.op, Dot):
        return False
    x, y = user.inputs
    return (y is p and x is not p) or (x is p and y.ndim == 1)
