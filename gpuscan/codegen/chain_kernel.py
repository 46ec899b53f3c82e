"""A loop as one CUDA kernel of scope thread: each thread has a row of states, in its registers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..record import replace
from .block_kernel import whole_units
from .kernel import For, If, Leave, Let, Local, Name, Number, Shift, Steps, Use, binary, product
from .known import Known
from .launches import DoesNotFit, Parameters, Sized, of_one_thread
from .limits import Limits
from .program import FirstRow, Held, Launch, Scratch, Size, State, Trace, Unit
from .threads import routine
from .weights import panels

CHAIN_THREADS = 128  # of a block, at most
CHAIN_WORDS = 128  # of 4 bytes: what a thread's states and values may take of its registers
FEW_WORDS = 64  # where there are more, and few rows, the threads of a block share a row's work


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
    threads = min(CHAIN_THREADS, limits.threads_block)
    count = 1 if rows is None else chain.values[rows]
    few = limits.multiprocessors * limits.warp
    if words + weights > FEW_WORDS and rows is not None and count < few:
        raise DoesNotFit(f"{words} words of state and values are much for each of {count} threads")
    names: dict[str, Any] = {"first": Number(0)}
    for name, source in zip(program.kernel.integers, program.integers):
        match source:
            case Size() if name.text == rows:
                names[name.text] = Number(1)
            case Size():
                names[name.text] = Number(chain.values[name.text])
            case FirstRow():
                names[name.text] = Name("row")
            case Unit():
                raise DoesNotFit("units are shared")
    parameters, known = Parameters(chain), Known(names)
    prologue: list[Any] = [Let(Name("row"), Name("gs_thread()"))]
    total: Any = Number(1) if rows is None else parameters.integer(Name("rows"), count)
    prologue.append(If(Name("row") >= total, (Leave(),)))
    # as many multiprocessors as there are rows for, by whole warps
    warps = -(-count // (limits.multiprocessors * limits.warp))
    threads = min(threads, max(1, warps) * limits.warp)
    grid = -(-count // threads)
    for k, (pointer, source) in enumerate(zip(program.kernel.pointers, program.pointers)):
        array = pointer.array
        if isinstance(source, Scratch):
            prologue.append(Local(array, max(1, chain.value(source.elements, one))))
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
    body = of_one_thread(_own_draws(known.statements(program.kernel.body)))
    reason = "its rows need no other rows, so each is one thread's, in registers"
    if rows is None:
        reason = "its states fit one thread's registers"
    made = parameters.launch(
        [*prologue, *body], "thread", reason, grid, threads, 0, names.keys() - {"row"}
    )
    return replace(made, most=tuple(one.items()))


def _own_draws(body: Sequence[Any]) -> Iterator[Any]:
    for s in body:
        match s:
            case Use(name, arguments) if routine(name) == "gs_uniforms":
                yield Use(name.replace("gs_uniforms", "gs_own_uniforms"), arguments)
            case For() | Steps():
                yield replace(s, body=tuple(_own_draws(s.body)))
            case If(condition, inner, other):
                yield If(condition, tuple(_own_draws(inner)), tuple(_own_draws(other)))
            case _:
                yield s
