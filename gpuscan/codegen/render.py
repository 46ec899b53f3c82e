"""Kernels as text. What differs from device to device is a `Dialect`."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ..record import record, replace
from ..types import FLOATS
from .kernel import (
    Alone,
    Array,
    Assign,
    Barrier,
    Binary,
    Break,
    Call,
    Choose,
    Combine,
    Continue,
    Declare,
    Enter,
    Fail,
    Finish,
    For,
    HeldWeight,
    If,
    InShared,
    Kernel,
    LastBlock,
    Leave,
    Let,
    Load,
    Local,
    Meet,
    MeetingOver,
    Name,
    NotMet,
    Number,
    Point,
    Remark,
    Return,
    Share,
    Shift,
    Steps,
    Store,
    Use,
    product,
)
from .vectors import in_vectors

_OPERATORS = {
    "add": "+", "sub": "-", "mul": "*", "int_div": "/", "mod": "%", "lt": "<", "le": "<=",
    "gt": ">", "ge": ">=", "and_": "&&", "or_": "||", "eq": "==",
}  # fmt: skip

# How tightly operators bind; of equal ones the left comes first.
_BINDS = {
    "or_": 1, "and_": 2, "eq": 3, "lt": 4, "le": 4, "gt": 4, "ge": 4, "add": 5, "sub": 5,
    "mul": 6, "int_div": 6, "mod": 6,
}  # fmt: skip

_SUFFIX = {
    "bool": "b8", "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64",
    "uint8": "u8", "uint16": "u16", "uint32": "u32", "uint64": "u64",
    "float32": "f32", "float64": "f64",
}  # fmt: skip

_FOLDS = {
    "add": "sum", "mul": "prod", "maximum": "max", "minimum": "min", "or_": "any", "and_": "all",
}  # fmt: skip

# By whom loops are shared out: the first position that one has, and how far apart they are.
_SHARED = {
    "threads": ("threadIdx.x", "blockDim.x"),
    "warps": ("threadIdx.x / GS_WARP", "blockDim.x / GS_WARP"),
    "lanes": ("threadIdx.x % GS_WARP", "GS_WARP"),
    "grid": ("gs_thread()", "gs_threads()"),
    "grid_warps": ("gs_thread() / GS_WARP", "gs_threads() / GS_WARP"),
}

# What is done with a matrix that is held in registers.
_OF_HELD = {
    "gs_clear": "clear", "gs_hold": "load", "gs_multiply": "multiply",
    "gs_multiply_far": "multiply_far", "gs_multiply_rounded": "multiply_rounded",
}  # fmt: skip

# What has to be computed without a sign: sums of those that have one, or in C become ints.
_OVERFLOWING = ("add", "sub", "mul", "neg")
_SIGNED = ("int8", "int16", "int32", "int64", "uint8", "uint16")

_UNROLL = {None: "", True: "GS_UNROLL ", False: "GS_ROLLED "}

_WORDS = re.compile(r"\w+")

# Routines of kernels/, by where they are.
_DRAWS = r"gs_uniform(?:s|_rows)_\w+"
_PRODUCTS = r"gs_(?:pack|gemm)\w*"
_ROWS = r"gs_(?:log_)?softmax_\w+|gs_add_up_\w+"

DTYPES = frozenset(_SUFFIX)  # what a kernel can compute with


@record
class Dialect:
    """The words of a language of the C family."""

    name: str
    types: dict[str, str]
    includes: tuple[tuple[str, str], ...]  # headers, and which words of a text need each; "": any
    signature: str  # with {name}, {threads}, {parameters}
    pointer: str  # with {const}, {type}, {name}, {position}
    integer: str  # with {name}, {position}
    lanes: str  # before a loop whose steps are independent
    restrict: str  # a pointer within a kernel to what no other points to
    own: bool  # whether parameters are the kernel's own, or statements that unpack them
    wraps: bool  # whether sums of integers that overflow are defined


_TYPES = {
    "bool": "unsigned char", "int8": "signed char", "int16": "short", "int32": "int",
    "int64": "long long", "uint8": "unsigned char", "uint16": "unsigned short",
    "uint32": "unsigned", "uint64": "unsigned long long", "float32": "float",
    "float64": "double",
}  # fmt: skip

C = Dialect(
    name="c",
    types=_TYPES,
    includes=(
        ("scalars.h", ""),
        ("draws.h", _DRAWS),
        ("meetings.h", r"gs_meet"),
        ("products.h", _PRODUCTS),
        ("rows.h", _ROWS),
        ("watch.h", r"gs_(?:start|look)"),
    ),
    signature="long long {name}(long long first, long long last, void *const *memory, "
    "const long long *integer)",
    pointer="    {const}{type} *const restrict {name} = ({const}{type} *)memory[{position}];",
    integer="    const long long {name} = integer[{position}];",
    lanes="#pragma GCC ivdep",
    restrict="restrict ",
    own=False,
    wraps=True,
)

# What a kernel only reads may come through a cache that sees no writes: so only there `restrict`.
CUDA = Dialect(
    name="cuda",
    types=_TYPES,
    includes=(
        ("persistent.h", ""),
        ("scalars.h", r"gs_\w+_(?:b8|[iu](?:8|16|32|64)|f(?:32|64))"),
        ("block_draws.h", rf"{_DRAWS}|gs_own_uniforms"),
        ("block_products.h", _PRODUCTS),
        ("folds.h", r"gs_(?:warp|block)_\w+"),
        ("held.h", r"gs_held"),
        ("held_wmma.h", r"gs_held_wmma"),
        ("own_rows.h", r"gs_own_(?:log_)?softmax"),
        ("rows.h", _ROWS),
    ),
    signature='extern "C" __global__ void __launch_bounds__({threads}, 1) {name}({parameters})',
    pointer="{const}{type} *{restrict}{name}",
    integer="long long {name}",
    lanes="",
    restrict="",
    own=True,
    wraps=False,
)


class Renderer:
    """The text of kernels in one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    def source(self, kernels: Sequence[Kernel]) -> str:
        """A whole source file."""
        text: list[str] = []
        for k in kernels:
            text += ["", *self.kernel(k)]
        used = _words(text)
        lines = [
            f'#include "{header}"'  # no other: they take longer to compile than many a kernel
            for header, words in self.dialect.includes
            if not words or any(re.fullmatch(words, w) for w in used)
        ]
        lines += text
        return "\n".join(lines) + "\n"

    def kernel(self, k: Kernel) -> Iterator[str]:
        d = self.dialect
        body = list(self.block(k.body, "    "))
        used = _words(body)
        pointers = [
            d.pointer.format(
                const="" if p.written else "const ", type=d.types[p.array.dtype],
                name=p.array.name, position=i, restrict="" if p.written else "__restrict__ ",
            )
            for i, p in enumerate(k.pointers) if p.array.name in used
        ]  # fmt: skip
        integers = [
            d.integer.format(name=n.text, position=i)
            for i, n in enumerate(k.integers)
            if n.text in used
        ]
        parameters = ", ".join([*pointers, *integers]) if d.own else ""
        parameters = parameters.replace(" ", "\0").replace(",\0", ", ")  # whole ones on a line
        opening = d.signature.format(name=k.name, threads=k.threads, parameters=parameters) + " {"
        for line in textwrap.wrap(opening, 100, subsequent_indent="        "):
            yield line.replace("\0", " ")
        if not d.own:
            yield from pointers
            yield from integers
        yield from body
        yield "}"

    def words(self, body: Sequence[Any]) -> set[str]:
        """The words of statements: what of a kernel's parameters they need."""
        return _words(self.block(body, ""))

    def block(self, body: Sequence[Any], indent: str) -> Iterator[str]:
        for s in body:
            yield from self.statement(s, indent)

    def statement(self, s: Any, indent: str) -> Iterator[str]:
        match s:
            case Let(name, value):
                yield f"{indent}const {self.type(name.dtype)} {name.text} = {self.bare(value)};"
            case Declare(name, value):
                yield f"{indent}{self.type(name.dtype)} {name.text} = {self.bare(value)};"
            case Point(array, written, condition, a, b):
                const = "" if written else "const "
                place = self.argument(a)
                if a != b:
                    place = f"{self.operand(condition, 1)} ? {place} : {self.argument(b)}"
                kind = f"{const}{self.type(array.dtype)} *const {self.dialect.restrict}"
                yield f"{indent}{kind}{array.name} = {place};"
            case Steps(body):
                begin = "0" if self.dialect.own else "first"
                yield f"{indent}for (long long t = {begin}; t < last; t++) {{"
                yield from self.block(body, indent + "    ")
                yield indent + "}"
            case Assign(name, value):
                yield f"{indent}{name.text} = {self.bare(value)};"
            case Store(array, offset, value):
                yield f"{indent}{array.name}[{self.bare(offset)}] = {self.bare(value)};"
            case For(lanes=True) if self.dialect.lanes:
                for part in in_vectors(s):
                    if isinstance(part, For):
                        if part.lanes:
                            yield self.dialect.lanes
                        part = replace(part, lanes=False)
                    yield from self.statement(part, indent)
            case For(index, extent, body, start=start):
                i, turns = index.text, _UNROLL[s.unroll]
                begin, end = self.bare(start), self.operand(extent, 5)
                yield f"{indent}{turns}for (long long {i} = {begin}; {i} < {end}; {i}++) {{"
                yield from self.block(body, indent + "    ")
                yield indent + "}"
            case If(condition, body, other):
                yield f"{indent}if ({self.bare(condition)}) {{"
                yield from self.block(body, indent + "    ")
                if other:
                    yield indent + "} else {"
                    yield from self.block(other, indent + "    ")
                yield indent + "}"
            case Break():
                yield f"{indent}break;"
            case Return(value):
                yield f"{indent}return {self.bare(value)};"
            case Use(routine, (held, *others)) if routine.startswith(tuple(_OF_HELD)):
                method = _OF_HELD[routine.rpartition("_")[0]]
                yield f"{indent}{held.name}.{method}({', '.join(map(self.argument, others))});"
            case Use(routine, arguments):
                yield f"{indent}{routine}({', '.join(map(self.argument, arguments))});"
            case Remark(text):
                yield f"{indent}/* {text} */"
            case _:
                yield from self.of_threads(s, indent)

    def of_threads(self, s: Any, indent: str) -> Iterator[str]:
        """The statements of a block's threads."""
        inner = indent + "    "
        match s:
            case Share():
                yield from self.share(s, indent)
            case Barrier():
                yield f"{indent}__syncthreads();"
            case Alone(body, lane):
                who = "threadIdx.x % GS_WARP" if lane else "threadIdx.x"
                yield f"{indent}if ({who} == 0) {{"
                yield from self.block(body, inner)
                yield indent + "}"
            case Combine(name, scalar, by):
                routine = f"gs_{by}_{_FOLDS[scalar.name]}_{_SUFFIX[name.dtype]}"
                scratch = f", ({self.type(name.dtype)} *)shared" if by == "block" else ""
                yield f"{indent}{name.text} = {routine}({name.text}{scratch});"
            case Meet(meeting, among):
                given = ", ".join([meeting.name, "met", *map(self.bare, among)])
                yield f"{indent}if (gs_meet({given})) return gs_unmet(done);"
            case NotMet(offset):
                yield f"{indent}gs_u32 *const met = gs_not_met(shared + {offset});"
            case Enter(meeting, among):
                given = ", ".join([meeting.name, *map(self.bare, among)])
                yield f"{indent}gs_enter({given});"
            case MeetingOver(meeting, among):
                given = ", ".join([meeting.name, "met", *map(self.bare, among[:1])])
                yield f"{indent}if (gs_leave({given})) return gs_unmet(done);"
            case LastBlock(counter):
                yield f"{indent}if (!gs_is_last({counter.name})) return;"
            case Fail():
                yield f"{indent}gs_break(done);"
            case Continue():
                yield f"{indent}continue;"
            case Finish(steps):
                yield f"{indent}gs_finish(done, {self.bare(steps)});"
            case Leave():
                yield f"{indent}return;"
            case Local(array, count):
                yield f"{indent}{self.type(array.dtype)} {array.name}[{count}];"
            case InShared(array, offset):
                kind = self.type(array.dtype)
                place = f"({kind} *)(shared + {self.text(offset)})"
                yield f"{indent}{kind} *const {array.name} = {place};"
            case HeldWeight(array, kind):
                yield f"{indent}{kind} {array.name};"
            case Shift(array, offset):
                yield f"{indent}{array.name} += {self.bare(offset)};"
            case _:
                raise TypeError(f"not a statement: {s!r}")

    def share(self, s: Share, indent: str) -> Iterator[str]:
        """Loops that are shared out, as one loop over all their positions."""
        first, apart = _SHARED[s.by]
        inner = indent + "    "
        if len(s.loops) == 1:
            loop = s.loops[0]
            i, end = loop.index.text, self.operand(loop.extent, 5)
            begin = first if loop.start == Number(0) else f"{self.operand(loop.start, 5)} + {first}"
            yield f"{indent}for (long long {i} = {begin}; {i} < {end}; {i} += {apart}) {{"
        else:
            i = "all_" + s.loops[-1].index.text
            sizes = s.sizes
            kind = "long long" if s.by.startswith("grid") else "int"
            count = self.operand(product(sizes), 5)
            yield f"{indent}for ({kind} {i} = {first}; {i} < {count}; {i} += {apart}) {{"
            for k, loop in enumerate(s.loops):
                inside = product(sizes[k + 1 :])
                position = i if inside == Number(1) else f"{i} / {self.divisor(inside, kind)}"
                if k:
                    position = f"{position} % {self.divisor(sizes[k], kind)}"
                if loop.start != Number(0):
                    position = f"{self.operand(loop.start, 5)} + {position}"
                yield f"{inner}const long long {loop.index.text} = {position};"
        yield from self.block(s.body, inner)
        yield indent + "}"

    def divisor(self, e: Any, kind: str) -> str:
        """A size as an integer of the kind that it divides: the wider one takes far longer."""
        return self.text(e) if isinstance(e, Number) or kind != "int" else f"(int){self.text(e)}"

    def argument(self, x: Any) -> str:
        if isinstance(x, tuple):
            array, offset = x
            return (
                array.name if offset == Number(0) else f"{array.name} + {self.operand(offset, 5)}"
            )
        return x.name if isinstance(x, Array) else self.bare(x)

    def type(self, dtype: str) -> str:
        return self.dialect.types[dtype]

    def text(self, e: Any) -> str:
        match e:
            case Number(value, dtype):
                literal = _literal(value, dtype)
                return f"({literal})" if literal.startswith("-") else literal  # -(-1) is not --1
            case Name(text, _):
                return text
            case Load(array, offset):
                return f"{array.name}[{self.bare(offset)}]"
            case Call():
                return self.call(e)
            case Choose(condition, a, b):
                chosen = f"{self.operand(a, 1)} : {self.operand(b, 1)}"
                return f"({self.operand(condition, 1)} ? {chosen})"
            case Binary():
                return f"({self.sum_of(e)})"
        raise TypeError(f"not an expression: {e!r}")

    def operand(self, e: Any, binds: int) -> str:
        """An operand of an operator that binds so tightly: in parentheses where it needs them."""
        if isinstance(e, Binary) and _BINDS[e.op] >= binds:
            return self.sum_of(e)
        return self.text(e)

    def sum_of(self, e: Binary) -> str:
        binds = _BINDS[e.op]
        a, b = self.operand(e.a, binds), self.operand(e.b, binds + 1)
        return f"{a} {_OPERATORS[e.op]} {b}"

    def bare(self, e: Any) -> str:
        """An expression that stands by itself."""
        text = self.text(e)
        if text[0] != "(" or text[-1] != ")":
            return text
        depth = 0
        for k, c in enumerate(text):
            depth += (c == "(") - (c == ")")
            if not depth:
                return text[1:-1] if k == len(text) - 1 else text
        return text

    def call(self, e: Call) -> str:
        operands = [self.text(x) for x in e.operands]
        name = e.scalar.name
        if name.startswith("cast_"):
            x = operands[0]
            if e.of == "bool" and e.dtype in FLOATS:  # gcc vectorises a choice, not this cast
                return f"({x} ? {_literal(1, e.dtype)} : {_literal(0, e.dtype)})"
            if e.dtype == "bool":
                return f"({x} != 0)"
            if e.of not in FLOATS or e.dtype in FLOATS:
                return f"(({self.type(e.dtype)}){x})"
        if e.of == "bool" and name in ("add", "mul", "maximum", "minimum"):
            word = "|" if name in ("add", "maximum") else "&"
            return f"({operands[0]} {word} {operands[1]})"
        if name in _OVERFLOWING and e.of in _SIGNED and not self.dialect.wraps:
            operands = [f"(gs_word_{_SUFFIX[e.of]}){x}" for x in operands]
            return f"(({self.type(e.dtype)}){e.scalar.c.format(*operands)})"
        text = e.scalar.c.format(*operands, t=_SUFFIX[e.of])
        # C computes with at least 32 bits
        small = e.dtype in ("int8", "int16", "uint8", "uint16")
        return f"(({self.type(e.dtype)}){text})" if small else text


def _words(lines: Iterable[str]) -> set[str]:
    return {word for line in lines for word in _WORDS.findall(line)}


def _literal(value: Any, dtype: str) -> str:
    match dtype:
        case "float32" | "float64":
            if math.isnan(value):
                return f"gs_nan_{_SUFFIX[dtype]}()"
            if math.isinf(value):
                return f"({'' if value > 0 else '-'}gs_inf_{_SUFFIX[dtype]}())"
            # the shortest decimal that rounds to the value
            return f"{np.float32(value)}f" if dtype == "float32" else repr(float(value))
        case "bool":
            return "1" if value else "0"
        case "uint64":
            return f"{int(value)}ull"
        case "int64":
            value = int(value)
            small = -(2**31) < value < 2**31
            return f"{value}" if small else f"({value + 1}ll - 1)"
        case "uint32":
            return f"{int(value)}u"
    return f"(({C.types[dtype]}){int(value)})"
