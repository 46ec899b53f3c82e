"""Kernels as text. What differs from device to device is a `Dialect`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ..record import record
from ..types import FLOATS
from .kernel import (
    Array,
    Assign,
    Binary,
    Break,
    Call,
    Choose,
    Declare,
    For,
    If,
    Kernel,
    Let,
    Load,
    Name,
    Number,
    Point,
    Remark,
    Return,
    Steps,
    Store,
    Use,
)

_OPERATORS = {
    "add": "+", "sub": "-", "mul": "*", "int_div": "/", "mod": "%", "lt": "<", "le": "<=",
    "gt": ">", "ge": ">=", "and_": "&&", "or_": "||", "eq": "==",
}  # fmt: skip

_SUFFIX = {
    "bool": "b8", "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64",
    "uint8": "u8", "uint16": "u16", "uint32": "u32", "uint64": "u64",
    "float32": "f32", "float64": "f64",
}  # fmt: skip

_WORDS = re.compile(r"\w+")

DTYPES = frozenset(_SUFFIX)  # what a kernel can compute with


@record
class Dialect:
    """The words of a language of the C family."""

    name: str
    types: dict[str, str]
    includes: tuple[str, ...]
    signature: str  # with {name}
    pointer: str  # with {const}, {type}, {name}, {position}
    integer: str  # with {name}, {position}
    lanes: str  # before a loop whose steps are independent


C = Dialect(
    name="c",
    types={
        "bool": "unsigned char", "int8": "signed char", "int16": "short", "int32": "int",
        "int64": "long long", "uint8": "unsigned char", "uint16": "unsigned short",
        "uint32": "unsigned", "uint64": "unsigned long long", "float32": "float",
        "float64": "double",
    },
    includes=("scalars.h", "philox.h", "loops.h", "rows.h"),
    signature="long long {name}(long long first, long long last, void *const *memory, "
    "const long long *integer)",
    pointer="    {const}{type} *const restrict {name} = ({const}{type} *)memory[{position}];",
    integer="    const long long {name} = integer[{position}];",
    lanes="#pragma GCC ivdep",
)  # fmt: skip


class Renderer:
    """The text of kernels in one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    def source(self, kernels: Sequence[Kernel]) -> str:
        """A whole source file."""
        lines = [f'#include "{h}"' for h in self.dialect.includes]
        for k in kernels:
            lines += ["", *self.kernel(k)]
        return "\n".join(lines) + "\n"

    def kernel(self, k: Kernel) -> Iterator[str]:
        d = self.dialect
        body = list(self.block(k.body, "    "))
        used = {word for line in body for word in _WORDS.findall(line)}
        yield d.signature.format(name=k.name) + " {"
        for i, p in enumerate(k.pointers):
            if p.array.name in used:
                yield d.pointer.format(
                    const="" if p.written else "const ", type=d.types[p.array.dtype],
                    name=p.array.name, position=i,
                )  # fmt: skip
        for i, n in enumerate(k.integers):
            if n.text in used:
                yield d.integer.format(name=n.text, position=i)
        yield from body
        yield "}"

    def block(self, body: Sequence[Any], indent: str) -> Iterator[str]:
        for s in body:
            yield from self.statement(s, indent)

    def statement(self, s: Any, indent: str) -> Iterator[str]:
        match s:
            case Let(name, value):
                yield f"{indent}const {self.type(name.dtype)} {name.text} = {self.text(value)};"
            case Declare(name, value):
                yield f"{indent}{self.type(name.dtype)} {name.text} = {self.text(value)};"
            case Point(array, written, condition, a, b):
                const = "" if written else "const "
                yield (
                    f"{indent}{const}{self.type(array.dtype)} *const restrict {array.name} = "
                    f"{self.text(condition)} ? {self.argument(a)} : {self.argument(b)};"
                )
            case Steps(body):
                yield f"{indent}for (long long t = first; t < last; t++) {{"
                yield from self.block(body, indent + "    ")
                yield indent + "}"
            case Assign(name, value):
                yield f"{indent}{name.text} = {self.text(value)};"
            case Store(array, offset, value):
                yield f"{indent}{array.name}[{self.text(offset)}] = {self.text(value)};"
            case For(index, extent, body, lanes, start):
                if lanes:
                    yield self.dialect.lanes
                i = index.text
                begin, end = self.text(start), self.text(extent)
                yield f"{indent}for (long long {i} = {begin}; {i} < {end}; {i}++) {{"
                yield from self.block(body, indent + "    ")
                yield indent + "}"
            case If(condition, body, other):
                yield f"{indent}if ({self.text(condition)}) {{"
                yield from self.block(body, indent + "    ")
                if other:
                    yield indent + "} else {"
                    yield from self.block(other, indent + "    ")
                yield indent + "}"
            case Break():
                yield f"{indent}break;"
            case Return(value):
                yield f"{indent}return {self.text(value)};"
            case Use(routine, arguments):
                yield f"{indent}{routine}({', '.join(map(self.argument, arguments))});"
            case Remark(text):
                yield f"{indent}/* {text} */"
            case _:
                raise TypeError(f"not a statement: {s!r}")

    def argument(self, x: Any) -> str:
        if isinstance(x, tuple):
            array, offset = x
            return array.name if offset == Number(0) else f"{array.name} + {self.text(offset)}"
        return x.name if isinstance(x, Array) else self.text(x)

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
                return f"{array.name}[{self.text(offset)}]"
            case Call():
                return self.call(e)
            case Choose(condition, a, b):
                return f"({self.text(condition)} ? {self.text(a)} : {self.text(b)})"
            case Binary(op, a, b):
                return f"({self.text(a)} {_OPERATORS[op]} {self.text(b)})"
        raise TypeError(f"not an expression: {e!r}")

    def call(self, e: Call) -> str:
        operands = [self.text(x) for x in e.operands]
        name = e.scalar.name
        if name.startswith("cast_"):
            x = operands[0]
            if e.of == "bool" and e.dtype in FLOATS:  # gcc vectorises a choice, not this cast
                return f"({x} ? {_literal(1, e.dtype)} : {_literal(0, e.dtype)})"
            return f"({x} != 0)" if e.dtype == "bool" else f"(({self.type(e.dtype)}){x})"
        if e.of == "bool" and name in ("add", "mul", "maximum", "minimum"):
            word = "|" if name in ("add", "maximum") else "&"
            return f"({operands[0]} {word} {operands[1]})"
        text = e.scalar.c.format(*operands, t=_SUFFIX[e.of])
        # C computes with at least 32 bits
        small = e.dtype in ("int8", "int16", "uint8", "uint16")
        return f"(({self.type(e.dtype)}){text})" if small else text


def _literal(value: Any, dtype: str) -> str:
    match dtype:
        case "float32" | "float64":
            if math.isnan(value):
                return f"gs_nan_{_SUFFIX[dtype]}()"
            if math.isinf(value):
                return f"({'' if value > 0 else '-'}gs_inf_{_SUFFIX[dtype]}())"
            return float(value).hex() + ("f" if dtype == "float32" else "")
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
