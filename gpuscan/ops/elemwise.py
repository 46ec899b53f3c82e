"""Elementwise ops: one scalar meaning, applied to every element of tensors that broadcast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..graph import Op, Variable, constant_leaf
from ..record import record
from ..types import DISCRETE, TensorType, broadcast_shapes, dtype_name, float_dtype, promote
from .convert import as_tensor, constant_value
from .shape import broadcast_to, dim, dims, dimshuffle

Derivative = Callable[..., Any]


@record
class Scalar:
    """An elementwise function: calling it builds graph.

    operands   how the inputs' dtypes meet: "promote", "number" (promoted; bools to int8, as
               NumPy does), "float" (promoted to a float dtype), "bits" (bool or integer only),
               "switch" (a bool, and two that are promoted), or "any" (left as they are)
    result     the dtype of the result: "same" as the operands, or a dtype's name
    numpy      the meaning
    c          the element expression; {0}, {1}, {2} are the operands, {t} the dtype's suffix
    derivative (*inputs, y, g) -> per input its cotangent; None where it is zero everywhere
    """

    name: str
    nin: int
    operands: str
    result: str
    numpy: Callable[..., Any]
    c: str
    derivative: Derivative | None

    __eq__ = object.__eq__  # one object a name
    __hash__ = object.__hash__

    def __call__(self, *inputs: Any) -> Variable:
        return elemwise(self, *inputs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _named, (self.name,)

    def __repr__(self) -> str:
        return self.name


scalars: dict[str, Scalar] = {}


def _named(name: str) -> Scalar:
    return scalars[name]


def scalar(
    name: str,
    nin: int,
    operands: str,
    result: str,
    numpy: Callable[..., Any],
    c: str,
    derivative: Derivative | None = None,
) -> Scalar:
    """One line of the table of elementwise functions."""
    scalars[name] = Scalar(name, nin, operands, result, numpy, c, derivative)
    return scalars[name]


@record
class Elemwise(Op):
    """A scalar function of every element. The inputs have the same number of axes; an axis that
    is known to have size 1 broadcasts."""

    scalar: Scalar

    def infer(self, *types: TensorType) -> TensorType:
        try:
            shape = broadcast_shapes([t.shape for t in types])
        except ValueError as e:
            raise ValueError(f"{self.scalar.name}: {e}") from None
        dtype = types[-1].dtype if self.scalar.result == "same" else self.scalar.result
        return TensorType(dtype, shape)

    def eval(self, *arrays: Any) -> Any:
        return self.scalar.numpy(*arrays)

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        run = self.scalar.numpy
        if len(node.inputs) == 1 or node.ndim == 0:
            return run
        # sizes that are not known to be 1 must agree when the values are there
        wide = [tuple(s != 1 for s in x.type.shape) for x in node.inputs]
        if all(w == wide[0] for w in wide) and len(wide) == 2:

            def same(a: Any, b: Any) -> Any:
                if a.shape != b.shape:
                    _check(wide, (a, b))
                return run(a, b)

            return same

        def broadcast(*arrays: Any) -> Any:
            _check(wide, arrays)
            return run(*arrays)

        return broadcast

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        if self.scalar.derivative is None or not output.type.is_float:
            return [None] * len(inputs)
        cotangents = self.scalar.derivative(*inputs, output, g)
        if self.scalar.nin == 1:
            cotangents = (cotangents,)
        return [None if d is None else unbroadcast_to(d, x) for d, x in zip(cotangents, inputs)]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return [
            next((dim(x, i) for x in inputs if x.type.shape[i] != 1), dim(inputs[0], i))
            for i in range(output.ndim)
        ]

    def batch(self, inputs: Sequence[Variable], batched: Sequence[bool], n: Variable) -> Variable:
        rows = [x if b else dimshuffle(x, "x", *range(x.ndim)) for x, b in zip(inputs, batched)]
        return Elemwise(self.scalar)(*rows)

    @property
    def is_comparison(self) -> bool:
        return self.scalar.result == "bool" and self.scalar.name in ("lt", "le", "gt", "ge")

    @property
    def label(self) -> str:
        return self.scalar.name


def _check(wide: Sequence[Sequence[bool]], arrays: Sequence[Any]) -> None:
    for axis in range(len(wide[0])):
        sizes = [(k, a.shape[axis]) for k, (a, w) in enumerate(zip(arrays, wide)) if w[axis]]
        for k, size in sizes[1:]:
            if size != sizes[0][1]:
                j, first = sizes[0]
                hint = (
                    " Only a size that is known to be 1 broadcasts: say so with addbroadcast, "
                    "or make the axis with dimshuffle."
                    if 1 in (size, first)
                    else ""
                )
                raise ValueError(
                    f"Input dimension mis-match. (input[{j}].shape[{axis}] = {first}, "
                    f"input[{k}].shape[{axis}] = {size}).{hint}"
                )


def unbroadcast_to(g: Variable, x: Variable) -> Variable:
    """The cotangent of x from that of x broadcast: summed over the axes that were widened."""
    axes = [i for i, s in enumerate(x.type.shape) if s == 1 and g.type.shape[i] != 1]
    return g.sum(axis=axes, keepdims=True) if axes else g


def elemwise(function: Scalar, *inputs: Any) -> Variable:
    """The function of the inputs, cast to a common dtype and broadcast from the right.

    Raises TypeError for a dtype that the function does not take, ValueError for sizes that are
    known to differ.
    """
    xs = [as_tensor(i) for i in inputs]
    match function.operands:
        case "switch":
            xs = [xs[0].astype("bool"), *promoted(*xs[1:])]
        case "float":
            dtype = float_dtype(*[x.dtype for x in xs])
            xs = [cast(x, dtype) for x in xs]
        case "bits":
            xs = promoted(*xs)
            if xs[0].dtype not in DISCRETE:
                raise TypeError(f"{function.name} takes bools or integers, got {xs[0].type}")
        case "promote":
            xs = promoted(*xs)
        case "number":
            xs = promoted(*xs)
            if xs[0].dtype == "bool":
                xs = [cast(x, "int8") for x in xs]
    ndim = max(x.ndim for x in xs)
    padded = [
        x if x.ndim == ndim else dimshuffle(x, *["x"] * (ndim - x.ndim), *range(x.ndim)) for x in xs
    ]
    return Elemwise(function)(*padded)


def promoted(*xs: Variable) -> list[Variable]:
    """The variables cast to the dtype that holds them all."""
    dtype = promote(*[x.dtype for x in xs]) if xs else ""
    return [cast(x, dtype) for x in xs]


def cast(x: Any, dtype: Any) -> Variable:
    """x as another dtype; a constant is cast at once."""
    x, name = as_tensor(x), dtype_name(dtype)
    if x.dtype == name:
        return x
    if (value := constant_value(x)) is not None and x.name is None:
        with np.errstate(all="ignore"):
            return constant_leaf(np.asarray(scalars[f"cast_{name}"].numpy(value)))
    return Elemwise(scalars[f"cast_{name}"])(x)


def full_like(x: Any, value: Any, dtype: Any = None) -> Variable:
    """A tensor of x's shape filled with one value."""
    x = as_tensor(x)
    filled = cast(as_tensor(value), dtype or x.dtype)
    return broadcast_to(filled, dims(x))


def zeros_like(x: Any, dtype: Any = None, opt: bool = False) -> Variable:
    """Zeros of x's shape, and dtype unless another is given."""
    return full_like(x, 0, dtype)


def ones_like(x: Any, dtype: Any = None, opt: bool = False) -> Variable:
    """Ones of x's shape, and dtype unless another is given."""
    return full_like(x, 1, dtype)
