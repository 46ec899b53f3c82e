"""A loop as one CUDA kernel of scope thread: each thread has a row of states, in its registers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..record import replace
from .block_kernel import whole_units
from .cost import INSTRUCTIONS, PHILOX
from .kernel import (
    Array,
    Assign,
    Binary,
    Call,
    Choose,
    Declare,
    For,
    If,
    Leave,
    Let,
    Load,
    Local,
    Name,
    Number,
    Shift,
    Steps,
    Store,
    Use,
    binary,
    loads,
    names,
    product,
)
from .known import Known
from .launches import DoesNotFit, Parameters, Sized, of_one_thread
from .limits import Limits
from .program import FirstRow, Fixed, Held, Launch, Scratch, Size, State, Trace, Unit
from .threads import routine
from .weights import panels

CHAIN_THREADS = 128  # of a block, at most
_OF_ROWS = ("gs_softmax", "gs_log_softmax")  # routines that have a twin for registers
CHAIN_WORDS = 128  # of 4 bytes: what a thread's states and values may take of its registers
FEW_ELEMENTS = 16  # of an array, of which one can be found by looking at all
FEW_WORDS = 64  # where there are more, and few rows, the threads of a block share a row's work
FEW_NUMBERS = 8  # a constant array of no more is part of the text
# A loop is unrolled to so many instructions: one whose turns need each other gains only that what
# it has an index into can be in registers; of others a thread does several at once.
IN_ORDER, SIDE_BY_SIDE = 256, 4096


def chain_launch(loop: Sized, chain: Sized | None, limits: Limits) -> Launch:
    if chain is None:
        raise DoesNotFit("rows need each other, or a step has a product with weights")
    program, rows = chain.program, chain.rows
    one = {} if rows is None else {rows: 1}
    words = 0
    for source in program.pointers:
        if isinstance(source, Scratch):
            if rows is None and not isinstance(source.elements, Number):
                raise DoesNotFit("its states have sizes that are not constants")
            size = np.dtype(source.dtype).itemsize
            words += chain.value(source.elements, one) * max(1, size // 4)
    whole = {n.text: loop.value(size) for n, size in whole_units(loop.program)}
    weights = sum(loop.value(product(s), whole) for s in panels(loop.program.kernel.body).values())
    if words + weights > CHAIN_WORDS:
        held = f"{words} words of state and values"
        held += f" and {weights} of weights" if weights else ""
        raise DoesNotFit(f"{held}, and a thread has {CHAIN_WORDS}")
    most = min(CHAIN_THREADS, limits.threads_block)
    count = 1 if rows is None else chain.values[rows]
    few = limits.multiprocessors * limits.warp
    if words + weights > FEW_WORDS and rows is not None and count < few:
        raise DoesNotFit(f"{words} words of state and values are much for each of {count} threads")
    given: dict[str, Any] = {"first": Number(0)}
    for name, source in zip(program.kernel.integers, program.integers):
        match source:
            case Size() if name.text == rows:
                given[name.text] = Number(1)
            case Size():
                given[name.text] = Number(chain.values[name.text])
            case FirstRow():
                given[name.text] = Name("row")
            case Unit():
                raise DoesNotFit("units are shared")
    parameters, known = Parameters(chain), Known(given)
    prologue: list[Any] = [Let(Name("row"), Name("gs_thread()"))]
    total: Any = Number(1) if rows is None else parameters.integer(Name("rows"), count)
    prologue.append(If(Name("row") >= total, (Leave(),)))
    # as many multiprocessors as there are rows for, by whole warps
    warps = -(-count // (limits.multiprocessors * limits.warp))
    threads = min(most, max(1, warps) * limits.warp)
    grid = -(-count // threads)
    own: dict[Array, int] = {}
    for k, (pointer, source) in enumerate(zip(program.kernel.pointers, program.pointers)):
        array = pointer.array
        if isinstance(source, Scratch):
            own[array] = max(1, chain.value(source.elements, one))
            prologue.append(Local(array, own[array]))
            continue
        if isinstance(source, Fixed) and source.constant.data.size <= FEW_NUMBERS:
            prologue += _numbers(array, source.constant.data)
            continue
        axis = program.row_axes[k]
        alike = rows is not None and axis is None and isinstance(source, Trace | State)
        copies = grid * threads if alike else 1
        parameters.pointer(pointer, Held(source, copies))
        if alike:
            size = known.expression(parameters.size(source))
            prologue.append(Shift(array, binary("mul", Name("row"), size)))
        elif rows is not None and axis is not None:
            apart = known.expression(parameters.stride(source, axis))
            prologue.append(Shift(array, binary("mul", Name("row"), apart)))
    steps = tuple(_for_registers(known.statements(program.kernel.body)))
    body = of_one_thread(_Selects(own).statements(steps))
    reason = "its rows need no other rows, so each is one thread's, in registers"
    if rows is None:
        reason = "its states fit one thread's registers"
    made = parameters.launch(
        [*prologue, *body], "thread", reason, grid, most, 0, given.keys() - {"row"}
    )
    return replace(made, block=threads, most=tuple(one.items()))  # of one text for any number


def _numbers(array: Array, data: Any) -> Iterator[Any]:
    """A constant array that a compiler knows: so it knows that a random state's key stays, and
    computes what follows from that before the loop, in 20 registers a key."""
    yield Local(array, max(1, data.size))
    for k, value in enumerate(data.ravel().tolist()):
        yield Store(array, Number(k), Number(value, array.dtype))


def _for_registers(body: Sequence[Any]) -> Iterator[Any]:
    """Statements whose arrays may be in registers, which have no index: with loops unrolled."""
    for s in body:
        match s:
            case Use(name, (state, row, first, count, out)) if routine(name) == "gs_uniforms":
                if not isinstance(count, Number):
                    raise DoesNotFit("it draws as many numbers as a step computes")
                yield Use(f"gs_own_uniforms<{count.value}>", (state, row, first, out))
            case Use(name, (Number(count), row, Number(stride))) if routine(name) in _OF_ROWS:
                if count:
                    own = routine(name).replace("gs_", "gs_own_")
                    yield Use(f"{own}<{count}, {stride}>", (row,))
            case For():
                yield replace(s, body=tuple(_for_registers(s.body)), unroll=_unroll(s))
            case Steps(inner):
                yield Steps(tuple(_for_registers(inner)))
            case If(condition, inner, other):
                yield If(condition, tuple(_for_registers(inner)), tuple(_for_registers(other)))
            case _:
                yield s


class _Selects(Known):
    """Statements that take an element of an array in registers, where data say which, by looking at
    every one. A long array is in memory instead."""

    def __init__(self, own: Mapping[Array, int]) -> None:
        super().__init__({})
        self.own = {array: count for array, count in own.items() if count <= FEW_ELEMENTS}
        self.data = {"t"}  # names that are not known when the kernel is compiled

    def by_data(self, e: Any) -> bool:
        return any(True for _ in loads(e)) or not self.data.isdisjoint(names(e))

    def expression(self, e: Any) -> Any:
        e = super().expression(e)
        if not (isinstance(e, Load) and e.array in self.own and self.by_data(e.offset)):
            return e
        found: Any = Load(e.array, Number(0))
        for k in range(1, self.own[e.array]):
            found = binary("eq", e.offset, Number(k)).choose(Load(e.array, Number(k)), found)
        return found

    def _statement(self, s: Any) -> list[Any]:
        match s:
            case Store(array, offset, value) if array in self.own and self.by_data(offset):
                at = Name(f"at_{array.name}")
                terms = {offset.text: at} if isinstance(offset, Name) else {}
                value = self.expression(Known(terms, {offset: at}).expression(value))
                value = binary("eq", at, self.expression(offset)).choose(value, Load(array, at))
                stores = (Store(array, at, value),)
                return [For(at, Number(self.own[array]), stores, unroll=True)]
            case Let(name, value) | Declare(name, value) | Assign(name, value):
                if self.by_data(value):
                    self.data.add(name.text)
        return super()._statement(s)


def _unroll(s: For) -> bool | None:
    """Whether a loop's turns are to be a text each; None where a compiler may choose."""
    if s.apart or s.fold is not None:
        return True if _instructions([s]) <= SIDE_BY_SIDE else None
    return _instructions([s]) <= IN_ORDER


def _instructions(body: Sequence[Any]) -> float:
    """About how many instructions statements are, with every turn of their loops."""
    count: float = 0
    for s in body:
        match s:
            case For(extent=extent, start=start):
                turns = binary("sub", extent, start)
                if not isinstance(turns, Number):
                    return math.inf
                count += turns.value * _instructions(s.body)
            case If(_, inner, other):
                count += 1 + _instructions([*inner, *other])
            case Let(_, value) | Declare(_, value) | Assign(_, value) | Store(_, _, value):
                count += 1 + _of_functions(value)
            case Use():
                count += PHILOX
    return count


def _of_functions(e: Any) -> int:
    """The instructions of an expression, but those of positions."""
    match e:
        case Call(scalar, operands):
            return INSTRUCTIONS.get(scalar.name, 1) + sum(map(_of_functions, operands))
        case Choose(a, b, c):
            return 1 + sum(map(_of_functions, (a, b, c)))
        case Binary(_, a, b):
            return 1 + _of_functions(a) + _of_functions(b)
    return 0
