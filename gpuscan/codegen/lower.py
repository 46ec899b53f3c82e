"""The values of a step as element expressions, and their loop nests.

Every value of a graph says what its element i is, in terms of its inputs' elements. A value that
is read through memory (an operand of a product, a value of another loop nest) is *stored*: it
has an array, written once; any other is computed where it is read. Stored values of one shape
and level share one loop nest. A new level starts behind every op that needs whole operands: a
product, a reduction, a draw.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..graph import Constant, Variable
from ..ops import scalar
from ..ops.control import Identity
from ..ops.elemwise import Elemwise, scalars
from ..ops.index import IncSubtensor, Subtensor
from ..ops.linalg import Dot
from ..ops.patterns import FULL
from ..ops.reduce import Reduce
from ..ops.sample import Uniform
from ..ops.shape import BroadcastTo, Dim, DimShuffle, Join, Reshape, Specify
from ..types import FLOATS, TensorType
from .kernel import (
    Array,
    Assign,
    Call,
    Choose,
    Declare,
    For,
    If,
    Let,
    Load,
    Name,
    Number,
    Return,
    Store,
    Use,
    binary,
    product,
    row_major,
)
from .render import DTYPES

WHOLE = (Dot, Reduce, Uniform)  # ops that need whole operands
FAILED = Number(-1)  # what a kernel returns where a check failed: the host runs the definition


class NotLowered(Exception):
    """A step, or an op, that has no kernel, and why."""


@dataclass
class Memory:
    """Where a value's elements lie: an array and its strides, in elements."""

    array: Array
    strides: tuple[Any, ...]
    start: Any = field(default_factory=lambda: Number(0))

    def offset(self, index: Sequence[Any]) -> Any:
        total: Any = self.start
        for i, s in zip(index, self.strides):
            total = binary("add", total, binary("mul", _expr(i), s))
        return total


def _expr(i: Any) -> Any:
    return Number(i) if isinstance(i, int) else i


class Operand:
    """An input of a value, as its element rule sees it."""

    def __init__(self, lowering: Lowering, v: Variable) -> None:
        self._lowering, self._v = lowering, v

    @property
    def sizes(self) -> list[Any]:
        return self._lowering.sizes(self._v)

    def at(self, index: Sequence[Any], where: Any = None) -> Any:
        """The element at a position; `where`: a condition without which it is not read."""
        with self._lowering.guarded(where):
            return self._lowering.element(self._v, [_expr(i) for i in index])

    def checked(self, i: Any, size: Any) -> Any:
        """A position counted from either end, checked when the kernel runs."""
        if isinstance(i, int):
            place = Number(i) if i >= 0 else binary("add", size, Number(i))
            if not (isinstance(size, Number) and -size.value <= i < size.value):
                self._lowering.require(size > i if i >= 0 else size >= -i)
            return place
        return self._lowering.checked(i, size)

    def plus(self, a: Any, b: Any) -> Any:
        """The sum of two elements."""
        return Call(scalar.add, (a, b), a.dtype, a.dtype)


class Lowering:
    """Statements for the values of one step.

    size_of    the size of an axis of a value, as an expression of the kernel's integers
    scratch    a new array for a value that is stored
    """

    def __init__(
        self,
        size_of: Callable[[Variable, int], Any],
        scratch: Callable[[Variable], Array],
    ) -> None:
        self.size_of = size_of
        self.scratch = scratch
        self.memory: dict[Variable, Memory] = {}
        self.locals: dict[Variable, Any] = {}  # scalars of the step
        self.packed: dict[tuple[Variable, bool], Array] = {}  # constant operands of products
        self._names = 0
        self._guard: Any = None  # a condition without which nothing may be read
        self._statements: list[list[Any]] = [[]]
        self._seen: list[dict[Any, Any]] = [{}]  # elements computed in the open nests

    # ---- values -----------------------------------------------------------------------------

    def sizes(self, v: Variable) -> list[Any]:
        return [
            Number(s) if s is not None else self.size_of(v, i) for i, s in enumerate(v.type.shape)
        ]

    def element(self, v: Variable, index: list[Any]) -> Any:
        """The expression of v's element, computed once in a loop nest."""
        if v in self.locals:
            return self.locals[v]
        if isinstance(v, Constant) and v.data.size == 1:
            return Number(v.data.flat[0].item(), v.dtype)
        if isinstance(v, Constant):
            self.memory.setdefault(v, self.constant(v))
        if isinstance(v.op, Dim):
            return self.size_of(v.inputs[0], v.op.axis)
        index = [Number(0) if s == 1 else i for i, s in zip(index, v.type.shape, strict=True)]
        if v in self.memory:
            m = self.memory[v]
            value: Any = Load(m.array, m.offset(index))
            if self._guard is not None:
                value = Choose(self._guard, value, Number(0, v.dtype))
            return self._once((v, *index, self._guard), value)
        key = (v, *index, self._guard)
        for seen in reversed(self._seen):
            if key in seen:
                return seen[key]
        if not all(isinstance(x.type, TensorType) for x in v.inputs):
            raise NotLowered(f"{v.inputs[0].op.label} inside the step")
        operands = [Operand(self, x) for x in v.inputs]
        if isinstance(v.op, Elemwise):
            values = [x.at(index) for x in operands]
            of = v.inputs[-1].dtype
            if not {v.dtype, of} <= DTYPES:
                raise NotLowered(f"{v.op.label} of {of}")
            return self._once(key, Call(v.op.scalar, tuple(values), v.dtype, of))
        if isinstance(v.op, Reshape):
            return self._once(key, self._reshaped(v, index))
        rule = getattr(v.op, "element", None)
        if rule is None or getattr(v.op, "has_effect", False):
            raise NotLowered(f"{v.op.label} has no element rule")
        found = rule(v, index, operands)
        if found is None:
            raise NotLowered(f"{v.op.label} with these parameters has no element rule")
        return self._once(key, found) if isinstance(found, Choose) else found

    def _reshaped(self, v: Variable, index: list[Any]) -> Any:
        """An element of a reshaped value, by its position in row-major order."""
        x = v.inputs[0]
        position = Memory(Array("", ""), row_major(self.sizes(v))).offset(index)
        sizes = self.sizes(x)
        if all(s == 1 for s in x.type.shape):
            return self.element(x, [Number(0)] * x.ndim)
        where = []
        for s, stride in zip(sizes, row_major(sizes)):
            where.append(binary("mod", binary("int_div", position, stride), s))
        return self.element(x, where)

    def _once(self, key: Any, value: Any) -> Any:
        """A name for a value of the innermost nest, so that it is computed once."""
        if isinstance(value, Name | Number):
            return value
        for seen in reversed(self._seen):
            if key in seen:
                return seen[key]
        name = self.fresh("v", value.dtype)
        self.emit(Let(name, value))
        self._seen[-1][key] = name
        return name

    @contextlib.contextmanager
    def guarded(self, where: Any) -> Iterator[None]:
        """What is read inside is read only under a condition; else it is 0."""
        outer = self._guard
        if where is not None:
            self._guard = where if outer is None else binary("and_", outer, where)
        yield
        self._guard = outer

    def require(self, condition: Any) -> None:
        """A condition on sizes, without which the kernel fails before it starts."""
        raise NotImplementedError

    def checked(self, i: Any, size: Any) -> Any:
        """A position counted from either end; the kernel fails where it is out of range."""
        given = self._once(("position", i), i)
        key = ("checked", given, size, self._guard)
        for seen in reversed(self._seen):
            if key in seen:
                return seen[key]
        name = self.fresh("i", "int64")
        wrapped = (given < 0).choose(binary("add", given, size), given)
        self.emit(Let(name, wrapped))
        outside = binary("or_", name < 0, name >= size)
        if self._guard is not None:
            outside = binary("and_", self._guard, outside)
        self.emit(If(outside, (Return(FAILED),)))
        self._seen[-1][key] = name
        return name

    # ---- statements -------------------------------------------------------------------------

    def fresh(self, letter: str, dtype: str) -> Name:
        self._names += 1
        return Name(f"{letter}{self._names}", dtype)

    def emit(self, s: Any) -> None:
        self._statements[-1].append(s)

    def nest(
        self,
        sizes: Sequence[Any],
        body: Callable[[list[Any]], None],
        lanes: bool,
        part: tuple[Any, Any] | None = None,
    ) -> None:
        """Loops over an index space around what `body` emits; `part`: of the outer axis only
        the positions from one to before the other."""
        index = [Number(0) if s == Number(1) else self.fresh("i", "int64") for s in sizes]
        self._statements.append([])
        self._seen.append({})
        body(index)
        self._seen.pop()
        inner = tuple(self._statements.pop())
        depth = 0
        for axis, (i, s) in reversed(list(enumerate(zip(index, sizes)))):
            if isinstance(i, Name):
                side_by_side = lanes and not depth and not _returns(inner)
                start, end = part if part and axis == 0 else (Number(0), s)
                inner = (For(i, end, inner, side_by_side, start),)
                depth += 1
        for s in inner:
            self.emit(s)

    def statements(self) -> tuple[Any, ...]:
        return tuple(self._statements[0])

    # ---- the step -----------------------------------------------------------------------------

    def step(self, outputs: Sequence[Variable], stored: dict[Variable, Memory]) -> None:
        """Statements that compute the outputs; `stored` says where some of them go."""
        given = set(self.memory) | set(self.locals)
        plan = _Plan(outputs, set(stored), given, lambda v: tuple(self.sizes(v)))
        for group in plan.groups:
            if isinstance(group[0].op, WHOLE) and group[0] not in self.locals:
                self._whole(group[0], stored)
                continue
            scalars = [v for v in group if v.ndim == 0]
            for v in scalars:
                self._scalar(v, stored)
            tensors = [v for v in group if v.ndim]
            if not tensors:
                continue
            places = {v: stored.get(v) or self._place(v) for v in tensors}

            def body(index: list[Any], places: Any = places) -> None:
                for v, m in places.items():
                    value = self.element(v, list(index))
                    self.emit(Store(m.array, m.offset(index), value))

            self.nest(self.sizes(tensors[0]), body, True)
            self.memory.update(places)

    def _scalar(self, v: Variable, stored: dict[Variable, Memory]) -> None:
        value = self.element(v, [])
        if not isinstance(value, Name | Number):
            name = self.fresh("v", v.dtype)
            self.emit(Let(name, value))
            value = name
        self.locals[v] = value
        if v in stored:
            self.emit(Store(stored[v].array, stored[v].offset([]), value))

    def place_of(self, v: Variable) -> Memory:
        """Where a value's elements lie."""
        if isinstance(v, Constant):
            self.memory.setdefault(v, self.constant(v))
        return self.memory[v]

    def constant(self, v: Constant) -> Memory:
        raise NotImplementedError  # a frame says where

    def _place(self, v: Variable) -> Memory:
        return Memory(self.scratch(v), row_major(self.sizes(v)))

    def _whole(self, v: Variable, stored: dict[Variable, Memory]) -> None:
        if v.dtype not in DTYPES:
            raise NotLowered(f"{v.op.label} of {v.dtype}")
        match v.op:
            case Dot():
                self._dot(v, stored.get(v) or self._place(v))
            case Reduce():
                self._reduce(v, stored)
            case Uniform():
                self._uniform(v, stored.get(v) or self._place(v))

    # ---- ops that need whole operands ---------------------------------------------------------

    def _dot(self, v: Variable, out: Memory) -> None:
        x, y = v.inputs
        if v.dtype not in ("float32", "float64"):
            raise NotLowered(f"a product of {v.dtype}")
        t = "f32" if v.dtype == "float32" else "f64"
        if x.ndim == 2 and y.ndim == 1:  # W @ h is h @ W.T
            rows, weight, transposed = y, x, True
        else:
            rows, weight, transposed = x, y, False
        m = self.place_of(rows)
        r = self.sizes(rows)
        count = r[0] if rows.ndim == 2 else Number(1)
        depth = r[-1]
        w = self.sizes(weight)
        if weight.ndim == 1:
            wide: Any = Number(1)
        else:
            wide = w[0] if transposed else w[1]
        row_stride = m.strides[0] if rows.ndim == 2 else Number(0)
        out_stride = out.strides[0] if rows.ndim == 2 and v.ndim == 2 else wide
        if (weight, transposed) not in self.packed:
            self.packed[weight, transposed] = self.pack(weight, transposed)
        panel = self.packed[weight, transposed]
        self.emit(
            Use(
                f"gs_gemm_{t}",
                (count, wide, depth, (m.array, m.start), row_stride, m.strides[-1], panel,
                 (out.array, out.start), out_stride),
            )
        )  # fmt: skip
        self.memory[v] = out
        if v.ndim == 0:
            self.locals[v] = Load(out.array, out.start)

    def pack(self, weight: Variable, transposed: bool) -> Array:
        """The panels of an operand of a product, laid out inside the loop."""
        m = self.place_of(weight)
        panel = self.scratch_panels(weight)
        self.emit(self.packing(weight, transposed, m, panel))
        return panel

    def packing(self, weight: Variable, transposed: bool, m: Memory, panel: Array) -> Use:
        t = "f32" if weight.dtype == "float32" else "f64"
        w = self.sizes(weight)
        if weight.ndim == 1:
            depth, wide, down, right = w[0], Number(1), m.strides[0], Number(0)
        elif transposed:
            depth, wide, down, right = w[1], w[0], m.strides[1], m.strides[0]
        else:
            depth, wide, down, right = w[0], w[1], m.strides[0], m.strides[1]
        return Use(f"gs_pack_{t}", (depth, wide, (m.array, m.start), down, right, panel))

    def scratch_panels(self, weight: Variable) -> Array:
        raise NotImplementedError  # a loop's lowering says where

    def _reduce(self, v: Variable, stored: dict[Variable, Memory]) -> None:
        x, op = v.inputs[0], v.op
        assert isinstance(op, Reduce)
        combine, start = _COMBINED[op.kind]
        if start is None:  # no elements have no maximum: NumPy says so
            start = _extreme(op.kind, op.dtype)
            count = product([self.sizes(x)[a] for a in op.axes])
            if not isinstance(count, Number):
                self.emit(If(binary("le", count, Number(0)), (Return(FAILED),)))
        sizes = self.sizes(x)
        kept = [i for i in range(x.ndim) if i not in op.axes]
        out = None if v.ndim == 0 else stored.get(v) or self._place(v)

        def term(index: list[Any]) -> Any:
            value = self.element(x, index)
            if x.dtype != op.dtype:
                value = Call(scalars[f"cast_{op.dtype}"], (value,), op.dtype, x.dtype)
            return value

        along_rows = bool(kept) and kept[-1] == x.ndim - 1

        def whole(outer: list[Any]) -> None:
            """One element of the result: a sum in the order of the elements."""
            total = self.fresh("s", op.dtype)
            self.emit(Declare(total, Number(start, op.dtype)))

            def inner(index: list[Any]) -> None:
                full: list[Any] = [None] * x.ndim
                for i, k in zip(outer, kept):
                    full[k] = i
                for i, k in zip(index, op.axes):
                    full[k] = i
                self.emit(Assign(total, Call(combine, (total, term(full)), op.dtype, op.dtype)))

            self.nest([sizes[a] for a in op.axes], inner, False)
            if out is None:
                self.locals[v] = total
                if v in stored:
                    self.emit(Store(stored[v].array, stored[v].offset([]), total))
            else:
                self.emit(Store(out.array, out.offset(outer), total))

        def clear(index: list[Any]) -> None:
            assert out is not None
            self.emit(Store(out.array, out.offset(index), Number(start, op.dtype)))

        def rows(index: list[Any]) -> None:
            assert out is not None
            position = out.offset([index[k] for k in kept])
            old = Load(out.array, position)
            value = Call(combine, (old, term(index)), op.dtype, op.dtype)
            self.emit(Store(out.array, position, value))

        if along_rows:
            assert out is not None
            self.nest([sizes[k] for k in kept], clear, True)
            self.nest(sizes, rows, True)
        else:
            if out is None:
                whole([])
            else:
                self.nest([sizes[k] for k in kept], whole, False)
        if out is not None:
            self.memory[v] = out

    def first_element(self, v: Variable) -> Any:
        """The element of a draw at which this kernel's part of it starts."""
        return Number(0)

    def _uniform(self, v: Variable, out: Memory) -> None:
        if v.dtype not in ("float32", "float64"):
            raise NotLowered(f"a draw of {v.dtype}")
        t = "f32" if v.dtype == "float32" else "f64"
        state = self.place_of(v.inputs[0])
        count = product(self.sizes(v))
        self.emit(
            Use(
                f"gs_uniforms_{t}",
                ((state.array, state.start), self.first_element(v), count, (out.array, out.start)),
            )
        )
        if v.ndim == 0:
            self.locals[v] = Load(out.array, out.start)
        self.memory[v] = out


_COMBINED: dict[str, tuple[Any, int | None]] = {
    "sum": (scalar.add, 0),
    "prod": (scalar.mul, 1),
    "any": (scalar.or_, 0),
    "all": (scalar.and_, 1),
    "max": (scalar.maximum, None),
    "min": (scalar.minimum, None),
}


def _extreme(kind: str, dtype: str) -> Any:
    """The value that any other wins against."""
    sign = -1 if kind == "max" else 1
    if dtype in FLOATS:
        return sign * math.inf
    if dtype == "bool":
        return sign > 0
    limits = np.iinfo(dtype)
    return int(limits.min if sign < 0 else limits.max)


def keeps_rows_apart(v: Variable, rows: Any, sizes_of: Callable[[Variable], Sequence[Any]]) -> bool:
    """Whether row i of v, along a first axis of the size `rows`, needs only rows i of what it
    is computed from; and nothing else is of that size."""
    sizes = sizes_of(v)
    if rows in sizes[1:]:
        return False
    if isinstance(v, Constant) or not v.inputs:
        return not isinstance(v, Constant) or rows not in sizes
    inputs = [sizes_of(x) for x in read(v)]
    if not any(rows in s for s in (sizes, *inputs)):
        return True
    match v.op:
        case Elemwise() | BroadcastTo() | DimShuffle() | Specify() | Uniform():
            return True
        case Dot():
            x, y = inputs
            return x[0] == rows and len(x) == 2 and rows not in y
        case Reduce(axes=axes):
            return 0 not in axes
        case Join(axis=axis):
            return axis != 0
        case Subtensor(pattern) | IncSubtensor(pattern):
            return bool(pattern) and pattern[0] == FULL and inputs[0][0] == rows
    return isinstance(v.op, Identity) and not getattr(v.op, "has_effect", False)


def read(v: Variable) -> Sequence[Variable]:
    """The inputs whose elements v's elements are made from; sizes are known without them."""
    if isinstance(v.op, Dim):
        return ()
    return v.inputs[:1] if isinstance(v.op, BroadcastTo | Reshape | Uniform) else v.inputs


def walk(outputs: Sequence[Variable], given: set[Variable]) -> list[Variable]:
    """The values that have to be computed, inputs first."""
    order: list[Variable] = []
    seen = set(given)
    stack = [(v, False) for v in reversed(outputs)]
    while stack:
        v, ready = stack.pop()
        if ready:
            order.append(v)
        elif v not in seen:
            seen.add(v)
            stack.append((v, True))
            stack += [(x, False) for x in reversed(read(v))]
    return order


def _returns(body: Iterable[Any]) -> bool:
    return any(
        isinstance(s, Return) or (isinstance(s, If | For) and _returns(s.body)) for s in body
    )


class _Plan:
    """Which values are stored, and the groups in which they are computed."""

    def __init__(
        self, outputs: Sequence[Variable], wanted: set[Variable], given: set[Variable],
        shape_of: Callable[[Variable], tuple[Any, ...]],
    ) -> None:  # fmt: skip
        order = [v for v in walk(outputs, given) if not isinstance(v, Constant)]
        for v in order:
            if not isinstance(v.type, TensorType):
                raise NotLowered(f"{v.op.label} inside the step")
        users: dict[Variable, list[Variable | None]] = {v: [None] for v in outputs}
        for v in order:
            for x in read(v):
                users.setdefault(x, []).append(v)
        level: dict[Variable, tuple[int, int]] = {}
        stored: set[Variable] = set(wanted)
        for v in order:
            if isinstance(v.op, WHOLE):
                stored.add(v)
                if isinstance(v.op, Dot):
                    stored |= {x for x in v.inputs if x not in given}
                elif isinstance(v.op, Uniform):
                    stored |= {v.inputs[0]} - given
            elif isinstance(v.op, Elemwise) and not _cheap(v):
                for u in users.get(v, ()):
                    if u is None or not isinstance(u.op, Elemwise) or shape_of(u) != shape_of(v):
                        single_sum = u is not None and isinstance(u.op, Reduce)
                        if not (single_sum and len(users[v]) == 1):
                            stored.add(v)
        for v in order:
            deepest = (0, 0)
            for x in read(v):
                if x in level:
                    a, b = level[x]
                    if isinstance(x.op, WHOLE):
                        here = (a, 0)
                    elif x in stored and shape_of(x) != shape_of(v):
                        here = (a, b + 1)
                    else:
                        here = (a, b)
                    deepest = max(deepest, here)
            level[v] = (deepest[0] + 1, 0) if isinstance(v.op, WHOLE) else deepest
        # an elementwise value that another level reads has to be stored
        for v in order:
            if isinstance(v.op, Elemwise) and not _cheap(v):
                for u in users.get(v, ()):
                    if u is not None and u in level and level[u] != level[v]:
                        stored.add(v)
        groups: dict[Any, list[Variable]] = {}
        for v in order:
            if v in stored:
                whole = isinstance(v.op, WHOLE)
                key = (*level[v], not whole, v if whole else shape_of(v))
                groups.setdefault(key, []).append(v)
        self.groups = [groups[k] for k in sorted(groups, key=lambda k: k[:3])]


def _cheap(v: Variable) -> bool:
    """Whether computing an element again costs about as much as reading it."""
    return all(isinstance(x, Constant) or not x.inputs for x in v.inputs) and (
        v.op.label in ("add", "sub", "mul", "neg") or v.op.label.startswith("cast_")
    )
