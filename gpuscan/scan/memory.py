"""What a loop holds for its gradient: the policies that a user can choose from."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..errors import listed
from ..graph import Op, Variable
from ..record import record
from ..types import TensorType

SAVES = ("balanced", "carries", "everything")

_UNITS = {"B": 1}
for _power, _letter in enumerate("kMGT", start=1):
    _UNITS |= {f"{_letter}B": 1000**_power, f"{_letter.upper()}iB": 1024**_power}
_FORMS = (
    f"{listed([repr(s) for s in SAVES])}, a number of bytes, a text such as '256 MiB', or "
    "'every 100 steps'"
)


@record
class Memory:
    """What is held of the forward steps until the backward steps read it: what `saves` says, for
    all steps; or, where there is a `budget` of bytes or a number of steps `every` which one is
    held, the carries that enter segments of the loop, whose steps run again before they run
    backwards, each time with what `saves` says of one segment."""

    saves: str = "balanced"
    budget: int = 0
    every: int = 0

    @property
    def in_segments(self) -> bool:
        return self.budget > 0 or self.every > 0


def memory_of(given: Any) -> Memory:
    """The policy that a user wrote. Raises TypeError or ValueError."""
    if given is None:
        return Memory()
    if isinstance(given, Memory):
        return given
    if isinstance(given, str):
        if given in SAVES:
            return Memory(given)
        if found := re.fullmatch(r"every (\d+) steps?", given.strip()):
            return Memory(every=_positive(int(found[1]), given))
        if found := re.fullmatch(r"(\d+(?:\.\d*)?) ?([kKMGT]?i?B)", given.strip()):
            unit = _UNITS.get(found[2])
            if unit is not None:
                return Memory(budget=_positive(int(float(found[1]) * unit), given))
        raise ValueError(f"scan: memory is {given!r}, not {_FORMS}")
    if isinstance(given, bool) or not isinstance(given, int | np.integer):
        raise TypeError(f"scan: memory is {given!r} ({type(given).__name__}), not {_FORMS}")
    return Memory(budget=_positive(int(given), given))


def _positive(n: int, given: Any) -> int:
    if n < 1:
        raise ValueError(f"scan: memory is {given!r}, which is not more than nothing")
    return n


@record
class SegmentLength(Op):
    """(steps, bytes of a checkpoint, bytes of a step) -> how many steps a segment has: with a
    budget as many as it allows, with all checkpoints and the steps of one segment held. Raises
    MemoryError where it allows none."""

    memory: Memory
    name: str | None
    steering: ClassVar[tuple[int, ...]] = (0, 1, 2)

    def infer(self, *types: TensorType) -> TensorType:
        return TensorType("int64", ())

    def eval(self, n: Any, checkpoint: Any, step: Any) -> Any:
        return np.asarray(self.length(int(n), int(checkpoint), max(1, int(step))), "int64")

    def length(self, n: int, checkpoint: int, step: int) -> int:
        if n < 1:
            return 1
        if self.memory.every:
            return min(n, self.memory.every)
        found = longest_segment(n, checkpoint, step, self.memory.budget)
        if found is None:
            raise MemoryError(
                f"scan '{self.name or 'scan_fn'}': memory={self.memory.budget} bytes, and the "
                f"gradient of {n} steps needs {least_bytes(n, checkpoint, step)} at least: "
                f"{checkpoint} for each checkpoint, {step} for each step of a segment"
            )
        return found

    def connection(self, node: Variable) -> Sequence[bool]:
        return [False] * len(node.inputs)

    def pullback(self, inputs: Sequence[Variable], output: Variable, g: Any) -> Sequence[Any]:
        return [None] * len(inputs)

    def sizes(self, inputs: Sequence[Variable], output: Variable) -> Sequence[Variable]:
        return []


def held_bytes(n: int, checkpoint: int, step: int, segments: int) -> int:
    """Bytes of n steps in so many segments: of their checkpoints, and of the longest of them."""
    return segments * checkpoint + -(-n // segments) * step


def longest_segment(n: int, checkpoint: int, step: int, budget: int) -> int | None:
    """The length of the fewest segments of n steps that are within the budget, None where none
    are."""
    segments = 1
    while held_bytes(n, checkpoint, step, segments) > budget:
        length = (budget - segments * checkpoint) // step  # with as few checkpoints as this
        if length < 1:
            return None
        segments = -(-n // length)
    return -(-n // segments)


def least_bytes(n: int, checkpoint: int, step: int) -> int:
    """What n steps need at least, in as many segments as are best: about sqrt(n step / checkpoint)
    of them."""
    best = min(n, math.isqrt(n * step // max(1, checkpoint)))
    counts = range(max(1, best // 2), min(n, 2 * best + 2) + 1)
    return min(held_bytes(n, checkpoint, step, count) for count in counts)
