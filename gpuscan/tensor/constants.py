"""What is known of a graph's value before it runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..evaluate import Program
from ..graph import leaves
from ..ops.convert import as_tensor


class NotScalarConstantError(Exception):
    """A single value that does not change was wanted, and the variable isn't one."""


class EmptyConstantError(NotScalarConstantError):
    """The constant has no elements."""


def get_scalar_constant_value(v: Any, *ignored: Any, **also_ignored: Any) -> Any:
    """The value of a variable that is built on constants alone and whose elements are all
    equal, as a 0-d array. Raises NotScalarConstantError, EmptyConstantError."""
    v = as_tensor(v)
    if leaves([v]):
        raise NotScalarConstantError(f"{v} depends on {leaves([v])}")
    (value,) = Program([], [v])()
    value = np.asarray(value)
    if value.size == 0:
        raise EmptyConstantError(f"{v} has no elements")
    first = value.reshape(-1)[0]
    if not (value == first).all():
        raise NotScalarConstantError(f"{v} holds several values")
    return np.asarray(first).copy()


def extract_constant(v: Any, *ignored: Any, **also_ignored: Any) -> Any:
    """get_scalar_constant_value(v) where there is one, otherwise v."""
    try:
        return get_scalar_constant_value(v)
    except NotScalarConstantError:
        return v


def get_vector_length(v: Any) -> int:
    """The length of a vector. Raises ValueError where it is not known before the graph runs."""
    v = as_tensor(v)
    if v.ndim != 1:
        raise TypeError(f"get_vector_length: {v} is not a vector")
    length = v.type.shape[0]
    if length is None:
        raise ValueError(f"length not known: {v}")
    return int(length)
