"""Axes and sizes: what changes a tensor's shape and none of its values."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from typing import Any, ClassVar

import numpy as np

from ..errors import built_at
from ..graph import Constant, Op, Variable, constant_leaf
from ..record import field, record
from ..types import TensorType, TupleType, shape_text
from .convert import as_tensor, static_int

INT = TensorType("int64", ())


def dim(x: Variable, axis: int) -> Variable:
    """The size of an axis, an int64 scalar; a constant where it is known."""
    size = x.type.shape[axis]
    if isinstance(x.op, FirstRows) and axis % x.ndim == 0:
        return x.inputs[1]
    return Dim(axis % x.ndim)(x) if size is None else constant_leaf(np.asarray(size, "int64"))


def dims(x: Variable) -> list[Variable]:
    """The sizes of all axes."""
    return [dim(x, i) for i in range(x.ndim)]


@record
class Dim(Op):
    """The size of one axis."""

    axis: int
    steering: ClassVar[tuple[int, ...]] = (0,)
    is_of_shape: ClassVar[bool] = True

    def infer(self, x: TensorType) -> TensorType:
        return INT

    def eval(self, x: Any) -> Any:
        return np.int64(x.shape[self.axis])

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return [None]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return []

    def batch(self, inputs: Any, batched: Any, n: Variable) -> Variable | None:
        return broadcast_to(Dim(self.axis + 1)(inputs[0]), [n])


def shape(x: Any) -> Variable:
    """The sizes as an int64 vector of known length."""
    return vector_of(dims(as_tensor(x)))


def vector_of(sizes: Sequence[Variable]) -> Variable:
    """int64 scalars as a vector. One of none is a constant: a node has inputs."""
    return MakeVector("int64")(*sizes) if sizes else constant_leaf(np.empty(0, "int64"))


@record
class MakeVector(Op):
    """Scalars as one vector."""

    dtype: str

    def infer(self, *types: TensorType) -> TensorType:
        for t in types:
            if t.ndim or t.dtype != self.dtype:
                raise TypeError(f"a {self.dtype} vector is made of scalars of it, not of {t}")
        return TensorType(self.dtype, (len(types),))

    def eval(self, *values: Any) -> Any:
        return np.array(values, self.dtype)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return [g[i] for i in range(len(inputs))]

    def element(self, node: Variable, index: Any, operands: Any) -> Any:
        value = operands[-1].at([])
        for k, x in reversed(list(enumerate(operands[:-1]))):
            value = (index[0] <= k).choose(x.at([]), value)
        return value

    def batch(
        self, inputs: Sequence[Variable], batched: Sequence[bool], n: Variable
    ) -> Variable | None:
        rows = [x if b else broadcast_to(x, [n]) for x, b in zip(inputs, batched)]
        return Variable.operations["stack"](rows, axis=1)


@record
class DimShuffle(Op):
    """The axes in the order of `pattern`: an int takes an axis, 'x' makes one of size 1. An axis
    left out has size 1."""

    pattern: tuple[int | str, ...]

    def infer(self, x: TensorType) -> TensorType:
        taken = [p for p in self.pattern if p != "x"]
        if len(set(taken)) != len(taken) or not all(0 <= int(p) < x.ndim for p in taken):
            raise ValueError(
                f"dimshuffle pattern {self.pattern} does not fit a tensor of {x.ndim} dimensions"
            )
        for axis in set(range(x.ndim)) - set(taken):
            if x.shape[axis] != 1:
                raise ValueError(
                    f"You cannot drop a non-broadcastable dimension: axis {axis} of {x} is left "
                    f"out of the pattern {self.pattern} and is not known to have size 1. "
                    "Index it away (x[0]) or promise the size with addbroadcast."
                )
        return TensorType(x.dtype, tuple(1 if p == "x" else x.shape[int(p)] for p in self.pattern))

    @property
    def kept(self) -> list[int]:
        return [int(p) for p in self.pattern if p != "x"]

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        dropped = tuple(sorted(set(range(node.inputs[0].ndim)) - set(self.kept)))
        order = list(np.argsort(np.argsort(self.kept)))
        transposed = order != sorted(order)
        index = tuple(None if p == "x" else slice(None) for p in self.pattern)

        def run(x: Any) -> Any:
            if dropped:
                x = np.squeeze(x, dropped)
            if transposed:
                x = np.transpose(x, order)
            return x[index]  # a GPU's array, too

        return run

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        back: list[int | str] = ["x"] * inputs[0].ndim
        for i, p in enumerate(self.pattern):
            if p != "x":
                back[int(p)] = i
        made = [i for i, p in enumerate(self.pattern) if p == "x" and g.type.shape[i] != 1]
        return [dimshuffle(with_ones(g, made), *back)]

    def element(self, node: Variable, index: Any, operands: Any) -> Any:
        x: list[Any] = [0] * node.inputs[0].ndim
        for i, p in zip(index, self.pattern):
            if p != "x":
                x[int(p)] = i
        return operands[0].at(x)

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return [
            constant_leaf(np.asarray(1, "int64")) if p == "x" else dim(inputs[0], int(p))
            for p in self.pattern
        ]

    def batch(self, inputs: Any, batched: Any, n: Variable) -> Variable:
        return dimshuffle(inputs[0], 0, *("x" if p == "x" else int(p) + 1 for p in self.pattern))

    @property
    def label(self) -> str:
        return "DimShuffle{" + ",".join(map(str, self.pattern)) + "}"


def dimshuffle(x: Any, *pattern: Any) -> Variable:
    """The axes of x in the order of the pattern; `DimShuffle` says how. The axes may also be
    given as one list."""
    x = as_tensor(x)
    if len(pattern) == 1 and isinstance(pattern[0], list | tuple):
        pattern = tuple(pattern[0])
    axes = tuple("x" if p == "x" else int(p) + (x.ndim if int(p) < 0 else 0) for p in pattern)
    if axes == tuple(range(x.ndim)):
        return x
    if isinstance(x.op, DimShuffle):  # two in a row are one
        axes = tuple("x" if p == "x" else x.op.pattern[int(p)] for p in axes)
        return dimshuffle(x.inputs[0], *axes)
    return DimShuffle(axes)(x)


def transpose(x: Any, *axes: Any) -> Variable:
    """The axes in the order given, or reversed."""
    x = as_tensor(x)
    order = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
    return dimshuffle(x, *(order or range(x.ndim)[::-1]))


@record
class Specify(Op):
    """The same values under a type that knows more, or fewer, of the sizes. Sizes that are
    newly known are checked when the value is there."""

    shape: tuple[int | None, ...]

    def infer(self, x: TensorType) -> TensorType:
        if len(self.shape) != x.ndim:
            raise ValueError(f"shape {shape_text(self.shape)} does not fit {x}")
        for a, b in zip(self.shape, x.shape):
            if a is not None and b is not None and a != b:
                raise ValueError(f"shape {shape_text(self.shape)} does not fit {x}")
        return TensorType(x.dtype, self.shape)

    def eval(self, x: Any) -> Any:
        for axis, (known, size) in enumerate(zip(self.shape, x.shape)):
            if known is not None and known != size:
                raise ValueError(
                    f"axis {axis} was promised to have size {known} and has size {size}"
                )
        return x

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return [specify(g, inputs[0].type.shape)]

    def element(self, node: Variable, index: Any, operands: Any) -> Any:
        return operands[0].at(index)

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return [dim(output if s else inputs[0], i) for i, s in enumerate(self.shape)]

    def batch(self, inputs: Any, batched: Any, n: Variable) -> Variable:
        return specify(inputs[0], (inputs[0].type.shape[0], *self.shape))


def specify(x: Variable, sizes: Sequence[int | None]) -> Variable:
    """x under the type with exactly these known sizes."""
    if tuple(sizes) == x.type.shape:
        return x
    if isinstance(x.op, Specify) and x.op.shape != tuple(sizes):
        weaker = all(s is None or s == t for s, t in zip(sizes, x.inputs[0].type.shape))
        if weaker:  # what the inner promise added is not asked for any more
            return specify(x.inputs[0], sizes)
    return Specify(tuple(sizes))(x)


def with_ones(x: Variable, axes: Sequence[int]) -> Variable:
    """x with the axes promised to have size 1."""
    return specify(x, [1 if i in axes else s for i, s in enumerate(x.type.shape)])


def specify_shape(x: Any, sizes: Any) -> Variable:
    """x with the sizes promised: ints or symbolic integers, one an axis (None: any). A wrong
    promise is a ValueError when the value is there."""
    x = as_tensor(x)
    if isinstance(sizes, Variable) and sizes.ndim:
        length = sizes.type.shape[0]
        if length is None:
            raise ValueError("specify_shape needs as many sizes as x has dimensions")
        sizes = [sizes[i] for i in range(length)]
    sizes = list(sizes) if isinstance(sizes, list | tuple | np.ndarray) else [sizes]
    if len(sizes) != x.ndim:
        raise ValueError(f"specify_shape: {len(sizes)} sizes for {x.ndim} dimensions of {x}")
    known = [static_int(s) for s in sizes]
    x = specify(x, [k if k is not None else s for k, s in zip(known, x.type.shape)])
    symbolic = {i: as_tensor(s) for i, s in enumerate(sizes) if known[i] is None and s is not None}
    return CheckSizes(tuple(symbolic))(x, *symbolic.values()) if symbolic else x


@record
class CheckSizes(Op):
    """x itself, after a check that some axes have the sizes given."""

    axes: tuple[int, ...]

    @property
    def steering(self) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(range(1, len(self.axes) + 1))

    def infer(self, x: TensorType, *sizes: TensorType) -> TensorType:
        return x

    def eval(self, x: Any, *sizes: Any) -> Any:
        for axis, size in zip(self.axes, sizes):
            if x.shape[axis] != int(size):
                raise ValueError(
                    f"axis {axis} was promised to have size {int(size)} and has {x.shape[axis]}"
                )
        return x

    def element(self, node: Variable, index: Any, operands: Any) -> Any:
        return operands[0].at(index)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return [g, *[None] * len(self.axes)]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return dims(inputs[0])


@record
class FirstRows(Op):
    """(x, n) -> the first n rows of x: x[:n], and a ValueError where x has fewer."""

    what: str = field(default="", compare=False)  # whose rows, for the error
    steering: ClassVar[tuple[int, ...]] = (1,)

    def infer(self, x: TensorType, n: TensorType) -> TensorType:
        if not x.ndim or n != INT:
            raise TypeError(f"FirstRows takes a tensor and an int64 scalar, got {x} and {n}")
        return TensorType(x.dtype, (None, *x.shape[1:]))

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        what, where = self.what or str(node.inputs[0]), built_at(node)

        def run(x: Any, n: Any) -> Any:
            if len(x) < n:
                raise ValueError(
                    "Sequence is shorter then the required number of steps : "
                    f"(n_steps, seq, seq.shape): {n}, {what}, {x.shape}.{where}"
                )
            if n < 0:
                raise IndexError(
                    f"Scan was asked to run for negative number of step {n}, over {what}.{where}"
                )
            return x[:n]

        return run

    def element(self, node: Variable, index: Any, operands: Any) -> Any:
        x, n = operands
        x.demand(x.sizes[0] >= n.at([]))
        return x.at(index)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        x, n = inputs
        zero = constant_leaf(np.zeros((), g.dtype))
        rest = broadcast_to(zero, [dim(x, 0) - n, *dims(x)[1:]])
        return [specify(Join(0)(g, rest), x.type.shape), None]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return [inputs[1], *dims(inputs[0])[1:]]


def first_rows(x: Variable, n: Variable, what: str = "") -> Variable:
    """The first n rows of x, which must have as many; x itself where it is plain to see that
    these are all."""
    return x if dim(x, 0) is n else FirstRows(what)(x, n)


@record
class Reshape(Op):
    """The values in row-major order under another shape; -1 is what the others leave."""

    ndim: int
    static: tuple[int | None, ...]  # the sizes that are known, -1 included

    @property
    def steering(self) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(range(1, self.ndim + 1))

    def infer(self, x: TensorType, *sizes: TensorType) -> TensorType:
        known = [None if s == -1 else s for s in self.static]
        total = None if None in x.shape else math.prod(x.shape)  # type: ignore[arg-type]
        unknown = [i for i, s in enumerate(known) if s is None]
        if total is not None and len(unknown) <= 1:
            rest = math.prod(s for s in known if s is not None)
            if unknown and rest and total % rest == 0:
                known[unknown[0]] = total // rest
            elif total != rest and (not unknown or rest):
                raise ValueError(
                    f"a tensor of shape {shape_text(x.shape)} can't be reshaped to "
                    f"{shape_text(self.static)}"
                )
        return TensorType(x.dtype, tuple(known))

    def eval(self, x: Any, *sizes: Any) -> Any:
        return np.reshape(x, [int(s) for s in sizes])

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        back = reshape(g, dims(inputs[0]), ndim=inputs[0].ndim)
        return [specify(back, inputs[0].type.shape), *[None] * self.ndim]

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable] | None:
        x, *wanted = inputs
        rest = [w for w, s in zip(wanted, self.static) if s != -1]
        if not all(is_size(w) for w in rest):
            return None  # a symbolic size may turn out to be -1
        if len(rest) == len(wanted):
            return wanted
        missing = product(dims(x)) // product(rest)
        return [missing if s == -1 else w for w, s in zip(wanted, self.static)]

    def batch(
        self, inputs: Sequence[Variable], batched: Sequence[bool], n: Variable
    ) -> Variable | None:
        if any(batched[1:]):
            return None
        x, *sizes = inputs
        if -1 in self.static:  # which no rows would leave open
            rest = [w for w, s in zip(sizes, self.static) if s != -1]
            missing = product(dims(x)[1:]) // product(rest)
            sizes = [missing if s == -1 else w for w, s in zip(sizes, self.static)]
        return reshape(x, [n, *sizes], ndim=self.ndim + 1)


_KEEP_SIGN = ("add", "mul", "int_div", "minimum")


def is_size(v: Variable, given: Container[Variable] = ()) -> bool:
    """Whether an integer is plainly not negative: the size of an axis, a constant, one that is
    given as such, a sum, product, quotient or minimum of such, or a maximum with such."""
    if (known := static_int(v)) is not None:
        return known >= 0
    name = getattr(getattr(v.op, "scalar", None), "name", None)
    if name == "maximum":
        return any(is_size(x, given) for x in v.inputs)
    if name in _KEEP_SIGN:
        return all(is_size(x, given) for x in v.inputs)
    return isinstance(v.op, Dim) or v in given


def product(sizes: Sequence[Variable]) -> Variable:
    """The product of int64 scalars."""
    known = [static_int(s) for s in sizes]
    factor = math.prod(k for k in known if k is not None)
    result: Variable = constant_leaf(np.asarray(factor, "int64"))
    for s, k in zip(sizes, known):
        if k is None:
            result = s if factor == 1 and isinstance(result, Constant) else result * s
    return result


def sizes_list(sizes: Any, what: str, ndim: int | None = None) -> list[Variable]:
    """A shape that a user wrote as int64 scalars: an int, a list of ints and symbolic integers,
    or a symbolic vector of known length."""
    if isinstance(sizes, Variable) and sizes.ndim == 1:
        if isinstance(sizes.op, MakeVector):
            return list(sizes.inputs)
        length = sizes.type.shape[0] if ndim is None else ndim
        if length is None:
            raise ValueError(
                f"{what}: the shape {sizes} is a vector of unknown length; give ndim=."
            )
        return [as_int64(sizes[i]) for i in range(length)]
    if isinstance(sizes, np.ndarray) and sizes.ndim == 1:
        sizes = sizes.tolist()
    if not isinstance(sizes, list | tuple):
        sizes = [sizes]
    return [as_int64(s, what) for s in sizes]


def as_int64(value: Any, what: str = "a size") -> Variable:
    """An integer scalar as an int64 variable. Raises TypeError for anything else."""
    v = as_tensor(value)
    if v.ndim or v.dtype in ("float16", "float32", "float64"):
        raise TypeError(f"{what}: an integer is needed, got {value} of type {v.type}")
    return v.astype("int64")


def reshape(x: Any, newshape: Any, ndim: int | None = None) -> Variable:
    """x under another shape: ints or symbolic integers, one of which may be -1."""
    x = as_tensor(x)
    sizes = sizes_list(newshape, "reshape", ndim)
    if ndim is not None and len(sizes) != ndim:
        raise ValueError(f"reshape: ndim={ndim}, but {len(sizes)} sizes were given")
    static = tuple(static_int(s) for s in sizes)
    if static.count(-1) > 1:
        raise ValueError(f"reshape: only one size can be -1, got {shape_text(static)}")
    # a size that is an axis' own is known as far as that axis is
    result = Reshape(len(sizes), static)(x, *sizes)
    return x if result.type == x.type and None not in result.type.shape else result


@record
class BroadcastTo(Op):
    """x repeated along axes of size 1, and along new leading axes, to a shape."""

    static: tuple[int | None, ...]
    repeats: ClassVar[bool] = True  # its result is a view, whatever the shape

    @property
    def steering(self) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(range(1, len(self.static) + 1))

    def infer(self, x: TensorType, *sizes: TensorType) -> TensorType:
        lead = len(self.static) - x.ndim
        if lead < 0:
            raise ValueError(f"{x} has more dimensions than the shape {shape_text(self.static)}")
        for have, want in zip(x.shape, self.static[lead:]):
            if have not in (1, None) and want is not None and have != want:
                raise ValueError(f"{x} can't be broadcast to {shape_text(self.static)}")
        known = (*self.static[:lead], *(
            have if want is None and have != 1 else want
            for have, want in zip(x.shape, self.static[lead:])
        ))  # fmt: skip
        return TensorType(x.dtype, known)

    def eval(self, x: Any, *sizes: Any) -> Any:
        shape = tuple(int(s) for s in sizes)
        if any(s < 0 for s in shape):
            raise ValueError(f"negative size in the shape {shape}")
        return np.broadcast_to(x, shape)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        x = inputs[0]
        lead = output.ndim - x.ndim
        if lead:
            g = g.sum(axis=list(range(lead)))
        axes = [i for i, s in enumerate(x.type.shape) if s == 1 and g.type.shape[i] != 1]
        if axes:
            g = g.sum(axis=axes, keepdims=True)
        return [g, *[None] * len(self.static)]

    def element(self, node: Variable, index: Any, operands: Any) -> Any:
        x = node.inputs[0]
        own = index[len(index) - x.ndim :]
        return operands[0].at([0 if s == 1 else i for i, s in zip(own, x.type.shape)])

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return inputs[1:]

    def batch(
        self, inputs: Sequence[Variable], batched: Sequence[bool], n: Variable
    ) -> Variable | None:
        if any(batched[1:]):
            return None
        x, lead = inputs[0], len(self.static) - (inputs[0].ndim - 1)
        x = dimshuffle(x, 0, *["x"] * lead, *range(1, x.ndim))
        return broadcast_to(x, [n, *inputs[1:]])


def broadcast_to(x: Any, sizes: Any) -> Variable:
    """x broadcast to a shape, by NumPy's rule."""
    x = as_tensor(x)
    wanted = sizes_list(sizes, "broadcast_to")
    static = tuple(static_int(s) for s in wanted)
    if static == x.type.shape and None not in static:
        return x
    if len(wanted) == x.ndim and all(w is d for w, d in zip(wanted, dims(x))):
        return x
    return BroadcastTo(static)(x, *wanted)


def number(v: Variable) -> float | None:
    """The number that all elements are, where that is plain to see."""
    while isinstance(v.op, BroadcastTo | DimShuffle | Specify | Reshape):
        v = v.inputs[0]
    if isinstance(v, Constant) and 0 < v.data.size <= 64:
        first = v.data.flat[0]
        if v.data.size == 1 or (v.data == first).all():
            return float(first)
    return None


def _replaced(index: Sequence[Any], axis: int, position: Any) -> list[Any]:
    return [*index[:axis], position, *index[axis + 1 :]]


@record
class Join(Op):
    """Tensors laid end to end along an axis."""

    axis: int

    def infer(self, *types: TensorType) -> TensorType:
        first = types[0]
        if any(t.ndim != first.ndim for t in types):
            raise TypeError(
                "join: all tensors must have as many dimensions, got " + ", ".join(map(str, types))
            )
        sizes: list[int | None] = []
        for axis in range(first.ndim):
            of = [t.shape[axis] for t in types]
            if axis == self.axis:
                sizes.append(None if None in of else sum(s for s in of if s is not None))
                continue
            known = {s for s in of if s is not None}
            if len(known) > 1:
                raise ValueError(
                    f"join along axis {self.axis}: axis {axis} has sizes {sorted(known)}"
                )
            sizes.append(known.pop() if known else None)
        return TensorType(first.dtype, tuple(sizes))

    def eval(self, *arrays: Any) -> Any:
        return np.concatenate(arrays, self.axis)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        parts: list[Variable] = []
        start: Variable = constant_leaf(np.asarray(0, "int64"))
        for i, x in enumerate(inputs):
            stop = start + dim(x, self.axis) if i else dim(x, self.axis)
            part = g[(slice(None),) * self.axis + (slice(start, stop),)]
            parts.append(specify(part, x.type.shape))
            start = stop
        return parts

    def element(self, node: Variable, index: Any, operands: Any) -> Any:
        index = list(index)
        *parts, last = operands
        here, chosen = index[self.axis], []
        own: Any = None  # whether the element is not one of a part before this one
        for x in parts:
            inside = here < x.sizes[self.axis]
            where = inside if own is None else own & inside
            chosen.append((inside, x.at(_replaced(index, self.axis, here), where)))
            here = here - x.sizes[self.axis]
            own = here >= 0
        value = last.at(_replaced(index, self.axis, here), own)
        for condition, v in reversed(chosen):
            value = condition.choose(v, value)
        return value

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        sizes = [dim(output if s else inputs[0], i) for i, s in enumerate(output.type.shape)]
        total: Variable = dim(inputs[0], self.axis)
        for x in inputs[1:]:
            total = total + dim(x, self.axis)
        sizes[self.axis] = total
        return sizes

    def batch(self, inputs: Sequence[Variable], batched: Sequence[bool], n: Variable) -> Variable:
        rows = [x if b else broadcast_to(x, [n, *dims(x)]) for x, b in zip(inputs, batched)]
        return Join(self.axis + 1)(*rows)


def join(axis: int, *tensors: Any) -> Variable:
    """The tensors laid end to end along an axis; their dtypes are promoted."""
    xs = [as_tensor(t) for t in tensors]
    if not xs:
        raise ValueError("join: at least one tensor is needed")
    where = static_int(axis)
    if where is None:
        raise TypeError("join: the axis must be a Python int")
    if not -xs[0].ndim <= where < xs[0].ndim:
        raise ValueError(f"join: axis {where} of tensors with {xs[0].ndim} dimensions")
    if len(xs) == 1:
        return xs[0]
    promoted = Variable.operations["promoted"](*xs)
    return Join(where % xs[0].ndim)(*promoted)


def concatenate(tensor_list: Sequence[Any], axis: int = 0) -> Variable:
    """The tensors of a list laid end to end along an axis."""
    if not isinstance(tensor_list, list | tuple):
        raise TypeError(
            "The 'tensors' argument must be either a tuple or a list, make sure you did not "
            f"forget () or [] around arguments of concatenate: got {tensor_list}"
        )
    return join(axis, *tensor_list)


def stack(*tensors: Any, axis: int = 0) -> Variable:
    """The tensors of a list as slices along a new axis."""
    listed = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], list | tuple) else tensors
    if len(tensors) == 2 and isinstance(tensors[0], list | tuple) and isinstance(tensors[1], int):
        listed, axis = tensors
    xs = Variable.operations["promoted"](*[as_tensor(t) for t in listed])
    if not xs:
        raise ValueError("stack: at least one tensor is needed")
    if xs[0].ndim == 0 and axis in (0, -1):
        return MakeVector(xs[0].dtype)(*xs)
    where = axis % (xs[0].ndim + 1)
    pattern: list[Any] = list(range(xs[0].ndim))
    pattern.insert(where, "x")
    return join(where, *[dimshuffle(x, *pattern) for x in xs])


@record
class Tuple(Op):
    """Several values as one node: what a pass that needs one root holds on to."""

    def infer(self, *types: TensorType) -> TupleType:
        return TupleType(types)

    def eval(self, *values: Any) -> Any:
        return values
