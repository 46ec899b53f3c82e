"""Indexing as users write it: x[...], take, set_subtensor and inc_subtensor."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..graph import Constant, Op, Variable
from ..record import record
from ..types import FLOATS, TensorType, shape_text
from .convert import as_tensor, constant_value, static_int
from .elemwise import cast
from .index import AdvancedIncSubtensor, AdvancedSubtensor, IncSubtensor, Subtensor
from .patterns import (
    HOLE,
    Array,
    At,
    Entry,
    NewAxis,
    Pattern,
    Slice,
    check_position,
    fill,
    holes,
    trimmed,
)
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
    vector_of,
    with_ones,
)


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
