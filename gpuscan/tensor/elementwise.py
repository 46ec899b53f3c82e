"""Elementwise functions that are compositions of those in ops/scalar.py."""

from __future__ import annotations

import functools
import math
from typing import Any

from ..graph import Variable
from ..ops import scalar as s
from ..ops.convert import as_tensor, constant
from ..ops.elemwise import cast, full_like
from ..ops.reduce import all as all_
from ..types import float_dtype


def add(*terms: Any) -> Variable:
    """The sum of all the arguments."""
    return functools.reduce(s.add, terms[1:], as_tensor(terms[0]))


def mul(*factors: Any) -> Variable:
    """The product of all the arguments."""
    return functools.reduce(s.mul, factors[1:], as_tensor(factors[0]))


def maximum(*xs: Any) -> Variable:
    """The largest of the arguments, elementwise; NaN where one of them is."""
    return functools.reduce(s.maximum, xs[1:], as_tensor(xs[0]))


def minimum(*xs: Any) -> Variable:
    """The smallest of the arguments, elementwise; NaN where one of them is."""
    return functools.reduce(s.minimum, xs[1:], as_tensor(xs[0]))


def and_(*xs: Any) -> Variable:
    """The bitwise and of bools or integers."""
    return functools.reduce(s.and_, xs[1:], as_tensor(xs[0]))


def or_(*xs: Any) -> Variable:
    """The bitwise or of bools or integers."""
    return functools.reduce(s.or_, xs[1:], as_tensor(xs[0]))


def xor(*xs: Any) -> Variable:
    """The bitwise exclusive or of bools or integers."""
    return functools.reduce(s.xor, xs[1:], as_tensor(xs[0]))


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
    (x,) = _floats(x)
    return x * constant(math.pi / 180, dtype=x.dtype)


def rad2deg(x: Any) -> Variable:
    """Radians as degrees."""
    (x,) = _floats(x)
    return x * constant(180 / math.pi, dtype=x.dtype)


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
    return as_tensor(x)


conj = real


def fill(a: Any, b: Any) -> Variable:
    """b, with its own dtype, repeated to a's shape."""
    b = as_tensor(b)
    return full_like(a, b, b.dtype)


def copy(x: Any, name: str | None = None) -> Variable:
    """A new variable with x's value."""
    copied = s.identity(x)
    if name is not None:
        copied.name = name
    return copied


def default(x: Any, value: Any) -> Variable:
    """x, or the value where x is None."""
    return as_tensor(value if x is None else x)
