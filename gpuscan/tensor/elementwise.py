"""Elementwise functions that are compositions of those in ops/scalar.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ..graph import Variable
from ..ops import scalar as s
from ..ops.control import derived_from
from ..ops.convert import as_tensor, constant
from ..ops.elemwise import cast, full_like
from ..ops.reduce import all as all_
from ..types import float_dtype


def _folded(f: Callable[..., Variable], xs: Sequence[Any]) -> Variable:
    """f(f(x0, x1), x2) ..., and x0 where it is alone."""
    result: Variable = as_tensor(xs[0])
    for x in xs[1:]:
        result = f(result, x)
    return result


def add(*terms: Any) -> Variable:
    """The sum of all the arguments."""
    return _folded(s.add, terms)


def mul(*factors: Any) -> Variable:
    """The product of all the arguments."""
    return _folded(s.mul, factors)


def maximum(*xs: Any) -> Variable:
    """The largest of the arguments, elementwise; NaN where one of them is."""
    return _folded(s.maximum, xs)


def minimum(*xs: Any) -> Variable:
    """The smallest of the arguments, elementwise; NaN where one of them is."""
    return _folded(s.minimum, xs)


def and_(*xs: Any) -> Variable:
    """The bitwise and of bools or integers."""
    return _folded(s.and_, xs)


def or_(*xs: Any) -> Variable:
    """The bitwise or of bools or integers."""
    return _folded(s.or_, xs)


def xor(*xs: Any) -> Variable:
    """The bitwise exclusive or of bools or integers."""
    return _folded(s.xor, xs)


def divmod(x: Any, y: Any) -> list[Variable]:
    """The quotient rounded down, and the remainder."""
    return [s.int_div(x, y), s.mod(x, y)]


def ceil_intdiv(x: Any, y: Any) -> Variable:
    """The quotient of integers rounded up."""
    quotient = s.int_div(x, y)
    return quotient + cast(s.neq(s.mod(x, y), 0), quotient.dtype)


def _floats(*xs: Any) -> list[Variable]:
    """The arguments in their common float dtype."""
    variables = [as_tensor(x) for x in xs]
    dtype = float_dtype(*[x.dtype for x in variables])
    return [cast(x, dtype) for x in variables]


def deg2rad(x: Any) -> Variable:
    """Degrees as radians."""
    (v,) = _floats(x)
    return s.mul(v, constant(math.pi / 180, dtype=v.dtype))


def rad2deg(x: Any) -> Variable:
    """Radians as degrees."""
    (v,) = _floats(x)
    return s.mul(v, constant(180 / math.pi, dtype=v.dtype))


def round(a: Any, mode: str | None = None) -> Variable:
    """The nearest whole number. mode: "half_to_even" (the default) or "half_away_from_zero"."""
    match mode:
        case None | "half_to_even":
            return s.round_half_to_even(a)
        case "half_away_from_zero":
            return s.round_half_away_from_zero(a)
    raise ValueError(f"round: mode {mode!r} is neither 'half_to_even' nor 'half_away_from_zero'")


def iround(a: Any, mode: str | None = None) -> Variable:
    """The nearest whole number, as int64."""
    return cast(round(a, mode), "int64")


def isclose(
    a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Variable:
    """Where |a - b| <= atol + rtol |b|, or both are the same infinity, or, with equal_nan, both
    are NaN."""
    a, b = _floats(a, b)
    bound = constant(atol, dtype=b.dtype) + constant(rtol, dtype=b.dtype) * s.abs_(b)
    near = s.and_(s.le(s.abs_(a - b), bound), s.invert(s.isinf(b)))
    close = s.or_(near, s.eq(a, b))
    return s.or_(close, s.and_(s.isnan(a), s.isnan(b))) if equal_nan else close


def allclose(
    a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Variable:
    """Whether isclose holds everywhere: a bool scalar."""
    return all_(isclose(a, b, rtol, atol, equal_nan))


def isfinite(x: Any) -> Variable:
    """Where x is neither infinite nor NaN."""
    return s.invert(s.or_(s.isinf(x), s.isnan(x)))


def logical_not(x: Any) -> Variable:
    """Where x is zero."""
    return s.eq(x, 0)


def logical_and(x: Any, y: Any) -> Variable:
    """Where both are nonzero."""
    return s.and_(s.neq(x, 0), s.neq(y, 0))


def logical_or(x: Any, y: Any) -> Variable:
    """Where one or both are nonzero."""
    return s.or_(s.neq(x, 0), s.neq(y, 0))


def real(x: Any) -> Variable:
    """x itself: every dtype is real."""
    v: Variable = as_tensor(x)
    return v


conj = real


def fill(a: Any, b: Any) -> Variable:
    """b, with its own dtype, repeated to a's shape."""
    b = as_tensor(b)
    return derived_from([as_tensor(a)], full_like(a, b, b.dtype))


def zeros_like(x: Any, dtype: Any = None, opt: bool = False) -> Variable:
    """Zeros of x's shape, and dtype unless another is given."""
    return derived_from([as_tensor(x)], full_like(x, 0, dtype))


def ones_like(x: Any, dtype: Any = None, opt: bool = False) -> Variable:
    """Ones of x's shape, and dtype unless another is given."""
    return derived_from([as_tensor(x)], full_like(x, 1, dtype))


def copy(x: Any, name: str | None = None) -> Variable:
    """A new variable with x's value."""
    copied = s.identity(x)
    if name is not None:
        copied.name = name
    return copied


def default(x: Any, value: Any) -> Variable:
    """x, or the value where x is None."""
    v: Variable = as_tensor(value if x is None else x)
    return v
