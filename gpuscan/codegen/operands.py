"""What the products of a step read, left where it is read best by those who compute it.

Blocks with rows of their own multiply with what they computed a step ago: they leave it in shared
memory, too, where it need not be fetched from the device's. Blocks that share units exchange it;
where the factors of products are rounded to 16 bits it is left rounded, too: that is half the bytes
to exchange, and nothing to round for those who read. There a block may be a step ahead of one that
still reads, so there are two buffers, of even steps and of odd ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from ..record import record, replace
from .kernel import (
    Array,
    Barrier,
    Let,
    Load,
    Meet,
    Name,
    Number,
    Point,
    Share,
    Steps,
    Store,
    Use,
    binary,
    names,
)
from .overlap import Staged, T, at_step, everywhere, written_arrays
from .threads import routine
from .weights import Fragments, Weight

PRECISIONS, DTYPE = ("bf16", "fp16"), "uint16"  # of which only the bits are of interest
_WHOLE = 8  # of 16 bits: a vector


@record
class Rounded:
    """A trace's rows as all blocks multiply with them. elements: of a buffer; before: what comes
    before the loop."""

    trace: str
    array: Array
    elements: Any
    before: tuple[Any, ...]


def published(
    body: Sequence[Any], weights: Sequence[Weight], traces: Mapping[str, Any],
    states: Collection[str],
) -> tuple[list[Any], list[Rounded]]:  # fmt: skip
    """The statements with products of rounded rows where all of those are written by threads of
    some block in each step; and these rows. weights: those held whole in fragments of 16 bits can
    be multiplied with such rows; traces, states: the names of arrays in the device's memory, of
    traces with how many elements a step has."""
    fitting = {
        w.name: w for w in weights
        if isinstance(w.layout, Fragments) and w.layout.precision in PRECISIONS
        and w.depth == w.layout.depth
    }  # fmt: skip
    found: list[Any] = []
    rounded: list[Rounded] = []
    for s in body:
        if isinstance(s, Steps) and fitting:
            step = _Exchange(s.body, fitting, traces, states)
            rounded += step.rounded.values()
            for x in step.rounded.values():
                found += x.before
            s = Steps(tuple(step.body))
        found.append(s)
    return found, rounded


def beside(
    body: Sequence[Any], traces: Mapping[str, Any], states: Collection[str],
    room: Callable[[Staged], bool],
) -> list[Any]:  # fmt: skip
    """The statements of blocks with rows of their own, with what products read of the last step, or
    of this one, in shared memory. room: takes some for an array, if there is any."""
    found: list[Any] = []
    for s in body:
        if isinstance(s, Steps):
            step = _Rows(s.body, traces, states)
            found += step.keep(room)
            s = Steps(tuple(step.body))
        found.append(s)
    return found


# Where a routine's arguments say which rows it reads, how many, and how far apart they are.
_READS: Mapping[str, tuple[int, int, int]] = {
    "gs_gemm": (3, 0, 4), "gs_gemms": (3, 0, 4), "gs_gemm_onto": (3, 0, 4),
    "gs_multiply": (2, 1, 3),
}  # fmt: skip


class _Rows:
    """A step's statements, of which some write rows of traces."""

    def __init__(
        self, body: Sequence[Any], traces: Mapping[str, Any], states: Collection[str]
    ) -> None:
        self.body, self.traces, self.states = list(body), traces, states
        self.points = {s.array.name: s for s in body if isinstance(s, Point)}

    def last_steps(self, array: Array, at: Any) -> tuple[Array, Array] | None:
        """The trace whose rows of the last step an array stands for, and the state before any."""
        point = self.points.get(array.name)
        if point is None or at != Number(0):
            return None
        (trace, _), (start, offset) = point.a, point.b
        known = trace.name in self.traces and start.name in self.states and offset == Number(0)
        return (trace, start) if known else None

    def writer(self, trace: Array) -> int | None:
        """The place of the only statement that writes a trace, if that is a loop of threads."""
        found = [
            k for k, s in enumerate(self.body)
            if isinstance(s, Share) and s.by == "threads" and any(stores(s, trace))
        ]  # fmt: skip
        written = [n for s in everywhere(self.body) for n in written_arrays(s)].count(trace.name)
        alone = len(found) == 1 and len([*stores(self.body[found[0]], trace)]) == written
        return found[0] if alone else None

    def left(self, k: int, trace: Array, leave: Callable[[Any, Any], Any]) -> None:
        """Has loop k leave what it stores to a trace elsewhere, too: leave(place in a row, value)
        says how."""
        share: Share = self.body[k]
        more = [leave(at_step(s.offset, Number(0)), s.value) for s in stores(share, trace)]
        self.body[k] = replace(share, body=(*share.body, *more))

    def first(
        self, k: int, trace: Array, start: Array, leave: Callable[[Any, Any], Any]
    ) -> Share:  # fmt: skip
        """What leaves the first state before the loop."""
        value = Name("first_value", trace.dtype)
        inner: list[Any] = []
        for s in stores(self.body[k], trace):
            at = at_step(s.offset, Number(0))
            inner += [Let(value, Load(start, at)), leave(at, value)]
        return replace(self.body[k], body=tuple(inner))

    def keep(self, room: Callable[[Staged], bool]) -> list[Any]:
        """Has products read rows of the last step, or of this one, from shared memory; what comes
        before the loop."""
        before: list[Any] = []
        kept: set[str] = set()  # of a trace that is read of both steps, the last step's
        for name in (*self.points, *self.traces):
            reads = {k: at for k, s in enumerate(self.body) if (at := self._read(s, name))}
            if not reads:
                continue
            array, _, rows, apart = next(iter(reads.values()))
            last = self.last_steps(array, Number(0))
            trace, start = last or (array, None)
            fits = trace.name in self.traces and trace.name not in kept
            k = self.writer(trace) if fits else None
            if k is None or not self._is_between_barriers([*reads], k, start is None):
                continue
            size = self.traces[trace.name]  # of a vector
            if apart != Number(0):
                size = binary("mul", rows, apart)
            here = Staged(Array(f"{trace.name}_here", trace.dtype), size)
            if not isinstance(apart, Number) or not room(here):
                continue
            kept.add(trace.name)

            def leave(at: Any, value: Any, array: Array = here.array) -> Store:
                return Store(array, at, value)

            if start is not None:
                before.append(self.first(k, trace, start, leave))
            self.left(k, trace, leave)
            for r, (_, at, _, _) in reads.items():
                s = self.body[r]
                place = _READS[routine(s.routine)][0]
                arguments = list(s.arguments)
                arguments[place] = (here.array, at)
                self.body[r] = Use(s.routine, tuple(arguments))
        return before

    def _read(self, s: Any, name: str) -> tuple[Array, Any, Any, Any] | None:
        """The array of a name, if a statement multiplies with rows of one step of it; where in a
        row it begins, how many rows they are, and how far apart."""
        if not isinstance(s, Use) or routine(s.routine) not in _READS:
            return None
        a, rows, apart = (s.arguments[k] for k in _READS[routine(s.routine)])
        array, at = a if isinstance(a, tuple) else (a, Number(0))
        if array.name != name or not (name in self.points or T.text in names(at)):
            return None
        return array, at_step(at, Number(0)), rows, apart

    def _is_between_barriers(self, reads: Sequence[int], k: int, this_steps: bool) -> bool:
        """Whether nobody writes, in loop k, while somebody reads, and the other way round. The last
        statement is followed by the first one."""
        barriers = [n for n, s in enumerate(self.body) if isinstance(s, Barrier)]
        if this_steps:
            behind = any(n > reads[-1] or n < k for n in barriers)
            return behind and any(k < n < reads[0] for n in barriers)
        return any(n < reads[0] for n in barriers) and any(reads[-1] < n < k for n in barriers)


def stores(share: Share, trace: Array) -> Iterator[Store]:
    """A thread's stores to a trace, of names that it has."""
    for s in share.body:
        if isinstance(s, Store) and s.array == trace and isinstance(s.value, Name):
            yield s


class _Exchange(_Rows):
    """A step in which blocks meet."""

    def __init__(
        self, body: Sequence[Any], weights: Mapping[str, Weight], traces: Mapping[str, Any],
        states: Collection[str],
    ) -> None:  # fmt: skip
        super().__init__(body, traces, states)
        self.weights = weights
        self.rounded: dict[str, Rounded] = {}
        self.met = next((k for k, s in enumerate(body) if isinstance(s, Meet)), len(body))
        for k, s in enumerate(body):
            if isinstance(s, Use) and routine(s.routine) == "gs_multiply" and k > self.met:
                self._product(k, s)

    def _product(self, k: int, s: Use) -> None:
        held, rows, a, row, column, stride, partial, *results = s.arguments
        array, at = a if isinstance(a, tuple) else (a, Number(0))
        if held.name not in self.weights or column != Number(1) or not isinstance(row, Number):
            return
        size = binary("mul", rows, row)
        if row == Number(0):  # of a vector
            row = size = Number(self.weights[held.name].depth)
        if row.value % _WHOLE:
            return
        last = self.last_steps(array, at)
        trace, start = last or (array, None)
        this_steps = at_step(at, Number(0)) == Number(0) and T.text in names(at)
        if trace.name not in self.traces or not (last or this_steps):
            return
        if not self._publish(trace, size, start, held):
            return
        parity = binary("mod", T if start is None else T + 1, Number(2))
        source = self.rounded[trace.name].array, binary("mul", parity, size)
        arguments = (held, rows, source, row, stride, partial, *results)
        self.body[k] = Use("gs_multiply_rounded_f32", arguments)

    def _publish(self, trace: Array, size: Any, start: Array | None, held: Array) -> bool:
        """Whether the rows of a trace are left rounded, too."""
        if trace.name in self.rounded:
            return self.rounded[trace.name].elements == size
        k = self.writer(trace)
        if k is None or (k > self.met) != (start is not None):
            return False
        kind = f"<gs_{self.weights[held.name].layout.precision}>"
        array = Array(f"{trace.name}_rounded", DTYPE)

        def leave(buffer: Any) -> Callable[[Any, Any], Use]:
            def use(at: Any, value: Any) -> Use:
                place = binary("add", binary("mul", buffer, size), at)
                return Use(f"gs_publish{kind}", ((array, place), value))

            return use

        first = () if start is None else (self.first(k, trace, start, leave(Number(1))),)
        self.left(k, trace, leave(binary("mod", T, Number(2))))
        self.rounded[trace.name] = Rounded(trace.name, array, size, first)
        return True
