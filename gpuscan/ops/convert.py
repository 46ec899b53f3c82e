"""Python values, arrays and lists as variables."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..config import config
from ..graph import Constant, Variable, constant_leaf
from ..types import TensorType, autocast, dtype_name


def constant(
    value: Any, name: str | None = None, ndim: int | None = None, dtype: Any = None
) -> Any:
    """A constant. Arrays and NumPy scalars keep their dtype; a Python number takes the smallest
    integer dtype that holds it, or floatX; a list takes int64, or floatX. `ndim` pads the
    shape with leading ones."""
    if isinstance(value, Variable):
        raise TypeError(f"constant() takes a value, not the symbolic variable {value}")
    array = _array(value, dtype)
    if ndim is not None:
        if array.ndim > ndim:
            raise ValueError(f"constant: the value has {array.ndim} dimensions, ndim={ndim}")
        array = array.reshape((1,) * (ndim - array.ndim) + array.shape)
    if name is not None:  # a name makes it the user's own
        array = array.copy()
        from_content = constant_leaf(array)
        from_content.name = from_content.name or name
        return from_content
    return constant_leaf(array)


def _array(value: Any, dtype: Any) -> np.ndarray:
    if isinstance(value, np.ndarray | np.generic):
        array = np.array(value)
    elif isinstance(value, bool | int | float):
        array = np.asarray(value, dtype_name(dtype) if dtype else autocast(value))
    else:
        array = np.array(value)
        if dtype is None and array.dtype.kind == "f" and not _has_arrays(value):
            array = array.astype(config.floatX)
    if array.dtype.kind not in "buif":
        raise TypeError(f"cannot make a tensor of {type(value).__name__} {value!r}")
    return array.astype(dtype_name(dtype or array.dtype), copy=False)  # in native byte order


def _has_arrays(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_has_arrays(v) for v in value)
    return hasattr(value, "dtype")


def as_tensor(value: Any, name: str | None = None, ndim: int | None = None) -> Any:
    """`value` as a variable: itself, a constant, or a stack where a list holds variables."""
    if isinstance(value, Variable):
        if not isinstance(value.type, TensorType):
            raise TypeError(f"{value} is not a tensor")
        if ndim is not None and value.ndim != ndim:
            if value.ndim > ndim:
                raise ValueError(
                    f"{value} has {value.ndim} dimensions and can't be made to have {ndim}"
                )
            return value.dimshuffle(*["x"] * (ndim - value.ndim), *range(value.ndim))
        return value
    if isinstance(value, list | tuple) and _has_variables(value):
        return Variable.operations["stack"](list(value))
    return constant(value, name, ndim)


def _has_variables(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_has_variables(v) for v in value)
    return isinstance(value, Variable)


def constant_value(variable: Any) -> np.ndarray | None:
    """The value of a constant, otherwise None."""
    return variable.data if isinstance(variable, Constant) else None


def static_int(value: Any) -> int | None:
    """The integer that a Python number, an array or a constant holds, otherwise None."""
    if isinstance(value, Constant):
        value = value.data
    if isinstance(value, Variable) or value is None:
        return None
    array = np.asarray(value)
    return int(array) if array.ndim == 0 and array.dtype.kind in "bui" else None
