"""The last row of a trace, without the trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...graph import (
    Constant,
    Item,
    Variable,
    constant_leaf,
    substitute,
    toposort,
)
from ...ops.control import Require
from ...ops.elemwise import Elemwise, scalars
from ...ops.index import Subtensor
from ...ops.patterns import HOLE, At
from ...ops.scalar import lt, sub
from ...ops.shape import (
    Specify,
    broadcast_to,
    number,
    specify,
)
from ...record import replace
from ...rewrite import rule
from ..op import Scan
from .build import applied, scan_op

_INT64 = Elemwise(scalars["cast_int64"])


@rule(Subtensor)
def last_row(v: Variable) -> Variable | None:
    """trace[-1], or trace[steps - 1], of a carry's values is the final carry, and of another value
    it is computed from the final carries, or carried along: then nobody reads the trace. Of a loop
    that may run no steps it is that after a check."""
    return _last(v, (_final, _carried))


@rule(Subtensor)
def last_carry(v: Variable) -> Variable | None:
    """The same where the loop stays as it is."""
    return _last(v, (_final,))


def _last(
    v: Variable, ways: Sequence[Callable[[Variable, Variable], Variable | None]]
) -> Variable | None:
    pattern, (trace, *operands) = v.op.pattern, v.inputs  # type: ignore[attr-defined]
    rows = trace
    while isinstance(trace.op, Specify):
        trace = trace.inputs[0]
    if not isinstance(trace.op, Item) or not isinstance(trace.inputs[0].op, Scan):
        return None
    loop = trace.inputs[0]
    if pattern[:1] == (At(HOLE),) and _is_end(operands[0], loop):
        return _last(Subtensor((At(-1), *pattern[1:]))(rows, *operands[1:]), ways)
    if pattern[:1] == (At(-1),) and len(pattern) > 1:  # a part of it
        row = _last(Subtensor(pattern[:1])(rows), ways)
        if row is None:
            return None
        return specify(Subtensor(pattern[1:])(row, *operands), v.type.shape)
    if not v.op.is_last_row:  # type: ignore[attr-defined]
        return None
    op = scan_op(loop)
    if trace not in op.results(loop).traces:
        return None
    row = op.step.traces[trace.op.index - len(op.step.carries)]
    last = next((x for way in ways if (x := way(loop, row)) is not None), None)
    if last is None:
        return None
    last = specify(last, v.type.shape)
    n = op.split(loop.inputs).n
    if isinstance(n, Constant) and int(n.data) > 0:
        return last
    message = f"index -1 is out of bounds: scan '{op.name or 'scan_fn'}' ran no step"
    return Require(message, "IndexError")(last, lt(0, n))


def _is_end(position: Variable, loop: Variable) -> bool:
    """Whether this is the position of a trace's last row: one less than the number of steps."""
    op = scan_op(loop)
    steps = op.split(loop.inputs).n if op.step.stop is None else op.results(loop).steps
    at, n = (x.inputs[0] if x.op == _INT64 else x for x in (position, steps))
    return at.op == Elemwise(sub) and at.inputs[0] is n and number(at.inputs[1]) == 1


def _final(loop: Variable, row: Variable) -> Variable | None:
    """A value of the last step, from the final carries and the last rows of sequences."""
    op = scan_op(loop)
    step, o, r = op.step, op.split(loop.inputs), op.results(loop)
    steps = o.n if step.stop is None else r.steps
    mapping = {x: specify(f, x.type.shape) for x, f in zip(step.new, r.finals)}
    mapping |= dict(zip(step.consts, o.consts))
    mapping |= {p: specify(x[steps - 1], p.type.shape) for p, x in zip(step.seqs, o.seqs)}
    walked = toposort([row], mapping)
    if any(c in walked and c not in mapping for c in step.carries):
        return None
    if any(getattr(x.op, "has_effect", False) for x in walked):
        return None
    return substitute([row], mapping)[0]


def _carried(loop: Variable, row: Variable) -> Variable | None:
    """A value of the last step, as the final value of a carry that nothing reads."""
    op = scan_op(loop)
    step, o = op.step, op.split(loop.inputs)
    sizes = op.sizes_outside(row, o)
    if step.stop is not None or sizes is None:
        return None
    zeros = broadcast_to(constant_leaf(np.zeros((), row.dtype)), sizes)
    longer = replace(step, carries=(*step.carries, row.type()), new=(*step.new, row))
    r = applied(loop, longer, replace(o, inits=(*o.inits, specify(zeros, row.type.shape))))
    return r.finals[-1]
