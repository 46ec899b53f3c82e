"""Values of a step as values over all steps: `v[t]` for every t at once, outside the loop."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from ...graph import Constant, Variable, clients, constant_leaf, inherit, made_for, toposort
from ...ops.control import ifelse
from ...ops.index import Indexing
from ...ops.patterns import Array, At, axis_of
from ...ops.scalar import lt
from ...ops.shape import broadcast_to, dims
from ...types import TensorType, TupleType


class Lift:
    """The part of a step that is computed over all steps at once.

    rows: values of the step whose values over the steps are known, as stacks of n rows.
    fixed: values of the step that are the same in every step, and their values outside.
    A value is lifted where its op has a batching rule and its inputs are lifted.
    stops: the loop may stop before step n, so that a position read from a row may not be there.
    """

    def __init__(
        self, rows: Mapping[Variable, Variable], fixed: Mapping[Variable, Variable], n: Variable,
        stops: bool = False,
    ) -> None:  # fmt: skip
        self.rows = dict(rows)
        self.fixed = dict(fixed)
        self.n = n
        self.stops = stops

    def lift(self, values: Iterable[Variable], only: Collection[Variable] | None = None) -> None:
        """Lifts what can be of the values and what they are computed from (among `only`, if
        given); `rows` and `fixed` hold the results."""
        for v in toposort(values, [*self.rows, *self.fixed]):
            if v in self.rows or v in self.fixed:
                continue
            if isinstance(v, Constant):
                self.fixed[v] = v
            elif v.inputs and (only is None or v in only):
                self._lift_one(v)

    def _lift_one(self, v: Variable) -> None:
        if not all(i in self.rows or i in self.fixed for i in v.inputs):
            return
        if getattr(v.op, "has_effect", False):
            return
        batched = [i in self.rows for i in v.inputs]
        inputs = [self.rows[i] if b else self.fixed[i] for i, b in zip(v.inputs, batched)]
        with made_for(v):
            if not any(batched):
                self.fixed[v] = inherit(self._once(v, inputs), v)
            elif isinstance(v.type, TensorType) and not (
                self.stops and any(batched[1:]) and may_fail(v)
            ):
                found = v.op.batch(inputs, batched, self.n)
                if found is not None:
                    assert found.ndim == v.ndim + 1, f"{v.op} batched to {found.type} from {v.type}"
                    self.rows[v] = inherit(found, v)

    def _once(self, v: Variable, inputs: Sequence[Variable]) -> Variable:
        """v outside the loop. What may fail is left alone where no step runs."""
        once = Variable(v.op, inputs)
        if not may_fail(v) or (isinstance(self.n, Constant) and int(self.n.data) > 0):
            return once
        sizes = v.op.sizes(inputs, once)
        if sizes is None:
            return once
        nothing = broadcast_to(constant_leaf(np.zeros((), v.dtype)), sizes)
        chosen: Variable = ifelse(lt(0, self.n), once, nothing)
        return chosen

    def rows_of(self, v: Variable) -> Variable:
        """The lifted value as a stack of n rows."""
        if v in self.rows:
            return self.rows[v]
        return broadcast_to(self.fixed[v], [self.n, *dims(self.fixed[v])])

    def __contains__(self, v: Variable) -> bool:
        return v in self.rows or v in self.fixed


def may_fail(v: Variable) -> bool:
    """Whether v reads or writes a position that need not be there."""
    if not isinstance(v.op, Indexing):
        return False
    pattern, shape = v.op.pattern, v.inputs[0].type.shape
    for k, entry in enumerate(pattern):
        match entry:
            case Array():
                return True
            case At(i):
                size = shape[axis_of(pattern, k)]
                if size is None or not isinstance(i, int) or not -size <= i < size:
                    return True
    return False


def frontier(nodes: Collection[Variable], outputs: Sequence[Variable]) -> list[Variable]:
    """Those of the nodes that something outside of them reads."""
    users = clients(outputs)
    return [
        v
        for v in toposort(outputs)
        if v in nodes
        and not isinstance(v.type, TupleType)
        and any(u is None or u not in nodes for u in users[v])
    ]
