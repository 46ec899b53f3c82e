"""Where an element of an indexed tensor comes from, and where one goes: for kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..graph import Variable
from .patterns import HOLE, At, NewAxis, Pattern, Slice, extended, fill


def positions_read(
    pattern: Pattern, index: Sequence[Any], operands: Sequence[Any]
) -> list[Any] | None:
    """The position in x of an element of x[pattern]; `operands` are x, then what fills the
    holes. None where a slice's start or step is not a constant."""
    x, *symbolic = operands
    entries = extended(pattern, len(x.sizes))
    index_of = iter(index)
    found: list[Any] = []
    filled = fill(entries, [s.at([]) for s in symbolic])
    for entry, part in zip(entries, filled):
        size: Any = None if isinstance(entry, NewAxis) else x.sizes[len(found)]
        match entry:
            case NewAxis():
                next(index_of)
            case At():
                found.append(x.checked(part, size))
            case Slice(None | int() as start, stop, None | int() as step):
                step = step or 1
                if step < 0 and (start is not None or stop is HOLE):
                    return None
                first: Any = start or 0
                if step < 0:
                    first = size - 1
                elif first < 0:
                    first = (size < -first).choose(0, size + first)
                found.append(next(index_of) * step + first)
            case _:
                return None
    return found


def positions_written(
    pattern: Pattern, index: Sequence[Any], node: Variable, operand: Any
) -> tuple[Any, list[Any]] | None:
    """For an element of x (`operand`) with y written into x[pattern]: whether it is one of y's,
    and which.
    None where the pattern has symbolic parts or steps."""
    x, value = node.inputs[:2]
    inside: Any = None
    position: list[Any] = []
    for axis, (entry, i) in enumerate(zip(extended(pattern, x.ndim), index)):
        match entry:
            case At(int(k)):
                place = operand.checked(k, operand.sizes[axis])
                here = (i <= place) & (i >= place)
            case Slice(None, None, None):
                position.append(i)
                continue
            case Slice(None | int() as start, None | int() as stop, None | 1):
                start = start or 0
                if start < 0 or (stop is not None and stop < 0):
                    return None
                position.append(i - start)
                here = i >= start
                if stop is not None:
                    here = here & (i < stop)
            case _:
                return None
        inside = here if inside is None else inside & here
    if inside is None:
        return None
    own = position[len(position) - value.ndim :]
    sizes = value.type.shape
    return inside, [0 if s == 1 else p for p, s in zip(own, sizes)]
