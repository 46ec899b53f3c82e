"""What blocks do while they wait for each other: the step's inputs are fetched from the device's
memory, and what the last step leaves behind for the host is written to it.

Both go by way of the block's shared memory. A thread fetches for the positions that it will
compute, and writes what it has computed, so that there is nothing to wait for but the meeting.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from ..record import record, replace
from .kernel import (
    Array,
    Binary,
    Enter,
    Finish,
    For,
    If,
    Let,
    Load,
    Meet,
    MeetingOver,
    Name,
    Number,
    Point,
    Share,
    Steps,
    Store,
    Use,
    binary,
    loads,
    names,
    product,
    row_major,
)

T, LAST = Name("t"), Name("last")


@record
class Staged:
    """An array of a block's shared memory, with a place for each position of some loops: so many
    elements, as an expression."""

    array: Array
    elements: Any


def overlapped(
    body: Sequence[Any], inputs: Collection[str], traces: Collection[str], known: Collection[str],
    room: Callable[[Staged], bool],
) -> list[Any]:  # fmt: skip
    """The statements with their loop's first meeting in two halves, and between these what can
    wait. inputs: arrays that the kernel only reads; traces: those of which each step writes a row
    of its own; known: integers that do not change in the loop; room: takes shared memory for an
    array, if there is any."""
    found: list[Any] = []
    for s in body:
        if isinstance(s, Steps):
            step = _Step(s.body, inputs, traces, known, room)
            found += [*step.ahead, Steps(tuple(step.body)), *step.behind]
        else:
            found.append(s)
    return found


class _Step:
    def __init__(
        self, body: Sequence[Any], inputs: Collection[str], traces: Collection[str],
        known: Collection[str], room: Callable[[Staged], bool],
    ) -> None:  # fmt: skip
        self.ahead: list[Any] = []  # of the loop
        self.behind: list[Any] = []
        self.body = list(body)
        at = next((k for k, s in enumerate(body) if isinstance(s, Meet)), None)
        shares = [k for k, s in enumerate(body) if isinstance(s, Share) and s.by == "threads"]
        if at is None or not shares:
            return
        k = next((k for k in shares if k > at), shares[0])
        share: Share = body[k]
        self.share, self.room = share, room
        self.known = {*known, T.text, *(x.index.text for x in share.loops)}
        inner, fetch = self._fetched(share.body, inputs)
        read = {a.name for s in body for a in _read(s)}
        ends = any(isinstance(s, Finish) for s in _all(body))
        inner, write = self._delayed(inner, set() if ends else set(traces) - read)
        self.body[k] = replace(share, body=tuple(inner))
        # loops behind the meeting are this step's; those before it have been: the next are due
        between = self._written(write, k > at) + self._read_in(fetch, k < at)
        if between:
            meeting = body[at].meeting
            self.body[at : at + 1] = [Enter(meeting), *between, MeetingOver(meeting)]

    # ---- inputs -------------------------------------------------------------------------------

    def _fetched(
        self, body: Sequence[Any], inputs: Collection[str]
    ) -> tuple[list[Any], list[Store]]:
        """The body with its inputs read from shared memory, and what puts them there."""
        fetch: list[Store] = []
        inner = []
        for s in body:
            match s:
                case Let(name, Load(array, at)) if array.name in inputs and self._is_due(at):
                    staged = Staged(
                        Array(f"{array.name}_early", array.dtype), product(self.share.sizes)
                    )
                    if any(x.array == staged.array for x in fetch) or not self.room(staged):
                        inner.append(s)
                        continue
                    fetch.append(Store(staged.array, self._position(), s.value))
                    inner.append(Let(name, Load(staged.array, self._position())))
                case _:
                    inner.append(s)
        return inner, fetch

    def _read_in(self, fetch: Sequence[Store], next_step: bool) -> list[Any]:
        if not fetch:
            return []
        if not next_step:
            return [replace(self.share, body=tuple(fetch))]
        first = replace(self.share, body=tuple(_at(x, Number(0)) for x in fetch))
        self.ahead = [If(LAST > 0, (first,))]
        following = replace(self.share, body=tuple(_at(x, T + 1) for x in fetch))
        return [If(T + 1 < LAST, (following,))]

    def _is_due(self, offset: Any) -> bool:
        """Whether an offset is another one in each step, and known when the step begins."""
        found = set(names(offset))
        return T.text in found and not any(loads(offset)) and found <= self.known

    def _position(self) -> Any:
        """Of an element of the loops, among all of them."""
        total: Any = Number(0)
        for x, stride in zip(self.share.loops, row_major(self.share.sizes)):
            index = x.index if x.start == Number(0) else binary("sub", x.index, x.start)
            total = binary("add", total, binary("mul", index, stride))
        return total

    # ---- what is written ----------------------------------------------------------------------

    def _delayed(self, body: Sequence[Any], late: Collection[str]) -> tuple[list[Any], list[Store]]:
        """The body with rows of traces that no step reads left in shared memory, and what writes
        them."""
        write: list[Store] = []
        inner = []
        for s in body:
            if isinstance(s, Store) and s.array.name in late:
                staged = Staged(
                    Array(f"{s.array.name}_late", s.array.dtype), product(self.share.sizes)
                )
                if self.room(staged):
                    inner.append(Store(staged.array, self._position(), s.value))
                    value = Load(staged.array, self._position())
                    write.append(Store(s.array, s.offset, value))
                    continue
            inner.append(s)
        return inner, write

    def _written(self, write: Sequence[Store], last_step: bool) -> list[Any]:
        if not write:
            return []
        if not last_step:
            return [replace(self.share, body=tuple(write))]
        end = replace(self.share, body=tuple(_at(x, LAST - 1) for x in write))
        self.behind = [If(LAST > 0, (end,))]
        before = replace(self.share, body=tuple(_at(x, T - 1) for x in write))
        return [If(T > 0, (before,))]


def _at(s: Store, t: Any) -> Store:
    """A store of another step."""
    value = s.value
    return Store(s.array, _with(s.offset, t), Load(value.array, _with(value.offset, t)))


def _with(e: Any, t: Any) -> Any:
    if e == T:
        return t
    if isinstance(e, Binary):
        return binary(e.op, _with(e.a, t), _with(e.b, t))
    return e


def _all(body: Iterable[Any]) -> Iterator[Any]:
    for s in body:
        yield s
        match s:
            case If(_, inner, other):
                yield from _all([*inner, *other])
            case For(body=inner) | Share(body=inner) | Steps(inner):
                yield from _all(inner)


def _read(s: Any) -> Iterator[Array]:
    """What a statement reads, or may read through another name."""
    for x in _all([s]):
        for value in _expressions(x):
            yield from loads(value)
        if isinstance(x, Point):
            yield from (x.a[0], x.b[0])
        if isinstance(x, Use):
            for argument in x.arguments:
                if isinstance(argument, tuple):
                    yield argument[0]
                elif isinstance(argument, Array):
                    yield argument


def _expressions(s: Any) -> Iterator[Any]:
    for field in ("value", "offset", "condition", "a", "b", "extent", "start"):
        value = getattr(s, field, None)
        if value is not None:
            yield value
