"""Softmax and its logarithm along an axis, with the same bits on every device.

Per row: the maximum m, the exponentials exp(x - m) and their sum. The sum's order is that of 32
lanes: lane l adds the elements l, l + 32, l + 64, ... from first to last, then lane l adds lane
l + 16, then l + 8, 4, 2 and 1. A missing element is 0. float16 is computed in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import maths
from ..graph import Op, Variable
from ..record import record
from ..types import TensorType
from .convert import as_tensor
from .elemwise import Elemwise
from .scalar import exp, true_div
from .shape import dims

LANES = 32


def lane_sum(x: Any) -> Any:
    """The sum over the last axis, kept with size 1, in the order of the lanes."""
    n = x.shape[-1]
    lanes = np.zeros((*x.shape[:-1], LANES), x.dtype)
    for start in range(0, n, LANES):
        chunk = x[..., start : start + LANES]
        lanes[..., : chunk.shape[-1]] += chunk
    width = LANES
    while width > 1:
        width //= 2
        lanes = lanes[..., :width] + lanes[..., width : 2 * width]
    return lanes


@record
class _AlongAxis(Op):
    """A function of each row along an axis, of the same shape; the dtype is a float."""

    axis: int

    def infer(self, x: TensorType) -> TensorType:
        name = type(self).__name__
        if not x.is_float:
            raise TypeError(f"{name} takes floats, got {x}; cast it first")
        if not 0 <= self.axis < x.ndim:
            raise ValueError(f"{name}: axis {self.axis} of {x}, which has {x.ndim} dimensions")
        return x

    def eval(self, x: Any) -> Any:
        rows = np.moveaxis(x, self.axis, -1)
        if rows.shape[-1] == 0:
            return x.copy()
        wide = rows.astype("float32") if x.dtype == "float16" else rows
        with np.errstate(invalid="ignore"):  # a row of infinities is NaN, as C says
            result = self.rows(wide - wide.max(-1, keepdims=True))
        return np.ascontiguousarray(np.moveaxis(result.astype(x.dtype, copy=False), -1, self.axis))

    def rows(self, centred: Any) -> Any:
        raise NotImplementedError

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return dims(inputs[0])

    def batch(
        self, inputs: Sequence[Variable], batched: Sequence[bool], n: Variable
    ) -> Variable | None:
        return type(self)(self.axis + 1)(inputs[0])


@record
class Softmax(_AlongAxis):
    """exp(x) over its sum along the axis."""

    def rows(self, centred: Any) -> Any:
        e = maths.exp(centred)
        return e / lane_sum(e)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        # after a log the cotangent is h / y: then g * y is h, also where y underflowed to 0
        after_log = g.op == Elemwise(true_div) and g.inputs[1] is output
        gy = g.inputs[0] if after_log else g * output
        return [gy - output * gy.sum(axis=self.axis, keepdims=True)]


@record
class LogSoftmax(_AlongAxis):
    """x minus the logarithm of the sum of exp(x) along the axis."""

    def rows(self, centred: Any) -> Any:
        return centred - maths.log(lane_sum(maths.exp(centred)))

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return [g - exp(output) * g.sum(axis=self.axis, keepdims=True)]


def softmax_along(x: Any, axis: int = -1) -> Variable:
    """Softmax along an axis of floats with any number of axes."""
    x = as_tensor(x)
    return Softmax(axis % x.ndim if x.ndim else axis)(x)


def log_softmax_along(x: Any, axis: int = -1) -> Variable:
    """The logarithm of softmax along an axis of floats with any number of axes."""
    x = as_tensor(x)
    return LogSoftmax(axis % x.ndim if x.ndim else axis)(x)
