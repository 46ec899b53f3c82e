"""Batch normalization, as compositions of reductions and elementwise functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..graph import Variable
from ..ops.convert import as_tensor, constant
from ..ops.elemwise import cast
from ..ops.reduce import mean, var
from ..ops.scalar import sqrt
from ..ops.shape import dims, dimshuffle, product, with_ones

__all__ = [
    "batch_normalization", "batch_normalization_test", "batch_normalization_train",
]  # fmt: skip

Axes = str | int | Sequence[int]


def batch_normalization(
    inputs: Any, gamma: Any, beta: Any, mean: Any, std: Any, mode: str = "low_mem"
) -> Variable:
    """(inputs - mean) * gamma / std + beta, all of shapes that broadcast; mode means nothing."""
    x, gamma, beta, centre, std = map(as_tensor, (inputs, gamma, beta, mean, std))
    return (x - centre) * (gamma / std) + beta


def batch_normalization_train(
    inputs: Any, gamma: Any, beta: Any, axes: Axes = "per-activation", epsilon: float = 1e-4,
    running_average_factor: float = 0.1, running_mean: Any = None, running_var: Any = None,
) -> tuple[Variable, ...]:  # fmt: skip
    """The inputs with mean 0 and variance 1 over `axes`, times gamma plus beta.

    axes: "per-activation" is (0,), "spatial" every axis but 1. gamma, beta and the running
    values have either the dimensions of the inputs or only the axes that are kept.
    Returns (out, mean, 1 / standard deviation), and with running values their new ones too:
    old * (1 - running_average_factor) + new * running_average_factor, the variance unbiased.
    Raises ValueError for parameters of other dimensions, or an epsilon below 1e-5.
    """
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var: give both or neither")
    x = as_tensor(inputs)
    over = _axes(axes, x.ndim)
    kept = [i for i in range(x.ndim) if i not in over]
    running = [] if running_mean is None else [as_tensor(running_mean), as_tensor(running_var)]
    gamma, beta, *running = [as_tensor(p) for p in (gamma, beta, *running)]
    _check(x, kept, epsilon, gamma, beta, *running)
    compact = gamma.ndim != x.ndim
    centre, variance = mean(x, over, keepdims=True), var(x, over, keepdims=True)
    scale = 1 / sqrt(variance + constant(epsilon, dtype=x.dtype))
    out = (x - centre) * (_wide(gamma, kept, x.ndim) * scale) + _wide(beta, kept, x.ndim)

    def like_parameters(v: Variable) -> Variable:
        return dimshuffle(v, *kept) if compact else v

    if running:
        r = constant(running_average_factor, dtype=x.dtype)
        n = cast(product([dims(x)[i] for i in over]), x.dtype)
        new = (like_parameters(centre), like_parameters(variance) * (n / (n - 1)))
        running = [old * (1 - r) + value * r for old, value in zip(running, new)]
    return out, like_parameters(centre), like_parameters(scale), *running


def batch_normalization_test(
    inputs: Any, gamma: Any, beta: Any, mean: Any, var: Any, axes: Axes = "per-activation",
    epsilon: float = 1e-4,
) -> Variable:  # fmt: skip
    """The same with a given mean and variance: (inputs - mean) * gamma / sqrt(var + epsilon) +
    beta."""
    x, gamma, beta, centre, variance = map(as_tensor, (inputs, gamma, beta, mean, var))
    kept = [i for i in range(x.ndim) if i not in _axes(axes, x.ndim)]
    _check(x, kept, epsilon, gamma, beta, centre, variance)
    gamma, beta, centre, variance = (
        _wide(p, kept, x.ndim) for p in (gamma, beta, centre, variance)
    )
    return (x - centre) * (gamma / sqrt(variance + constant(epsilon, dtype=x.dtype))) + beta


def _axes(axes: Axes, ndim: int) -> tuple[int, ...]:
    if isinstance(axes, str):
        known = {"per-activation": (0,), "spatial": (0, *range(2, ndim))}
        if axes not in known:
            raise ValueError(f"axes is {axes!r}, not 'per-activation', 'spatial' or axes")
        return known[axes]
    found = tuple(sorted((axes,) if isinstance(axes, int) else map(int, axes)))
    if not found or not all(0 <= a < ndim for a in found):
        raise ValueError(f"axes {found} of an input of {ndim} dimensions")
    return found


def _check(x: Variable, kept: Sequence[int], epsilon: float, *parameters: Variable) -> None:
    if epsilon < 1e-5:
        raise ValueError(f"epsilon must be at least 1e-5, got {epsilon}")
    ndims = {p.ndim for p in parameters}
    if ndims not in ({x.ndim}, {len(kept)}):
        raise ValueError(
            "gamma, beta and the statistics must all have the dimensions of the inputs "
            f"({x.ndim}) or all only those that are kept ({len(kept)}); they have "
            f"{', '.join(str(p.ndim) for p in parameters)}"
        )


def _wide(p: Variable, kept: Sequence[int], ndim: int) -> Variable:
    """A parameter with the inputs' dimensions, those that are normalized broadcasting."""
    if p.ndim == ndim:
        return with_ones(p, [i for i in range(ndim) if i not in kept])
    order: list[Any] = ["x"] * ndim
    for i, axis in enumerate(kept):
        order[axis] = i
    return dimshuffle(p, *order)
