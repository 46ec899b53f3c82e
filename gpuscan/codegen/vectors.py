"""Loops that run in vectors: what keeps a compiler from it is taken out of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..record import replace
from .kernel import (
    Array,
    Assign,
    Binary,
    Call,
    Choose,
    Declare,
    For,
    Let,
    Load,
    Local,
    Name,
    Number,
    Store,
    binary,
    names,
)
from .known import Known

_MOST_CUTS = 4  # of a loop; each is one more text of its body
_MOST_STATEMENTS = 200  # of all these texts
_FEW = 4  # turns that are not worth a vector
_MOST_FETCHED = 8192  # bytes, of one row of a value


def in_vectors(loop: For) -> list[Any]:
    """The loop in parts, and what goes before it, that a compiler can make vectors of."""
    before, body = _positions_before(loop.index, loop.body)
    loop = replace(loop, body=tuple(body))
    fetch, loop = _fetched(loop)
    return [*before, *fetch, *_cut(loop)]


def _fetched(loop: For) -> tuple[list[Any], For]:
    """Loops that fetch what is read at positions with a choice, such as what is rolled, and the
    loop that reads it from there: so a loop over functions stays whole."""
    comparisons, turns = _comparisons(loop), binary("sub", loop.extent, loop.start)
    if not comparisons or not isinstance(turns, Number) or not _has_functions(loop.body):
        return [], loop
    chosen: set[str] = set()  # the positions with a choice
    positions, fetches, rest = [], [], []
    for s in loop.body:
        match s:
            case Let(Name(text, "int64"), value) if _chooses(value, loop.index, chosen):
                if not _is_position(value):
                    return [], loop
                chosen.add(text)
                positions.append(s)
            case Let(name, Load(_, offset)) if _chooses(offset, loop.index, chosen):
                size = turns.value * np.dtype(name.dtype).itemsize
                if not _is_position(offset) or size > _MOST_FETCHED:
                    return [], loop
                row = Array(f"{name.text}_row", name.dtype)
                here = binary("sub", loop.index, loop.start)
                fetches.append((Local(row, int(turns.value)), Store(row, here, s.value)))
                rest.append(Let(name, Load(row, here)))
            case _ if any(_compared(s, loop.index)) or not chosen.isdisjoint(_names(s)):
                return [], loop
            case _:
                rest.append(s)
    fetch = replace(loop, body=(*positions, *(store for _, store in fetches)))
    return [*(row for row, _ in fetches), *_cut(fetch)], replace(loop, body=tuple(rest))


def _cut(loop: For) -> Iterator[For]:
    """The loop as loops one after another, in each of which the comparisons of its index with
    numbers have one result: there what is rolled, padded or joined is read without a choice."""
    comparisons = _comparisons(loop)
    cuts = sorted({_change(c) for c in comparisons})
    begin = loop.start.value if isinstance(loop.start, Number) else -math.inf
    cuts = [p for p in cuts if p > begin]
    if isinstance(loop.extent, Number):
        cuts = [p for p in cuts if p < loop.extent.value]
    plain = all(isinstance(s, Let | Declare | Store) for s in loop.body)
    too_long = (len(cuts) + 1) * len(loop.body) > _MOST_STATEMENTS
    if not cuts or not plain or len(cuts) > _MOST_CUTS or too_long:
        yield loop
        return
    for k in range(len(cuts) + 1):
        start, extent = loop.start, loop.extent
        if k:
            p = Number(cuts[k - 1])
            start = p if isinstance(start, Number) else (start < p).choose(p, start)
        if k < len(cuts):
            p = Number(cuts[k])
            extent = p if isinstance(extent, Number) else (extent < p).choose(extent, p)
        reached = cuts[k - 1] if k else begin
        results = {
            c: Number((c.op in ("lt", "le")) == (_change(c) > reached), "bool") for c in comparisons
        }
        body = Known({}, results).statements(loop.body)
        turns = binary("sub", extent, start)
        few = isinstance(turns, Number) and turns.value < _FEW
        yield replace(loop, start=start, extent=extent, body=body, lanes=not few)


def _comparisons(loop: For) -> set[Binary]:
    return {c for s in loop.body for c in _compared(s, loop.index)}


def _compared(x: Any, index: Name) -> Iterator[Binary]:
    """The comparisons of the index, or the index and a number, with a number."""
    match x:
        case Let(_, e) | Declare(_, e):
            yield from _compared(e, index)
        case Store(_, offset, value):
            yield from _compared(offset, index)
            yield from _compared(value, index)
        case Binary("lt" | "le" | "gt" | "ge", a, Number()) if _shift(a, index) is not None:
            yield x
        case Load(_, offset):
            yield from _compared(offset, index)
        case Binary(_, a, b):
            yield from _compared(a, index)
            yield from _compared(b, index)
        case Call(_, operands):
            for e in operands:
                yield from _compared(e, index)
        case Choose(a, b, c):
            for e in (a, b, c):
                yield from _compared(e, index)


def _shift(e: Any, index: Name) -> int | None:
    """What is added to the index in e, if that is all it is."""
    match e:
        case Name():
            return 0 if e == index else None
        case Binary("add" | "sub" as op, a, Number(value)) if a == index:
            return int(value) if op == "add" else -int(value)
    return None


def _change(c: Binary) -> int:
    """The first position at which a comparison has its other result."""
    shift = _shift(c.a, c.a if isinstance(c.a, Name) else c.a.a)
    assert shift is not None
    return int(c.b.value) - shift + (c.op in ("le", "gt"))


def _positions_before(index: Name, body: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The positions in a loop's body that are the same at each turn, and the rest of it."""
    before: list[Any] = []
    rest: list[Any] = []
    inside = {index.text}
    for s in body:
        match s:
            case Let(Name(_, "int64"), value) if _is_position(value) and inside.isdisjoint(
                names(value)
            ):
                before.append(s)
            case Let(name) | Declare(name):
                inside.add(name.text)
                rest.append(s)
            case _:
                rest.append(s)
    return before, rest


def _chooses(e: Any, index: Name, chosen: set[str]) -> bool:
    """Whether a position depends on a comparison of the index."""
    return any(_compared(e, index)) or not chosen.isdisjoint(names(e))


def _names(s: Any) -> set[str]:
    """The names that a statement uses."""
    match s:
        case Let(_, e) | Declare(_, e) | Assign(_, e):
            return set(names(e))
        case Store(_, offset, value):
            return {*names(offset), *names(value)}
    return set()


def _has_functions(body: Sequence[Any]) -> bool:
    """Whether there is a function of `kernels/` in it, which costs much outside of vectors."""

    def inside(e: Any) -> bool:
        match e:
            case Call(scalar, operands):
                return "{t}" in scalar.c or any(map(inside, operands))
            case Choose(a, b, c):
                return any(map(inside, (a, b, c)))
        return False

    return any(inside(s.value) for s in body if isinstance(s, Let | Declare | Store))


def _is_position(e: Any) -> bool:
    """Whether an expression can be computed wherever its names are known."""
    match e:
        case Choose(a, b, c):
            return all(map(_is_position, (a, b, c)))
        case Binary(op, a, b):
            return op not in ("int_div", "mod") and _is_position(a) and _is_position(b)
    return isinstance(e, Name | Number)
