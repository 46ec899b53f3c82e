"""The history of a loop: what its backward step reads of the forward steps."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..graph import Variable, certain, clients, inherit, results, substitute, toposort
from ..ops.control import Identity
from ..ops.decompositions import Cholesky, Det, Eigh, MatrixInverse, MatrixPinv, Solve
from ..ops.elemwise import Elemwise, cast, zeros_like
from ..ops.index import Subtensor
from ..ops.linalg import BatchedDot, Dot
from ..ops.reduce import ArgReduce, Reduce, with_axes
from ..ops.shape import (
    BroadcastTo,
    DimShuffle,
    Reshape,
    Specify,
    broadcast_to,
    dims,
    first_rows,
    join,
    specify,
)
from ..ops.softmax import LogSoftmax, Softmax
from ..ops.sorting import ArgSort, Sort
from ..record import replace
from ..rewrite import rewrite
from ..rules.shapes import SHAPES
from ..rules.stability import STABILITY
from ..types import TupleType

if TYPE_CHECKING:
    from .op import Scan, Step

# What is better read again than computed again. The rest is computed element by element, or is a
# loop of its own, which keeps its history to itself.
_COSTLY = (
    Dot, BatchedDot, Reduce, ArgReduce, Softmax, LogSoftmax, Sort, ArgSort,
    MatrixInverse, MatrixPinv, Det, Cholesky, Solve, Eigh,
)  # fmt: skip

_CANONICAL = SHAPES + STABILITY


class History:
    """The values of the forward steps that backward values read, as rows of seqs.

    Saved are the carries and, as the loop's memory says, what is costly to compute or all that is
    read; the rest is computed again from them. A carry's values on entry are its initial value
    followed by the trace of its new values. A trace that the forward loop lacks is added: the
    loop with it is another node, which the rules merge with the first.
    """

    def __init__(self, op: Scan, node: Variable, values: Sequence[Variable]) -> None:
        step = op.step
        self.op, self.step, self.o = op, step, op.split(node.inputs)
        # A value and its logarithm, say, are found before a value is cut off from what it is of.
        values = rewrite(list(values), _CANONICAL)
        own = [x for v in toposort(step.outputs) for x in results(v)]
        own += step.values  # which stand for what becomes equal to them
        pairs = zip(rewrite(own, _CANONICAL), own)
        self.made = {v: x for v, x in pairs if v.inputs}  # as in `values`: as in the step
        kept = self._kept(values)
        needed = set(toposort(values, kept))
        # a carry's new value is saved with its history, so it is not computed again
        heads = [self._head(step, j) for j, c in enumerate(step.carries) if c in needed]
        # (a head that is a parameter stands in a ring of carries that swap places)
        heads = [v for v in heads if v in step.carries or v.inputs]
        wanted = [*heads, *(x for v, x in kept.items() if v in needed)]
        extra = dict.fromkeys(v for v in wanted if v not in step.traces)
        if extra:
            step = replace(step, traces=(*step.traces, *extra))
            op = replace(op, step=step)
            node = inherit(op(*node.inputs), node)
        r = op.results(node)
        self.step = step
        self.steps = self.o.n if step.stop is None else r.steps
        self.traced = dict(zip(reversed(step.traces), reversed(r.traces)))
        self.saved: dict[Variable, Variable] = {}  # a value of the step -> its placeholder
        self.rows: dict[Variable, Variable] = {}  # placeholder -> rows
        for v, x in kept.items():
            if v in needed:
                self._save(v, self.traced[x], v.name or x.name)
        still_read = set(toposort(substitute(values, self.saved)))
        for j, c in enumerate(step.carries):
            if c in still_read:
                new = step.new[j].name
                self._save(c, self._entry(j), c.name or (new and f"{new}_tm1"))
        self.values = substitute(values, self.saved)

    def _save(self, v: Variable, rows: Variable, name: str | None) -> None:
        self.saved[v] = v.type(name)
        self.rows[self.saved[v]] = rows

    # ---- what is saved ----------------------------------------------------------------------

    def _kept(self, values: Sequence[Variable]) -> dict[Variable, Variable]:
        """What is read rather than computed again, where the values need it: the new carries and
        the traces, and what spares them all that is costly, or anything. With what it is in the
        step."""
        kept = {v: x for v, x in self.made.items() if x in self.step.values}
        saves = self.op.memory.saves
        if saves == "carries":
            return kept
        found = self._savable()
        if saves == "everything":
            return kept | {v: x for v, x in self.made.items() if not _is_view(v) and found(v)}
        while True:
            costly = [v for v in toposort(values, kept) if v not in kept and _is_costly(v)]
            last = next((v for v in reversed(costly) if found(v)), None)
            if last is None:
                return kept
            saved = _read_of(last, clients(values, kept), found)
            kept |= {v: self.made[v] for v in saved}

    def _savable(self) -> Callable[[Variable], bool]:
        """Whether a trace can hold a value: every step computes it, it changes, and it is always
        of one shape."""
        sure = {x for v in certain(self.step.outputs) for x in results(v)}
        changing = {*self.step.seqs, *self.step.carries}
        for v in toposort(self.step.outputs):
            if any(i in changing for i in v.inputs):
                changing |= {v, *results(v)}

        @functools.cache
        def found(v: Variable) -> bool:
            x = self.made.get(v)
            return x in sure and x in changing and self.op.sizes_outside(x, self.o) is not None

        return found

    @staticmethod
    def _head(step: Step, j: int) -> Variable:
        """The value that enters carry j's delay line."""
        seen = {j}
        while step.new[j] in step.carries:
            j = step.carries.index(step.new[j])
            if j in seen:  # carries that only swap places
                break
            seen.add(j)
        return step.new[j]

    # ---- its rows ---------------------------------------------------------------------------

    def _entry(self, j: int) -> Variable:
        """The values of carry j on entry to each step."""
        step, new = self.step, self.step.new[j]
        if new in self.traced:
            after = self.traced[new]
        elif new in step.carries:
            after = self._entry(step.carries.index(new))
        elif new in step.seqs:
            after = self.o.seqs[step.seqs.index(new)]
        else:  # a const or a constant
            outer = self.o.consts[step.consts.index(new)] if new in step.consts else new
            after = broadcast_to(outer, [self.steps, *dims(outer)])
        rows = first_rows(join(0, with_axes(self.o.inits[j], [0]), after), self.steps)
        return specify(rows, (None, *step.carries[j].type.shape))


def _is_view(v: Variable) -> bool:
    return isinstance(v.op, Specify | DimShuffle | Reshape | Subtensor | BroadcastTo)


def _is_costly(v: Variable) -> bool:
    node = v.inputs[0] if v.inputs and isinstance(v.inputs[0].type, TupleType) else v
    return isinstance(node.op, _COSTLY)


def _read_of(
    v: Variable, users: Mapping[Variable, Sequence[Variable | None]],
    savable: Callable[[Variable], bool],
) -> list[Variable]:  # fmt: skip
    """What is saved of a costly value: where all that reads it is one value that is no larger
    (the sum that it is a term of, a function of that), or parts that do not overlap, those."""
    parts = [u for u in users[v] if u is not None and savable(u)]
    if len(parts) < len(users[v]):
        return [v]
    if (len(parts) == 1 and _is_no_larger(parts[0], v)) or _are_apart(parts):
        return [x for u in parts for x in _read_of(u, users, savable)]
    return [v]


def _is_no_larger(u: Variable, v: Variable) -> bool:
    """Whether u, computed from v, is of v's shape, or of as many elements."""
    if isinstance(u.op, Specify | DimShuffle | Reshape):
        return True
    return (
        isinstance(u.op, Elemwise | Identity | Softmax | LogSoftmax)
        and u.type.broadcastable == v.type.broadcastable
        and np.dtype(u.dtype).itemsize <= np.dtype(v.dtype).itemsize
    )


def _are_apart(parts: Sequence[Variable]) -> bool:
    """Whether the parts are slices along one axis that do not overlap."""
    found = [u.op.fixed_slice for u in parts if isinstance(u.op, Subtensor)]
    known = sorted(b for b in found if b is not None)
    return len(known) == len(parts) and all(
        a[0] == b[0] and a[2] <= b[1] for a, b in itertools.pairwise(known)
    )


def like(g: Variable | None, x: Variable) -> Variable:
    """A cotangent of x, zeros for None, with what is known of x: its sizes, and its dtype where
    that is a float."""
    if g is None:
        return zeros_like(x)
    if x.type.is_float and g.dtype != x.dtype:
        g = cast(g, x.dtype)
    return specify(g, x.type.shape)


def grad_of(name: str | None) -> str | None:
    """What the cotangent of a value of this name is called: h_grad of h[t-1]."""
    return name and f"{name.partition('[')[0]}_grad"
