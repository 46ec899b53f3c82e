"""What blocks read of each other's values, in as many bits as it is multiplied with.

Where the factors of products are rounded to 16 bits, the rows that all blocks multiply with are
left rounded by those who compute them, beside the values themselves: that is half the bytes to
exchange, and nothing to round for those who read. A block may be a step ahead of one that still
reads, so there are two buffers, of even steps and of odd ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ..record import record, replace
from .kernel import (
    Array,
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
from .overlap import T, at_step, everywhere, written_arrays
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
    body: Sequence[Any], weights: Sequence[Weight], traces: Collection[str],
    states: Collection[str],
) -> tuple[list[Any], list[Rounded]]:  # fmt: skip
    """The statements with products of rounded rows where all of those are written by threads of
    some block in each step; and these rows. weights: those held whole in fragments of 16 bits can
    be multiplied with such rows; traces, states: the names of arrays in the device's memory."""
    fitting = {
        w.name: w for w in weights
        if isinstance(w.layout, Fragments) and w.layout.precision in PRECISIONS
        and w.depth == w.layout.depth
    }  # fmt: skip
    found: list[Any] = []
    rounded: list[Rounded] = []
    for s in body:
        if isinstance(s, Steps) and fitting:
            step = _Step(s.body, fitting, traces, states)
            rounded += step.rounded.values()
            for x in step.rounded.values():
                found += x.before
            s = Steps(tuple(step.body))
        found.append(s)
    return found, rounded


class _Step:
    def __init__(
        self, body: Sequence[Any], weights: Mapping[str, Weight], traces: Collection[str],
        states: Collection[str],
    ) -> None:  # fmt: skip
        self.body, self.weights = list(body), weights
        self.traces, self.states = traces, states
        self.rounded: dict[str, Rounded] = {}
        self.met = next((k for k, s in enumerate(body) if isinstance(s, Meet)), len(body))
        self.points = {s.array.name: s for s in body if isinstance(s, Point)}
        for k, s in enumerate(body):
            if isinstance(s, Use) and routine(s.routine) == "gs_multiply" and k > self.met:
                self._product(k, s)

    def _product(self, k: int, s: Use) -> None:
        held, rows, a, row, column, stride, partial, *results = s.arguments
        array, at = a if isinstance(a, tuple) else (a, Number(0))
        whole = isinstance(row, Number) and row.value % _WHOLE == 0 and column == Number(1)
        if held.name not in self.weights or not whole:
            return
        size = binary("mul", rows, row)
        point = self.points.get(array.name)
        if point is not None and at == Number(0):  # the last step's rows, or the first ones
            trace, start = point.a[0], point.b
            if start[0].name not in self.states or start[1] != Number(0):
                return
            before = True
        else:
            trace, start, before = array, None, False
            if at_step(at, Number(0)) != Number(0) or T.text not in names(at):
                return
        if trace.name not in self.traces or not self._publish(trace, size, start, before, held):
            return
        parity = binary("mod", T + 1 if before else T, Number(2))
        source = self.rounded[trace.name].array, binary("mul", parity, size)
        arguments = (held, rows, source, row, stride, partial, *results)
        self.body[k] = Use("gs_multiply_rounded_f32", arguments)

    def _publish(self, trace: Array, size: Any, start: Any, before: bool, held: Array) -> bool:
        """Whether the rows of a trace are left rounded, too."""
        if trace.name in self.rounded:
            return self.rounded[trace.name].elements == size
        writers = [
            k for k, s in enumerate(self.body)
            if isinstance(s, Share) and s.by == "threads" and any(self._stores(s, trace))
        ]  # fmt: skip
        if len(writers) != 1 or (writers[0] > self.met) != before:
            return False
        share: Share = self.body[writers[0]]
        (*stores,) = self._stores(share, trace)
        everything = [n for s in everywhere(self.body) for n in written_arrays(s)]
        if everything.count(trace.name) != len(stores):
            return False
        kind = f"<gs_{self.weights[held.name].layout.precision}>"  # type: ignore[union-attr]
        array = Array(f"{trace.name}_rounded", DTYPE)

        def left(at: Any, value: Any, buffer: Any) -> Use:
            place = binary("add", binary("mul", buffer, size), at)
            return Use(f"gs_publish{kind}", ((array, place), value))

        parity = binary("mod", T, Number(2))
        more = [left(at_step(s.offset, Number(0)), s.value, parity) for s in stores]
        self.body[writers[0]] = replace(share, body=(*share.body, *more))
        first: tuple[Any, ...] = ()
        if start is not None:
            value = Name("first_value", trace.dtype)
            inner: list[Any] = []
            for s in stores:
                at = at_step(s.offset, Number(0))
                inner += [Let(value, Load(start[0], at)), left(at, value, Number(1))]
            first = (replace(share, body=tuple(inner)),)
        self.rounded[trace.name] = Rounded(trace.name, array, size, first)
        return True

    def _stores(self, share: Share, trace: Array) -> Iterator[Store]:
        """A thread's stores to a trace, of names that it has."""
        for s in share.body:
            if isinstance(s, Store) and s.array == trace and isinstance(s.value, Name):
                yield s
