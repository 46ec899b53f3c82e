"""Where an element of an indexed tensor comes from, and where one goes: for kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..graph import Variable
from .patterns import HOLE, Array, At, NewAxis, Pattern, Slice, extended, fill, kept_entries


def positions_read(
    pattern: Pattern, index: Sequence[Any], operands: Sequence[Any]
) -> list[Any] | None:
    """The position in x of an element of x[pattern]; `operands` are x, then what fills the
    holes. None where a slice's step is not a constant."""
    x, *symbolic = operands
    entries = extended(pattern, len(x.sizes))
    filled = fill(entries, symbolic)
    before, after = kept_entries(entries)
    arrays = [part for entry, part in zip(entries, filled) if isinstance(entry, Array)]
    width = max((len(a.sizes) for a in arrays), default=0)
    start, stop = len(before), len(before) + width
    own = dict(zip([*before, *after], [*index[:start], *index[stop:]]))
    found: list[Any] = []
    for k, (entry, part) in enumerate(zip(entries, filled)):
        size: Any = None if isinstance(entry, NewAxis) else x.sizes[len(found)]
        match entry:
            case At():
                found.append(x.checked(_value(part), size))
            case Array():
                place = index[stop - len(part.sizes) : stop]
                found.append(x.checked(part.at(place), size))
            case Slice():
                if entry.step is HOLE:
                    return None
                first, step, _ = _bounds(part, size)
                found.append(own[k] * step + first)
    return found


def positions_written(
    pattern: Pattern, index: Sequence[Any], node: Variable, operands: Sequence[Any]
) -> tuple[Any, list[Any]] | None:
    """For an element of x with y written into x[pattern]: whether it is one of y's (None: it
    is), and which. `operands` are x, y, then what fills the holes. None where a slice's step is
    not a constant."""
    x, _, *symbolic = operands
    entries = extended(pattern, len(index))
    inside: Any = None
    position: list[Any] = []
    for axis, (entry, part, i) in enumerate(zip(entries, fill(entries, symbolic), index)):
        size = x.sizes[axis]
        conditions: list[Any] = []
        match entry:
            case At():
                place = x.checked(_value(part), size)
                conditions = [i <= place, i >= place]
            case Slice():
                if entry.step is HOLE:
                    return None
                first, step, last = _bounds(part, size)
                away = i - first if step > 0 else first - i
                if not (isinstance(first, int) and first == 0 and step > 0):
                    conditions.append(away >= 0)
                if last is not None:
                    conditions.append(i < last if step > 0 else i > last)
                if abs(step) != 1:
                    conditions.append(away % abs(step) <= 0)
                    away = away // abs(step)
                position.append(away)
        for here in conditions:
            inside = here if inside is None else inside & here
    sizes = node.inputs[1].type.shape
    return inside, [0 if s == 1 else p for p, s in zip(position, sizes, strict=True)]


def _value(bound: Any) -> Any:
    """A position or bound: an int, None, or the value of an operand."""
    return bound if bound is None or isinstance(bound, int) else bound.at([])


def _bounds(part: slice, size: Any) -> tuple[Any, int, Any]:
    """First position, step, and the position that ends the slice (None: the axis ends it)."""
    start, stop, step = part.start, part.stop, part.step or 1
    if step > 0:
        first: Any = 0
        if start is not None:
            first = _from_front(start, size)
            if not _is_from_front(start):
                first = (first < 0).choose(0, first)
    elif start is None:
        first = size - 1
    else:
        first = _from_front(start, size)
        first = (size > first).choose(first, size - 1)
    return first, step, None if stop is None else _from_front(stop, size)


def _is_from_front(bound: Any) -> bool:
    """Whether a slice's bound plainly counts from the front."""
    return bound >= 0 if isinstance(bound, int) else bound.is_size


def _from_front(bound: Any, size: Any) -> Any:
    """A slice's bound counted from the front; one below zero may stay so."""
    i = _value(bound)
    if _is_from_front(bound):
        return i
    return size + i if isinstance(i, int) else (i < 0).choose(size + i, i)
