"""Products that sum over the steps of a loop, as the gradients of its weights do.

All that share their right operand are one node, in which it is packed once; and their operands stay
as the loop made them, also where its steps lie backwards: no Reshape copies them into matrices.
What is added to rows of a table by number, as a lookup's gradient is, comes from the same operand,
and is added while that is packed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from ..evaluate import Program
from ..graph import Op, Variable
from ..ops.index import AdvancedIncSubtensor, places_of
from ..ops.shape import DimShuffle, Reshape
from ..record import field, record
from ..types import TensorType, TupleType
from . import memory
from .plans import laid_out
from .products import LEAST, Addition, Factor, is_by_columns, is_product, product_kernel, products
from .scatter import NativeScatter, add_rows, is_scatter, scatter_kernel


@record
class NativeContraction(Op):
    """(*per left operand and then for the right one a matrix, or for one that is `stacked` the
    inputs of the Reshape that it is; *of an addition x and the positions) -> per left operand,
    transposed, its product with the right one; and the addition, whose y is the right operand.
    `given` are the inputs, from which the values are computed as they were written."""

    values: tuple[Variable, ...]
    given: tuple[Variable, ...] = field(compare=False)
    stacked: tuple[bool, ...]

    is_recorded: ClassVar[bool] = True

    @property
    def products(self) -> tuple[Variable, ...]:
        return self.values[: len(self.stacked) - 1]

    @property
    def addition(self) -> Variable | None:
        return self.values[-1] if len(self.values) == len(self.stacked) else None

    def of_addition(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Of the inputs x and the positions."""
        assert self.addition is not None
        return inputs[1 - len(self.addition.inputs) :]

    def infer(self, *types: TensorType) -> TupleType:
        return TupleType(tuple([v.type for v in self.values]))

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        return _Contraction(self)


class _Contraction:
    def __init__(self, op: NativeContraction) -> None:
        self.op = op
        self.kernel, self.elements = product_kernel(op.values[0].dtype)
        if (v := op.addition) is not None:
            assert isinstance(v.op, AdvancedIncSubtensor)
            self.places = places_of(v.op.pattern, v.inputs[2:])
            self.add = scatter_kernel(v.dtype)
        self._interpreted: Program | None = None

    def definition(self, *inputs: Any) -> Any:
        """The values one by one: for operands without a kernel, and to say what is wrong."""
        if self._interpreted is None:
            values, written = list(self.op.values), {}
            if (v := self.op.addition) is not None:
                assert isinstance(v.op, AdvancedIncSubtensor)
                values[-1] = NativeScatter(v.op)(*v.inputs)
                written[values[-1]] = v
            self._interpreted = Program(self.op.given, values, written)
        return self._interpreted(*inputs)

    def __call__(self, *inputs: Any) -> Any:
        found = operands(self.op, inputs)
        if found is None:
            return self.definition(*inputs)
        stacks = [laid_out(x, True) for x in found]
        steps, span, wide = stacks[-1].shape
        addition = None
        if self.op.addition is not None:
            memory.not_recorded()  # the host looks at the positions
            x, *positions = self.op.of_addition(inputs)
            try:
                rows, shape, _ = self.places(x.shape, positions)
            except IndexError:
                return self.definition(*inputs)
            if shape != found[-1].shape:
                return self.definition(*inputs)
            out = memory.empty(x.shape, x.dtype)
            out[...] = x
            addition = Addition(np.ascontiguousarray(rows), out.reshape(-1, wide))
        factors = [_factor(x) for x in stacks]
        depth = steps * span
        if all(f.apart == span * f.down for f in factors):
            span = depth
        *lefts, right = factors
        together = is_by_columns(sum(left.columns for left in lefts), wide)
        given = addition if together else None
        made = products(self.kernel, self.elements, lefts, right, depth, span, given)
        if addition is None:
            return tuple(made)
        if not together:
            add_rows(self.add, addition.out, addition.rows, stacks[-1].reshape(depth, wide))
        return (*made, out)


def operands(op: NativeContraction, inputs: Sequence[Any]) -> list[Any] | None:
    """The operands as stacks (steps, span, columns) that fit together; None where they don't, or
    where NumPy is as good."""
    rest, stacks = list(inputs), []
    for stacked in op.stacked:
        x = rest.pop(0)
        if stacked:
            rows, columns = int(rest.pop(0)), int(rest.pop(0))
            total = x.shape[0] * x.shape[1]
            if (rows, columns) not in ((total, x.shape[2]), (-1, x.shape[2]), (total, -1)):
                return None
        stacks.append(x)
    shapes = {x.shape[:2] for x in stacks if x.ndim == 3}
    steps, span = shapes.pop() if shapes else (1, stacks[-1].shape[0])
    if shapes or min(x.shape[-1] for x in stacks) < LEAST:
        return None
    for i, x in enumerate(stacks):
        if x.ndim == 2:
            if len(x) != steps * span:
                return None
            stacks[i] = x.reshape((steps, span, x.shape[1]))
    return stacks


def _factor(x: Any) -> Factor:
    apart, down, column = (s // x.itemsize for s in x.strides)
    if x.shape[1] == 1:
        down = apart
    return Factor(x, x.shape[2], column, down, apart)


def contraction(
    values: Sequence[Variable], addition: Variable | None = None
) -> NativeContraction | None:  # fmt: skip
    """The products of these, whose right operand is one, and an addition of its rows, as one; None
    where that gains nothing."""
    matrices = [*[v.inputs[0].inputs[0] for v in values], values[0].inputs[1]]
    stacked = tuple(map(_is_stack, matrices))
    if len(values) == 1 and not any(stacked):
        return None
    given = [x for m, s in zip(matrices, stacked) for x in (m.inputs if s else (m,))]
    if addition is not None:
        x, _, *positions = addition.inputs
        values, given = [*values, addition], [*given, x, *positions]
    return NativeContraction(tuple(values), tuple(given), stacked)


def is_addition_of(v: Variable, right: Variable) -> bool:
    """Whether v adds the rows of a product's right operand, a stack of matrices, to rows of a
    matrix."""
    stack = right.inputs[0] if _is_stack(right) else None
    return is_scatter(v) and v.ndim == 2 and v.inputs[1] is stack and v.dtype == right.dtype


def is_contraction(v: Variable) -> bool:
    """Whether v is the product of a transposed matrix with another."""
    if not is_product(v):
        return False
    left = v.inputs[0].op
    return isinstance(left, DimShuffle) and left.pattern == (1, 0)


def _is_stack(x: Variable) -> bool:
    """Whether a matrix is the rows of a stack of matrices."""
    return isinstance(x.op, Reshape) and x.inputs[0].ndim == 3
