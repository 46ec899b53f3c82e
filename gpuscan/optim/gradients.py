"""Gradients made smaller."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..errors import built_at, describe
from ..graph import Variable
from ..ops.elemwise import cast
from ..ops.reduce import sum as total
from ..ops.scalar import minimum, sqrt, true_div
from ..tensor.elementwise import add
from ..types import promote
from .arguments import number

_EPSILON = 1e-6  # PyTorch's


def clip_by_global_norm(grads: Sequence[Any], max_norm: Any) -> tuple[list[Variable], Variable]:
    """The gradients, scaled down together where their global norm is more than max_norm; and that
    norm as it was, a scalar.

    The norm is the root of the sum of all squares, of the widest dtype among them. The factor is
    min(1, max_norm / (norm + 1e-6)), as in PyTorch's `clip_grad_norm_`; with a norm that is
    infinite or NaN no gradient is usable, and the norm says so. For each element by itself there
    is `T.clip(g, -bound, bound)`.
    """
    what = "clip_by_global_norm"
    if isinstance(grads, Variable) or not isinstance(grads, list | tuple):
        raise TypeError(f"{what}: grads is a list of gradients, got {grads!r}")
    if not grads:
        raise ValueError(f"{what}: grads is empty")
    for i, g in enumerate(grads):
        if not isinstance(g, Variable):
            raise TypeError(f"{what}: grads[{i}] is no expression, got {g!r}")
        if not g.type.is_float:
            raise TypeError(f"{what}: grads[{i}] is not of floats, got {describe(g)}.{built_at(g)}")
    most = number(max_norm, f"{what}: max_norm", 0, math.inf, "[]")
    dtype = promote(*(g.dtype for g in grads))
    norm = sqrt(add(*[cast(total(g * g), dtype) for g in grads]))
    norm.name = "global_norm"
    epsilon = number(_EPSILON, "epsilon")
    factor = minimum(true_div(most, cast(norm, "float64") + epsilon), number(1, "1"))
    return [g * cast(factor, g.dtype) for g in grads], norm
