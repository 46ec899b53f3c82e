"""Indexing: x[...], and x with a part of it set or added to. `patterns` says what an index is."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..graph import Constant, Op, Variable, constant_leaf
from ..record import record
from ..types import FLOATS, TensorType, shape_text
from .convert import as_tensor, constant_value, static_int
from .elemwise import cast, unbroadcast_to, zeros_like
from .patterns import (
    FULL,
    HOLE,
    Array,
    At,
    Entry,
    NewAxis,
    Pattern,
    Slice,
    are_neighbours,
    check_position,
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
from .scalar import clip
from .shape import (
    DimShuffle,
    MakeVector,
    Reshape,
    Specify,
    as_int64,
    broadcast_to,
    dim,
    dims,
    dimshuffle,
    reshape,
    specify,
    vector_of,
    with_ones,
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

    def last_axis_slice(self, ndim: int) -> tuple[int, int] | None:
        """(start, stop) where this is x[..., start:stop] of a tensor of ndim dimensions with
        positions that are fixed and count from the front, otherwise None."""
        if len(self.pattern) != ndim or any(e != FULL for e in self.pattern[:-1]):
            return None
        match self.pattern[-1]:
            case Slice(None | int() as start, int(stop), None) if (start or 0) >= 0 <= stop:
                return start or 0, stop
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


def _check_fit(y: Any, known: Sequence[int | None], shape: Sequence[int]) -> None:
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
            _check_fit(y, known, part.shape)
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
        known = node.inputs[1].type.shape
        if not self.set:
            return self.adder(node, _add_rows)
        index_of = indexer(self.pattern, node.inputs[2:])

        def run(x: Any, y: Any, *operands: Any) -> Any:
            index = index_of(operands)
            out = np.array(x, order="C")
            _check_fit(y, known, out[index].shape)
            out[index] = y
            return out

        return run

    def adder(self, node: Variable, add: Callable[[Any, Any, Any], None]) -> Callable[..., Any]:
        """The evaluator of an addition by `add(out, rows, y)`, which adds the rows of the matrix
        y, one after another, to those rows of the matrix out."""
        known, places = node.inputs[1].type.shape, self.places(node)

        def run(x: Any, y: Any, *operands: Any) -> Any:
            rows, shape, width = places(x.shape, operands)
            _check_fit(y, known, shape)
            out = np.array(x, order="C")
            y = np.broadcast_to(y, shape).reshape(rows.size, width)
            add(out.reshape(-1, width) if width else out.reshape(0, 0), rows, y)
            return out

        return run

    def places(self, node: Variable) -> Callable[[Sequence[int], Sequence[Any]], Any]:
        """A function of x's shape and the integers: which rows of x, as a matrix, are written,
        the shape of what is written there, and how wide a row is."""
        index_of = indexer(self.pattern, node.inputs[2:])
        reached = sum(not isinstance(e, NewAxis) for e in self.pattern)

        def found(sizes: Sequence[int], operands: Sequence[Any]) -> Any:
            lead, tail = tuple(sizes[:reached]), tuple(sizes[reached:])
            rows = np.arange(math.prod(lead)).reshape(lead)[index_of(operands)]
            return rows.reshape(-1), rows.shape + tail, math.prod(tail)

        return found

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return _write_pullback(self, AdvancedSubtensor(self.pattern), inputs, output, g)

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return dims(inputs[0])

    def batch(
        self, inputs: Sequence[Variable], batched: Sequence[bool], n: Variable
    ) -> Variable | None:
        return _batched_write(self, inputs, batched, n)


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


# ---- what users write -----------------------------------------------------------------------


@record
class Nonzero(Op):
    """The positions of the nonzero elements, in row-major order: an int64 matrix with a row an
    axis. Sizes that follow as inputs are those of what a mask indexes: they must agree."""

    def connection(self, node: Variable) -> Sequence[bool]:
        return [False] * len(node.inputs)

    def infer(self, x: TensorType, *sizes: TensorType) -> TensorType:
        if x.ndim == 0:
            raise ValueError("Nonzero only supports non-scalar arrays.")
        return TensorType("int64", (x.ndim, None))

    def eval(self, x: Any, *sizes: Any) -> Any:
        if sizes and x.shape != sizes:
            raise IndexError(
                f"a boolean mask of shape {x.shape} can't index axes of sizes "
                f"{tuple(int(s) for s in sizes)}"
            )
        return np.array(np.nonzero(x), "int64")

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return [None] * len(inputs)


def getitem(x: Any, index: Any) -> Variable:
    """x[index] by NumPy's rules: integers, slices, None, ..., integer arrays, boolean masks and
    lists, all of which may be symbolic.

    Raises TypeError for an index that is not an integer, IndexError for too many indices and
    for a position that is known to be out of range.
    """
    x = as_tensor(x)
    if isinstance(index, list) and any(isinstance(part, slice) for part in index):
        index = tuple(index)  # as in older NumPy
    entries = _expanded(x, index if isinstance(index, tuple) else (index,))
    if any(isinstance(e, Variable) and e.ndim for e in entries):
        pattern, operands = _cut(x, entries)
        return AdvancedSubtensor(trimmed(pattern))(x, *operands)
    pattern, operands = _cut(x, [e for e in entries if e is not None])
    part = _part_of_vector(x, pattern)
    if None not in entries:
        return Subtensor(trimmed(pattern))(x, *operands) if part is None else part
    if part is None:
        pattern = trimmed(pattern)
        part = Subtensor(pattern)(x, *operands) if pattern else x
    axes: list[Any] = []
    for e in entries:
        if e is None:
            axes.append("x")
        elif isinstance(e, slice):
            axes.append(sum(a != "x" for a in axes))
    return dimshuffle(part, *axes)


def _part_of_vector(x: Variable, pattern: Pattern) -> Variable | None:
    """Of a vector made of int64 scalars, a shape above all: the scalar, or a shorter vector."""
    if not isinstance(x.op, MakeVector) or x.dtype != "int64" or holes(pattern):
        return None
    (at,) = fill(pattern, ())
    check_position(at, len(x.inputs), 0)
    part = x.inputs[at]
    return part if isinstance(part, Variable) else vector_of(part)


def _expanded(x: Variable, index: tuple[Any, ...]) -> list[Any]:
    """An entry for each axis: an int, a slice, an integer variable, or None for a new axis."""
    entries: list[Any] = []
    for part in index:
        if part is None or part is Ellipsis or isinstance(part, slice):
            entries.append(part)
        elif isinstance(part, bool | np.bool_):
            raise TypeError(
                "TensorType does not support Python bools for indexing. To use a boolean mask, "
                "give an array of bools with x's dimensions."
            )
        else:
            entries.append(_integers(part))
    if sum(e is Ellipsis for e in entries) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    used = 0
    for e in entries:
        if e is not None and e is not Ellipsis:
            used += e.ndim if isinstance(e, Variable) and e.dtype == "bool" else 1
    if used > x.ndim:
        raise IndexError(f"too many indices for {x}: it has {x.ndim} dimensions, not {used}")
    rest = [slice(None)] * (x.ndim - used)
    at = next((k for k, e in enumerate(entries) if e is Ellipsis), len(entries))
    return list(_without_masks(x, [*entries[:at], *rest, *entries[at + 1 :]]))


def _integers(part: Any) -> Any:
    """One position or an array of them, as an int or a variable."""
    if isinstance(part, list | tuple) and not len(part):
        part = np.zeros(0, "int64")
    v = as_tensor(part)
    if v.dtype in FLOATS or (v.ndim == 0 and v.dtype == "bool"):
        raise TypeError(f"an index must be an integer, a slice or a mask, got {part} ({v.type})")
    if v.ndim:
        return v
    known = static_int(v)
    return as_int64(v) if known is None else known


def _without_masks(x: Variable, entries: Sequence[Any]) -> Iterator[Any]:
    """The entries with a boolean mask replaced by the positions that it selects."""
    axis = 0
    for e in entries:
        if not (isinstance(e, Variable) and e.dtype == "bool"):
            yield e
            axis += e is not None
            continue
        for i, (have, want) in enumerate(zip(e.type.shape, x.type.shape[axis:])):
            if have is not None and want is not None and have != want:
                raise IndexError(
                    f"a boolean mask of shape {shape_text(e.type.shape)} can't index {x}, "
                    f"whose axis {axis + i} has size {want}"
                )
        value = constant_value(e)
        sizes = [dim(x, axis + i) for i in range(e.ndim)]
        if value is not None and all(isinstance(s, Constant) for s in sizes):
            yield from map(as_tensor, np.nonzero(value))
        else:
            positions = Nonzero()(e, *sizes)
            yield from (positions[i] for i in range(e.ndim))
        axis += e.ndim


def _cut(x: Variable, entries: Sequence[Any]) -> tuple[Pattern, list[Variable]]:
    """The pattern and the operands; what means the same is written the same."""
    pattern: list[Entry] = []
    operands: list[Variable] = []
    axis = 0
    for e in entries:
        if e is None:
            pattern.append(NewAxis())
            continue
        if isinstance(e, slice):
            bounds = _plain(x, axis, e)
            operands += [b for b in bounds if isinstance(b, Variable)]
            pattern.append(Slice(*(HOLE if isinstance(b, Variable) else b for b in bounds)))
        elif isinstance(e, int):
            pattern.append(At(e))
        else:
            value = constant_value(e)
            if value is not None and value.size:
                for i in (value.min(), value.max()):
                    check_position(int(i), x.type.shape[axis], axis)
            pattern.append(Array() if e.ndim else At(HOLE))
            operands.append(e)
        axis += 1
    return tuple(pattern), operands


def _bound(b: Any) -> Any:
    """A bound of a slice as an int, a variable or None."""
    if b is None:
        return None
    v = as_tensor(b)
    if v.ndim or v.dtype in FLOATS or v.dtype == "bool":
        raise TypeError(f"a slice's bound must be an integer, got {b} ({v.type})")
    known = static_int(v)
    return as_int64(v) if known is None else known


def _plain(x: Variable, axis: int, part: slice) -> tuple[Any, Any, Any]:
    """The slice's bounds in the simplest form that means the same."""
    start, stop, step = _bound(part.start), _bound(part.stop), _bound(part.step)
    if isinstance(step, int) and step == 0:
        raise ValueError("slice step cannot be zero")
    size = x.type.shape[axis]
    if size is not None and not any(isinstance(b, Variable) for b in (start, stop, step)):
        return _shortest(range(size)[slice(start, stop, step)], size)
    if isinstance(step, int) and step == 1:
        step = None
    if step is None or (isinstance(step, int) and step > 0):
        if isinstance(start, int) and start == 0:
            start = None
        if (isinstance(stop, int) and stop >= sys.maxsize) or stop is dim(x, axis):
            stop = None
    elif isinstance(step, int) and isinstance(start, int) and start == -1:
        start = None
    return start, stop, step


def _shortest(taken: range, size: int) -> tuple[int | None, int | None, int | None]:
    """The bounds of a slice of an axis of known size, from the positions that it takes."""
    if not len(taken):
        return (None, None if size == 0 else 0, None)
    first, last = taken[0], taken[-1]
    step = taken.step if len(taken) > 1 else 1
    if step < 0:
        return None if first == size - 1 else first, last - 1 if last else None, step
    whole = len(taken) == size
    return first or None, None if whole else last + 1, None if step == 1 else step


def user_index(part: Variable) -> tuple[Any, ...]:
    """The index of a Subtensor or AdvancedSubtensor as a user writes it: getitem(x, it) builds
    the node again, in a simpler form where an operand has become a constant."""
    return fill(part.op.pattern, part.inputs[1:])  # type: ignore[attr-defined]


def take(a: Any, indices: Any, axis: int | None = None, mode: str = "raise") -> Variable:
    """The elements at `indices` (an integer tensor of any shape) along an axis; None: of the
    flattened tensor. mode says what becomes of a position out of range: 'raise' an IndexError,
    'clip' the nearest, 'wrap' the remainder."""
    a, indices = as_tensor(a), as_tensor(indices)
    if indices.dtype in FLOATS or indices.dtype == "bool":
        raise TypeError(f"take: the indices must be integers, got {indices.type}")
    if axis is None:
        a, axis = reshape(a, [-1], ndim=1), 0
    if not -a.ndim <= axis < a.ndim:
        raise ValueError(f"take: axis {axis} of {a}, which has {a.ndim} dimensions")
    axis %= a.ndim
    if mode == "clip":
        indices = clip(cast(indices, "int64"), 0, dim(a, axis) - 1)
    elif mode == "wrap":
        indices = cast(indices, "int64") % dim(a, axis)
    elif mode != "raise":
        raise ValueError(f"take: mode is 'raise', 'clip' or 'wrap', not {mode!r}")
    return getitem(a, (slice(None),) * axis + (indices,))


def set_subtensor(
    x: Any, y: Any, inplace: bool = False, tolerate_inplace_aliasing: bool = False
) -> Variable:
    """What `a[index] = y` leaves of a, for x = a[index]; a itself does not change. y broadcasts
    to x. Raises TypeError where x is no indexing, ValueError where y does not fit."""
    return inc_subtensor(x, y, inplace, True, tolerate_inplace_aliasing)


def inc_subtensor(
    x: Any,
    y: Any,
    inplace: bool = False,
    set_instead_of_inc: bool = False,
    tolerate_inplace_aliasing: bool = False,
) -> Variable:
    """What `a[index] += y` leaves of a, for x = a[index]; a itself does not change. A position
    that the index meets several times gets every addition. y broadcasts to x.

    `inplace` is Theano's and has no effect: storage is the scheduler's. Raises TypeError where
    x is no indexing, ValueError where y does not fit.
    """
    x = as_tensor(x)
    y = _value(as_tensor(y), x)
    match x.op:
        case Subtensor():
            op: Op = IncSubtensor(x.op.pattern, set_instead_of_inc)
            return op(x.inputs[0], y, *x.inputs[1:])
        case AdvancedSubtensor():
            op = AdvancedIncSubtensor(x.op.pattern, set_instead_of_inc)
            return op(x.inputs[0], y, *x.inputs[1:])
        case DimShuffle():
            back: list[Any] = ["x"] * x.inputs[0].ndim
            for i, p in enumerate(x.op.pattern):
                if p != "x":
                    back[int(p)] = i
            y = dimshuffle(y, *back)
        case Reshape():
            y = reshape(broadcast_to(y, dims(x)), dims(x.inputs[0]), ndim=x.inputs[0].ndim)
        case Specify():
            pass
        case _:
            raise TypeError(
                f"x must be the result of a subtensor operation, got {x} ({x.type}): write "
                "set_subtensor(a[index], y)"
            )
    return inc_subtensor(x.inputs[0], y, set_instead_of_inc=set_instead_of_inc)


def _value(y: Variable, part: Variable) -> Variable:
    """y as it is written to a part: of its dtype and dimensions."""
    if y.ndim > part.ndim:
        raise TypeError(
            f"Trying to increment a {part.ndim}-dimensional subtensor with a "
            f"{y.ndim}-dimensional value."
        )
    if not np.can_cast(y.dtype, part.dtype, "same_kind"):
        raise TypeError(f"a {y.dtype} value can't be put in a {part.dtype} tensor: cast it first")
    y = dimshuffle(cast(y, part.dtype), *["x"] * (part.ndim - y.ndim), *range(y.ndim))
    return with_ones(y, [i for i, s in enumerate(part.type.shape) if s == 1])
