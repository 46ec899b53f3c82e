"""Sums over the steps, and the last rows, without the trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...graph import Constant, Variable, constant_leaf, inherit, made_for
from ...ops.elemwise import cast
from ...ops.index import Subtensor
from ...ops.patterns import FULL, Slice, holes
from ...ops.reduce import Reduce
from ...ops.scalar import minimum
from ...ops.shape import Specify, broadcast_to, first_rows, specify
from ...record import replace
from ...types import TensorType
from .behind import loop_needs
from .build import Found, applied, scan_op

Readers = Mapping[Variable, Sequence[Variable | None]]
Unstored = tuple[Found, dict[Variable, Variable]]  # for the loop's results, and for what reads them


def unstored(v: Variable, node: Variable, readers: Readers) -> Unstored | None:
    """A loop without traces that are read for a sum, or for their last rows, alone. v: as it is
    read; node: as it is built by now."""
    if scan_op(v).segments_of is not None:  # its steps are counted otherwise
        return None
    traces = scan_op(v).results(v).traces
    read = {i: found for i, x in enumerate(traces) if (found := _read_by(x, readers)) != []}
    return _summed(node, read) or _last_rows(node, read)


def _read_by(x: Variable, readers: Readers) -> list[Variable] | None:
    """What reads a trace, through what is said of its sizes; None where it is an output."""
    found: list[Variable] = []
    for u in readers.get(x, ()):
        inside = None
        if u is not None:
            inside = _read_by(u, readers) if isinstance(u.op, Specify) else [u]
        if inside is None:
            return None
        found += inside
    return found


def _summed(node: Variable, read: Mapping[int, Any]) -> Unstored | None:
    """A trace that only its sums over the steps are read of, and that the loop computes anyway: a
    carry adds up, one of scalars in float64, as it adds one after the other (of float16, too)."""
    op = scan_op(node)
    step, o = op.step, op.split(node.inputs)
    needed = loop_needs(step)
    sums: list[tuple[Variable, Variable, Variable]] = []  # what is a sum, its carry, its row
    inits = []
    for i, users in read.items():
        row, sizes = step.traces[i], op.sizes_outside(step.traces[i], o)
        if not users or row not in needed or sizes is None or not all(map(_is_sum, users)):
            continue
        for u in users:
            dtype = u.dtype
            if u.type.is_float and (not row.ndim or dtype == "float16"):
                dtype = "float64"
            sums.append((u, TensorType(dtype, row.type.shape)(), row))
            zeros = broadcast_to(constant_leaf(np.zeros((), dtype)), sizes)
            inits.append(specify(zeros, row.type.shape))
    if not sums:
        return None
    longer = replace(
        step,
        carries=(*step.carries, *(p for _, p, _ in sums)),
        new=(*step.new, *(p + cast(row, p.dtype) for _, p, row in sums)),
    )
    r, k = applied(node, longer, replace(o, inits=(*o.inits, *inits))), len(step.carries)
    found = {u: specify(cast(x, u.dtype), u.type.shape) for (u, _, _), x in zip(sums, r.finals[k:])}
    return [*r.finals[:k], *r.traces, r.steps], found


def _is_sum(u: Variable) -> bool:
    return isinstance(u.op, Reduce) and u.op.kind == "sum" and u.op.axes == (0,)


def _last_rows(node: Variable, read: Mapping[int, Any]) -> Unstored | None:
    """Traces that are all read as trace[-k:]: the last steps are a loop of their own."""
    op = scan_op(node)
    o = op.split(node.inputs)
    users = [(i, u, _last_count(u)) for i, found in read.items() for u in found or [None]]
    if op.is_end or op.step.stop is not None or not users or not all(k for _, _, k in users):
        return None
    most = max(k for _, _, k in users)
    if isinstance(o.n, Constant) and int(o.n.data) < 2 * most:
        return None
    last = minimum(o.n, constant_leaf(np.asarray(most, "int64")))
    before = o.n - last
    first = applied(node, op.step, replace(o, n=before))
    with made_for(node):
        rest = [first_rows(x, o.n)[before:] for x in o.seqs]
        inits = [specify(x, p.type.shape) for x, p in zip(first.finals, op.step.carries)]
        then = replace(op, is_end=True)(last, *rest, *inits, *o.consts)
    r = op.results(inherit(then, node))
    found = {}
    for i, u, count in users:
        x, (_, *others) = r.traces[i], u.op.pattern
        if count < most:
            x = u.op(x)
        elif others:
            x = Subtensor((FULL, *others))(x)
        found[u] = specify(x, u.type.shape)
    return [*r.finals, *(None for _ in r.traces), o.n], found


def _last_count(u: Variable | None) -> int:
    """k where this reads x[-k:], or a part of that with positions that are known; else 0."""
    if u is not None and isinstance(u.op, Subtensor) and not holes(u.op.pattern):
        match u.op.pattern:
            case (Slice(int(start), None, None | 1), *_) if start < 0:
                return -start
    return 0
