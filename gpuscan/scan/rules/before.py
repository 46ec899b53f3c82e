"""Work that moves in front of the loop: what stays the same, and what only sequences feed."""

from __future__ import annotations

from collections.abc import Sequence

from ...graph import (
    Constant,
    Variable,
    certain,
    clients,
    substitute,
    toposort,
)
from ...ops.elemwise import Elemwise
from ...ops.scalar import (
    abs_,
    add,
    eq,
    ge,
    gt,
    le,
    lt,
    maximum,
    minimum,
    mul,
    neg,
    neq,
    sqr,
    sub,
    switch,
)  # fmt: skip
from ...ops.shape import (
    BroadcastTo,
    Dim,
    dim,
    dims,
    first_rows,
    specify,
)
from ...record import replace
from ...rules.algebra import is_large
from ...types import TensorType
from ..op import Step
from .build import Found, applied, placeholder, same, scan_op
from .lift import Lift, frontier


def hoist_invariants(v: Variable, used: frozenset[int]) -> Found | None:
    """What is computed from consts, and from sizes that don't change, is computed once."""
    op = scan_op(v)
    step, o = op.step, op.split(v.inputs)
    fixed: dict[Variable, Variable] = dict(zip(step.consts, o.consts))
    shaped = {s: (x, 1) for s, x in zip(step.seqs, o.seqs)}
    shaped |= {c: (x, 0) for c, x in zip(step.carries, o.inits)}
    order = toposort(step.outputs)
    for d in order:
        if isinstance(d.op, Dim) and d.inputs[0] in shaped:
            x, lead = shaped[d.inputs[0]]
            fixed[d] = dim(x, d.op.axis + lead)
    lift = Lift({}, fixed, o.n)
    invariant = {d for d in fixed if d not in step.consts}
    constant: set[Variable] = set()
    for d in order:
        if isinstance(d, Constant):
            constant.add(d)
        elif d.inputs and all(i in constant for i in d.inputs) and not _is_kept(d):
            constant.add(d)  # left to constant folding
        elif d.inputs and all(i in lift or i in constant for i in d.inputs):
            lift.lift([d])
            if d in lift:
                invariant.add(d)
    sure = certain(step.outputs)
    moved = [d for d in frontier(invariant, step.outputs) if d in sure and not _costs_nothing(d)]
    if not moved:
        return None
    placeholders = {d: placeholder(d) for d in moved}
    changed = step.mapped(substitute(step.outputs, placeholders))
    longer = replace(changed, consts=(*step.consts, *placeholders.values()))
    outer = [specify(lift.fixed[d], d.type.shape) for d in moved]
    operands = replace(o, consts=(*o.consts, *outer))
    return same(v, applied(v, longer, operands))


def _is_kept(d: Variable) -> bool:
    """Whether what is made from constants is too large to be folded."""
    return isinstance(d.type, TensorType) and is_large(d)


def _costs_nothing(d: Variable) -> bool:
    """A broadcast number is better made where it is read."""
    return isinstance(d.op, BroadcastTo) and isinstance(d.inputs[0], Constant)


def batch_sequences(v: Variable, used: frozenset[int]) -> Found | None:
    """What depends on sequences and consts only is computed for all steps at once before the
    loop: `x[t] @ W` for every t is one GEMM."""
    op = scan_op(v)
    step, o = op.step, op.split(v.inputs)
    if not step.seqs:
        return None
    rows = {s: first_rows(x, o.n) for s, x in zip(step.seqs, o.seqs)}
    lift = Lift(rows, dict(zip(step.consts, o.consts)), o.n, step.stop is not None)
    changing = set(step.carries)
    candidates = []
    for d in toposort(step.outputs):
        if any(i in changing for i in d.inputs):
            changing.add(d)
        elif d.inputs:
            candidates.append(d)
    lift.lift(candidates)
    lifted = {d for d in candidates if d in lift.rows}
    sure = certain(step.outputs)
    moved = _least_read([d for d in frontier(lifted, step.outputs) if d in sure], lifted, step)
    if not moved:
        return None
    placeholders = {d: placeholder(d) for d in moved}
    changed = step.mapped(substitute(step.outputs, placeholders))
    longer = replace(changed, seqs=(*step.seqs, *placeholders.values()))
    outer = [specify(lift.rows[d], (None, *d.type.shape)) for d in moved]
    return same(v, applied(v, longer, replace(o, seqs=(*o.seqs, *outer))))


# What takes no more time than to read its result.
_ARITHMETIC = (
    add, sub, mul, neg, sqr, abs_, maximum, minimum, lt, le, gt, ge, eq, neq, switch,
)  # fmt: skip


def _least_read(found: Sequence[Variable], lifted: set[Variable], step: Step) -> list[Variable]:
    """The values to compute before the loop, of those that it reads: arithmetic stays in the
    loop where that is not one sequence more to read, as 1 - y beside y."""
    users = clients(step.outputs)
    read = {s for s in step.seqs if any(u not in lifted for u in users.get(s, ()))}
    read |= {d for d in found if not _is_arithmetic(d)}
    moved = [d for d in found if d in read]
    for d in found:
        if d in read:
            continue
        more = [x for x in _operands(d, lifted, {*step.seqs, *read}) if x not in read]
        if None in users[d] or len(more) > 1:
            more = [d]
        moved += [x for x in more if x not in step.seqs]
        read |= set(more)
    return moved


def _operands(d: Variable, lifted: set[Variable], rows: set[Variable]) -> list[Variable]:
    """What the arithmetic that d is reads of each step: among `rows`, or not arithmetic."""
    found: dict[Variable, None] = {}
    stack = list(d.inputs)
    while stack:
        v = stack.pop()
        if v in rows or (v in lifted and not _is_arithmetic(v)):
            found[v] = None
        elif v in lifted:
            stack += v.inputs
    return list(found)


def _is_arithmetic(d: Variable) -> bool:
    return isinstance(d.op, Elemwise) and d.op.scalar in _ARITHMETIC


def traced_sequences(v: Variable, used: frozenset[int]) -> Found | None:
    """A trace of a sequence's rows is the sequence, one of a const is the const repeated."""
    op = scan_op(v)
    step, o = op.step, op.split(v.inputs)
    r = op.results(v)
    steps = o.n if step.stop is None else r.steps
    k = len(step.carries)
    known: dict[int, Variable] = {}
    for i, row in enumerate(step.traces):
        if k + i not in used:
            continue
        if row in step.seqs:
            known[k + i] = first_rows(o.seqs[step.seqs.index(row)], steps)
        elif row in step.consts or isinstance(row, Constant):
            fixed = row if isinstance(row, Constant) else o.consts[step.consts.index(row)]
            known[k + i] = BroadcastTo((None, *row.type.shape))(fixed, steps, *dims(fixed))
    if not known:
        return None
    return [known.get(i, x) for i, x in enumerate([*r.finals, *r.traces, r.steps])]
