"""Numbers, parameters and gradients as they are given, checked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..errors import DisconnectedInputError, built_at, describe
from ..gradient import grad
from ..graph import Variable, toposort
from ..ops.convert import constant
from ..ops.elemwise import cast
from ..ops.shape import specify
from ..shared import SharedVariable


def number(
    value: Any, what: str, low: float = 0.0, high: float = math.inf, ends: str = "[)"
) -> Variable:
    """A number, or the expression of one, as a float64 scalar.

    low, high: between what a number that is known must be; ends: "[" and "]" where it may be that
    itself, "(" and ")" where not. Raises TypeError and ValueError, which speak of `what`.
    """
    if isinstance(value, Variable):
        if value.ndim != 0 or value.dtype == "bool":
            raise TypeError(
                f"{what} is a number or a scalar, got {describe(value)}.{built_at(value)}"
            )
        return cast(value, "float64")
    if isinstance(value, bool | np.bool_) or np.ndim(value) != 0:
        raise TypeError(f"{what} is a number or a scalar expression, got {value!r}")
    try:
        x = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{what} is a number or a scalar expression, got {value!r}") from None
    above = x >= low if ends[0] == "[" else x > low
    below = x <= high if ends[1] == "]" else x < high
    if not (above and below):
        raise ValueError(f"{what} is {_interval(low, high, ends)}, got {value!r}")
    return constant(x, dtype="float64")


def count(value: Any, what: str) -> int:
    """How many steps: a whole number above 0. Raises TypeError and ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{what} is a whole number, got {value!r}")
    if value < 1:
        raise ValueError(f"{what} is 1 or more, got {value}")
    return int(value)


def _interval(low: float, high: float, ends: str) -> str:
    least = f"{low:g} or more" if ends[0] == "[" else f"more than {low:g}"
    if high == math.inf:
        return least if ends[1] == "]" else f"finite, and {least}"
    most = f"at most {high:g}" if ends[1] == "]" else f"less than {high:g}"
    return f"{least}, and {most}"


def parameters(params: Any, method: str) -> list[SharedVariable]:
    """The parameters as a list of different shared variables of floats. Raises TypeError and
    ValueError."""
    if isinstance(params, Variable | set | frozenset) or not isinstance(params, Iterable):
        raise TypeError(f"{method}: params is a list of shared variables, got {params!r}")
    found = list(params)
    if not found:
        raise ValueError(f"{method}: params is empty")
    for i, p in enumerate(found):
        if not isinstance(p, SharedVariable):
            got = describe(p) if isinstance(p, Variable) else repr(p)
            raise TypeError(f"{method}: params[{i}] is not a shared variable, got {got}")
        if not p.type.is_float:
            raise TypeError(f"{method}: params[{i}] is not of floats, got {describe(p)}")
        if any(p is q for q in found[:i]):
            raise ValueError(f"{method}: params[{i}] stands there twice, {describe(p)}")
    return found


def gradients(loss_or_grads: Any, params: Sequence[SharedVariable], method: str) -> list[Variable]:
    """The gradient of each parameter: of its dtype and as much of its shape as is known. Raises
    TypeError, ValueError and DisconnectedInputError."""
    if not isinstance(loss_or_grads, list | tuple):
        return _of_loss(loss_or_grads, params, method)
    if len(loss_or_grads) != len(params):
        raise ValueError(f"{method}: {len(loss_or_grads)} gradients for {len(params)} parameters")
    return [_fitting(g, p, i, method) for i, (g, p) in enumerate(zip(loss_or_grads, params))]


def _of_loss(loss: Any, params: Sequence[SharedVariable], method: str) -> list[Variable]:
    if not isinstance(loss, Variable):
        raise TypeError(
            f"{method}: the loss is a scalar expression, or gradients are a list, got {loss!r}"
        )
    if loss.ndim != 0:
        raise TypeError(f"{method}: the loss is a scalar, got {describe(loss)}.{built_at(loss)}")
    if not loss.type.is_float:
        raise TypeError(f"{method}: the loss is a float, got {describe(loss)}.{built_at(loss)}")
    reached = set(toposort([loss]))
    if idle := [p for p in params if p not in reached]:
        raise DisconnectedInputError(
            f"{method}: the loss does not depend on {describe(idle[0])}.{built_at(loss)}"
        )
    return list(grad(loss, list(params)))


def _fitting(g: Any, p: SharedVariable, i: int, method: str) -> Variable:
    """The gradient with what is known of the parameter's sizes."""
    if not isinstance(g, Variable):
        raise TypeError(f"{method}: gradient {i}, of {describe(p)}, is no expression, got {g!r}")
    if (g.dtype, g.ndim) != (p.dtype, p.ndim):
        raise TypeError(
            f"{method}: gradient {i} is {describe(g)}, of the parameter {describe(p)}: they have "
            f"the same dtype and number of dimensions.{built_at(g)}"
        )
    shape = tuple(p.held.shape)
    if any(s is not None and s != n for s, n in zip(g.type.shape, shape)):
        raise ValueError(
            f"{method}: gradient {i} is {describe(g)}, of the parameter {describe(p)} of shape "
            f"{shape}.{built_at(g)}"
        )
    known = [b if b is not None else a for a, b in zip(g.type.shape, p.type.shape)]
    return specify(g, known)
