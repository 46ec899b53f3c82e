"""Tensors from sizes and numbers, and the same values in another arrangement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..config import config
from ..graph import Op, Variable
from ..record import record
from ..types import FLOATS, TensorType, dtype_name, float_dtype, promote
from .convert import as_tensor, constant, constant_value, static_int
from .elemwise import cast
from .indexing import getitem, inc_subtensor, set_subtensor
from .scalar import ceil, eq, ge, maximum, minimum, switch
from .shape import (
    as_int64,
    broadcast_to,
    concatenate,
    dim,
    dims,
    dimshuffle,
    join,
    product,
    reshape,
    sizes_list,
    specify,
    specify_shape,
    with_ones,
)


def _size(value: Any) -> Any:
    """A size as an int where it is known, otherwise as an int64 scalar."""
    known = static_int(value)
    return as_int64(value) if known is None else known


def _axis(axis: int, ndim: int, what: str) -> int:
    if not -ndim <= axis < ndim:
        raise ValueError(f"{what}: axis {axis} of a tensor with {ndim} dimensions")
    return axis % ndim


def _least(a: Any, b: Any) -> Any:
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else minimum(a, b)


def _most(a: Any, b: Any) -> Any:
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else maximum(a, b)


# ---- filled ---------------------------------------------------------------------------------


def alloc(value: Any, *shape: Any) -> Variable:
    """`value` broadcast to a shape: ints, symbolic integers, or one list or vector of them."""
    return broadcast_to(value, shape[0] if len(shape) == 1 else shape)


def full(shape: Any, fill_value: Any, dtype: Any = None) -> Variable:
    """A tensor filled with one value."""
    value = as_tensor(fill_value)
    return alloc(cast(value, dtype or value.dtype), shape)


def zeros(shape: Any, dtype: Any = None) -> Variable:
    """Zeros, of floatX unless another dtype is given."""
    return alloc(constant(0, dtype=dtype or config.floatX), shape)


def ones(shape: Any, dtype: Any = None) -> Variable:
    """Ones, of floatX unless another dtype is given."""
    return alloc(constant(1, dtype=dtype or config.floatX), shape)


def empty(shape: Any, dtype: Any = None) -> Variable:
    """A tensor whose values nobody reads; here zeros."""
    return zeros(shape, dtype)


# ---- ranges ---------------------------------------------------------------------------------


@record
class Arange(Op):
    """start, start + step, ... before stop. `length` is what is known of the result's size."""

    dtype: str
    length: int | None
    steering = (1,)

    def infer(self, *bounds: TensorType) -> TensorType:
        if any(b != TensorType(self.dtype) for b in bounds):
            raise TypeError(f"arange: bounds must be {self.dtype} scalars, got {bounds}")
        return TensorType(self.dtype, (self.length,))

    def eval(self, start: Any, stop: Any, step: Any) -> Any:
        if step == 0:
            raise ValueError("arange: the step is 0")
        return np.arange(start, stop, step, dtype=self.dtype)

    def element(self, node: Variable, index: Any, operands: Any) -> Any:
        if self.dtype != "int64" or not static_int(node.inputs[2]):
            return None
        start, _, step = operands
        return index[0] * step.at([]) + start.at([])

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        if not output.type.is_float:
            return [None, None, None]
        steps = cast(arange(dim(output, 0)), g.dtype)
        return [g.sum(), None, (g * steps).sum()]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        start, stop, step = (_size(b) if b.dtype == "int64" else b for b in inputs)
        if output.type.is_float:
            return [maximum(cast(ceil((stop - start) / step), "int64"), 0)]
        if start == 0 and step == 1:
            return [as_int64(_most(stop, 0))]
        return [as_int64(_most(-((start - stop) // step), 0))]


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> Variable:
    """start, start + step, ... before stop; with one bound, 0, 1, ... before it.

    Integers give int64; floats the dtype that they promote to.
    """
    if stop is None:
        start, stop = 0, start
    bounds = [as_tensor(b) for b in (start, stop, step)]
    if any(b.ndim for b in bounds):
        raise TypeError(f"arange: bounds must be scalars, got {[str(b.type) for b in bounds]}")
    if dtype is None:
        dtype = promote(*[b.dtype for b in bounds])
        dtype = dtype if dtype in FLOATS else "int64"
    bounds = [cast(b, dtype) for b in bounds]
    values: list[Any] = [constant_value(b) for b in bounds]
    length = None
    if all(v is not None for v in values):
        if values[2] == 0:
            raise ValueError("arange: the step is 0")
        length = len(np.arange(*values, dtype=dtype_name(dtype)))
    return Arange(dtype_name(dtype), length)(*bounds)


def linspace(start: Any, stop: Any, num: int = 50, dtype: Any = None) -> Variable:
    """`num` points at equal distances from start to stop, both included; num is an int."""
    start, stop = as_tensor(start), as_tensor(stop)
    dtype = dtype_name(dtype) if dtype else float_dtype(start.dtype, stop.dtype)
    steps = cast(arange(num), dtype)
    return cast(start + steps * ((stop - start) / cast(as_tensor(max(num - 1, 1)), dtype)), dtype)


class _Grid:
    """mgrid and ogrid: `ogrid[0:n, 0:m]` is a list of aranges, an axis each."""

    def __init__(self, dense: bool) -> None:
        self.dense = dense

    def __getitem__(self, parts: Any) -> list[Variable]:
        slices = parts if isinstance(parts, tuple) else (parts,)
        ranges = [arange(s.start or 0, s.stop, 1 if s.step is None else s.step) for s in slices]
        places = [
            dimshuffle(r, *["x"] * i, 0, *["x"] * (len(ranges) - 1 - i))
            for i, r in enumerate(ranges)
        ]
        if not self.dense:
            return places
        sizes = [dim(r, 0) for r in ranges]
        return [broadcast_to(p, sizes) for p in places]


mgrid = _Grid(dense=True)
ogrid = _Grid(dense=False)


# ---- triangles and diagonals ----------------------------------------------------------------


def eye(n: Any, m: Any = None, k: Any = 0, dtype: Any = None) -> Variable:
    """Ones on the k-th diagonal of an n by m matrix (m: n), zeros elsewhere."""
    rows, columns = arange(n), arange(n if m is None else m)
    return cast(eq(dimshuffle(rows, 0, "x") + k, dimshuffle(columns, "x", 0)), dtype or "floatX")


def identity_like(x: Any, dtype: Any = None) -> Variable:
    """The identity with the sizes of a matrix."""
    x = as_tensor(x)
    if x.ndim != 2:
        raise TypeError(f"identity_like takes a matrix, got {x.type}")
    return eye(dim(x, 0), dim(x, 1), 0, dtype or x.dtype)


def _below(n: Any, m: Any, k: Any) -> Variable:
    """Whether an element is on or below the k-th diagonal."""
    return ge(dimshuffle(arange(n), 0, "x") + k, dimshuffle(arange(m), "x", 0))


def tri(N: Any, M: Any = None, k: Any = 0, dtype: Any = None) -> Variable:
    """Ones on and below the k-th diagonal of an N by M matrix (M: N), zeros above."""
    return cast(_below(N, N if M is None else M, k), dtype or "floatX")


def tril(m: Any, k: Any = 0) -> Variable:
    """m with zeros above the k-th diagonal of its last two axes."""
    m = as_tensor(m)
    return switch(_below(dim(m, -2), dim(m, -1), k), m, constant(0, dtype=m.dtype))


def triu(m: Any, k: Any = 0) -> Variable:
    """m with zeros below the k-th diagonal of its last two axes."""
    m = as_tensor(m)
    return switch(_below(dim(m, -2), dim(m, -1), as_tensor(k) - 1), constant(0, dtype=m.dtype), m)


def _along(rows: Any, columns: Any, offset: Any) -> tuple[Variable, Variable]:
    """The positions of a diagonal of a matrix with these sizes: rows and columns."""
    rows, columns, offset = _size(rows), _size(columns), _size(offset)
    down, right = _most(-offset, 0), _most(offset, 0)
    steps = arange(_most(_least(rows - down, columns - right), 0))
    return steps + down, steps + right


def diagonal(a: Any, offset: Any = 0, axis1: int = 0, axis2: int = 1) -> Variable:
    """The diagonal of two axes, as the last axis of the result."""
    a = as_tensor(a)
    if a.ndim < 2:
        raise ValueError(f"diagonal needs at least two dimensions, got {a.type}")
    first, second = _axis(axis1, a.ndim, "diagonal"), _axis(axis2, a.ndim, "diagonal")
    if first == second:
        raise ValueError("diagonal: axis1 and axis2 are the same")
    rest = [i for i in range(a.ndim) if i not in (first, second)]
    a = dimshuffle(a, first, second, *rest)
    part = getitem(a, _along(dim(a, 0), dim(a, 1), offset))
    return dimshuffle(part, *range(1, part.ndim), 0)


def trace(a: Any, offset: Any = 0) -> Variable:
    """The sum of the diagonal of the first two axes."""
    return diagonal(a, offset).sum(axis=-1)


def alloc_diag(v: Any, offset: Any = 0) -> Variable:
    """The square matrix with the vector on its offset-th diagonal and zeros elsewhere."""
    v = as_tensor(v)
    if v.ndim != 1:
        raise TypeError(f"alloc_diag takes a vector, got {v.type}")
    n, offset = _size(dim(v, 0)), _size(offset)
    size = n + abs(offset)
    down, right = _most(-offset, 0), _most(offset, 0)
    steps = arange(n)
    place = getitem(zeros((size, size), v.dtype), (steps + down, steps + right))
    return inc_subtensor(place, v)


def diag(v: Any, k: Any = 0) -> Variable:
    """Of a vector the matrix with it on the k-th diagonal; of a matrix its k-th diagonal."""
    v = as_tensor(v)
    if v.ndim == 1:
        return alloc_diag(v, k)
    if v.ndim == 2:
        return diagonal(v, k)
    raise ValueError(f"diag: input must be 1-d or 2-d, got {v.type}")


def fill_diagonal(a: Any, val: Any) -> Variable:
    """a with a number on its main diagonal; with more than two axes they must be equal."""
    a, val = as_tensor(a), as_tensor(val)
    if a.ndim < 2:
        raise TypeError(f"fill_diagonal: a must have at least two dimensions, got {a.type}")
    if val.ndim:
        raise TypeError(f"fill_diagonal: val must be a scalar, got {val.type}")
    if a.ndim == 2:
        return fill_diagonal_offset(a, val, 0)
    a = specify_shape(a, [dim(a, 0)] * a.ndim)
    return set_subtensor(getitem(a, (arange(dim(a, 0)),) * a.ndim), val)


def fill_diagonal_offset(a: Any, val: Any, offset: Any) -> Variable:
    """A matrix with a number on its offset-th diagonal."""
    a = as_tensor(a)
    if a.ndim != 2:
        raise TypeError(f"fill_diagonal_offset: a must be a matrix, got {a.type}")
    return set_subtensor(getitem(a, _along(dim(a, 0), dim(a, 1), offset)), val)


def to_one_hot(y: Any, nb_class: Any, dtype: Any = None) -> Variable:
    """Integers as rows with a one at their position: shape (*y.shape, nb_class). An integer out
    of range gives a row of zeros."""
    y = as_tensor(y)
    if y.dtype in FLOATS:
        raise TypeError(f"to_one_hot takes integers, got {y.type}")
    classes = arange(nb_class)
    return cast(eq(dimshuffle(y, *range(y.ndim), "x"), classes), dtype or "floatX")


# ---- repetition -----------------------------------------------------------------------------


@record
class RepeatedPositions(Op):
    """0 .. n - 1, position i as often as counts[i] says. Inputs: counts, n."""

    steering = (0, 1)

    def infer(self, counts: TensorType, n: TensorType) -> TensorType:
        if counts.ndim != 1 or counts.dtype in FLOATS:
            raise TypeError(f"repeat: counts must be a vector of integers, got {counts}")
        return TensorType("int64", (None,))

    def eval(self, counts: Any, n: Any) -> Any:
        if len(counts) != n:
            raise ValueError(f"repeat: {len(counts)} counts for an axis of size {int(n)}")
        return np.repeat(np.arange(n), counts)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return [None, None]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return [cast(inputs[0], "int64").sum()]


def repeat(x: Any, repeats: Any, axis: int | None = None) -> Variable:
    """Every element along an axis (None: of the flattened tensor) several times over: `repeats`
    is an int, a symbolic integer, or a vector with a count for each."""
    x, counts = as_tensor(x), as_tensor(repeats)
    if counts.dtype in FLOATS:
        raise TypeError(f"repeat: repeats must be integers, got {counts.type}")
    if counts.ndim > 1:
        raise ValueError(f"repeat: repeats must be a scalar or a vector, got {counts.type}")
    if axis is None:
        x, axis = reshape(x, [-1], ndim=1), 0
    axis = _axis(axis, x.ndim, "repeat")
    if counts.ndim == 1 and counts.type.shape[0] != 1:
        positions = RepeatedPositions()(counts, dim(x, axis))
        return getitem(x, (slice(None),) * axis + (positions,))
    count = as_int64(counts if counts.ndim == 0 else counts[0])
    sizes = dims(x)
    wide = dimshuffle(x, *range(axis + 1), "x", *range(axis + 1, x.ndim))
    wide = broadcast_to(wide, [*sizes[: axis + 1], count, *sizes[axis + 1 :]])
    return _merged(wide, axis)


def _merged(x: Variable, axis: int) -> Variable:
    """x with this axis and the next as one."""
    sizes = dims(x)
    return reshape(
        x, [*sizes[:axis], _product(sizes[axis : axis + 2]), *sizes[axis + 2 :]], ndim=x.ndim - 1
    )


def _product(sizes: Sequence[Variable]) -> Any:
    """The product of sizes, known where they are."""
    known = [static_int(s) for s in sizes]
    return product(sizes) if None in known else math.prod(k for k in known if k is not None)


def tile(x: Any, reps: Any, ndim: int | None = None) -> Any:
    """x laid out several times along its axes: a count each, or fewer, for the last ones. Counts
    are ints, symbolic integers, or one vector (of known length, or with ndim given)."""
    x = as_tensor(x)
    counts = [_size(c) for c in sizes_list(reps, "tile", ndim if _is_vector(reps) else None)]
    width = max(x.ndim, len(counts))
    if ndim is not None:
        if ndim < width:
            raise ValueError(f"tile: ndim={ndim} is less than {width}, what x and reps need")
        width = ndim
    counts = [1] * (width - len(counts)) + counts
    x = shape_padleft(x, width - x.ndim)
    for axis, count in enumerate(counts):
        if isinstance(count, int) and count == 1:
            continue
        sizes = dims(x)
        wide = dimshuffle(x, *range(axis), "x", *range(axis, x.ndim))
        wide = broadcast_to(wide, [*sizes[:axis], count, *sizes[axis:]])
        x = _merged(wide, axis)
    return x


def _is_vector(v: Any) -> bool:
    return isinstance(v, Variable) and v.ndim == 1


def roll(x: Any, shift: Any, axis: int | None = None) -> Variable:
    """x with its elements moved on by `shift` along an axis, those at the end to the front;
    None: in the flattened tensor."""
    x = as_tensor(x)
    if axis is None and x.ndim != 1:
        flat = roll(reshape(x, [-1], ndim=1), shift, 0)
        return specify(reshape(flat, dims(x), ndim=x.ndim), x.type.shape)
    axis = _axis(axis or 0, x.ndim, "roll")
    n = _size(dim(x, axis))
    first = (-_size(shift)) % _most(n, 1)
    before = (slice(None),) * axis
    parts = [getitem(x, (*before, slice(first, None))), getitem(x, (*before, slice(0, first)))]
    return specify(join(axis, *parts), x.type.shape)


# ---- axes -----------------------------------------------------------------------------------


def flatten(x: Any, ndim: int = 1, outdim: int | None = None) -> Any:
    """x with ndim axes: the first ndim - 1 are kept, the others become one."""
    x = as_tensor(x)
    ndim = ndim if outdim is None else outdim
    if ndim < 1 or (ndim > x.ndim and ndim > 1):
        raise ValueError(f"ndim {ndim} out of bound [1, {max(x.ndim, 1)}) for {x.type}")
    if x.ndim == ndim:
        return x
    if ndim == 1:
        return reshape(x, [-1], ndim=1)
    sizes = dims(x)
    return reshape(x, [*sizes[: ndim - 1], _product(sizes[ndim - 1 :])], ndim=ndim)


def squeeze(x: Any, axis: Any = None) -> Variable:
    """x without the axes that are known to have size 1, or without those of `axis`."""
    x = as_tensor(x)
    if axis is None:
        drop = [i for i, s in enumerate(x.type.shape) if s == 1]
    else:
        axes = axis if isinstance(axis, list | tuple) else [axis]
        drop = [_axis(a, x.ndim, "squeeze") for a in axes]
        x = with_ones(x, drop)
    return dimshuffle(x, *[i for i in range(x.ndim) if i not in drop])


def shape_padleft(t: Any, n_ones: int = 1) -> Variable:
    """t with n_ones axes of size 1 before its own."""
    t = as_tensor(t)
    return dimshuffle(t, *["x"] * n_ones, *range(t.ndim))


def shape_padright(t: Any, n_ones: int = 1) -> Variable:
    """t with n_ones axes of size 1 after its own."""
    t = as_tensor(t)
    return dimshuffle(t, *range(t.ndim), *["x"] * n_ones)


def shape_padaxis(t: Any, axis: int) -> Variable:
    """t with an axis of size 1 at a position of the result."""
    t = as_tensor(t)
    if not -t.ndim - 1 <= axis <= t.ndim:
        raise IndexError(f"axis {axis} is out of bounds [-{t.ndim + 1}, {t.ndim + 1})")
    pattern: list[Any] = list(range(t.ndim))
    pattern.insert(axis % (t.ndim + 1), "x")
    return dimshuffle(t, *pattern)


def expand_dims(t: Any, axis: int) -> Variable:
    """NumPy's name of `shape_padaxis`."""
    return shape_padaxis(t, axis)


def addbroadcast(x: Any, *axes: int) -> Variable:
    """x with the axes promised to have size 1, so that they broadcast."""
    x = as_tensor(x)
    return with_ones(x, [_axis(a, x.ndim, "addbroadcast") for a in axes])


def unbroadcast(x: Any, *axes: int) -> Variable:
    """x with the sizes of the axes forgotten, so that they do not broadcast."""
    x = as_tensor(x)
    forget = [_axis(a, x.ndim, "unbroadcast") for a in axes]
    return specify(x, [None if i in forget else s for i, s in enumerate(x.type.shape)])


def patternbroadcast(x: Any, broadcastable: Sequence[bool]) -> Variable:
    """x with exactly the axes that are True promised to have size 1."""
    x = as_tensor(x)
    if len(broadcastable) != x.ndim:
        raise ValueError(f"patternbroadcast: {len(broadcastable)} flags for {x.type}")
    known = zip(broadcastable, x.type.shape)
    return specify(x, [1 if b else None if s == 1 else s for b, s in known])


def swapaxes(y: Any, axis1: int, axis2: int) -> Variable:
    """y with two axes exchanged."""
    y = as_tensor(y)
    order = list(range(y.ndim))
    i, j = _axis(axis1, y.ndim, "swapaxes"), _axis(axis2, y.ndim, "swapaxes")
    order[i], order[j] = j, i
    return dimshuffle(y, *order)


def moveaxis(x: Any, source: Any, destination: Any) -> Variable:
    """x with axes moved to new positions, the others in order."""
    x = as_tensor(x)
    given = [v if isinstance(v, list | tuple) else [v] for v in (source, destination)]
    sources, places = ([_axis(a, x.ndim, "moveaxis") for a in v] for v in given)
    if len(sources) != len(places) or len({*sources}) != len(sources):
        raise ValueError("moveaxis: source and destination must be as many different axes")
    order = [i for i in range(x.ndim) if i not in sources]
    for place, axis in sorted(zip(places, sources)):
        order.insert(place, axis)
    return dimshuffle(x, *order)


def rollaxis(x: Any, axis: int, start: int = 0) -> Variable:
    """x with an axis moved to stand before the one at `start`."""
    x = as_tensor(x)
    axis = _axis(axis, x.ndim, "rollaxis")
    start = start + x.ndim if start < 0 else start
    return moveaxis(x, axis, start - 1 if axis < start else start)


def atleast_1d(x: Any) -> Variable:
    """x, a number as a vector of one."""
    x = as_tensor(x)
    return shape_padleft(x, max(0, 1 - x.ndim))


def atleast_2d(x: Any) -> Variable:
    """x, a number or a vector as a matrix of one row."""
    x = as_tensor(x)
    return shape_padleft(x, max(0, 2 - x.ndim))


# ---- cut and joined -------------------------------------------------------------------------


def split(x: Any, splits_size: Any, n_splits: int, axis: int = 0) -> list[Variable]:
    """x cut along an axis in n_splits parts of the sizes given: ints and symbolic integers, or a
    vector. Raises ValueError where they do not add up to the axis."""
    x = as_tensor(x)
    axis = _axis(axis, x.ndim, "split")
    sizes = [_size(s) for s in sizes_list(splits_size, "split", n_splits)]
    if len(sizes) != n_splits:
        raise ValueError(f"split: {len(sizes)} sizes for n_splits={n_splits}")
    if any(isinstance(s, int) and s < 0 for s in sizes):
        raise ValueError("split: sizes can't be negative")
    total = sum(sizes)
    if isinstance(total, int) and x.type.shape[axis] not in (None, total):
        raise ValueError(f"split: the sizes add up to {total}, the axis is {x.type.shape[axis]}")
    x = specify_shape(x, [total if i == axis else None for i in range(x.ndim)])
    parts, start = [], 0
    for s in sizes:
        part = getitem(x, (slice(None),) * axis + (slice(start, start + s),))
        parts.append(part)
        start = start + s
    return parts


def horizontal_stack(*args: Any) -> Variable:
    """Matrices beside one another."""
    return concatenate(_matrices(args), axis=1)


def vertical_stack(*args: Any) -> Variable:
    """Matrices under one another."""
    return concatenate(_matrices(args), axis=0)


def _matrices(args: Sequence[Any]) -> list[Variable]:
    if len(args) < 2:
        raise ValueError("at least two matrices are needed")
    matrices = [as_tensor(a) for a in args]
    if any(m.ndim != 2 for m in matrices):
        raise TypeError(f"matrices are needed, got {[str(m.type) for m in matrices]}")
    return matrices
