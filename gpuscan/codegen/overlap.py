"""What blocks do while they wait for each other: the step's inputs are fetched from the device's
memory, and what the last step leaves behind for the host is written to it. Blocks that do not wait
fetch the next step's inputs while they work on one.

Both go by way of the block's shared memory. A thread fetches for the positions that it will
compute, and writes what it has computed, so that there is nothing to wait for but the meeting, and
before it computes for its own copies.
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
from .threads import TOGETHER, arrays_of, routine

T, LAST, NEXT = Name("t"), Name("last"), Name("next_t")
_COPIED = Use("gs_copied", ())


@record
class Staged:
    """An array of a block's shared memory, with a place for each position of some loops: so many
    elements, as an expression."""

    array: Array
    elements: Any


def overlapped(
    body: Sequence[Any], inputs: Collection[str], traces: Collection[str],
    states: Collection[str], known: Collection[str], room: Callable[[Staged], bool],
) -> list[Any]:  # fmt: skip
    """The statements with their loop's first meeting in two halves, and between these what can
    wait. inputs: arrays that the kernel only reads; traces: those of which each step writes a row
    of its own; states: other arrays in the device's memory that steps write; known: integers that
    do not change in the loop; room: takes shared memory for an array, if there is any."""
    found: list[Any] = []
    for s in body:
        if isinstance(s, Steps):
            step = _Step(s.body, known, room)
            step.overlap(inputs, traces, {*traces, *states})
            found += [*step.ahead, Steps(tuple(step.body)), *step.behind]
        else:
            found.append(s)
    return found


def fetched_ahead(
    body: Sequence[Any], inputs: Collection[str], known: Collection[str],
    room: Callable[[Staged], bool],
) -> list[Any]:  # fmt: skip
    """The statements of blocks that never meet, whose threads begin to fetch what the next step
    computes with when they have computed a step. Arguments as above."""
    found: list[Any] = []
    for s in body:
        if isinstance(s, Steps):
            step = _Step(s.body, known, room)
            step.fetch_ahead(inputs)
            found += [*step.ahead, Steps(tuple(step.body))]
        else:
            found.append(s)
    return found


class _Step:
    def __init__(
        self, body: Sequence[Any], known: Collection[str], room: Callable[[Staged], bool]
    ) -> None:
        self.ahead: list[Any] = []  # of the loop
        self.behind: list[Any] = []
        self.body = list(body)
        self.room, self.everywhere = room, {*known, T.text}

    def overlap(
        self, inputs: Collection[str], traces: Collection[str], states: Collection[str]
    ) -> None:
        """For a step in which blocks meet."""
        body = self.body
        at = next((k for k, s in enumerate(body) if isinstance(s, Meet)), None)
        shares = [k for k, s in enumerate(body) if isinstance(s, Share) and s.by == "threads"]
        if at is None or not shares:
            return
        k = next((k for k in shares if k > at), shares[0])
        share: Share = body[k]
        self._work_on(share)
        inner, fetch = self._fetched(share.body, inputs)
        ends = any(isinstance(s, Finish) for s in everywhere(body))
        gone: list[Point] = []
        rows: list[Store] = []
        if k > at and not ends:
            inner, gone, rows = self._own(inner, traces)
        body = [s for s in body if s not in gone]
        at, k = body.index(self.body[at]), body.index(share)
        inner, met = self._met(inner, body[at + 1 : k], states) if k > at else (inner, [])
        inner = self._kept(inner, inputs, bool(fetch or met))
        read = {a.name for s in body for a in _read(s)}
        inner, write = self._delayed(inner, set() if ends else set(traces) - read)
        write += rows
        loop = [*([_COPIED] if fetch or met else []), replace(share, body=tuple(inner))]
        # loops behind the meeting are this step's; those before it have been: the next are due
        between = self._written(write, k > at) + self._read_in(fetch, k < at)
        meeting = [body[at]]
        if between:
            whose = body[at].meeting, body[at].among
            meeting = [Enter(*whose), *between, MeetingOver(*whose)]
        meeting += met
        if k > at:
            self.body = [*body[:at], *meeting, *body[at + 1 : k], *loop, *body[k + 1 :]]
        else:
            self.body = [*body[:k], *loop, *body[k + 1 : at], *meeting, *body[at + 1 :]]

    def fetch_ahead(self, inputs: Collection[str]) -> None:
        """For a step in which nobody waits."""
        found: list[Any] = []
        left = set(inputs)  # that no loop before fetches
        for s in self.body:
            if isinstance(s, Share) and s.by == "threads":
                self._work_on(s)
                inner, fetch = self._fetched(s.body, left)
                left -= {x.arguments[1][0].name for x in fetch}
                self._first_read(fetch)
                s = replace(s, body=(*inner, *(_copied_at(x, NEXT) for x in fetch)))
                if fetch:
                    found.append(_COPIED)
            found.append(s)
        if self.ahead:
            found.insert(0, Let(NEXT, (T + 1 < LAST).choose(T + 1, T)))
        self.body = found

    def _work_on(self, share: Share) -> None:
        self.share = share
        self.known = {*self.everywhere, *(x.index.text for x in share.loops)}

    # ---- inputs -------------------------------------------------------------------------------

    def _fetched(self, body: Sequence[Any], inputs: Collection[str]) -> tuple[list[Any], list[Use]]:
        """The body with its inputs read from shared memory, and what puts them there."""
        return self._from_shared(body, "early", lambda a, at: a in inputs and self._is_due(at))

    def _from_shared(
        self, body: Sequence[Any], word: str, wanted: Callable[[str, Any], bool]
    ) -> tuple[list[Any], list[Use]]:
        """The body with loads of some arrays, at some offsets, from shared memory, and what copies
        them there."""
        fetch: list[Use] = []
        inner = []
        for s in body:
            match s:
                case Let(name, Load(array, at)) if wanted(array.name, at):
                    staged = Staged(
                        Array(f"{array.name}_{word}", array.dtype), product(self.share.sizes)
                    )
                    taken = any(x.arguments[0][0] == staged.array for x in fetch)
                    if taken or not self.room(staged):
                        inner.append(s)
                        continue
                    places = (staged.array, self._position()), (array, at)
                    fetch.append(Use("gs_copy", places))
                    inner.append(Let(name, Load(staged.array, self._position())))
                case _:
                    inner.append(s)
        return inner, fetch

    def _kept(self, body: Sequence[Any], inputs: Collection[str], waits: bool) -> list[Any]:
        """The body with inputs that are the same in each step read from shared memory: a meeting
        drops what a multiprocessor's cache has of the device's. waits: whether each step waits for
        copies anyway."""
        inner, copy = self._from_shared(body, "kept", lambda a, at: a in inputs and self._stays(at))
        if copy:
            self.ahead.append(replace(self.share, body=tuple(copy)))
            self.ahead += [] if waits else [_COPIED]
        return inner

    def _own(
        self, body: Sequence[Any], traces: Collection[str]
    ) -> tuple[list[Any], list[Point], list[Store]]:
        """The body with states in shared memory of which a thread reads only what it wrote itself,
        in the last step and at the same positions; the names that these states have no use for
        any more, and what writes the rows of their traces."""
        points = [s for s in self.body if isinstance(s, Point)]
        gone: list[Point] = []
        rows: list[Store] = []
        for p in points:
            nexts = [q for q in points if q.written and (q.a, q.b) == (p.b, p.a)]
            target = p.a[0] if p.a[0].name in traces else nexts[0].array if nexts else None
            stores = [
                s for s in everywhere(self.body) if isinstance(s, Store) and s.array == target
            ]
            if p.written or len(stores) != 1 or stores[0] not in body:
                continue
            (store,) = stores
            place = at_step(store.offset, Number(0))
            reads = [s for s in body if isinstance(s, Let) and s.value == Load(p.array, place)]
            touched = [a for s in self.body if s not in (p, *nexts) for a in _read(s)]
            alone = touched.count(p.array) == len(reads) > 0 and target not in touched
            if not alone or set(names(place)) - self.known:
                continue
            staged = Staged(Array(f"{store.array.name}_late", store.array.dtype),
                            product(self.share.sizes))  # fmt: skip
            if not self.room(staged):
                continue
            here = Load(staged.array, self._position())
            first = Store(
                staged.array, self._position(), Load(p.b[0], binary("add", p.b[1], place))
            )
            self.ahead.append(replace(self.share, body=(first,)))
            put = Store(staged.array, self._position(), store.value)
            body = [
                Let(s.name, here) if s in reads else put if s == store else s for s in body
            ]  # fmt: skip
            gone += [p, *nexts]
            if nexts:  # of the two that steps write by turns the last one is left
                end = replace(nexts[0], condition=at_step(nexts[0].condition, LAST - 1))
                left = replace(self.share, body=(Store(store.array, store.offset, here),))
                self.behind.append(If(LAST > 0, (end, left)))
            else:
                rows.append(Store(store.array, store.offset, here))
        return list(body), gone, rows

    def _met(
        self, body: Sequence[Any], between: Sequence[Any], states: Collection[str]
    ) -> tuple[list[Any], list[Any]]:
        """The body with those states read from shared memory that are complete behind the meeting,
        and what copies them there while the block does what stands between."""
        written = {name for s in everywhere(between) for name in written_arrays(s)}
        points = {
            s.array.name for s in self.body
            if isinstance(s, Point) and {s.a[0].name, s.b[0].name} <= set(states) - written
        } - written  # fmt: skip
        inner, copy = self._from_shared(
            body, "met", lambda a, at: a in points and set(names(at)) <= self.known
        )
        return inner, [replace(self.share, body=tuple(copy))] if copy else []

    def _read_in(self, fetch: Sequence[Use], next_step: bool) -> list[Any]:
        if not fetch:
            return []
        if not next_step:
            return [replace(self.share, body=tuple(fetch))]
        self._first_read(fetch)
        following = replace(self.share, body=tuple(_copied_at(x, T + 1) for x in fetch))
        return [If(T + 1 < LAST, (following,))]

    def _first_read(self, fetch: Sequence[Use]) -> None:
        """Before the loop, what its first step computes with."""
        if fetch:
            first = replace(self.share, body=tuple(_copied_at(x, Number(0)) for x in fetch))
            self.ahead.append(If(LAST > 0, (first,)))

    def _is_due(self, offset: Any) -> bool:
        """Whether an offset is another one in each step, and known when the step begins."""
        found = set(names(offset))
        return T.text in found and not any(loads(offset)) and found <= self.known

    def _stays(self, offset: Any) -> bool:
        """Whether an offset is the same in each step."""
        return not any(loads(offset)) and set(names(offset)) <= self.known - {T.text}

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
                before = sum(x.array == s.array for x in write)  # a row may be written in parts
                name = f"{s.array.name}_late{before or ''}"
                staged = Staged(Array(name, s.array.dtype), product(self.share.sizes))
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
        self.behind.append(If(LAST > 0, (end,)))
        before = replace(self.share, body=tuple(_at(x, T - 1) for x in write))
        return [If(T > 0, (before,))]


def _at(s: Store, t: Any) -> Store:
    """A store of another step."""
    value = s.value
    return Store(s.array, at_step(s.offset, t), Load(value.array, at_step(value.offset, t)))


def _copied_at(s: Use, t: Any) -> Use:
    """A copy of another step's input."""
    to, (array, at) = s.arguments
    return Use(s.routine, (to, (array, at_step(at, t))))


def at_step(e: Any, t: Any) -> Any:
    """An expression of step t."""
    if e == T:
        return t
    if isinstance(e, Binary):
        return binary(e.op, at_step(e.a, t), at_step(e.b, t))
    return e


def everywhere(body: Iterable[Any]) -> Iterator[Any]:
    """Statements, and those in them."""
    for s in body:
        yield s
        match s:
            case If(_, inner, other):
                yield from everywhere([*inner, *other])
            case For(body=inner) | Share(body=inner) | Steps(inner):
                yield from everywhere(inner)


def _read(s: Any) -> Iterator[Array]:
    """What a statement reads, or may read through another name."""
    for x in everywhere([s]):
        for value in _expressions(x):
            yield from loads(value)
        if isinstance(x, Point):
            yield from (x.a[0], x.b[0])
        if isinstance(x, Use):
            yield from (a for a in map(arrays_of, x.arguments) if a is not None)


def written_arrays(s: Any) -> Iterator[str]:
    """The names of arrays that a statement writes, or may write."""
    if isinstance(s, Store):
        yield s.array.name
    if isinstance(s, Use):
        _, places = TOGETHER.get(routine(s.routine), ((), range(len(s.arguments))))
        for k, x in enumerate(s.arguments):
            array = arrays_of(x)
            if array is not None and k in places:
                yield array.name


def _expressions(s: Any) -> Iterator[Any]:
    for field in ("value", "offset", "condition", "a", "b", "extent", "start"):
        value = getattr(s, field, None)
        if value is not None:
            yield value
