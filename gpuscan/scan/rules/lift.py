"""Values of a step as values over all steps: `v[t]` for every t at once, outside the loop."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from ...graph import Constant, Variable, inherit, made_for, toposort
from ...ops.shape import broadcast_to, dims
from ...types import TensorType, TupleType


class Lift:
    """The part of a step that is computed over all steps at once.

    rows: values of the step whose values over the steps are known, as stacks of n rows.
    fixed: values of the step that are the same in every step, and their values outside.
    A value is lifted where its op has a batching rule and its inputs are lifted.
    """

    def __init__(
        self, rows: Mapping[Variable, Variable], fixed: Mapping[Variable, Variable], n: Variable
    ) -> None:
        self.rows = dict(rows)
        self.fixed = dict(fixed)
        self.n = n

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
                self.fixed[v] = inherit(Variable(v.op, inputs), v)
            elif isinstance(v.type, TensorType):
                found = v.op.batch(inputs, batched, self.n)
                if found is not None:
                    assert found.ndim == v.ndim + 1, f"{v.op} batched to {found.type} from {v.type}"
                    self.rows[v] = inherit(found, v)

    def rows_of(self, v: Variable) -> Variable:
        """The lifted value as a stack of n rows."""
        if v in self.rows:
            return self.rows[v]
        return broadcast_to(self.fixed[v], [self.n, *dims(self.fixed[v])])

    def __contains__(self, v: Variable) -> bool:
        return v in self.rows or v in self.fixed


def clients(outputs: Sequence[Variable]) -> dict[Variable, list[Variable | None]]:
    """Per node what reads it: nodes, and None for each time it is an output."""
    found: dict[Variable, list[Variable | None]] = {}
    for v in toposort(outputs):
        for i in dict.fromkeys(v.inputs):
            found.setdefault(i, []).append(v)
    for v in outputs:
        found.setdefault(v, []).append(None)
    return found


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
