"""Ops that need whole operands: reductions, positions, running sums, softmax, draws, scattering,
checks, and products for which there is no packed kernel."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..graph import Variable
from ..ops import scalar
from ..ops.control import Require
from ..ops.elemwise import scalars
from ..ops.index import AdvancedIncSubtensor
from ..ops.linalg import BatchedDot, Dot
from ..ops.positions import positions_read
from ..ops.reduce import ArgReduce, Cumulative, Reduce
from ..ops.sample import Uniform
from ..ops.softmax import LogSoftmax, Softmax
from ..types import FLOATS
from .kernel import (
    Array,
    Assign,
    Call,
    Declare,
    Fold,
    If,
    Load,
    Local,
    Number,
    Return,
    Store,
    Use,
    binary,
    product,
)
from .lower import FAILED, Lowering, Memory, Operand
from .plan import NotLowered
from .render import DTYPES

_ROWS = 4  # that are added to a row at once
_PARTS = 32  # of a sum: two vectors, or four: gcc makes no loop of sixteen


class Whole(Lowering):
    """A lowering that knows these ops."""

    def whole(
        self, v: Variable, stored: dict[Variable, Memory], results: Sequence[Variable]
    ) -> None:
        if v.dtype not in DTYPES:
            raise NotLowered(f"{v.op.label} of {v.dtype}")
        match v.op:
            case Dot() if v.dtype in FLOATS:
                self._dot(v, stored.get(v) or self.place(v))
            case Dot() | BatchedDot():
                self.products(v, stored)
            case Reduce():
                self._reduce(v, stored)
            case ArgReduce():
                self._arg_reduce(v, stored)
            case Cumulative():
                self._cumulative(v, stored.get(v) or self.place(v))
            case Softmax() | LogSoftmax():
                self._softmax(v, stored.get(v) or self.place(v))
            case AdvancedIncSubtensor():
                self._scatter(v, stored.get(v) or self.place(v))
            case Uniform():
                self._uniform(v, stored.get(v) or self.place(v))
            case Require():
                self._require(v, stored)

    def reads_on_the_way(self, v: Variable) -> bool:
        if not self.has_lanes or isinstance(v.op, Softmax | LogSoftmax):
            return True
        return is_along_rows(v) or (isinstance(v.op, Reduce) and self._has_parts(v))

    def finish(self, v: Variable, out: Memory | None, value: Any, index: Sequence[Any]) -> None:
        """An element of a value is there; `out`: where it goes, unless v is a scalar of the
        step."""
        if out is not None:
            self.emit(Store(out.array, out.offset(index), value))
        if v.ndim == 0:
            self.locals[v] = value

    # ---- along axes ---------------------------------------------------------------------------

    def _reduce(self, v: Variable, stored: dict[Variable, Memory]) -> None:
        x, op = v.inputs[0], v.op
        assert isinstance(op, Reduce)
        combine, start = _COMBINED[op.kind]
        if start is None:  # no elements have no maximum: NumPy says so
            start = _extreme(op.kind, op.dtype)
            self.demand(product([self.sizes(x)[a] for a in op.axes]) > 0)
        sizes = self.sizes(x)
        kept = [i for i in range(x.ndim) if i not in op.axes]
        out = stored.get(v) if v.ndim == 0 else stored.get(v) or self.place(v)

        def term(index: list[Any]) -> Any:
            value = self.element(x, index)
            if x.dtype != op.dtype:
                value = Call(scalars[f"cast_{op.dtype}"], (value,), op.dtype, x.dtype)
            return value

        def placed(outer: Sequence[Any], inner: Sequence[Any]) -> list[Any]:
            """A position in x, of those along the axes that stay and along those that don't."""
            at = dict(zip([*kept, *op.axes], [*outer, *inner]))
            return [at[axis] for axis in range(x.ndim)]

        def combined(a: Any, b: Any) -> Any:
            return Call(combine, (a, b), op.dtype, op.dtype)

        def whole(outer: list[Any]) -> None:
            """One element of the result: a sum in the order of the elements."""
            total = self.fresh("s", op.dtype)
            self.emit(Declare(total, Number(start, op.dtype)))

            def inner(index: list[Any]) -> None:
                self.emit(Assign(total, combined(total, term(placed(outer, index)))))

            fold = Fold(total, combine, x.ndim - 1 in op.axes)
            self.nest([sizes[a] for a in op.axes], inner, False, fold=fold)
            self.finish(v, out, total, outer)

        def in_parts(outer: list[Any]) -> None:
            """The same of floats that lie together, as sums of every _PARTS-th of them: no sum
            waits for the one before."""
            parts = Array(self.fresh("s", op.dtype).text, op.dtype)
            self.emit(Local(parts, _PARTS))

            def keep(i: Any, value: Any) -> None:
                self.emit(Store(parts, i, value))

            def along(index: list[Any]) -> None:
                def add(first: Any, count: Any) -> None:
                    def one(k: list[Any]) -> None:
                        value = term(placed(outer, [*index, first + k[0]]))
                        keep(k[0], combined(Load(parts, k[0]), value))

                    self.nest([count], one, True)

                several, rest = _divided(sizes[-1], _PARTS)
                self.nest([several], lambda b: add(b[0] * _PARTS, Number(_PARTS)), False)
                if rest != Number(0):
                    add(several * _PARTS, rest)

            def halve(k: list[Any]) -> None:
                keep(k[0], combined(Load(parts, k[0]), Load(parts, k[0] + half)))

            self.nest([Number(_PARTS)], lambda k: keep(k[0], Number(start, op.dtype)), True)
            self.nest([sizes[a] for a in op.axes[:-1]], along, False)
            half = _PARTS
            while (half := half // 2) > 1:
                self.nest([Number(half)], halve, True)
            total = combined(Load(parts, Number(0)), Load(parts, Number(1)))
            self.finish(v, out, self.named(total), outer)

        def clear(index: list[Any]) -> None:
            assert out is not None
            self.emit(Store(out.array, out.offset(index), Number(start, op.dtype)))

        def rows(part: tuple[int, Any, Any] | None) -> None:
            """Adds rows to rows, several at a time where gcc makes vectors of that."""
            assert out is not None
            along, together = op.axes[-1], _ROWS if op.kind in ("sum", "prod") else 1

            def add(first: Any, count: int, index: list[Any]) -> None:
                position = out.offset([index[k] for k in kept])
                value: Any = Load(out.array, position)
                for k in range(count):
                    there = first + index[along] * count + k
                    value = combined(value, term([*index[:along], there, *index[along + 1 :]]))
                self.emit(Store(out.array, position, value))

            several, rest = _divided(sizes[along], together)
            ends = (Number(0), together, several), (several * together, 1, rest)
            for first, count, times in ends:
                if times != Number(0):
                    each = [*sizes[:along], times, *sizes[along + 1 :]]
                    body = functools.partial(add, first, count)
                    self.nest(each, body, True, part, apart=kept)

        own = self.rows_of(v)
        part = None if own is None else (0, *own)
        if is_along_rows(v) and self.has_lanes:
            assert out is not None
            self.nest([sizes[k] for k in kept], clear, True, part)
            rows(None if own is None else (kept[0], *own))
        else:
            element = in_parts if self._has_parts(v) else whole
            self.nest([sizes[k] for k in kept], element, False, part, apart=range(len(kept)))
        if out is not None:
            self.memory[v] = out

    def rows_of(self, v: Variable) -> tuple[Any, Any] | None:
        """Of the first axis of a reduction or a softmax the first position that is computed here
        and the one behind the last, where these are not all."""
        return None

    def _has_parts(self, v: Variable) -> bool:
        """Whether the elements of a sum, or an extreme, are worth taking together in vectors."""
        (x,), op = v.inputs, v.op
        assert isinstance(op, Reduce)
        if not self.has_lanes or op.kind not in ("sum", "max", "min"):
            return False
        if op.dtype not in ("float32", "float64"):
            return False
        size = self.sizes(x)[-1]
        return x.ndim - 1 in op.axes and not (isinstance(size, Number) and size.value < _PARTS)

    def _arg_reduce(self, v: Variable, stored: dict[Variable, Memory]) -> None:
        """The first position of the largest or smallest element; a NaN is more than either."""
        (x,), op = v.inputs, v.op
        assert isinstance(op, ArgReduce)
        sizes = self.sizes(x)
        self.demand(sizes[op.axis] > 0)
        out = stored.get(v) if v.ndim == 0 else stored.get(v) or self.place(v)

        def along(outer: list[Any]) -> None:
            def at(i: Any) -> Any:
                return self.element(x, [*outer[: op.axis], i, *outer[op.axis :]])

            best, position = self.fresh("e", x.dtype), self.fresh("j", "int64")
            self.emit(Declare(best, at(Number(0))))
            self.emit(Declare(position, Number(0)))

            def body(index: list[Any]) -> None:
                value = self.named(at(index[0]))
                passes = binary("le" if op.kind == "argmax" else "ge", value, best)
                beaten = binary("eq", passes, Number(0))
                if x.dtype in FLOATS:
                    beaten = binary("and_", beaten, binary("eq", best, best))
                self.emit(If(beaten, (Assign(best, value), Assign(position, index[0]))))

            self.nest([sizes[op.axis]], body, False)
            self.finish(v, out, position, outer)

        self.nest(self.sizes(v), along, False, apart=range(v.ndim))
        if out is not None:
            self.memory[v] = out

    def _cumulative(self, v: Variable, out: Memory) -> None:
        (x,), op = v.inputs, v.op
        assert isinstance(op, Cumulative)
        combine, start = (scalar.add, 0) if op.kind == "cumsum" else (scalar.mul, 1)
        first = -0.0 if start == 0 and v.dtype in FLOATS else start  # -0 + x is x, for -0 also
        sizes = self.sizes(x)

        def along(outer: list[Any]) -> None:
            total = self.fresh("s", v.dtype)
            self.emit(Declare(total, Number(first, v.dtype)))

            def body(index: list[Any]) -> None:
                full = [*outer[: op.axis], index[0], *outer[op.axis :]]
                term = self.element(x, list(full))
                self.emit(Assign(total, Call(combine, (total, term), v.dtype, v.dtype)))
                self.emit(Store(out.array, out.offset(full), total))

            self.nest([sizes[op.axis]], body, False)

        others = [*sizes[: op.axis], *sizes[op.axis + 1 :]]
        self.nest(others, along, False, apart=range(len(others)))
        self.memory[v] = out

    def _softmax(self, v: Variable, out: Memory) -> None:
        op = v.op
        assert isinstance(op, Softmax | LogSoftmax)
        t = _floats(v, "a softmax")
        routine = "gs_softmax" if isinstance(op, Softmax) else "gs_log_softmax"
        sizes = self.sizes(v)
        own = self.rows_of(v)
        if own is None:
            self.copy(v.inputs[0], out)

        def along(outer: list[Any]) -> None:
            def at(i: Any) -> list[Any]:
                return [*outer[: op.axis], i, *outer[op.axis :]]

            def put(i: list[Any]) -> None:
                value = self.element(v.inputs[0], at(i[0]))
                self.emit(Store(out.array, out.offset(at(i[0])), value))

            if own is not None:
                self.nest([sizes[op.axis]], put, True)
            start = out.offset(at(Number(0)))
            row = (sizes[op.axis], (out.array, start), out.strides[op.axis])
            self.emit(Use(f"{routine}_{t}", row))

        others = [*sizes[: op.axis], *sizes[op.axis + 1 :]]
        part = None if own is None else (0, *own)
        self.nest(others, along, False, part, apart=range(len(others)))
        self.memory[v] = out

    # ---- products -----------------------------------------------------------------------------

    def products(self, v: Variable, stored: dict[Variable, Memory]) -> None:
        """Rows of sums of rows: a stack of products, or one of integers."""
        x, y = v.inputs
        lead = 1 if isinstance(v.op, BatchedDot) else 0
        depth, wide = self.sizes(x)[-1], self.sizes(y)[lead + 1 :]
        out = stored.get(v) or self.place(v)
        zero = Number(0, v.dtype)

        def one(index: list[Any]) -> None:
            total = self.fresh("s", v.dtype)
            self.emit(Declare(total, zero))
            outer, j = index[: x.ndim - 1], index[x.ndim - 1 :]

            def term(k: list[Any]) -> None:
                a, b = self.element(x, [*outer, *k]), self.element(y, [*outer[:lead], *k, *j])
                step = Call(scalar.mul, (a, b), v.dtype, v.dtype)
                self.emit(Assign(total, Call(scalar.add, (total, step), v.dtype, v.dtype)))

            self.nest([depth], term, False, fold=None if wide else Fold(total, scalar.add, True))
            self.emit(Store(out.array, out.offset(index), total))

        def row(outer: list[Any]) -> None:
            stack = outer[:lead]

            def clear(j: list[Any]) -> None:
                self.emit(Store(out.array, out.offset([*outer, *j]), zero))

            def term(k: list[Any]) -> None:
                def add(j: list[Any]) -> None:
                    a, b = self.element(x, [*outer, *k]), self.element(y, [*stack, *k, *j])
                    place = out.offset([*outer, *j])
                    step = Call(scalar.mul, (a, b), v.dtype, v.dtype)
                    old = Load(out.array, place)
                    total = Call(scalar.add, (old, step), v.dtype, v.dtype)
                    self.emit(Store(out.array, place, total))

                self.nest(wide, add, True)

            self.nest(wide, clear, True)
            self.nest([depth], term, False)

        if self.has_lanes:
            self.nest(self.sizes(x)[:-1], row, False, apart=range(x.ndim - 1))
        else:
            self.nest(self.sizes(v), one, False, apart=range(v.ndim))
        self.memory[v] = out
        if v.ndim == 0:
            self.locals[v] = self.named(Load(out.array, out.start))

    # ---- by position --------------------------------------------------------------------------

    def _scatter(self, v: Variable, out: Memory) -> None:
        """x, and then y's elements one after another: a position may be met again."""
        x, y, *symbolic = v.inputs
        op = v.op
        assert isinstance(op, AdvancedIncSubtensor)
        self.copy(x, out)

        def body(index: list[Any]) -> None:
            operands = [Operand(self, w) for w in (x, *symbolic)]
            position = positions_read(op.pattern, index, operands)
            if position is None:
                raise NotLowered(f"{op.label} with these parameters has no kernel")
            value = self.element(y, list(index))
            place = self.named(out.offset(position))
            if not op.set:
                old = Load(out.array, place)
                value = Call(scalar.add, (old, value), v.dtype, v.dtype)
            self.emit(Store(out.array, place, value))

        self.nest(self.part_sizes(v), body, False)
        self.memory[v] = out

    def part_sizes(self, v: Variable) -> list[Any]:
        """The sizes of what an op writes into."""
        raise NotImplementedError

    # ---- draws and checks ---------------------------------------------------------------------

    def first_element(self, v: Variable) -> Any:
        """The element of a draw at which this kernel's part of it starts."""
        return Number(0)

    def _uniform(self, v: Variable, out: Memory) -> None:
        t = _floats(v, "a draw")
        state = self.place_of(v.inputs[0])
        sizes, first = self.sizes(v), self.first_element(v)
        given, row = (state.array, state.start), product(sizes[1:]) if sizes else Number(0)
        if (own := self.units_of(v)) is None:
            operands = (given, row, first, product(sizes), (out.array, out.start))
            self.emit(Use(f"gs_uniforms_{t}", operands))
        else:  # some columns of each row
            rows, stride = product(sizes[:-1]), out.strides[-2] if v.ndim > 1 else Number(0)
            place = (out.array, out.start + own[0])
            columns = (first + own[0], rows, sizes[-1], own[1] - own[0])
            self.emit(Use(f"gs_uniform_rows_{t}", (given, row, *columns, place, stride)))
        if v.ndim == 0:
            self.locals[v] = Load(out.array, out.start)
        self.memory[v] = out

    def _require(self, v: Variable, stored: dict[Variable, Memory]) -> None:
        x, *conditions = v.inputs
        for c in conditions:

            def body(index: list[Any], c: Variable = c) -> None:
                broken = binary("eq", self.element(c, list(index)), Number(0))
                self.emit(If(broken, (Return(FAILED),)))

            self.nest(self.sizes(c), body, False, apart=range(c.ndim))
        if v.ndim == 0:
            self.finish(v, stored.get(v), self.element(x, []), [])
            return
        out = stored.get(v) or self.place(v)
        self.copy(x, out)
        self.memory[v] = out


def is_along_rows(v: Variable) -> bool:
    """Whether a reduction adds rows to rows."""
    (x,), op = v.inputs, v.op
    return isinstance(op, Reduce) and v.ndim > 0 and x.ndim - 1 not in op.axes


def _divided(size: Any, by: int) -> tuple[Any, Any]:
    """The quotient and the rest."""
    if by == 1:
        return size, Number(0)
    if isinstance(size, Number):
        return Number(size.value // by), Number(size.value % by)
    return binary("int_div", size, Number(by)), binary("mod", size, Number(by))


def _floats(v: Variable, what: str) -> str:
    """The suffix of a routine for a float dtype."""
    if v.dtype not in ("float32", "float64"):
        raise NotLowered(f"{what} of {v.dtype}")
    return "f32" if v.dtype == "float32" else "f64"


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
