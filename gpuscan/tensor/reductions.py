"""Reductions that are compositions of those in ops/reduce.py."""

from __future__ import annotations

import math
from typing import Any

from ..gradient import disconnected_grad
from ..graph import Variable
from ..ops import reduce as r
from ..ops.convert import as_tensor, constant
from ..ops.elemwise import cast
from ..ops.scalar import abs_, exp, isinf, log, neq, pow, sqr, sqrt, switch
from ..ops.shape import dims, product
from ..types import float_dtype
from .elementwise import maximum, minimum


def size(x: Any) -> Variable:
    """The number of elements, an int64 scalar."""
    return product(dims(as_tensor(x)))


def norm(x: Any, L: Any = 2, axis: Any = None, keepdims: bool = False) -> Variable:
    """The L-norm over axes (None: all): (sum |x|^L)^(1/L); the largest |x| for L = inf, the
    smallest for -inf, and the number of nonzeros for 0."""
    x = as_tensor(x)
    x = cast(x, float_dtype(x.dtype))
    match L:
        case 0:
            return cast(r.sum(neq(x, 0), axis=axis, keepdims=keepdims), x.dtype)
        case 1:
            return r.sum(abs_(x), axis=axis, keepdims=keepdims)
        case 2:
            return sqrt(r.sum(sqr(x), axis=axis, keepdims=keepdims))
    if L in (math.inf, -math.inf):
        extreme = r.max if L > 0 else r.min
        return extreme(abs_(x), axis=axis, keepdims=keepdims)
    powers = r.sum(pow(abs_(x), constant(L, dtype=x.dtype)), axis=axis, keepdims=keepdims)
    return pow(powers, constant(1.0 / L, dtype=x.dtype))


def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Variable:
    """log(sum(exp(x))) over axes (None: all), without overflow."""
    x = as_tensor(x)
    x = cast(x, float_dtype(x.dtype))
    largest = r.max(x, axis=axis, keepdims=True)
    # any finite shift gives the same value, so its gradient is zero and is not computed
    shift = disconnected_grad(switch(isinf(largest), 0, largest))
    total = log(r.sum(exp(x - shift), axis=axis, keepdims=True)) + shift
    return total if keepdims else r.sum(total, axis=axis)


def largest(*xs: Any) -> Variable:
    """The elementwise maximum of the arguments; of one argument, its maximum."""
    return r.max(xs[0]) if len(xs) == 1 else maximum(*xs)


def smallest(*xs: Any) -> Variable:
    """The elementwise minimum of the arguments; of one argument, its minimum."""
    return r.min(xs[0]) if len(xs) == 1 else minimum(*xs)
