"""Fewer operands: what nobody reads is dropped, equal things become one, one step is no loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...graph import (
    Constant,
    Variable,
    substitute,
    toposort,
)
from ...ops.index import Subtensor
from ...ops.patterns import Slice
from ...ops.reduce import with_axes
from ...ops.shape import (
    BroadcastTo,
    specify,
)
from ..op import Operands, Step
from .build import Found, applied, pick, positions, scan_op, with_positions


def drop_unread(v: Variable, used: frozenset[int]) -> Found | None:
    """Traces and carries that are not read, traces of the same, and operands that the step does
    not read."""
    op = scan_op(v)
    step, o = op.step, op.split(v.inputs)
    k = len(step.carries)
    read = [i for i in range(len(step.traces)) if k + i in used]
    first = {step.traces[i]: i for i in reversed(read)}
    traces = [i for i in read if first[step.traces[i]] == i]
    kept = {j for j in range(k) if j in used}
    while True:
        roots = [*pick(step.new, sorted(kept)), *pick(step.traces, traces)]
        roots += [step.stop] if step.stop is not None else []
        needed = set(toposort(roots))
        more = {j for j in range(k) if step.carries[j] in needed}
        if more <= kept:
            break
        kept |= more
    carries = sorted(kept)
    seqs = [i for i, s in enumerate(step.seqs) if s in needed]
    consts = [i for i, c in enumerate(step.consts) if c in needed]
    before = (len(step.seqs), k, len(step.consts), len(step.traces))
    if before == (len(seqs), len(carries), len(consts), len(traces)):
        return None
    smaller = Step(
        pick(step.seqs, seqs), pick(step.carries, carries), pick(step.consts, consts),
        pick(step.new, carries), pick(step.traces, traces), step.stop,
    )  # fmt: skip
    operands = Operands(o.n, pick(o.seqs, seqs), pick(o.inits, carries), pick(o.consts, consts))
    r = applied(v, smaller, operands)
    return with_positions(
        v, r, {j: i for i, j in enumerate(carries)},
        {i: traces.index(first[step.traces[i]]) for i in read},
    )  # fmt: skip


def unify_operands(v: Variable, used: frozenset[int]) -> Found | None:
    """Sequences and consts that are given twice; consts that are constants; sequences whose rows
    are all the same; carries that never change, or are always equal."""
    op = scan_op(v)
    step, o = op.step, op.split(v.inputs)
    mapping: dict[Variable, Variable] = {}
    extra: dict[Variable, Variable] = {}  # new consts: what they are outside, by placeholder

    def once(params: Sequence[Variable], operands: Sequence[Variable]) -> list[int]:
        first: dict[tuple[Variable, Any], Variable] = {}
        kept = []
        for i, (p, x) in enumerate(zip(params, operands)):
            if p in mapping:
                continue
            if (x, p.type) in first:
                mapping[p] = first[x, p.type]
            else:
                first[x, p.type] = p
                kept.append(i)
        return kept

    for p, x in zip(step.consts, o.consts):
        if isinstance(x, Constant) and x.type == p.type:
            mapping[p] = x
    for p, x in zip(step.seqs, o.seqs):
        if (row := _row_of_all(x)) is not None and row.type == p.type:
            mapping[p] = p.clone()
            extra[mapping[p]] = row
    for p, new, x in zip(step.carries, step.new, o.inits):
        if new is p:
            mapping[p] = p.clone()
            extra[mapping[p]] = specify(x, p.type.shape)
    seqs, consts = once(step.seqs, o.seqs), once(step.consts, o.consts)
    for old, kept in _equal_carries(step, o, mapping).items():
        mapping[old] = kept
    if not mapping:
        return None
    position = {p: j for j, p in enumerate(step.carries)}
    carries = [j for j, p in enumerate(step.carries) if p not in mapping]
    values = substitute(step.outputs, mapping)
    changed = step.mapped(values)
    smaller = Step(
        pick(step.seqs, seqs), pick(step.carries, carries),
        (*pick(step.consts, consts), *extra),
        pick(changed.new, carries), changed.traces, changed.stop,
    )  # fmt: skip
    operands = Operands(
        o.n, pick(o.seqs, seqs), pick(o.inits, carries),
        (*pick(o.consts, consts), *extra.values()),
    )  # fmt: skip
    r = applied(v, smaller, operands)
    where = {j: i for i, j in enumerate(carries)}
    found = list(with_positions(v, r, where, positions(len(step.traces))))
    for p, new in mapping.items():
        if p in position:
            found[position[p]] = extra[new] if new in extra else r.finals[where[position[new]]]
    return found


def _row_of_all(x: Variable) -> Variable | None:
    """The row that all rows of x are, where that is plain to see."""
    if isinstance(x.op, Subtensor) and len(x.op.pattern) == 1:
        match x.op.pattern[0]:
            case Slice():
                return _row_of_all(x.inputs[0])
    if isinstance(x.op, BroadcastTo) and x.inputs[0].ndim < x.ndim:
        inner = x.inputs[0]
        return BroadcastTo(x.op.static[1:])(inner, *x.inputs[2:]) if x.ndim > 1 else inner
    return None


def _equal_carries(
    step: Step, o: Operands, mapping: Mapping[Variable, Variable]
) -> dict[Variable, Variable]:
    """Carries that start equal and stay equal, each with the one that is kept: the coarsest
    grouping that one step does not break."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for j, (p, x) in enumerate(zip(step.carries, o.inits)):
        if p not in mapping:
            groups.setdefault((x, p.type), []).append(j)
    classes = [g for g in groups.values() if len(g) > 1]
    while classes:
        same = {step.carries[j]: step.carries[g[0]] for g in classes for j in g[1:]}
        new = substitute(step.new, {**mapping, **same})
        split: list[list[int]] = []
        for g in classes:
            by_value: dict[Variable, list[int]] = {}
            for j in g:
                by_value.setdefault(new[j], []).append(j)
            split += list(by_value.values())
        if len(split) == len(classes):
            return same
        classes = [g for g in split if len(g) > 1]
    return {}


def inline_one_step(v: Variable, used: frozenset[int]) -> Found | None:
    """A loop of the constant one step is the step."""
    op = scan_op(v)
    step, o = op.step, op.split(v.inputs)
    if not isinstance(o.n, Constant) or int(o.n.data) != 1:
        return None
    rows = [specify(x[0], p.type.shape) for p, x in zip(step.seqs, o.seqs)]
    mapping = dict(zip(step.params, [*rows, *o.inits, *o.consts]))
    values = substitute(step.values, mapping)
    k = len(step.carries)
    finals = [specify(x, p.type.shape) for p, x in zip(step.carries, values)]
    traces = [with_axes(x, [0]) for x in values[k:]]
    r = op.results(v)
    traces = [specify(x, t.type.shape) for x, t in zip(traces, r.traces)]
    return [*finals, *traces, o.n]
