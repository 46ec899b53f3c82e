"""Work that moves in front of the loop: what stays the same, and what only sequences feed."""

from __future__ import annotations

from dataclasses import replace

from ...graph import (
    Constant,
    Variable,
    certain,
    substitute,
    toposort,
)
from ...ops.shape import (
    BroadcastTo,
    Dim,
    dim,
    dims,
    first_rows,
    specify,
)
from .build import Found, applied, same, scan_op
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
        elif d.inputs and all(i in constant for i in d.inputs):
            constant.add(d)  # left to constant folding
        elif d.inputs and all(i in lift or i in constant for i in d.inputs):
            lift.lift([d])
            if d in lift:
                invariant.add(d)
    sure = certain(step.outputs)
    moved = [d for d in frontier(invariant, step.outputs) if d in sure and not _costs_nothing(d)]
    if not moved:
        return None
    placeholders = {d: d.type() for d in moved}
    changed = step.mapped(substitute(step.outputs, placeholders))
    longer = replace(changed, consts=(*step.consts, *placeholders.values()))
    outer = [specify(lift.fixed[d], d.type.shape) for d in moved]
    operands = replace(o, consts=(*o.consts, *outer))
    return same(v, applied(v, longer, operands))


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
    moved = [d for d in frontier(lifted, step.outputs) if d in sure]
    if not moved:
        return None
    placeholders = {d: d.type() for d in moved}
    changed = step.mapped(substitute(step.outputs, placeholders))
    longer = replace(changed, seqs=(*step.seqs, *placeholders.values()))
    outer = [specify(lift.rows[d], (None, *d.type.shape)) for d in moved]
    return same(v, applied(v, longer, replace(o, seqs=(*o.seqs, *outer))))


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
