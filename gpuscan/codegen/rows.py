"""Products outside of loops with the elementwise work around them: what makes up the rows of the
left operand, and what becomes of the rows of the result, a block of rows at a time. Between them
rows stay in the cache; only the result is written to memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..graph import Variable, certain, toposort
from ..ops.elemwise import Elemwise
from ..ops.linalg import Dot
from ..ops.shape import Specify, dims
from ..record import record
from ..rules.shapes import pushed_dims
from ..types import FLOATS
from .kernel import Array, Let, Name, Number, Store, Use, binary
from .lower import Memory
from .nest import Nest, ValuesNest, is_fusable, is_view
from .plan import NotLowered
from .program import Piece, Scratch

BLOCK = 32  # rows
LEAST_ROWS = 32  # with fewer, to lay out the right operand takes as long as the product

Users = Mapping[Variable, Sequence[Variable | None]]


@record
class _Product:
    """A product, the value behind it that is kept, and what is computed on the way."""

    dot: Variable
    value: Variable
    before: frozenset[Variable]
    behind: frozenset[Variable]


def lower_products(outputs: Sequence[Variable], users: Users) -> tuple[list[Nest], set[Variable]]:
    """Kernels for the products among the outputs' nodes that have elementwise work of their own
    around them; and all the values that these compute."""
    order = toposort(outputs)
    sure = certain(outputs)  # a branch that is not taken must not be computed
    found: list[Nest] = []
    taken: set[Variable] = set()
    views = {v for v in order if is_view(v)}
    for v in order:
        product = _around(v, users, taken) if v in sure else None
        if product is None or product.value not in sure:
            continue
        try:
            found.append(_Rows(product, views).lowered(f"rows_{len(found)}"))
        except (NotLowered, RecursionError):
            continue
        taken |= {v, product.value} | product.before | product.behind
    return found, taken


def _around(v: Variable, users: Users, taken: set[Variable]) -> _Product | None:
    if not isinstance(v.op, Dot) or v.dtype not in FLOATS or any(x.ndim != 2 for x in v.inputs):
        return None
    end, behind = v, []
    while (u := _only_user(end, users)) is not None and u not in taken and _goes_on(u, v):
        behind.append(end)
        end = u
    before: set[Variable] = set()
    stack = [v.inputs[0]]
    while stack:
        x = stack.pop()
        alone = len(users[x]) == 1 and x not in taken
        if alone and isinstance(x.op, Elemwise) and _goes_on(x, v.inputs[0]):
            before.add(x)
            stack += x.inputs
    if end is v and not before:
        return None
    return _Product(v, end, frozenset(before), frozenset(behind))


def _only_user(v: Variable, users: Users) -> Variable | None:
    return users[v][0] if len(users[v]) == 1 else None


def _goes_on(u: Variable, v: Variable) -> bool:
    """Whether u is elementwise work on what has v's shape."""
    if isinstance(u.op, Specify):
        return True
    if not isinstance(u.op, Elemwise) or u.ndim != 2 or not is_fusable(u):
        return False
    sizes = pushed_dims([*dims(u), *dims(v)])
    return sizes[:2] == sizes[2:]


class _Rows(ValuesNest):
    def __init__(self, product: _Product, views: set[Variable]) -> None:
        x, weight = product.dot.inputs
        inline = {product.dot, *product.before, *product.behind, *views}
        inline -= {product.value, weight} | ({x} - product.before)
        super().__init__([[[product.value]]], inline)
        self.packed_operands = {weight}
        self.product = product

    def lowered(self, name: str) -> Nest:
        stored = self.enter()
        (value, out), dot = next(iter(stored.items())), self.product.dot
        x, weight = dot.inputs
        depth, wide = self.sizes(weight)
        first, last = Name("first"), Name("last")
        start, end, count = Name("start"), Name("end"), Name("count")
        rows = None if x in self.memory else self._block("x", depth, dot.dtype, Number(0))
        if rows is not None:
            self.memory[x] = rows  # for factors to see; its elements are computed below
        f = self.factors(dot)
        with self.block() as body:
            self.emit(Let(count, end - start))
            if rows is None:
                begin = binary("add", f.rows.start, start * f.row)
            else:
                del self.memory.maps[-1][x]
                self._fill(x, rows, [count, depth], start)
                begin = Number(0)
            result = out if value is dot else self._block("y", wide, dot.dtype, start)
            there = start * wide if value is dot else Number(0)
            self.emit(
                Use(
                    f"gs_gemm_{f.suffix}",
                    (count, wide, depth, (f.rows.array, begin), f.row, f.column, f.panel,
                     (result.array, there), wide),
                )
            )  # fmt: skip
            if value is not dot:
                self.memory[dot] = result
                self._fill(value, out, [count, wide], start, whole=True)
        self.emit(self.in_blocks(body, BLOCK, start, end, first, last))
        rows, wide = self.sizes(value)
        pieces = [Piece(self.statements(), first, last, rows, (rows, wide))]
        return self.nest_of(name, pieces, LEAST_ROWS, depth)

    def _block(self, letter: str, wide: Any, dtype: str, start: Any) -> Memory:
        """Memory for a block of rows, of which the first is row `start`."""
        array = Array(f"{letter}_block", dtype)
        self.pointer(array, True, Scratch(wide * BLOCK, dtype))
        return Memory(array, (wide, Number(1)), binary("sub", Number(0), start * wide))

    def _fill(
        self, v: Variable, m: Memory, sizes: list[Any], start: Any, whole: bool = False
    ) -> None:
        """The rows of v from `start` on: where they stand in a block, or in the whole."""

        def body(index: list[Any]) -> None:
            i, j = index
            place = m.offset([start + i, j]) if whole else m.offset([i, j])
            self.emit(Store(m.array, place, self.element(v, [start + i, j])))

        self.nest(sizes, body, True)
