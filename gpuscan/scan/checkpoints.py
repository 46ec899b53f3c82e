"""A loop in segments: what it takes to run its steps backwards with few of their values held.

The forward loop becomes one over segments of so many steps, which holds the carries that enter
each: checkpoints. The backward loop runs over the segments from the last to the first: each runs
its steps again from its checkpoint, and then backwards, as a loop of its own. Both have ragged
rows, since the last segment may be shorter; where they stand in a trace of the loop over segments
zeros fill it up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph import Variable, constant_leaf
from ..ops.create import arange
from ..ops.indexing import set_subtensor
from ..ops.scalar import minimum
from ..ops.shape import (
    broadcast_to,
    dims,
    first_rows,
    product,
    reshape,
    specify,
)
from ..record import record, replace
from ..types import TensorType
from .history import grad_of, like
from .memory import Memory, SegmentLength

if TYPE_CHECKING:
    from .op import Operands, Results, Scan

_INT = TensorType("int64", ())


@record
class Part:
    """One segment in terms of a step of the loop over segments: that step's parameters, and the
    segment's own loop."""

    start: Variable
    length: Variable
    most: Variable  # steps of a segment
    shared: tuple[Variable, ...]  # parameters for what all segments read
    carries: tuple[Variable, ...]
    consts: tuple[Variable, ...]
    op: Scan
    node: Variable

    @property
    def results(self) -> Results:
        return self.op.results(self.node)

    def rows(self, x: Variable) -> Variable:
        """Those of the segment, of an array with a row a step."""
        return specify(first_rows(x[self.start :], self.length), (None, *x.type.shape[1:]))

    def filled(self, rows: Variable) -> Variable:
        """The segment's rows as one row of a trace."""
        zero = constant_leaf(np.zeros((), rows.dtype))
        filled = broadcast_to(zero, [self.most, *dims(rows)[1:]])
        return set_subtensor(filled[: self.length], rows)


class Segments:
    """The loops over the segments of a Scan with these operands."""

    def __init__(self, op: Scan, o: Operands, length: Variable | None = None) -> None:
        self.op, self.o = op, o
        if length is None:
            checkpoint: Variable = constant_leaf(np.asarray(0, "int64"))
            for v in o.inits:
                checkpoint = checkpoint + bytes_of(v.dtype, dims(v))
            # what a step takes is not known before the rules have run
            length = SegmentLength(op.memory, op.name)(o.n, checkpoint, checkpoint)
        self.length = length
        self.starts = arange(0, o.n, self.length)
        one = constant_leaf(np.asarray(1, "int64"))
        self.count = (o.n + (self.length - one)) // self.length
        self.consts = (*o.seqs, *o.consts, o.n, self.length)
        # the loop over the segments: it holds nothing of what is in one
        self.outer = replace(op, memory=Memory("carries"), segments_of=op, truncate=-1)

    def part(self) -> Part:
        """A segment, over new parameters."""
        start, n, most = _INT("start"), _INT("n"), _INT("most")
        step = self.op.step
        seqs = tuple(x.type(p.name) for p, x in zip(step.seqs, self.o.seqs))
        consts = tuple(x.type(p.name) for p, x in zip(step.consts, self.o.consts))
        carries = tuple(p.type(p.name) for p in step.carries)
        length = minimum(most, n - start)
        op = replace(self.op, memory=Memory(), truncate=-1)
        part = Part(start, length, most, (*seqs, *consts, n, most), carries, consts, op, length)
        rows = [part.rows(x) for x in seqs]
        return replace(part, node=op(length, *rows, *carries, *consts))

    def forward(self) -> Variable:
        """The node of the loop that stands for the Scan. Its traces are the carries that enter
        each segment, and the Scan's, filled up."""
        part = self.part()
        r = part.results
        step = replace(
            self.op.step, seqs=(part.start,), carries=part.carries, consts=part.shared,
            new=r.finals, traces=(*part.carries, *map(part.filled, r.traces)),
        )  # fmt: skip
        op = replace(self.outer, step=step.closed())
        return op(self.count, self.starts, *self.o.inits, *self.consts)

    def checkpoints(self, node: Variable) -> list[Variable]:
        """The carries that enter each segment."""
        op: Any = node.op
        return list(op.results(node).traces[: len(self.o.inits)])

    def results(self, node: Variable) -> list[Variable]:
        """The Scan's results."""
        op: Any = node.op
        r = op.results(node)
        traces = [
            specify(first_rows(_flat(x), self.o.n), (None, *v.type.shape))
            for x, v in zip(r.traces[len(self.o.inits) :], self.op.step.traces)
        ]
        return [*r.finals, *traces, self.o.n]

    def backward(
        self, checkpoints: Sequence[Variable], gs: Mapping[int, Variable],
        initial: Mapping[int, Variable], zeros: Mapping[int, Variable], rowed: Sequence[int],
    ) -> tuple[list[Variable], list[Variable]]:  # fmt: skip
        """The cotangents of carries and the sums of those of consts at the end, and the rows of
        those of sequences: of the carries in `initial`, from the cotangents of their final values
        on; of the consts in `zeros`, which the sums start from; of the sequences `rowed`. gs:
        the cotangents of traces."""
        part, step = self.part(), self.op.step
        k, a = len(step.carries), len(step.seqs)
        traced = {i: g.type(grad_of(step.traces[i - k].name)) for i, g in gs.items()}
        ct = {i: step.carries[i].type(grad_of(step.carries[i].name)) for i in initial}
        acc = {i: z.type(grad_of(step.consts[i].name)) for i, z in zeros.items()}
        given: list[Any] = [ct.get(i) for i in range(k)]
        given += [part.rows(traced[i]) if i in traced else None
                  for i in range(k, k + len(step.traces))]  # fmt: skip
        _, *d = part.op.pullback(part.node.inputs, part.node, [*given, None])
        d_seqs, d_carries, d_consts = d[:a], d[a : a + k], d[a + k :]
        rows = part.op.split(part.node.inputs).seqs
        # The last segment is the first: with the steps of each in that order too, what is filled
        # up is, turned round as a whole, in order.
        filled = [part.filled(like(d_seqs[i], rows[i]))[::-1] for i in rowed]
        loop = replace(
            step, seqs=(part.start, *part.carries), carries=(*ct.values(), *acc.values()),
            consts=(*part.shared, *traced.values()),
            new=(
                *(like(d_carries[i], part.carries[i]) for i in ct),
                *(acc[i] + like(d_consts[i], part.consts[i]) for i in acc),
            ),
            traces=tuple(filled),
        )  # fmt: skip
        op = replace(self.outer, step=loop.closed(), name=f"grad_of_{self.op.name or 'scan_fn'}")
        flipped = [first_rows(x, self.count)[::-1] for x in (self.starts, *checkpoints)]
        r = op.results(
            op(self.count, *flipped, *initial.values(), *zeros.values(), *self.consts, *gs.values())
        )
        return list(r.finals), [first_rows(_flat(x)[::-1], self.o.n) for x in r.traces]


def _flat(rows: Variable) -> Variable:
    """Filled rows of all segments as a row a step."""
    sizes = dims(rows)
    return reshape(rows, [product(sizes[:2]), *sizes[2:]], ndim=rows.ndim - 1)


def bytes_of(dtype: str, sizes: Sequence[Variable]) -> Variable:
    """Of an array."""
    return product([constant_leaf(np.asarray(np.dtype(dtype).itemsize, "int64")), *sizes])
