"""New values of shared variables: what a scan returns, and what functions apply by themselves."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..graph import Variable, leaves, substitute, toposort
from ..shared import SharedVariable
from .op import Scan


class OrderedUpdates(OrderedDict[SharedVariable, Any]):
    """Shared variables and the expressions of their new values, in order.

    A key that is not a shared variable is a TypeError; a second, different value for a key
    through `update` or `+` is a KeyError.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        for source in (*args, kwargs):
            self.update(source)

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, SharedVariable):
            raise TypeError(f"OrderedUpdates keys must inherit from SharedVariable, got {key!r}")
        super().__setitem__(key, value)

    def update(self, other: Any = None) -> None:
        if other is None:
            return
        for key, value in other.items() if isinstance(other, Mapping) else list(other):
            if key in self and self[key] is not value:
                raise KeyError("Collision", key)
            self[key] = value

    def __add__(self, other: Any) -> OrderedUpdates:
        both = OrderedUpdates(self)
        both.update(other)
        return both

    def __radd__(self, other: Any) -> OrderedUpdates:
        both = OrderedUpdates(other)
        both.update(self)
        return both


def advanced_by_scans(outputs: Iterable[Variable]) -> list[SharedVariable]:
    """The shared variables that scans among the outputs' nodes, and scans in these, advance."""
    found: dict[SharedVariable, None] = {}
    for v in toposort(outputs):
        if isinstance(v.op, Scan):
            if v._tag is not None:
                found.update(dict.fromkeys(getattr(v._tag, "updates", ())))
            found.update(dict.fromkeys(advanced_by_scans(v.op.step.outputs)))
    return list(found)


def default_updates(
    outputs: Sequence[Variable],
    explicit: Iterable[Variable] = (),
    stop: Iterable[Variable] = (),
    replaced: Mapping[Variable, Variable] | None = None,
) -> OrderedUpdates:
    """The updates that shared variables among the leaves bring along (`default_update`: random
    states), and those that these need in turn. One that a scan advances is not among them: the
    scan returns its update. In the updates too stands what is `replaced`."""
    found = OrderedUpdates()
    grew = True
    while grew:
        roots = [*outputs, *found.values()]
        done = {*explicit, *found, *advanced_by_scans(roots)}
        new = [
            v
            for v in leaves(roots, stop)
            if isinstance(v, SharedVariable) and v.default_update is not None and v not in done
        ]
        values = [v.default_update for v in new if v.default_update is not None]
        found.update(zip(new, substitute(values, replaced) if replaced else values))
        grew = bool(new)
    return found
