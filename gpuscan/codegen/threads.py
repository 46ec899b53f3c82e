"""What one worker does, as what the threads of a block do together.

Loops whose steps are apart are shared out over the threads; a routine of `kernels/block_*.h` is
entered by all of them; everything else each thread does alike, so that all take the same way, but
for what is written, which one thread writes. Barriers stand where a statement touches memory that
other threads may have written, or may still be reading, since the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..record import record, replace
from .kernel import (
    Alone,
    Array,
    Assign,
    Barrier,
    Break,
    Combine,
    Continue,
    Declare,
    Fail,
    Finish,
    Fold,
    For,
    If,
    Leave,
    Let,
    Load,
    Meet,
    Name,
    Point,
    Remark,
    Return,
    Share,
    Steps,
    Store,
    Use,
    binary,
    loads,
    names,
)
from .lower import FAILED

# Routines that all threads of a block enter: which of their arguments they read, and write.
TOGETHER: Mapping[str, tuple[Sequence[int], Sequence[int]]] = {
    "gs_pack": ((2,), (5,)),
    "gs_gemm": ((3, 6), (7,)),
    "gs_gemms": ((3, *range(7, 99, 2)), range(8, 99, 2)),
    "gs_gemm_steps": ((5, 8), (9,)),
    "gs_uniforms": ((0,), (4,)),
    "gs_uniform_rows": ((0,), (6,)),
    "gs_gemm_onto": ((3, 6, 7), (7,)),
    "gs_clear": ((), (0,)),
    "gs_hold": ((2,), (0, 6)),
    "gs_multiply": ((0, 2), range(6, 99)),
    "gs_multiply_far": ((0, 2), range(6, 99)),
    "gs_multiply_rounded": ((0, 2), range(5, 99)),
}
_MEETING = "gs_meet"


def routine(name: str) -> str:
    """A routine's name without its dtype."""
    stem, _, suffix = name.rpartition("_")
    return stem if suffix in ("f32", "f64") else name


# ---- what statements touch ------------------------------------------------------------------


@record
class Touched:
    read: frozenset[str] = frozenset()
    written: frozenset[str] = frozenset()

    def __or__(self, other: Touched) -> Touched:
        return Touched(self.read | other.read, self.written | other.written)


def arrays_of(argument: Any) -> Array | None:
    """The array of a routine's argument."""
    if isinstance(argument, Array):
        return argument
    return argument[0] if isinstance(argument, tuple) else None


def _touched_by(s: Any) -> Touched:
    """What a statement touches, by the arrays' names."""
    read: list[Array] = []
    written: list[Array] = []
    nested: list[Any] = []
    match s:
        case Let(_, value) | Declare(_, value) | Assign(_, value) | Return(value):
            read += loads(value)
        case Store(array, offset, value):
            written.append(array)
            read += [*loads(offset), *loads(value)]
        case For(_, extent, body, start=start):
            read += [*loads(extent), *loads(start)]
            nested += body
        case If(condition, body, other):
            read += loads(condition)
            nested += [*body, *other]
        case Use(name, arguments):
            reads, writes = TOGETHER.get(routine(name), (None, None))
            for k, x in enumerate(arguments):
                read += loads(x)
                of = arrays_of(x)
                if of is not None and (reads is None or k in reads):
                    read.append(of)
                if of is not None and (writes is None or k in writes):
                    written.append(of)
        case Point(_, _, condition, a, b):
            read += [*loads(condition), *loads(a), *loads(b)]
    found = Touched(frozenset(a.name for a in read), frozenset(a.name for a in written))
    for x in nested:
        found |= _touched_by(x)
    return found


def assigned(body: Iterable[Any]) -> set[Name]:
    """The names that statements give a new value."""
    found: set[Name] = set()
    for s in body:
        match s:
            case Assign(name):
                found.add(name)
            case For(body=inner) | Steps(inner):
                found |= assigned(inner)
            case If(_, inner, other):
                found |= assigned([*inner, *other])
    return found


# ---- the threads of a block -----------------------------------------------------------------


@record
class _Since:
    """What was written, and read, by some thread since the last barrier."""

    written: frozenset[str] = frozenset()
    read: frozenset[str] = frozenset()

    def __or__(self, other: _Since) -> _Since:
        return _Since(self.written | other.written, self.read | other.read)


class Threads:
    """The statements of a worker for the threads of its block.

    blocks    whether blocks meet where the statements do; otherwise only the threads of one
    among     how many of them do, and which of them the block is, where that is not all
    """

    def __init__(self, blocks: bool, among: tuple[Any, ...] = ()) -> None:
        self._blocks, self._among = blocks, among
        self._roots: dict[str, frozenset[str]] = {}  # what an array may be
        self._breaks: list[_Since] = []  # at the ends that a loop comes to on the way

    def statements(self, body: Sequence[Any]) -> tuple[Any, ...]:
        self._find_roots(body)
        return self._block(body, _Since())[0]

    def _find_roots(self, body: Sequence[Any]) -> None:
        for s in body:
            match s:
                case Point(array, _, _, (a, _), (b, _)):
                    self._roots[array.name] = self._root(a.name) | self._root(b.name)
                case For(body=inner) | Steps(inner):
                    self._find_roots(inner)
                case If(_, inner, other):
                    self._find_roots([*inner, *other])

    def _root(self, name: str) -> frozenset[str]:
        return self._roots.get(name, frozenset([name]))

    def _touched(self, s: Any) -> Touched:
        found = _touched_by(s)
        return Touched(
            frozenset(r for n in found.read for r in self._root(n)),
            frozenset(r for n in found.written for r in self._root(n)),
        )

    def _block(self, body: Sequence[Any], since: _Since) -> tuple[tuple[Any, ...], _Since]:
        out: list[Any] = []
        for s in body:
            made, since = self._statement(s, since)
            out += made
        return tuple(out), since

    def _statement(self, s: Any, since: _Since) -> tuple[list[Any], _Since]:
        match s:
            case Steps(inner):
                made, since = self._loop(inner, since)
                return [Steps(made)], since
            case For() if s.fold is not None:
                return self._after(s, since, [*self._fold(s)])
            case For() if (shared := shared_loops(s)) is not None:
                if shared.by == "threads":
                    shared = replace(shared, body=tuple(self._loads_first(shared.body)))
                return self._after(s, since, [shared])
            case For():
                return self._serial(s, since)
            case If():
                return self._choice(s, since)
            case Use(name, arguments) if name == _MEETING:
                met = Meet(arguments[0], self._among) if self._blocks else Barrier()
                return [met], _Since()
            case Use(name) if routine(name) in TOGETHER:
                return self._after(s, since, [s])
            case Use() | Store():
                return self._after(s, since, [Alone((s,))])
            case Return(value):
                return self._after(s, since, ended(value))
            case Break():
                self._breaks.append(since)
                return [s], since
        return self._after(s, since, [s])

    def _after(self, s: Any, since: _Since, made: list[Any]) -> tuple[list[Any], _Since]:
        """A statement's own, behind a barrier where it needs one."""
        touched = self._touched(s)
        clash = (touched.read | touched.written) & since.written or touched.written & since.read
        if clash:
            made, since = [Barrier(), *made], _Since()
        return made, since | _Since(touched.written, touched.read)

    def _loads_first(self, body: Iterable[Any]) -> Iterator[Any]:
        """A thread's statements, in each straight run of them those first that only load and those
        last that only store: so it waits for memory once, and not anew behind each store, which
        might be to what is loaded next. What may be one memory is touched in its old order."""
        run: list[Let | Store] = []
        for s in body:
            if isinstance(s, Let | Store):
                run.append(s)
                continue
            yield from self._sorted(run)
            run = []
            yield s
        yield from self._sorted(run)

    def _sorted(self, run: Sequence[Let | Store]) -> list[Let | Store]:
        early: list[Let | Store] = []
        rest: list[Let | Store] = []
        computed: set[str] = set()
        written: frozenset[str] = frozenset()
        for s in run:
            touched = self._touched(s)
            if isinstance(s, Let):
                fixed = isinstance(s.value, Load) and not set(names(s.value.offset)) & computed
                if fixed and not touched.read & written:
                    early.append(s)
                    continue
                computed.add(s.name.text)
            written |= touched.written
            rest.append(s)
        late: list[Let | Store] = []
        middle: list[Let | Store] = []
        later: frozenset[str] = frozenset()  # touched by what stays behind
        for s in reversed(rest):
            touched = self._touched(s)
            if isinstance(s, Store) and not touched.read and not touched.written & later:
                late.append(s)
            else:
                middle.append(s)
                later |= touched.read | touched.written
        return [*early, *reversed(middle), *reversed(late)]

    def _loop(self, body: Sequence[Any], since: _Since) -> tuple[tuple[Any, ...], _Since]:
        """A loop that all threads go through together: a step may follow another."""
        before = since
        outer = self._breaks
        while True:
            self._breaks = []
            made, end = self._block(body, before)
            if end | before == before:
                break
            before |= end
        for at in self._breaks:
            before |= at
        self._breaks = outer
        return made, before

    def _serial(self, s: For, since: _Since) -> tuple[list[Any], _Since]:
        """A loop whose steps need each other: what is in it may be shared out."""
        head = self._after(Let(s.index, s.extent), since, [])
        made, since = self._loop(s.body, head[1])
        if _only_writes(s):
            return self._after(s, head[1], [*head[0], Alone((s,))])
        return [*head[0], replace(s, body=made)], since

    def _choice(self, s: If, since: _Since) -> tuple[list[Any], _Since]:
        head, since = self._after(Let(Name("condition"), s.condition), since, [])
        body, a = self._block(s.body, since)
        other, b = self._block(s.other, since)
        return [*head, If(s.condition, body, other)], a | b

    def _fold(self, s: For) -> Iterator[Any]:
        """A sum that all threads need: each adds some of its terms."""
        assert s.fold is not None
        loops, body = chain_of(s)
        yield shared_out(loops, _of_one_thread(body), "threads")
        yield Combine(s.fold.name, s.fold.scalar, "block")


def ended(value: Any) -> list[Any]:
    """The end of a kernel, after so many steps or where a check failed."""
    return [Fail() if value == FAILED else Finish(value), Leave()]


def _only_writes(s: For) -> bool:
    """Whether a loop has no effect but in memory, and nothing in it is to be shared out."""

    def plain(body: Iterable[Any]) -> bool:
        for x in body:
            match x:
                case For(body=inner):
                    if x.apart or not plain(inner):
                        return False
                case If(_, inner, other):
                    if not plain([*inner, *other]):
                        return False
                case Use(name) if name == _MEETING or routine(name) in TOGETHER:
                    return False
                case Return() | Point():
                    return False
        return True

    def declared(body: Iterable[Any]) -> set[Name]:
        found: set[Name] = set()
        for x in body:
            match x:
                case Declare(name):
                    found.add(name)
                case For(body=inner):
                    found |= declared(inner)
                case If(_, inner, other):
                    found |= declared([*inner, *other])
        return found

    return plain(s.body) and assigned(s.body) <= declared(s.body)


def chain_of(s: For) -> tuple[list[For], tuple[Any, ...]]:
    """Loops of which each is all there is in the one around it, and what is in the innermost."""
    loops = [s]
    while len(s.body) == 1 and isinstance(s.body[0], For) and s.body[0].fold == s.fold:
        s = s.body[0]
        loops.append(s)
    return [replace(x, body=()) for x in loops], s.body


def shared_loops(s: For, by: str = "threads") -> Share | None:
    """A loop nest with the loops shared out whose steps are apart; None where there are none."""
    loops, body = chain_of(s)
    apart = tuple(x for x in loops if x.apart)
    if not apart:
        return None
    for x in reversed([x for x in loops if not x.apart]):
        body = (replace(x, body=tuple(body)),)
    if len(apart) == len(loops) and is_of_a_warp(body):
        return shared_out(apart, _of_a_warp(body), "warps" if by == "threads" else by + "_warps")
    return shared_out(apart, _of_one_thread(body), by)


def shared_out(loops: Sequence[For], body: Iterable[Any], by: str) -> Share:
    """Loops that are shared out; with how many steps each has."""
    sizes = tuple(binary("sub", x.extent, x.start) for x in loops)
    return Share(tuple(loops), tuple(body), by, sizes)


def is_of_a_warp(body: Sequence[Any]) -> bool:
    """Whether a warp's lanes can do a step together: there are sums in it, and nothing else that
    takes long."""
    kinds = [type(s) for s in body]
    folds = [s for s in body if isinstance(s, For) and s.fold is not None and s.fold.rows]
    return bool(folds) and all(
        k in (Let, Declare, Store, If) or s in folds for k, s in zip(kinds, body)
    )


def _of_a_warp(body: Sequence[Any]) -> Iterator[Any]:
    for s in body:
        match s:
            case For(fold=Fold(name, scalar)):
                loops, inner = chain_of(s)
                yield shared_out(loops, _of_one_thread(inner), "lanes")
                yield Combine(name, scalar, "warp")
            case Store():
                yield Alone((s,), True)
            case If():
                yield from _of_one_thread([s])
            case _:
                yield s


def _of_one_thread(body: Sequence[Any]) -> Iterator[Any]:
    """What a thread does by itself in a step of a loop that is shared out."""
    for s in body:
        match s:
            case If(condition, inner, other):
                if any(x == Return(FAILED) for x in inner):
                    yield If(condition, (Fail(), Continue()))
                else:
                    yield If(condition, tuple(_of_one_thread(inner)), tuple(_of_one_thread(other)))
            case For():
                yield replace(s, body=tuple(_of_one_thread(s.body)))
            case Remark():
                pass
            case _:
                yield s
