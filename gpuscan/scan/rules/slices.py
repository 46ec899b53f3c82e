"""Slices pushed through products and elementwise, so that the gates of a cell share one index
space."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from ...graph import (
    Variable,
    clients,
    made_for,
    substitute,
    toposort,
)
from ...ops.elemwise import Elemwise
from ...ops.index import Subtensor
from ...ops.indexing import user_index
from ...ops.linalg import Dot
from ...ops.patterns import FULL, Slice
from ...ops.scalar import add
from ...ops.shape import (
    specify,
)
from ...record import record

Bound = Variable | int | None


@record
class _Part:
    """x[start:stop] along one axis."""

    axis: int
    start: Bound
    stop: Bound

    @property
    def is_fixed(self) -> bool:
        return not isinstance(self.start, Variable) and not isinstance(self.stop, Variable)


def push_slices(outputs: Sequence[Variable]) -> list[Variable]:
    """(h @ U)[:, a:b] is h @ U[:, a:b], so that gates share one index space and U's parts are
    cut once before the loop. Pushed where all of a product (or of a sum of products) is read
    through such slices, and through elementwise where they do not overlap."""
    while True:
        users = clients(outputs)
        mapping: dict[Variable, Variable] = {}
        for v in toposort(outputs):
            part = _part(v)
            if part is not None and _can_be_cut(v.inputs[0], part.axis, users):
                with made_for(v):
                    mapping[v] = _pushed(v, part.axis)
        if not mapping:
            return list(outputs)
        # innermost first: a pushed slice may itself be sliced again in the next round
        outputs = substitute(outputs, mapping)


def _part(v: Variable) -> _Part | None:
    """v as a slice along one axis alone."""
    if not isinstance(v.op, Subtensor):
        return None
    cut = [axis for axis, e in enumerate(v.op.pattern) if e != FULL]
    if len(cut) != 1:
        return None
    match v.op.pattern[cut[0]]:
        case Slice(step=None | 1):
            index = user_index(v)[cut[0]]
            return _Part(cut[0], 0 if index.start is None else index.start, index.stop)
    return None


def _can_be_cut(
    x: Variable, axis: int, users: Mapping[Variable, Sequence[Variable | None]]
) -> bool:
    """Whether all that reads x are slices along the axis that may as well be slices of what x is
    computed from."""
    if not isinstance(x.op, Elemwise | Dot):
        return False
    parts = [None if u is None else _part(u) for u in users[x]]
    known = [p for p in parts if p is not None and p.axis == axis]
    if len(known) < len(parts):
        return False
    is_product = axis == x.ndim - 1 and _is_product(x, users)
    if is_product and all(p.is_fixed for p in known):
        return True
    return (is_product or isinstance(x.op, Elemwise)) and _are_apart(known)


def _is_product(x: Variable, users: Mapping[Variable, Sequence[Variable | None]]) -> bool:
    """A product, or a sum that holds one which nobody else reads."""
    if isinstance(x.op, Dot):
        return x.inputs[1].ndim == 2
    return (
        isinstance(x.op, Elemwise)
        and x.op.scalar is add
        and any(len(users[i]) == 1 and _is_product(i, users) for i in x.inputs)
    )


def _are_apart(parts: Sequence[_Part]) -> bool:
    """Whether the parts do not overlap: each ends where the next starts, or, of positions from the
    front, before that."""
    bounds = [(p.start, p.stop) for p in parts]
    fixed = [(a, math.inf if b is None else b) for a, b in bounds
             if isinstance(a, int) and not isinstance(b, Variable)]  # fmt: skip
    if len(fixed) == len(bounds) and min(map(min, fixed)) >= 0:
        return all(a[1] <= b[0] for a, b in itertools.pairwise(sorted(fixed)))
    stop_of = dict(bounds)
    first = [start for start in stop_of if start not in stop_of.values()]
    if len(stop_of) < len(bounds) or len(first) != 1:
        return False
    at: Bound = first[0]
    while at in stop_of:
        at = stop_of.pop(at)
    return not stop_of


def _pushed(v: Variable, axis: int) -> Variable:
    """v, a slice of x, computed from slices of what x is computed from."""
    (x, *bounds), cut = v.inputs, v.op
    if isinstance(x.op, Dot):
        a, b = x.inputs
        pattern = (*[FULL] * (b.ndim - 1), v.op.pattern[-1])  # type: ignore[attr-defined]
        return specify(Dot()(a, Subtensor(pattern)(b, *bounds)), v.type.shape)
    parts = [
        i if i.type.shape[axis] == 1 and x.type.shape[axis] != 1 else cut(i, *bounds)
        for i in x.inputs
    ]
    return specify(x.op(*parts), v.type.shape)
