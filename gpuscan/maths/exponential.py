"""exp, log and what is made of them. Cores take a table and flat arrays; see blocks.py."""

import numpy as np

from .blocks import Array, bits, horner, real
from .tables import F32, F64, Real


def _pattern(t: Real, x: float) -> int:
    return int(np.array(x, t.dtype).view(t.bits))


# By width. Taken from the bits of (k + ROUND), the first leaves k + 2 (bias + 1).
_ROUND = {t.width: _pattern(t, t.ROUND) - 2 * (t.bias + 1) for t in (F32, F64)}
_SQRT_HALF = {t.width: _pattern(t, t.SQRT_HALF) for t in (F32, F64)}
_ULP_ONE = {t.width: _pattern(t, 2.0**t.fraction) for t in (F32, F64)}


def _scale(t: Real, x: Array, k: Array) -> Array:
    """x * 2^k, k as the bits of (k + ROUND); two steps, so that denormals round once."""
    u = k - _ROUND[t.width]
    h = u >> 1
    low = (u - h - 1) << t.fraction
    h -= 1
    h <<= t.fraction
    y = x * real(t, h)
    y *= real(t, low)
    return y


def expm1_reduced(t: Real, r: Array) -> Array:
    """e^r - 1, |r| <= ln2 / 2."""
    y = horner(t.exp, r)
    y *= r
    y *= r
    y += r
    return y


def _reduce(t: Real, x: Array) -> tuple[Array, Array]:
    """r and the bits of k + ROUND, x = k ln2 + r."""
    m = x * t.LOG2E
    m += t.ROUND
    k = m - t.ROUND
    r = x - k * t.LN2_HIGH
    k *= t.LN2_LOW
    r -= k
    return r, bits(t, m)


def exp_core(t: Real, x: Array) -> Array:
    """e^x, within 1 ulp."""
    x = np.minimum(x, t.EXP_MAX)
    np.maximum(x, t.EXP_MIN, out=x)
    r, k = _reduce(t, x)
    y = expm1_reduced(t, r)
    y += 1.0
    return _scale(t, y, k)


def exp2_core(t: Real, x: Array) -> Array:
    """2^x, within 1 ulp; exact at integers."""
    x = np.minimum(x, t.EXP2_MAX)
    np.maximum(x, t.EXP2_MIN, out=x)
    m = x + t.ROUND
    x -= m - t.ROUND
    x *= t.LN2
    y = expm1_reduced(t, x)
    y += 1.0
    return _scale(t, y, bits(t, m))


def expm1_core(t: Real, x: Array) -> Array:
    """e^x - 1, within 2 ulp."""
    z = np.minimum(x, t.EXP_MAX)
    np.maximum(z, t.EXPM1_MIN, out=z)
    r, m = _reduce(t, z)
    e = expm1_reduced(t, r)
    # s = 2^(k-1), so that k = bias + 1 stays finite.
    s = real(t, (m - (_ROUND[t.width] + 2 * (t.bias + 1) - (t.bias - 1))) << t.fraction)
    y = e * s
    y += s - 0.5
    y += y
    y = np.where(np.abs(x) < 0.25, e, y)
    return np.where(x == 0.0, x, y)


def _log_split(t: Real, x: Array) -> tuple[Array, Array]:
    """k and f, x = 2^k (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)); x > 0 finite."""
    small = x < t.TINY
    u = bits(t, np.where(small, x * t.LIFT, x))
    start = _SQRT_HALF[t.width]
    one = t.bias << t.fraction
    # Biased, so that all stays unsigned.
    u = u + (one - start)
    k = real(t, (u >> t.fraction) | _ULP_ONE[t.width])
    k = k - (2.0**t.fraction + t.bias)
    k = np.where(small, k - t.LIFT_BITS, k)
    u &= (1 << t.fraction) - 1
    u += start
    return k, real(t, u) - 1.0


def _log_tail(t: Real, f: Array) -> tuple[Array, Array]:
    """f^2 / 2 and s (f^2/2 + R): log(1 + f) = f - (f^2/2 - s (f^2/2 + R)), as fdlibm has it."""
    s = f / (f + 2.0)
    z = s * s
    y = horner(t.log, z)
    y *= z
    half = f * 0.5
    half *= f
    y += half
    y *= s
    return half, y


def _log_ends(t: Real, x: Array, y: Array) -> Array:
    """y, with what log has at 0, below 0, at inf and NaN."""
    odd = ~((x > 0.0) & (x < np.inf))
    if odd.any():
        end = np.where(x == 0.0, -np.inf, np.where(x < 0.0, np.nan, x))
        np.copyto(y, end, where=odd, casting="same_kind")
    return y


def log_core(t: Real, x: Array) -> Array:
    """Natural logarithm, within 1 ulp (fdlibm's reduction)."""
    k, f = _log_split(t, x)
    half, y = _log_tail(t, f)
    y += k * t.LN2_LOW
    half -= y
    half -= f
    k *= t.LN2_HIGH
    k -= half
    return _log_ends(t, x, k)


def log1p_core(t: Real, x: Array) -> Array:
    """log(1 + x), within 1 ulp."""
    u = x + 1.0
    c = np.where(x >= 1.0, 1.0 - (u - x), x - (u - 1.0))
    c /= u
    k, f = _log_split(t, u)
    half, y = _log_tail(t, f)
    c += k * t.LN2_LOW
    y += c
    half -= y
    half -= f
    k *= t.LN2_HIGH
    k -= half
    y = _log_ends(t, u, k)
    return np.where(np.abs(x) < t.TINY, x, y)


def sigmoid_core(t: Real, x: Array) -> Array:
    """1 / (1 + e^-x), within 2.5 ulp, for large |x| too."""
    e = exp_core(t, -np.abs(x))
    y = np.where(x >= 0.0, 1.0, e)
    e += 1.0
    y /= e
    return y


def tanh_core(t: Real, x: Array) -> Array:
    """Hyperbolic tangent, within 2.5 ulp."""
    a = np.abs(x)
    np.minimum(a, t.TANH_MAX, out=a)
    a += a
    e = expm1_core(t, a)
    y = e / (e + 2.0)
    return np.copysign(y, x)


def softplus_core(t: Real, x: Array) -> Array:
    """log(1 + e^x), within 2 ulp, for large |x| too."""
    # log1p of e^-|x|, in [0, 1]: no ends to look after.
    e = exp_core(t, -np.abs(x))
    u = e + 1.0
    c = (e - (u - 1.0)) / u
    k, f = _log_split(t, u)
    half, y = _log_tail(t, f)
    c += k * t.LN2_LOW
    y += c
    half -= y
    half -= f
    k *= t.LN2_HIGH
    k -= half
    k += np.where(x > 0.0, x, 0.0)
    return k


def _log_parts(t: Real, f: Array) -> tuple[Array, Array]:
    """log(1 + f) in two parts, the first of few bits: log2 and log10 multiply it exactly."""
    half, tail = _log_tail(t, f)
    mask = ((1 << t.width) - 1) ^ ((1 << (t.fraction // 2 + 1)) - 1)
    high = real(t, bits(t, f - half) & mask)
    return high, f - high - half + tail


def log2_core(t: Real, x: Array) -> Array:
    """Logarithm to base 2, within 1 ulp; exact at powers of 2 (fdlibm)."""
    k, f = _log_split(t, x)
    high, low = _log_parts(t, f)
    a = high * t.LOG2E_HIGH
    b = (low + high) * t.LOG2E_LOW + low * t.LOG2E_HIGH
    w = k + a
    return _log_ends(t, x, b + (k - w + a) + w)


def log10_core(t: Real, x: Array) -> Array:
    """Logarithm to base 10, within 1 ulp (fdlibm)."""
    k, f = _log_split(t, x)
    high, low = _log_parts(t, f)
    a, c = high * t.LOG10E_HIGH, k * t.LOG10_2_HIGH
    b = (low + high) * t.LOG10E_LOW + low * t.LOG10E_HIGH + k * t.LOG10_2_LOW
    w = c + a
    return _log_ends(t, x, b + (c - w + a) + w)


def _half_exp(t: Real, a: Array) -> Array:
    """e^a / 2, where e^a may overflow."""
    h = exp_core(t, a * 0.5)
    return h * 0.5 * h


def sinh_core(t: Real, x: Array) -> Array:
    """Hyperbolic sine, within 3 ulp."""
    a = np.abs(x)
    e = exp_core(t, a)
    z = a * a
    y = e * 0.5 - 0.5 / e
    y = np.where(a > t.EXP_MAX - 1.0, _half_exp(t, a), y)
    y = np.where(a <= 1.0, horner(t.sinh, z) * z * a + a, y)
    return np.copysign(y, x)


def cosh_core(t: Real, x: Array) -> Array:
    """Hyperbolic cosine, within 3 ulp."""
    a = np.abs(x)
    e = exp_core(t, a)
    y = e * 0.5 + 0.5 / e
    return np.where(a > t.EXP_MAX - 1.0, _half_exp(t, a), y)


def arcsinh_core(t: Real, x: Array) -> Array:
    """Inverse hyperbolic sine, within 2 ulp."""
    a = np.abs(x)
    z = a * a
    y = log1p_core(t, z / (np.sqrt(z + 1.0) + 1.0) + a)
    y = np.where(a > t.BIG, log_core(t, a) + t.LN2, y)
    return np.copysign(y, x)


def arccosh_core(t: Real, x: Array) -> Array:
    """Inverse hyperbolic cosine, within 2 ulp; NaN below 1."""
    s = x - 1.0
    y = log1p_core(t, np.sqrt(s * s + (s + s)) + s)
    y = np.where(x > t.BIG, log_core(t, x) + t.LN2, y)
    return np.where(x < 1.0, np.nan, y).astype(t.dtype)


def arctanh_core(t: Real, x: Array) -> Array:
    """Inverse hyperbolic tangent, within 2 ulp; NaN outside [-1, 1]."""
    a = np.abs(x)
    return np.copysign(log1p_core(t, (a + a) / (1.0 - a)) * 0.5, x)


def _product_error(t: Real, a: Array, b: Array, p: Array) -> Array:
    """a b = p + this, p = a * b rounded (Dekker)."""
    c, d = a * t.SPLIT, b * t.SPLIT
    ah, bh = c - (c - a), d - (d - b)
    al, bl = a - ah, b - bh
    return ah * bh - p + ah * bl + al * bh + al * bl


def power_of(t: Real, a: Array, y: Array) -> Array:
    """a^y, a > 0 finite; log a and its product with y in two parts."""
    y = np.maximum(np.minimum(y, t.POWER_MAX), -t.POWER_MAX)
    k, f = _log_split(t, a)
    d = f + 2.0
    low = f - (d - 2.0)
    s = f / d
    p = s * d
    tail = (f - p - _product_error(t, s, d, p) - s * low) / d
    # w + rest = s^3 P(s^2), whose first term needs two parts too.
    z = s * s
    rest = _product_error(t, s, s, z) + (s + s) * tail
    q = horner(t.log_rest, z) * z
    c = q + t.LOG_CUBE
    low = t.LOG_CUBE - c + q + t.LOG_CUBE_LOW
    q = z * c
    rest = _product_error(t, z, c, q) + z * low + rest * c
    w = s * q
    rest = _product_error(t, s, q, w) + s * rest + tail * q
    rest = rest + (tail + tail) + k * t.LN2_LOW
    big, twice = k * t.LN2_HIGH, s + s
    h = big + twice
    low = twice - (h - big)
    high = h + w
    low = low + (w - (high - h)) + rest
    h = high + low
    low = low - (h - high)
    high = h
    p = high * y
    e = _product_error(t, high, y, p) + low * y
    e = np.where(np.abs(p) > -t.EXP_MIN, 0.0, e)
    p = np.maximum(np.minimum(p, t.EXP_MAX), t.EXP_MIN)
    r, m = _reduce(t, p)
    return _scale(t, expm1_reduced(t, r + e) + 1.0, m)


def power_core(t: Real, x: Array, y: Array) -> Array:
    """x^y as C's pow has it, within 1 ulp (Dekker's products)."""
    a, half = np.abs(x), y * 0.5
    r = power_of(t, a, y)
    whole = np.floor(y) == y
    odd = whole & (np.floor(half) != half)
    r = np.where(a == 0.0, np.where(y < 0.0, np.inf, 0.0), r)
    r = np.where(a == np.inf, np.where(y < 0.0, 0.0, np.inf), r)
    r = np.where((x < 0.0) & (a < np.inf) & ~whole, np.nan, r)
    r = np.where(odd, np.copysign(r, x), r)
    r = np.where(np.isnan(x) | np.isnan(y), np.nan, r)
    return np.where((y == 0.0) | (x == 1.0), 1.0, r).astype(t.dtype)


def mod_core(t: Real, a: Array, b: Array) -> Array:
    """Python's %: the divisor's sign; exact."""
    return np.asarray(np.mod(a, b))


def floor_divide_core(t: Real, a: Array, b: Array) -> Array:
    """Python's // for floats: NumPy's own."""
    return np.asarray(np.floor_divide(a, b))
