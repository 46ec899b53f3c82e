"""The normal distribution, erf, gamma and their kin."""

import numpy as np

from .blocks import Array, bits, horner, real
from .circular import cosine_pi, sine_pi
from .exponential import exp_core, expm1_reduced, log_core, power_of
from .tables import Real


def _normal_quantile(t: Real, q: Array, scale: float, tail: Array) -> Array:
    """AS241 at p = 1/2 + q scale, -log min(p, 1 - p) = tail, p inside (0, 1)."""
    z = q * scale
    mid = np.abs(z) <= 0.425
    z *= z
    z = 0.180625 - z
    y = horner(t.normal_mid_num, z)
    y *= q
    y *= scale
    y /= horner(t.normal_mid_den, z)
    out = np.nonzero(~mid)[0]
    if out.size:
        r = np.sqrt(tail[out])
        far = r > 5.0
        r -= np.where(far, 5.0, 1.6).astype(t.dtype)
        num = horner(t.normal_near_num, r)
        den = horner(t.normal_near_den, r)
        if far.any():
            num = np.where(far, horner(t.normal_far_num, r), num)
            den = np.where(far, horner(t.normal_far_den, r), den)
        num /= den
        y[out] = np.copysign(num, q[out])
    return y


def normal_icdf_core(t: Real, p: Array) -> Array:
    """Quantile of the standard normal, within 6 ulp in both tails (AS241, Wichura 1988)."""
    q = p - 0.5
    tail = -log_core(t, np.minimum(p, 1.0 - p))
    y = _normal_quantile(t, q, 1.0, tail)
    edge = ~((p > 0.0) & (p < 1.0))
    if edge.any():
        end = np.where(p == 0.0, -np.inf, np.where(p == 1.0, np.inf, np.nan))
        np.copyto(y, end, where=edge, casting="same_kind")
    return y


def _outside(t: Real, x: Array, end: float, y: Array) -> Array:
    """y inside (-1, 1), signed end at 1 and -1, NaN outside."""
    a = np.abs(x)
    edge = np.where(a == 1.0, np.copysign(np.asarray(end, t.dtype), x), np.nan)
    return np.where(a < 1.0, y, edge).astype(t.dtype, copy=False)


def erfinv_core(t: Real, x: Array) -> Array:
    """Inverse of erf, within 6 ulp (by AS241)."""
    tail = t.LN2 - log_core(t, 1.0 - np.abs(x))
    return _outside(t, x, np.inf, _normal_quantile(t, x, 0.5, tail) * t.SQRT_HALF)


def erfcinv_core(t: Real, x: Array) -> Array:
    """Inverse of erfc, within 6 ulp, for small x too (by AS241)."""
    s = 1.0 - x
    tail = t.LN2 - log_core(t, np.minimum(x, 2.0 - x))
    y = _normal_quantile(t, s, 0.5, tail) * t.SQRT_HALF
    y = np.where((x > 0.0) & (x < 2.0), y, np.nan)
    y = np.where(x == 0.0, np.inf, y)
    return np.where(x == 2.0, -np.inf, y).astype(t.dtype, copy=False)


def _erf_small(t: Real, x: Array) -> Array:
    return horner(t.erf, x * x) * x + x


def _erfc_tail(t: Real, a: Array) -> Array:
    """erfc a, a >= 1/2: (1 + 2a) e^(a^2) erfc a is a polynomial in (a - c) / (a + c)."""
    a = np.minimum(a, t.ERFC_MAX)
    y = horner(t.erfcx, (a - t.ERFCX_A) / (a + t.ERFCX_A)) / (a + a + 1.0)
    mask = ((1 << t.width) - 1) ^ ((1 << (t.fraction // 2 + 1)) - 1)
    high = real(t, bits(t, a) & mask)
    e = expm1_reduced(t, -((a - high) * (a + high)))
    return (y * e + y) * exp_core(t, -(high * high))


def erf_core(t: Real, x: Array) -> Array:
    """Error function, within 2.5 ulp."""
    a = np.abs(x)
    y = np.where(a < 0.5, _erf_small(t, a), 1.0 - _erfc_tail(t, a))
    return np.copysign(y, x)


def erfc_core(t: Real, x: Array) -> Array:
    """1 - erf(x), within 5 ulp in the tail too."""
    a = np.abs(x)
    tail = _erfc_tail(t, a)
    return np.where(a < 0.5, 1.0 - _erf_small(t, x), np.where(x < 0.0, 2.0 - tail, tail))


def _gammaln_positive(t: Real, a: Array) -> Array:
    below = a < 1.0
    y, product = a, np.where(below, a, 1.0).astype(t.dtype, copy=False)
    for _ in range(5):
        down = y >= 3.0
        y = np.where(down, y - 1.0, y)
        product = np.where(down, product * y, product)
    s = np.where(below, a - 1.0, y - 2.0)
    s1 = np.where(below, a, y - 1.0)
    small = s * s1 * horner(t.gammaln, s)
    logs = log_core(t, np.where(a < 8.0, product, a))
    small = np.where(below, small - logs, small + logs)
    w = 1.0 / a
    large = (a - 0.5) * (logs - 1.0) + (horner(t.stirling, w * w) * w + t.STIRLING_LN)
    return np.where(a < 8.0, small, large)


def gammaln_core(t: Real, x: Array) -> Array:
    """log |gamma(x)|: within 3 ulp for x > 0, a few eps absolute near its zeros below 0."""
    a = np.abs(x)
    y = _gammaln_positive(t, a)
    if (x < 0.0).any():
        mirror = t.LOG_PI - log_core(t, a) - log_core(t, np.abs(sine_pi(t, a))) - y
        mirror = np.where(np.floor(a) == a, np.inf, mirror)
        y = np.where(x < 0.0, mirror, y)
    y = np.where((a == np.inf) | (a == 0.0), np.inf, y)
    return np.where(np.isnan(x), np.nan, y).astype(t.dtype, copy=False)


def _gamma_positive(t: Real, a: Array) -> Array:
    below = a < 1.0
    y, product = a, np.ones_like(a)
    for _ in range(6):
        down = y >= 2.0
        y = np.where(down, y - 1.0, y)
        product = np.where(down, product * y, product)
    s = np.where(below, a, y - 1.0)
    small = product / (horner(t.rgamma, s) * np.where(below, a, 1.0).astype(t.dtype, copy=False))
    a = np.minimum(a, t.GAMMA_MAX)
    h = power_of(t, a, a * 0.5 - 0.25)
    w = 1.0 / a
    g = h * exp_core(t, -a) * h * t.SQRT_TWO_PI
    g = g * expm1_reduced(t, horner(t.stirling, w * w) * w) + g
    return np.where(a < 8.0, small, g)


def gamma_core(t: Real, x: Array) -> Array:
    """Gamma, within 5 ulp for x > 0, 8 below; NaN at -1, -2, ..."""
    a = np.abs(x)
    y = _gamma_positive(t, a)
    if (x < 0.0).any():
        mirror = -t.PI / (a * sine_pi(t, a) * y)
        mirror = np.where((np.floor(a) == a) | (a == np.inf), np.nan, mirror)
        # Near 0, a sin(pi a) would underflow.
        mirror = np.where(a < t.TINY_SQUARE, -y, mirror)
        y = np.where(x < 0.0, mirror, y)
    y = np.where(x == 0.0, np.copysign(np.asarray(np.inf, t.dtype), x), y)
    return np.where(np.isnan(x), np.nan, y).astype(t.dtype, copy=False)


def psi_core(t: Real, x: Array) -> Array:
    """Digamma, within 5 ulp for x > 0, a few eps absolute near zeros below 0; NaN at -1, ..."""
    mirror = x < 0.0
    b = np.abs(x)
    a = np.where(mirror, b + 1.0, b)
    below = a < 1.0
    y = a
    num = np.where(below, -1.0, 0.0).astype(t.dtype, copy=False)
    den = np.where(below, a, 1.0).astype(t.dtype, copy=False)
    for _ in range(6):
        down = y >= 2.0
        y = np.where(down, y - 1.0, y)
        num = np.where(down, num * y + den, num)
        den = np.where(down, den * y, den)
    s = np.where(below, a, y - 1.0)
    small = (s - (t.PSI_ROOT - 1.0) - t.PSI_ROOT_LOW) * horner(t.psi, s) + num / den
    w = 1.0 / a
    w2 = w * w
    large = log_core(t, a) - w * 0.5 - horner(t.psi_tail, w2) * w2
    r = np.where(a < 8.0, small, large)
    if mirror.any():
        turned = r + cosine_pi(t, b) / sine_pi(t, b) * t.PI
        turned = np.where((np.floor(b) == b) | (b == np.inf), np.nan, turned)
        r = np.where(mirror, turned, r)
    r = np.where(x == 0.0, np.copysign(np.asarray(np.inf, t.dtype), -x), r)
    r = np.where(np.isnan(x), np.nan, r)
    return np.where(x == np.inf, np.inf, r).astype(t.dtype, copy=False)
