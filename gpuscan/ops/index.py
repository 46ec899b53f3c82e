"""The ops of indexing: a part of x, and x with a part of it set or added to. `patterns` says what
an index is; `indexing` has what users write."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from ..graph import Op, Variable, constant_leaf
from ..record import record
from ..types import TensorType, shape_text
from .elemwise import unbroadcast_to, zeros_like
from .patterns import (
    FULL,
    HOLE,
    Array,
    At,
    NewAxis,
    Pattern,
    Slice,
    are_neighbours,
    entry_text,
    extended,
    fill,
    holes,
    indexer,
    is_advanced,
    kept_entries,
    part_sizes,
    part_type,
    trimmed,
)
from .positions import positions_read, positions_written
from .shape import (
    BroadcastTo,
    DimShuffle,
    FirstRows,
    Specify,
    broadcast_to,
    dims,
    dimshuffle,
    specify,
)

# ---- reading --------------------------------------------------------------------------------


class Indexing(Op):
    """What the four ops of this file share."""

    __slots__ = ()
    pattern: Pattern

    @property
    def is_last_row(self) -> bool:
        """Whether this is x[-1]."""
        return self.pattern == (At(-1),)

    @property
    def label(self) -> str:
        return f"{type(self).__name__}{{{', '.join(map(entry_text, self.pattern))}}}"


@record
class Subtensor(Indexing):
    """x[index] where the index is made of integers and slices: a view. Operands: the symbolic
    ones, int64 scalars, in order. Raises IndexError for a position out of range."""

    pattern: Pattern

    @property
    def steering(self) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(range(1, len(holes(self.pattern)) + 1))

    @property
    def fixed_slice(self) -> tuple[int, int, int] | None:
        """(axis, start, stop) where this is a slice along one axis alone, with positions that are
        fixed and count from the front, otherwise None."""
        cut = [axis for axis, e in enumerate(self.pattern) if e != FULL]
        match [self.pattern[axis] for axis in cut]:
            case [Slice(None | int() as start, int(stop), None)] if (start or 0) >= 0 <= stop:
                return cut[0], start or 0, stop
        return None

    def infer(self, x: TensorType, *operands: TensorType) -> TensorType:
        return part_type(self.pattern, x, operands)

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        pattern = self.pattern
        if not holes(pattern):
            index = fill(pattern, ())
            return lambda x: x[index]
        if pattern == (At(HOLE),):
            return lambda x, i: x[int(i)]
        return lambda x, *operands: x[fill(pattern, [int(v) for v in operands])]

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        x, *operands = inputs
        if not output.type.is_float:
            return [None] * len(inputs)
        back = IncSubtensor(self.pattern, False)(zeros_like(x, g.dtype), g, *operands)
        return [specify(back, x.type.shape), *[None] * len(operands)]

    def element(self, node: Variable, index: Any, operands: Any) -> Any:
        positions = positions_read(self.pattern, index, operands)
        return None if positions is None else operands[0].at(positions)

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return part_sizes(self.pattern, inputs[0], inputs[1:])

    def batch(
        self, inputs: Sequence[Variable], batched: Sequence[bool], n: Variable
    ) -> Variable | None:
        return _batched_read(self.pattern, inputs, batched, n)


# What gives a view of its first input: of a tensor, whatever the other inputs are.
VIEWS = (BroadcastTo, DimShuffle, FirstRows, Specify, Subtensor)


@record
class AdvancedSubtensor(Indexing):
    """x[index] where integer arrays are in the index: a copy. The arrays broadcast together, and
    their axes stand in the result where NumPy puts them. Operands: symbolic integers, int64
    scalars, and all arrays, in order. Raises IndexError for a position out of range."""

    pattern: Pattern

    @property
    def steering(self) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(range(1, len(holes(self.pattern)) + 1))

    def infer(self, x: TensorType, *operands: TensorType) -> TensorType:
        return part_type(self.pattern, x, operands)

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        pattern = self.pattern
        if pattern == (Array(),):
            return lambda x, i: x.take(i, axis=0)
        index = indexer(pattern, node.inputs[1:])
        return lambda x, *operands: x[index(operands)]

    def element(self, node: Variable, index: Any, operands: Any) -> Any:
        positions = positions_read(self.pattern, index, operands)
        return None if positions is None else operands[0].at(positions)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        x, *operands = inputs
        if not output.type.is_float:
            return [None] * len(inputs)
        back = AdvancedIncSubtensor(self.pattern, False)(zeros_like(x, g.dtype), g, *operands)
        return [specify(back, x.type.shape), *[None] * len(operands)]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return part_sizes(self.pattern, inputs[0], inputs[1:])

    def batch(
        self, inputs: Sequence[Variable], batched: Sequence[bool], n: Variable
    ) -> Variable | None:
        return _batched_read(self.pattern, inputs, batched, n)


@record
class Lookup(Op):
    """(x, i) -> x[i] along the first axis, for positions i of which it is known, before it is
    computed, that they are there. It stands in kernels only."""

    steering: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, x: TensorType, i: TensorType) -> TensorType:
        return part_type((Array(),), x, [i])

    def element(self, node: Variable, index: Any, operands: Any) -> Any:
        x, i = operands
        place = i.at(index[: len(i.sizes)])
        wrapped = (place < 0).choose(place + x.sizes[0], place)
        return x.at([wrapped, *index[len(i.sizes) :]])

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return part_sizes((Array(),), inputs[0], inputs[1:])


# ---- writing --------------------------------------------------------------------------------


def _check_value(op: Indexing, x: TensorType, y: TensorType, operands: Sequence[Any]) -> None:
    """Whether y broadcasts to x[index], as far as is known. Raises TypeError, ValueError."""
    part = part_type(op.pattern, x, operands)
    if x.dtype != y.dtype or y.ndim != part.ndim:
        raise TypeError(f"{op.label}: {y} can't be written to a part that is a {part}")
    for have, want in zip(y.shape, part.shape):
        if have not in (1, None) and want is not None and have != want:
            raise ValueError(
                f"a value of shape {shape_text(y.shape)} does not fit the indexed part, "
                f"which has shape {shape_text(part.shape)}"
            )


def check_fit(y: Any, known: Sequence[int | None], shape: Sequence[int]) -> None:
    for have, static, want in zip(y.shape, known, shape):
        if have != want and static != 1:
            hint = ": only a size that is known to be 1 broadcasts" if have == 1 else ""
            raise ValueError(
                f"a value of shape {y.shape} does not fit the indexed part, which has shape "
                f"{tuple(shape)}{hint}"
            )


@record
class IncSubtensor(Indexing):
    """x with y added to x[index], or put there where `set`; integers and slices only. Inputs: x,
    y, and the operands of `Subtensor`. y has the dtype of x and the dimensions of x[index], to
    which it broadcasts. Raises IndexError, and ValueError where y does not fit."""

    pattern: Pattern
    set: bool

    @property
    def steering(self) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(range(2, len(holes(self.pattern)) + 2))

    def infer(self, x: TensorType, y: TensorType, *operands: TensorType) -> TensorType:
        _check_value(self, x, y, operands)
        return x

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        pattern, known = self.pattern, node.inputs[1].type.shape
        fixed = None if holes(pattern) else (*fill(pattern, ()), ...)

        def run(x: Any, y: Any, *operands: Any) -> Any:
            index = fixed or (*fill(pattern, [int(v) for v in operands]), ...)
            out = np.array(x, order="C")
            part = out[index]  # a view: the ellipsis keeps a scalar one
            check_fit(y, known, part.shape)
            if self.set:
                part[...] = y
            else:
                np.add(part, y, out=part)
            return out

        return run

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return _write_pullback(self, Subtensor(self.pattern), inputs, output, g)

    def element(self, node: Variable, index: Any, operands: Any) -> Any:
        x, y, *_ = operands
        found = positions_written(self.pattern, index, node, operands)
        if found is None:
            return None
        inside, position = found
        new = y.at(position, inside)
        if self.set and inside is None:
            return new
        old = x.at(index)
        new = new if self.set else x.plus(old, new)
        return new if inside is None else inside.choose(new, old)

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return dims(inputs[0])

    def batch(
        self, inputs: Sequence[Variable], batched: Sequence[bool], n: Variable
    ) -> Variable | None:
        return _batched_write(self, inputs, batched, n)


@record
class AdvancedIncSubtensor(Indexing):
    """`IncSubtensor` where integer arrays are in the index. A position that is met several times
    gets every addition; set to several values, it keeps the last."""

    pattern: Pattern
    set: bool

    @property
    def steering(self) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(range(2, len(holes(self.pattern)) + 2))

    def infer(self, x: TensorType, y: TensorType, *operands: TensorType) -> TensorType:
        _check_value(self, x, y, operands)
        return x

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        if not self.set:
            return self.adder(node, _add_rows)
        known = node.inputs[1].type.shape
        index_of = indexer(self.pattern, node.inputs[2:])

        def run(x: Any, y: Any, *operands: Any) -> Any:
            index = index_of(operands)
            out = np.array(x, order="C")
            check_fit(y, known, out[index].shape)
            out[index] = y
            return out

        return run

    def adder(self, node: Variable, add: Callable[[Any, Any, Any], None]) -> Callable[..., Any]:
        """The evaluator of an addition by `add(out, rows, y)`, which adds the rows of the matrix
        y, one after another, to those rows of the matrix out."""
        known, places = node.inputs[1].type.shape, places_of(self.pattern, node.inputs[2:])

        def run(x: Any, y: Any, *operands: Any) -> Any:
            rows, shape, width = places(x.shape, operands)
            check_fit(y, known, shape)
            out = np.array(x, order="C")
            y = np.broadcast_to(y, shape).reshape(rows.size, width)
            add(out.reshape(-1, width) if width else out.reshape(0, 0), rows, y)
            return out

        return run

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return _write_pullback(self, AdvancedSubtensor(self.pattern), inputs, output, g)

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return dims(inputs[0])

    def batch(
        self, inputs: Sequence[Variable], batched: Sequence[bool], n: Variable
    ) -> Variable | None:
        return _batched_write(self, inputs, batched, n)


def places_of(
    pattern: Pattern, operands: Sequence[Variable]
) -> Callable[[Sequence[int], Sequence[Any]], Any]:
    """A function of x's shape and the integers of x[pattern]: which rows of x, as a matrix, it is
    made of, its shape, and how wide a row is."""
    index_of = indexer(pattern, operands)
    reached = sum(not isinstance(e, NewAxis) for e in pattern)

    def found(sizes: Sequence[int], operands: Sequence[Any]) -> Any:
        lead, tail = tuple(sizes[:reached]), tuple(sizes[reached:])
        rows = np.arange(math.prod(lead)).reshape(lead)[index_of(operands)]
        return rows.reshape(-1), rows.shape + tail, math.prod(tail)

    return found


def _add_rows(out: Any, rows: Any, y: Any) -> None:
    width = out.shape[1]  # NumPy adds repeatedly at full speed only along one axis
    at = (rows.reshape(-1, 1) * width + np.arange(width)).reshape(-1)
    np.add.at(out.reshape(-1), at, y.reshape(-1))


def _write_pullback(
    op: IncSubtensor | AdvancedIncSubtensor,
    read: Op,
    inputs: Sequence[Variable],
    output: Variable,
    g: Variable,
) -> Sequence[Any]:
    x, y, *operands = inputs
    if not output.type.is_float:
        return [None] * len(inputs)
    to_y = specify(unbroadcast_to(read(g, *operands), y), y.type.shape)
    to_x = g
    if op.set:  # what was there before has no effect
        zero = constant_leaf(np.zeros((1,) * y.ndim, g.dtype))
        to_x = type(op)(op.pattern, True)(g, zero, *operands)
    return [specify(to_x, x.type.shape), to_y, *[None] * len(operands)]


# ---- batches --------------------------------------------------------------------------------


@record
class _Batch:
    """An index for a whole batch. The axes of what it takes are named, as they come and in the
    order in which they are wanted."""

    pattern: Pattern
    operands: Sequence[Variable]
    come: Sequence[tuple[str, int]]
    wanted: Sequence[tuple[str, int]]


def _batched(
    pattern: Pattern,
    ndim: int,
    operands: Sequence[Variable],
    batched: Sequence[bool],
    x_batched: bool,
    n: Variable,
) -> _Batch | None:
    """The index for n tensors at once, or None; ndim is that of one tensor."""
    pattern = extended(pattern, ndim)
    owners = holes(pattern)
    width = max(
        [v.ndim - b for v, b, k in zip(operands, batched, owners) if pattern[k] == Array()],
        default=0,
    )
    before, after = kept_entries(pattern)
    middle = [("index", j) for j in range(width)]
    kept = [("kept", j) for j in range(len(before) + len(after))]
    lead = ("batch", 0)
    wanted = [lead, *kept[: len(before)], *middle, *kept[len(before) :]]
    if not any(batched):
        come = wanted if are_neighbours(pattern) else [*middle, lead, *kept]
        return _Batch(trimmed((FULL, *pattern)), operands, come, wanted)

    entries, new = list(pattern), []
    for v, b, k in zip(operands, batched, owners):
        if b:
            if isinstance(entries[k], Slice):
                return None  # parts of different lengths
            entries[k] = Array()
            v = dimshuffle(v, 0, *["x"] * (width + 1 - v.ndim), *range(1, v.ndim))
        new.append(v)
    if not x_batched:
        at = len(kept_entries(tuple(entries))[0])
        come = [*kept[:at], lead, *middle, *kept[at:]]
    else:
        entries = [Array(), *entries]
        new = [dimshuffle(Variable.operations["arange"](n), 0, *["x"] * width), *new]
        come = [lead, *middle, *kept]
    return _Batch(trimmed(tuple(entries)), new, come, wanted)


def _batched_read(
    pattern: Pattern, inputs: Sequence[Variable], batched: Sequence[bool], n: Variable
) -> Variable | None:
    x, *operands = inputs
    index = _batched(pattern, x.ndim - batched[0], operands, batched[1:], batched[0], n)
    if index is None:
        return None
    op = AdvancedSubtensor if is_advanced(index.pattern) else Subtensor
    return dimshuffle(op(index.pattern)(x, *index.operands), *map(index.come.index, index.wanted))


def _batched_write(
    op: IncSubtensor | AdvancedIncSubtensor,
    inputs: Sequence[Variable],
    batched: Sequence[bool],
    n: Variable,
) -> Variable | None:
    x, y, *operands = inputs
    index = _batched(op.pattern, x.ndim - batched[0], operands, batched[2:], True, n)
    if index is None:
        return None
    x = x if batched[0] else broadcast_to(x, [n, *dims(x)])
    y = y if batched[1] else dimshuffle(y, "x", *range(y.ndim))
    y = dimshuffle(y, *map(index.wanted.index, index.come))
    kind = AdvancedIncSubtensor if is_advanced(index.pattern) else IncSubtensor
    return kind(index.pattern, op.set)(x, y, *index.operands)
