"""Rules for loops. Each takes a Scan node and which of its results are read, and gives variables
that stand for those results, or None where it has nothing to say.

In the order in which they run: drop what nobody reads; simplify the step; unify equal operands
and carries; hoist what does not change; batch what depends on sequences; move outputs that
nothing in the loop needs, and sums over the steps, behind it; run a single step without a loop.
Then loops of equal length are merged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..graph import (
    Constant,
    Item,
    Variable,
    constant_leaf,
    inherit,
    leaves,
    made_for,
    rebuild,
    substitute,
    toposort,
)
from ..ops.elemwise import Elemwise, cast
from ..ops.index import Subtensor
from ..ops.patterns import FULL, Slice
from ..ops.control import Require
from ..ops.linalg import BatchedDot, Dot
from ..ops.reduce import Reduce, with_axes
from ..ops.reduce import sum as total
from ..ops.scalar import add, lt, mul
from ..ops.shape import (
    BroadcastTo,
    Dim,
    Specify,
    broadcast_to,
    dim,
    dims,
    dimshuffle,
    first_rows,
    reshape,
    specify,
)
from ..rewrite import Rules, rule
from ..rules.shapes import pushed_dims
from ..types import TensorType
from .lift import Lift, clients, frontier
from .op import Operands, Results, Scan, Step

Optimise = Callable[[Sequence[Variable]], list[Variable]]
Found = Sequence[Variable | None]  # what stands for each result; None for one that is not read


# ---- building -----------------------------------------------------------------------------------


def _applied(v: Variable, step: Step, o: Operands) -> Results:
    """A Scan with another step and operands in the place of v: the step's parameters may be any
    variables."""
    op = replace(_op(v), step=step.closed())
    with made_for(v):
        node = op(*o.all)
    inherit(node, v)
    return op.results(node)


def _op(v: Variable) -> Scan:
    assert isinstance(v.op, Scan)
    return v.op


def _results(
    v: Variable, r: Results, finals: Mapping[int, int], traces: Mapping[int, int]
) -> list[Variable | None]:
    """v's results by the positions that they have in the new loop's."""
    old = _op(v).step
    return [
        *(r.finals[finals[j]] if j in finals else None for j in range(len(old.carries))),
        *(r.traces[traces[i]] if i in traces else None for i in range(len(old.traces))),
        r.steps,
    ]


def _identity(count: int) -> dict[int, int]:
    return {i: i for i in range(count)}


def _same(v: Variable, r: Results) -> Found:
    step = _op(v).step
    return _results(v, r, _identity(len(step.carries)), _identity(len(step.traces)))


def _pick(items: Sequence[Any], positions: Iterable[int]) -> tuple[Any, ...]:
    return tuple(items[i] for i in positions)


# ---- drop what nobody reads ---------------------------------------------------------------------


def drop_unread(v: Variable, used: frozenset[int]) -> Found | None:
    """Traces and carries that are not read, and operands that the step does not read."""
    op = _op(v)
    step, o = op.step, op.split(v.inputs)
    k = len(step.carries)
    traces = [i for i in range(len(step.traces)) if k + i in used]
    kept = {j for j in range(k) if j in used}
    while True:
        roots = [*_pick(step.new, sorted(kept)), *_pick(step.traces, traces)]
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
        _pick(step.seqs, seqs), _pick(step.carries, carries), _pick(step.consts, consts),
        _pick(step.new, carries), _pick(step.traces, traces), step.stop,
    )  # fmt: skip
    operands = Operands(
        o.n, _pick(o.seqs, seqs), _pick(o.inits, carries), _pick(o.consts, consts)
    )
    r = _applied(v, smaller, operands)
    return _results(
        v, r, {j: i for i, j in enumerate(carries)}, {j: i for i, j in enumerate(traces)}
    )


# ---- unify --------------------------------------------------------------------------------------


def unify_operands(v: Variable, used: frozenset[int]) -> Found | None:
    """Sequences and consts that are given twice; consts that are constants; sequences whose rows
    are all the same; carries that never change, or are always equal."""
    op = _op(v)
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
            mapping[p] = p.type()
            extra[mapping[p]] = row
    for p, new, x in zip(step.carries, step.new, o.inits):
        if new is p:
            mapping[p] = p.type()
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
        _pick(step.seqs, seqs), _pick(step.carries, carries),
        (*_pick(step.consts, consts), *extra),
        _pick(changed.new, carries), changed.traces, changed.stop,
    )  # fmt: skip
    operands = Operands(
        o.n, _pick(o.seqs, seqs), _pick(o.inits, carries),
        (*_pick(o.consts, consts), *extra.values()),
    )  # fmt: skip
    r = _applied(v, smaller, operands)
    where = {j: i for i, j in enumerate(carries)}
    found = list(_results(v, r, where, _identity(len(step.traces))))
    for p, new in mapping.items():
        if p in position:
            found[position[p]] = (
                extra[new] if new in extra else r.finals[where[position[new]]]
            )
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


# ---- hoist --------------------------------------------------------------------------------------


def hoist_invariants(v: Variable, used: frozenset[int]) -> Found | None:
    """What is computed from consts, and from sizes that don't change, is computed once."""
    op = _op(v)
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
    moved = [d for d in frontier(invariant, step.outputs) if not _costs_nothing(d)]
    if not moved:
        return None
    placeholders = {d: d.type() for d in moved}
    changed = step.mapped(substitute(step.outputs, placeholders))
    longer = replace(changed, consts=(*step.consts, *placeholders.values()))
    outer = [specify(lift.fixed[d], d.type.shape) for d in moved]
    operands = replace(o, consts=(*o.consts, *outer))
    return _same(v, _applied(v, longer, operands))


def _costs_nothing(d: Variable) -> bool:
    """A broadcast number is better made where it is read."""
    return isinstance(d.op, BroadcastTo) and isinstance(d.inputs[0], Constant)


# ---- batch --------------------------------------------------------------------------------------


def batch_sequences(v: Variable, used: frozenset[int]) -> Found | None:
    """What depends on sequences and consts only is computed for all steps at once before the
    loop: `x[t] @ W` for every t is one GEMM."""
    op = _op(v)
    step, o = op.step, op.split(v.inputs)
    if not step.seqs:
        return None
    rows = {s: first_rows(x, o.n) for s, x in zip(step.seqs, o.seqs)}
    lift = Lift(rows, dict(zip(step.consts, o.consts)), o.n)
    changing = set(step.carries)
    candidates = []
    for d in toposort(step.outputs):
        if any(i in changing for i in d.inputs):
            changing.add(d)
        elif d.inputs:
            candidates.append(d)
    lift.lift(candidates)
    lifted = {d for d in candidates if d in lift.rows}
    moved = frontier(lifted, step.outputs)
    if not moved:
        return None
    placeholders = {d: d.type() for d in moved}
    changed = step.mapped(substitute(step.outputs, placeholders))
    longer = replace(changed, seqs=(*step.seqs, *placeholders.values()))
    outer = [specify(lift.rows[d], (None, *d.type.shape)) for d in moved]
    return _same(v, _applied(v, longer, replace(o, seqs=(*o.seqs, *outer))))


def traced_sequences(v: Variable, used: frozenset[int]) -> Found | None:
    """A trace of a sequence's rows is the sequence, one of a const is the const repeated."""
    op = _op(v)
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


# ---- sink ---------------------------------------------------------------------------------------


class _Sink:
    """The way out of a loop for values that nothing in it needs: they are computed behind it
    from traces of what they need."""

    def __init__(self, v: Variable, inner: Iterable[Variable], used: frozenset[int]) -> None:
        op = _op(v)
        step, o = op.step, op.split(v.inputs)
        self.step = step
        r = op.results(v)
        self.steps = o.n if step.stop is None else r.steps
        self.inner = set(inner)
        rows = {s: first_rows(x, self.steps) for s, x in zip(step.seqs, o.seqs)}
        k = len(step.carries)
        # only what stays a trace may be read: a value that is sunk itself may not
        for i, (row, trace) in enumerate(zip(step.traces, r.traces)):
            if k + i in used and row in self.inner:
                rows.setdefault(row, trace)
        self.lift = Lift(rows, dict(zip(step.consts, o.consts)), self.steps)
        self.added: dict[Variable, Variable] = {}  # a value to trace: a placeholder of its trace

    def needs(self, v: Variable) -> list[Variable]:
        """The values that would have to be traced for v to be computed behind the loop."""
        return self._trial()._reach(v)

    def sink(self, v: Variable) -> Variable:
        """v for all steps, behind the loop."""
        self._reach(v)
        return self.lift.rows_of(v)

    def _trial(self) -> _Sink:
        other = object.__new__(_Sink)
        other.step, other.steps, other.inner = self.step, self.steps, self.inner
        other.lift = Lift(self.lift.rows, self.lift.fixed, self.steps)
        other.added = dict(self.added)
        return other

    def _reach(self, v: Variable) -> list[Variable]:
        """Lifts v, tracing what can't be lifted: the values that this adds."""
        before = set(self.added)
        for d in toposort([v], [*self.lift.rows, *self.lift.fixed, *self.inner]):
            if d in self.lift:
                continue
            if d not in self.inner and d not in self.step.params:
                self.lift.lift([d], [d])
            if d not in self.lift and isinstance(d.type, TensorType):
                self.added[d] = self.lift.rows[d] = d.type.rows()()
        read = set(leaves([self.lift.rows_of(v)]))
        return [d for d, x in self.added.items() if d not in before and x in read]


def _loop_needs(step: Step, without: Iterable[int] = ()) -> set[Variable]:
    """What the next step, or the stop, depends on; `without` some of the carries."""
    skipped = set(without)
    roots = [x for j, x in enumerate(step.new) if j not in skipped]
    roots += [step.stop] if step.stop is not None else []
    return set(toposort(roots))


_PRODUCTS = (Dot, BatchedDot)


def sink_outputs(v: Variable, used: frozenset[int]) -> Found | None:
    """An output that the loop itself does not need is computed behind the loop, where that makes
    one product of many (`h[t] @ V` for every t), or needs nothing more to be stored."""
    op = _op(v)
    step, o = op.step, op.split(v.inputs)
    k = len(step.carries)
    inner = _loop_needs(step)
    wanted = [i for i, row in enumerate(step.traces) if k + i in used and row not in inner]
    sunk: dict[int, Variable] = {}
    sink = _Sink(v, inner, used)
    for i in wanted:
        row = step.traces[i]
        if row in step.params or isinstance(row, Constant) or _has_effects(row, inner):
            continue
        needs = sink.needs(row)
        if row in needs:  # it can't be computed behind the loop
            continue
        bytes_added = sum(d.ndim for d in needs)  # traces as large as this one at most
        outside = [d for d in toposort([row]) if d not in inner]
        products = any(isinstance(d.op, _PRODUCTS) for d in outside)
        if not needs or (products and len(needs) <= 1 and bytes_added <= row.ndim):
            sunk[i] = sink.sink(row)
    if not sunk:
        return None
    return _with_traces(v, sink, sunk, {}, used)


def _has_effects(v: Variable, stop: Iterable[Variable]) -> bool:
    return any(getattr(d.op, "has_effect", False) for d in toposort([v], stop))


def sink_sums(v: Variable, used: frozenset[int]) -> Found | None:
    """A carry that only adds up, read only at the end, is summed behind the loop where a term is
    a product (the sum over t of x[t].T @ d[t] is one GEMM) or is stored anyway."""
    op = _op(v)
    step, o = op.step, op.split(v.inputs)
    sums: dict[int, list[Variable]] = {}
    for j, (p, new) in enumerate(zip(step.carries, step.new)):
        terms = _terms(new, p)
        if j in used and terms is not None and not _read_elsewhere(step, j):
            sums[j] = terms
    if not sums:
        return None
    inner = _loop_needs(step, sums)
    sink = _Sink(v, inner, used)
    left: dict[int, list[Variable]] = {j: list(t) for j, t in sums.items()}
    behind: dict[int, list[Variable]] = {}
    for products in (True, False):  # products first: what they store serves the others
        for j, terms in left.items():
            for term in list(terms):
                if _has_effects(term, inner):
                    continue
                found = _summed(sink, term, step.carries[j].type, products)
                if found is not None:
                    terms.remove(term)
                    behind.setdefault(j, []).append(found)
    if not behind:
        return None
    r_sums: dict[int, Variable] = {}
    new = list(step.new)
    for j, parts in behind.items():
        rest = left[j]
        value = step.carries[j]
        for term in rest:
            value = value + term
        new[j] = value
        whole = parts[0]
        for part in parts[1:]:
            whole = whole + part
        r_sums[j] = whole
    return _with_traces(v, sink, {}, r_sums, used, tuple(new))


def _read_elsewhere(step: Step, j: int) -> bool:
    """Whether anything but its own sum reads carry j."""
    others = [x for i, x in enumerate(step.new) if i != j]
    others += [*step.traces, *([step.stop] if step.stop is not None else [])]
    return step.carries[j] in set(toposort(others))


def _terms(new: Variable, carry: Variable) -> list[Variable] | None:
    """The terms of new = carry + term + ..., or None where it is nothing of the kind."""
    found, rest, seen = [], [new], 0
    while rest:
        v = rest.pop()
        if v is carry:
            seen += 1
        elif (
            isinstance(v.op, Elemwise) and v.op.scalar is add and carry in set(toposort([v]))
            and v.type == new.type
        ):  # fmt: skip
            rest += v.inputs
        elif isinstance(v.op, Elemwise) and v.op.scalar is add and v.type == new.type and all(
            i.type.broadcastable == v.type.broadcastable for i in v.inputs
        ):
            rest += v.inputs
        else:
            found.append(v)
    if seen != 1 or any(carry in set(toposort([t])) for t in found):
        return None
    return found or None


def _summed(sink: _Sink, term: Variable, type_: TensorType, products: bool) -> Variable | None:
    """The sum of a term over the steps, behind the loop; None where it is better left inside."""
    if term.type.broadcastable != type_.broadcastable:
        return None
    while isinstance(term.op, Specify):
        term = term.inputs[0]
    if products:
        pair = _product(term)
        if pair is None:
            return None
        left, right, axis = pair
        needs = [*sink.needs(left), *sink.needs(right)]
        if len(dict.fromkeys(needs)) > 2:
            return None
        found = _contracted(sink.sink(left), sink.sink(right), axis)
    else:
        if sink.needs(term):
            if not isinstance(term.op, Reduce) or sink.needs(term.inputs[0]):
                return None
        found = total(sink.sink(term), axis=0, dtype=term.dtype)
    return specify(found, type_.shape) if found.type.shape != type_.shape else found


def _product(term: Variable) -> tuple[Variable, Variable, bool] | None:
    """(x, y, contracted) where the term is x.T @ y summed over their first axes (contracted), or
    the outer product of the vectors x and y."""
    if isinstance(term.op, Dot) and term.ndim == 2:
        x, y = term.inputs
        return dimshuffle(x, 1, 0), y, True
    if isinstance(term.op, Elemwise) and term.op.scalar is mul and term.ndim == 2:
        for x, y in (term.inputs, term.inputs[::-1]):
            if x.type.broadcastable == (False, True) and y.type.broadcastable == (True, False):
                return dimshuffle(x, 0), dimshuffle(y, 1), False
    return None


def _contracted(x: Variable, y: Variable, contracted: bool) -> Variable:
    """The sum over the steps of x[t].T @ y[t], or of the outer products of rows: one GEMM."""
    if contracted:
        rows = dim(x, 0) * dim(x, 1)
        x = reshape(x, [rows, dim(x, 2)], ndim=2)
        y = reshape(y, [rows, dim(y, 2)], ndim=2)
    return Dot()(dimshuffle(x, 1, 0), y)


def _with_traces(
    v: Variable, sink: _Sink, sunk: Mapping[int, Variable], sums: Mapping[int, Variable],
    used: frozenset[int], new: tuple[Variable, ...] | None = None,
) -> Found:  # fmt: skip
    """v with the traces that `sink` added; `sunk` stands for some of its traces, `sums` is added
    to some of its final carries."""
    op = _op(v)
    step, o = op.step, op.split(v.inputs)
    read = set(leaves([*sunk.values(), *sums.values()]))
    added = [d for d, x in sink.added.items() if x in read]
    longer = replace(step, new=new or step.new, traces=(*step.traces, *added))
    r = _applied(v, longer, o)
    old = op.results(v)
    m = len(step.traces)
    real: dict[Variable, Variable] = dict(
        zip([*old.finals, *old.traces, old.steps], [*r.finals, *r.traces[:m], r.steps])
    )
    real |= {sink.added[d]: t for d, t in zip(added, r.traces[m:])}
    found: list[Variable | None] = [*r.finals, *r.traces[:m], r.steps]
    k = len(step.carries)
    values = substitute([*sunk.values(), *sums.values()], real)
    for i, x in zip(sunk, values):
        found[k + i] = specify(x, old.traces[i].type.shape)
    for j, x in zip(sums, values[len(sunk) :]):
        final = r.finals[j]
        found[j] = specify(final + cast(x, final.dtype), final.type.shape)
    return found


# ---- push slices ----------------------------------------------------------------------------------


def push_slices(outputs: Sequence[Variable]) -> list[Variable]:
    """(h @ U)[:, a:b] is h @ U[:, a:b], so that gates share one index space and U's parts are
    cut once before the loop. Pushed where all of a product (or of a sum of products) is read
    through such slices."""
    while True:
        users = clients(outputs)
        mapping: dict[Variable, Variable] = {}
        for v in toposort(outputs):
            if _slice_of(v) is not None and _sliced_only(v.inputs[0], users):
                x = v.inputs[0]
                with made_for(v):
                    pushed = _pushed(v, x)
                if pushed is not None:
                    mapping[v] = pushed
        if not mapping:
            return list(outputs)
        # innermost first: a pushed slice may itself be sliced again in the next round
        outputs = substitute(outputs, mapping)


def _slice_of(v: Variable) -> Slice | None:
    """The entry of a slice of the last axis alone, with fixed bounds."""
    if not isinstance(v.op, Subtensor) or len(v.op.pattern) != v.inputs[0].ndim:
        return None
    if len(v.inputs) > 1 or any(e != FULL for e in v.op.pattern[:-1]):
        return None
    last = v.op.pattern[-1]
    return last if isinstance(last, Slice) and last.step in (None, 1) else None


def _sliced_only(x: Variable, users: Mapping[Variable, Sequence[Variable | None]]) -> bool:
    return all(u is not None and _slice_of(u) is not None for u in users[x]) and _is_product(
        x, users
    )


def _is_product(x: Variable, users: Mapping[Variable, Sequence[Variable | None]]) -> bool:
    """A product, or a sum that holds one which nobody else reads."""
    if isinstance(x.op, Dot):
        return x.inputs[1].ndim == 2
    return (
        isinstance(x.op, Elemwise)
        and x.op.scalar is add
        and any(len(users[i]) == 1 and _is_product(i, users) for i in x.inputs)
    )


def _pushed(v: Variable, x: Variable) -> Variable | None:
    pattern = v.op.pattern  # type: ignore[attr-defined]
    if isinstance(x.op, Dot):
        a, b = x.inputs
        return specify(Dot()(a, Subtensor((FULL, pattern[-1]))(b)), v.type.shape)
    parts = [
        i if i.type.shape[-1] == 1 and x.type.shape[-1] != 1 else Subtensor(pattern)(i)
        for i in x.inputs
    ]
    return specify(Elemwise(add)(*parts), v.type.shape)


# ---- no loop ------------------------------------------------------------------------------------


def inline_one_step(v: Variable, used: frozenset[int]) -> Found | None:
    """A loop of the constant one step is the step."""
    op = _op(v)
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


# ---- merge ----------------------------------------------------------------------------------------


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
                if a not in behind[b] and b not in behind[a] and _stop_alike(a, b):
                    return a, b
    return None


def _stop_alike(a: Variable, b: Variable) -> bool:
    """Neither stops early, or both are the same loop up to their traces."""
    p, q = _op(a).step, _op(b).step
    if p.stop is None and q.stop is None:
        return True
    return a.inputs == b.inputs and p.stop is q.stop and p.new == q.new


def _merged(a: Variable, b: Variable) -> dict[Variable, Variable]:
    """The results of two loops as results of one."""
    p, q = _op(a).step, _op(b).step
    oa, ob = _op(a).split(a.inputs), _op(b).split(b.inputs)
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
        operands = Operands(
            oa.n, oa.seqs + ob.seqs, oa.inits + ob.inits, oa.consts + ob.consts
        )
        finals_b = range(ka, ka + kb)
    r = _applied(a, both, operands)
    ra, rb = _op(a).results(a), _op(b).results(b)
    mapping = dict(zip(ra.finals, r.finals[:ka])) | dict(zip(ra.traces, r.traces[:ma]))
    mapping |= dict(zip(rb.finals, _pick(r.finals, finals_b)))
    mapping |= dict(zip(rb.traces, r.traces[ma:]))
    return mapping | {ra.steps: r.steps, rb.steps: r.steps}


def _fresh(step: Step) -> Step:
    """The step over new inputs, so that two steps' parameters don't meet."""
    mapping = {p: p.type(p.name) for p in step.params}
    new = step.mapped(substitute(step.outputs, mapping))
    pick = lambda group: tuple(mapping[p] for p in group)  # noqa: E731
    return replace(
        new, seqs=pick(step.seqs), carries=pick(step.carries), consts=pick(step.consts)
    )


# ---- the last row -----------------------------------------------------------------------------


@rule(Subtensor)
def last_row(v: Variable) -> Variable | None:
    """trace[-1] of a carry's values is the final carry, and of another value it is computed from
    the final carries, or carried along: then nobody reads the trace. Of a loop that may run no
    steps it is that after a check."""
    if not v.op.is_last_row:  # type: ignore[attr-defined]
        return None
    trace = v.inputs[0]
    while isinstance(trace.op, Specify):
        trace = trace.inputs[0]
    if not isinstance(trace.op, Item) or not isinstance(trace.inputs[0].op, Scan):
        return None
    loop = trace.inputs[0]
    op = _op(loop)
    if trace not in op.results(loop).traces:
        return None
    row = op.step.traces[trace.op.index - len(op.step.carries)]
    last = _final(loop, row) or _carried(loop, row)
    if last is None:
        return None
    last = specify(last, v.type.shape)
    n = op.split(loop.inputs).n
    if isinstance(n, Constant) and int(n.data) > 0:
        return last
    message = f"index -1 is out of bounds: scan '{op.name or 'scan_fn'}' ran no step"
    return Require(message, "IndexError")(last, lt(0, n))


def _final(loop: Variable, row: Variable) -> Variable | None:
    """A value of the last step, from the final carries and the last rows of sequences."""
    op = _op(loop)
    step, o, r = op.step, op.split(loop.inputs), op.results(loop)
    steps = o.n if step.stop is None else r.steps
    mapping = {x: specify(f, x.type.shape) for x, f in zip(step.new, r.finals)}
    mapping |= dict(zip(step.consts, o.consts))
    mapping |= {p: specify(x[steps - 1], p.type.shape) for p, x in zip(step.seqs, o.seqs)}
    walked = toposort([row], mapping)
    if any(c in walked and c not in mapping for c in step.carries):
        return None
    if any(getattr(x.op, "has_effect", False) for x in walked):
        return None
    return substitute([row], mapping)[0]


def _carried(loop: Variable, row: Variable) -> Variable | None:
    """A value of the last step, as the final value of a carry that nothing reads."""
    op = _op(loop)
    step, o = op.step, op.split(loop.inputs)
    sizes = op.outside(pushed_dims(dims(row)), o)
    if step.stop is not None or any(s is None for s in sizes):
        return None
    zeros = broadcast_to(constant_leaf(np.zeros((), row.dtype)), sizes)
    longer = replace(step, carries=(*step.carries, row.type()), new=(*step.new, row))
    r = _applied(loop, longer, replace(o, inits=(*o.inits, specify(zeros, row.type.shape))))
    return r.finals[-1]


LOOP_RULES = Rules(last_row)


# ---- the pass -------------------------------------------------------------------------------------

RULES = (
    drop_unread,
    unify_operands,
    inline_one_step,
    hoist_invariants,
    batch_sequences,
    traced_sequences,
    sink_sums,
    sink_outputs,
)


def loop_pass(outputs: Sequence[Variable], optimise: Optimise) -> list[Variable]:
    """The outputs with every loop's rules applied once, and its step optimised."""
    outputs = merge_loops(outputs)
    used: dict[Variable, set[int]] = {}
    order = toposort(outputs)
    for v in order:
        if isinstance(v.op, Item):
            used.setdefault(v.inputs[0], set()).add(v.op.index)
    new: dict[Variable, Variable] = {}
    for v in order:
        if v in new:
            continue
        if not isinstance(v.op, Scan):
            new[v] = rebuild(v, [new[i] for i in v.inputs]) if v.inputs else v
            continue
        node = rebuild(v, [new[i] for i in v.inputs])
        found = _one_loop(node, frozenset(used.get(v, ())), optimise)
        new[v] = node
        for i, x in enumerate(found):
            if x is not None:
                new[Item(i)(v)] = inherit(x, Item(i)(v))
    return [new[v] for v in outputs]


def _one_loop(v: Variable, used: frozenset[int], optimise: Optimise) -> Found:
    """What stands for the results of a loop after its step was optimised and the first rule that
    has something to say was applied."""
    op = _op(v)
    step = op.step
    if (better := optimise(step.outputs)) == list(step.outputs):
        for apply in RULES:
            with made_for(v):
                found = apply(v, used)
            if found is not None:
                return found
        # last, so that what can be is batched before it is cut
        if (better := push_slices(step.outputs)) == list(step.outputs):
            r = op.results(v)
            return [*r.finals, *r.traces, r.steps]
    r = _applied(v, step.mapped(better), op.split(v.inputs))
    return [*r.finals, *r.traces, r.steps]
