"""Work that moves behind the loop: outputs that it does not need, and sums over its steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ...graph import (
    Constant,
    Variable,
    leaves,
    rebuild,
    substitute,
    toposort,
)
from ...ops.elemwise import Elemwise, cast
from ...ops.index import (
    AdvancedIncSubtensor,
    AdvancedSubtensor,
    IncSubtensor,
    Subtensor,
)
from ...ops.indexing import inc_subtensor
from ...ops.linalg import BatchedDot, Dot
from ...ops.reduce import Reduce
from ...ops.reduce import sum as total
from ...ops.scalar import add, mul, neg, sub, true_div
from ...ops.shape import (
    BroadcastTo,
    DimShuffle,
    Join,
    Reshape,
    Specify,
    dim,
    dimshuffle,
    first_rows,
    number,
    reshape,
    specify,
)
from ...record import replace
from ...types import TensorType
from ..op import Step
from .build import Found, applied, scan_op
from .lift import Lift, may_fail


class _Sink:
    """The way out of a loop for values that nothing in it needs: they are computed behind it
    from traces of what they need."""

    def __init__(self, v: Variable, inner: Iterable[Variable], used: frozenset[int]) -> None:
        op = scan_op(v)
        step, o = op.step, op.split(v.inputs)
        self.op, self.o, self.step = op, o, step
        r = op.results(v)
        self.steps = o.n if step.stop is None else r.steps
        self.inner = set(inner)
        rows = {s: first_rows(x, self.steps) for s, x in zip(step.seqs, o.seqs)}
        k = len(step.carries)
        # only what stays a trace may be read: a value that is sunk itself may not
        for i, (row, trace) in enumerate(zip(step.traces, r.traces)):
            if k + i in used and row in self.inner:
                for x, its_rows in _with_parts(row, trace).items():
                    rows.setdefault(x, its_rows)
        self.lift = Lift(rows, dict(zip(step.consts, o.consts)), self.steps)
        self.lift.lift(self.inner, _unchanging(step, self.inner))
        self.added: dict[Variable, Variable] = {}  # a value to trace: a placeholder of its trace

    def needs(self, v: Variable) -> list[Variable]:
        """The values that would have to be traced for v to be computed behind the loop."""
        return self.trial()._reach(v)

    def sink(self, v: Variable) -> Variable:
        """v for all steps, behind the loop."""
        self._reach(v)
        return self.lift.rows_of(v)

    def sink_or_trace(self, v: Variable) -> Variable | None:
        """v for all steps: behind the loop from one more trace at most, which may be its own."""
        needs = self.needs(v)
        if len(needs) > 1 or not all(map(self.can_trace, needs)):
            if not self.can_trace(v):
                return None
            self._add(v)
        return self.sink(v)

    def can_trace(self, v: Variable) -> bool:
        return self.op.sizes_outside(v, self.o) is not None

    def once(self, v: Variable) -> Variable | None:
        """v behind the loop, where it is the same in every step."""
        if v not in self.lift and not self.needs(v):
            self._reach(v)
        return self.lift.fixed.get(v)

    def trial(self) -> _Sink:
        other = object.__new__(_Sink)
        other.op, other.o, other.step = self.op, self.o, self.step
        other.steps, other.inner = self.steps, self.inner
        other.lift = Lift(self.lift.rows, self.lift.fixed, self.steps)
        other.added = dict(self.added)
        return other

    def adopt(self, trial: _Sink) -> None:
        self.lift, self.added = trial.lift, trial.added

    def _add(self, d: Variable) -> None:
        """Traces d, or what it is computed from, where that is no more."""
        root = self._root(d)
        if root not in self.lift:
            self.added[root] = root.type.rows()()
            self.lift.rows |= _with_parts(root, self.added[root])
        self.lift.lift([d])

    def _root(self, d: Variable) -> Variable:
        """What d is a function of, element by element, beside what is the same in every step."""
        while d not in self.lift and isinstance(d.op, Elemwise | Specify):
            changing = [i for i in d.inputs if i not in self.lift.fixed]
            if [i.dtype for i in changing] != [d.dtype] or not self.can_trace(changing[0]):
                break
            (d,) = changing
        return d

    def _reach(self, v: Variable) -> list[Variable]:
        """Lifts v, tracing what can't be lifted: the values that this adds."""
        before = set(self.added)
        for d in toposort([v], [*self.lift.rows, *self.lift.fixed, *self.inner]):
            if d in self.lift:
                continue
            if d not in self.inner and d not in self.step.params:
                self.lift.lift([d], [d])
            if d not in self.lift and isinstance(d.type, TensorType):
                self._add(d)
        read = set(leaves([self.lift.rows_of(v)]))
        return [d for d, x in self.added.items() if d not in before and x in read]


def _unchanging(step: Step, values: Iterable[Variable]) -> set[Variable]:
    """What is the same in every step, of the values and of what they are computed from."""
    changing = {*step.seqs, *step.carries}
    found = set()
    for d in toposort(values):
        if any(i in changing for i in d.inputs):
            changing.add(d)
        elif d.inputs and not getattr(d.op, "has_effect", False):
            found.add(d)
    return found


def _with_parts(row: Variable, rows: Variable) -> dict[Variable, Variable]:
    """A value's rows over the steps, and those of the parts that it joins: views of them."""
    found = {row: rows}
    if isinstance(row.op, Join):
        axis, start = row.op.axis, 0
        for part in row.inputs:
            size = part.type.shape[axis]
            if size is None:
                break
            view = rows[(slice(None),) * (axis + 1) + (slice(start, start + size),)]
            view = specify(view, (None, *part.type.shape))
            while isinstance(part.op, Specify):
                found[part] = view
                part = part.inputs[0]
            found |= _with_parts(part, view)
            start += size
    return found


def loop_needs(step: Step, without: Iterable[int] = ()) -> set[Variable]:
    """What the next step, or the stop, depends on; `without` some of the carries."""
    skipped = set(without)
    roots = [x for j, x in enumerate(step.new) if j not in skipped]
    roots += [step.stop] if step.stop is not None else []
    return set(toposort(roots))


_PRODUCTS = (Dot, BatchedDot)


def sink_outputs(v: Variable, used: frozenset[int]) -> Found | None:
    """An output that the loop itself does not need is computed behind the loop, where that makes
    one product of many (`h[t] @ V` for every t), or needs nothing more to be stored."""
    step = scan_op(v).step
    k = len(step.carries)
    inner = loop_needs(step)
    wanted = [i for i, row in enumerate(step.traces) if k + i in used and row not in inner]
    sink = _Sink(v, inner, used)
    sunk = {i: x for i in wanted if (x := _sunk(sink, step.traces[i])) is not None}
    if sunk:
        return _with_traces(v, sink, sunk, {}, used)
    for i in wanted:  # from the others, which stay
        sink = _Sink(v, {*inner, *(step.traces[j] for j in wanted if j != i)}, used)
        if step.traces[i] not in sink.inner and (x := _sunk(sink, step.traces[i])) is not None:
            return _with_traces(v, sink, {i: x}, {}, used)
    return None


def _sunk(sink: _Sink, row: Variable) -> Variable | None:
    """An output for all steps, behind the loop; None where it is better left inside."""
    if row in sink.step.params or isinstance(row, Constant) or _has_effects(row, sink.inner):
        return None
    needs = sink.needs(row)
    if row in needs or not all(map(sink.can_trace, needs)):  # it can't be
        return None
    bytes_added = sum(d.ndim for d in needs)  # traces as large as this one at most
    outside = toposort([row], sink.inner)
    products = any(isinstance(d.op, _PRODUCTS) for d in outside if d not in sink.inner)
    if not needs or (products and len(needs) <= 1 and bytes_added <= row.ndim):
        return sink.sink(row)
    return None


def _has_effects(v: Variable, stop: Iterable[Variable]) -> bool:
    return any(getattr(d.op, "has_effect", False) for d in toposort([v], stop))


def sink_sums(v: Variable, used: frozenset[int]) -> Found | None:
    """A carry that only adds up, read only at the end, is summed behind the loop where a term is
    a product (the sum over t of x[t].T @ d[t] is one GEMM) or is stored anyway."""
    step = scan_op(v).step
    sums: dict[int, list[Variable]] = {}
    for j, (p, after) in enumerate(zip(step.carries, step.new)):
        terms = _terms(after, p)
        if j in used and terms is not None and not _read_elsewhere(step, j):
            sums[j] = terms
    if not sums:
        return None
    k = len(step.carries)
    stored = [row for i, row in enumerate(step.traces) if k + i in used]
    needed = loop_needs(step, sums)
    inner = {*needed, *stored}
    sink = _Sink(v, inner, used)
    left: dict[int, list[Variable]] = {j: list(t) for j, t in sums.items()}
    behind: dict[int, list[Variable]] = {}
    for products in (True, False):  # products first: what they store serves the others
        for j, terms in left.items():
            for term in list(terms):
                if _has_effects(term, inner) or (products and term in needed.difference(stored)):
                    continue  # or there anyway, and not to be stored
                found = _summed(sink, term, step.carries[j].type, products)
                if found is not None:
                    terms.remove(term)
                    behind.setdefault(j, []).append(found)
    if not behind:
        return None
    r_sums: dict[int, Variable] = {}
    new = list(step.new)
    for j, parts in behind.items():
        kept = step.carries[j]
        for term in left[j]:
            kept = kept + term
        new[j] = kept
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
        elif (
            isinstance(v.op, Elemwise)
            and v.op.scalar is add
            and v.type == new.type
            and all(i.type.broadcastable == v.type.broadcastable for i in v.inputs)
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
    trial = sink.trial()
    found = _sum(trial, term, products)
    if found is None:
        return None
    sink.adopt(trial)
    return specify(found, type_.shape)


def _sum(sink: _Sink, v: Variable, products: bool) -> Variable | None:
    """The sum over the steps of v: of products, of rows that are written into zeros, and of what
    is stored anyway (unless `products` alone), or something linear in such sums that is the same
    in every step."""
    found = _sum_of_products(sink, v) or _sum_of_writes(sink, v)
    if found is None and not products:
        stored = not sink.needs(v)
        if isinstance(v.op, Reduce) and not stored:
            stored = not sink.needs(v.inputs[0]) or _is_over_rows(sink, v)
            stored = stored and sink.sink_or_trace(v.inputs[0]) is not None
        if stored:
            found = total(sink.sink(v), axis=0, dtype=v.dtype)
    if found is None and (linear := _linear_inputs(sink, v)):
        inputs = [
            _sum(sink, x, products) if i in linear else sink.once(x) for i, x in enumerate(v.inputs)
        ]
        known = [x for x in inputs if x is not None]
        found = rebuild(v, known) if len(known) == len(inputs) else None
    return None if found is None else specify(found, v.type.shape)


def _is_over_rows(sink: _Sink, v: Variable) -> bool:
    """Whether v sums rows, which would be all that keeps them together (the gradient of a gain),
    and values as large as those come or go at every step anyway."""
    (x,) = v.inputs
    assert isinstance(v.op, Reduce)
    return (
        v.op.kind == "sum"
        and v.op.axes == (0,)
        and x.ndim > 1
        and any(row.type == x.type for row in sink.lift.rows)
    )


def _linear_inputs(sink: _Sink, v: Variable) -> set[int]:
    """The inputs in which v is linear, taken together; none where it is not."""
    everything = set(range(len(v.inputs)))
    match v.op:
        case Specify() | DimShuffle() | Reshape() | BroadcastTo():
            return {0}
        case Subtensor() if not may_fail(v):
            return {0}
        case IncSubtensor(set=False) if number(v.inputs[0]) == 0 and not may_fail(v):
            return {1}
        case Join():
            return {i for i, x in enumerate(v.inputs) if number(x) != 0}
        case Elemwise(scalar) if scalar in (add, sub, neg):
            return everything
        case Elemwise(scalar) if scalar is true_div:
            return {0}
        case Elemwise(scalar) if scalar is mul:
            same = {i for i, x in enumerate(v.inputs) if sink.once(x) is not None}
            return everything - same if len(same) == 1 else set()
        case Elemwise() if v.op.label.startswith("cast_") and v.type.is_float:
            (x,) = v.inputs  # a wider dtype is asked for to sum in it
            return {0} if x.type.is_float and np.can_cast(v.dtype, x.dtype, "safe") else set()
    return set()


def _sum_of_products(sink: _Sink, v: Variable) -> Variable | None:
    pair = _product(v)
    if pair is None:
        return None
    left, right, contracted = pair
    x, y = sink.sink_or_trace(left), sink.sink_or_trace(right)
    return None if x is None or y is None else _contracted(x, y, contracted)


def _sum_of_writes(sink: _Sink, v: Variable) -> Variable | None:
    """Rows that each step adds to zeros, at positions of its own (the gradient of looking them
    up): the rows of all steps added at once."""
    if not isinstance(v.op, IncSubtensor | AdvancedIncSubtensor) or v.op.set:
        return None
    x, y, *positions = v.inputs
    zeros = sink.once(x) if positions and number(x) == 0 else None
    if zeros is None:
        return None
    operands = [sink.sink_or_trace(i) for i in (y, *positions)]
    known = [i for i in operands if i is not None]
    if len(known) < len(operands):
        return None
    rows, *at = known
    read = AdvancedSubtensor if isinstance(v.op, AdvancedIncSubtensor) else Subtensor
    part = read(v.op.pattern).batch([zeros, *at], [False, *(True for _ in at)], sink.steps)
    return None if part is None else inc_subtensor(part, rows)


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
    op = scan_op(v)
    step, o = op.step, op.split(v.inputs)
    read = set(leaves([*sunk.values(), *sums.values()]))
    added = [d for d, x in sink.added.items() if x in read]
    longer = replace(step, new=new or step.new, traces=(*step.traces, *added))
    r = applied(v, longer, o)
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
