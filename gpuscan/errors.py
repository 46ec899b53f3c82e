"""Error classes, and the one place where the text of an error is put together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


class MissingInputError(Exception):
    """A value is needed that nobody gave: a free input of a graph, or of a scan's step."""


class UnusedInputError(Exception):
    """An input of a function that no output depends on."""


class DisconnectedInputError(ValueError):
    """A gradient was asked for with respect to something the cost does not depend on."""


class NullTypeGradError(TypeError):
    """A gradient that is not defined, for example through a random draw's parameters."""


class GradientError(Exception):
    """A symbolic gradient that differs from its finite difference."""


class DeviceError(RuntimeError):
    """A device that was asked for by name and is not there."""


class BuildError(RuntimeError):
    """Source that a compiler refused."""


def build_failure(
    command: Sequence[str], status: int, words: str, source: str, who: str = "", way_out: str = ""
) -> str:
    """A failed build: in one line, then the command, the compiler's words, the numbered source.
    who: the compiler, where it is not the C compiler; way_out: what helps, for the first line."""
    said = [line for line in words.splitlines() if line.strip()]
    first = next((line for line in said if "error" in line), said[0] if said else "without a word")
    numbered = "\n".join(f"{i:4} {x}" for i, x in enumerate(source.splitlines(), start=1))
    who = who or f"the C compiler {command[0]!r}"
    return (
        f"{who} failed with status {status}: {first.strip()}{way_out}\n"
        f"{' '.join(command)}\n{words}\n{numbered}"
    )


def first_line(error: BaseException) -> str:
    """What an exception says, in a line. CuPy frames what made its import fail with rows of "=" and
    advice, and names it as the cause."""
    lines = [line.strip() for line in str(error.__cause__ or error).splitlines()]
    said = [x for x in lines if any(c.isalnum() for c in x) and x != "Failed to import CuPy."]
    return said[0] if said else type(error).__name__


def describe(variable: Any) -> str:
    """A variable as an error names it: the user's name or its expression, and its type."""
    return f"{variable.name or variable.op_name()} ({variable.type})"


def built_at(variable: Any) -> str:
    """Where the user wrote the expression, as ' Built at FILE:LINE.' or nothing."""
    origin = getattr(variable, "origin", None)
    return f" Built at {origin[0]}:{origin[1]}." if origin else ""


def listed(words: Iterable[object]) -> str:
    """The words as an enumeration: 'a, b and c'."""
    items = [str(w) for w in words]
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
