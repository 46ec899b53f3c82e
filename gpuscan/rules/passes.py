"""The rewrites, in the order in which they run."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph import Variable
from ..rewrite import rewrite
from ..scan.rules import LOOP_RULES, in_segments, loop_pass, with_lengths
from .algebra import ALGEBRA
from .shapes import SHAPES
from .stability import STABILITY

LOCAL = SHAPES + LOOP_RULES + STABILITY + ALGEBRA

_MOST_ROUNDS = 60


def optimised(outputs: Sequence[Variable]) -> list[Variable]:
    """The outputs after all rewrites: rules on single nodes until they settle, then one round of
    rules on loops, and so on until nothing changes."""
    current = rewrite(in_segments(outputs), LOCAL)
    for _ in range(_MOST_ROUNDS):
        after = rewrite(loop_pass(current, optimised), LOCAL)
        if after == current:
            return with_lengths(after)
        current = after
    raise RuntimeError(f"the rules on loops did not settle in {_MOST_ROUNDS} rounds")
