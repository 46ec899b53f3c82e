"""Loops of equal length as one loop."""

from __future__ import annotations

from collections.abc import Sequence

from ...graph import (
    Variable,
    substitute,
    toposort,
)
from ...record import replace
from ..op import Group, Operands, Scan, Step
from .build import applied, pick, scan_op


def merge_loops(outputs: Sequence[Variable]) -> list[Variable]:
    """Loops over the same number of steps, none of which needs another's results, become one."""
    while True:
        loops = [v for v in toposort(outputs) if isinstance(v.op, Scan)]
        pair = _mergeable(loops)
        if pair is None:
            return list(outputs)
        outputs = substitute(outputs, _merged(*pair))


def _mergeable(loops: Sequence[Variable]) -> tuple[Variable, Variable] | None:
    by_length: dict[Variable, list[Variable]] = {}
    for v in loops:
        by_length.setdefault(v.inputs[0], []).append(v)
    for same in by_length.values():
        behind = {v: set(toposort([v])) for v in same} if len(same) > 1 else {}
        for i, a in enumerate(same):
            for b in same[i + 1 :]:
                if a not in behind[b] and b not in behind[a] and _are_alike(a, b):
                    return a, b
    return None


def _are_alike(a: Variable, b: Variable) -> bool:
    """Neither stops early, or both are the same loop up to their traces; and both are to hold
    little, or neither."""
    if any(getattr(scan_op(a), x) != getattr(scan_op(b), x) for x in ("is_frugal", "is_end")):
        return False
    p, q = scan_op(a).step, scan_op(b).step
    if p.stop is None and q.stop is None:
        return True
    return a.inputs == b.inputs and p.stop is q.stop and p.new == q.new


def _merged(a: Variable, b: Variable) -> dict[Variable, Variable]:
    """The results of two loops as results of one."""
    p, q = scan_op(a).step, scan_op(b).step
    oa, ob = scan_op(a).split(a.inputs), scan_op(b).split(b.inputs)
    ka, kb, ma = len(p.carries), len(q.carries), len(p.traces)
    if p.stop is not None:
        fresh_p, fresh_q = p, q
        both = replace(p, traces=(*p.traces, *q.traces))
        operands = oa
        finals_b = range(kb)
    else:
        fresh_p, fresh_q = _fresh(p), _fresh(q)
        both = Step(
            fresh_p.seqs + fresh_q.seqs, fresh_p.carries + fresh_q.carries,
            fresh_p.consts + fresh_q.consts, fresh_p.new + fresh_q.new,
            fresh_p.traces + fresh_q.traces,
        )  # fmt: skip
        operands = Operands(oa.n, oa.seqs + ob.seqs, oa.inits + ob.inits, oa.consts + ob.consts)
        finals_b = range(ka, ka + kb)
    r = applied(a, both, operands)
    ra, rb = scan_op(a).results(a), scan_op(b).results(b)
    mapping = dict(zip(ra.finals, r.finals[:ka])) | dict(zip(ra.traces, r.traces[:ma]))
    mapping |= dict(zip(rb.finals, pick(r.finals, finals_b)))
    mapping |= dict(zip(rb.traces, r.traces[ma:]))
    return mapping | {ra.steps: r.steps, rb.steps: r.steps}


def _fresh(step: Step) -> Step:
    """The step over new inputs, so that two steps' parameters don't meet."""
    mapping = {p: p.type(p.name) for p in step.params}
    new = step.mapped(substitute(step.outputs, mapping))

    def fresh(group: Group) -> Group:
        return tuple(mapping[p] for p in group)

    return replace(
        new, seqs=fresh(step.seqs), carries=fresh(step.carries), consts=fresh(step.consts)
    )
