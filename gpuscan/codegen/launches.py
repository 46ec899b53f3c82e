"""Kernels of CUDA with what they are given: what every scope shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..record import record, replace
from .kernel import (
    Array,
    For,
    If,
    InShared,
    Kernel,
    Leave,
    Let,
    Name,
    Number,
    Pointer,
    Return,
    Shift,
    Steps,
    binary,
    product,
)
from .program import (
    Done,
    Given,
    Held,
    Launch,
    LoopLength,
    LoopProgram,
    Size,
    State,
    Step,
    Stride,
    Trace,
    size_value,
)
from .render import CUDA, Renderer
from .threads import ended

THREADS = 256  # of a block
FOLD_BYTES = 256  # of shared memory, for sums over a block: an element a warp
MET_PLACE = FOLD_BYTES - 8  # in them, behind those: how often blocks have met
LAST = Name("last")


class DoesNotFit(Exception):
    """A loop that has no kernel of a scope, and why."""


@record
class Sized:
    """A loop's program with its integers, by their names."""

    program: LoopProgram
    values: Mapping[str, int]

    @property
    def rows(self) -> str | None:
        """The name of the number of rows that need no other rows."""
        k = self.program.rows_apart
        return None if k is None else self.program.kernel.integers[k].text

    def value(self, size: Any, changed: Mapping[str, int] | None = None) -> int:
        return size_value(size, {**self.values, **(changed or {})})


def of_one_thread(body: Any) -> list[Any]:
    """Statements of one thread, which ends when it returns."""
    found: list[Any] = []
    for s in body:
        match s:
            case Return(value):
                found += ended(value)
            case For() | Steps():
                found.append(replace(s, body=tuple(of_one_thread(s.body))))
            case If(condition, inner, other):
                found.append(
                    If(condition, tuple(of_one_thread(inner)), tuple(of_one_thread(other)))
                )
            case _:
                found.append(s)
    return found


# ---- parameters


class Parameters:
    """What a kernel is given, while it is put together."""

    def __init__(self, loop: Sized) -> None:
        self.loop, self.program = loop, loop.program
        self.pointers: list[tuple[Pointer, Any]] = []
        self.integers: list[tuple[Name, Any]] = []

    def pointer(self, pointer: Pointer, held: Held) -> None:
        self.pointers.append((pointer, held))

    def integer(self, name: Name, value: int) -> Name:
        if all(n != name for n, _ in self.integers):
            self.integers.append((name, value))
        return name

    def stride(self, source: Any, axis: int) -> Any:
        """How far apart positions along an axis of an array are, in elements."""
        match source:
            case Given(k):
                for name, s in zip(self.program.kernel.integers, self.program.integers):
                    if s == Stride(k, axis):
                        return name
                return Number(1)
            case Trace(i):
                return product(self.program.rows[i][1][axis:])
            case State(j):
                return product(self.program.carries[j].shape[axis + 1 :])
        raise TypeError(source)

    def size(self, source: Any) -> Any:
        """The elements of a trace or a state."""
        if isinstance(source, State):
            return product(self.program.carries[source.carry].shape)
        return binary("mul", LAST, product(self.program.rows[source.trace][1]))

    def launch(
        self, body: Sequence[Any], scope: str, reason: str, grid: int, block: int, shared: int,
        known: Any, meetings: int = 0,
    ) -> Launch:  # fmt: skip
        pointers = [*self.pointers, (Pointer(Array("done", "int64"), True), Done())]
        integers: list[tuple[Name, Any]] = [(LAST, LoopLength()), *self.integers]
        for name, source in zip(self.program.kernel.integers, self.program.integers):
            if isinstance(source, Step):
                row = product(self.program.rows[source.trace][1])
                integers.append((name, self.loop.value(row)))
            elif name.text not in known and isinstance(source, Size | Stride):
                integers.append((name, self.loop.values[name.text]))
        integers = list(dict(integers).items())
        return kernel_launch(
            self.program.kernel.name, body, pointers, integers,
            (grid, block, shared, scope == "grid"), scope, reason, meetings,
        )  # fmt: skip


def kernel_launch(
    name: str, body: Sequence[Any], pointers: Sequence[tuple[Pointer, Any]],
    integers: Sequence[tuple[Name, Any]], shape: tuple[int, int, int, bool], scope: str,
    reason: str, meetings: int,
) -> Launch:  # fmt: skip
    """The launch of a kernel, whose parameters are those that its text needs."""
    renderer = Renderer(CUDA)
    needed, used = _needed(body, renderer)
    kernel = Kernel(
        name, tuple(p for p, _ in pointers), tuple(n for n, _ in integers), needed, shape[1]
    )
    arguments = [held for p, held in pointers if p.array.name in used]
    arguments += [value for n, value in integers if n.text in used]
    grid, block, shared, cooperative = shape
    return Launch(
        name, renderer.source([kernel]), tuple(arguments), grid, block, shared, cooperative,
        scope, reason, meetings,
    )  # fmt: skip


def _needed(body: Sequence[Any], renderer: Renderer) -> tuple[tuple[Any, ...], set[str]]:
    """The statements but for names and places that no later one reads, and a last return; and the
    words of their text."""
    found: list[Any] = []
    used: set[str] = set()
    for s in reversed(body):
        match s:
            case Let(name) if name.text not in used:
                continue
            case Shift(array) | InShared(array) if array.name not in used:
                continue
            case Leave() if not found:
                continue
        found.append(s)
        used |= renderer.words([s])
    return tuple(reversed(found)), used
