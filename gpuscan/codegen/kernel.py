"""The kernel IR: all there is in a kernel, on one page.

    kernel := name, parameters, statements
    expr   := Number(value, dtype) | Name(text, dtype) | Load(array, offset)
            | Call(scalar, operands, dtype) | Choose(condition, a, b) | Binary(op, a, b)
    stmt   := Let(name, expr) | Declare(name, expr) | Assign(name, expr)
            | Point(array, condition, a, b) | Store(array, offset, expr)
            | For(index, extent, body, lanes, start, apart, fold, unroll) | Steps(body)
            | If(condition, body, other) | Break() | Return(expr) | Use(routine, arguments)
            | Remark(text)

and, where the threads of a block do together what one worker does (`threads`):

            | Share(loops, body, by) | Barrier() | Alone(body) | Combine(name, scalar, by)
            | NotMet(offset) | Meet(meeting) | Enter(meeting) | MeetingOver(meeting)
            | Fail() | Continue() | LastBlock(counter) | Finish(steps) | Leave()
            | Local(array, count) | InShared(array, offset) | Shift(array, offset)
            | HeldWeight(array, type)

Positions and sizes are int64 expressions (`Binary`), values are expressions over the scalar
functions of `ops.scalar` (`Call`), whose text they bring along. An array is a name with a dtype;
its elements are addressed by an offset that the lowering works out.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any

from ..operators import Operators
from ..ops.elemwise import Scalar
from ..record import record

INT = "int64"


@record
class Expr(Operators):
    """An expression; +, -, *, //, %, <, <=, >, >=, & build positions and conditions."""

    def _apply(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        return binary(name, *map(expr, args))

    def choose(self, a: Any, b: Any) -> Any:
        """a where this condition holds, else b."""
        if isinstance(self, Number):
            return a if self.value else b
        return Choose(self, expr(a), expr(b))


@record
class Number(Expr):
    value: int | float | bool
    dtype: str = INT


@record
class Name(Expr):
    text: str
    dtype: str = INT


@record
class Array:
    """Memory that holds elements of a dtype."""

    name: str
    dtype: str


@record
class Load(Expr):
    array: Array
    offset: Expr

    @property
    def dtype(self) -> str:
        return self.array.dtype


@record
class Call(Expr):
    """A scalar function of `ops.scalar`; `of` is the dtype of its operands."""

    scalar: Scalar
    operands: tuple[Expr, ...]
    dtype: str
    of: str


@record
class Choose(Expr):
    condition: Expr
    a: Any
    b: Any

    @property
    def dtype(self) -> str:
        return self.a.dtype


@record
class Binary(Expr):
    """Arithmetic on positions and sizes."""

    op: str
    a: Any
    b: Any

    @property
    def dtype(self) -> str:
        return "bool" if self.op in ("lt", "le", "gt", "ge", "eq", "and_", "or_") else INT


def expr(x: Any) -> Any:
    """A Python integer as a number; an expression as it is."""
    return Number(int(x)) if isinstance(x, int) else x


def binary(op: str, a: Any, b: Any = None) -> Any:
    """Positions computed, as far as they are known."""
    if op == "neg":
        return binary("sub", Number(0), a)
    known = isinstance(a, Number) and isinstance(b, Number)
    match op:
        case "lt" | "le" | "gt" | "ge" | "eq":
            if known:
                return Number(getattr(operator, op)(a.value, b.value), "bool")
        case "and_" | "or_":
            decides = op == "or_"  # the operand that makes the other one idle
            for x, y in ((a, b), (b, a)):
                if isinstance(x, Number):
                    return x if bool(x.value) == decides else y
        case "add":
            if known:
                return Number(a.value + b.value)
            if a == Number(0):
                return b
            if b == Number(0):
                return a
            if a == Binary("sub", Number(0), b):
                return Number(0)
        case "sub":
            if known:
                return Number(a.value - b.value)
            if b == Number(0):
                return a
        case "mul":
            if known:
                return Number(a.value * b.value)
            if Number(0) in (a, b):
                return Number(0)
            if a == Number(1):
                return b
            if b == Number(1):
                return a
    return Binary(op, a, b)


def product(sizes: Sequence[Any]) -> Any:
    """The product of sizes."""
    result: Any = Number(1)
    for s in sizes:
        result = binary("mul", result, expr(s))
    return result


def row_major(sizes: Sequence[Any]) -> tuple[Any, ...]:
    """The strides of a contiguous array, in elements."""
    return tuple(product(sizes[i + 1 :]) for i in range(len(sizes)))


def loads(e: Any) -> Iterator[Array]:
    """The arrays that an expression reads."""
    match e:
        case Load(array, offset):
            yield array
            yield from loads(offset)
        case Call(_, operands):
            for x in operands:
                yield from loads(x)
        case Choose(a, b, c):
            for x in (a, b, c):
                yield from loads(x)
        case Binary(_, a, b):
            yield from loads(a)
            yield from loads(b)
        case (Array() as array, offset):  # a routine's argument
            yield from loads(offset)


def names(e: Any) -> Iterator[str]:
    """The names in an expression."""
    match e:
        case Name(text):
            yield text
        case Load(_, offset):
            yield from names(offset)
        case Binary(_, a, b):
            yield from names(a)
            yield from names(b)
        case Call(_, operands):
            for x in operands:
                yield from names(x)
        case Choose(a, b, c):
            for x in (a, b, c):
                yield from names(x)


# ---- statements -----------------------------------------------------------------------------


@record
class Let:
    name: Name
    value: Any


@record
class Declare:
    """A name that is assigned to again."""

    name: Name
    value: Any


@record
class Assign:
    name: Name
    value: Any


@record
class Point:
    """An array that stands for a place in one of two others."""

    array: Array
    written: bool
    condition: Any
    a: tuple[Array, Any]
    b: tuple[Array, Any]


@record
class Steps:
    """t = first .. last-1, one after another."""

    body: tuple[Any, ...]


@record
class Store:
    array: Array
    offset: Any
    value: Any


@record
class Fold:
    """A name that loops add to by a scalar function: their terms may be combined in any order that
    is always the same. `rows`: terms that follow each other lie together in memory."""

    name: Name
    scalar: Scalar
    rows: bool


@record
class For:
    """index = start .. extent-1. apart: no step needs another, nor writes where another does.
    lanes: they are best run side by side. fold: what the loop does nothing but add to. unroll:
    whether a compiler has a text for each (True), one for all (False), or chooses."""

    index: Name
    extent: Any
    body: tuple[Any, ...]
    lanes: bool = False
    start: Any = Number(0)
    apart: bool = False
    fold: Fold | None = None
    unroll: bool | None = None


@record
class If:
    condition: Any
    body: tuple[Any, ...]
    other: tuple[Any, ...] = ()  # where it does not hold


@record
class Break:
    """The end of the innermost loop."""


@record
class Return:
    value: Any


@record
class Use:
    """A routine of `kernels/` with arguments: expressions and (array, offset) pairs."""

    routine: str
    arguments: tuple[Any, ...]


@record
class Remark:
    text: str


@record
class Pointer:
    """A parameter of a kernel that is memory."""

    array: Array
    written: bool


@record
class Kernel:
    """A kernel: memory and integers in, statements. threads: of a block, where there are blocks."""

    name: str
    pointers: tuple[Pointer, ...]
    integers: tuple[Name, ...]
    body: tuple[Any, ...]
    threads: int = 0


# ---- statements of a block's threads ----------------------------------------------------------


@record
class Share:
    """Loops whose steps are shared out: over the block's threads, over its warps, each of which
    does a step with all its lanes, or over the threads of the whole grid."""

    loops: tuple[For, ...]  # without their bodies
    body: tuple[Any, ...]
    by: str  # "threads", "warps" or "lanes"; "grid" or "grid_warps"
    sizes: tuple[Any, ...]  # how many steps each of them has


@record
class Barrier:
    """The threads of the block wait for each other."""


@record
class Alone:
    """What one thread does for its block (`lane`: one lane for its warp)."""

    body: tuple[Any, ...]
    lane: bool = False


@record
class Combine:
    """The values that a name has in the lanes of a warp, or in all threads of the block, made
    one."""

    name: Name
    scalar: Scalar
    by: str  # "warp" or "block"


@record
class Meet:
    """All blocks wait for each other; where one of them does not come the kernel ends. among: how
    many do, and which of them the block is, where that is not all."""

    meeting: Array
    among: tuple[Any, ...] = ()


@record
class NotMet:
    """No meeting has been: how many there have is counted at an offset in shared memory."""

    offset: int


@record
class Enter:
    """The block comes to a meeting, and goes on."""

    meeting: Array
    among: tuple[Any, ...] = ()


@record
class MeetingOver:
    """All blocks have come to the meeting that this one has entered, or the kernel ends."""

    meeting: Array
    among: tuple[Any, ...] = ()


@record
class LastBlock:
    """All blocks but the last one that comes here end; it sees what they wrote."""

    counter: Array


@record
class Fail:
    """The result is not to be used."""


@record
class Continue:
    """The next step of the innermost loop."""


@record
class Finish:
    """The kernel's result is there, after so many steps of its loop."""

    steps: Any


@record
class Leave:
    """The end of the kernel, for the threads that come here."""


@record
class Local:
    """Memory of one thread."""

    array: Array
    count: int


@record
class InShared:
    """Memory that a block's threads have together, so many bytes behind its beginning."""

    array: Array
    offset: Any


@record
class HeldWeight:
    """A matrix that the block's threads hold in their registers, as a C++ type of `kernels/`
    says."""

    array: Array
    type: str


@record
class Shift:
    """A parameter's memory begins further on."""

    array: Array
    offset: Any


Stmt = Let | Declare | Assign | Point | Store | For | Steps | If | Break | Return | Use | Remark
