"""Where the arrays of a tape are in a call: parts of one block of memory, but for what a call gives
on the device, which has memory of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any

import numpy as np

from .packing import Part, packed, rounded
from .tape import Empty, Fixed, Given, Made, Numbers, Source, Tape, Uploaded

_SMALL = 1 << 16  # bytes of what is copied along with other things, at most


class Layout:
    """Where the buffers of a tape are, by their numbers.

    moved:    inputs and results that are copied, as they are elsewhere in each call
    given, copied  which input each is: as it is, or copied into the block
    fixed     the arrays that stay
    inside    places in the block, of `size` bytes
    moving    those of `given` and `own`: where they are tells one call from another
    freed     of each step, what no further one needs of what steps make in memory of their own
    own       by bytes, those that have memory of their own
    results   those that are copied from the block when all is done
    uploads   what the host writes to each by itself

    The block begins with what the host reads at a call's end, up to `read`: results, and behind
    `written` what kernels say of themselves. That the host has written before, with what is behind
    it: `numbers`, into which `sources` go (at which byte of them, how many bytes).
    """

    def __init__(self, tape: Tape, moved: Collection[int] = ()) -> None:
        self.tape, self.live = tape, tape.live
        views = [o.view.buffer for o in tape.outputs if o.view and o.stays]
        self.stay = set(views)
        self.first, self.last = _needed(tape, self.live)
        self.given: list[tuple[int, int]] = []
        self.copied: list[tuple[int, int]] = []
        self.fixed: list[tuple[int, Any]] = []
        self.uploads: list[tuple[int, Source]] = []
        self.results: list[int] = []
        self.freed: list[list[int]] = [[] for _ in tape.steps]
        self._own: dict[int, list[int]] = defaultdict(list)
        self._small: list[tuple[int, int]] = []
        self._said: list[tuple[int, np.ndarray]] = []
        self._numbers: list[tuple[int, int, Source | np.ndarray]] = []
        self._parts: list[Part] = []
        self._read = {v.buffer for v, _ in (*tape.expected, *tape.met)}
        for buffer in sorted(self.last):
            self._sort(buffer, buffer in moved)
        self.own = [(size, tuple(buffers)) for size, buffers in self._own.items()]
        self.moving = [buffer for buffer, _ in self.given]
        self.moving += [buffer for _, buffers in self.own for buffer in buffers]
        self._begin()
        size, places = packed(self._parts)
        self.inside |= {buffer: self.size + place for buffer, place in places.items()}
        self.size += size
        # whether nobody else has what a call gives
        self.alone = len(self.stay) == len(views) and all(
            isinstance(tape.origins[buffer], Empty | Uploaded) for buffer in self.stay
        )

    def _sort(self, buffer: int, is_moved: bool) -> None:
        match self.tape.origins[buffer]:
            case Given(k):
                if is_moved:
                    begin, end, _ = self.tape.bases[buffer]
                    self.copied.append((buffer, k))
                    self._part(buffer, end - begin, -1)
                else:
                    self.given.append((buffer, k))
            case Fixed(array):
                self.fixed.append((buffer, array))
            case Uploaded(source, size):
                if buffer in self.stay:
                    self._own[max(1, size)].append(buffer)
                    self.uploads.append((buffer, source))
                elif size > _SMALL:
                    self._part(buffer, size, -1)
                    self.uploads.append((buffer, source))
                else:
                    self._numbers.append((buffer, size, source))
            case Numbers(array):
                if buffer in self._read:
                    self._said.append((buffer, array))
                else:
                    self._numbers.append((buffer, array.nbytes, array))
            case Empty(size):
                if buffer in self.stay and not is_moved:
                    self._own[size].append(buffer)
                elif buffer in self.stay:
                    self.results.append(buffer)
                    self._part(buffer, size, self.first[buffer])
                elif buffer in self.live and size <= _SMALL:
                    self._small.append((buffer, size))
                else:
                    self._part(buffer, size, self.first[buffer])
            case Made():
                if buffer not in self.live:
                    self.freed[self.last[buffer]].append(buffer)

    def _part(self, buffer: int, size: int, first: int) -> None:
        self._parts.append((size, first, self.last[buffer], buffer))

    def _begin(self) -> None:
        """The part of the block that the host reads and writes."""
        self.inside: dict[int, int] = {}
        self.size = 0

        def placed(buffer: int, size: int) -> int:
            at = self.inside[buffer] = self.size
            self.size += rounded(size)
            return at

        for buffer, size in self._small:
            placed(buffer, size)
        self.written = self.size
        constants = [(placed(buffer, array.nbytes), array) for buffer, array in self._said]
        self.read = self.size
        self.sources: list[tuple[int, int, Source]] = []
        for buffer, size, what in self._numbers:
            at = placed(buffer, size)
            if isinstance(what, np.ndarray):
                constants.append((at, what))
            else:
                self.sources.append((at - self.written, size, what))
        self.numbers = np.zeros(self.size - self.written, "uint8")
        for at, array in constants:
            begin = at - self.written
            self.numbers[begin : begin + array.nbytes] = array.reshape(-1).view("uint8")


def _needed(tape: Tape, live: Collection[int]) -> tuple[dict[int, int], dict[int, int]]:
    """The first and the last step that needs each buffer; one behind the last for what is looked
    at then."""
    last = {buffer: i for i, (_, buffers) in enumerate(tape.steps) for buffer in buffers}
    last |= dict.fromkeys(live, len(tape.steps))
    first = dict(last)
    for i, (_, buffers) in reversed(list(enumerate(tape.steps))):
        first |= dict.fromkeys(buffers, i)
    return first, last
