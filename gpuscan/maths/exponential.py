"""exp, log and what is made of them. Cores take a table and flat arrays; see blocks.py."""

import numpy as np

from .blocks import Array, bits, elementwise, horner, real
from .tables import Real


def _scale(t: Real, x: Array, k: Array) -> Array:
    """x * 2^k, k as the bits of (k + ROUND); two steps, so that denormals round once."""
    u = k - _round_bits(t)
    h = u >> 1
    low = (u - h - 1) << t.fraction
    h -= 1
    h <<= t.fraction
    y = x * real(t, h)
    y *= real(t, low)
    return y


def _round_bits(t: Real) -> int:
    """Taken from the bits of (k + ROUND), leaves k + 2 (bias + 1)."""
    return int(np.array(t.ROUND, t.dtype).view(t.bits)) - 2 * (t.bias + 1)


def _expm1_reduced(t: Real, r: Array) -> Array:
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
    x = np.minimum(x, t.EXP_MAX)
    np.maximum(x, t.EXP_MIN, out=x)
    r, k = _reduce(t, x)
    y = _expm1_reduced(t, r)
    y += 1.0
    return _scale(t, y, k)


def exp2_core(t: Real, x: Array) -> Array:
    x = np.minimum(x, t.EXP2_MAX)
    np.maximum(x, t.EXP2_MIN, out=x)
    m = x + t.ROUND
    x -= m - t.ROUND
    x *= t.LN2
    y = _expm1_reduced(t, x)
    y += 1.0
    return _scale(t, y, bits(t, m))


def expm1_core(t: Real, x: Array) -> Array:
    z = np.minimum(x, t.EXP_MAX)
    np.maximum(z, t.EXPM1_MIN, out=z)
    r, m = _reduce(t, z)
    e = _expm1_reduced(t, r)
    # s = 2^(k-1), so that k = bias + 1 stays finite.
    s = real(t, (m - (_round_bits(t) + 2 * (t.bias + 1) - (t.bias - 1))) << t.fraction)
    y = e * s
    y += s - 0.5
    y += y
    y = np.where(np.abs(x) < 0.25, e, y)
    return np.where(x == 0.0, x, y)


def _log_split(t: Real, x: Array) -> tuple[Array, Array]:
    """k and f, x = 2^k (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)); x > 0 finite."""
    small = x < t.TINY
    u = bits(t, np.where(small, x * t.LIFT, x))
    start = int(np.array(t.SQRT_HALF, t.dtype).view(t.bits))
    one = t.bias << t.fraction
    # Biased, so that all stays unsigned.
    u = u + (one - start)
    k = real(t, (u >> t.fraction) | int(np.array(2.0**t.fraction, t.dtype).view(t.bits)))
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
    k, f = _log_split(t, x)
    half, y = _log_tail(t, f)
    y += k * t.LN2_LOW
    half -= y
    half -= f
    k *= t.LN2_HIGH
    k -= half
    return _log_ends(t, x, k)


def log1p_core(t: Real, x: Array) -> Array:
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
    e = exp_core(t, -np.abs(x))
    y = np.where(x >= 0.0, 1.0, e)
    e += 1.0
    y /= e
    return y


def tanh_core(t: Real, x: Array) -> Array:
    a = np.abs(x)
    np.minimum(a, t.TANH_MAX, out=a)
    a += a
    e = expm1_core(t, a)
    y = e / (e + 2.0)
    return np.copysign(y, x)


def softplus_core(t: Real, x: Array) -> Array:
    y = log1p_core(t, exp_core(t, -np.abs(x)))
    y += np.where(x > 0.0, x, 0.0)
    return y
