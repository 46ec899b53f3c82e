"""Ops that talk to other processes, which have to run the same ones in the same order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from ..graph import (
    Op,
    Variable,
    certain,
    inherit,
    made_for,
    results,
    substitute,
    toposort,
)


class Ordered(Op):
    """An op that all processes of a job run together: equally often, and in one order. It has
    several results, of which the last, an int64 scalar, says that it has run; the same of ops that
    run before it may be added to its inputs, which changes nothing else.

    number   the place in the program at which it was written: in this order they run
    """

    has_effect: ClassVar[bool] = True  # never folded, and never moved into a loop or out of one
    number: int

    def on(self, device: Any, node: Variable) -> Op | None:
        """The op in its place on a CUDA device; None where it reads NumPy's arrays."""
        return None


def in_order(outputs: Sequence[Variable]) -> list[Variable]:
    """The outputs, computed so that what is ordered runs in the order of its numbers, but for what
    it is computed from. How a graph is walked depends on how it was rewritten, which constants
    change that differ between processes. In a branch of a choice an op runs after those before it;
    those behind it don't wait for what may never run."""
    order = toposort(outputs)
    waiting = [v for v in order if isinstance(v.op, Ordered)]
    if len(waiting) < 2:
        return list(outputs)
    sure = certain(outputs)
    needs = {v: _among(waiting, v.inputs) for v in waiting}
    new: dict[Variable, Variable] = {}
    last: Variable | None = None
    while waiting:
        ready = [v for v in waiting if needs[v] <= new.keys()]
        v = min(ready, key=lambda v: v.op.number)  # type: ignore[attr-defined]
        waiting.remove(v)
        inputs = substitute(v.inputs, new)
        if last is not None:
            inputs.append(results(last)[-1])
        with made_for(v):
            new[v] = inherit(Variable(v.op, inputs), v)
        if v in sure:
            last = new[v]
    return substitute(outputs, new)


def _among(some: Iterable[Variable], values: Iterable[Variable]) -> set[Variable]:
    """Those of the nodes that the values are computed from."""
    return set(toposort(values)).intersection(some)
