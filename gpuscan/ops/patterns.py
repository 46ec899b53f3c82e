"""What an index says, apart from the tensor that it is applied to.

An index is cut in two. What is fixed when the graph is built is a *pattern*, a tuple of entries;
what is symbolic fills the pattern's holes: the operands. Axes that the pattern does not reach
are taken whole.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from ..graph import Variable
from ..record import record
from ..types import FLOATS, TensorType, broadcast_shapes, shape_text
from .convert import static_int
from .scalar import lt, maximum, minimum, switch
from .shape import Dim, as_int64, dim, dims


class Hole(enum.Enum):
    """The place of an operand in a pattern."""

    HOLE = "?"


HOLE: Final = Hole.HOLE
Bound = int | Hole | None


@record
class At:
    """One position of an axis, which is dropped."""

    index: int | Hole


@record
class Slice:
    """A part of an axis."""

    start: Bound = None
    stop: Bound = None
    step: Bound = None


@record
class Array:
    """Positions of an axis given by an integer array, an operand."""


@record
class NewAxis:
    """A new axis of size 1."""


Entry = At | Slice | Array | NewAxis
Pattern = tuple[Entry, ...]
FULL: Final = Slice()


def fill(pattern: Pattern, operands: Sequence[Any]) -> tuple[Any, ...]:
    """The index as NumPy writes it, with the operands in the holes."""
    rest = iter(operands)

    def bound(b: Bound) -> Any:
        return next(rest) if b is HOLE else b

    index: list[Any] = []
    for entry in pattern:
        match entry:
            case At(i):
                index.append(bound(i))
            case Slice(start, stop, step):
                index.append(slice(bound(start), bound(stop), bound(step)))
            case Array():
                index.append(next(rest))
            case NewAxis():
                index.append(None)
    return tuple(index)


def holes(pattern: Pattern) -> list[int]:
    """Per operand, the position in the pattern of the entry that it belongs to."""
    owners: list[int] = []
    for k, entry in enumerate(pattern):
        match entry:
            case At(i):
                owners += [k] * (i is HOLE)
            case Slice(start, stop, step):
                owners += [k] * (start, stop, step).count(HOLE)
            case Array():
                owners.append(k)
    return owners


def extended(pattern: Pattern, ndim: int) -> Pattern:
    """The pattern with an entry for every axis of a tensor of ndim dimensions."""
    used = sum(not isinstance(e, NewAxis) for e in pattern)
    return pattern + (FULL,) * (ndim - used)


def is_advanced(pattern: Pattern) -> bool:
    return any(isinstance(e, Array) for e in pattern)


def kept_entries(pattern: Pattern) -> tuple[list[int], list[int]]:
    """The entries that give an axis of their own, before and after the axes of the index arrays.

    NumPy's rule: the arrays' axes stand where the arrays stand if these are neighbours (an
    integer counts as an array then), otherwise first.
    """
    own = [k for k, e in enumerate(pattern) if isinstance(e, Slice | NewAxis)]
    if not is_advanced(pattern) or not are_neighbours(pattern):
        return [], own
    first = next(k for k, e in enumerate(pattern) if isinstance(e, At | Array))
    return [k for k in own if k < first], [k for k in own if k > first]


def are_neighbours(pattern: Pattern) -> bool:
    """Whether nothing stands between the index arrays; so where there are none."""
    arrays = [k for k, e in enumerate(pattern) if isinstance(e, At | Array)]
    return not is_advanced(pattern) or arrays[-1] - arrays[0] < len(arrays)


def trimmed(pattern: Pattern) -> Pattern:
    """The pattern without whole axes at its end."""
    while pattern and pattern[-1] == FULL:
        pattern = pattern[:-1]
    return pattern


def axis_of(pattern: Pattern, k: int) -> int:
    """The axis of the indexed tensor that entry k is about."""
    return sum(not isinstance(e, NewAxis) for e in pattern[:k])


# ---- the length of a slice ------------------------------------------------------------------
# Integers stay Python's, so that what is known costs no graph.

Size = Any  # int | Variable


def _most(a: Size, b: Size) -> Size:
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    return a if a is b else maximum(a, b)


def _least(a: Size, b: Size) -> Size:
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    return a if a is b else minimum(a, b)


def _position(i: Size, n: Size, low: int, high: Size) -> Size:
    """A slice's bound as a position within low .. high: negative ones count from the end."""
    if isinstance(i, int):
        return _least(i, high) if i >= 0 else _most(n + i, low)
    if isinstance(i.op, Dim):
        return _least(i, high)
    return _least(_most(switch(lt(i, 0), n + i, i), low), high)


def _span(n: Size, part: slice, step: Size, forward: bool) -> Size:
    if forward:
        first = 0 if part.start is None else _position(part.start, n, 0, n)
        last = n if part.stop is None else _position(part.stop, n, 0, n)
        span, stride = last - first, step
    else:
        first = n - 1 if part.start is None else _position(part.start, n, -1, n - 1)
        last = -1 if part.stop is None else _position(part.stop, n, -1, n - 1)
        span, stride = first - last, -step
    if part.start is not None and part.stop is not None:
        span = _most(span, 0)
    if isinstance(stride, int) and stride == 1:
        return span
    return (span + (stride - 1)) // stride


def slice_length(size: Size, part: slice) -> Size:
    """How many elements a slice takes from an axis: Python's rule, on ints or int64 scalars."""
    size = static_int(size) if static_int(size) is not None else size
    step = 1 if part.step is None else part.step
    if part.start is None and part.stop is None and isinstance(step, int) and abs(step) == 1:
        return size
    if part == slice(None) or isinstance(step, int):
        return _span(size, part, step, step > 0)
    upward = lt(0, step)
    return switch(upward, _span(size, part, step, True), _span(size, part, step, False))


def _known_length(size: int | None, part: slice) -> int | None:
    """The same from types: an operand's type stands for an unknown bound."""
    bounds = (part.start, part.stop, part.step)
    if part == slice(None):
        return size
    if part.step is None and part.start is None and part.stop == 0:
        return 0
    if size is None or any(isinstance(b, TensorType) for b in bounds):
        return None
    return len(range(*part.indices(size)))


# ---- what an index takes ---------------------------------------------------------------------


def part_type(pattern: Pattern, x: TensorType, operands: Sequence[TensorType]) -> TensorType:
    """The type of x[index]. Raises TypeError, IndexError."""
    used = sum(not isinstance(e, NewAxis) for e in pattern)
    if used > x.ndim:
        raise IndexError(f"too many indices: {used} for a tensor of {x.ndim} dimensions")
    pattern = extended(pattern, x.ndim)
    owners = holes(pattern)
    if len(owners) != len(operands):
        raise TypeError(f"the index has {len(owners)} symbolic parts, {len(operands)} were given")
    arrays: list[TensorType] = []
    for k, operand in zip(owners, operands):
        if operand.dtype in FLOATS or operand.dtype == "bool":
            raise TypeError(f"an index must be an integer, got {operand}")
        if isinstance(pattern[k], Array):
            arrays.append(operand)
        elif operand != TensorType("int64"):
            raise TypeError(f"an index or a slice's bound is an int64 scalar, got {operand}")
    index = fill(pattern, operands)
    for k, entry in enumerate(pattern):
        if isinstance(entry, At):
            size = x.shape[axis_of(pattern, k)]
            check_position(entry.index, size, axis_of(pattern, k))

    def size_of(k: int) -> int | None:
        if isinstance(pattern[k], NewAxis):
            return 1
        return _known_length(x.shape[axis_of(pattern, k)], index[k])

    before, after = kept_entries(pattern)
    try:
        middle = broadcast_shapes(_padded([a.shape for a in arrays], 1)) if arrays else ()
    except ValueError:
        raise IndexError(
            "index arrays of shapes "
            + ", ".join(shape_text(a.shape) for a in arrays)
            + " don't broadcast together"
        ) from None
    return TensorType(x.dtype, (*map(size_of, before), *middle, *map(size_of, after)))


def check_position(i: Any, size: int | None, axis: int) -> None:
    if isinstance(i, int) and size is not None and not -size <= i < size:
        raise IndexError(f"index {i} is out of bounds for axis {axis} with size {size}")


def _padded(shapes: Sequence[Sequence[Any]], one: Any) -> list[tuple[Any, ...]]:
    ndim = max(map(len, shapes))
    return [(one,) * (ndim - len(s)) + tuple(s) for s in shapes]


def part_sizes(pattern: Pattern, x: Variable, operands: Sequence[Variable]) -> list[Variable]:
    """The sizes of x[index], as int64 scalars."""
    pattern = extended(pattern, x.ndim)
    index = fill(pattern, operands)

    def size_of(k: int) -> Variable:
        if isinstance(pattern[k], NewAxis):
            return as_int64(1)
        return as_int64(slice_length(dim(x, axis_of(pattern, k)), index[k]))

    before, after = kept_entries(pattern)
    arrays = [i for e, i in zip(pattern, index) if isinstance(e, Array)]
    middle = []
    if arrays:
        for sizes in zip(*_padded([dims(a) for a in arrays], as_int64(1))):
            middle.append(next((s for s in sizes if static_int(s) != 1), sizes[0]))
    return [*map(size_of, before), *middle, *map(size_of, after)]


def indexer(pattern: Pattern, operands: Sequence[Variable]) -> Callable[[Sequence[Any]], Any]:
    """From the operands' values to NumPy's index. Raises IndexError where arrays don't fit: only
    a size that is known to be 1 broadcasts."""
    arrays = [i for i, k in enumerate(holes(pattern)) if isinstance(pattern[k], Array)]
    if len(arrays) < 2:
        return lambda values: fill(pattern, values)
    known = _padded([operands[i].type.shape for i in arrays], 1)

    def index(values: Sequence[Any]) -> tuple[Any, ...]:
        shapes = [np.shape(values[i]) for i in arrays]
        if any(s != shapes[0] for s in shapes):
            for sizes, types in zip(zip(*_padded(shapes, 1)), zip(*known)):
                if len({s for s, t in zip(sizes, types) if t != 1}) > 1:
                    raise IndexError(
                        f"index arrays of shapes {', '.join(map(str, shapes))} don't broadcast "
                        "together: only a size that is known to be 1 does"
                    )
        return fill(pattern, values)

    return index


def entry_text(entry: Entry) -> str:
    def bound(b: Bound) -> str:
        return "" if b is None else "?" if b is HOLE else str(b)

    match entry:
        case At(i):
            return bound(i)
        case Slice(start, stop, step):
            tail = "" if step is None else f":{bound(step)}"
            return f"{bound(start)}:{bound(stop)}{tail}"
        case Array():
            return "[?]"
    return "None"
