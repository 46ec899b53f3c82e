"""Scan: a loop as one node of the graph, and its gradient, which is the same op again.

    operands   n, *seqs, *inits, *consts      body: (seq rows, carries, consts)
    results    *final carries, *traces, steps       -> (new carries, trace rows, [stop])

Step t = 0 .. n-1 reads row t of every seq. A tap of a sequence is a shifted view, a tap of an
output is a delay line of carries each of which takes over its neighbour's value, going
backwards is a flipped view.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import built_at
from ..evaluate import Program
from ..gradient import added, cotangents, dependence
from ..graph import (
    Constant,
    Op,
    Param,
    Undefined,
    Variable,
    constant_leaf,
    results,
    substitute,
    toposort,
)
from ..ops.elemwise import Elemwise, zeros_like
from ..ops.index import IncSubtensor
from ..ops.indexing import set_subtensor
from ..ops.scalar import add, eq, minimum, switch
from ..ops.shape import (
    Dim,
    Specify,
    dim,
    dims,
    first_rows,
    number,
    specify,
)
from ..record import field, record, replace
from ..rules.shapes import pushed_dims
from ..types import TensorType, TupleType
from .checkpoints import Segments
from .history import History, grad_of, like
from .memory import Memory

Group = tuple[Variable, ...]


@record
class Step:
    """One step of a loop, closed over its parameters."""

    seqs: Group  # parameters: a row of each sequence,
    carries: Group  # the carries on entry,
    consts: Group  # and what does not change
    new: Group  # what the step gives: a new value for each carry,
    traces: Group  # a row for each trace,
    stop: Variable | None = None  # and whether this was the last step

    @property
    def params(self) -> Group:
        return self.seqs + self.carries + self.consts

    @property
    def values(self) -> Group:
        """New carries and trace rows."""
        return self.new + self.traces

    @property
    def outputs(self) -> Group:
        return self.values if self.stop is None else (*self.values, self.stop)

    def computes(self, v: Variable) -> bool:
        """Whether v, of the step, is neither a parameter nor a constant."""
        return v not in self.params and not isinstance(v, Constant)

    def mapped(self, values: Sequence[Variable]) -> Step:
        """The same step with other values for its outputs."""
        k, m = len(self.new), len(self.traces)
        stop = None if self.stop is None else values[k + m]
        return replace(self, new=tuple(values[:k]), traces=tuple(values[k : k + m]), stop=stop)

    def closed(self) -> Step:
        """The step with each parameter replaced by the `Param` leaf of its position, so that
        equal steps are equal. The parameters may be any variables before."""
        params = [Variable(Param(v.type, i, v.name)) for i, v in enumerate(self.params)]
        for v, p in zip(self.params, params):
            p.name = v.name
        mapping = dict(zip(self.params, params))
        a, b = len(self.seqs), len(self.seqs) + len(self.carries)
        new = self.mapped(substitute(self.outputs, mapping))
        return replace(
            new, seqs=tuple(params[:a]), carries=tuple(params[a:b]), consts=tuple(params[b:])
        )


@record
class Operands:
    """What a Scan is applied to: the number of steps, and a value for each parameter."""

    n: Variable
    seqs: Group
    inits: Group
    consts: Group

    @property
    def all(self) -> Group:
        return (self.n, *self.seqs, *self.inits, *self.consts)


@record
class Results:
    """What a Scan gives."""

    finals: Group
    traces: Group
    steps: Variable


@record
class Scan(Op):
    """A loop whose step is closed."""

    step: Step
    truncate: int = -1  # of the gradient: how many of the last steps contribute
    name: str | None = field(default=None, compare=False)
    memory: Memory = Memory()  # what is held for the gradient
    segments_of: Scan | None = None  # whose steps a step runs, many at once
    is_end: bool = False  # of a loop of which these are the last steps

    @property
    def is_frugal(self) -> bool:
        """Whether no value is to be held for all steps that needn't be."""
        return self.memory.saves == "carries"

    def split(self, inputs: Sequence[Variable]) -> Operands:
        n, *rest = inputs
        a, b = len(self.step.seqs), len(self.step.seqs) + len(self.step.carries)
        return Operands(n, tuple(rest[:a]), tuple(rest[a:b]), tuple(rest[b:]))

    def results(self, node: Variable) -> Results:
        out, k = results(node), len(self.step.carries)
        return Results(tuple(out[:k]), tuple(out[k:-1]), out[-1])

    @property
    def body(self) -> Group:
        """What a step gives, as printing shows it."""
        return self.step.outputs

    @property
    def label(self) -> str:
        return f"Scan{{{self.name or 'scan_fn'}}}"

    # ---- types ----------------------------------------------------------------------------------

    def infer(self, n: TensorType, *types: TensorType) -> TupleType:
        step = self.step
        if n.dtype != "int64" or n.ndim:
            raise TypeError(f"a Scan's number of steps is an int64 scalar, not {n}")
        rows = [t.row() for t in types[: len(step.seqs)]]
        for p, t in zip(step.params, [*rows, *types[len(step.seqs) :]], strict=True):
            if not compatible(p.type, t):
                raise TypeError(f"the step's parameter {p} is a {p.type}; it was given a {t}")
        for p, v in zip(step.carries, step.new, strict=True):
            if not compatible(p.type, v.type):
                raise TypeError(f"a carry of type {p.type} becomes {v.type} in the step")
        carries = [p.type for p in step.carries]
        traces = [v.type.rows() for v in step.traces]
        return TupleType((*carries, *traces, TensorType("int64", ())))

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Any:
        o, r = self.split(inputs), self.results(output)
        steps = o.n if self.step.stop is None else r.steps
        found: list[Any] = [dims(v) for v in o.inits]
        rows = sizes_of_rows(self.step)
        outside = iter(self.outside([d for row in rows for d in row], o))
        for trace, row in zip(r.traces, rows):
            found.append([steps, *(next(outside) or Dim(a + 1)(trace) for a in range(len(row)))])
        return [*found, []]

    def outside(self, values: Sequence[Variable], o: Operands) -> list[Variable | None]:
        """Values of the step as values outside the loop, where they depend on consts and on
        the sizes of rows and carries only; None where they do not."""
        step = self.step
        mapping: dict[Variable, Variable] = dict(zip(step.consts, o.consts))
        shaped = {s: (x, 1) for s, x in zip(step.seqs, o.seqs)}
        shaped |= {c: (x, 0) for c, x in zip(step.carries, o.inits)}
        inner: set[Variable] = set(shaped)
        for v in toposort(values):
            if isinstance(v.op, Dim) and v.inputs[0] in shaped:
                x, lead = shaped[v.inputs[0]]
                mapping[v] = dim(x, v.op.axis + lead)
            elif any(x in inner for x in v.inputs):
                inner.add(v)
        kept = [v for v in values if v not in inner]
        outer = dict(zip(kept, substitute(kept, mapping)))
        return [outer.get(v) for v in values]

    def sizes_outside(self, v: Variable, o: Operands) -> list[Variable] | None:
        """The sizes of a value of the step as values outside the loop; None where they may change
        from step to step, so that no trace holds it."""
        sizes = self.outside(pushed_dims(dims(v)), o)
        return None if any(s is None for s in sizes) else sizes  # type: ignore[return-value]

    # ---- the meaning ----------------------------------------------------------------------------

    def evaluator(self, node: Variable) -> Callable[..., Any]:
        return functools.partial(self.run, node, Program(self.step.params, self.step.outputs))

    def run(
        self, node: Variable, step: Callable[..., tuple[Any, ...]], n: Any, *operands: Any,
        empty: Callable[..., Any] = np.empty, ahead: Callable[..., Any] | None = None,
        put: Callable[[Any, Any], None] = np.copyto,
    ) -> tuple[Any, ...]:  # fmt: skip
        """The loop, step by step; `empty`: an array of a shape and a dtype, for a trace; `put`:
        writes a row there. `ahead`: runs several steps at once, (t, carries, traces so far) ->
        (how many, carries, traces)."""
        n, k, m = int(n), len(self.step.carries), len(self.step.traces)
        a = len(self.step.seqs)
        seqs, carries, consts = operands[:a], operands[a : a + k], operands[a + k :]
        self._check(node, n, seqs)
        shapes = [c.shape for c in carries]
        traces: list[np.ndarray] = []
        t = 0
        end = f" of the last {n}" if self.is_end else ""
        while t < n:
            where = f"in step {t}{end}"
            try:
                if ahead is not None:
                    where = f"in a step from {t} on"
                    many, carries, traces = ahead(t, carries, traces)
                    if many:
                        t += many
                        continue
                    where = f"in step {t}{end}"
                out = step(*[s[t] for s in seqs], *carries, *consts)
            except Exception as error:
                error.add_note(f"{where} of scan '{self.name or 'scan_fn'}'.{built_at(node)}")
                raise
            if t == 0:
                traces = [empty((n, *v.shape), b.dtype) for v, b in zip(out[k:], self.step.traces)]
            carries = out[:k]
            for j, shape in enumerate(shapes):
                if carries[j].shape != shape:
                    raise ValueError(self._changed(node, j, shape, carries[j].shape, t))
            for i in range(m):
                row = out[k + i]
                if row.shape != traces[i].shape[1:]:
                    raise ValueError(self._changed(node, k + i, traces[i].shape[1:], row.shape, t))
                put(traces[i][t, ...], row)
            t += 1
            if self.step.stop is not None and out[-1]:
                break
        if n == 0:
            traces = self._no_rows(seqs, carries, consts)
        elif t < n:
            traces = [x[:t] for x in traces]
        return (*carries, *traces, np.int64(t))

    def _check(self, node: Variable, n: int, seqs: Sequence[Any]) -> None:
        name = f"scan '{self.name or 'scan_fn'}'"
        if n < 0:
            raise IndexError(
                f"Scan was asked to run for negative number of step {n} ({name}).{built_at(node)}"
            )
        for s, x in zip(seqs, self.split(node.inputs).seqs):
            if len(s) < n:
                raise ValueError(
                    "Sequence is shorter then the required number of steps : "
                    f"(n_steps, seq, seq.shape): {n}, {x}, {s.shape} ({name}).{built_at(node)}"
                )

    def _changed(self, node: Variable, i: int, old: Any, new: Any, t: int) -> str:
        v = self.step.values[i]
        what = "state" if i < len(self.step.carries) else "output"
        return (
            f"An output of the scan has changed shape. {what} {v.name or v.op_name()} of scan "
            f"'{self.name or 'scan_fn'}' has shape {new} after step {t} and had {old} before. "
            f"The shape must stay the same in every step.{built_at(v)}{built_at(node)}"
        )

    def _no_rows(
        self, seqs: Sequence[Any], carries: Sequence[Any], consts: Sequence[Any]
    ) -> list[np.ndarray]:
        """Traces of a loop of no steps: no rows, of the shape that a row would have had."""
        step = self.step
        flat = [d for sizes in sizes_of_rows(step) for d in sizes]
        rows = [np.zeros(s.shape[1:], s.dtype) for s in seqs]
        found = iter(Program(step.params, flat)(*rows, *carries, *consts))
        return [
            np.empty((0, *(int(next(found)) for _ in range(v.ndim))), v.dtype) for v in step.traces
        ]

    # ---- the derivative -------------------------------------------------------------------------

    def connection(self, node: Variable) -> list[set[int]]:
        a, k = len(self.step.seqs), len(self.step.carries)
        per_input: list[set[int]] = [set() for _ in node.inputs]
        for result, params in enumerate(dependence_over_steps(self.step)):
            for i in params:
                per_input[1 + i].add(result)
        for j in range(k):  # a loop of no steps gives back the initial value
            per_input[1 + a + j].add(j)
        return per_input

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return _Backward(self, output, list(g)).cotangents()


def compatible(a: TensorType, b: TensorType) -> bool:
    """Whether a value can be of both types: no known size differs."""
    return (a.dtype, a.ndim) == (b.dtype, b.ndim) and all(
        p is None or q is None or p == q for p, q in zip(a.shape, b.shape)
    )


@functools.lru_cache(maxsize=512)
def sizes_of_rows(step: Step) -> list[list[Variable]]:
    """Per trace the sizes of a row, in terms of the parameters."""
    pushed = iter(pushed_dims([d for v in step.traces for d in dims(v)]))
    return [[next(pushed) for _ in range(v.ndim)] for v in step.traces]


@functools.lru_cache(maxsize=512)
def dependence_over_steps(step: Step) -> tuple[frozenset[int], ...]:
    """Per new carry and trace, the positions of the parameters it depends on, directly or
    through the carries of earlier steps."""
    on = [set(s) for s in dependence(step.values, step.params)]
    a, k = len(step.seqs), len(step.carries)
    grew = True
    while grew:
        grew = False
        for s in on:
            more = set().union(*(on[i - a] for i in s if 0 <= i - a < k)) - s
            if more:
                s |= more
                grew = True
    return tuple(frozenset(s) for s in on)


class _Backward:
    """The gradient of one Scan node.

    Backward, seqs run flipped; the cotangents of carries are carries; the cotangent of a const
    is an accumulating carry; that of a seq is a trace. `History` says what it reads of the
    forward steps.
    """

    def __init__(self, op: Scan, node: Variable, gs: list[Any]) -> None:
        self.op, self.node, self.step = op, node, op.step
        self.o = op.split(node.inputs)
        self.a, self.k = len(self.step.seqs), len(self.step.carries)
        self.gs = gs[:-1]  # the number of steps has no cotangent
        for i, v in enumerate(self.step.traces):
            if v in self.step.new and isinstance(self.gs[self.k + i], Variable):
                j = self.step.new.index(v)
                rows, last = _last_row(self.gs[self.k + i])
                self.gs[self.k + i] = rows
                if last is not None:  # not a row a step, but the final carry's
                    self.gs[j] = added(self.gs[j], last)

    def cotangents(self) -> list[Any]:
        undefined = {i: g for i, g in enumerate(self.gs) if isinstance(g, Undefined)}
        self.gs = [None if i in undefined else g for i, g in enumerate(self.gs)]
        found = [None, *self._defined()]
        if not undefined:
            return found
        reason = next(iter(undefined.values()))
        flows = self.op.connection(self.node)
        return [reason if c & undefined.keys() else d for c, d in zip(flows, found)]

    def _defined(self) -> list[Any]:
        """The cotangents of the operands that parameters stand for."""
        values = self.step.values
        on = dependence_over_steps(self.step)
        # values with a cotangent: those asked for, and the carries that lead to them
        asked = {i for i, g in enumerate(self.gs) if g is not None}
        leading = {j - self.a for i in asked for j in on[i] if self.a <= j < self.a + self.k}
        active = sorted(i for i in asked | leading if values[i].type.is_float)
        spoiled: dict[int, Undefined] = {}
        while True:
            ct = {i: values[i].type(self._grad_name(i)) for i in active}
            d = cotangents([values[i] for i in active], list(ct.values()), self.step.params)
            spoiled |= {i: g for i, g in enumerate(d) if isinstance(g, Undefined)}
            still = [
                i for i in active
                if i in asked or (d[self.a + i] is not None and self.a + i not in spoiled)
            ]  # fmt: skip
            if still == active:
                break
            active = still
        clean = [None if isinstance(g, Undefined) else g for g in d]
        loop = self._segments if self.op.memory.in_segments else self._loop
        found = loop(ct, clean) if active else [None] * len(self.step.params)
        if not spoiled:
            return found
        # what leads to a parameter without a cotangent has none either
        carries = [i - self.a for i in spoiled if self.a <= i < self.a + self.k]
        reach = set(spoiled).union(*(on[j] for j in carries))
        reason = next(iter(spoiled.values()))
        return [reason if i in reach else g for i, g in enumerate(found)]

    def _grad_name(self, i: int) -> str | None:
        """What the cotangent of a new carry or a trace is called."""
        carry = self.step.carries[i].name if i < self.k else None
        return grad_of(self.step.values[i].name or carry)

    def _loop(self, ct: Mapping[int, Variable], d: Sequence[Any]) -> list[Any]:
        step, o = self.step, self.o
        a, b = self.a, self.a + self.k
        d_seqs, d_carries, d_consts = d[:a], d[a:b], d[b:]
        carried = [i for i in ct if i < self.k]
        traced = [i for i in ct if i >= self.k]
        rowed = [i for i, g in enumerate(d_seqs) if g is not None]
        summed = [i for i, g in enumerate(d_consts) if g is not None]

        # the step backwards, written over the forward step's own variables
        acc = {}
        for i in summed:
            const = step.consts[i]
            acc[i] = TensorType(d_consts[i].dtype, const.type.shape)(grad_of(const.name))
        new_ct = [like(d_carries[i], step.carries[i]) for i in carried]
        new_acc = [acc[i] + like(d_consts[i], step.consts[i]) for i in summed]
        rows = [like(d_seqs[i], step.seqs[i]) for i in rowed]
        history = History(self.op, self.node, [*new_ct, *new_acc, *rows])
        steps = history.steps

        # the loop backwards: the same op over flipped rows
        run = steps
        if self.op.truncate >= 0:
            run = minimum(steps, constant_leaf(np.asarray(self.op.truncate, "int64")))
        flipped = {
            **{p: _flip(x, steps) for p, x in zip(step.seqs, o.seqs)},
            **{p: _flip(x, steps) for p, x in history.rows.items()},
            **{ct[i]: _flip(self.gs[i], steps) for i in traced},
        }
        initial = [like(self.gs[i], o.inits[i]) for i in carried]
        zeros = [_zeros(o.consts[i], acc[i].type) for i in summed]
        n_new = len(carried) + len(summed)
        backward = Step(
            seqs=tuple(flipped),
            carries=(*(ct[i] for i in carried), *acc.values()),
            consts=step.consts,
            new=tuple(history.values[:n_new]),
            traces=tuple(history.values[n_new:]),
        )
        name = f"grad_of_{self.op.name or 'scan_fn'}"
        op = Scan(backward.closed(), name=name, memory=self.op.memory)
        r = op.results(op(run, *flipped.values(), *initial, *zeros, *o.consts))
        final_ct = dict(zip(carried, r.finals))

        found: list[Any] = [None] * len(step.params)
        for i, trace in zip(rowed, r.traces):
            found[i] = self._whole(trace[::-1], o.seqs[i], steps, run)
        for j in range(self.k):
            found[a + j] = self._initial(j, final_ct, steps, run)
        for i, total in zip(summed, r.finals[len(carried) :]):
            found[b + i] = total
        return found

    def _segments(self, ct: Mapping[int, Variable], d: Sequence[Any]) -> list[Any]:
        """The same by segments, each of which runs its steps again."""
        a, b = self.a, self.a + self.k
        if self.op.truncate >= 0:
            return self._last_steps(ct)
        segments = Segments(self.op, self.o)
        checkpoints = segments.checkpoints(segments.forward())
        rowed = [i for i, g in enumerate(d[:a]) if g is not None]
        zeros = {
            i: _zeros(self.o.consts[i], TensorType(g.dtype, self.step.consts[i].type.shape))
            for i, g in enumerate(d[b:])
            if g is not None
        }
        initial = {i: like(self.gs[i], self.o.inits[i]) for i in ct if i < self.k}
        traced = {i: first_rows(self.gs[i], self.o.n) for i in ct if i >= self.k}
        finals, rows = segments.backward(checkpoints, traced, initial, zeros, rowed)
        found: list[Any] = [None] * len(self.step.params)
        for i, x in zip(rowed, rows):
            found[i] = self._whole(x, self.o.seqs[i], self.o.n, self.o.n)
        for i, x in zip([*(a + i for i in initial), *(b + i for i in zeros)], finals):
            found[i] = x
        return found

    def _last_steps(self, ct: Mapping[int, Variable]) -> list[Any]:
        """The same where only the last steps contribute: those before run without a gradient."""
        op, o, a, b = self.op, self.o, self.a, self.a + self.k
        run = minimum(o.n, constant_leaf(np.asarray(op.truncate, "int64")))
        first = o.n - run
        before = replace(op, truncate=-1, memory=Memory())
        states = before.results(
            before(first, *(first_rows(x, first) for x in o.seqs), *o.inits, *o.consts)
        ).finals
        last = replace(op, truncate=-1)
        node = last(run, *(x[first : o.n] for x in o.seqs), *states, *o.consts)
        gs = [g if i < self.k or g is None else g[first : o.n] for i, g in enumerate(self.gs)]
        gs = [g if i in ct else None for i, g in enumerate(gs)]
        _, *found = last.pullback(node.inputs, node, [*gs, None])
        for i, x in enumerate(o.seqs):
            if found[i] is not None:
                found[i] = self._whole(found[i], x, o.n, run)
        final_ct = {j: g for j, g in enumerate(found[a:b]) if g is not None}
        found[a:b] = [self._initial(j, final_ct, o.n, run) for j in range(self.k)]
        return found

    def _initial(
        self, j: int, final_ct: Mapping[int, Variable], steps: Variable, run: Variable
    ) -> Variable | None:
        """The cotangent of an initial value. After truncation it is what flows to the carry
        that holds the initial value at that time: a delay line moves it on by a place a step."""
        if self.op.truncate < 0:
            return final_ct.get(j)
        total: Variable | None = None
        holders, seen, age = {j}, set[int](), 0
        while holders:
            for i in sorted(holders & final_ct.keys()):
                part = switch(eq(steps - run, age), final_ct[i], zeros_like(final_ct[i]))
                total = part if total is None else total + part
            seen |= holders
            held = {self.step.carries[i] for i in holders}
            holders = {i for i, v in enumerate(self.step.new) if v in held} - seen
            age += 1
        return None if total is None else like(total, self.o.inits[j])

    def _whole(self, rows: Variable, seq: Variable, steps: Variable, run: Variable) -> Variable:
        """The cotangents of the rows that the last `run` steps read as one of the whole sequence:
        zeros for the rows that no contributing step read."""
        if self.op.truncate < 0 and dim(seq, 0) is steps:
            return specify(rows, seq.type.shape)
        zeros = _zeros(seq, TensorType(rows.dtype, seq.type.shape))
        start = None if self.op.truncate < 0 else steps - run
        return set_subtensor(zeros[start:steps], rows)


def _last_row(g: Variable) -> tuple[Variable | None, Variable | None]:
    """A cotangent of a trace as (rows, last): what is a cotangent of its last row alone, because
    the trace was read as trace[-1], is taken out of the rows."""
    if isinstance(g.op, Elemwise) and g.op.scalar is add:
        (a, x), (b, y) = _last_row(g.inputs[0]), _last_row(g.inputs[1])
        if x is None and y is None:
            return g, None
        return (a if b is None else b if a is None else a + b), added(x, y)  # type: ignore[return-value]
    if isinstance(g.op, IncSubtensor) and g.op.is_last_row and number(g.inputs[0]) == 0:
        return None, g.inputs[1]
    if isinstance(g.op, Specify):
        rows, last = _last_row(g.inputs[0])
        return (g, None) if last is None else (rows, last)
    return g, None


def _flip(rows: Variable, steps: Variable) -> Variable:
    """The first `steps` rows, the last one first."""
    return first_rows(rows, steps)[::-1]


def _zeros(x: Variable, type_: TensorType) -> Variable:
    return specify(zeros_like(x, type_.dtype), type_.shape)
