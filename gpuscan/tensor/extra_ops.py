"""Theano's `extra_ops`: running sums, repetition, selection, and positions in a shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..graph import Variable
from ..ops.control import Assert
from ..ops.convert import as_tensor
from ..ops.create import fill_diagonal, fill_diagonal_offset, repeat, squeeze, to_one_hot
from ..ops.elemwise import cast
from ..ops.indexing import take
from ..ops.reduce import all as all_
from ..ops.reduce import cumprod, cumsum
from ..ops.scalar import clip, ge, int_div, lt, mod
from ..ops.shape import as_int64, product, sizes_list
from ..ops.sorting import bincount, diff, flatnonzero, searchsorted, unique

__all__ = [
    "bincount", "compress", "cumprod", "cumsum", "diff", "fill_diagonal", "fill_diagonal_offset",
    "ravel_multi_index", "repeat", "searchsorted", "squeeze", "to_one_hot", "unique",
    "unravel_index",
]  # fmt: skip


def compress(condition: Any, x: Any, axis: int | None = None) -> Variable:
    """The slices of x along an axis (None: its elements) where the vector condition is true."""
    return take(x, flatnonzero(condition), axis=axis)


def _strides(sizes: Sequence[Variable], order: str) -> list[Variable]:
    if order not in ("C", "F"):
        raise ValueError(f"order is 'C' or 'F', not {order!r}")
    if order == "F":
        return [product(sizes[:i]) for i in range(len(sizes))]
    return [product(sizes[i + 1 :]) for i in range(len(sizes))]


def _integers(x: Any, what: str) -> Variable:
    x = as_tensor(x)
    if x.type.is_float:
        raise TypeError(f"{what}: integers are needed, got {x.type}")
    return cast(x, "int64")


def unravel_index(indices: Any, dims: Any, order: str = "C") -> list[Variable]:
    """The coordinates, one tensor an axis, of positions in a flattened tensor of shape `dims`.

    Raises ValueError for a position out of range when it runs.
    """
    sizes = sizes_list(dims, "unravel_index")
    flat = _integers(indices, "unravel_index")
    inside = all_(ge(flat, 0) & lt(flat, product(sizes)))
    flat = Assert("unravel_index: a position is out of range")(flat, inside)
    return [mod(int_div(flat, s), n) for s, n in zip(_strides(sizes, order), sizes)]


def ravel_multi_index(
    multi_index: Sequence[Any], dims: Any, mode: str = "raise", order: str = "C"
) -> Variable:
    """Coordinates, one tensor an axis, as positions in the flattened tensor of shape `dims`.

    mode: what a coordinate out of range does: "raise", "wrap" around or "clip".
    """
    sizes = sizes_list(dims, "ravel_multi_index")
    coordinates = [_integers(i, "ravel_multi_index") for i in multi_index]
    if len(coordinates) != len(sizes):
        raise ValueError(
            f"ravel_multi_index: {len(coordinates)} coordinates for {len(sizes)} dimensions"
        )
    result: Any = as_int64(0)
    for i, n, stride in zip(coordinates, sizes, _strides(sizes, order)):
        match mode:
            case "raise":
                inside = all_(ge(i, 0) & lt(i, n))
                i = Assert("ravel_multi_index: a coordinate is out of range")(i, inside)
            case "wrap":
                i = mod(i, n)
            case "clip":
                i = clip(i, 0, n - 1)
            case _:
                raise ValueError(f"mode is 'raise', 'wrap' or 'clip', not {mode!r}")
        result = result + i * stride
    return result
