"""The table of elementwise functions: a line each with its dtypes, NumPy meaning, element
expression and derivative. In a derivative y is the result and g its cotangent.

Transcendental functions come from `maths`, whose C form in kernels/ gives the same bits.
"""

# mypy: disable-error-code="has-type"
# (derivatives name functions that stand further down)

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import maths
from ..types import DTYPES
from .convert import constant
from .elemwise import Elemwise, scalar
from .shape import number


def _integers_pass(f: Any) -> Any:
    """A rounding function that leaves integers as they are."""
    return lambda x: x if x.dtype.kind in "iub" else f(x)


def _no_bool(name: str, f: Any) -> Any:
    def run(*xs: Any) -> Any:
        if xs[0].dtype.kind == "b":
            raise TypeError(f"{name} of bools is not defined: cast them first")
        return f(*xs)

    return run


def _int_pow(x: Any, y: Any) -> Any:
    """Integers: a negative exponent gives what truncation leaves of the exact value."""
    if np.asarray(y).dtype.kind == "i" and np.any(np.asarray(y) < 0):
        powers = np.power(x, np.maximum(y, 0))
        small = np.where(x == 1, 1, np.where(x == -1, 1 - 2 * (y % 2), 0)).astype(x.dtype)
        return np.where(np.asarray(y) < 0, small, powers).astype(x.dtype)
    return np.power(x, y)


def _power(x: Any, y: Any) -> Any:
    return maths.power(x, y) if x.dtype.kind == "f" else _int_pow(x, y)


def _both(f: Any, integers: Any) -> Any:
    return lambda x, y: f(x, y) if x.dtype.kind == "f" else integers(x, y)


def _like(g: Any, value: float) -> Any:
    """A number of the cotangent's dtype, so that it does not promote it."""
    return constant(value, dtype=g.dtype)


# ---- arithmetic
add = scalar("add", 2, "promote", "same", np.add, "({0} + {1})", lambda a, b, y, g: (g, g))
sub = scalar(
    "sub", 2, "promote", "same", _no_bool("sub", np.subtract), "({0} - {1})",
    lambda a, b, y, g: (g, -g),
)  # fmt: skip
mul = scalar(
    "mul", 2, "promote", "same", np.multiply, "({0} * {1})", lambda a, b, y, g: (g * b, g * a)
)
true_div = scalar(
    "true_div", 2, "float", "same", np.true_divide, "({0} / {1})",
    lambda a, b, y, g: (g / b, -g * y / b),
)  # fmt: skip
int_div = scalar(
    "int_div", 2, "number", "same", _both(maths.floor_divide, np.floor_divide),
    "gs_floor_divide_{t}({0}, {1})",
)  # fmt: skip
mod = scalar(
    "mod", 2, "number", "same", _both(maths.mod, np.mod), "gs_mod_{t}({0}, {1})",
    lambda a, b, y, g: (g, -g * (a // b)),
)  # fmt: skip
neg = scalar(
    "neg", 1, "any", "same", _no_bool("neg", np.negative), "(-{0})", lambda x, y, g: -g
)  # fmt: skip
abs_ = scalar("abs_", 1, "any", "same", np.abs, "gs_abs_{t}({0})", lambda x, y, g: g * sgn(x))
sgn = scalar("sgn", 1, "any", "same", np.sign, "gs_sign_{t}({0})")
sqr = scalar("sqr", 1, "any", "same", lambda x: x * x, "gs_sqr_{t}({0})", lambda x, y, g: g * x * 2)
sqrt = scalar("sqrt", 1, "float", "same", np.sqrt, "gs_sqrt_{t}({0})", lambda x, y, g: g / (y + y))
inv = scalar("inv", 1, "float", "same", np.reciprocal, "(1 / {0})", lambda x, y, g: -g * y * y)
pow = scalar(
    "pow", 2, "number", "same", _power, "gs_power_{t}({0}, {1})",
    lambda a, b, y, g: (g * b * pow(a, b - 1), g * switch(eq(a, 0), 0, log(a) * y)),
)  # fmt: skip
maximum = scalar(
    "maximum", 2, "promote", "same", np.maximum, "gs_max_{t}({0}, {1})",
    lambda a, b, y, g: (switch(eq(y, a), g, 0), switch(eq(y, b), switch(eq(a, b), 0, g), 0)),
)  # fmt: skip
minimum = scalar(
    "minimum", 2, "promote", "same", np.minimum, "gs_min_{t}({0}, {1})",
    lambda a, b, y, g: (switch(eq(y, a), g, 0), switch(eq(y, b), switch(eq(a, b), 0, g), 0)),
)  # fmt: skip
clip = scalar(
    "clip", 3, "promote", "same", lambda x, lo, hi: np.minimum(np.maximum(x, lo), hi),
    "gs_min_{t}(gs_max_{t}({0}, {1}), {2})",
    lambda x, lo, hi, y, g: (
        switch(and_(ge(x, lo), le(x, hi)), g, 0), switch(lt(x, lo), g, 0), switch(gt(x, hi), g, 0)
    ),
)  # fmt: skip

# ---- comparison and choice
lt = scalar("lt", 2, "promote", "bool", np.less, "({0} < {1})")
le = scalar("le", 2, "promote", "bool", np.less_equal, "({0} <= {1})")
gt = scalar("gt", 2, "promote", "bool", np.greater, "({0} > {1})")
ge = scalar("ge", 2, "promote", "bool", np.greater_equal, "({0} >= {1})")
eq = scalar("eq", 2, "promote", "bool", np.equal, "({0} == {1})")
neq = scalar("neq", 2, "promote", "bool", np.not_equal, "({0} != {1})")
isnan = scalar("isnan", 1, "any", "bool", np.isnan, "({0} != {0})")
isinf = scalar("isinf", 1, "any", "bool", np.isinf, "gs_isinf_{t}({0})")
switch = scalar(
    "switch", 3, "switch", "same", np.where, "({0} ? {1} : {2})",
    lambda c, a, b, y, g: (None, switch(c, g, 0), switch(c, 0, g)),
)  # fmt: skip

# ---- bits
and_ = scalar("and_", 2, "bits", "same", np.bitwise_and, "({0} & {1})")
or_ = scalar("or_", 2, "bits", "same", np.bitwise_or, "({0} | {1})")
xor = scalar("xor", 2, "bits", "same", np.bitwise_xor, "({0} ^ {1})")
invert = scalar("invert", 1, "bits", "same", np.invert, "gs_not_{t}({0})")

# ---- rounding
floor = scalar("floor", 1, "any", "same", _integers_pass(np.floor), "gs_floor_{t}({0})")
ceil = scalar("ceil", 1, "any", "same", _integers_pass(np.ceil), "gs_ceil_{t}({0})")
trunc = scalar("trunc", 1, "any", "same", _integers_pass(np.trunc), "gs_trunc_{t}({0})")
round_half_to_even = scalar(
    "round_half_to_even", 1, "any", "same", _integers_pass(np.rint), "gs_rint_{t}({0})"
)
round_half_away_from_zero = scalar(
    "round_half_away_from_zero", 1, "any", "same",
    _integers_pass(lambda x: np.copysign(np.floor(np.abs(x) + x.dtype.type(0.5)), x)),
    "gs_round_{t}({0})",
)  # fmt: skip

# ---- exponentials and logarithms
exp = scalar("exp", 1, "float", "same", maths.exp, "gs_exp_{t}({0})", lambda x, y, g: g * y)
exp2 = scalar(
    "exp2",
    1,
    "float",
    "same",
    maths.exp2,
    "gs_exp2_{t}({0})",
    lambda x, y, g: g * y * _like(g, math.log(2)),
)
expm1 = scalar(
    "expm1", 1, "float", "same", maths.expm1, "gs_expm1_{t}({0})", lambda x, y, g: g * (y + 1)
)
log = scalar("log", 1, "float", "same", maths.log, "gs_log_{t}({0})", lambda x, y, g: g / x)
log2 = scalar(
    "log2", 1, "float", "same", maths.log2, "gs_log2_{t}({0})",
    lambda x, y, g: g / (x * _like(g, math.log(2))),
)  # fmt: skip
log10 = scalar(
    "log10", 1, "float", "same", maths.log10, "gs_log10_{t}({0})",
    lambda x, y, g: g / (x * _like(g, math.log(10))),
)  # fmt: skip
log1p = scalar(
    "log1p", 1, "float", "same", maths.log1p, "gs_log1p_{t}({0})", lambda x, y, g: g / (x + 1)
)
sigmoid = scalar(
    "sigmoid", 1, "float", "same", maths.sigmoid, "gs_sigmoid_{t}({0})",
    lambda x, y, g: _sigmoid_cotangent(y, g),
)  # fmt: skip
softplus = scalar(
    "softplus", 1, "float", "same", maths.softplus, "gs_softplus_{t}({0})",
    lambda x, y, g: g * sigmoid(x),
)  # fmt: skip


def _sigmoid_cotangent(y: Any, g: Any) -> Any:
    """g * y * (1 - y), without dividing by y or 1 - y where g comes from their logarithms: a
    cross-entropy's gradient is finite where the sigmoid rounds to 0 or 1."""
    op, inputs = g.op, g.inputs
    if op == Elemwise(add):
        return _sigmoid_cotangent(y, inputs[0]) + _sigmoid_cotangent(y, inputs[1])
    if op == Elemwise(neg):
        return -_sigmoid_cotangent(y, inputs[0])
    if op == Elemwise(true_div) and g.type.broadcastable == y.type.broadcastable:
        h, d = inputs
        if d is y:
            return h * (1 - y)
        if d.op == Elemwise(sub) and d.inputs[1] is y and number(d.inputs[0]) == 1:
            return h * y
    return g * y * (1 - y)


# ---- trigonometric and hyperbolic
sin = scalar("sin", 1, "float", "same", maths.sin, "gs_sin_{t}({0})", lambda x, y, g: g * cos(x))
cos = scalar("cos", 1, "float", "same", maths.cos, "gs_cos_{t}({0})", lambda x, y, g: -g * sin(x))
tan = scalar(
    "tan", 1, "float", "same", maths.tan, "gs_tan_{t}({0})", lambda x, y, g: g * (1 + y * y)
)
arcsin = scalar(
    "arcsin", 1, "float", "same", maths.arcsin, "gs_arcsin_{t}({0})",
    lambda x, y, g: g / sqrt(1 - x * x),
)  # fmt: skip
arccos = scalar(
    "arccos", 1, "float", "same", maths.arccos, "gs_arccos_{t}({0})",
    lambda x, y, g: -g / sqrt(1 - x * x),
)  # fmt: skip
arctan = scalar(
    "arctan", 1, "float", "same", maths.arctan, "gs_arctan_{t}({0})",
    lambda x, y, g: g / (1 + x * x),
)  # fmt: skip
arctan2 = scalar(
    "arctan2", 2, "float", "same", maths.arctan2, "gs_arctan2_{t}({0}, {1})",
    lambda a, b, y, g: (g * b / (a * a + b * b), -g * a / (a * a + b * b)),
)  # fmt: skip
sinh = scalar(
    "sinh", 1, "float", "same", maths.sinh, "gs_sinh_{t}({0})", lambda x, y, g: g * cosh(x)
)
cosh = scalar(
    "cosh", 1, "float", "same", maths.cosh, "gs_cosh_{t}({0})", lambda x, y, g: g * sinh(x)
)
tanh = scalar(
    "tanh", 1, "float", "same", maths.tanh, "gs_tanh_{t}({0})", lambda x, y, g: g * (1 - y * y)
)
arcsinh = scalar(
    "arcsinh", 1, "float", "same", maths.arcsinh, "gs_arcsinh_{t}({0})",
    lambda x, y, g: g / sqrt(x * x + 1),
)  # fmt: skip
arccosh = scalar(
    "arccosh", 1, "float", "same", maths.arccosh, "gs_arccosh_{t}({0})",
    lambda x, y, g: g / sqrt(x * x - 1),
)  # fmt: skip
arctanh = scalar(
    "arctanh", 1, "float", "same", maths.arctanh, "gs_arctanh_{t}({0})",
    lambda x, y, g: g / (1 - x * x),
)  # fmt: skip

# ---- special functions
_TWO_OVER_SQRT_PI = 2 / math.sqrt(math.pi)
erf = scalar(
    "erf", 1, "float", "same", maths.erf, "gs_erf_{t}({0})",
    lambda x, y, g: g * _like(g, _TWO_OVER_SQRT_PI) * exp(-x * x),
)  # fmt: skip
erfc = scalar(
    "erfc", 1, "float", "same", maths.erfc, "gs_erfc_{t}({0})",
    lambda x, y, g: -g * _like(g, _TWO_OVER_SQRT_PI) * exp(-x * x),
)  # fmt: skip
erfinv = scalar(
    "erfinv", 1, "float", "same", maths.erfinv, "gs_erfinv_{t}({0})",
    lambda x, y, g: g * _like(g, 1 / _TWO_OVER_SQRT_PI) * exp(y * y),
)  # fmt: skip
erfcinv = scalar(
    "erfcinv", 1, "float", "same", maths.erfcinv, "gs_erfcinv_{t}({0})",
    lambda x, y, g: -g * _like(g, 1 / _TWO_OVER_SQRT_PI) * exp(y * y),
)  # fmt: skip
normal_icdf = scalar(
    "normal_icdf", 1, "float", "same", maths.normal_icdf, "gs_normal_icdf_{t}({0})",
    lambda x, y, g: g * _like(g, math.sqrt(2 * math.pi)) * exp(y * y / 2),
)  # fmt: skip
gammaln = scalar(
    "gammaln", 1, "float", "same", maths.gammaln, "gs_gammaln_{t}({0})",
    lambda x, y, g: g * psi(x),
)  # fmt: skip
gamma = scalar(
    "gamma", 1, "float", "same", maths.gamma, "gs_gamma_{t}({0})", lambda x, y, g: g * y * psi(x)
)
psi = scalar("psi", 1, "float", "same", maths.psi, "gs_psi_{t}({0})", lambda x, y, g: _no_psi(x))


def _no_psi(x: Any) -> Any:
    raise NotImplementedError("psi (digamma) has no gradient in gpuscan")


# ---- the same value, another dtype
def _cast_derivative(x: Any, y: Any, g: Any) -> Any:
    return g.astype(x.dtype) if x.type.is_float else g  # gradients are never integers


def _whole(x: Any, dtype: str) -> Any:
    """Floats as integers, cut to whole numbers. What no integer is comes out as on x86, by NumPy's
    loops for one element (those for many differ for uint32): int32 stands for dtypes up to its
    size, but int64 for uint32, and its least for what it does not hold, NaN too; of that these
    have the low bits. uint64 has 2**63 added to what int64 makes of the rest, from 2**63 on."""
    bits = 31 if np.dtype(dtype).itemsize < 4 or dtype == "int32" else 63
    if x.dtype == "float16":
        x = x.astype("float32")  # which has 2**63
    wide, end = f"int{bits + 1}", x.dtype.type(2.0**bits)
    if x.size and x.min() >= -end and x.max() < end:  # no NaN, either
        return x.astype(wide).astype(dtype)
    far = x >= end if dtype == "uint64" else np.zeros((), bool)
    rest = np.where(far, x - end, x)
    found = np.where((rest >= -end) & (rest < end), rest, -end).astype(wide).astype(dtype)
    return found ^ (far.astype(dtype) << np.asarray(63, dtype)) if dtype == "uint64" else found


def _cast(x: Any, dtype: str) -> Any:
    is_cut = x.dtype.kind == "f" and np.dtype(dtype).kind in "iu"
    return _whole(x, dtype) if is_cut else x.astype(dtype)


for _dtype in DTYPES:  # the expression is that of floats as integers; else it is C's own
    scalar(
        f"cast_{_dtype}", 1, "any", _dtype, lambda x, d=_dtype: _cast(x, d),
        f"gs_{_dtype}_{{t}}({{0}})", _cast_derivative,
    )  # fmt: skip

identity = scalar(
    "identity", 1, "any", "same", lambda x: x.copy(), "{0}", lambda x, y, g: g
)  # Theano's tensor_copy
