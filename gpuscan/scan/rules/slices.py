"""Slices pushed through products, so that the gates of a cell share one index space."""

from __future__ import annotations

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
from ...ops.linalg import Dot
from ...ops.patterns import FULL, Slice
from ...ops.scalar import add
from ...ops.shape import (
    specify,
)


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
