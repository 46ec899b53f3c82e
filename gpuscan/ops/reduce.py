"""Reductions over axes, and running sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..graph import Op, Variable
from ..record import record
from ..types import DISCRETE, TensorType, dtype_name, float_dtype
from .convert import as_tensor
from .elemwise import cast
from .scalar import eq, sqrt, switch
from .shape import broadcast_to, dim, dims, dimshuffle, product, reshape, specify


def _axes(x: Variable, axis: Any, what: str) -> tuple[int, ...]:
    """The axes that a user wrote: None is all of them. Raises ValueError for one out of range."""
    if axis is None:
        return tuple(range(x.ndim))
    given = axis if isinstance(axis, list | tuple | np.ndarray) else [axis]
    axes = []
    for a in given:
        value: Any = getattr(a, "data", a) if isinstance(a, Variable) else a
        a = int(value)
        if not -x.ndim <= a < x.ndim:
            raise ValueError(f"{what}: axis {a} of {x}, which has {x.ndim} dimensions")
        axes.append(a % x.ndim)
    return tuple(sorted(set(axes)))


@record
class Reduce(Op):
    """One of sum, prod, max, min, any, all over some axes, which are dropped.

    A sum or product of a small dtype is accumulated in `acc_dtype` (float16 in float32).
    """

    kind: str
    axes: tuple[int, ...]
    dtype: str

    def infer(self, x: TensorType) -> TensorType:
        kept = [s for i, s in enumerate(x.shape) if i not in self.axes]
        return TensorType(self.dtype, tuple(kept))

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        function, axes = _NUMPY[self.kind], self.axes
        if self.kind in ("sum", "prod"):
            dtype = self.dtype
            wide = "float32" if dtype == "float16" else dtype
            if wide == dtype:
                return lambda x: function(x, axis=axes, dtype=dtype)
            return lambda x: function(x, axis=axes, dtype=wide).astype(dtype)
        return lambda x: function(x, axis=axes)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        (x,) = inputs
        if not output.type.is_float:
            return [None]
        wide = spread(g, x, self.axes)
        match self.kind:
            case "sum":
                return [cast(wide, x.dtype) if x.type.is_float else wide]
            case "max" | "min":  # every tie gets the cotangent
                return [switch(eq(x, spread(output, x, self.axes)), wide, 0)]
            case "prod":
                return [_product_pullback(x, output, wide, self.axes)]
        return [None]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return [dim(inputs[0], i) for i in range(inputs[0].ndim) if i not in self.axes]

    def batch(self, inputs: Any, batched: Any, n: Variable) -> Variable:
        return Reduce(self.kind, tuple(a + 1 for a in self.axes), self.dtype)(inputs[0])

    @property
    def label(self) -> str:
        return f"{self.kind}{{{','.join(map(str, self.axes))}}}"


_NUMPY: dict[str, Callable[..., Any]] = {
    "sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min, "any": np.any, "all": np.all,
}  # fmt: skip


def spread(v: Variable, x: Variable, axes: Sequence[int]) -> Variable:
    """A value from which `axes` of x were reduced away, repeated along them to x's shape."""
    return broadcast_to(with_axes(v, axes), dims(x))


def with_axes(v: Variable, axes: Sequence[int]) -> Variable:
    """v with axes of size 1 put in at these positions of the result."""
    pattern: list[Any] = list(range(v.ndim))
    for a in sorted(axes):
        pattern.insert(a, "x")
    return dimshuffle(v, *pattern)


def _product_pullback(x: Variable, y: Variable, g: Variable, axes: Sequence[int]) -> Variable:
    """g * (product of the others), right where elements are zero."""
    zero = eq(x, 0)
    zeros = spread(sum(zero.astype("int64"), axis=list(axes)), x, axes)
    others = spread(prod(switch(zero, 1, x), axis=list(axes)), x, axes)
    none = g * spread(y, x, axes) / switch(zero, 1, x)
    one = switch(zero, g * others, 0)
    return switch(eq(zeros, 0), none, switch(eq(zeros, 1), one, 0))


def _reduce(kind: str, x: Any, axis: Any, keepdims: bool, dtype: Any = None) -> Variable:
    x = as_tensor(x)
    axes = _axes(x, axis, kind)
    if kind in ("any", "all"):
        x, dtype = cast(x, "bool"), "bool"
    if not axes:
        return cast(x, dtype or x.dtype)
    result = Reduce(kind, axes, dtype or x.dtype)(x)
    return with_axes(result, axes) if keepdims else result


def _sum_dtype(x: Variable, dtype: Any) -> str:
    """Integers and bools are summed in 64 bits."""
    if dtype is not None:
        return dtype_name(dtype)
    if x.dtype in DISCRETE:
        return "uint64" if x.dtype.startswith("u") else "int64"
    return x.dtype


def sum(
    input: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False, acc_dtype: Any = None
) -> Variable:
    """The sum over axes (None: all). Bools and integers are summed as int64 or uint64."""
    x = as_tensor(input)
    return _reduce("sum", x, axis, keepdims, _sum_dtype(x, dtype))


def prod(
    input: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False,
    acc_dtype: Any = None, no_zeros_in_input: bool = False,
) -> Variable:  # fmt: skip
    """The product over axes (None: all)."""
    x = as_tensor(input)
    return _reduce("prod", x, axis, keepdims, _sum_dtype(x, dtype))


def max(x: Any, axis: Any = None, keepdims: bool = False) -> Variable:
    """The maximum over axes (None: all). Its gradient goes to every tie."""
    return _reduce("max", x, axis, keepdims)


def min(x: Any, axis: Any = None, keepdims: bool = False) -> Variable:
    """The minimum over axes (None: all). Its gradient goes to every tie."""
    return _reduce("min", x, axis, keepdims)


def any(x: Any, axis: Any = None, keepdims: bool = False) -> Variable:
    """Whether any element is nonzero."""
    return _reduce("any", x, axis, keepdims)


def all(x: Any, axis: Any = None, keepdims: bool = False) -> Variable:
    """Whether all elements are nonzero."""
    return _reduce("all", x, axis, keepdims)


def mean(
    input: Any, axis: Any = None, dtype: Any = None, op: bool = False, keepdims: bool = False,
    acc_dtype: Any = None,
) -> Variable:  # fmt: skip
    """The mean over axes (None: all), in floatX for integers."""
    x = as_tensor(input)
    axes = _axes(x, axis, "mean")
    result = dtype_name(dtype) if dtype else float_dtype(x.dtype)
    total = sum(x, axis=list(axes), dtype=result, keepdims=keepdims)
    return total / cast(product([dim(x, a) for a in axes]), result)


def var(input: Any, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> Variable:
    """The variance over axes: squared deviations over n - ddof."""
    x = as_tensor(input)
    axes = list(_axes(x, axis, "var"))
    centred = x - mean(x, axis=axes, keepdims=True)
    count = cast(product([dim(x, a) for a in axes]) - ddof, centred.dtype)
    return sum(centred * centred, axis=axes, keepdims=keepdims) / count


def std(input: Any, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> Variable:
    """The standard deviation over axes."""
    return sqrt(var(input, axis, ddof, keepdims))


@record
class ArgReduce(Op):
    """The position, int64, of the maximum or minimum along an axis; the first of several."""

    kind: str
    axis: int

    def infer(self, x: TensorType) -> TensorType:
        return TensorType("int64", tuple(s for i, s in enumerate(x.shape) if i != self.axis))

    def eval(self, x: Any) -> Any:
        return (np.argmax if self.kind == "argmax" else np.argmin)(x, axis=self.axis)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return [None]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return [dim(inputs[0], i) for i in range(inputs[0].ndim) if i != self.axis]

    def batch(self, inputs: Any, batched: Any, n: Variable) -> Variable:
        return ArgReduce(self.kind, self.axis + 1)(inputs[0])

    @property
    def label(self) -> str:
        return f"{self.kind}{{{self.axis}}}"


def _arg(kind: str, x: Any, axis: Any, keepdims: bool) -> Variable:
    x = as_tensor(x)
    axes = _axes(x, axis, kind)
    if len(axes) != 1:
        if len(axes) != x.ndim:
            raise ValueError(f"{kind} is over one axis or over all, not over {axes}")
        flat = ArgReduce(kind, 0)(reshape(x, [-1], ndim=1))
        return with_axes(flat, axes) if keepdims else flat
    result = ArgReduce(kind, axes[0])(x)
    return with_axes(result, axes) if keepdims else result


def argmax(x: Any, axis: Any = None, keepdims: bool = False) -> Variable:
    """The position of the maximum along an axis; None: in the flattened tensor."""
    return _arg("argmax", x, axis, keepdims)


def argmin(x: Any, axis: Any = None, keepdims: bool = False) -> Variable:
    """The position of the minimum along an axis; None: in the flattened tensor."""
    return _arg("argmin", x, axis, keepdims)


def max_and_argmax(x: Any, axis: Any = None, keepdims: bool = False) -> list[Variable]:
    """The maximum and its position."""
    return [max(x, axis, keepdims), argmax(x, axis, keepdims)]


@record
class Cumulative(Op):
    """Running sums or products along an axis."""

    kind: str
    axis: int

    def infer(self, x: TensorType) -> TensorType:
        return x

    def eval(self, x: Any) -> Any:
        f = np.cumsum if self.kind == "cumsum" else np.cumprod
        return f(x, axis=self.axis, dtype=x.dtype)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        if not output.type.is_float:
            return [None]
        flip = (slice(None),) * self.axis + (slice(None, None, -1),)

        def back(v: Variable) -> Variable:  # sums from here to the end
            return specify(Cumulative("cumsum", self.axis)(v[flip])[flip], v.type.shape)

        if self.kind == "cumsum":
            return [back(g)]
        return [back(g * output) / inputs[0]]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return dims(inputs[0])

    def batch(self, inputs: Any, batched: Any, n: Variable) -> Variable:
        return Cumulative(self.kind, self.axis + 1)(inputs[0])


def _cumulative(kind: str, x: Any, axis: Any) -> Variable:
    x = as_tensor(x)
    x = cast(x, _sum_dtype(x, None))
    if axis is None:
        return Cumulative(kind, 0)(reshape(x, [-1], ndim=1))
    return Cumulative(kind, _axes(x, axis, kind)[0])(x)


def cumsum(x: Any, axis: Any = None) -> Variable:
    """Running sums along an axis; None: of the flattened tensor."""
    return _cumulative("cumsum", x, axis)


def cumprod(x: Any, axis: Any = None) -> Variable:
    """Running products along an axis; None: of the flattened tensor. The gradient divides by x."""
    return _cumulative("cumprod", x, axis)
