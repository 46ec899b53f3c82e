"""Order and search: sorting, positions of what is sought, counting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..graph import Op, Undefined, Variable
from ..record import record
from ..types import FLOATS, TensorType
from .convert import as_tensor
from .create import arange, zeros
from .elemwise import cast, promoted, zeros_like
from .indexing import Nonzero, getitem, inc_subtensor, set_subtensor
from .reduce import max as max_
from .reduce import min as min_
from .scalar import clip, maximum, neq
from .shape import broadcast_to, concatenate, dim, dims, dimshuffle, reshape, specify


def _axis(axis: int, x: Variable, what: str) -> int:
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"{what}: axis {axis} of {x}, which has {x.ndim} dimensions")
    return axis % x.ndim


def _flat(x: Variable) -> Variable:
    return x if x.ndim == 1 else reshape(x, [-1], ndim=1)


# ---- sorting --------------------------------------------------------------------------------


@record
class Sort(Op):
    """The elements along an axis in rising order. Equal ones keep their order."""

    axis: int

    def infer(self, x: TensorType) -> TensorType:
        return x

    def eval(self, x: Any) -> Any:
        return np.sort(x, axis=self.axis, kind="stable")

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        (x,) = inputs
        if not output.type.is_float:
            return [None]
        place = take_along_axis(zeros_like(x), ArgSort(self.axis)(x), self.axis)
        return [specify(set_subtensor(place, g), x.type.shape)]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return dims(inputs[0])

    def batch(self, inputs: Any, batched: Any, n: Variable) -> Variable:
        return Sort(self.axis + 1)(inputs[0])


@record
class ArgSort(Op):
    """The positions, int64, that put an axis in rising order. Equal elements keep theirs."""

    axis: int

    def infer(self, x: TensorType) -> TensorType:
        return TensorType("int64", x.shape)

    def eval(self, x: Any) -> Any:
        return np.argsort(x, axis=self.axis, kind="stable")

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return [None]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return dims(inputs[0])

    def batch(self, inputs: Any, batched: Any, n: Variable) -> Variable:
        return ArgSort(self.axis + 1)(inputs[0])


def _sorted(op: type[Sort] | type[ArgSort], x: Any, axis: int | None, order: Any) -> Variable:
    x = as_tensor(x)
    if order is not None:
        raise ValueError("order= is for structured arrays, which gpuscan does not have")
    if axis is None:
        return op(0)(_flat(x))
    return op(_axis(axis, x, "sort"))(x)


def sort(a: Any, axis: int | None = -1, kind: str = "quicksort", order: Any = None) -> Variable:
    """a sorted along an axis (None: flattened), stably whatever `kind` says."""
    return _sorted(Sort, a, axis, order)


def argsort(a: Any, axis: int | None = -1, kind: str = "quicksort", order: Any = None) -> Variable:
    """The positions that sort a along an axis (None: flattened), stably."""
    return _sorted(ArgSort, a, axis, order)


def take_along_axis(x: Any, indices: Any, axis: int) -> Variable:
    """x[..., indices[..., j, ...], ...]: for every line along an axis its own positions. The two
    have the same sizes but for that axis."""
    x, indices = as_tensor(x), as_tensor(indices)
    axis = _axis(axis, x, "take_along_axis")
    if x.ndim != indices.ndim:
        raise ValueError(f"take_along_axis: {indices.type} for a tensor of {x.ndim} dimensions")
    index: list[Any] = []
    for i in range(x.ndim):
        line = ["x"] * i + [0] + ["x"] * (x.ndim - 1 - i)
        index.append(indices if i == axis else dimshuffle(arange(dim(x, i)), *line))
    return getitem(x, tuple(index))


def argtopk(x: Any, kth: int, axis: int | None = -1, sorted: bool = True) -> Variable:
    """The positions of the kth largest elements along an axis (None: flattened), the largest
    first; for a negative kth, of the -kth smallest, the smallest first."""
    if kth == 0:
        raise ValueError("topk: kth can't be 0")
    x = as_tensor(x)
    x, axis = (_flat(x), 0) if axis is None else (x, _axis(axis, x, "topk"))
    part = slice(None, -kth) if kth < 0 else slice(None, -kth - 1, -1)
    return getitem(ArgSort(axis)(x), (slice(None),) * axis + (part,))


def topk(x: Any, kth: int, axis: int | None = -1, sorted: bool = True) -> Variable:
    """The kth largest elements along an axis, the largest first; for a negative kth the -kth
    smallest, the smallest first."""
    return topk_and_argtopk(x, kth, axis)[0]


def topk_and_argtopk(
    x: Any, kth: int, axis: int | None = -1, sorted: bool = True
) -> list[Variable]:
    """`topk` and `argtopk`."""
    x = as_tensor(x)
    where = argtopk(x, kth, axis)
    x, axis = (_flat(x), 0) if axis is None else (x, axis)
    return [take_along_axis(x, where, axis), where]


# ---- search ---------------------------------------------------------------------------------


def nonzero(a: Any, return_matrix: bool = False) -> Any:
    """The positions of the elements that are not zero, in row-major order: a tuple with an int64
    vector an axis, or one matrix with a row an axis."""
    a = as_tensor(a)
    matrix = Nonzero()(a)
    return matrix if return_matrix else tuple(matrix[i] for i in range(a.ndim))


def flatnonzero(a: Any) -> Variable:
    """The positions of the elements that are not zero in the flattened tensor."""
    a = as_tensor(a)
    if a.ndim == 0:
        raise ValueError("Nonzero only supports non-scalar arrays.")
    return Nonzero()(_flat(a))[0]


def nonzero_values(a: Any) -> Variable:
    """The elements that are not zero, in row-major order."""
    a = as_tensor(a)
    return getitem(_flat(a), flatnonzero(a))


@record
class SearchSorted(Op):
    """Where each element of v would go in the sorted vector x, before ('left') or after
    ('right') its equals. A third input sorts x: its argsort."""

    side: str
    steering = (0, 1, 2)

    def infer(self, x: TensorType, v: TensorType, *sorter: TensorType) -> TensorType:
        if x.ndim != 1 or any(s.ndim != 1 or s.dtype in FLOATS for s in sorter):
            raise TypeError(f"searchsorted: x and sorter must be vectors, got {(x, *sorter)}")
        return TensorType("int64", v.shape)

    def eval(self, x: Any, v: Any, *sorter: Any) -> Any:
        return np.asarray(np.searchsorted(x, v, self.side, *sorter), "int64")  # type: ignore[call-overload]

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return [None] * len(inputs)

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return dims(inputs[1])

    def batch(
        self, inputs: Sequence[Variable], batched: Sequence[bool], n: Variable
    ) -> Variable | None:
        return self(*inputs) if [*batched] == [i == 1 for i in range(len(inputs))] else None


def searchsorted(x: Any, v: Any, side: str = "left", sorter: Any = None) -> Variable:
    """The positions, int64 and of v's shape, where v's elements would keep the vector x sorted;
    `sorter` is the argsort of an x that is not."""
    if side not in ("left", "right"):
        raise ValueError(f"searchsorted: side is 'left' or 'right', not {side!r}")
    more = [] if sorter is None else [as_tensor(sorter)]
    return SearchSorted(side)(as_tensor(x), as_tensor(v), *more)


@record
class Unique(Op):
    """The different values of a vector, in rising order."""

    def infer(self, x: TensorType) -> TensorType:
        return TensorType(x.dtype, (None,))

    def eval(self, x: Any) -> Any:
        return np.unique(x)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return [Undefined("unique has no gradient")]


def unique(ar: Any) -> Variable:
    """The different values of a tensor, in rising order, as a vector."""
    return Unique()(_flat(as_tensor(ar)))


def bincount(
    x: Any, weights: Any = None, minlength: Any = None, assert_nonneg: bool = False
) -> Variable:
    """How often 0, 1, ... max(x) are in a vector of integers, int64; with weights, the sums of
    the weights of each. The result has at least minlength elements."""
    x = as_tensor(x)
    if x.ndim != 1 or x.dtype in FLOATS:
        raise TypeError(f"bincount takes a vector of integers, got {x.type}")
    x = cast(x, "int64")
    n = max_(concatenate([x, as_tensor(np.array([-1]))])) + 1
    if minlength is not None:
        n = maximum(n, cast(as_tensor(minlength), "int64"))
    added = as_tensor(np.int64(1)) if weights is None else as_tensor(weights)
    return inc_subtensor(getitem(zeros([n], added.dtype), x), added)


# ---- differences and choice -----------------------------------------------------------------


def diff(x: Any, n: int = 1, axis: int = -1) -> Any:
    """The differences of neighbours along an axis, n times over."""
    x = as_tensor(x)
    before = (slice(None),) * _axis(axis, x, "diff")
    for _ in range(n):
        ahead, behind = getitem(x, (*before, slice(1, None))), getitem(x, (*before, slice(-1)))
        x = neq(ahead, behind) if x.dtype == "bool" else ahead - behind
    return x


def ptp(a: Any, axis: Any = None) -> Variable:
    """The maximum less the minimum over axes (None: all)."""
    return max_(a, axis) - min_(a, axis)


def choose(a: Any, choices: Any, out: Any = None, mode: str = "raise") -> Variable:
    """For every element of a the element at its place of choices[a]: choices is a list of
    tensors, or a tensor cut along its first axis, that broadcast with a. mode says what becomes
    of an integer out of range: 'raise' an IndexError (from -len(choices) on it counts from the
    end), 'clip' the nearest, 'wrap' the remainder.
    """
    if out is not None:
        raise ValueError("choose: out= has no meaning for a symbolic result")
    a = as_tensor(a)
    if a.dtype in FLOATS:
        raise TypeError(f"choose: the first argument must be integers, got {a.type}")
    if isinstance(choices, list | tuple):
        rows = promoted(*[as_tensor(c) for c in choices])
    else:
        rows = [as_tensor(choices)[i] for i in range(_count(as_tensor(choices)))]
    ndim = max(v.ndim for v in (a, *rows))
    a, *rows = (dimshuffle(v, *["x"] * (ndim - v.ndim), *range(v.ndim)) for v in (a, *rows))
    wide = [[v for v in (a, *rows) if v.type.shape[i] != 1] or [a] for i in range(ndim)]
    sizes = [dim(of[0], i) for i, of in enumerate(wide)]
    table = Variable.operations["stack"]([broadcast_to(r, sizes) for r in rows])
    at = cast(broadcast_to(a, sizes), "int64")
    if mode == "clip":
        at = clip(at, 0, len(rows) - 1)
    elif mode == "wrap":
        at = at % len(rows)
    elif mode != "raise":
        raise ValueError(f"choose: mode is 'raise', 'clip' or 'wrap', not {mode!r}")
    return getitem(take_along_axis(table, dimshuffle(at, "x", *range(ndim)), 0), 0)


def _count(choices: Variable) -> int:
    count: int | None = choices.type.shape[0] if choices.ndim else None
    if count is None:
        raise TypeError("choose: the number of choices must be known: give a list")
    return count
