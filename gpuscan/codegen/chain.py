"""A loop for one thread a row: its states are in the thread's registers, and it meets nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..graph import Variable
from ..ops.linalg import Dot
from ..scan.op import Step
from .kernel import Array, Name, product, row_major
from .loop import Loop, constant_rows
from .lower import Memory
from .plan import NotLowered, deep
from .program import Carry, LoopProgram, Scratch


@deep()
def lower_chain(node: Variable, name: str) -> tuple[LoopProgram, list[Variable]]:
    """As `lower_loop`, for threads each of which has a row of the states, or all of a state
    without rows. Raises NotLowered where rows need each other."""
    whole, reason = _Chain(node, None), ""
    for rows in dict.fromkeys((None, constant_rows(node))):
        loop = whole if rows is None else _Chain(node, rows)
        if loop.row_size() is None:
            continue
        program = loop.program(name)
        if program.rows_apart is not None:
            return program, loop.outer_sizes
        reason = program.schedule.reason
    if whole.row_size() is not None:
        raise NotLowered(reason)
    return whole.program(name), whole.outer_sizes


class _Chain(Loop):
    in_registers = True

    def __init__(self, node: Variable, rows: int | None) -> None:
        super().__init__(node, "each thread has its own rows", rows, False)
        self._turned: list[tuple[Memory, Memory, Memory, list[Any]]] = []

    def whole(
        self, v: Variable, stored: dict[Variable, Memory], results: Sequence[Variable]
    ) -> None:
        if isinstance(v.op, Dot):
            self.products(v, stored)  # no larger than a thread's registers
        else:
            super().whole(v, stored, results)

    def wanted(
        self, step: Step, rows: Sequence[Memory | None], nexts: Sequence[Memory | None]
    ) -> list[tuple[Variable, Memory | None]]:
        return [*zip(step.new, nexts), *zip(step.traces, rows)]

    def array_carry(
        self, j: int, initial: Array, traces: Sequence[Array], apart: Sequence[Name]
    ) -> tuple[Carry, Memory | None]:
        p = self.op.step.carries[j]
        shape = self.sizes(p)
        own = []
        for letter, end in (("c", "_now"), ("d", "_next")):
            array = Array(self.label(p, f"{letter}{j}", end), p.dtype)
            self.pointer(array, True, Scratch(product(shape), p.dtype))
            own.append(Memory(array, row_major(shape)))
        now, then = own
        self.memory[p] = now
        outside = Memory(initial, row_major(shape))
        self.before += self._copied(outside, now, shape)
        self._turned.append((now, then, outside, shape))
        return Carry("place", p.dtype, tuple(shape)), then

    def turn(self) -> list[Any]:
        after: list[Any] = []
        for now, then, outside, shape in self._turned:
            self.move(then, now, shape)
            after += self._copied(now, outside, shape)
        return after

    def _copied(self, source: Memory, target: Memory, shape: Sequence[Any]) -> list[Any]:
        with self.block() as statements:
            self.move(source, target, shape)
        return list(statements)
