"""Sizes without values: the size of a result from the sizes of what it is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..graph import Item, Variable
from ..ops.shape import Dim, Specify
from ..rewrite import Rules, rewrite, rule


@rule(Dim)
def size_of_result(v: Variable) -> Variable | None:
    """The size of an axis of an op's result, where the op says it from its inputs."""
    (x,), axis = v.inputs, v.op.axis  # type: ignore[attr-defined]
    if isinstance(x.op, Specify) and x.type.shape[axis] is None:
        return Dim(axis)(x.inputs[0])
    if isinstance(x.op, Item):
        node = x.inputs[0]
        all_sizes: Any = node.op.sizes(node.inputs, node)
        sizes: Any = all_sizes[x.op.index] if all_sizes else None
    else:
        sizes = x.op.sizes(x.inputs, x) if x.inputs else None
    return sizes[axis] if sizes else None


SHAPES = Rules(size_of_result)


def pushed_dims(sizes: Sequence[Variable]) -> list[Variable]:
    """Sizes in terms of the leaves, wherever the ops between say how."""
    return rewrite(list(sizes), SHAPES)
