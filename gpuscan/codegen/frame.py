"""What kernels around any part of a graph share: their memory, their integers, and the sizes of
the values, which the host computes just before they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ..graph import Constant, Variable, constant_leaf
from ..ops.elemwise import Elemwise
from ..ops.index import IncSubtensor
from ..ops.linalg import Dot
from ..ops.patterns import part_sizes
from ..ops.shape import BroadcastTo, Dim, Join, Reshape, Specify, as_int64, dims
from ..rules.shapes import pushed_dims
from ..types import TensorType
from .kernel import Array, If, Name, Number, Pointer, Return, binary, product, row_major
from .lower import FAILED, Lowering, Memory, NotLowered
from .program import Fixed, Scratch, Size, Stride
from .render import DTYPES

PANEL = 64  # a product's packed operand is padded to a multiple of this many columns
Axis = tuple[Variable, int]


class Frame(Lowering):
    """A kernel while it is put together.

    outside    sizes of values, in terms of what the host knows: None where it does not
    """

    def __init__(self, outside: Callable[[list[Variable]], Sequence[Variable | None]]) -> None:
        super().__init__(self._size_of, self._scratch)
        self._outside = outside
        self.outer_sizes: list[Variable] = []
        self.pointers: list[tuple[Pointer, Any]] = []
        self.integers: list[tuple[Name, Any]] = []
        self.before: list[Any] = []  # statements in front of the loop
        self.equal: list[tuple[Any, Any]] = []
        self._size: dict[Axis, Any] = {}

    # ---- sizes ------------------------------------------------------------------------------

    def learn_sizes(
        self,
        computed: Iterable[Variable],
        given: Iterable[Variable],
        also: Iterable[tuple[Axis, Axis]] = (),
    ) -> None:
        """Every size of the values. Those that an op takes to be equal are one: the host
        compares them before the kernel runs. `also` names more that are equal."""
        computed = [v for v in computed if isinstance(v.type, TensorType)]
        values = list(dict.fromkeys([*computed, *given]))
        places = [(v, i) for v in values for i, s in enumerate(v.type.shape) if s is None]
        asked = list(dict.fromkeys(_equal_expressions(computed)))
        expressions = [e for pair in asked for e in pair]
        outside = self._outside(pushed_dims([*(Dim(i)(v) for v, i in places), *expressions]))
        known: dict[Axis, Variable | None] = dict(zip(places, outside))
        others = iter(outside[len(places) :])

        def size(v: Variable, axis: int) -> Variable | None:
            s = v.type.shape[axis]
            return known[v, axis] if s is None else constant_leaf(np.asarray(s, "int64"))

        same = _Classes()
        for a, b in [*_equal_sizes(computed), *also]:
            x, y = size(*a), size(*b)
            if x is not None and y is not None:
                same.join(x, y)
        for x, y in zip(others, others):
            if x is not None and y is not None:
                same.join(x, y)
        for v in values:
            for axis in range(v.ndim):
                if (s := size(v, axis)) is not None:
                    self._size[v, axis] = self._expression(same.find(s))
        self.equal = [(self._expression(x), self._expression(y)) for x, y in same.pairs]

    def _expression(self, outside: Variable) -> Any:
        if isinstance(outside, Constant):
            return Number(int(outside.data))
        if outside not in self.outer_sizes:
            self.outer_sizes.append(outside)
        k = self.outer_sizes.index(outside)
        return self.integer(f"n{k}", Size(k))

    def _size_of(self, v: Variable, axis: int) -> Any:
        found = self._size.get((v, axis))
        if found is None:
            raise NotLowered(f"the size of {v.op_name()} is known only when it is computed")
        return found

    def sizes(self, v: Variable) -> list[Any]:
        return [self._size_of(v, i) for i in range(v.ndim)]

    def require(self, condition: Any) -> None:
        self.before.append(If(binary("eq", condition, Number(0)), (Return(FAILED),)))

    # ---- memory -----------------------------------------------------------------------------

    def integer(self, text: str, source: Any) -> Name:
        """An integer that the host gives."""
        name = Name(text)
        if all(n != name for n, _ in self.integers):
            self.integers.append((name, source))
        return name

    def pointer(self, array: Array, written: bool, source: Any) -> Array:
        """Memory that the host gives."""
        if array.dtype not in DTYPES:
            raise NotLowered(f"a value of dtype {array.dtype}")
        self.pointers.append((Pointer(array, written), source))
        return array

    def strides(self, operand: int, ndim: int, first: int, dense: bool) -> tuple[Any, ...]:
        """The strides of an operand's axes from `first` on; `dense`: the last one is 1."""
        names: list[Any] = [
            self.integer(f"s{operand}_{axis}", Stride(operand, axis))
            for axis in range(first, ndim - dense)
        ]
        return (*names, Number(1)) if dense and ndim > first else tuple(names)

    def constant(self, v: Constant) -> Memory:
        array = self.pointer(Array(f"l{len(self.pointers)}", v.dtype), False, Fixed(v))
        return Memory(array, row_major([Number(s) for s in v.data.shape]))

    def _scratch(self, v: Variable) -> Array:
        array = Array(f"w{len(self.pointers)}", v.dtype)
        return self.pointer(array, True, Scratch(product(self.sizes(v)), v.dtype))

    def scratch_panels(self, weight: Variable) -> Array:
        """Memory for an operand of a product in panels."""
        columns = Number(PANEL)
        padded = [
            binary("mul", binary("int_div", s + (PANEL - 1), columns), columns)
            for s in self.sizes(weight)
        ]
        elements = product(padded) if len(padded) == 2 else binary("mul", padded[0], columns)
        array = Array(f"p{len(self.pointers)}", weight.dtype)
        return self.pointer(array, True, Scratch(elements, weight.dtype))


def _equal_sizes(values: Sequence[Variable]) -> Iterator[tuple[Axis, Axis]]:
    """Axes whose sizes an op takes to be equal."""
    for v in values:
        if isinstance(v.op, Elemwise):
            for axis in range(v.ndim):
                wide = [x for x in v.inputs if x.type.shape[axis] != 1]
                for x in wide[1:]:
                    yield (wide[0], axis), (x, axis)
                if wide:
                    yield (v, axis), (wide[0], axis)
        elif isinstance(v.op, Dot):
            x, y = v.inputs
            yield (x, x.ndim - 1), (y, 0)
        elif isinstance(v.op, Join):
            for x in v.inputs[1:]:
                for axis in range(v.ndim):
                    if axis != v.op.axis:
                        yield (v.inputs[0], axis), (x, axis)
        elif isinstance(v.op, BroadcastTo | Specify):
            x = v.inputs[0]
            for axis, size in enumerate(x.type.shape):
                if size != 1:
                    yield (x, axis), (v, v.ndim - x.ndim + axis)


def _equal_expressions(values: Sequence[Variable]) -> Iterator[tuple[Variable, Variable]]:
    """Sizes that an op takes to be equal and that are not sizes of values."""
    for v in values:
        if isinstance(v.op, IncSubtensor):
            x, y, *rest = v.inputs
            part = part_sizes(v.op.pattern, x, rest)[-y.ndim :] if y.ndim else []
            for axis, size in enumerate(part):
                if y.type.shape[axis] != 1:
                    yield Dim(axis)(y), size
        elif isinstance(v.op, Reshape) and None in (*v.type.shape, *v.inputs[0].type.shape):
            yield _total(v.inputs[0]), _total(v)


def _total(v: Variable) -> Variable:
    """The number of elements of a value."""
    size: Variable = as_int64(1)
    for d in dims(v):
        size = size * d
    return size


class _Classes:
    """Sizes that are equal, each class with the member that stands for it: a constant if one is
    in it."""

    def __init__(self) -> None:
        self._above: dict[Variable, Variable] = {}
        self.pairs: list[tuple[Variable, Variable]] = []

    def find(self, x: Variable) -> Variable:
        while x in self._above:
            x = self._above[x]
        return x

    def join(self, x: Variable, y: Variable) -> None:
        if x is not y and (x, y) not in self.pairs:
            self.pairs.append((x, y))
        x, y = self.find(x), self.find(y)
        if x is not y:
            if isinstance(y, Constant):
                x, y = y, x
            self._above[y] = x
