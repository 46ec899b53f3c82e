"""What is known of a value before it exists: dtype and shape, promotion, and conversion.

A size is an int where it is known and None where it is not. As in Theano, only a size that is
known to be 1 broadcasts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from .config import config
from .record import record

Shape = tuple[int | None, ...]

BOOLS = ("bool",)
INTEGERS = tuple(f"{s}int{b}" for s in ("", "u") for b in (8, 16, 32, 64))
FLOATS = ("float16", "float32", "float64")
DTYPES = BOOLS + INTEGERS + FLOATS
DISCRETE = BOOLS + INTEGERS


def dtype_name(dtype: Any) -> str:
    """The dtype's name; 'floatX' is what the settings say.

    Raises TypeError for a dtype that gpuscan does not have.
    """
    if type(dtype) is str:
        if dtype in DTYPES:
            return dtype
        if dtype == "floatX":
            return config.floatX
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = repr(dtype)
    if name not in DTYPES:
        raise TypeError(f"dtype {name} is not supported; use one of {', '.join(DTYPES)}")
    return name


@functools.cache
def promote(*dtypes: str) -> str:
    """The dtype that holds all of them, by NumPy's table for arrays: int32 and float32 give
    float64, int8 and float32 give float32."""
    result = dtypes[0]
    for d in dtypes[1:]:
        result = np.promote_types(result, d).name
    return result


def float_dtype(*dtypes: str) -> str:
    """The promotion of the dtypes where it is a float, otherwise floatX."""
    dtype = promote(*dtypes)
    return dtype if dtype in FLOATS else config.floatX


_OF_CUDA = (2, 13)  # DLPack's kinds of device: a GPU, memory of the GPU and the host


def is_on_gpu(value: Any) -> bool:
    """Whether it is an array in a GPU's memory: CuPy's, PyCUDA's or, by a protocol, another's."""
    if isinstance(value, np.ndarray):
        return False
    if hasattr(value, "__cuda_array_interface__"):
        return True
    device = getattr(value, "__dlpack_device__", None)
    return device is not None and device()[0] in _OF_CUDA


@record
class TensorType:
    """A tensor's dtype and shape, a size being None where it is not known.

    Calling it makes an input variable of this type. For Theano's programs a shape may be given
    as a broadcast pattern, also under the name `broadcastable`: True is a size of 1, False an
    unknown size.
    """

    dtype: str
    shape: Shape = ()

    make_input: ClassVar[Callable[..., Any]]  # set by graph.py: types know nothing of variables

    def __init__(
        self, dtype: Any, shape: Sequence[Any] = (), *, broadcastable: Sequence[Any] | None = None
    ) -> None:
        object.__setattr__(self, "dtype", dtype_name(dtype))
        sizes = tuple(
            (1 if s else None) if isinstance(s, bool | np.bool_) else None if s is None else int(s)
            for s in (shape if broadcastable is None else map(bool, broadcastable))
        )
        object.__setattr__(self, "shape", sizes)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def broadcastable(self) -> tuple[bool, ...]:
        """Per axis, whether the size is known to be 1."""
        return tuple(s == 1 for s in self.shape)

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS

    @property
    def is_integer_scalar(self) -> bool:
        """Whether it is one integer or bool, such as a size or a position."""
        return self.ndim == 0 and not self.is_float

    def __call__(self, name: str | None = None) -> Any:
        return TensorType.make_input(self, name)

    def __str__(self) -> str:
        kinds = ("scalar", "vector", "matrix")
        kind = kinds[self.ndim] if self.ndim < 3 else f"{self.ndim}-d tensor"
        if any(s is not None for s in self.shape):
            kind += " " + shape_text(self.shape)
        return f"{self.dtype} {kind}"

    def clone(self, dtype: str | None = None, shape: Sequence[int | None] | None = None) -> Any:
        """The same type with another dtype or shape."""
        return TensorType(
            self.dtype if dtype is None else dtype, self.shape if shape is None else tuple(shape)
        )

    def row(self) -> TensorType:
        """The type of one row: the leading axis dropped."""
        return TensorType(self.dtype, self.shape[1:])

    def rows(self, n: int | None = None) -> TensorType:
        """The type of a stack of n such values along a new leading axis."""
        return TensorType(self.dtype, (n, *self.shape))

    def accepts(self, other: TensorType) -> bool:
        """Whether every value of the other type is a value of this one, as far as is known."""
        return (
            self.dtype == other.dtype
            and self.ndim == other.ndim
            and all(a is None or b is None or a == b for a, b in zip(self.shape, other.shape))
            and all(a != 1 or b == 1 for a, b in zip(self.shape, other.shape))
        )

    def filter(
        self, value: Any, strict: bool = False, allow_downcast: bool | None = None
    ) -> np.ndarray:
        """`value` as an array of this type, converted only where nothing is lost.

        strict: the value must be an array of this dtype. allow_downcast: True converts
        anything, None lets a Python float become floatX. Raises TypeError.
        """
        if type(value) is np.ndarray and value.dtype == self.dtype:  # false for another byte order
            array = value
        elif strict:
            raise TypeError(
                f"expected an array of dtype {self.dtype}, got {_got(value)} (strict is set)"
            )
        else:
            array = self._convert(value, allow_downcast)
        if array.ndim != self.ndim:
            raise TypeError(
                f"Wrong number of dimensions: expected {self.ndim}, got {array.ndim} "
                f"with shape {array.shape}."
            )
        for i, (known, size) in enumerate(zip(self.shape, array.shape)):
            if known is not None and known != size:
                what = "Non-unit value on shape on a broadcastable dimension" if known == 1 else ""
                raise TypeError(
                    f"{what or 'Wrong size'}: axis {i} must have size {known}, "
                    f"got shape {array.shape}."
                )
        return array

    def _convert(self, value: Any, allow_downcast: bool | None) -> np.ndarray:
        if _is_symbolic(value):  # a shared variable could be converted
            raise TypeError(f"Expected an array-like object, but found {_got(value)}.")
        if is_on_gpu(value):
            raise TypeError(
                f"got {type(value).__name__}, which lives on a GPU: copy it to the host first "
                "(`.get()`)"
            )
        if (
            isinstance(value, np.ndarray | np.generic)
            or hasattr(value, "__array__")
            or hasattr(value, "__array_interface__")
        ):
            array = np.asarray(value)
        elif hasattr(value, "__dlpack__"):
            array = np.from_dlpack(value)
        else:
            return self._convert_python(value, allow_downcast)
        if array.dtype == self.dtype:
            return array
        if array.dtype.kind not in "buif":
            raise TypeError(f"Expected an array of dtype {self.dtype}, got {_got(value)}")
        if allow_downcast or promote(self.dtype, array.dtype.name) == self.dtype:
            return array.astype(self.dtype)
        raise TypeError(
            f"a tensor of type {self} cannot store a value of dtype {array.dtype} without "
            "risking loss of precision. Cast the value, or pass allow_input_downcast=True to "
            "function() (allow_downcast=True to shared())."
        )

    def _convert_python(self, value: Any, allow_downcast: bool | None) -> np.ndarray:
        try:
            array = np.asarray(value)
        except ValueError as e:
            raise TypeError(f"cannot make a tensor of {_got(value)}: {e}") from None
        if array.dtype.kind not in "buif":
            raise TypeError(f"Expected an array-like object, but found {_got(value)}.")
        with np.errstate(all="ignore"):
            converted = array.astype(self.dtype)
        if allow_downcast or array.size == 0:
            return converted
        if allow_downcast is None and array.dtype.kind == "f" and self.dtype == config.floatX:
            return converted
        if np.array_equal(converted.astype(array.dtype), array, equal_nan=array.dtype.kind == "f"):
            return converted
        raise TypeError(
            f"a tensor of type {self} cannot store the value {value!r} without risking loss of "
            "precision. Cast the value, or pass allow_input_downcast=True to function()."
        )

    # Theano's names for the same thing
    def make_variable(self, name: str | None = None) -> Any:
        return self(name)

    def filter_variable(self, other: Any) -> Any:
        return other

    def values_eq(self, a: Any, b: Any) -> bool:
        return bool(np.array_equal(a, b))

    def values_eq_approx(self, a: Any, b: Any) -> bool:
        return bool(np.allclose(a, b, equal_nan=True))


@record
class TupleType:
    """The type of a node with several results."""

    items: tuple[Any, ...]

    def __str__(self) -> str:
        return "(" + ", ".join(map(str, self.items)) + ")"


Type = TensorType | TupleType


def shape_text(shape: Sequence[int | None]) -> str:
    """A shape as an error prints it: (?, 3)."""
    sizes = ["?" if s is None else str(s) for s in shape]
    return "(" + ", ".join(sizes) + ("," if len(sizes) == 1 else "") + ")"


def _is_symbolic(value: Any) -> bool:
    return hasattr(value, "origin") and hasattr(value, "inputs")


def _got(value: Any) -> str:
    if isinstance(value, np.ndarray | np.generic):
        return f"an array of dtype {value.dtype} and shape {value.shape}"
    if _is_symbolic(value):
        return f"a symbolic variable ({value})"
    return f"{type(value).__name__} {value!r}"


def broadcast_shapes(shapes: Sequence[Shape]) -> Shape:
    """The shape of an elementwise result; all shapes have the same length.

    Raises ValueError where two known sizes differ and neither is 1.
    """
    result: list[int | None] = []
    for axis, sizes in enumerate(zip(*shapes)):
        wide = [s for s in sizes if s != 1]
        known = {s for s in wide if s is not None}
        if len(known) > 1:
            raise ValueError(
                f"Input dimension mismatch on axis {axis}: sizes {sorted(known)} in shapes "
                + ", ".join(map(shape_text, shapes))
            )
        result.append(1 if not wide else known.pop() if known else None)
    return tuple(result)


def autocast(value: int | float | bool) -> str:
    """The dtype of a Python number in a graph: the smallest integer that holds it, and for a
    float floatX, or, where that is float64, the smallest float that holds it exactly."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        for bits in (8, 16, 32, 64):
            if -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
                return f"int{bits}"
        if 0 <= value < 2**64:
            return "uint64"
        raise OverflowError(f"{value} does not fit in 64 bits")
    if config.floatX != "float64":
        return config.floatX
    return "float32" if float(np.float32(value)) == value or value != value else "float64"
