"""What the rules share: a Scan in the place of another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...graph import (
    Variable,
    inherit,
    made_for,
)
from ...ops.index import Subtensor
from ...ops.shape import BroadcastTo, DimShuffle, Specify
from ...record import replace
from ..op import Operands, Results, Scan, Step

Found = Sequence[Variable | None]  # what stands for each result; None for one that is not read


def applied(v: Variable, step: Step, o: Operands) -> Results:
    """A Scan with another step and operands in the place of v: the step's parameters may be any
    variables."""
    op = replace(scan_op(v), step=step.closed())
    with made_for(v):
        node = op(*o.all)
    inherit(node, v)
    return op.results(node)


def scan_op(v: Variable) -> Scan:
    assert isinstance(v.op, Scan)
    return v.op


def placeholder(d: Variable) -> Variable:
    """A parameter for a value of the step, under its name; of a view, under that of what is
    viewed, so that a kernel's text says what it reads."""
    v, end = d, ""
    while v.name is None and isinstance(v.op, Specify | DimShuffle | Subtensor | BroadcastTo):
        if isinstance(v.op, DimShuffle) and v.op.pattern == (1, 0):
            end += "_T"
        v = v.inputs[0]
    return d.type(v.name and f"{v.name}{end}")


def with_positions(
    v: Variable, r: Results, finals: Mapping[int, int], traces: Mapping[int, int]
) -> list[Variable | None]:
    """v's results by the positions that they have in the new loop's."""
    old = scan_op(v).step
    return [
        *(r.finals[finals[j]] if j in finals else None for j in range(len(old.carries))),
        *(r.traces[traces[i]] if i in traces else None for i in range(len(old.traces))),
        r.steps,
    ]


def positions(count: int) -> dict[int, int]:
    return {i: i for i in range(count)}


def same(v: Variable, r: Results) -> Found:
    step = scan_op(v).step
    return with_positions(v, r, positions(len(step.carries)), positions(len(step.traces)))


def pick(items: Sequence[Any], positions: Iterable[int]) -> tuple[Any, ...]:
    return tuple(items[i] for i in positions)
