"""Contractions: dot, batched dot, tensordot and outer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..graph import Op, Variable
from ..record import record
from ..types import TensorType, shape_text
from .convert import as_tensor
from .elemwise import promoted
from .shape import broadcast_to, dim, dims, dimshuffle, product, reshape, specify


@record
class Dot(Op):
    """The product of vectors and matrices: the last axis of x against the first of y."""

    def infer(self, x: TensorType, y: TensorType) -> TensorType:
        if not (1 <= x.ndim <= 2 and 1 <= y.ndim <= 2):
            raise TypeError(f"Dot takes vectors and matrices, got {x} and {y}")
        a, b = x.shape[-1], y.shape[0]
        if a is not None and b is not None and a != b:
            raise ValueError(
                f"Shape mismatch in dot: {shape_text(x.shape)} and {shape_text(y.shape)}: "
                f"x has {a} columns (and y has {b} rows)"
            )
        return TensorType(x.dtype, x.shape[:-1] + y.shape[1:])

    def eval(self, x: Any, y: Any) -> Any:
        if x.shape[-1] != y.shape[0]:
            raise ValueError(
                f"Shape mismatch in dot: {x.shape} and {y.shape}: "
                f"x has {x.shape[-1]} columns (and y has {y.shape[0]} rows)"
            )
        return np.dot(x, y)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        x, y = inputs
        if not output.type.is_float:
            return [None, None]
        match x.ndim, y.ndim:
            case 1, 1:
                return [_fit(g * y, x), _fit(g * x, y)]
            case 2, 1:
                return [_fit(outer(g, y), x), _fit(dot(x.T, g), y)]
            case 1, 2:
                return [_fit(dot(y, g), x), _fit(outer(x, g), y)]
        return [_fit(dot(g, y.T), x), _fit(dot(x.T, g), y)]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        x, y = inputs
        return dims(x)[:-1] + dims(y)[1:]

    def batch(self, inputs: Sequence[Variable], batched: Sequence[bool], n: Variable) -> Variable:
        x, y = inputs
        if not batched[1]:  # the rows of all steps under one another: one GEMM
            return dot(x, y)
        if not batched[0]:  # x . y[t]: the last axis of y[t] first, then the same
            if y.ndim == 2:
                return dot(y, x.T)
            x = broadcast_to(x, [n, *dims(x)])
        rows = dimshuffle(x, 0, "x", 1) if x.ndim == 2 else x
        columns = dimshuffle(y, 0, 1, "x") if y.ndim == 2 else y
        product_ = BatchedDot()(rows, columns)
        if y.ndim == 2:
            product_ = dimshuffle(product_, 0, 1)
        if x.ndim == 2:
            product_ = dimshuffle(product_, 0, *range(2, product_.ndim))
        return product_


def _fit(g: Variable, x: Variable) -> Variable:
    """g is of x's shape, so it has the sizes that are known of x."""
    known = [b if b is not None else a for a, b in zip(g.type.shape, x.type.shape)]
    return specify(g, known)


def dot(x: Any, y: Any) -> Variable:
    """The product: a number times anything; vectors and matrices as in linear algebra; with more
    axes, the last axis of x against the second last of y, as NumPy's dot."""
    x, y = as_tensor(x), as_tensor(y)
    if x.ndim == 0 or y.ndim == 0:
        return x * y
    x, y = promoted(x, y)
    if x.ndim <= 2 and y.ndim <= 2:
        return Dot()(x, y)
    return tensordot(x, y, [[x.ndim - 1], [max(0, y.ndim - 2)]])


def matmul(x: Any, y: Any) -> Variable:
    """x @ y: matrices in the last two axes, broadcast over the leading ones, as NumPy's matmul."""
    x, y = as_tensor(x), as_tensor(y)
    if x.ndim == 0 or y.ndim == 0:
        raise ValueError("matmul: a number can't be an operand; use *")
    if x.ndim <= 2 and y.ndim <= 2:
        return dot(x, y)
    if y.ndim <= 2:
        return tensordot(x, y, [[x.ndim - 1], [0]])
    x, y = promoted(x, y)
    if x.ndim == 1:
        return dimshuffle_drop(matmul(dimshuffle(x, "x", 0), y), -2)
    lead = max(x.ndim, y.ndim) - 2
    x = dimshuffle(x, *["x"] * (lead + 2 - x.ndim), *range(x.ndim))
    y = dimshuffle(y, *["x"] * (lead + 2 - y.ndim), *range(y.ndim))
    sizes = [dim(y if x.type.shape[i] == 1 else x, i) for i in range(lead)]
    n = product(sizes)
    a = reshape(broadcast_to(x, [*sizes, *dims(x)[lead:]]), [n, *dims(x)[lead:]], ndim=3)
    b = reshape(broadcast_to(y, [*sizes, *dims(y)[lead:]]), [n, *dims(y)[lead:]], ndim=3)
    return reshape(batched_dot(a, b), [*sizes, dim(x, -2), dim(y, -1)], ndim=lead + 2)


def dimshuffle_drop(x: Variable, axis: int) -> Variable:
    """x without an axis of size 1."""
    return dimshuffle(x, *[i for i in range(x.ndim) if i != axis % x.ndim])


@record
class BatchedDot(Op):
    """The matrix products x[k] @ y[k]."""

    def infer(self, x: TensorType, y: TensorType) -> TensorType:
        if x.ndim != 3 or y.ndim != 3:
            raise TypeError(f"BatchedDot takes stacks of matrices, got {x} and {y}")
        for i, j in ((0, 0), (2, 1)):
            a, b = x.shape[i], y.shape[j]
            if a is not None and b is not None and a != b:
                raise ValueError(
                    f"Shape mismatch in batched_dot: {shape_text(x.shape)} and "
                    f"{shape_text(y.shape)}"
                )
        lead = x.shape[0] if x.shape[0] is not None else y.shape[0]
        return TensorType(x.dtype, (lead, x.shape[1], y.shape[2]))

    def eval(self, x: Any, y: Any) -> Any:
        if x.shape[0] != y.shape[0] or x.shape[2] != y.shape[1]:
            raise ValueError(f"Shape mismatch in batched_dot: {x.shape} and {y.shape}")
        return np.matmul(x, y)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        x, y = inputs
        return [
            _fit(batched_dot(g, dimshuffle(y, 0, 2, 1)), x),
            _fit(batched_dot(dimshuffle(x, 0, 2, 1), g), y),
        ]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        x, y = inputs
        return [*dims(x)[:2], dim(y, 2)]

    def batch(self, inputs: Sequence[Variable], batched: Sequence[bool], n: Variable) -> Variable:
        x, y = [v if b else broadcast_to(v, [n, *dims(v)]) for v, b in zip(inputs, batched)]
        flat = BatchedDot()(_merged(x), _merged(y))
        return reshape(flat, [n, dim(x, 1), dim(x, 2), dim(y, 3)], ndim=4)


def _merged(x: Variable) -> Variable:
    """The first two axes as one."""
    return reshape(x, [product(dims(x)[:2]), *dims(x)[2:]], ndim=x.ndim - 1)


def batched_dot(x: Any, y: Any) -> Variable:
    """dot(x[k], y[k]) for every k: the first axis of both is the batch."""
    x, y = promoted(as_tensor(x), as_tensor(y))
    if x.ndim == 0 or y.ndim == 0:
        raise TypeError("batched_dot: both tensors need a batch axis")
    if x.ndim == 1 or y.ndim == 1:
        return (
            dimshuffle(x, 0, *["x"] * (y.ndim - 1)) * y
            if x.ndim == 1
            else x * dimshuffle(y, 0, *["x"] * (x.ndim - 1))
        )
    if x.ndim > 3 or y.ndim > 3:
        return batched_tensordot(x, y, [[x.ndim - 1], [max(1, y.ndim - 2)]])
    rows = dimshuffle(x, 0, "x", 1) if x.ndim == 2 else x
    columns = dimshuffle(y, 0, 1, "x") if y.ndim == 2 else y
    result = BatchedDot()(rows, columns)
    kept = [0] + ([1] if x.ndim == 3 else []) + ([2] if y.ndim == 3 else [])
    return dimshuffle(result, *kept)


def _contraction(
    x: Variable, y: Variable, axes: Any, lead: int, what: str
) -> tuple[list[int], list[int]]:
    if isinstance(axes, int):
        return list(range(x.ndim - axes, x.ndim)), list(range(lead, lead + axes))
    a, b = ([v] if isinstance(v, int) else list(v) for v in axes)
    a, b = [i % x.ndim for i in a], [i % y.ndim for i in b]
    if len(a) != len(b):
        raise ValueError(f"{what}: {len(a)} axes of x against {len(b)} of y")
    return a, b


def tensordot(x: Any, y: Any, axes: Any = 2) -> Variable:
    """The sum of products over axes: an int n (the last n of x and first n of y) or a pair of
    lists of axes."""
    x, y = promoted(as_tensor(x), as_tensor(y))
    a, b = _contraction(x, y, axes, 0, "tensordot")
    free_x = [i for i in range(x.ndim) if i not in a]
    free_y = [i for i in range(y.ndim) if i not in b]
    if not a:
        flat = outer(reshape(x, [-1], ndim=1), reshape(y, [-1], ndim=1))
        return reshape(flat, [*dims(x), *dims(y)], ndim=x.ndim + y.ndim)
    # (a size of -1 has no meaning where another is 0)
    rows, columns = product([dim(x, i) for i in free_x]), product([dim(y, i) for i in free_y])
    inner_x, inner_y = product([dim(x, i) for i in a]), product([dim(y, i) for i in b])
    left = reshape(dimshuffle(x, *free_x, *a), [rows, inner_x], ndim=2)
    right = reshape(dimshuffle(y, *b, *free_y), [inner_y, columns], ndim=2)
    sizes = [dim(x, i) for i in free_x] + [dim(y, i) for i in free_y]
    return reshape(Dot()(left, right), sizes, ndim=len(sizes))


def batched_tensordot(x: Any, y: Any, axes: Any = 2) -> Variable:
    """tensordot(x[k], y[k]) for every k; the axes are counted with the batch axis."""
    x, y = promoted(as_tensor(x), as_tensor(y))
    a, b = _contraction(x, y, axes, 1, "batched_tensordot")
    free_x = [i for i in range(1, x.ndim) if i not in a]
    free_y = [i for i in range(1, y.ndim) if i not in b]
    inner = product([dim(x, i) for i in a])
    rows, columns = product([dim(x, i) for i in free_x]), product([dim(y, i) for i in free_y])
    left = reshape(dimshuffle(x, 0, *free_x, *a), [dim(x, 0), rows, inner], ndim=3)
    right = reshape(dimshuffle(y, 0, *b, *free_y), [dim(y, 0), inner, columns], ndim=3)
    sizes = [dim(x, 0), *(dim(x, i) for i in free_x), *(dim(y, i) for i in free_y)]
    return reshape(BatchedDot()(left, right), sizes, ndim=len(sizes))


def outer(x: Any, y: Any) -> Variable:
    """The products of every element of x with every one of y, as a matrix."""
    x, y = as_tensor(x), as_tensor(y)
    x = x if x.ndim == 1 else reshape(x, [-1], ndim=1)
    y = y if y.ndim == 1 else reshape(y, [-1], ndim=1)
    return dimshuffle(x, 0, "x") * dimshuffle(y, "x", 0)
