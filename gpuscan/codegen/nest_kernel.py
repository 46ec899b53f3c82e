"""Nests outside of loops as one CUDA kernel: their positions are shared out over the whole grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..record import record, replace
from .kernel import (
    Array,
    Assign,
    Call,
    Declare,
    Fold,
    For,
    If,
    LastBlock,
    Let,
    Load,
    Name,
    Number,
    Pointer,
    Share,
    Store,
    Use,
    binary,
    product,
    row_major,
)
from .known import Known
from .launches import FOLD_BYTES, THREADS, kernel_launch, of_one_thread
from .limits import Limits
from .program import (
    Done,
    Held,
    Launch,
    Meeting,
    NestProgram,
    Piece,
    Scratch,
    size_value,
)
from .threads import Threads, chain_of, shared_loops


def nest_launch(program: NestProgram, values: Mapping[str, int], limits: Limits) -> Launch:
    """The kernel of a nest: the positions of each piece are shared out over the whole grid, or over
    one block where it is one sum, or what is no more than that."""
    threads = min(THREADS, limits.threads_block)
    pointers: list[tuple[Pointer, Any]] = []
    for pointer, source in zip(program.kernel.pointers, program.pointers):
        elements = size_value(source.elements, values) if isinstance(source, Scratch) else 0
        pointers.append((pointer, Held(source, 1, elements, pointer.array.dtype)))
    pointers.append((Pointer(Array("done", "int64"), True), Done()))
    integers: list[tuple[Name, Any]] = [(n, values[n.text]) for n in program.kernel.integers]
    ahead, bodies = list(program.before), [_body(piece) for piece in program.pieces]
    most = limits.multiprocessors * max(1, limits.threads_multiprocessor // threads)
    least = LEAST_SLICES if len(bodies) == 1 else 1
    grid, shared, split = 1, [], []
    for k, (piece, body) in enumerate(zip(program.pieces, bodies)):
        found = _split(body, values, limits, threads, least, f"{k or ''}")
        if found is not None:
            split.append(found)
            pointers += found.pointers
            integers.append((found.name, found.slices))
            grid = max(grid, found.grid)
        elif (whole := _whole(body)) is not None:
            count = size_value(product(piece.work), values)
            per_step = limits.warp if whole.by.endswith("warps") else 1
            grid = max(grid, min(most, -(-count * per_step // threads)))
            ahead += [s for s in body if not isinstance(s, For)]
            shared.append(whole)
        else:
            assert len(bodies) == 1, "pieces that can't share a kernel"
            prologue = [Use("GS_SHARED", (Name("shared"),))]
            made = [*prologue, *Threads(False).statements([*ahead, *body])]
            return _launch(program, made, pointers, integers, 1, threads)
    made = [*of_one_thread(ahead), *shared]
    if split:
        made += [s for x in split for s in x.body]
        made += [LastBlock(_COUNTER), *(s for x in split for s in x.end)]
        pointers.append((Pointer(_COUNTER, True), Held(Meeting())))
    return _launch(program, made, pointers, integers, grid, threads)


def _launch(
    program: NestProgram, body: Sequence[Any], pointers: Sequence[tuple[Pointer, Any]],
    integers: Sequence[tuple[Name, Any]], grid: int, threads: int,
) -> Launch:  # fmt: skip
    return kernel_launch(
        program.kernel.name, body, pointers, integers, (grid, threads, FOLD_BYTES, False),
        "launch", "", 0,
    )  # fmt: skip


def _body(piece: Piece) -> tuple[Any, ...]:
    """A piece's statements for all of its rows."""
    return Known({piece.first.text: Number(0), piece.last.text: piece.rows}).statements(piece.body)


def _whole(body: Sequence[Any]) -> Share | None:
    """A nest that is all there is, but for names, shared out over the grid."""
    nests = [s for s in body if not isinstance(s, Let | If)]
    match nests:
        case [For(fold=None) as nest]:
            return shared_loops(nest, "grid")
    return None


def can_join(program: NestProgram) -> bool:
    """Whether the pieces of a nest are such that they can share a kernel."""
    bodies = [_body(piece) for piece in program.pieces]
    return all(_sum_of(body) is not None or _whole(body) is not None for body in bodies)


# ---- sums that many blocks share --------------------------------------------------------------

SLICE, _COUNTER = Name("slice"), Array("counter", "int64")
LEAST_ROW, LEAST_COLUMN = 256, 64  # terms of a slice: of a warp's and of a thread's
LEAST_SLICES = 4  # where there need be none: the last block, which adds them up, comes later


@record
class _Sum:
    """A sum, or several: the loops over them, the name that is added to and what it is at first,
    the loops over the terms, and where the result goes."""

    ahead: list[Any]
    outer: list[For]
    start: Declare
    over: For
    end: Store


def _sum_of(body: Sequence[Any]) -> _Sum | None:
    outer: list[For] = []
    ahead = [s for s in body if isinstance(s, Let | If)]
    inside = [s for s in body if not isinstance(s, Let | If)]
    if len(inside) == 1 and isinstance(inside[0], For) and inside[0].apart:
        outer, inner = chain_of(inside[0])
        inside = list(inner)
    match inside:
        case [Declare(total) as start, For(fold=Fold(name)) as over, Store(value=value) as end]:
            if total == name == value and all(x.apart for x in outer):
                return _Sum(ahead, outer, start, over, end)
    return None


@record
class _Split:
    """A sum in slices: what adds each of them up, and what the last block does then. name: of the
    integer that says how many there are."""

    body: list[Any]
    end: list[Any]
    pointers: list[tuple[Pointer, Any]]
    grid: int
    name: Name
    slices: int


def _split(
    body: Sequence[Any], values: Mapping[str, int], limits: Limits, threads: int, least: int,
    suffix: str,
) -> _Split | None:  # fmt: skip
    """A few sums of many terms in slices: each is added up by itself, and the last block to end
    adds up what the slices gave. None where there is something else to do, or where there would be
    fewer than `least`."""
    found = _sum_of(body)
    if found is None:
        return None
    outer, total, s, out = found.outer, found.start.name, found.over, found.end
    assert s.fold is not None
    rows = s.fold.rows
    loops, terms = chain_of(s)
    if any(x.start != Number(0) for x in (*outer, *loops)):
        return None
    count, length = (size_value(product([x.extent for x in xs]), values) for xs in (outer, loops))
    workers = limits.multiprocessors * (limits.threads_multiprocessor // threads) * threads
    workers //= limits.warp if rows else 1
    shortest = LEAST_ROW if rows else LEAST_COLUMN
    slices = max(1, min(workers // max(1, count), length // shortest))
    if slices < least or not count:
        return None
    partial, number = Array(f"partial{suffix}", total.dtype), Name(f"slices{suffix}")
    place = binary("mul", SLICE, product([x.extent for x in outer]))
    for x, stride in zip(outer, row_major([x.extent for x in outer])):
        place = binary("add", place, binary("mul", x.index, stride))
    whole, term = product([x.extent for x in loops]), Name("term")
    indices = [
        Let(x.index, binary("mod", binary("int_div", term, stride), x.extent))
        for x, stride in zip(loops, row_major([x.extent for x in loops]))
    ]
    part = For(
        term, (SLICE + 1) * whole // number, (*indices, *terms),
        start=SLICE * whole // number, fold=s.fold,
    )  # fmt: skip
    slice_loop = For(SLICE, number, (found.start, part, Store(partial, place, total)))
    every = [replace(slice_loop, apart=True, body=()), *outer]
    one = shared_loops(_around(every, slice_loop.body), "grid")
    combined = Call(s.fold.scalar, (total, Load(partial, place)), total.dtype, total.dtype)
    over = For(SLICE, number, (Assign(total, combined),), fold=replace(s.fold, rows=True))
    last = outer or [For(Name("only"), Number(1), (), apart=True)]
    two = shared_loops(_around(last, (found.start, over, out)))
    grid = -(-count * slices * (limits.warp if rows else 1) // threads)
    held = Held(Scratch(Number(0), total.dtype), 1, count * slices, total.dtype)
    return _Split(
        [*of_one_thread(found.ahead), one], [two], [(Pointer(partial, True), held)], grid, number,
        slices,
    )  # fmt: skip


def _around(loops: Sequence[For], body: Sequence[Any]) -> For:
    found = tuple(body)
    for x in reversed(loops):
        found = (replace(x, body=found),)
    return found[0]
