"""Products of matrices outside of loops, by the same routine as inside, on all threads.

Those that sum over the steps of a loop, as the gradients of its weights do, are one node for all
that share their right operand, which is packed once; and their operands stay as the loop made them,
also where its steps lie backwards: no Reshape copies them into matrices.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable, Sequence
from typing import Any

from ..evaluate import Program
from ..graph import Op, Variable, inherit, substitute, toposort
from ..kernel_files import kernels_dir
from ..ops.linalg import Dot
from ..ops.shape import DimShuffle, Reshape
from ..record import field, record
from ..types import TensorType, TupleType
from . import compiler, memory, threads
from .plans import addresses, laid_out

DTYPES = {"float32": "f32", "float64": "f64"}
TYPES = {"f32": "float", "f64": "double"}
LEAST = 4  # rows and columns: NumPy is as good at what is nearly a vector
MOST_LEFTS = 8  # operands with one right operand, in a call of the routine
_WORTH_SHARING = 1 << 20  # multiplications
_GRAIN = {True: 32, False: 8}  # columns, rows: what the routine takes at a time


@functools.cache
def product_kernel(dtype: str) -> tuple[Any, int]:
    """The routine, and how many elements of scratch memory each of its threads needs."""
    suffix = DTYPES[dtype]
    source = (kernels_dir() / "product.c").read_text()
    given = {"TYPE": TYPES[suffix], "SUFFIX": suffix, "LEFTS": MOST_LEFTS}
    library = compiler.library("".join(f"#define {k} {x}\n" for k, x in given.items()) + source)
    library.gs_product_elements.restype = ctypes.c_longlong
    return compiler.kernel(library, "gs_product_kernel"), int(library.gs_product_elements())


@record
class NativeProduct(Op):
    """A Dot of two matrices of floats."""

    def infer(self, x: TensorType, y: TensorType) -> TensorType:
        return Dot().infer(x, y)

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        return functools.partial(_product, *product_kernel(node.dtype))


def is_product(v: Variable) -> bool:
    """Whether v is a product of two matrices of floats."""
    return isinstance(v.op, Dot) and v.dtype in DTYPES and all(x.ndim == 2 for x in v.inputs)


def with_native_products(
    values: Sequence[Variable], operands: Sequence[Variable]
) -> list[Variable]:
    """The values, as they are computed from the operands, with such products by the routine."""
    mapping = {x: x for x in operands}
    for v in toposort(values, operands):
        if is_product(v) and v not in mapping:
            mapping[v] = inherit(NativeProduct()(*substitute(v.inputs, mapping)), v)
    return substitute(values, mapping)


@record
class NativeContraction(Op):
    """(*per left operand and then for the right one a matrix, or for one that is `stacked` the
    inputs of the Reshape that it is) -> per left operand, transposed, its product with the right
    one. `given` are the inputs, from which the values are computed as they were written."""

    values: tuple[Variable, ...]
    given: tuple[Variable, ...] = field(compare=False)
    stacked: tuple[bool, ...]

    def infer(self, *types: TensorType) -> TupleType:
        return TupleType(tuple([v.type for v in self.values]))

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        return _Contraction(self)


class _Contraction:
    def __init__(self, op: NativeContraction) -> None:
        self.op = op
        self.kernel, self.elements = product_kernel(op.values[0].dtype)
        self._interpreted: Program | None = None

    def definition(self, *inputs: Any) -> Any:
        """The values as NumPy computes them: what says why an operand is wrong."""
        if self._interpreted is None:
            self._interpreted = Program(self.op.given, self.op.values)
        return self._interpreted(*inputs)

    def __call__(self, *inputs: Any) -> Any:
        found = operands(self.op, inputs)
        if found is None:
            return self.definition(*inputs)
        stacks = [laid_out(x, True) for x in found]
        steps, span, _ = stacks[0].shape
        factors = [_factor(x) for x in stacks]
        depth = steps * span
        if all(f.apart == span * f.down for f in factors):
            span = depth
        return tuple(products(self.kernel, self.elements, factors[:-1], factors[-1], depth, span))


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


def contraction(values: Sequence[Variable]) -> NativeContraction | None:
    """The products of these, whose right operand is one, as one; None where that gains nothing."""
    matrices = [*[v.inputs[0].inputs[0] for v in values], values[0].inputs[1]]
    stacked = tuple(map(_is_stack, matrices))
    if len(values) == 1 and not any(stacked):
        return None
    given = [x for m, s in zip(matrices, stacked) for x in (m.inputs if s else (m,))]
    return NativeContraction(tuple(values), tuple(given), stacked)


def is_contraction(v: Variable) -> bool:
    """Whether v is the product of a transposed matrix with another."""
    if not is_product(v):
        return False
    left = v.inputs[0].op
    return isinstance(left, DimShuffle) and left.pattern == (1, 0)


def _is_stack(x: Variable) -> bool:
    """Whether a matrix is the rows of a stack of matrices."""
    return isinstance(x.op, Reshape) and x.inputs[0].ndim == 3


def workers(rows: int, wide: int, depth: int) -> tuple[int, int]:
    """How many threads share a product, and how many shares there can be."""
    by_columns = rows < wide
    extent = wide if by_columns else rows
    most = -(-extent // _GRAIN[by_columns]) if rows * wide * depth > _WORTH_SHARING else 1
    return threads.size(most), most


@record
class Factor:
    """An operand along whose axis k a product sums: its columns (of a left operand: rows) and the
    strides, in elements, of a column, of k, and of a step of `span` each in k."""

    array: Any
    columns: int
    column: int
    down: int
    apart: int


def _product(kernel: Any, elements: int, a: Any, b: Any) -> Any:
    (rows, depth), (height, wide) = a.shape, b.shape
    if height != depth or min(rows, wide) < LEAST:
        return Dot().eval(a, b)
    a, b = laid_out(a, True), laid_out(b, True)
    item = a.itemsize
    row, column = (s // item for s in a.strides)
    down, right = (s // item for s in b.strides)
    lefts = [Factor(a, rows, row, column, 0)]
    return products(kernel, elements, lefts, Factor(b, wide, right, down, 0), depth, depth)[0]


def products(
    kernel: Any, elements: int, lefts: Sequence[Factor], right: Factor, depth: int, span: int
) -> list[Any]:
    """The products of some left operands with one right operand; at most MOST_LEFTS."""
    b, wide = right.array, right.columns
    rows = sum(left.columns for left in lefts)
    found = [memory.empty((left.columns, wide), b.dtype) for left in lefts]
    by_columns = rows < wide
    extent = wide if by_columns else rows
    grain = _GRAIN[by_columns]
    n, most = workers(rows, wide, depth)
    numbers = [by_columns, len(lefts), wide, depth, max(1, span)]
    numbers += [right.down, right.column, right.apart]
    held = [b]
    for left, c in zip(lefts, found):
        numbers += [left.columns, left.column, left.down, left.apart]
        held += [left.array, c]
    integers = struct.pack(f"{len(numbers)}q", *numbers)
    shares, keep = [], []
    for k in range(n):
        scratch = memory.scratch(elements, b.dtype)
        keep.append(scratch)
        pointers = struct.pack(f"{len(held) + 1}Q", *addresses([b, scratch, *held[1:]]))
        first, last = (min(extent, most * i // n * grain) for i in (k, k + 1))
        shares.append((first, last if k + 1 < n else extent, pointers, integers))
    threads.run(kernel, shares)
    return found
