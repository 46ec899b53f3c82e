"""What a call selects of its inputs by numbers that the host knows, as the rows of a minibatch. It
is done first, so that what follows is the same work whichever were selected: it goes by the
selected arrays' shapes, and by the few numbers that are left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .evaluate import Around, Program
from .graph import Constant, Input, Variable, toposort
from .ops.index import Subtensor
from .ops.shape import Dim
from .record import record


@record
class Selection:
    """A program in two: `first` selects, of all inputs, and `rest` takes the inputs that it needs
    itself, in their order, and what was selected. Inputs that are `idle` do nothing in `rest` but
    for the words of an error."""

    first: Program
    rest: Program
    kept: tuple[int, ...]
    idle: frozenset[int]  # positions in what `rest` takes

    def selected(self, inputs: Sequence[Any]) -> list[Any]:
        """What `rest` takes."""
        return [*(inputs[k] for k in self.kept), *self.first(*inputs)]


def selection(
    inputs: Sequence[Variable], outputs: Sequence[Variable],
    written: Mapping[Variable, Variable], around: Around | None = None,
) -> Selection | None:  # fmt: skip
    """How a program selects; None where no number of its inputs does that alone. outputs: as they
    run on the device; around: for the rest, as `Program` has it."""
    numbers = {v for v in inputs if isinstance(v.op, Input) and v.type.is_integer_scalar}
    moved = _moved(inputs, outputs, numbers)
    rest = [v for v in toposort(outputs, inputs) if v not in moved]
    found = dict.fromkeys([*(x for v in rest for x in v.inputs), *outputs])
    selected = [v for v in found if v in moved and v not in numbers]
    order = toposort(outputs, [*inputs, *selected])
    read = set(outputs).union(*(_read(v) for v in order if v not in moved and v not in inputs))
    if not selected or numbers <= read:
        return None
    there = set(order)
    kept = [k for k, v in enumerate(inputs) if v in there]
    idle = frozenset(i for i, k in enumerate(kept) if inputs[k] not in read)
    given = [*(inputs[k] for k in kept), *selected]
    return Selection(
        Program(inputs, selected, written), Program(given, outputs, written, around),
        tuple(kept), idle,
    )  # fmt: skip


def _moved(
    inputs: Sequence[Variable], outputs: Sequence[Variable], numbers: set[Variable]
) -> set[Variable]:
    """The numbers, and what follows from them without a kernel: other numbers, and views of
    inputs."""
    ready, moved = set(inputs), set(numbers)
    for v in toposort(outputs, inputs):
        if v in ready:
            continue
        op = getattr(v.op, "definition", v.op)
        if hasattr(op, "scalar") and v.type.is_integer_scalar:
            known = all(x.type.is_integer_scalar for x in v.inputs)
        else:
            known = isinstance(op, Subtensor | Dim) or isinstance(v, Constant)
        if known and ready.issuperset(v.inputs):
            ready.add(v)
            if not moved.isdisjoint(v.inputs):
                moved.add(v)
    return moved


def _read(v: Variable) -> Sequence[Variable]:
    """The inputs that a node goes by when nothing is wrong."""
    return v.inputs[: len(v.inputs) - getattr(v.op, "others", 0)]
