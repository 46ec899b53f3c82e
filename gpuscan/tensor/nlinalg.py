"""Matrices: inverse, determinant, decompositions, powers and norms."""

from __future__ import annotations

import math
from typing import Any

from ..graph import Variable
from ..ops import reduce as r
from ..ops.convert import as_tensor
from ..ops.create import alloc_diag, diag, diagonal, eye, trace
from ..ops.decompositions import (
    SVD,
    Det,
    Eigh,
    MatrixInverse,
    MatrixPinv,
    det,
    eigh,
    matrix_inverse,
    pinv,
    qr,
    solve,
    svd,
)
from ..ops.elemwise import cast
from ..ops.linalg import dot
from ..ops.scalar import abs_
from ..types import float_dtype
from .reductions import norm as vector_norm

__all__ = [
    "SVD", "Det", "Eigh", "MatrixInverse", "MatrixPinv", "alloc_diag", "det", "diag", "eigh",
    "extract_diag", "inv", "matrix_dot", "matrix_inverse", "matrix_power", "norm", "pinv", "qr",
    "svd", "tensorinv", "tensorsolve", "trace",
]  # fmt: skip

inv = matrix_inverse


def extract_diag(x: Any) -> Variable:
    """The main diagonal of a matrix."""
    return diagonal(as_tensor(x))


def matrix_dot(*matrices: Any) -> Variable:
    """The product of all the matrices, from the left."""
    result: Variable = as_tensor(matrices[0])
    for m in matrices[1:]:
        result = dot(result, m)
    return result


def matrix_power(M: Any, n: int) -> Variable:
    """The product of n copies of a square matrix, by repeated squaring; n < 0 inverts first."""
    base: Variable = as_tensor(M) if n >= 0 else matrix_inverse(M)
    match abs(n):
        case 0:
            return eye(base.shape[0], dtype=base.dtype)
        case 1:
            return base
        case k:
            half = matrix_power(base, k // 2)
            return dot(half, half) if k % 2 == 0 else dot(dot(half, half), base)


def norm(x: Any, ord: Any = None) -> Variable:
    """The norm of a vector (ord as NumPy's: any number, None is 2) or of a matrix (None or
    'fro', 'nuc', 1, -1, 2, -2, inf, -inf)."""
    x = as_tensor(x)
    x = cast(x, float_dtype(x.dtype))
    if x.ndim == 1 or ord is None:
        return vector_norm(x, 2 if ord is None else ord)
    if x.ndim != 2:
        raise ValueError(f"norm: a vector or a matrix is needed, got {x.type}")
    ord = float(ord) if ord in ("inf", "-inf") else ord
    match ord:
        case "fro":
            return vector_norm(x, 2)
        case "nuc":
            return r.sum(svd(x, compute_uv=False))
    if ord not in (1, -1, 2, -2, math.inf, -math.inf):
        raise ValueError(f"norm: ord={ord!r} is not a norm of matrices")
    if ord in (2, -2):
        values = svd(x, compute_uv=False)
    else:
        values = r.sum(abs_(x), axis=0 if ord in (1, -1) else 1)
    return r.max(values) if ord > 0 else r.min(values)


def tensorinv(a: Any, ind: int = 2) -> Variable:
    """The inverse of tensordot by a: its first `ind` axes against the others."""
    a = as_tensor(a)
    if not 0 < ind < a.ndim:
        raise ValueError(f"tensorinv: ind={ind} of a tensor with {a.ndim} dimensions")
    sizes = [a.shape[i] for i in range(a.ndim)]
    rows = r.prod(a.shape[:ind])
    flat = matrix_inverse(a.reshape([rows, -1], ndim=2))
    return flat.reshape([*sizes[ind:], *sizes[:ind]], ndim=a.ndim)


def tensorsolve(a: Any, b: Any) -> Variable:
    """The x with tensordot(a, x, x.ndim) = b; a's leading axes are b's."""
    a, b = as_tensor(a), as_tensor(b)
    sizes = [a.shape[i] for i in range(b.ndim, a.ndim)]
    flat = solve(a.reshape([r.prod(b.shape), -1], ndim=2), b.flatten())
    return flat.reshape(sizes, ndim=len(sizes))
