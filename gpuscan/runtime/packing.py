"""Places in one block of memory for what is not all needed at once."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import numpy as np

_APART = 256  # bytes: parts of a block begin at multiples

Part = tuple[int, int, int, int]  # bytes, the first and the last step that needs it, number


def rounded(size: int) -> int:
    return -(-size // _APART) * _APART


def packed(parts: list[Part]) -> tuple[int, dict[int, int]]:
    """The bytes that parts take, and their places, which two have in common only where they are not
    needed together. Which part comes first is tried in two ways, by bytes and by bytes times steps:
    the better one is near the least that is possible."""
    found = [_in_turn(sorted(parts, key=order)) for order in (_bytes_of, _bytes_times_steps)]
    return min(found, key=itemgetter(0))


def _bytes_of(part: Part) -> Any:
    size, *when = part
    return -size, when


def _bytes_times_steps(part: Part) -> Any:
    size, first, last, _ = part
    return -size * (last - first + 1), part


def _in_turn(parts: list[Part]) -> tuple[int, dict[int, int]]:
    """Each part where the first gap is between those before it that are needed when it is."""
    placed = np.zeros((4, len(parts)), "int64")  # from where to where, from when to when
    places: dict[int, int] = {}
    for i, (size, first, last, number) in enumerate(parts):
        begins, ends, firsts, lasts = placed[:, :i]
        beside = np.flatnonzero((firsts <= last) & (lasts >= first))
        beside = beside[np.argsort(begins[beside])]
        free = np.concatenate([[0], np.maximum.accumulate(ends[beside])])
        gaps = np.flatnonzero(begins[beside] - free[:-1] >= rounded(size))
        at = int(free[gaps[0] if gaps.size else -1])
        placed[:, i] = at, at + rounded(size), first, last
        places[number] = at
    return int(placed[1].max(initial=0)), places
