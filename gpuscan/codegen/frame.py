"""What kernels around any part of a graph share: their memory, their integers, and the sizes of
the values, which the host computes just before they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..graph import Constant, Variable
from ..ops.elemwise import Elemwise
from ..ops.shape import Dim
from .control import Control
from .kernel import Array, Binary, If, Name, Number, Pointer, Return, binary, product, row_major
from .lower import FAILED, Memory
from .plan import NotLowered
from .program import PANEL, Fixed, Scratch, Size, Stride
from .render import DTYPES
from .sizes import Known, Scope, Sizes, sizes_of, written_sizes


class Frame(Control):
    """A kernel while it is put together."""

    def __init__(self) -> None:
        super().__init__(self._size_of, self._scratch)
        self.inner = {}
        self.outer_sizes: list[Variable] = []
        self.pointers: list[tuple[Pointer, Any]] = []
        self.integers: list[tuple[Name, Any]] = []
        self.before: list[Any] = []  # statements in front of the loop
        self.equal: list[tuple[Any, Any]] = []
        self.known = Sizes()

    # ---- sizes ------------------------------------------------------------------------------

    def learn(self, scopes: Sequence[Scope]) -> None:
        """Every size of the values."""
        self.known = sizes_of(scopes)
        self.counts = self.known.counts
        self.equal = [(self._expression(x), self._expression(y)) for x, y in self.known.same.pairs]

    def _expression(self, outside: Variable) -> Any:
        if isinstance(outside, Constant):
            return Number(int(outside.data))
        if isinstance(outside.op, Elemwise) and outside.op.scalar.name == "mul":
            return product([self._expression(self.known.same.find(s)) for s in outside.inputs])
        return self._outer_size(outside)

    def _outer_size(self, outside: Variable) -> Any:
        if outside not in self.outer_sizes:
            self.outer_sizes.append(outside)
        k = self.outer_sizes.index(outside)
        return self.integer(f"n{k}", Size(k))

    def _value(self, known: Known) -> Any:
        """A size: an integer of the kernel, or one that the step computes."""
        if known.fixed:
            return self._expression(known.variable)
        return self.element(known.variable, [])

    def _size_of(self, v: Variable, axis: int) -> Any:
        known = self.known.of(v, axis)
        if known is None or (not known.fixed and isinstance(known.variable.op, Dim)):
            raise self._unknown(v)
        return self._value(known)

    def _unknown(self, v: Variable) -> NotLowered:
        return NotLowered(f"the size of {v.op_name()} is known only when it is computed")

    def shape_of(self, v: Variable) -> tuple[Any, ...]:
        known = [self.known.of(v, axis) for axis in range(v.ndim)]
        if None in known:
            raise self._unknown(v)
        return tuple(self._expression(k.variable) if k.fixed else k.variable for k in known if k)

    def admit(self, v: Variable) -> None:
        if v in self.known.refused:
            raise NotLowered(f"sizes that are computed in the step have to agree in {v.op_name()}")

    def fixed_sizes(self, v: Variable) -> list[Any]:
        """The sizes, which the host knows before the kernel starts."""
        found = self.shape_of(v)
        if any(isinstance(s, Variable) for s in found):
            raise self._unknown(v)
        return list(found)

    def _room(self, v: Variable) -> list[Any]:
        """The sizes of memory for a value: what the host knows, and what is at most needed."""
        return [self._at_most(v, axis, self._size_of(v, axis)) for axis in range(v.ndim)]

    def _at_most(self, v: Variable, axis: int, size: Any) -> Any:
        known = self.known.of(v, axis)
        if known is None:
            raise self._unknown(v)
        if known.fixed:
            return self._expression(known.variable)
        if (most := self.known.most.get(known.variable)) is None:
            raise self._unknown(v)
        room = self._expression(most)
        self.demand(size >= 0)
        self.demand(room >= size)
        return room

    def sizes(self, v: Variable) -> list[Any]:
        return [self._size_of(v, i) for i in range(v.ndim)]

    def part_sizes(self, v: Variable) -> list[Any]:
        return [self._value(self.known.told[s]) for s in written_sizes(v)]

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
        shared = self.stages is not None and self.stages.shares_units(v)
        return self._memory(product(self._room(v)), v.dtype, shared)

    def _memory(self, elements: Any, dtype: str, shared: bool = False) -> Array:
        array = Array(f"w{len(self.pointers)}", dtype)
        return self.pointer(array, True, Scratch(elements, dtype, shared))

    def history(self, trace: Variable, n: Any) -> Memory:
        row = [self._size_of(trace, axis) for axis in range(1, trace.ndim)]
        room = [self._at_most(trace, a, s) for a, s in enumerate([n, *row])]
        return Memory(self._memory(product(room), trace.dtype), row_major([n, *row]))

    def scratch_panels(self, weight: Variable, transposed: bool) -> Array:
        """Memory for an operand of a product in panels."""
        sizes = self.sizes(weight)
        wide = Number(1) if len(sizes) == 1 else sizes[0 if transposed else 1]
        shared = self.stages is not None and self.stages.is_shared_out(wide)
        columns = Number(PANEL)
        padded = [
            binary("mul", binary("int_div", s + (PANEL - 1), columns), columns)
            for s in self._room(weight)
        ]
        elements = product(padded) if len(padded) == 2 else binary("mul", padded[0], columns)
        array = Array(f"p{len(self.pointers)}", weight.dtype)
        return self.pointer(array, True, Scratch(elements, weight.dtype, shared))
