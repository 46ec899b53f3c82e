"""Operators and methods, written once and inherited by every kind of expression.

A kind of expression supplies `_apply(name, *arguments)`: what `+` or `.sum` means for it.
"""

from __future__ import annotations

from typing import Any, Self


class Operators:
    """+ - * / // % ** @ & | ^ ~ < <= > >= [] and unary minus, plus and abs.

    `==` and `!=` are left alone: they compare identity (write `eq(x, y)` and `neq(x, y)`).
    """

    __slots__ = ()
    __array_priority__ = 1000  # so that ndarray * expression asks the expression

    def _apply(self, name: str, /, *args: Any, **kwargs: Any) -> Self:
        raise NotImplementedError

    def __add__(self, other: Any) -> Self:
        return self._apply("add", self, other)

    def __radd__(self, other: Any) -> Self:
        return self._apply("add", other, self)

    def __sub__(self, other: Any) -> Self:
        return self._apply("sub", self, other)

    def __rsub__(self, other: Any) -> Self:
        return self._apply("sub", other, self)

    def __mul__(self, other: Any) -> Self:
        return self._apply("mul", self, other)

    def __rmul__(self, other: Any) -> Self:
        return self._apply("mul", other, self)

    def __truediv__(self, other: Any) -> Self:
        return self._apply("true_div", self, other)

    def __rtruediv__(self, other: Any) -> Self:
        return self._apply("true_div", other, self)

    def __floordiv__(self, other: Any) -> Self:
        return self._apply("int_div", self, other)

    def __rfloordiv__(self, other: Any) -> Self:
        return self._apply("int_div", other, self)

    def __mod__(self, other: Any) -> Self:
        return self._apply("mod", self, other)

    def __rmod__(self, other: Any) -> Self:
        return self._apply("mod", other, self)

    def __divmod__(self, other: Any) -> tuple[Self, Self]:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> tuple[Self, Self]:
        return other // self, other % self

    def __pow__(self, other: Any) -> Self:
        return self._apply("pow", self, other)

    def __rpow__(self, other: Any) -> Self:
        return self._apply("pow", other, self)

    def __matmul__(self, other: Any) -> Self:
        return self._apply("matmul", self, other)

    def __rmatmul__(self, other: Any) -> Self:
        return self._apply("matmul", other, self)

    def __and__(self, other: Any) -> Self:
        return self._apply("and_", self, other)

    def __rand__(self, other: Any) -> Self:
        return self._apply("and_", other, self)

    def __or__(self, other: Any) -> Self:
        return self._apply("or_", self, other)

    def __ror__(self, other: Any) -> Self:
        return self._apply("or_", other, self)

    def __xor__(self, other: Any) -> Self:
        return self._apply("xor", self, other)

    def __rxor__(self, other: Any) -> Self:
        return self._apply("xor", other, self)

    def __invert__(self) -> Self:
        return self._apply("invert", self)

    def __lt__(self, other: Any) -> Self:
        return self._apply("lt", self, other)

    def __le__(self, other: Any) -> Self:
        return self._apply("le", self, other)

    def __gt__(self, other: Any) -> Self:
        return self._apply("gt", self, other)

    def __ge__(self, other: Any) -> Self:
        return self._apply("ge", self, other)

    def __neg__(self) -> Self:
        return self._apply("neg", self)

    def __pos__(self) -> Self:
        return self

    def __abs__(self) -> Self:
        return self._apply("abs_", self)

    def __ceil__(self) -> Self:
        return self._apply("ceil", self)

    def __floor__(self) -> Self:
        return self._apply("floor", self)

    def __trunc__(self) -> Self:
        return self._apply("trunc", self)

    def __getitem__(self, index: Any) -> Self:
        return self._apply("getitem", self, index)


class TensorMethods(Operators):
    """The methods of a tensor, under the names of Theano and NumPy."""

    __slots__ = ()

    @property
    def T(self) -> Self:
        return self._apply("transpose", self)

    @property
    def shape(self) -> Self:
        """The sizes, as an int64 vector of known length: `a, b = x.shape` works."""
        return self._apply("shape", self)

    @property
    def size(self) -> Self:
        return self._apply("size", self)

    @property
    def real(self) -> Self:
        return self

    def __len__(self) -> int:
        raise TypeError(
            "a symbolic tensor has no len(): its length is not known yet. Write x.shape[0]."
        )

    def astype(self, dtype: Any) -> Self:
        return self._apply("cast", self, dtype)

    def sum(
        self, axis: Any = None, dtype: Any = None, keepdims: bool = False, acc_dtype: Any = None
    ) -> Self:
        return self._apply(
            "sum", self, axis=axis, dtype=dtype, keepdims=keepdims, acc_dtype=acc_dtype
        )

    def prod(
        self, axis: Any = None, dtype: Any = None, keepdims: bool = False, acc_dtype: Any = None
    ) -> Self:
        return self._apply(
            "prod", self, axis=axis, dtype=dtype, keepdims=keepdims, acc_dtype=acc_dtype
        )

    def mean(
        self, axis: Any = None, dtype: Any = None, keepdims: bool = False, acc_dtype: Any = None
    ) -> Self:
        return self._apply(
            "mean", self, axis=axis, dtype=dtype, keepdims=keepdims, acc_dtype=acc_dtype
        )

    def var(self, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> Self:
        return self._apply("var", self, axis=axis, ddof=ddof, keepdims=keepdims)

    def std(self, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> Self:
        return self._apply("std", self, axis=axis, ddof=ddof, keepdims=keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Self:
        return self._apply("max", self, axis=axis, keepdims=keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Self:
        return self._apply("min", self, axis=axis, keepdims=keepdims)

    def argmax(self, axis: Any = None, keepdims: bool = False) -> Self:
        return self._apply("argmax", self, axis=axis, keepdims=keepdims)

    def argmin(self, axis: Any = None, keepdims: bool = False) -> Self:
        return self._apply("argmin", self, axis=axis, keepdims=keepdims)

    def any(self, axis: Any = None, keepdims: bool = False) -> Self:
        return self._apply("any", self, axis=axis, keepdims=keepdims)

    def all(self, axis: Any = None, keepdims: bool = False) -> Self:
        return self._apply("all", self, axis=axis, keepdims=keepdims)

    def norm(self, L: Any, axis: Any = None, keepdims: bool = False) -> Self:
        return self._apply("norm", self, L, axis=axis, keepdims=keepdims)

    def cumsum(self, axis: Any = None) -> Self:
        return self._apply("cumsum", self, axis=axis)

    def cumprod(self, axis: Any = None) -> Self:
        return self._apply("cumprod", self, axis=axis)

    def dot(self, other: Any) -> Self:
        return self._apply("dot", self, other)

    def dimshuffle(self, *pattern: Any) -> Self:
        """The axes in a new order: an int takes an axis, 'x' makes one of size 1; an axis left
        out must have size 1."""
        return self._apply("dimshuffle", self, *pattern)

    def transpose(self, *axes: Any) -> Self:
        return self._apply("transpose", self, *axes)

    def swapaxes(self, axis1: int, axis2: int) -> Self:
        return self._apply("swapaxes", self, axis1, axis2)

    def reshape(self, shape: Any, *more: Any, ndim: int | None = None) -> Self:
        return self._apply("reshape", self, (shape, *more) if more else shape, ndim=ndim)

    def flatten(self, ndim: int = 1) -> Self:
        return self._apply("flatten", self, ndim=ndim)

    def ravel(self) -> Self:
        return self._apply("flatten", self)

    def squeeze(self) -> Self:
        return self._apply("squeeze", self)

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Self:
        return self._apply("diagonal", self, offset, axis1, axis2)

    def trace(self) -> Self:
        return self._apply("trace", self)

    def repeat(self, repeats: Any, axis: Any = None) -> Self:
        return self._apply("repeat", self, repeats, axis=axis)

    def round(self, mode: Any = None) -> Self:
        return self._apply("round", self, mode=mode)

    def clip(self, a_min: Any, a_max: Any) -> Self:
        return self._apply("clip", self, a_min, a_max)

    def conj(self) -> Self:
        return self

    def copy(self, name: str | None = None) -> Self:
        return self._apply("copy", self, name=name)

    def fill(self, value: Any) -> Self:
        return self._apply("fill", self, value)

    def zeros_like(self, dtype: Any = None) -> Self:
        return self._apply("zeros_like", self, dtype=dtype)

    def ones_like(self, dtype: Any = None) -> Self:
        return self._apply("ones_like", self, dtype=dtype)

    def take(self, indices: Any, axis: Any = None) -> Self:
        return self._apply("take", self, indices, axis=axis)

    def sort(self, axis: int | None = -1) -> Self:
        return self._apply("sort", self, axis=axis)

    def argsort(self, axis: int | None = -1) -> Self:
        return self._apply("argsort", self, axis=axis)

    def nonzero(self) -> tuple[Self, ...]:
        return self._apply("nonzero", self)  # type: ignore[return-value]

    def nonzero_values(self) -> Self:
        return self._apply("nonzero_values", self)

    def choose(self, choices: Any) -> Self:
        return self._apply("choose", self, choices)

    def searchsorted(self, v: Any, side: str = "left") -> Self:
        return self._apply("searchsorted", self, v, side=side)

    def ptp(self, axis: Any = None) -> Self:
        return self._apply("ptp", self, axis=axis)

    def get_scalar_constant_value(self) -> Any:
        return self._apply("get_scalar_constant_value", self)
