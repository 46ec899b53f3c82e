"""The normal distribution, erf, gamma and their kin."""

import numpy as np

from .blocks import Array, horner
from .exponential import log_core
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
    q = p - 0.5
    tail = -log_core(t, np.minimum(p, 1.0 - p))
    y = _normal_quantile(t, q, 1.0, tail)
    edge = ~((p > 0.0) & (p < 1.0))
    if edge.any():
        end = np.where(p == 0.0, -np.inf, np.where(p == 1.0, np.inf, np.nan))
        np.copyto(y, end, where=edge, casting="same_kind")
    return y
