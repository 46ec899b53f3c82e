"""A nest outside of loops as one CUDA kernel: its positions are shared out over the whole grid."""

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
    Return,
    Store,
    Use,
    binary,
    product,
    row_major,
)
from .launches import FOLD_BYTES, LAST, THREADS, kernel_launch, of_one_thread
from .limits import Limits
from .program import (
    Done,
    Held,
    Launch,
    Meeting,
    NestProgram,
    Scratch,
    size_value,
)
from .threads import Known, Threads, chain_of, shared_loops


def nest_launch(program: NestProgram, values: Mapping[str, int], limits: Limits) -> Launch:
    """The kernel of a nest: its positions shared out over the whole grid, or over one block where
    it is one sum."""
    names = {"first": Number(0)}
    body = [s for s in Known(names).statements(program.kernel.body) if not isinstance(s, Return)]
    nests = [s for s in body if isinstance(s, For)]
    threads = min(THREADS, limits.threads_block)
    whole = shared_loops(nests[0], "grid") if len(nests) == 1 and nests[0].fold is None else None
    results = [product(shape) for _, shape in program.shapes]
    count = max([size_value(s, values) for s in results], default=1)
    pointers: list[tuple[Pointer, Any]] = []
    prologue: list[Any] = []
    for pointer, source in zip(program.kernel.pointers, program.pointers):
        elements = size_value(source.elements, values) if isinstance(source, Scratch) else 0
        pointers.append((pointer, Held(source, 1, elements, pointer.array.dtype)))
    pointers.append((Pointer(Array("done", "int64"), True), Done()))
    first = program.shapes[0][1]
    last = size_value(first[0], values) if first else 1
    integers: list[tuple[Name, Any]] = [(LAST, last)]
    integers += [(n, values[n.text]) for n in program.kernel.integers]
    grid, shared = 1, FOLD_BYTES
    split = _split(body, values, limits, threads)
    if split is not None:
        made, grid = split.body, split.grid
        pointers += split.pointers
        integers.append((SLICES, split.slices))
    elif whole is not None:
        per_step = limits.warp if whole.by.endswith("warps") else 1
        most = limits.multiprocessors * max(1, limits.threads_multiprocessor // threads)
        grid = max(1, min(most, -(-count * per_step // threads)))
        made = []
        for s in body:
            made += [whole] if s is nests[0] else of_one_thread([s])
    else:
        prologue = [Use("GS_SHARED", (Name("shared"),))]
        made = list(Threads(False).statements(body))
    return kernel_launch(
        program.kernel.name, [*prologue, *made], pointers, integers,
        (grid, threads, shared, False), "launch", "", 0,
    )  # fmt: skip


# ---- sums that many blocks share --------------------------------------------------------------

SLICE, SLICES = Name("slice"), Name("slices")
LEAST_ROW, LEAST_COLUMN = 1024, 64  # terms of a slice: of a warp's and of a thread's


@record
class _Split:
    body: list[Any]
    pointers: list[tuple[Pointer, Any]]
    grid: int
    slices: int


def _split(
    body: Sequence[Any], values: Mapping[str, int], limits: Limits, threads: int
) -> _Split | None:
    """A few sums of many terms in slices: each is added up by itself, and the last block to end
    adds up what the slices gave. None where there is something else to do, or no need."""
    outer: list[For] = []
    ahead = [s for s in body if isinstance(s, Let | If)]
    inside = [s for s in body if not isinstance(s, Let | If)]
    if len(inside) == 1 and isinstance(inside[0], For) and inside[0].apart:
        outer, inner = chain_of(inside[0])
        inside = list(inner)
    match inside:
        case [Declare(total, start), For(fold=Fold(name, scalar, rows)) as s, Store() as end]:
            out, at, value = end.array, end.offset, end.value
            if not (total == name == value) or not all(x.apart for x in outer):
                return None
        case _:
            return None
    loops, terms = chain_of(s)
    if any(x.start != Number(0) for x in (*outer, *loops)):
        return None
    count, length = (size_value(product([x.extent for x in xs]), values) for xs in (outer, loops))
    workers = limits.multiprocessors * (limits.threads_multiprocessor // threads) * threads
    workers //= limits.warp if rows else 1
    slices = min(workers // max(1, count), length // (LEAST_ROW if rows else LEAST_COLUMN))
    if slices < 2 or not count:
        return None
    partial, counter = Array("partial", name.dtype), Array("counter", "int64")
    place = binary("mul", SLICE, product([x.extent for x in outer]))
    for x, stride in zip(outer, row_major([x.extent for x in outer])):
        place = binary("add", place, binary("mul", x.index, stride))
    whole, term = product([x.extent for x in loops]), Name("term")
    indices = [
        Let(x.index, binary("mod", binary("int_div", term, stride), x.extent))
        for x, stride in zip(loops, row_major([x.extent for x in loops]))
    ]
    part = For(
        term, (SLICE + 1) * whole // SLICES, (*indices, *terms),
        start=SLICE * whole // SLICES, fold=s.fold,
    )  # fmt: skip
    slice_loop = For(SLICE, SLICES, (Declare(total, start), part, Store(partial, place, total)))
    every = [replace(slice_loop, apart=True, body=()), *outer]
    one = shared_loops(_around(every, slice_loop.body), "grid")
    combined = Call(scalar, (total, Load(partial, place)), name.dtype, name.dtype)
    over = For(SLICE, SLICES, (Assign(total, combined),), fold=replace(s.fold, rows=True))
    last = outer or [For(Name("only"), Number(1), (), apart=True)]
    two = shared_loops(_around(last, (Declare(total, start), over, Store(out, at, total))))
    grid = -(-count * slices * (limits.warp if rows else 1) // threads)
    held = Held(Scratch(Number(0), name.dtype), 1, count * slices, name.dtype)
    return _Split(
        [*of_one_thread(ahead), one, LastBlock(counter), two],
        [(Pointer(partial, True), held), (Pointer(counter, True), Held(Meeting()))],
        grid, slices,
    )  # fmt: skip


def _around(loops: Sequence[For], body: Sequence[Any]) -> For:
    found = tuple(body)
    for x in reversed(loops):
        found = (replace(x, body=found),)
    return found[0]
