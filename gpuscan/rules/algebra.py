"""Algebra that changes no value: neutral elements, constants, identities, casts, views."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ..evaluate import Program
from ..graph import Constant, Item, Variable, constant_leaf
from ..ops.control import Derived, DisconnectedGrad, GradClip, GradScale, UndefinedGrad, ZeroGrad
from ..ops.elemwise import Elemwise, cast
from ..ops.index import IncSubtensor, Subtensor
from ..ops.patterns import FULL, Entry, Slice, trimmed
from ..ops.reduce import Reduce
from ..ops.scalar import (
    add,
    identity,
    inv,
    maximum,
    minimum,
    mul,
    neg,
    pow,
    sqrt,
    sub,
    switch,
    true_div,
)
from ..ops.shape import (
    BroadcastTo,
    Dim,
    DimShuffle,
    FirstRows,
    Join,
    Reshape,
    Specify,
    broadcast_to,
    dim,
    dims,
    dimshuffle,
    is_size,
    number,
    specify,
)
from ..rewrite import Rules, rule
from ..types import TensorType
from .shapes import pushed_dims

_FOLDED = 4096  # elements; a constant result up to this size is computed when compiling


def stands_for(x: Variable, v: Variable) -> Variable | None:
    """x in the place of v: broadcast to v's shape; None where x has another dtype."""
    if x.dtype != v.dtype:
        return None
    if x.type.broadcastable == v.type.broadcastable:
        return specify(x, tuple(a if b is None else b
                                for a, b in zip(x.type.shape, v.type.shape)))  # fmt: skip
    sizes = v.op.sizes(v.inputs, v)
    return None if sizes is None else specify(broadcast_to(x, sizes), v.type.shape)


@rule(Elemwise)
def neutral(v: Variable) -> Variable | None:
    """x + 0, 0 + x, x - 0, x * 1, 1 * x, x / 1 are x; 0 - x is -x; x * 0 is 0 for
    integers."""
    s = v.op.scalar  # type: ignore[attr-defined]
    if s not in (add, sub, mul, true_div) or v.dtype == "bool":
        return None
    a, b = v.inputs
    p, q = number(a), number(b)
    if s is add and (p == 0 or q == 0):
        return stands_for(b if p == 0 else a, v)
    if s is sub and q == 0:
        return stands_for(a, v)
    if s is sub and p == 0 and v.dtype != "bool":
        return stands_for(neg(b), v)
    if s is mul and (p == 1 or q == 1):
        return stands_for(b if p == 1 else a, v)
    if s is mul and (p == 0 or q == 0) and not v.type.is_float:  # NaN * 0 is NaN
        return stands_for(constant_leaf(np.zeros((1,) * v.ndim, v.dtype)), v)
    if s is true_div and q == 1:
        return stands_for(a, v)
    return None


@rule(Elemwise)
def small_powers(v: Variable) -> Variable | None:
    """x ** 2 is x * x, x ** 1 is x, x ** 0 is 1, x ** 0.5 is sqrt(x), x ** -1 is 1 / x."""
    if v.op.scalar is not pow or not v.type.is_float:  # type: ignore[attr-defined]
        return None
    x, y = v.inputs
    match number(y):
        case 2:
            return stands_for(x * x, v)
        case 1:
            return stands_for(x, v)
        case 0:
            return stands_for(constant_leaf(np.ones((1,) * v.ndim, v.dtype)), v)
        case 0.5:
            return stands_for(sqrt(x), v)
        case -1:
            return stands_for(inv(x), v)
    return None


def _affine(v: Variable) -> tuple[Variable | None, int]:
    """An integer scalar as (x, c), x + c with a constant c; x is None for a constant."""
    offset = 0
    while not isinstance(v, Constant):
        if not isinstance(v.op, Elemwise) or v.op.scalar not in (add, sub):
            return v, offset
        (a, b), sign = v.inputs, 1 if v.op.scalar is add else -1
        if isinstance(b, Constant):
            v, offset = a, offset + sign * int(b.data)
        elif isinstance(a, Constant) and sign == 1:
            v, offset = b, offset + int(a.data)
        else:
            return v, offset
    return None, offset + int(v.data)


@rule(Elemwise)
def integer_arithmetic(v: Variable) -> Variable | None:
    """Sizes: (x + c) + d and d + (x + c) are x + (c + d), x + c - (x + d) is c - d, the smaller
    of x + c and x + d is known, and so is the larger of a size and 0."""
    s = v.op.scalar  # type: ignore[attr-defined]
    if s not in (add, sub, maximum, minimum) or v.ndim or v.dtype != "int64":
        return None
    (x, c), (y, d) = map(_affine, v.inputs)
    a, b = v.inputs
    match s.name:
        case "add" | "sub":
            if s is sub and x is y:
                return constant_leaf(np.asarray(c - d, "int64"))
            if x is not None and y is None and x is not a:
                offset = constant_leaf(np.asarray(c + d if s is add else c - d, "int64"))
                return x + offset
            if s is add and x is None and y is not None and y is not b:
                return y + constant_leaf(np.asarray(c + d, "int64"))
        case "maximum" | "minimum":
            if x is y:
                return a if (c > d) == (s is maximum) or c == d else b
            if s is maximum and x is None and c <= 0 and is_size(b):
                return b
            if s is maximum and y is None and d <= 0 and is_size(a):
                return a
            for inner, other in ((a, b), (b, a)):  # min(min(x, y), x)
                if isinstance(inner.op, Elemwise) and inner.op.scalar is s:
                    if other in inner.inputs:
                        return inner
    return None


@rule(Elemwise)
def double_negation(v: Variable) -> Variable | None:
    """-(-x) is x, and so is a copy of x."""
    if v.op.scalar is identity:  # type: ignore[attr-defined]
        return v.inputs[0]
    if v.op.scalar is neg:  # type: ignore[attr-defined]
        (x,) = v.inputs
        if isinstance(x.op, Elemwise) and x.op.scalar is neg:
            return x.inputs[0]
    return None


@rule(Elemwise)
def settled_choice(v: Variable) -> Variable | None:
    """A switch with a constant condition, or with equal branches."""
    if v.op.scalar is not switch:  # type: ignore[attr-defined]
        return None
    condition, a, b = v.inputs
    known = number(condition)
    if a is b:
        return stands_for(a, v)
    return None if known is None else stands_for(a if known else b, v)


@rule(Elemwise)
def cast_of_cast(v: Variable) -> Variable | None:
    """A cast back from a dtype that holds every value of the first."""
    if not v.op.label.startswith("cast_"):
        return None
    (x,) = v.inputs
    if x.dtype == v.dtype:
        return x
    if isinstance(x.op, Elemwise) and x.op.label.startswith("cast_"):
        inner = x.inputs[0]
        if np.can_cast(inner.dtype, x.dtype, "safe"):
            return cast(inner, v.dtype)
    return None


def is_large(v: Variable) -> bool:
    """Whether it has more elements than what is folded."""
    return bool(np.prod([s or 1 for s in v.type.shape], dtype=float) > _FOLDED)


def fold(v: Variable) -> Variable | None:
    """What is computed from constants is a constant, unless it is large."""
    if not isinstance(v.type, TensorType) or not v.inputs or isinstance(v.op, BroadcastTo | Item):
        return None
    if getattr(v.op, "has_effect", False) or getattr(v.op, "is_lazy", False):
        return None
    if not all(isinstance(i, Constant) for i in v.inputs):
        return None
    if is_large(v):
        return None
    try:
        with np.errstate(all="ignore"):
            (value,) = Program([], [v])()
    except Exception:
        return None  # it fails when the function runs, if it runs
    value = np.array(value)
    return constant_leaf(value) if value.size <= _FOLDED else None


def _identity_of_first(v: Variable) -> Variable | None:
    return v.inputs[0]


@rule(Specify)
def promise_kept(v: Variable) -> Variable | None:
    """A promise that adds nothing to what is known."""
    (x,) = v.inputs
    if all(s is None or s == t for s, t in zip(v.type.shape, x.type.shape)):
        return x
    return None


@rule(BroadcastTo)
def broadcast_to_itself(v: Variable) -> Variable | None:
    """A broadcast to the shape that the tensor has; a broadcast of a broadcast."""
    x, *sizes = v.inputs
    if x.ndim == len(sizes) and not any(
        a != b for a, b in zip(x.type.broadcastable, v.type.broadcastable)
    ):
        if pushed_dims(dims(x)) == pushed_dims(sizes):
            return x
    if isinstance(x.op, BroadcastTo):
        return broadcast_to(x.inputs[0], sizes)
    return None


@rule(Reshape)
def reshape_chain(v: Variable) -> Variable | None:
    """A reshape to the same shape, or of a reshape."""
    x, *sizes = v.inputs
    if x.ndim == len(sizes) and all(
        w is d or (len(sizes) == 1 and v.op.static == (-1,))  # type: ignore[attr-defined]
        for w, d in zip(pushed_dims(sizes), pushed_dims(dims(x)))
    ):
        return x
    if isinstance(x.op, Reshape):
        return Reshape(len(sizes), v.op.static)(x.inputs[0], *sizes)  # type: ignore[attr-defined]
    return None


@rule(DimShuffle)
def shuffle_chain(v: Variable) -> Variable | None:
    """A dimshuffle of a dimshuffle, or one that moves nothing."""
    (x,), pattern = v.inputs, v.op.pattern  # type: ignore[attr-defined]
    if isinstance(x.op, DimShuffle) or pattern == tuple(range(x.ndim)):
        return dimshuffle(x, *pattern)
    return None


@rule(Subtensor)
def whole_slice(v: Variable) -> Variable | None:
    """x[:n] where n is x's length; x[::-1][::-1]."""
    x, *operands = v.inputs
    match v.op.pattern:  # type: ignore[attr-defined]
        case ():
            return x
        case (Slice(None, stop, None),) if len(operands) == 1 and not isinstance(stop, int):
            if pushed_dims([dim(x, 0)]) == pushed_dims(operands):
                return x
            if (
                isinstance(x.op, Subtensor) and x.op.pattern == v.op.pattern  # type: ignore[attr-defined]
                and x.inputs[1:] == v.inputs[1:]
            ):  # fmt: skip
                return x
        case (Slice(None, None, -1),):
            if isinstance(x.op, Subtensor) and x.op.pattern == (Slice(None, None, -1),):
                return x.inputs[0]
    return None


@rule(Subtensor)
def slice_of_slice(v: Variable) -> Variable | None:
    """x[a:b][c:d] is x[a + c : min(a + d, b)], for bounds that count from the front."""
    (x, *operands), pattern = v.inputs, v.op.pattern  # type: ignore[attr-defined]
    if not isinstance(x.op, Subtensor) or operands or len(x.inputs) > 1:
        return None
    entries = [
        _cut_twice(first, then)
        for first, then in itertools.zip_longest(x.op.pattern, pattern, fillvalue=FULL)
    ]
    known = [e for e in entries if e is not None]
    if len(known) < len(entries):
        return None
    return specify(Subtensor(trimmed(tuple(known)))(x.inputs[0]), v.type.shape)


def _cut_twice(first: Entry, then: Entry) -> Slice | None:
    match first, then:
        case (
            Slice(None | int() as a, None | int() as b, None),
            Slice(None | int() as c, None | int() as d, None),
        ) if min(i or 0 for i in (a, b, c, d)) >= 0:
            start = (a or 0) + (c or 0)
            stops = [i for i in (b, None if d is None else (a or 0) + d) if i is not None]
            return Slice(start or None, min(stops, default=None))
    return None


@rule(Subtensor)
def flipped_join(v: Variable) -> Variable | None:
    """A flip of the first n rows of a few rows joined with n: the parts, cut and flipped, joined.
    That is one copy where a flip that is copied was another: a history read backwards."""
    x = v.inputs[0]
    if v.op.pattern != (Slice(None, None, -1),) or not isinstance(x.op, FirstRows):  # type: ignore[attr-defined]
        return None
    whole, n = x.inputs
    if not isinstance(whole.op, Join) or whole.op.axis or len(whole.inputs) != 2:
        return None
    a, b = whole.inputs
    few = a.type.shape[0]
    if few is None or pushed_dims([dim(b, 0)]) != pushed_dims([n]):
        return None
    rows = Join(0)(b[: maximum(n - few, 0)][::-1], a[:n][::-1])
    return specify(FirstRows()(rows, n), v.type.shape)


@rule(FirstRows)
def all_rows(v: Variable) -> Variable | None:
    """The first n rows of a tensor that has n rows."""
    x, n = v.inputs
    return x if pushed_dims([dim(x, 0)]) == pushed_dims([n]) else None


@rule(IncSubtensor)
def whole_write(v: Variable) -> Variable | None:
    """zeros[:n] set to y, or added to, where n is the whole length: y."""
    x, y, *operands = v.inputs
    pattern = v.op.pattern  # type: ignore[attr-defined]
    whole = all(e == FULL for e in pattern)
    match pattern:
        case (Slice(None | 0, stop, None),) if len(operands) == 1 and not isinstance(stop, int):
            whole = pushed_dims([dim(x, 0)]) == pushed_dims(operands)
    if not whole or y.type.broadcastable != v.type.broadcastable or y.dtype != v.dtype:
        return None
    if v.op.set or number(x) == 0:  # type: ignore[attr-defined]
        return specify(y, v.type.shape)
    return None


@rule(Elemwise)
def parts_joined(v: Variable) -> Variable | None:
    """A sum of zeros with parts written in, which do not overlap along the last axis, is the
    parts joined: what the gradient of an LSTM's gates comes to."""
    if v.op.scalar is not add or not v.ndim:  # type: ignore[attr-defined]
        return None
    parts: list[tuple[int, int, Variable]] = []
    for t in _summands(v):
        if (written := _written_parts(t)) is None:
            return None
        if any(y.type.broadcastable[:-1] != v.type.broadcastable[:-1] for _, _, y in written):
            return None
        parts += written
    parts.sort(key=lambda p: p[0])
    sizes = v.op.sizes(v.inputs, v)
    if len(parts) < 2 or sizes is None:
        return None

    def zeros(size: Any) -> Variable:
        return broadcast_to(constant_leaf(np.zeros((), v.dtype)), [*sizes[:-1], size])

    tensors, end = [], 0
    for start, stop, y in parts:
        if start < end:
            return None
        if start > end:
            tensors.append(zeros(start - end))
        tensors.append(specify(y, (*y.type.shape[:-1], stop - start)))
        end = stop
    if v.type.shape[-1] != end:  # zeros, where the parts do not fill the axis
        tensors.append(zeros(sizes[-1] - end))
    return specify(Join(v.ndim - 1)(*tensors), v.type.shape)


def _summands(v: Variable) -> list[Variable]:
    terms, stack = [], list(v.inputs)
    while stack:
        t = stack.pop()
        t = _promised(t)
        if isinstance(t.op, Elemwise) and t.op.scalar is add:
            stack += t.inputs
        else:
            terms.append(t)
    return terms


def _promised(v: Variable) -> Variable:
    """v before its sizes were promised."""
    while isinstance(v.op, Specify):
        v = v.inputs[0]
    return v


def _written_parts(t: Variable) -> list[tuple[int, int, Variable]] | None:
    """(start, stop, y) for each y in zeros that lies in start:stop of the last axis."""
    if (joined := _joined_parts(t)) is not None:
        return joined
    if not isinstance(t.op, IncSubtensor) or len(t.inputs) != 2 or number(t.inputs[0]) != 0:
        return None
    x, y = t.inputs
    pattern = t.op.pattern
    if len(pattern) != x.ndim or any(e != FULL for e in pattern[:-1]):
        return None
    if y.type.broadcastable[:-1] != x.type.broadcastable[:-1] or y.ndim != x.ndim:
        return None
    match pattern[-1]:
        case Slice(None | int() as start, None | int() as stop, None | 1):
            start, stop = start or 0, x.type.shape[-1] if stop is None else stop
            if stop is not None and 0 <= start < stop and y.type.shape[-1] in (None, stop - start):
                inner = _joined_parts(_promised(y)) or [(0, stop - start, y)]
                return [(start + a, start + b, part) for a, b, part in inner]
    return None


def _joined_parts(t: Variable) -> list[tuple[int, int, Variable]] | None:
    """`_written_parts` of parts and zeros joined."""
    if not isinstance(t.op, Join) or t.op.axis != t.ndim - 1:
        return None
    found: list[tuple[int, int, Variable]] = []
    end = 0
    for i, y in enumerate(t.inputs):
        size, zeros = y.type.shape[-1], number(y) == 0
        if size is None:
            return found if zeros and i == len(t.inputs) - 1 else None
        if not zeros:
            found.append((end, end + size, y))
        end += size
    return found


@rule(Reduce)
def sum_of_sum(v: Variable) -> Variable | None:
    """A sum over some axes of a sum over others is one sum."""
    (x,) = v.inputs
    op = v.op
    if not isinstance(x.op, Reduce) or op.kind != "sum" or x.op.kind != "sum":  # type: ignore[attr-defined]
        return None
    if x.op.dtype != op.dtype:  # type: ignore[attr-defined]
        return None
    left = [i for i in range(x.inputs[0].ndim) if i not in x.op.axes]
    axes = tuple(sorted([*x.op.axes, *(left[a] for a in op.axes)]))  # type: ignore[attr-defined]
    return Reduce("sum", axes, x.op.dtype)(x.inputs[0])


ALGEBRA = Rules(
    *[(op, _identity_of_first) for op in (
        Derived, UndefinedGrad, ZeroGrad, DisconnectedGrad, GradClip, GradScale,
    )],
    *[(op, fold) for op in (Elemwise, DimShuffle, Reshape, Subtensor, Reduce, Join, Dim)],
    neutral,
    small_powers,
    integer_arithmetic,
    double_negation,
    settled_choice,
    cast_of_cast,
    parts_joined,
    promise_kept,
    broadcast_to_itself,
    reshape_chain,
    shuffle_chain,
    whole_slice,
    slice_of_slice,
    flipped_join,
    all_rows,
    whole_write,
    sum_of_sum,
)  # fmt: skip
