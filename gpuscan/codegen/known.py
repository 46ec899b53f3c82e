"""Statements of which something is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..record import replace
from .kernel import (
    Alone,
    Assign,
    Binary,
    Break,
    Call,
    Choose,
    Declare,
    For,
    If,
    Let,
    Load,
    Name,
    Number,
    Point,
    Return,
    Share,
    Steps,
    Store,
    Use,
    binary,
)


class Known:
    """Statements with some names known: sizes as the numbers that they are; and with other
    expressions for some terms of them."""

    def __init__(self, names: Mapping[str, Any], terms: Mapping[Any, Any] | None = None) -> None:
        self.names, self.terms = names, terms or {}

    def expression(self, e: Any) -> Any:
        match e:
            case Name(text, _):
                return self.names.get(text, e)
            case Load(array, offset):
                return Load(array, self.expression(offset))
            case Call():
                return replace(e, operands=tuple(map(self.expression, e.operands)))
            case Choose(condition, a, b):
                return self.expression(condition).choose(self.expression(a), self.expression(b))
            case Binary(op, a, b):
                found = _computed(op, self.expression(a), self.expression(b))
                return self.terms.get(found, found)
            case tuple():
                return tuple(map(self.expression, e))
        return e

    def statements(self, body: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(x for s in body for x in self._statement(s))

    def _statement(self, s: Any) -> list[Any]:
        e, body = self.expression, self.statements
        match s:
            case Let(name, value) | Declare(name, value) | Assign(name, value):
                return [type(s)(name, e(value))]
            case Return(value):
                return [Return(e(value))]
            case Store(array, offset, value):
                return [Store(array, e(offset), e(value))]
            case For(start=start, extent=extent) if e(extent) in (e(start), Number(0)):
                return []  # such as the pad behind slices that cover an axis
            case For(index, start=start, extent=extent):
                if e(start) == Number(0) and e(extent) == Number(1) and not _breaks(s.body):
                    inside = Known({**self.names, index.text: Number(0)}, self.terms)
                    return list(inside.statements(s.body))
                inner = body(s.body)
                return [replace(s, start=e(start), extent=e(extent), body=inner)] if inner else []
            case Steps(inner):
                return [Steps(body(inner))]
            case If(condition, inner, other):
                known = e(condition)
                if isinstance(known, Number):
                    return list(body(inner if known.value else other))
                return [If(known, body(inner), body(other))]
            case Use(name, arguments):
                return [Use(name, tuple(map(e, arguments)))]
            case Point(array, written, condition, a, b):
                known = e(condition)
                if isinstance(known, Number):  # one place after all
                    known, a, b = (known, a, a) if known.value else (known, b, b)
                return [Point(array, written, known, e(a), e(b))]
            case Share(loops, inner, by, sizes):
                ends = [replace(x, start=e(x.start), extent=e(x.extent)) for x in loops]
                return [Share(tuple(ends), body(inner), by, tuple(map(e, sizes)))]
            case Alone(inner, lane):
                return [Alone(body(inner), lane)]
        return [s]


def _breaks(body: Sequence[Any]) -> bool:
    return any(
        isinstance(s, Break) or (isinstance(s, If) and _breaks([*s.body, *s.other])) for s in body
    )


def _computed(op: str, a: Any, b: Any) -> Any:
    if isinstance(a, Number) and isinstance(b, Number) and b.value and op in ("int_div", "mod"):
        # sizes are not negative
        return Number(a.value // b.value if op == "int_div" else a.value % b.value)
    return binary(op, a, b)
