"""The values of a step as element expressions, and their loop nests.

Every value of a graph says what its element i is, in terms of its inputs' elements. A value that
is *stored* has an array, written once; any other is computed where it is read. `plan` says which
are stored and in what order, `whole` how ops come about that need whole operands, `control` loops
and branches inside of a step.
"""

from __future__ import annotations

import contextlib
from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..graph import Constant, Variable
from ..ops import scalar
from ..ops.elemwise import Elemwise
from ..ops.index import Subtensor
from ..ops.shape import Dim, DimShuffle, Join, Reshape, Specify, is_size
from ..record import record, replace
from ..types import TensorType
from .kernel import (
    Array,
    Call,
    Choose,
    Fold,
    For,
    If,
    Let,
    Load,
    Name,
    Number,
    Return,
    Steps,
    Store,
    Use,
    binary,
    row_major,
)
from .plan import NotLowered, Plan, may_fail
from .render import DTYPES
from .stages import Stages

FAILED = Number(-1)  # what a kernel returns where a check failed: the host runs the definition


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


@record
class Factors:
    """Rows of one matrix and the panels of another, whose product is wanted."""

    suffix: str  # of the dtype
    rows: Memory
    count: Any  # of the rows
    wide: Any
    depth: Any
    row: Any  # strides of the rows
    column: Any
    panel: Array


def _expr(i: Any) -> Any:
    return Number(i) if isinstance(i, int) else i


class Operand:
    """An input of a value, as its element rule sees it."""

    def __init__(self, lowering: Lowering, v: Variable) -> None:
        self._lowering, self._v = lowering, v

    @property
    def sizes(self) -> list[Any]:
        return self._lowering.sizes(self._v)

    @property
    def is_size(self) -> bool:
        """Whether this is plainly not negative."""
        return is_size(self._v, self._lowering.counts)

    def at(self, index: Sequence[Any], where: Any = None) -> Any:
        """The element at a position; `where`: a condition without which it is not read."""
        with self._lowering.guarded(where):
            return self._lowering.element(self._v, [_expr(i) for i in index])

    def checked(self, i: Any, size: Any) -> Any:
        """A position counted from either end, checked when the kernel runs."""
        if isinstance(i, int):
            place = Number(i) if i >= 0 else binary("add", size, Number(i))
            if not (isinstance(size, Number) and -size.value <= i < size.value):
                self.demand(size > i if i >= 0 else size >= -i)
            return place
        return self._lowering.checked(i, size)

    def demand(self, condition: Any) -> None:
        """A condition without which the kernel fails."""
        self._lowering.demand(condition)

    def plus(self, a: Any, b: Any) -> Any:
        """The sum of two elements."""
        return Call(scalar.add, (a, b), a.dtype, a.dtype)


class Source(Operand):
    """An input of a value that only moves elements: for its element rule an element is the stored
    value that holds it, and where; None where no single one does."""

    def at(self, index: Sequence[Any], where: Any = None) -> Any:
        return self._lowering.source(self._v, [_expr(i) for i in index])


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
        # what a block knows is forgotten at its end: these have a dictionary a block
        self.memory: ChainMap[Variable, Memory] = ChainMap()
        self.locals: ChainMap[Variable, Any] = ChainMap()  # scalars of the step
        self.counts: set[Variable] = set()  # parameters that are plainly not negative
        self.packed: ChainMap[tuple[Variable, bool], Array] = ChainMap()  # operands of products
        self.rows: dict[Variable, tuple[Variable, Any]] = {}  # rows of other values, by number
        self.stages: Stages | None = None  # of a loop whose units workers may share
        self.has_lanes = True  # a worker's inner loops run in vectors, along rows
        self._names = 0
        self._guard: Any = None  # a condition without which nothing may be read
        self._statements: list[list[Any]] = [[]]
        self._seen: list[dict[Any, Any]] = [{}]  # elements computed in the open nests

    # ---- values -----------------------------------------------------------------------------

    def sizes(self, v: Variable) -> list[Any]:
        return [
            Number(s) if s is not None else self.size_of(v, i) for i, s in enumerate(v.type.shape)
        ]

    def shape_of(self, v: Variable) -> tuple[Any, ...]:
        """What sizes are to be told from others by: a variable for one that the step computes."""
        raise NotImplementedError

    def admit(self, v: Variable) -> None:
        """Raises NotLowered for a value whose sizes can't be checked."""

    def element(self, v: Variable, index: list[Any]) -> Any:
        """The expression of v's element, computed once in a loop nest."""
        if v in self.locals:
            return self.locals[v]
        if isinstance(v, Constant) and v.data.size == 1:
            return Number(v.data.flat[0].item(), v.dtype)
        if isinstance(v, Constant):
            self.place_of(v)
        if isinstance(v.op, Dim):
            return self.size_of(v.inputs[0], v.op.axis)
        index = [Number(0) if s == 1 else i for i, s in zip(index, v.type.shape, strict=True)]
        if v in self.memory:
            m = self.memory[v]
            value: Any = Load(m.array, m.offset(index))
            if self._guard is not None:
                value = Choose(self._guard, value, Number(0, v.dtype))
            return self._once((v, *index, self._guard), value)
        if v in self.rows:
            whole, t = self.rows[v]
            return self.element(whole, [t, *index])
        key = (v, *index, self._guard)
        for seen in reversed(self._seen):
            if key in seen:
                return seen[key]
        if not all(isinstance(x.type, TensorType) for x in v.inputs):
            raise NotLowered(f"{v.inputs[0].op.label} inside the step")
        if isinstance(v.op, Join) and (place := self._common(v, index)):
            whole, where = place
            return self.element(whole, [self._once(("place", i), i) for i in where])
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
            raise NotLowered(f"{v.op.label} has no kernel")
        found = rule(v, index, operands)
        if found is None:
            raise NotLowered(f"{v.op.label} with these parameters has no kernel")
        return self._once(key, found) if isinstance(found, Choose) else found

    def source(self, v: Variable, index: list[Any]) -> tuple[Variable, list[Any]] | None:
        """The stored value that holds v's element, and where."""
        index = [Number(0) if s == 1 else i for i, s in zip(index, v.type.shape, strict=True)]
        if v in self.memory:
            return v, index
        if isinstance(v.op, Subtensor) and not may_fail(v):
            found = v.op.element(
                v, index, [Source(self, v.inputs[0]), *(Operand(self, x) for x in v.inputs[1:])]
            )
        elif isinstance(v.op, DimShuffle | Specify):
            found = v.op.element(v, index, [Source(self, v.inputs[0])])
        else:
            return None
        return found

    def _common(self, v: Variable, index: list[Any]) -> tuple[Variable, list[Any]] | None:
        """The same of a join whose parts are all of one stored value, such as what is rolled: then
        an element is one read, at a position that depends on the part."""

        def common(e: Any) -> tuple[Variable, list[Any]] | None:
            if not isinstance(e, Choose):
                return e
            a, b = common(e.a), common(e.b)
            if a is None or b is None or a[0] is not b[0]:
                return None
            return a[0], [x if x == y else e.condition.choose(x, y) for x, y in zip(a[1], b[1])]

        assert isinstance(v.op, Join)
        return common(v.op.element(v, index, [Source(self, x) for x in v.inputs]))

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
        v = key[0] if isinstance(key[0], Variable) else None
        self._seen[-1][key] = self.named(value, v)
        return self._seen[-1][key]

    @contextlib.contextmanager
    def guarded(self, where: Any) -> Iterator[None]:
        """What is read inside is read only under a condition; else it is 0."""
        outer = self._guard
        if where is not None and where != Number(True, "bool"):
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

    def demand(self, condition: Any) -> None:
        """A condition without which the kernel fails, where it is known or before it starts."""
        key = ("demanded", condition, self._guard)
        if any(key in seen for seen in self._seen):
            return
        self._seen[-1][key] = condition
        if self.is_fixed(condition):
            self.require(condition)
            return
        broken = binary("eq", condition, Number(0))
        if self._guard is not None:
            broken = binary("and_", self._guard, broken)
        self.emit(If(broken, (Return(FAILED),)))

    def is_fixed(self, e: Any) -> bool:
        """Whether an integer expression is known before the kernel starts."""
        raise NotImplementedError

    # ---- statements -------------------------------------------------------------------------

    def fresh(self, letter: str, dtype: str) -> Name:
        self._names += 1
        return Name(f"{letter}{self._names}", dtype)

    def emit(self, s: Any) -> None:
        self._statements[-1].append(s)

    def label(self, v: Variable, other: str, *ends: str) -> str:
        """What a value is called in the text."""
        return other

    def named(self, value: Any, v: Variable | None = None) -> Any:
        """A name for a value that has none yet; v: whose element it is."""
        if isinstance(value, Name | Number):
            return value
        name = self.fresh("v", value.dtype)
        if v is not None:
            name = replace(name, text=self.label(v, name.text, "", "_value", f"_{self._names}"))
        self.emit(Let(name, value))
        return name

    def nest(
        self,
        sizes: Sequence[Any],
        body: Callable[[list[Any]], None],
        lanes: bool,
        part: tuple[int, Any, Any] | None = None,
        units: tuple[Any, Any] | None = None,
        apart: Collection[int] | None = None,
        fold: Fold | None = None,
    ) -> None:
        """Loops over an index space around what `body` emits; `part`: of an axis only the positions
        from one to before the other; `units`: the same of the last axis; `apart`: the axes along
        which positions do not need each other (None: all of them where there are lanes, else
        none); `fold`: what the loops do nothing but add to."""
        if apart is None:
            apart = range(len(sizes)) if lanes else ()
        index = [Number(0) if s == Number(1) else self.fresh("i", "int64") for s in sizes]
        self._statements.append([])
        self._seen.append({})
        body(index)
        self._seen.pop()
        inner = tuple(self._statements.pop())
        depth = 0
        for axis, (i, s) in reversed(list(enumerate(zip(index, sizes)))):
            if isinstance(i, Name):
                side_by_side = lanes and not depth and not returns(inner)
                start, end = part[1:] if part and axis == part[0] else (Number(0), s)
                if units and axis == len(sizes) - 1:
                    start, end = units
                inner = (For(i, end, inner, side_by_side, start, axis in apart, fold),)
                depth += 1
        for s in inner:
            self.emit(s)

    @contextlib.contextmanager
    def block(self) -> Iterator[list[Any]]:
        """The statements of a block: what is stored and named inside is known only there."""
        outer = self.memory, self.locals, self.packed
        self.memory, self.locals = self.memory.new_child(), self.locals.new_child()
        self.packed = self.packed.new_child()
        self._statements.append([])
        self._seen.append({})
        yield self._statements[-1]
        self._seen.pop()
        self._statements.pop()
        self.memory, self.locals, self.packed = outer

    def emit_beside(self, v: Variable, s: Any) -> None:
        """A statement of the block in which v is stored, in front of the blocks inside it."""
        self._statements[self.depth_of(v)].append(s)

    def depth_of(self, v: Variable) -> int:
        """The block in which a value is stored, counted from the outermost."""
        maps = self.memory.maps
        return len(maps) - 1 - next(k for k, known in enumerate(maps) if v in known)

    def statements(self) -> tuple[Any, ...]:
        return tuple(self._statements[0])

    # ---- the step -----------------------------------------------------------------------------

    def step(self, outputs: Sequence[Variable], stored: dict[Variable, Memory]) -> None:
        """Statements that compute the outputs; `stored` says where some of them go."""
        given = set(self.memory) | set(self.locals)
        plan = Plan(outputs, set(stored), given, self.shape_of, self.reads_on_the_way)
        for v in plan.order:
            self.admit(v)
        if len(self._statements) == 1:
            self.stage(plan)
        joined = plan.joined
        if self.stages is not None and len(self._statements) == 1:
            joined = self.stages.joined
        for v, parts in joined.items():
            stored[v] = stored.get(v) or self.place(v)
            for position, x in parts.items():
                stored[x] = self._part(v, stored[v], position)
        for k, group in enumerate(plan.groups):
            if self.begins_stage(k):
                self.meet()
            if plan.is_whole(group[0]):
                self.whole(group[0], stored, plan.results.get(group[0], ()))
                continue
            if group[0] in joined:
                self._join(group[0], stored[group[0]], joined[group[0]])
                continue
            scalars = [v for v in group if v.ndim == 0]
            for v in scalars:
                self._scalar(v, stored)
            tensors = [v for v in group if v.ndim]
            for nest in plan.in_turn(tensors) if self.has_lanes else [tensors]:
                self._elementwise(nest, stored)
        if self.begins_stage(len(plan.groups)):
            self.meet()

    def _elementwise(self, group: Sequence[Variable], stored: Mapping[Variable, Memory]) -> None:
        """A nest that computes values of one shape."""
        if not group:
            return
        places = {v: stored.get(v) or self.place(v) for v in group}

        def body(index: list[Any]) -> None:
            for v, m in places.items():
                value = self.element(v, list(index))
                self.emit(Store(m.array, m.offset(index), value))

        self.nest(self.sizes(group[0]), body, True, units=self.units_of(group[0]))
        self.memory.update(places)

    def _part(self, v: Variable, m: Memory, position: int) -> Memory:
        """Where an input of a join stands in it."""
        assert isinstance(v.op, Join)
        axis, start = v.op.axis, m.start
        for x in v.inputs[:position]:
            start = binary("add", start, binary("mul", self.sizes(x)[axis], m.strides[axis]))
        return Memory(m.array, m.strides, start)

    def _join(self, v: Variable, m: Memory, parts: Mapping[int, Variable]) -> None:
        """A join of which some parts are there."""
        for k, x in enumerate(v.inputs):
            if k not in parts:
                self.copy(x, self._part(v, m, k), shared=True)
        self.memory[v] = m

    def whole(
        self, v: Variable, stored: dict[Variable, Memory], results: Sequence[Variable]
    ) -> None:
        """Statements for an op that needs whole operands; `results`: of several, those read."""
        raise NotImplementedError

    def reads_on_the_way(self, v: Variable) -> bool:
        """Whether such an op computes what it alone reads while it reads it: not where that would
        keep functions out of vectors."""
        raise NotImplementedError

    # ---- units --------------------------------------------------------------------------------

    def stage(self, plan: Plan) -> None:
        """Works out the stages of a step whose units workers may share."""

    def begins_stage(self, k: int) -> bool:
        """Whether group number k of the step begins one; behind the last comes what the loop does
        with the step's values."""
        return self.stages is not None and len(self._statements) == 1 and k in self.stages.starts

    def meet(self) -> None:
        """The workers wait for each other."""
        raise NotImplementedError

    def units_of(self, v: Variable) -> tuple[Any, Any] | None:
        """The first unit of v that a worker has and the one behind its last, where it does not
        have all."""
        if self.stages is None or not self.stages.shares_units(v):
            return None
        return self.unit_range(self.sizes(v)[-1])

    def unit_range(self, size: Any) -> tuple[Any, Any]:
        raise NotImplementedError

    def copy(self, v: Variable, m: Memory, shared: bool = False) -> None:
        """A value, element by element, to where it is wanted; `shared`: memory that workers have
        together, to which each of them copies its own units."""

        def body(index: list[Any]) -> None:
            self.emit(Store(m.array, m.offset(index), self.element(v, list(index))))

        shared = shared and self.stages is not None and self.stages.has_units(v)
        units = self.unit_range(self.sizes(v)[-1]) if shared else None
        self.nest(self.sizes(v), body, True, units=units)

    def _scalar(self, v: Variable, stored: dict[Variable, Memory]) -> None:
        value = self.named(self.element(v, []), v)
        self.locals[v] = value
        if v in stored:
            self.emit(Store(stored[v].array, stored[v].offset([]), value))

    def place_of(self, v: Variable) -> Memory:
        """Where a value's elements lie."""
        if isinstance(v, Constant) and v not in self.memory:
            self.memory.maps[-1][v] = self.constant(v)
        return self.memory[v]

    def constant(self, v: Constant) -> Memory:
        raise NotImplementedError  # a frame says where

    def place(self, v: Variable) -> Memory:
        return Memory(self.scratch(v), row_major(self.sizes(v)))

    # ---- products -----------------------------------------------------------------------------

    def _dot(self, v: Variable, out: Memory) -> None:
        f = self.factors(v)
        out_stride = out.strides[0] if v.ndim == 2 else f.wide
        first, columns = self.columns_of(v, f)
        self.emit(
            Use(
                f"gs_gemm_{f.suffix}",
                (f.count, columns, f.depth, (f.rows.array, f.rows.start), f.row, f.column,
                 (f.panel, first * f.depth), (out.array, out.start + first), out_stride),
            )
        )  # fmt: skip
        self.memory[v] = out
        if v.ndim == 0:
            self.locals[v] = Load(out.array, out.start)

    def columns_of(self, v: Variable, f: Factors) -> tuple[Any, Any]:
        """The first column of a product that a worker computes, and how many."""
        own = self.units_of(v)
        return (Number(0), f.wide) if own is None else (own[0], own[1] - own[0])

    def factors(self, v: Variable) -> Factors:
        """The factors of a product, the one that is packed in its panels."""
        x, y = v.inputs
        if x.ndim == 2 and y.ndim == 1:  # W @ h is h @ W.T
            rows, weight, transposed = y, x, True
        else:
            rows, weight, transposed = x, y, False
        m = self.place_of(rows)
        r, w = self.sizes(rows), self.sizes(weight)
        wide: Any = Number(1)
        if weight.ndim == 2:
            wide = w[0] if transposed else w[1]
        if (weight, transposed) not in self.packed:
            self.packed[weight, transposed] = self.pack(weight, transposed)
        return Factors(
            "f32" if v.dtype == "float32" else "f64", m,
            r[0] if rows.ndim == 2 else Number(1), wide, r[-1],
            m.strides[0] if rows.ndim == 2 else Number(0), m.strides[-1],
            self.packed[weight, transposed],
        )  # fmt: skip

    def pack(self, weight: Variable, transposed: bool) -> Array:
        """The panels of an operand of a product, laid out inside the loop."""
        m = self.place_of(weight)
        panel = self.scratch_panels(weight, transposed)
        self.emit_beside(weight, self.packing(weight, transposed, m, panel))
        self.packed.maps[-1 - self.depth_of(weight)][weight, transposed] = panel
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
        if self.stages is None or not self.stages.is_shared_out(wide):
            return Use(f"gs_pack_{t}", (depth, wide, (m.array, m.start), down, right, panel))
        first, end = self.unit_range(wide)
        place = (m.array, m.start + first * right)
        return Use(f"gs_pack_{t}", (depth, end - first, place, down, right, (panel, first * depth)))

    def scratch_panels(self, weight: Variable, transposed: bool) -> Array:
        raise NotImplementedError  # a loop's lowering says where


def returns(body: Iterable[Any], value: Any = None) -> bool:
    """Whether a kernel may end in these statements; `value`: with this one."""
    return any(
        (isinstance(s, Return) and value in (None, s.value))
        or (isinstance(s, If | For | Steps) and returns(s.body, value))
        or (isinstance(s, If) and returns(s.other, value))
        for s in body
    )
