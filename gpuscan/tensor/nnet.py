"""Activations and losses."""

from __future__ import annotations

from typing import Any

from ..graph import Variable
from ..ops.convert import as_tensor, constant
from ..ops.create import arange
from ..ops.elemwise import cast
from ..ops.reduce import argmax, max, sum
from ..ops.scalar import (
    abs_,
    clip,
    exp,
    expm1,
    gt,
    log,
    lt,
    minimum,
    sigmoid,
    softplus,
    switch,
)
from ..ops.shape import dim, dimshuffle
from ..ops.softmax import LogSoftmax, Softmax
from ..types import float_dtype
from . import normalization as bn
from .normalization import (
    batch_normalization,
    batch_normalization_test,
    batch_normalization_train,
)

__all__ = [
    "LogSoftmax", "Softmax", "batch_normalization", "batch_normalization_test",
    "batch_normalization_train", "binary_crossentropy", "bn", "categorical_crossentropy",
    "crossentropy_categorical_1hot", "crossentropy_softmax_1hot",
    "crossentropy_softmax_1hot_with_bias", "crossentropy_softmax_argmax_1hot_with_bias",
    "crossentropy_softmax_max_and_argmax_1hot",
    "crossentropy_softmax_max_and_argmax_1hot_with_bias", "elu", "hard_sigmoid", "leaky_relu",
    "logsoftmax", "relu", "selu", "sigmoid", "sigmoid_binary_crossentropy", "softmax",
    "softmax_graph", "softmax_with_bias", "softplus", "softsign", "ultra_fast_sigmoid",
]  # fmt: skip


def _number(value: Any, x: Variable) -> Variable:
    """A Python number in x's float dtype, so that it does not promote x; anything else as it is."""
    plain = isinstance(value, int | float) and x.type.is_float
    v: Variable = constant(value, dtype=x.dtype) if plain else as_tensor(value)
    return v


def _float(x: Any) -> Variable:
    x = as_tensor(x)
    return cast(x, float_dtype(x.dtype))


# ---- activations ----------------------------------------------------------------------------


def hard_sigmoid(x: Any) -> Variable:
    """0.2 x + 0.5, clipped to [0, 1]."""
    x = _float(x)
    return clip(_number(0.2, x) * x + _number(0.5, x), _number(0, x), _number(1, x))


def ultra_fast_sigmoid(x: Any) -> Variable:
    """An approximation of the sigmoid with an error below 0.03: with h = |x| / 2 and its sign,
    tanh(h) is taken as 1.5 h / (1 + h) up to 1.7, as a line up to 3, and as 0.99505 beyond."""
    x = _float(x)
    h = abs_(x) * _number(0.5, x)
    line = _number(0.935409070603099, x) + _number(0.0458812946797165, x) * (h - _number(1.7, x))
    beyond = switch(lt(h, 3), line, _number(0.99505475368673, x))
    tanh = switch(lt(h, _number(1.7, x)), _number(1.5, x) * h / (1 + h), beyond)
    return _number(0.5, x) * (1 + switch(lt(x, 0), -tanh, tanh))


def relu(x: Any, alpha: Any = 0) -> Variable:
    """x where it is positive, otherwise alpha * x; alpha is a number or a tensor."""
    x = as_tensor(x)
    if isinstance(alpha, int | float) and alpha == 0:
        return switch(gt(x, 0), x, 0)
    return switch(gt(x, 0), x, _number(alpha, x) * x)


def leaky_relu(x: Any, alpha: Any = 0.01) -> Variable:
    """relu with a slope of 0.01 for negative values."""
    return relu(x, alpha)


def elu(x: Any, alpha: Any = 1) -> Variable:
    """x where it is positive, otherwise alpha * (exp(x) - 1)."""
    x = _float(x)
    return switch(gt(x, 0), x, _number(alpha, x) * expm1(minimum(x, 0)))


def selu(x: Any) -> Variable:
    """elu scaled so that activations keep zero mean and unit variance (Klambauer, 2017)."""
    x = _float(x)
    return _number(1.0507009873554805, x) * elu(x, 1.6732632423543772)


def softsign(x: Any) -> Variable:
    """x / (1 + |x|)."""
    v = _float(x)
    return v / (1 + abs_(v))


# ---- softmax --------------------------------------------------------------------------------


def _rows(x: Any) -> Variable:
    """Floats with one or two axes, as a matrix."""
    x = as_tensor(x)
    if x.ndim not in (1, 2) or not x.type.is_float:
        raise ValueError(f"x must be 1-d or 2-d tensor of floats. Got {x} of type {x.type}")
    return dimshuffle(x, "x", 0) if x.ndim == 1 else x


def softmax(c: Any) -> Variable:
    """The softmax of each row of a matrix. A vector is a matrix of one row, and the result too.

    Raises ValueError for another number of axes and for integers.
    """
    return Softmax(1)(_rows(c))


def logsoftmax(c: Any) -> Variable:
    """The logarithm of softmax(c), without overflow."""
    return LogSoftmax(1)(_rows(c))


def softmax_graph(c: Any) -> Variable:
    """The softmax over the last axis, as a graph of plain functions; any number of axes."""
    c = _float(c)
    e = exp(c - max(c, axis=-1, keepdims=True))
    return e / sum(e, axis=-1, keepdims=True)


def softmax_with_bias(x: Any, b: Any) -> Variable:
    """softmax(x + b) of a matrix and a vector."""
    return softmax(as_tensor(x) + b)


# ---- losses ---------------------------------------------------------------------------------


def _picked(x: Variable, which: Any) -> Variable:
    """Of each row the element that `which`, an integer vector, says."""
    which = as_tensor(which)
    if which.ndim != 1 or which.type.is_float:
        raise TypeError(f"an integer vector of classes is needed, got {which.type}")
    return x[arange(dim(which, 0)), which]


def crossentropy_categorical_1hot(coding_dist: Any, true_one_of_n: Any) -> Variable:
    """-log of each row's probability of its true class: matrix, integer vector -> vector."""
    # the log of the whole matrix, so that log(softmax(x)) meets the stable logsoftmax
    return -_picked(log(as_tensor(coding_dist)), true_one_of_n)


def categorical_crossentropy(coding_dist: Any, true_dist: Any) -> Variable:
    """-sum(true_dist * log(coding_dist)) over the last axis; true_dist holds distributions, or
    with one axis less the numbers of the true classes.

    Raises TypeError where the numbers of axes do not fit.
    """
    coding, true = as_tensor(coding_dist), as_tensor(true_dist)
    if true.ndim == coding.ndim:
        return -sum(true * log(coding), axis=coding.ndim - 1)
    if true.ndim == coding.ndim - 1 == 1:
        return crossentropy_categorical_1hot(coding, true)
    raise TypeError(
        f"rank mismatch between coding and true distributions: {coding.type} and {true.type}"
    )


def binary_crossentropy(output: Any, target: Any) -> Variable:
    """-(target log(output) + (1 - target) log(1 - output)), elementwise."""
    p: Variable = as_tensor(output)
    t: Variable = as_tensor(target)
    return -(t * log(p) + (1 - t) * log(1 - p))


def sigmoid_binary_crossentropy(output: Any, target: Any) -> Variable:
    """binary_crossentropy(sigmoid(output), target), exact also for large |output|."""
    x: Variable = as_tensor(output)
    t: Variable = as_tensor(target)
    return t * softplus(-x) + (1 - t) * softplus(x)


def crossentropy_softmax_argmax_1hot_with_bias(x: Any, b: Any, y_idx: Any) -> list[Variable]:
    """Of the matrix x + b: -log softmax at the classes y_idx, the softmax, and its argmax."""
    total = as_tensor(x) + b
    loss = -_picked(logsoftmax(total), y_idx)
    return [loss, softmax(total), argmax(total, axis=-1)]


def crossentropy_softmax_1hot_with_bias(x: Any, b: Any, y_idx: Any) -> list[Variable]:
    """Of the matrix x + b: -log softmax at the classes y_idx, and the softmax."""
    return crossentropy_softmax_argmax_1hot_with_bias(x, b, y_idx)[:2]


def crossentropy_softmax_1hot(x: Any, y_idx: Any) -> list[Variable]:
    """Of the matrix x: -log softmax at the classes y_idx, and the softmax."""
    x = as_tensor(x)
    return [-_picked(logsoftmax(x), y_idx), softmax(x)]


def crossentropy_softmax_max_and_argmax_1hot_with_bias(
    x: Any, b: Any, y_idx: Any
) -> list[Variable]:
    """Of the matrix x + b: the loss at the classes y_idx, the softmax, its maximum and argmax."""
    loss, softmaxed, best = crossentropy_softmax_argmax_1hot_with_bias(x, b, y_idx)
    return [loss, softmaxed, max(softmaxed, axis=-1), best]


def crossentropy_softmax_max_and_argmax_1hot(x: Any, y_idx: Any) -> list[Variable]:
    """Of the matrix x: the loss at the classes y_idx, the softmax, its maximum and argmax."""
    loss, softmaxed = crossentropy_softmax_1hot(x, y_idx)
    return [loss, softmaxed, max(softmaxed, axis=-1), argmax(x, axis=-1)]
