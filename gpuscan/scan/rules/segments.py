"""Loops in segments: the forward loop that a gradient has made of one stands for it, and how many
bytes the steps of a segment take is known when all other rules have run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ...graph import Variable, clients, constant_leaf, results, substitute, toposort
from ...ops.elemwise import Elemwise
from ...ops.index import VIEWS, Subtensor
from ...ops.shape import BroadcastTo, DimShuffle, Reshape, dim, dims, specify
from ...rewrite import Rules, rewrite
from ...rules.shapes import pushed_dims
from ...types import TensorType, TupleType
from ..checkpoints import Segments, bytes_of
from ..memory import SegmentLength
from ..op import Scan
from .build import scan_op
from .last_row import last_carry

_LAST = Rules(last_carry)


def in_segments(outputs: Sequence[Variable]) -> list[Variable]:
    """The outputs with each loop that is there by segments too read from that, so that its steps
    run no third time; what reads a carry's last row, before its rows are."""
    if not any(isinstance(v.op, Scan) and v.op.segments_of for v in toposort(outputs)):
        return list(outputs)
    outputs = rewrite(list(outputs), _LAST)
    loops = [v for v in toposort(outputs) if isinstance(v.op, Scan)]
    by_segments: dict[tuple[Scan, tuple[Variable, ...]], Variable] = {}
    for v in loops:
        if (op := scan_op(v).segments_of) is not None:
            by_segments[op, v.inputs[2:-1]] = v
    mapping: dict[Variable, Variable] = {}
    for v in loops:
        op = scan_op(v)
        o = op.split(v.inputs)
        node = by_segments.get((op, (*o.inits, *o.seqs, *o.consts, o.n)))
        if node is not None and op.memory.in_segments:
            found = Segments(op, o, node.inputs[-1]).results(node)
            mapping |= dict(zip(results(v), found))
    return substitute(outputs, mapping) if mapping else list(outputs)


def with_lengths(outputs: Sequence[Variable]) -> list[Variable]:
    """The outputs with segments of lengths that follow from what their steps hold, forwards and
    backwards: the memory of the one is not always right for the other."""
    held: dict[Variable, Variable] = {}
    for v in toposort(outputs):
        if isinstance(v.op, Scan) and v.op.segments_of is not None:
            lengths = [x for x in toposort([v.inputs[0]]) if isinstance(x.op, SegmentLength)]
            for length in lengths[-1:]:  # those before are of loops that it follows
                found = _bytes_of_a_step(v, length)
                held[length] = held[length] + found if length in held else found
    mapping = {x: x.op(*x.inputs[:2], step) for x, step in held.items()}
    return substitute(outputs, mapping) if mapping else list(outputs)


def _bytes_of_a_step(v: Variable, length: Variable) -> Variable:
    """How many bytes more the loops in a step of v hold, where a segment is one step longer."""
    op = scan_op(v)
    step, o = op.step, op.split(v.inputs)
    rows = TensorType("int8", (None,))()
    lengths = [x.inputs[0] for x in toposort(step.outputs) if isinstance(x.op, Scan)]
    mapping = {n: dim(rows, 0) for n in lengths if step.computes(n)}
    first = [specify(x[0], p.type.shape) for p, x in zip(step.seqs, o.seqs)]
    mapping |= dict(zip(step.params, [*first, *o.inits, *o.consts]))
    arrays = substitute(list(_in_memory(step.outputs)), mapping)
    sizes = pushed_dims([bytes_of(x.dtype, dims(x)) for x in arrays])
    total: Variable = constant_leaf(np.asarray(0, "int64"))
    for size in sizes:
        if not any(isinstance(x.op, Scan) for x in toposort([size])):  # known before it runs
            total = total + size
    one, two = (constant_leaf(np.asarray(k, "int64")) for k in (1, 2))
    (less,) = substitute([total], {dim(rows, 0): one, length: one})
    (more,) = substitute([total], {dim(rows, 0): two, length: two})
    return more - less


def _in_memory(outputs: Sequence[Variable]) -> Iterable[Variable]:
    """The values that become arrays of their own: all but views, and elementwise ones that other
    elementwise ones alone read."""
    users = clients(outputs)
    for v in toposort(outputs):
        if not v.inputs or isinstance(v.type, TupleType) or isinstance(v.op, VIEWS):
            continue
        if isinstance(v.op, Reshape) and not _is_turned(v.inputs[0]):
            continue
        if isinstance(v.op, Elemwise) and all(
            u is not None and isinstance(u.op, Elemwise) for u in users[v]
        ):
            continue
        yield v


def _is_turned(v: Variable) -> bool:
    """Whether v is a view in another order than memory has it."""
    while isinstance(v.op, VIEWS):
        if isinstance(v.op, BroadcastTo | DimShuffle):
            return True
        if isinstance(v.op, Subtensor):
            steps = (getattr(entry, "step", None) for entry in v.op.pattern)
            if any(step not in (None, 1) for step in steps):
                return True
        v = v.inputs[0]
    return False
