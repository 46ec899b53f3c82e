"""The sizes of a step's values, and of those of the loops in it.

Most of them the host knows before a kernel starts: they follow from sizes of what the loop is
given. Any other is an integer that the step computes, such as the number of an inner loop's steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..graph import Constant, Variable, constant_leaf, substitute, toposort
from ..ops.control import IfElse
from ..ops.elemwise import Elemwise
from ..ops.index import AdvancedIncSubtensor, AdvancedSubtensor, IncSubtensor
from ..ops.linalg import BatchedDot, Dot
from ..ops.patterns import Array, holes, part_sizes
from ..ops.shape import (
    BroadcastTo,
    CheckSizes,
    Dim,
    FirstRows,
    Join,
    Reshape,
    Specify,
    as_int64,
    dims,
    is_size,
)
from ..record import record
from ..rules.shapes import pushed_dims
from ..scan.op import Operands, Scan, Step
from ..types import TensorType

Axis = tuple[Variable, int]


@record
class Known:
    """A size: in terms of what the host knows (`fixed`), or of values of the outermost step that
    it takes."""

    variable: Variable
    fixed: bool


Outside = Callable[[Sequence[Variable]], list[Known]]


@record
class Scope:
    """The values of a step whose sizes are asked for."""

    computed: Sequence[Variable]
    given: Sequence[Variable]
    outside: Outside
    also: Sequence[tuple[Variable, Axis, Axis]] = ()  # sizes that are equal, as ops say it


class Classes:
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


@dataclass
class Sizes:
    """What is found.

    told      other integers: what an op writes into, how often a loop runs
    counts    what steps are given as numbers and is plainly not negative where it comes from
    refused   values for which sizes would have to be compared that the step computes
    most      for sizes that are not fixed: one that is, and not less
    same      fixed sizes that are equal: some the host has to compare
    """

    unknown: dict[Axis, Known] = field(default_factory=dict)  # in the types
    told: dict[Variable, Known] = field(default_factory=dict)
    counts: set[Variable] = field(default_factory=set)
    refused: set[Variable] = field(default_factory=set)
    most: dict[Variable, Variable] = field(default_factory=dict)
    same: Classes = field(default_factory=Classes)

    def of(self, v: Variable, axis: int) -> Known | None:
        size = v.type.shape[axis]
        if size is not None:
            return Known(constant_leaf(np.asarray(size, "int64")), True)
        return self.unknown.get((v, axis))


def by_the_host(sizes: Sequence[Variable]) -> list[Known]:
    """Outside of loops all sizes are known."""
    return [Known(s, True) for s in sizes]


def outside_of(loop: Scan, o: Operands, further: Outside | None = None) -> Outside:
    """How sizes of a loop's step are known; `further`: for a loop inside of another's step."""

    def outside(sizes: Sequence[Variable]) -> list[Known]:
        there = loop.outside(list(sizes), o)
        if further is None:
            return [Known(s if t is None else t, t is not None) for s, t in zip(sizes, there)]
        found = iter(further(_pushed([t for t in there if t is not None])))
        return [Known(s, False) if t is None else next(found) for s, t in zip(sizes, there)]

    return outside


def scope_of(step: Step, outside: Outside) -> Scope:
    carried = [
        (new, (p, axis), (new, axis))
        for p, new in zip(step.carries, step.new)
        for axis in range(p.ndim)
    ]
    return Scope(toposort(step.outputs, step.params), step.params, outside, carried)


def sizes_of(scopes: Sequence[Scope]) -> Sizes:
    """Every size of the values. Those that an op takes to be equal are one."""
    found = Sizes()
    equal: list[tuple[Variable, Known | None, Known | None]] = []
    computed: list[Variable] = []
    for scope in scopes:
        own = [v for v in scope.computed if isinstance(v.type, TensorType)]
        values = dict.fromkeys([*own, *scope.given])
        places = [(v, axis) for v in values for axis, s in enumerate(v.type.shape) if s is None]
        pairs = list(dict.fromkeys(_equal_expressions(own)))
        asked = [e for _, *pair in pairs for e in pair] + list(_other_integers(scope.computed))
        numbers = _numbers(scope)
        found.counts |= numbers.keys()
        known = _known(scope, [*(Dim(axis)(v) for v, axis in places), *asked], numbers)
        found.unknown |= zip(places, known)
        found.told |= zip(asked, known[len(places) :])
        equal += [(v, found.told[a], found.told[b]) for v, a, b in pairs]
        equal += [(v, found.of(*a), found.of(*b)) for v, a, b in [*_equal_sizes(own), *scope.also]]
        computed += scope.computed
    same = found.same
    for v, x, y in equal:
        if x is None or y is None:
            found.refused.add(v)
        elif x.fixed and y.fixed:
            same.join(x.variable, y.variable)
        elif x.variable is not y.variable:
            found.refused.add(v)

    def standing(known: Known) -> Known:
        return Known(same.find(known.variable), True) if known.fixed else known

    found.unknown = {k: standing(s) for k, s in found.unknown.items()}
    found.told = {k: standing(s) for k, s in found.told.items()}
    for v in computed:
        for size, most in _bounds(v, found):
            if size is None or most is None or size.fixed:
                continue
            room = most.variable if most.fixed else found.most.get(most.variable)
            if room is not None:
                found.most.setdefault(size.variable, room)
    return found


def _numbers(scope: Scope) -> dict[Variable, Variable]:
    """What a step is given as a number and is a size outside, with that size."""
    given = [p for p in scope.given if p.type == _NUMBER]
    outer = zip(given, scope.outside(given))
    return {p: x.variable for p, x in outer if x.fixed and is_size(x.variable)}


def _known(
    scope: Scope, sizes: Sequence[Variable], numbers: Mapping[Variable, Variable]
) -> list[Known]:
    """How sizes are known outside. Those that follow only from a number that is a size there are
    found second: by itself a number could be -1."""
    found = scope.outside(_pushed(sizes))
    left = [k for k, x in enumerate(found) if not x.fixed]
    if not left or not numbers:
        return found
    again = scope.outside(_pushed(substitute([sizes[k] for k in left], numbers)))
    for k, x in zip(left, again):
        if x.fixed:
            found[k] = x
    return found


_NUMBER = TensorType("int64", ())


def _bounds(v: Variable, found: Sizes) -> Iterator[tuple[Known | None, Known | None]]:
    """Sizes, and what they can't exceed."""
    if isinstance(v.op, FirstRows):
        yield found.of(v, 0), found.of(v.inputs[0], 0)
    elif isinstance(v.op, Scan) and v.inputs[0] in found.told:
        for trace in v.op.results(v).traces:
            yield found.of(trace, 0), found.told[v.inputs[0]]


def _pushed(sizes: Sequence[Variable]) -> list[Variable]:
    """Sizes in terms of the leaves. That of a choice is the size of both branches."""
    pushed = pushed_dims(sizes)
    choices: dict[Variable, Variable] = {}
    for v in toposort(pushed):
        if isinstance(v.op, IfElse):
            choices[v] = substitute([v.inputs[1]], choices)[0]
    return pushed_dims(substitute(pushed, choices)) if choices else pushed


def _other_integers(values: Sequence[Variable]) -> Iterator[Variable]:
    for v in values:
        if isinstance(v.op, AdvancedIncSubtensor):
            yield from written_sizes(v)
        elif isinstance(v.op, Scan) and v.op.step.stop is not None:
            steps = v.inputs[0]
            if all(not x.inputs or isinstance(x.op, Dim | Elemwise) for x in toposort([steps])):
                yield steps


def written_sizes(v: Variable) -> list[Variable]:
    """The sizes of the part that an op writes into."""
    x, _, *operands = v.inputs
    return part_sizes(v.op.pattern, x, operands)  # type: ignore[attr-defined]


def _equal_sizes(values: Sequence[Variable]) -> Iterator[tuple[Variable, Axis, Axis]]:
    """Values, and axes whose sizes their op takes to be equal."""
    for v in values:
        if isinstance(v.op, Elemwise):
            for axis in range(v.ndim):
                wide = [x for x in v.inputs if x.type.shape[axis] != 1]
                for x in wide[1:]:
                    yield v, (wide[0], axis), (x, axis)
                if wide:
                    yield v, (v, axis), (wide[0], axis)
        elif isinstance(v.op, Dot):
            x, y = v.inputs
            yield v, (x, x.ndim - 1), (y, 0)
        elif isinstance(v.op, Join):
            for x in v.inputs[1:]:
                for axis in range(v.ndim):
                    if axis != v.op.axis:
                        yield v, (v.inputs[0], axis), (x, axis)
        elif isinstance(v.op, BatchedDot):
            x, y = v.inputs
            yield v, (x, 0), (y, 0)
            yield v, (x, 2), (y, 1)
        elif isinstance(v.op, IfElse):
            for axis in range(v.ndim):
                yield v, (v.inputs[1], axis), (v.inputs[2], axis)
        elif isinstance(v.op, AdvancedSubtensor | AdvancedIncSubtensor):
            yield from ((v, a, b) for a, b in _sizes_of_arrays(v))
        elif isinstance(v.op, BroadcastTo | Specify):
            x = v.inputs[0]
            for axis, size in enumerate(x.type.shape):
                if size != 1:
                    yield v, (x, axis), (v, v.ndim - x.ndim + axis)


def _equal_expressions(values: Sequence[Variable]) -> Iterator[tuple[Variable, Variable, Variable]]:
    """Values, and sizes that their op takes to be equal and that are not sizes of values."""
    for v in values:
        if isinstance(v.op, IncSubtensor | AdvancedIncSubtensor):
            y = v.inputs[1]
            part = written_sizes(v)[-y.ndim :] if y.ndim else []
            for axis, size in enumerate(part):
                if y.type.shape[axis] != 1:
                    yield v, Dim(axis)(y), size
        elif isinstance(v.op, CheckSizes):
            for axis, size in zip(v.op.axes, v.inputs[1:]):
                yield v, Dim(axis)(v.inputs[0]), size
        elif isinstance(v.op, Reshape) and None in (*v.type.shape, *v.inputs[0].type.shape):
            yield v, _total(v.inputs[0]), _total(v)


def _sizes_of_arrays(v: Variable) -> Iterator[tuple[Axis, Axis]]:
    """Axes of index arrays, counted from the last, of which none is known to be 1."""
    assert isinstance(v.op, AdvancedSubtensor | AdvancedIncSubtensor)
    pattern = v.op.pattern
    operands = v.inputs[1:] if isinstance(v.op, AdvancedSubtensor) else v.inputs[2:]
    arrays = [x for x, k in zip(operands, holes(pattern)) if pattern[k] == Array()]
    for back in range(1, 1 + max(x.ndim for x in arrays)):
        wide = [x for x in arrays if x.ndim >= back and x.type.shape[-back] != 1]
        for x in wide[1:]:
            yield (wide[0], wide[0].ndim - back), (x, x.ndim - back)


def _total(v: Variable) -> Variable:
    """The number of elements of a value."""
    size: Variable = as_int64(1)
    for d in dims(v):
        size = size * d
    return size
