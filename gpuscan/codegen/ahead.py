"""Products, lookups and functions of sequences inside the loop that reads them.

The rules compute `x[t] @ W` for all steps before the loop: one large product, whose result is
written to memory and read again. A kernel computes it a few steps ahead of the step that needs
it, by the same routine, and the result does not leave the cache. Of `table[i[t]]` it reads the
rows where they are, and what functions make of x[t] it computes where it reads that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..graph import Constant, Variable, constant_leaf, inherit, leaves, substitute, toposort
from ..ops.elemwise import Elemwise
from ..ops.index import AdvancedSubtensor, Lookup, Subtensor
from ..ops.linalg import Dot
from ..ops.patterns import FULL, Array, Slice
from ..ops.shape import FirstRows, Reshape, Specify, dims, specify
from ..ops.shape import product as product_of
from ..record import record, replace
from ..rules.shapes import pushed_dims
from ..scan.op import Scan
from ..types import FLOATS
from .plan import deep

_PARTS = (Subtensor, Specify, FirstRows)
Users = Mapping[Variable, Sequence[Variable | None]]


@record
class Ahead:
    """A loop with work inside that stood before it: the new Scan node, what the old one's operands
    are computed from that the new one does not have, and the functions that it computes."""

    node: Variable
    extra: tuple[Variable, ...]
    functions: tuple[Variable, ...]


@record
class _Rows:
    """Rows x[t] @ weight, or weight[x[t]], of which a part of the columns is read. whole: what
    they are rows of."""

    whole: Variable
    x: Variable
    weight: Variable
    part: Slice | None

    def of(self, x: Variable, weight: Variable) -> Variable:
        """The row of a step, from those of x and the part of the weight."""
        return Dot()(x, weight) if x.type.is_float else Lookup()(weight, x)


@record
class _Functions:
    """Elementwise work on the elements of one sequence, x, and on numbers."""

    values: tuple[Variable, ...]
    x: Variable

    def of(self, x: Variable) -> Variable:
        """The same of a row, from that of x."""
        rows: dict[Variable, Variable] = {self.x: x}
        for y in (y for v in self.values for y in v.inputs):
            if isinstance(y, Constant) and y not in rows:
                rows[y] = constant_leaf(y.data.reshape(y.data.shape[1:]))
        return substitute(self.values[-1:], rows)[0]


@deep()
def with_rows_inside(v: Variable, users: Users) -> Ahead:
    """The loop v with those of its sequences computed inside that are products, lookups or
    functions of sequences and that nobody else reads."""
    op = v.op
    assert isinstance(op, Scan)
    step, o = op.step, op.split(v.inputs)
    found = {p: _rows(x, v, users) for p, x in zip(step.seqs, o.seqs)}
    read_whole = {_whole(x) for p, x in zip(step.params, v.inputs[1:]) if found.get(p) is None}
    inside = {p: q for p, q in found.items() if q is not None and q.whole not in read_whole}
    functions: dict[Variable, _Functions] = {}
    if any(isinstance(x.op, Dot) for x in toposort(step.outputs)):
        of_seqs = {p: _functions(x, users) for p, x in zip(step.seqs, o.seqs)}
        functions = {p: q for p, q in of_seqs.items() if q is not None}
    if not (inside or functions):
        return Ahead(v, (), ())
    kept = [(p, x) for p, x in zip(step.seqs, o.seqs) if p not in inside and p not in functions]
    seqs, consts = {x: p for p, x in kept}, {x: p for p, x in zip(step.consts, o.consts)}
    rows = dict(kept)
    weights = dict(zip(step.consts, o.consts))
    mapping: dict[Variable, Variable] = {}

    def row_of(x: Variable) -> Variable:
        if x not in seqs or seqs[x].type != x.type.row():
            seqs[x] = x.type.row()()
            rows[seqs[x]] = x
        return seqs[x]

    for p, q in inside.items():
        weight = q.weight
        if q.part is not None:
            weight = Subtensor((*(FULL,) * (weight.ndim - 1), q.part))(weight)
        if weight not in consts or consts[weight].type != weight.type:
            consts[weight] = weight.type()
            weights[consts[weight]] = weight
        mapping[p] = inherit(specify(q.of(row_of(q.x), consts[weight]), p.type.shape), p)
    for p, f in functions.items():
        mapping[p] = inherit(specify(f.of(row_of(f.x)), p.type.shape), p)
    changed = step.mapped(substitute(step.outputs, mapping))
    longer = replace(changed, seqs=tuple(rows), consts=tuple(weights))
    operands = replace(o, seqs=tuple(rows.values()), consts=tuple(weights.values()))
    node = inherit(replace(op, step=longer.closed())(*operands.all), v)
    given = [*node.inputs, *(q.weight for q in inside.values())]
    extra = dict.fromkeys([*given[len(node.inputs) :], *leaves([v], given)])
    return Ahead(node, tuple(extra), tuple(y for f in functions.values() for y in f.values))


def _functions(x: Variable, users: Users) -> _Functions | None:
    """x as elementwise work on one sequence that only this loop reads, of rows that are vectors:
    functions of scalars are better computed for many steps at once."""
    if not isinstance(x.op, Elemwise) or x.ndim < 2:
        return None
    values, others = [x], set()
    for v in values:
        for y in v.inputs:
            if isinstance(y.op, Elemwise) and len(users[y]) == 1:
                values.append(y)
            elif not (isinstance(y, Constant) and y.data.size == 1):
                others.add(y)
    if len(others) != 1 or len(users[x]) != 1 or x.dtype not in FLOATS:
        return None
    (y,) = others
    return _Functions(tuple(reversed(values)), y) if y.type.shape[0] != 1 else None


def _rows(x: Variable, loop: Variable, users: Users) -> _Rows | None:
    """x as a product or a lookup that only this loop reads, or parts of it."""
    part: Slice | None = None
    whole = _whole(x)
    while x is not whole:
        y = x.inputs[0]
        match x.op:
            case FirstRows() if x.inputs[1] is loop.inputs[0]:
                pass
            case Specify() if part is None and x.type.shape[0] == y.type.shape[0]:
                pass  # what it says of a row, the product in the step will say
            case Subtensor((*lead, Slice(step=None | 1) as last)) if (
                part is None and len(lead) == y.ndim - 1 and len(x.inputs) == 1
                and all(e == FULL for e in lead)
            ):  # fmt: skip
                part = last
            case _:
                return None
        x = y
    if _read_by(whole, users) != {loop}:
        return None
    if isinstance(whole.op, Dot) and whole.dtype in FLOATS:
        rows, weight = whole.inputs
        return _Rows(whole, rows, weight, part) if rows.ndim == weight.ndim == 2 else None
    if isinstance(whole.op, AdvancedSubtensor) and whole.op.pattern == (Array(),):
        table, positions = whole.inputs
        return _Rows(whole, positions, table, part) if table.ndim > 1 else None
    if isinstance(whole.op, Reshape) and isinstance(whole.inputs[0].op, Dot) and whole.ndim == 3:
        return _of_stacks(whole, part, users)
    return None


def _of_stacks(v: Variable, part: Slice | None, users: Users) -> _Rows | None:
    """reshape(reshape(x) @ weight), where both take the rows of all steps under one another."""
    product = v.inputs[0]
    rows, weight = product.inputs
    if product.dtype not in FLOATS or weight.ndim != 2 or _read_by(product, users) != {v}:
        return None
    if not isinstance(rows.op, Reshape) or rows.ndim != 2 or rows.inputs[0].ndim != 3:
        return None
    x, count, depth = rows.inputs
    if rows.op.static[0] == -1:
        count = product_of(dims(x)[:2])
    wanted = [*dims(x)[:2], dims(weight)[1], product_of(dims(x)[:2]), dims(x)[2]]
    found = [*v.inputs[1:], count, depth]
    sizes = pushed_dims([*wanted, *found])
    same = sizes[: len(wanted)] == sizes[len(wanted) :]
    return _Rows(v, x, weight, part) if same else None


def _whole(x: Variable) -> Variable:
    """What x is a part of."""
    while isinstance(x.op, _PARTS):
        x = x.inputs[0]
    return x


def _read_by(x: Variable, users: Users) -> set[Variable | None]:
    """Who reads x, or parts of it."""
    found: set[Variable | None] = set()
    for u in users.get(x, ()):
        found |= _read_by(u, users) if u is not None and isinstance(u.op, _PARTS) else {u}
    return found
