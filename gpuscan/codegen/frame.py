"""What kernels around any part of a graph share: their memory, their integers, and the sizes of
the values, which the host computes just before they are needed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..graph import Constant, Variable, constant_leaf, substitute, toposort
from ..ops.control import IfElse
from ..ops.elemwise import Elemwise
from ..ops.index import AdvancedIncSubtensor, AdvancedSubtensor, IncSubtensor
from ..ops.linalg import BatchedDot, Dot
from ..ops.patterns import Array as Entries
from ..ops.patterns import holes, part_sizes
from ..ops.shape import BroadcastTo, CheckSizes, Dim, Join, Reshape, Specify, as_int64, dims
from ..record import record
from ..rules.shapes import pushed_dims
from ..scan.op import Operands, Scan, Step
from ..types import TensorType
from .control import Control, Inner, with_own_parameters
from .kernel import Array, Binary, If, Name, Number, Pointer, Return, binary, product, row_major
from .lower import FAILED, Memory
from .plan import NotLowered
from .program import Fixed, Scratch, Size, Stride
from .render import DTYPES

PANEL = 64  # a product's packed operand is padded to a multiple of this many columns
Axis = tuple[Variable, int]


# Sizes in terms of what the host knows: None where it does not.
Outside = Callable[[list[Variable]], Sequence[Variable | None]]


@record
class _Scope:
    """The values of a step whose sizes are learnt."""

    computed: Sequence[Variable]
    given: Sequence[Variable]
    outside: Outside
    also: Sequence[tuple[Axis, Axis]] = ()  # sizes that are equal, and no op says so


class Frame(Control):
    """A kernel while it is put together."""

    def __init__(self) -> None:
        super().__init__(self._size_of, self._scratch)
        self.inner: dict[Variable, Inner] = {}
        self.outer_sizes: list[Variable] = []
        self.pointers: list[tuple[Pointer, Any]] = []
        self.integers: list[tuple[Name, Any]] = []
        self.before: list[Any] = []  # statements in front of the loop
        self.equal: list[tuple[Any, Any]] = []
        self._size: dict[Axis, Any] = {}
        self._told: dict[Variable, Any] = {}  # other integers that the host was asked for

    # ---- sizes ------------------------------------------------------------------------------

    def learn_sizes(self, computed: Sequence[Variable], given: Sequence[Variable]) -> None:
        """Every size of values outside of loops."""
        self._learn([_Scope(computed, given, lambda sizes: sizes)])

    def learn_sizes_of_step(self, step: Step, outside: Outside) -> None:
        """Every size of a step's values and of those of the loops in it."""
        self._learn(list(self._scopes(step, outside)))

    def _scopes(self, step: Step, outside: Outside) -> Iterator[_Scope]:
        computed = toposort(step.outputs, step.params)
        carried = [
            ((p, axis), (new, axis))
            for p, new in zip(step.carries, step.new)
            for axis in range(p.ndim)
        ]
        yield _Scope(computed, step.params, outside, carried)
        for v in computed:
            if not isinstance(v.op, Scan):
                continue
            o = v.op.split(v.inputs)
            own = with_own_parameters(v.op.step, o)
            self.inner[v] = Inner(o, own)
            yield from self._scopes(own, functools.partial(_through, Scan(own), o, outside))

    def _learn(self, scopes: Sequence[_Scope]) -> None:
        """Those sizes that an op takes to be equal are one: the host compares them before the
        kernel runs."""
        known: dict[Axis, Variable | None] = {}
        told: dict[Variable, Variable | None] = {}
        equal: list[tuple[Variable | None, Variable | None]] = []
        values: dict[Variable, None] = {}

        def size(v: Variable, axis: int) -> Variable | None:
            s = v.type.shape[axis]
            return known[v, axis] if s is None else constant_leaf(np.asarray(s, "int64"))

        for scope in scopes:
            computed = [v for v in scope.computed if isinstance(v.type, TensorType)]
            own = dict.fromkeys([*computed, *scope.given])
            places = [(v, i) for v in own for i, s in enumerate(v.type.shape) if s is None]
            pairs = list(dict.fromkeys(_equal_expressions(computed)))
            sizes = [Dim(i)(v) for v, i in places]
            asked = [*(e for pair in pairs for e in pair), *_expressions(computed)]
            found = _pushed([*sizes, *asked], scope.outside)
            known |= zip(places, found)
            told |= zip(asked, found[len(places) :])
            for a, b in pairs:
                if told[a] is None or told[b] is None:
                    raise NotLowered("sizes that are computed in the step have to agree")
                equal.append((told[a], told[b]))
            equal += [(size(*a), size(*b)) for a, b in [*_equal_sizes(computed), *scope.also]]
            values |= own
        same = _Classes()
        for x, y in equal:
            if x is not None and y is not None:
                same.join(x, y)
        for v in values:
            for axis in range(v.ndim):
                if (s := size(v, axis)) is not None:
                    self._size[v, axis] = self._expression(same.find(s))
        self._told = {e: self._expression(same.find(s)) for e, s in told.items() if s is not None}
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

    def part_sizes(self, v: Variable) -> list[Any]:
        found = [self._told.get(s) for s in _part_sizes(v)]
        if None in found:
            raise NotLowered(f"the sizes of what {v.op.label} writes are known only in the step")
        return found

    def is_fixed(self, e: Any) -> bool:
        match e:
            case Binary(_, a, b):
                return self.is_fixed(a) and self.is_fixed(b)
            case Name():
                return any(e == n for n, _ in self.integers)
        return isinstance(e, Number)

    def require(self, condition: Any) -> None:
        if condition == Number(True, "bool"):
            return
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
        shared = self.stages is not None and self.stages.shares_units(v)
        return self.pointer(array, True, Scratch(product(self.sizes(v)), v.dtype, shared))

    def scratch_panels(self, weight: Variable, transposed: bool) -> Array:
        """Memory for an operand of a product in panels."""
        sizes = self.sizes(weight)
        wide = Number(1) if len(sizes) == 1 else sizes[0 if transposed else 1]
        shared = self.stages is not None and self.stages.is_shared_out(wide)
        columns = Number(PANEL)
        padded = [
            binary("mul", binary("int_div", s + (PANEL - 1), columns), columns) for s in sizes
        ]
        elements = product(padded) if len(padded) == 2 else binary("mul", padded[0], columns)
        array = Array(f"p{len(self.pointers)}", weight.dtype)
        return self.pointer(array, True, Scratch(elements, weight.dtype, shared))


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
        elif isinstance(v.op, BatchedDot):
            x, y = v.inputs
            yield (x, 0), (y, 0)
            yield (x, 2), (y, 1)
        elif isinstance(v.op, IfElse):
            for axis in range(v.ndim):
                yield (v.inputs[1], axis), (v.inputs[2], axis)
        elif isinstance(v.op, AdvancedSubtensor | AdvancedIncSubtensor):
            yield from _sizes_of_arrays(v)
        elif isinstance(v.op, BroadcastTo | Specify):
            x = v.inputs[0]
            for axis, size in enumerate(x.type.shape):
                if size != 1:
                    yield (x, axis), (v, v.ndim - x.ndim + axis)


def _equal_expressions(values: Sequence[Variable]) -> Iterator[tuple[Variable, Variable]]:
    """Sizes that an op takes to be equal and that are not sizes of values."""
    for v in values:
        if isinstance(v.op, IncSubtensor | AdvancedIncSubtensor):
            y = v.inputs[1]
            part = _part_sizes(v)[-y.ndim :] if y.ndim else []
            for axis, size in enumerate(part):
                if y.type.shape[axis] != 1:
                    yield Dim(axis)(y), size
        elif isinstance(v.op, CheckSizes):
            for axis, size in zip(v.op.axes, v.inputs[1:]):
                yield Dim(axis)(v.inputs[0]), size
        elif isinstance(v.op, Reshape) and None in (*v.type.shape, *v.inputs[0].type.shape):
            yield _total(v.inputs[0]), _total(v)


def _sizes_of_arrays(v: Variable) -> Iterator[tuple[Axis, Axis]]:
    """Axes of index arrays, counted from the last, of which none is known to be 1."""
    assert isinstance(v.op, AdvancedSubtensor | AdvancedIncSubtensor)
    pattern = v.op.pattern
    operands = v.inputs[1:] if isinstance(v.op, AdvancedSubtensor) else v.inputs[2:]
    arrays = [x for x, k in zip(operands, holes(pattern)) if pattern[k] == Entries()]
    for back in range(1, 1 + max(x.ndim for x in arrays)):
        wide = [x for x in arrays if x.ndim >= back and x.type.shape[-back] != 1]
        for x in wide[1:]:
            yield (wide[0], wide[0].ndim - back), (x, x.ndim - back)


def _part_sizes(v: Variable) -> list[Variable]:
    """The sizes of the part that an op writes into."""
    x, _, *operands = v.inputs
    return part_sizes(v.op.pattern, x, operands)  # type: ignore[attr-defined]


def _expressions(values: Sequence[Variable]) -> Iterator[Variable]:
    """Other integers that a kernel asks the host for."""
    for v in values:
        if isinstance(v.op, AdvancedIncSubtensor):
            yield from _part_sizes(v)


def _pushed(sizes: Sequence[Variable], outside: Outside) -> list[Variable | None]:
    """Sizes as the host knows them. That of a choice is the size of both branches, which the
    host compares: unknown where one of them is."""
    pushed = pushed_dims(sizes)
    choices: dict[Variable, Variable] = {}
    for v in toposort(pushed):
        if isinstance(v.op, IfElse):
            choices[v] = substitute([v.inputs[1]], choices)[0]
    if not choices:
        return list(outside(pushed))
    return list(outside(pushed_dims(substitute(pushed, choices))))


def _through(
    loop: Scan, o: Operands, outside: Outside, sizes: list[Variable]
) -> Sequence[Variable | None]:
    """Sizes inside a loop that stands inside of a step."""
    there = loop.outside(sizes, o)
    found = iter(_pushed([s for s in there if s is not None], outside))
    return [None if s is None else next(found) for s in there]


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
