"""The families without matrices as loops for Numba, with the generator that is fastest there."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from .cases import STRIDE, log_density

density = numba.njit(log_density)
STEP = np.float32(STRIDE)


@numba.njit
def moved(x: Any, y: Any, now: Any) -> Any:
    x1 = x + STEP * np.float32(np.random.normal())  # noqa: NPY002
    y1 = y + STEP * np.float32(np.random.normal())  # noqa: NPY002
    there = np.float32(density(x1, y1))
    if math.log(1 - np.random.random()) < there - now:  # noqa: NPY002
        return x1, y1, there
    return x, y, now


@numba.njit(parallel=True)
def chains(start: Any, n_steps: int) -> Any:
    end = np.empty_like(start)
    for k in numba.prange(start.shape[1]):
        x, y = start[0, k], start[1, k]
        now = np.float32(density(x, y))
        for _ in range(n_steps):
            x, y, now = moved(x, y, now)
        end[0, k], end[1, k] = x, y
    return end


@numba.njit
def one_chain(n_steps: int) -> Any:
    out = np.empty((2, n_steps), np.float32)
    x = y = now = np.float32(0)
    for t in range(n_steps):
        x, y, now = moved(x, y, now)
        out[0, t], out[1, t] = x, y
    return out


@numba.njit
def recurrence(e: Any, a: Any) -> Any:
    out = np.empty_like(e)
    y = np.float32(0)
    for t in range(len(e)):
        y = a * y + e[t]
        out[t] = y
    return out


VERSIONS = {
    "Metropolis": lambda c: lambda: c.statistics(*chains(c.start, c.steps)),
    "Chain": lambda c: lambda: c.statistics(*one_chain(c.steps)),
    "AR1": lambda c: lambda: {"y": recurrence(c.e, np.float32(c.a))},
}
