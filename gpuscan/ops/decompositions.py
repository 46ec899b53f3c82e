"""Inverses, determinants, decompositions and linear systems, by LAPACK through NumPy.

Matrices stand in the last two axes; leading axes are a batch. Operands are floats; float16 is
computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..graph import Op, Undefined, Variable, results
from ..record import record
from ..types import Shape, TensorType, TupleType, float_dtype, shape_text
from .convert import as_tensor
from .create import arange, tril
from .elemwise import cast
from .linalg import matmul
from .scalar import eq, switch
from .shape import broadcast_to, dim, dims, dimshuffle, specify


def _wide(x: Any) -> Any:
    return x.astype("float32") if x.dtype == "float16" else x


def _square(op: Op, x: TensorType) -> int | None:
    """The size of the square matrices. Raises TypeError or ValueError where x is not of them."""
    name = type(op).__name__
    if x.ndim < 2:
        raise TypeError(f"{name} takes matrices, got {x}")
    if not x.is_float:
        raise TypeError(f"{name} takes floats, got {x}; cast it first")
    a, b = x.shape[-2:]
    if a is not None and b is not None and a != b:
        raise ValueError(f"{name} takes square matrices, got shape {shape_text(x.shape)}")
    return b if a is None else a


def _matrix(op: Op, x: TensorType) -> None:
    if x.ndim < 2 or not x.is_float:
        raise TypeError(f"{type(op).__name__} takes matrices of floats, got {x}")


def transposed(x: Variable) -> Variable:
    """The matrices in the last two axes transposed."""
    return dimshuffle(x, *range(x.ndim - 2), x.ndim - 1, x.ndim - 2)


def _diagonal(x: Variable) -> Variable:
    """Vectors in the last axis as diagonal matrices."""
    return switch(_identity(dim(x, -1)), _unsqueezed(x), 0)


def _unsqueezed(x: Variable) -> Variable:
    return dimshuffle(x, *range(x.ndim - 1), "x", x.ndim - 1)


def _identity(n: Variable) -> Variable:
    """Where a square matrix of this size has its diagonal."""
    i = arange(n)
    return eq(dimshuffle(i, 0, "x"), dimshuffle(i, "x", 0))


def _symmetric_part(x: Variable) -> Variable:
    """The cotangent of the lower triangle, which alone is read, from that of all elements."""
    below = tril(x + transposed(x))
    return switch(_identity(dim(x, -1)), x, below)


def _fit(g: Variable, x: Variable) -> Variable:
    return specify(g, x.type.shape)


class _OfMatrix(Op):
    """A function of each matrix with a single operand."""

    def run(self, x: Any) -> Any:
        raise NotImplementedError

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        run = self.run
        if isinstance(node.type, TupleType):
            dtypes = [t.dtype for t in node.type.items]
            return lambda x: tuple(np.asarray(r, d) for r, d in zip(run(_wide(x)), dtypes))
        dtype = node.dtype
        return lambda x: np.asarray(run(_wide(x)), dtype)

    def batch(
        self, inputs: Sequence[Variable], batched: Sequence[bool], n: Variable
    ) -> Variable | None:
        return self(inputs[0])

    def connection(self, node: Variable) -> Sequence[Any]:
        several = isinstance(node.type, TupleType)
        return [set(range(len(node.type.items)))] if several else [True]


@record
class MatrixInverse(_OfMatrix):
    """The inverse of square matrices. Raises LinAlgError where there is none."""

    def infer(self, x: TensorType) -> TensorType:
        _square(self, x)
        return x

    def run(self, x: Any) -> Any:
        return np.linalg.inv(x)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        back = transposed(output)
        return [_fit(-matmul(matmul(back, g), back), inputs[0])]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return dims(inputs[0])


@record
class MatrixPinv(_OfMatrix):
    """The Moore-Penrose pseudo-inverse; the gradient is for a rank that stays as it is."""

    def infer(self, x: TensorType) -> TensorType:
        _matrix(self, x)
        return TensorType(x.dtype, (*x.shape[:-2], x.shape[-1], x.shape[-2]))

    def run(self, x: Any) -> Any:
        return np.linalg.pinv(x)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        x, p, pt, gt = inputs[0], output, transposed(output), transposed(g)
        inner = matmul(matmul(pt, g), pt)
        left = matmul(_eye_minus(matmul(x, p)), matmul(gt, matmul(p, pt)))
        right = matmul(matmul(pt, p), matmul(gt, _eye_minus(matmul(p, x))))
        return [_fit(left + right - inner, x)]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        *lead, rows, columns = dims(inputs[0])
        return [*lead, columns, rows]


def _eye_minus(x: Variable) -> Variable:
    return cast(_identity(dim(x, -1)), x.dtype) - x


@record
class Det(_OfMatrix):
    """The determinant of square matrices."""

    def infer(self, x: TensorType) -> TensorType:
        _square(self, x)
        return TensorType(x.dtype, x.shape[:-2])

    def run(self, x: Any) -> Any:
        return np.linalg.det(x)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        scale = dimshuffle(g * output, *range(g.ndim), "x", "x")
        return [_fit(scale * transposed(MatrixInverse()(inputs[0])), inputs[0])]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return dims(inputs[0])[:-2]


@record
class Cholesky(_OfMatrix):
    """The lower triangular L with L L' = x. Only the lower triangle of x is read.

    Raises LinAlgError where x is not positive definite.
    """

    def infer(self, x: TensorType) -> TensorType:
        _square(self, x)
        return x

    def run(self, x: Any) -> Any:
        return np.linalg.cholesky(x)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        half = tril(matmul(transposed(output), tril(g)))
        half = switch(_identity(dim(output, -1)), half / 2, half)
        upper = transposed(output)
        outer = Solve("upper")(upper, half)
        both = transposed(Solve("upper")(upper, transposed(outer)))
        return [_fit(_symmetric_part(both), inputs[0])]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return dims(inputs[0])


@record
class Solve(Op):
    """The X with a X = b for square matrices a and matrices b; `a` is "general", or "lower" or
    "upper" triangular: then its other triangle is not read. Raises LinAlgError for a singular a."""

    a: str = "general"

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        n = _square(self, a)
        if b.ndim != a.ndim or b.dtype != a.dtype:
            raise TypeError(f"Solve takes matrices of one dtype and ndim, got {a} and {b}")
        if n is not None and b.shape[-2] is not None and n != b.shape[-2]:
            raise ValueError(
                f"Solve: shapes {shape_text(a.shape)} and {shape_text(b.shape)} do not fit"
            )
        lead: Shape = tuple(s if s is not None else t for s, t in zip(a.shape[:-2], b.shape[:-2]))
        return TensorType(b.dtype, (*lead, *b.shape[-2:]))

    def eval(self, a: Any, b: Any) -> Any:
        wide = _wide(a)
        if self.a != "general":
            wide = np.tril(wide) if self.a == "lower" else np.triu(wide)
        return np.linalg.solve(wide, _wide(b)).astype(b.dtype, copy=False)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        a, b = inputs
        other = {"general": "general", "lower": "upper", "upper": "lower"}[self.a]
        gb = Solve(other)(transposed(a), g)
        ga = -matmul(gb, transposed(output))
        if self.a != "general":
            ga = tril(ga) if self.a == "lower" else transposed(tril(transposed(ga)))
        return [_fit(ga, a), _fit(gb, b)]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return [*dims(inputs[0])[:-1], dim(inputs[1], -1)]

    def batch(
        self, inputs: Sequence[Variable], batched: Sequence[bool], n: Variable
    ) -> Variable | None:
        rows = [x if b else broadcast_to(x, [n, *dims(x)]) for x, b in zip(inputs, batched)]
        return Solve(self.a)(*rows)

    @property
    def label(self) -> str:
        return "Solve" if self.a == "general" else f"Solve{{{self.a}}}"


@record
class Eigh(_OfMatrix):
    """Eigenvalues, rising, and eigenvectors, as columns, of symmetric matrices, of which only
    the lower triangle is read. The gradient needs eigenvalues that differ."""

    def infer(self, x: TensorType) -> TupleType:
        _square(self, x)
        return TupleType((TensorType(x.dtype, x.shape[:-1]), x))

    def run(self, x: Any) -> Any:
        return np.linalg.eigh(x)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        w, v = results(output)
        gw, gv = g
        middle: Any = 0
        for part in (gw, gv):
            if isinstance(part, Undefined):
                return [part]
        if gw is not None:
            middle = _diagonal(gw)
        if gv is not None:
            gaps = _unsqueezed(w) - dimshuffle(w, *range(w.ndim), "x")
            same = _identity(dim(v, -1))
            inverse_gaps = switch(same, 0, 1 / switch(same, 1, gaps))
            middle = middle + inverse_gaps * matmul(transposed(v), gv)
        full = matmul(matmul(v, middle), transposed(v))
        return [_fit(_symmetric_part(full), inputs[0])]


@record
class QR(_OfMatrix):
    """The factors Q, with orthonormal columns, and R, upper triangular, with Q R = x."""

    def infer(self, x: TensorType) -> TupleType:
        _matrix(self, x)
        rows, columns = x.shape[-2:]
        rank = None if rows is None or columns is None else min(rows, columns)
        lead = x.shape[:-2]
        return TupleType(
            (TensorType(x.dtype, (*lead, rows, rank)), TensorType(x.dtype, (*lead, rank, columns)))
        )

    def run(self, x: Any) -> Any:
        return np.linalg.qr(x)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return [Undefined("qr has no gradient in gpuscan")]


@record
class SVD(_OfMatrix):
    """U, the singular values (falling) and V' with U diag(s) V' = x; the square orthogonal U and
    V' where `full`, otherwise as many columns and rows as singular values."""

    full: bool = True

    def infer(self, x: TensorType) -> TupleType:
        _matrix(self, x)
        rows, columns = x.shape[-2:]
        rank = None if rows is None or columns is None else min(rows, columns)
        shapes = ((rows, rows if self.full else rank), (rank,),
                  (columns if self.full else rank, columns))  # fmt: skip
        return TupleType(tuple(TensorType(x.dtype, (*x.shape[:-2], *s)) for s in shapes))

    def run(self, x: Any) -> Any:
        return np.linalg.svd(x, self.full)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return [Undefined("svd has no gradient in gpuscan")]


# ---- builders -------------------------------------------------------------------------------


def _float(x: Any) -> Variable:
    x = as_tensor(x)
    return cast(x, float_dtype(x.dtype))


def matrix_inverse(x: Any) -> Variable:
    """The inverse of a square matrix, or of each in the last two axes."""
    return MatrixInverse()(_float(x))


def pinv(x: Any) -> Variable:
    """The Moore-Penrose pseudo-inverse."""
    return MatrixPinv()(_float(x))


def det(x: Any) -> Variable:
    """The determinant of a square matrix, or of each in the last two axes."""
    return Det()(_float(x))


def cholesky(x: Any) -> Variable:
    """The lower triangular L with L L' = x, for a symmetric positive definite x."""
    return Cholesky()(_float(x))


def eigh(x: Any, UPLO: str = "L") -> list[Variable]:
    """Eigenvalues and eigenvectors of a symmetric matrix, read from its lower or upper half."""
    x = _float(x)
    if UPLO not in ("L", "U"):
        raise ValueError(f"eigh: UPLO is 'L' or 'U', not {UPLO!r}")
    return results(Eigh()(x if UPLO == "L" else transposed(x)))


def qr(x: Any, mode: str = "reduced") -> Any:
    """The factors [Q, R], or R alone with mode="r"."""
    if mode not in ("reduced", "r"):
        raise ValueError(f"qr: mode is 'reduced' or 'r', not {mode!r}")
    q, r = results(QR()(_float(x)))
    return r if mode == "r" else [q, r]


def svd(x: Any, full_matrices: bool = True, compute_uv: bool = True) -> Any:
    """The factors [U, s, V'], or the singular values alone."""
    u, s, vt = results(SVD(full_matrices and compute_uv)(_float(x)))
    return [u, s, vt] if compute_uv else s


def _solved(kind: str, a: Any, b: Any) -> Variable:
    a, b = as_tensor(a), as_tensor(b)
    dtype = float_dtype(a.dtype, b.dtype)
    a, b = cast(a, dtype), cast(b, dtype)
    if b.ndim == a.ndim - 1:
        column = Solve(kind)(a, dimshuffle(b, *range(b.ndim), "x"))
        return dimshuffle(column, *range(b.ndim))
    return Solve(kind)(a, b)


def solve(a: Any, b: Any) -> Variable:
    """The x with a x = b; b is a vector or a matrix."""
    return _solved("general", a, b)


def solve_lower_triangular(a: Any, b: Any) -> Variable:
    """The x with a x = b, where only the lower triangle of a is read."""
    return _solved("lower", a, b)


def solve_upper_triangular(a: Any, b: Any) -> Variable:
    """The x with a x = b, where only the upper triangle of a is read."""
    return _solved("upper", a, b)
