"""The stages of a step: what workers that share its units compute without meeting.

A unit is a position along the last axis. Each worker computes its own units of every value of a
size that is shared out, and all of every other value. Within a stage it reads only what it has
computed itself, or what all had published when the stage began. A new stage begins, with a
meeting, in front of a group of values that reads other workers' units of a value which this step,
or the one before, has computed; and of one that writes where others may still be reading.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..graph import Constant, Variable
from ..ops.control import Identity
from ..ops.elemwise import Elemwise
from ..ops.index import IncSubtensor, Lookup, Subtensor
from ..ops.linalg import Dot
from ..ops.patterns import FULL
from ..ops.reduce import Reduce
from ..ops.sample import Uniform
from ..ops.shape import BroadcastTo, DimShuffle, FirstRows, Specify
from ..record import record
from ..types import FLOATS
from .kernel import Number
from .plan import Plan, read

LEAST_UNITS = 128  # known to be fewer, they are not worth sharing: for threads,
LEAST_UNITS_OF_BLOCKS = 8  # and for blocks of them


@record
class Kept:
    """A carry in memory: its parameter; its new value, which stands where the next step finds it
    (None: it is copied there behind the step); and whether the two take turns in two buffers
    (otherwise each step has memory of its own)."""

    entry: Variable
    new: Variable | None
    turns: bool

    @property
    def place(self) -> Any:
        """What stands for the memory of the next value."""
        return self.new if self.new is not None else ("copy", self.entry)


class Stages:
    """Which groups of a step begin a stage.

    plan      the values that are put into memory, in the order in which they are computed
    carries   those in memory
    steps_own values that every step has memory of its own for: rows of traces
    copied    what is copied, to carries and traces, behind all groups;
    read      what is read there as a whole
    least     units of an axis that are worth sharing
    """

    def __init__(
        self,
        plan: Plan,
        carries: Sequence[Kept],
        steps_own: Collection[Variable],
        copied: Sequence[Variable],
        read: Sequence[Variable],
        sizes_of: Callable[[Variable], Sequence[Any]],
        least: int = LEAST_UNITS,
    ) -> None:
        self._least = least
        self._sizes_of, self._is_whole = sizes_of, plan.is_whole
        groups = plan.groups
        self.shared: set[Any] = {v for g in groups for v in g if self._can_share(v)}
        for c in carries:
            if c.new is None and self.has_units(c.entry):
                self.shared |= {c.entry, c.place}
            elif c.new in self.shared:
                self.shared.add(c.entry)
        self.joined = {v: parts for v, parts in plan.joined.items() if self._is_in_place(v, parts)}
        whole_of = {x: v for v, parts in self.joined.items() for x in parts.values()}
        # units of a whole are not those of its parts: workers have others than they computed
        self._mixed = {*self.joined, *(c.entry for c in carries if c.new in self.joined)}
        known = {c.entry for c in carries}  # in memory; what a group computes is behind it
        foreign = []
        for g in groups:
            foreign.append(frozenset(self._foreign(self._read_by(g), known)))
            known |= set(g)
        last = [(x, True) for x in copied] + [(x, False) for x in read]
        foreign.append(frozenset(self._foreign(last, known)))
        written = [
            frozenset(v for x in g for v in (x, whole_of.get(x, x)) if v in self.shared)
            for g in groups
        ]
        written.append(frozenset(c.place for c in carries if c.new is None) & self.shared)
        # what workers read of others, each counted once a step
        self.exchanged = tuple(dict.fromkeys(v for read in foreign for v in read))
        self.starts = _meetings(foreign, written, carries, steps_own)

    def shares_units(self, v: Variable) -> bool:
        """Whether a worker computes only its own units of v."""
        return v in self.shared

    def is_own(self, v: Variable) -> bool:
        """Whether nobody but the worker reads the units that it computes of v."""
        return self.shares_units(v) and v not in self.exchanged and v not in self.joined

    def has_units(self, v: Variable) -> bool:
        """Whether v's last axis is shared out, if v can be."""
        return v.ndim > 0 and self.is_shared_out(self._sizes_of(v)[-1])

    def is_shared_out(self, size: Any) -> bool:
        """Whether an axis of this size is."""
        return not isinstance(size, Number) or bool(size.value >= self._least)

    def _can_share(self, v: Variable) -> bool:
        # of what needs whole operands, only products and draws are shared out
        alone = isinstance(v.op, Uniform) or (isinstance(v.op, Dot) and v.dtype in FLOATS)
        return self.has_units(v) and (alone or not self._is_whole(v))

    def _is_in_place(self, v: Variable, parts: Mapping[int, Variable]) -> bool:
        """Whether workers can compute parts of v where they stand in it: each writes only units
        of its own."""
        others = [x for k, x in enumerate(v.inputs) if k not in parts]
        return all(x in self.shared for x in parts.values()) and all(map(self.has_units, others))

    def _read_by(self, group: Sequence[Variable]) -> Iterator[tuple[Variable, bool]]:
        """What the values of a group are made from, as `_reads` says."""
        for v in group:
            if v in self.joined:  # its other parts are copied, unit by unit
                parts = self.joined[v]
                yield from ((x, True) for k, x in enumerate(v.inputs) if k not in parts)
            else:
                yield from self._reads(v, self.shares_units(v))

    def _foreign(
        self, read: Iterable[tuple[Variable, bool]], known: Collection[Variable]
    ) -> Iterator[Variable]:
        """The shared values of which reading these takes other units than the worker's."""
        seen: set[tuple[Variable, bool]] = set()
        stack = list(read)
        while stack:
            x, own = stack.pop()
            if (x, own) in seen:
                continue
            seen.add((x, own))
            if x in known:
                if x in self.shared and not (own and x not in self._mixed):
                    yield x
            else:
                stack += self._reads(x, own)

    def _reads(self, v: Variable, own: bool) -> list[tuple[Variable, bool]]:
        """What v's elements are made from, and whether one of v's own units needs only the same
        unit of it."""
        return [(x, own and self._in_step(v, x)) for x in read(v) if not isinstance(x, Constant)]

    def _in_step(self, v: Variable, x: Variable) -> bool:
        if x.ndim == 0 or v.ndim == 0 or self._sizes_of(x)[-1] != self._sizes_of(v)[-1]:
            return False
        match v.op:
            case Elemwise() | BroadcastTo() | Specify() | Identity():
                return True
            case DimShuffle(order):
                return bool(order) and order[-1] == x.ndim - 1
            case FirstRows():
                return x.ndim > 1
            case Reduce(axes=axes):
                return x.ndim - 1 not in axes
            case Lookup():
                return x is v.inputs[0] and x.ndim > 1
            case Subtensor(pattern):
                return x is v.inputs[0] and _leaves_last(pattern, x.ndim)
            case IncSubtensor(pattern):
                return x in v.inputs[:2] and _leaves_last(pattern, v.ndim)
        return False


def _meetings(
    foreign: Sequence[frozenset[Any]], written: Sequence[frozenset[Any]],
    carries: Sequence[Kept], steps_own: Collection[Variable],
) -> frozenset[int]:  # fmt: skip
    """The groups in front of which the workers meet, in a step that follows another."""
    before: tuple[frozenset[Any], frozenset[Any]] = (frozenset(), frozenset())
    while True:
        fresh, watched = map(set, before)  # written, and read by others, since they met
        starts = set()
        for k in range(len(written)):
            if foreign[k] & fresh or written[k] & watched:
                starts.add(k)
                fresh, watched = set(), set()
            fresh |= written[k]
            watched |= foreign[k]
        after = (
            before[0] | {c.entry for c in carries if c.place in fresh},
            before[1] | _turned(watched, carries, steps_own),
        )
        if after == before:
            return frozenset(starts)
        before = after


def _turned(
    watched: Collection[Any], carries: Sequence[Kept], steps_own: Collection[Variable]
) -> set[Any]:
    """What the next step must not write before the workers meet, since others may read it."""
    found = {v for v in watched if v not in steps_own}
    for c in carries:
        found -= {c.entry, c.place}
        if c.turns and c.entry in watched:  # of two buffers, the one that was read is written next
            found.add(c.place)
        if c.turns and c.place in watched:
            found.add(c.entry)
    return found


def _leaves_last(pattern: Sequence[Any], ndim: int) -> bool:
    """Whether an index leaves the last axis as it is."""
    return len(pattern) < ndim or pattern[-1] == FULL
