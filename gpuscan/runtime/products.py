"""Products of matrices outside of loops, by the same routine as inside, on all threads."""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from ..graph import Op, Variable, inherit, substitute, toposort
from ..kernel_files import source_of
from ..ops.linalg import Dot
from ..record import record
from ..types import TensorType
from . import compiler, memory, threads
from .plans import laid_out
from .recorder import Place
from .threads import Shares

DTYPES = {"float32": "f32", "float64": "f64"}
TYPES = {"f32": "float", "f64": "double"}
LEAST = 4  # rows and columns: NumPy is as good at what is nearly a vector
MOST_LEFTS = 8  # operands with one right operand, in a call of the routine
_WORTH_SHARING = 1 << 20  # multiplications
_GRAIN = {True: 32, False: 8}  # columns, rows: what the routine takes at a time


@functools.cache
def _source(name: str, suffix: str) -> str:
    """One of kernels/ for floats of this kind."""
    return source_of(name, TYPE=TYPES[suffix], SUFFIX=suffix, LEFTS=MOST_LEFTS)


def routines_of(source: str) -> list[str]:
    """The sources of those routines of `products.h` that a text calls."""
    found = set(re.findall(r"\bgs_(?:pack|gemm|gemm_steps)_(f32|f64)\(", source))
    return [_source("gemm.c", suffix) for suffix in sorted(found)]


@functools.cache
def product_kernel(dtype: str) -> tuple[Any, int]:
    """The routine, and how many elements of scratch memory each of its threads needs."""
    suffix = DTYPES[dtype]
    library = compiler.library(_source("product.c", suffix), [_source("gemm.c", suffix)])
    elements = getattr(library, f"gs_product_elements_{suffix}")
    elements.restype = ctypes.c_longlong
    return compiler.kernel(library, f"gs_product_{suffix}"), int(elements())


@record
class NativeProduct(Op):
    """A Dot of two matrices of floats."""

    is_recorded: ClassVar[bool] = True

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


def is_by_columns(rows: int, wide: int) -> bool:
    """Whether threads share the columns of products with so many rows, and not the rows."""
    return rows < wide


def workers(rows: int, wide: int, depth: int) -> tuple[int, int]:
    """How many threads share a product, and how many shares there can be."""
    by_columns = is_by_columns(rows, wide)
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


@record
class Addition:
    """Rows of the right operand that are added to rows of another matrix: their numbers there."""

    rows: Any
    out: Any


def products(
    kernel: Any, elements: int, lefts: Sequence[Factor], right: Factor, depth: int, span: int,
    addition: Addition | None = None,
) -> list[Any]:  # fmt: skip
    """The products of some left operands with one right operand; at most MOST_LEFTS. An addition
    is for those that threads share by columns."""
    b, wide = right.array, right.columns
    found = [memory.empty((left.columns, wide), b.dtype) for left in lefts]
    numbers = [wide, depth, max(1, span), right.down, right.column, right.apart]
    for left in lefts:
        numbers += [left.columns, left.column, left.down, left.apart]
    n, most = workers(sum(left.columns for left in lefts), wide, depth)
    size = elements * b.itemsize
    shares, ends = _shares(n, most, size, addition is not None, tuple(numbers))
    arrays = [b, memory.scratch(n * size)]
    if addition is not None:
        arrays += [addition.rows, addition.out]
    for left, c in zip(lefts, found):
        arrays += [left.array, c]
    threads.run(kernel, shares, ends, arrays)
    return found


@functools.lru_cache(maxsize=256)
def _shares(
    n: int, most: int, size: int, is_added: bool, numbers: tuple[int, ...]
) -> tuple[Shares, bytes]:
    """Of n threads, which take columns or rows by grains, of which there are `most`; size: of the
    scratch memory of each, in bytes. The other numbers are the routine's."""
    wide, lefts = numbers[0], len(numbers[6:]) // 4
    rows = sum(numbers[6::4])
    by_columns = is_by_columns(rows, wide)
    extent, grain = (wide if by_columns else rows), _GRAIN[by_columns]
    integers = [by_columns, lefts, *numbers]
    first = 4 if is_added else 2
    added: list[Place | None] = [(2, 0), (3, 0)] if is_added else [None, None]
    pointers = [
        [(0, 0), (1, k * size), *added, *[(first + i, 0) for i in range(2 * lefts)]]
        for k in range(n)
    ]
    ends = [min(extent, most * k // n * grain) for k in range(n)] + [extent]
    return threads.shares([integers] * n, pointers), threads.in_order(ends)
