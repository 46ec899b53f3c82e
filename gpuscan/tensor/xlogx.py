"""x log x and x log y, with 0 log anything taken as 0."""

from __future__ import annotations

from typing import Any

from ..graph import Variable
from ..ops.scalar import eq, log, switch


def xlogx(x: Any) -> Variable:
    """x log(x), and 0 where x is 0."""
    return xlogy0(x, x)


def xlogy0(x: Any, y: Any) -> Variable:
    """x log(y), and 0 where x is 0, whatever y is there."""
    zero = eq(x, 0)
    return switch(zero, 0, x * log(switch(zero, 1, y)))
