"""Sines, tangents and their inverses. Reduction by Cody and Waite, or Payne and Hanek."""

import numpy as np

from .blocks import Array, bits, horner, real
from .tables import Real


def _multiply_high(t: Real, a: Array, b: Array) -> Array:
    half = t.width // 2
    mask = (1 << half) - 1
    al, ah, bl, bh = a & mask, a >> half, b & mask, b >> half
    mid = ah * bl + ((al * bl) >> half)
    low = al * bh + (mid & mask)
    y: Array = ah * bh + (mid >> half) + (low >> half)
    return y


def _reduce_large(t: Real, a: Array) -> tuple[Array, Array]:
    """r and n, a = n pi/2 + r modulo 2 pi, for a >= REDUCE_MAX: m 2^e times the bits of 2 / pi."""
    u = bits(t, a)
    one = 1 << t.fraction
    m = (u & (one - 1)) | one
    # Bits above the weight 2 only add whole turns, so the window starts at bit e - 1.
    at = (u >> t.fraction) - (t.bias + t.fraction + 2 - t.width)
    word, shift = (at // t.width).astype(np.intp), at % t.width
    w = [t.two_over_pi[np.minimum(word + i, len(t.two_over_pi) - 1)] for i in range(4)]
    # Twice, since a shift by the whole width is undefined.
    w0, w1, w2 = ((w[i] << shift) | ((w[i + 1] >> 1) >> (t.width - 1 - shift)) for i in range(3))
    low = m * w1
    carry = _multiply_high(t, m, w2)
    low += carry
    high = m * w0 + _multiply_high(t, m, w1) + (low < carry)
    n = high >> (t.width - 2)
    high = (high << 2) | (low >> (t.width - 2))
    low = low << 2
    up = (high >> (t.width - 1)) != 0
    n = (n + up) & 3
    high = np.where(up, ~high, high)
    low = np.where(up, ~low, low)
    half = t.width // 2
    r = (high >> half).astype(t.dtype) * 2.0**-half
    r += (high & ((1 << half) - 1)).astype(t.dtype) * 2.0**-t.width
    r += (low >> half).astype(t.dtype) * 2.0 ** -(t.width + half)
    r *= t.HALF_PI
    return np.where(up, -r, r), n


def _reduce_circle(t: Real, x: Array) -> tuple[Array, Array]:
    """r in [-pi/4, pi/4] and n: |x| = n pi/2 + r."""
    a = np.abs(x)
    m = a * t.TWO_OVER_PI
    m += t.ROUND
    k = m - t.ROUND
    r = a - k * t.HALF_PI_1
    r -= k * t.HALF_PI_2
    r -= k * t.HALF_PI_3
    r -= k * t.HALF_PI_4
    n = bits(t, m) & 3
    large = np.nonzero((a > t.REDUCE_MAX) & (a < np.inf))[0]
    if large.size:
        r[large], n[large] = _reduce_large(t, a[large])
    return np.where(a < np.inf, r, np.nan).astype(t.dtype, copy=False), n


def _sine(t: Real, r: Array) -> Array:
    z = r * r
    y = horner(t.sin, z)
    y *= z
    y *= r
    y += r
    return y


def _cosine(t: Real, r: Array) -> Array:
    z = r * r
    y = horner(t.cos, z)
    y *= z
    y *= z
    # 1 - z/2 loses bits; they are put back.
    h = z * 0.5
    w = 1.0 - h
    y += 1.0 - w - h
    y += w
    return y


def _turn(t: Real, y: Array, n: Array) -> Array:
    """-y in the third and fourth quadrant."""
    return real(t, bits(t, y) ^ ((n >> 1) << (t.width - 1)))


def _sine_at(t: Real, r: Array, n: Array) -> Array:
    return _turn(t, np.where((n & 1) != 0, _cosine(t, r), _sine(t, r)), n & 3)


def sin_core(t: Real, x: Array) -> Array:
    """Sine, within 2.5 ulp for every finite x (Cody, Waite; Payne, Hanek beyond REDUCE_MAX)."""
    r, n = _reduce_circle(t, x)
    n ^= (bits(t, x) >> (t.width - 1)) << 1
    return _sine_at(t, r, n)


def cos_core(t: Real, x: Array) -> Array:
    """Cosine, within 2.5 ulp for every finite x; reduced as sin is."""
    r, n = _reduce_circle(t, x)
    return _sine_at(t, r, n + 1)


def tan_core(t: Real, x: Array) -> Array:
    """Tangent, within 3.5 ulp for every finite x; reduced as sin is."""
    r, n = _reduce_circle(t, x)
    s, c = _sine(t, r), _cosine(t, r)
    odd = (n & 1) != 0
    y = np.where(odd, -c, s) / np.where(odd, s, c)
    return real(t, bits(t, y) ^ (bits(t, x) & (1 << (t.width - 1))))


def half_turns(t: Real, a: Array) -> tuple[Array, Array]:
    """r and n, pi a = n pi/2 + r modulo 2 pi; a >= 0 finite, exact up to the product with pi."""
    q = a - np.floor(a * 0.5) * 2.0
    m = q * 2.0 + t.ROUND
    q -= (m - t.ROUND) * 0.5
    return q * t.PI, bits(t, m) & 3


def sine_pi(t: Real, a: Array) -> Array:
    r, n = half_turns(t, a)
    return _sine_at(t, r, n)


def cosine_pi(t: Real, a: Array) -> Array:
    r, n = half_turns(t, a)
    return _sine_at(t, r, n + 1)


def _arctan_ratio(t: Real, z: Array, inverse: Array) -> Array:
    """arctan z, or arctan 1/z, for z in [0, 1]."""
    mid = z > t.TAN_PI_8
    z = np.where(mid, (z - 1.0) / (z + 1.0), z)
    w = z * z
    y: Array = horner(t.atan, w) * w * z + z
    y = np.where(mid, y + t.HALF_PI_LOW * 0.5 + t.QUARTER_PI, y)
    return np.where(inverse, t.HALF_PI - (y - t.HALF_PI_LOW), y)


def arctan_core(t: Real, x: Array) -> Array:
    """Inverse tangent, within 2.5 ulp."""
    a = np.abs(x)
    inverse = a > 1.0
    return np.copysign(_arctan_ratio(t, np.where(inverse, 1.0 / a, a), inverse), x)


def arctan2_core(t: Real, y: Array, x: Array) -> Array:
    """Angle of the point (x, y), within 3 ulp; signed zeros and infinities as in C."""
    a, b = np.abs(y), np.abs(x)
    inverse = a > b
    num, den = np.where(inverse, b, a), np.where(inverse, a, b)
    z = num / den
    z = np.where(den == 0.0, num, z)
    z = np.where(num == np.inf, 1.0, z).astype(t.dtype, copy=False)
    r = _arctan_ratio(t, z, inverse)
    r = np.where(np.signbit(x), t.PI - (r - t.PI_LOW), r)
    return np.copysign(np.where(np.isnan(x) | np.isnan(y), np.nan, r).astype(t.dtype), y)


def _arcsin_small(t: Real, a: Array, z: Array) -> Array:
    """arcsin a, z = a^2 <= 1/4."""
    y: Array = horner(t.asin, z) * z * a + a
    return y


def _arcsin_parts(t: Real, a: Array) -> tuple[Array, Array]:
    big = a > 0.5
    z = np.where(big, (1.0 - a) * 0.5, a * a)
    return big, _arcsin_small(t, np.where(big, np.sqrt(z), a), z)


def arcsin_core(t: Real, x: Array) -> Array:
    """Inverse sine, within 2.5 ulp; NaN outside [-1, 1]."""
    big, y = _arcsin_parts(t, np.abs(x))
    y = np.where(big, t.HALF_PI - (y + y - t.HALF_PI_LOW), y)
    return np.copysign(y, x)


def arccos_core(t: Real, x: Array) -> Array:
    """Inverse cosine, within 2 ulp; NaN outside [-1, 1]."""
    big, y = _arcsin_parts(t, np.abs(x))
    below = np.signbit(x)
    y = np.where(big, y + y, y)
    flat = t.HALF_PI - (np.where(below, -y, y) - t.HALF_PI_LOW)
    return np.where(big, np.where(below, t.PI - (y - t.PI_LOW), y), flat)
