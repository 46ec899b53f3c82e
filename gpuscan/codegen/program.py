"""Launch programs: what the host does around a kernel, as data. Codegen writes them, the runtime
runs them; neither knows the other."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from ..record import record
from .kernel import Binary, Kernel, Name, Number
from .schedule import Schedule


@record
class Given:
    """Operand number i of the node. `whole`: its last axis may have any stride."""

    operand: int
    whole: bool = False


@record
class Stride:
    """The stride of an axis of an operand, in elements."""

    operand: int
    axis: int


@record
class Trace:
    """Trace number i, a row a step."""

    trace: int


@record
class State:
    """One of the two buffers of carry j: `parity` 0 holds the initial value."""

    carry: int
    parity: int


@record
class Fixed:
    """A constant of the graph; its `data` is the memory."""

    constant: Any


@record
class Scratch:
    """Memory of so many elements. `shared`: workers that share units have one of it."""

    elements: Any
    dtype: str
    shared: bool = False


@record
class Exchanged:
    """Memory of a launch in which blocks leave rows of two steps rounded for each other."""


@record
class Size:
    """Integer number k of those computed outside."""

    position: int


@record
class Step:
    """How far apart the rows of trace number i are, in elements."""

    trace: int


@record
class FirstRow:
    """The first of the rows that a thread has, where threads share a loop's rows."""


# A product's packed operand is padded to a multiple of so many columns, and its columns are shared
# out by so many.
PANEL = 64
ROWS_AHEAD = 16  # of a product: enough for the routine to be at its best
FAILED_AT = -(2**62)  # what a loop's kernel adds to the step in which a check failed, to give that


@record
class Together:
    """For how many steps a product of a sequence's rows is computed at once: ROWS_AHEAD rows, or
    one step's."""

    rows: Any  # of a step


@record
class Unit:
    """The first (`end`: the one behind the last) of the units that a worker has of an axis of
    shared size number k, where workers share a loop's units."""

    size: int
    end: bool


@record
class Meeting:
    """Where the workers that share a loop's units meet."""


@record
class Watch:
    """Where a loop in a step looks whether it is to be left."""


@record
class Carry:
    """How a carry lives: in a trace's rows, in two buffers by turns, or as a number."""

    kind: str  # "trace", "buffers" or "number"
    dtype: str
    shape: tuple[Any, ...]
    trace: int = -1


@record
class LoopProgram:
    """A loop in one kernel: run it over steps first .. last-1, as often as one likes."""

    kernel: Kernel
    pointers: tuple[Any, ...]  # Given, Trace, State, Fixed, Scratch, Meeting, Watch: each one
    integers: tuple[Any, ...]  # Size, Stride, Step, FirstRow, Together, Unit: what each integer is
    carries: tuple[Carry, ...]
    rows: tuple[tuple[str, tuple[Any, ...]], ...]  # per trace the dtype and shape of a row
    equal: tuple[tuple[Any, Any], ...]  # sizes that must be the same
    looked_up: tuple[tuple[int, Any], ...]  # operands that are positions, and in how many rows
    rows_apart: int | None  # the integer that counts rows which do not depend on each other,
    row_axes: tuple[int | None, ...]  # and the axis of each pointer's array that they are
    units: Units | None
    nested: bool  # whether there are loops in a step
    schedule: Schedule


@record
class Units:
    """How workers share the units of a step, each with all of its rows: positions along the last
    axes of its values."""

    sizes: tuple[Any, ...]  # those that are shared out
    one: tuple[bool, ...]  # per pointer whether all workers have one array
    meetings: int  # in a step
    products: tuple[tuple[Any, ...], ...]  # rows, columns and depth of those that are shared
    exchanged: tuple[tuple[str, Any], ...]  # what workers read of others: dtypes and elements


@record
class Result:
    """Result number k of a nest."""

    position: int


@record
class Piece:
    """Some of a nest kernel's results, which need none of its others. body: what computes them,
    rows `first` to before `last` of `rows` in all; where these are 1 it can't be divided. work:
    sizes whose product is the number of elements that are computed, or added up."""

    body: tuple[Any, ...]
    first: Name
    last: Name
    rows: Any
    work: tuple[Any, ...]


@record
class NestProgram:
    """Loop nests in one kernel. Positions first .. last-1 of it are rows of its pieces, which are
    counted one piece after the other. `least`: for fewer rows it is not made. `depth`: how many
    multiplications an element takes, where it is an element of a product."""

    kernel: Kernel
    pointers: tuple[Any, ...]  # Given, Result, Fixed, Scratch
    integers: tuple[Any, ...]  # Size, Stride
    shapes: tuple[tuple[str, tuple[Any, ...]], ...]  # dtype and shape of each result
    equal: tuple[tuple[Any, Any], ...]
    before: tuple[Any, ...]  # what all pieces need
    pieces: tuple[Piece, ...]
    least: int = 0
    depth: Any = None

    @property
    def is_divided(self) -> bool:
        """Whether threads can share it."""
        return len(self.pieces) > 1 or self.pieces[0].rows != Number(1)


def size_value(e: Any, integers: Mapping[str, int]) -> int:
    """The value of a size expression, from the kernel's integers by name."""
    match e:
        case Number(value):
            return int(value)
        case Name(text):
            return integers[text]
        case Binary(op, a, b):
            return _ARITHMETIC[op](size_value(a, integers), size_value(b, integers))
    raise TypeError(f"not a size: {e!r}")


_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "int_div": operator.floordiv,
}


# ---- CUDA ---------------------------------------------------------------------------------------


@record
class Held:
    """Memory of a launch: what it is (Given, Fixed, Trace, State, Scratch, Exchanged, Meeting), how
    many copies of it there are, one a block or one for all, and of how many elements (of what is
    scratch or exchanged; elsewhere the shape says it)."""

    source: Any
    copies: int = 1
    elements: int = 0
    dtype: str = ""


@record
class Done:
    """Where a kernel says how many steps it ran, and whether a check failed."""


@record
class LoopLength:
    """For how many steps a loop runs."""


@record
class Placed:
    """Where a block holds a packed operand of products, and how many bytes of it: `place` is
    "registers", "shared" or, where it is read again every step, "memory". precision: of its
    elements there, "bf16" or a dtype."""

    name: str
    place: str
    size: int
    precision: str


@record
class Launch:
    """A kernel of CUDA and how it is started: its text, and what it is given in order, `Held`,
    `Done`, `LoopLength` or an integer. shared: bytes of a block. scope and reason: how the threads
    work together; against: other scopes, and why not those. most: what a block (of scope thread: a
    thread) has at most of the sizes that are shared out. alone: seconds of a step, as predicted,
    where one block runs all of a loop whose scope was chosen by that; else 0."""

    name: str
    source: str
    arguments: tuple[Any, ...]
    grid: int
    block: int
    shared: int
    cooperative: bool
    scope: str
    reason: str
    meetings: int
    against: tuple[tuple[str, str], ...] = ()
    weights: tuple[Placed, ...] = ()
    most: tuple[tuple[str, int], ...] = ()
    alone: float = 0.0
