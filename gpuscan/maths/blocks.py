"""How an elementwise function meets arrays: dtypes, shapes, blocks that fit the cache."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .tables import F32, F64, Real

Array = npt.NDArray[Any]
BLOCK = 8192
_REALS = {"e": F32, "f": F32, "d": F64}


def _blockwise(core: Callable[..., Array], t: Real, flat: tuple[Array, ...]) -> Array:
    size = flat[0].size
    if size <= BLOCK:
        return core(t, *flat)
    out = np.empty(size, t.dtype)
    for i in range(0, size, BLOCK):
        out[i : i + BLOCK] = core(t, *(x[i : i + BLOCK] for x in flat))
    return out


def elementwise(core: Callable[..., Array]) -> Callable[..., Any]:
    """The public form of core(t, x, ...), which is given flat arrays of t.dtype.

    float16 is computed in float32 and rounded; integers are computed in float64.
    Arguments broadcast and promote as NumPy's do.
    """

    @functools.wraps(core)
    def function(*args: Any) -> Any:
        arrays = [np.asarray(x) for x in args]
        if len(arrays) > 1:
            kind = np.result_type(*args)
            if arrays[0].shape != arrays[1].shape:
                arrays = list(np.broadcast_arrays(*arrays))
        else:
            kind = arrays[0].dtype
        t = _REALS.get(kind.char)
        if t is None:
            if kind.kind not in "iub":
                raise TypeError(f"{function.__name__}: no exact form for {kind}")
            t, kind = F64, np.dtype(np.float64)
        flat = tuple(x.reshape(-1).astype(t.dtype, copy=False) for x in arrays)
        with np.errstate(all="ignore"):
            y = _blockwise(core, t, flat).reshape(arrays[0].shape)
            if kind.char == "e":
                y = y.astype(np.float16)
        return y if isinstance(args[0], np.ndarray) or (len(args) > 1 and y.ndim) else y[()]

    # functools.wraps would show core's signature, which starts with the table.
    del function.__wrapped__
    function.__name__ = function.__qualname__ = core.__name__.removesuffix("_core")
    return function


def horner(coefficients: tuple[float, ...], x: Array) -> Array:
    y = x * coefficients[0]
    y += coefficients[1]
    for c in coefficients[2:]:
        y *= x
        y += c
    return y


def bits(t: Real, x: Array) -> Array:
    return x.view(t.bits)


def real(t: Real, u: Array) -> Array:
    return u.view(t.dtype)
