"""A tape that is played. Its arrays are parts of one block of memory, planned when it is written;
what it needs of the host is one copy, and what the host reads at its end another; and the steps of
the device are a CUDA graph, for the places in memory that a call has.

A graph writes where it wrote when it was recorded. Memory comes from the device's pool, call by
call, as without a tape: a pool gives the same places again when calls do the same, so the graphs of
a few sets of places serve. An input or a result that is elsewhere each time is copied.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from .calls import check_met
from .memory import Alone
from .tape import (
    Buffers,
    Empty,
    Fixed,
    Given,
    Made,
    Numbers,
    Output,
    Source,
    Tape,
    Unexpected,
    Uploaded,
    View,
)

_APART = 256  # bytes: parts of a block begin at multiples
_SMALL = 1 << 16  # bytes of what is copied along with other things, at most
_FIRST = 4  # calls before a graph is made
_MOST_GRAPHS = 4  # of a tape, at once
_MOST_MADE = 16  # in all, before none is made any more
_MOST_PLACES = 4  # of an input or a result, before it is copied
_MOST_MOVED = 1 << 24  # bytes of what is copied
_MOST_MET = 64  # sets of places that came once


class Layout:
    """Where the buffers of a tape are; moved: those that are copied, as they are elsewhere in each
    call."""

    def __init__(self, tape: Tape, moved: Collection[int]) -> None:
        live, views = tape.live, [o.view for o in tape.outputs if o.view]
        stay = {o.view.buffer for o in tape.outputs if o.view and o.stays}
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for i, (_, buffers) in enumerate(tape.steps):
            for buffer in buffers:
                first.setdefault(buffer, i)
                last[buffer] = i
        end = len(tape.steps)
        last.update(dict.fromkeys(live, end))
        self.given: list[tuple[int, int]] = []  # buffers, and which input each is
        self.moved: list[tuple[int, int]] = []  # the same, of those that are copied
        self.fixed: list[tuple[int, Any]] = []
        self.uploads: list[tuple[int, Source]] = []  # each by itself
        own: dict[int, list[int]] = defaultdict(list)  # by size: with memory of their own
        small: list[tuple[int, int]] = []  # buffers and their bytes
        said: list[tuple[int, np.ndarray]] = []
        numbers: list[tuple[int, int, Source | np.ndarray]] = []
        parts: list[tuple[int, int, int, int]] = []
        read = {v.buffer for v, _ in (*tape.expected, *tape.met)}
        for buffer in sorted(last):
            match tape.origins[buffer]:
                case Given(k):
                    begin, stop, _ = tape.bases[buffer]
                    if buffer in moved and buffer not in live:
                        self.moved.append((buffer, k))
                        parts.append((stop - begin, -1, last[buffer], buffer))
                    else:
                        self.given.append((buffer, k))
                case Fixed(array):
                    self.fixed.append((buffer, array))
                case Uploaded(source, size):
                    if buffer in stay:
                        own[size].append(buffer)
                        self.uploads.append((buffer, source))
                    elif size > _SMALL:
                        parts.append((size, -1, last[buffer], buffer))
                        self.uploads.append((buffer, source))
                    else:
                        numbers.append((buffer, size, source))
                case Numbers(array):
                    if buffer in read:
                        said.append((buffer, array))
                    else:
                        numbers.append((buffer, array.nbytes, array))
                case Empty(size):
                    if buffer in stay and buffer not in moved:
                        own[size].append(buffer)
                    elif buffer in live and buffer not in stay and size <= _SMALL:
                        small.append((buffer, size))
                    else:
                        parts.append((size, first.get(buffer, end), last[buffer], buffer))
                case Made():
                    pass
        self.own = [(size, tuple(buffers)) for size, buffers in own.items()]
        self.results = tuple(b for b in sorted(moved) if b in stay)  # copied when all is done
        # first what the host reads at the end, of which the last part it writes, too
        places: dict[int, int] = {}
        at = 0
        for buffer, size in small:
            places[buffer], at = at, at + _rounded(size)
        self.written = at
        self.sources: list[tuple[int, int, Source]] = []
        constants: list[tuple[int, np.ndarray]] = []
        for buffer, array in said:
            places[buffer], at = at, at + _rounded(array.nbytes)
            constants.append((places[buffer], array))
        self.read = at
        for buffer, size, what in numbers:
            places[buffer], at = at, at + _rounded(size)
            if isinstance(what, np.ndarray):
                constants.append((places[buffer], what))
            else:
                self.sources.append((places[buffer] - self.written, size, what))
        self.numbers = np.zeros(at - self.written, "uint8")
        for place, array in constants:
            begin = place - self.written
            self.numbers[begin : begin + array.nbytes] = array.reshape(-1).view("uint8")
        size, found = _packed(parts)
        self.size = at + size
        self.inside = [*places.items(), *((buffer, at + place) for buffer, place in found.items())]
        # what a call gives that nobody else has
        distinct = {v.buffer for v in views if v.buffer in stay}
        self.alone = len(distinct) == sum(o.stays for o in tape.outputs if o.view) and all(
            isinstance(tape.origins[buffer], Empty | Uploaded) for buffer in distinct
        )


def _rounded(size: int) -> int:
    return -(-size // _APART) * _APART


def _packed(parts: list[tuple[int, int, int, int]]) -> tuple[int, dict[int, int]]:
    """Places for parts (bytes, the first and the last step that needs it, buffer), which two have
    together only where they are not needed together; and the bytes that they take. Which part comes
    first is tried in two ways, by bytes and by bytes times steps: both are near the least."""
    found = [_in_turn(sorted(parts, key=order)) for order in (_bytes_of, _bytes_times_steps)]
    return min(found, key=itemgetter(0))


def _bytes_of(part: tuple[int, int, int, int]) -> Any:
    size, *when = part
    return -size, when


def _bytes_times_steps(part: tuple[int, int, int, int]) -> Any:
    size, first, last, _ = part
    return -size * (last - first + 1), part


def _in_turn(parts: list[tuple[int, int, int, int]]) -> tuple[int, dict[int, int]]:
    """Each part where the first gap is between those before it that are needed when it is."""
    placed = np.zeros((4, len(parts)), "int64")  # from where to where, from when to when
    places: dict[int, int] = {}
    for i, (size, first, last, buffer) in enumerate(parts):
        begins, ends, firsts, lasts = placed[:, :i]
        beside = np.flatnonzero((firsts <= last) & (lasts >= first))
        beside = beside[np.argsort(begins[beside])]
        free = np.concatenate([[0], np.maximum.accumulate(ends[beside])])
        gaps = np.flatnonzero(begins[beside] - free[:-1] >= _rounded(size))
        at = int(free[gaps[0] if gaps.size else -1])
        placed[:, i] = at, at + _rounded(size), first, last
        places[buffer] = at
    return int(placed[1].max(initial=0)), places


class Replay:
    """Calls that are made again. Called with a call's inputs it gives its outputs; raises
    Unexpected where something is not as it was in the call that was written, so that it must be
    made without the tape, and DeviceError where blocks of a loop did not meet."""

    def __init__(self, tape: Tape) -> None:
        self.tape, self.device = tape, tape.device
        self.layout = Layout(tape, ())
        self.freed = _freed(tape)
        self.calls = self.made = 0
        self.graphs: OrderedDict[Any, Any] = OrderedDict()
        self.met: set[Any] = set()
        self.places: dict[int, set[int]] = defaultdict(set)
        self.moved: set[int] = set()
        self.has_graphs = bool(tape.steps) and not any(
            isinstance(tape.origins[buffer], Made) for buffer in tape.live
        )
        self.lock = threading.Lock()

    def __call__(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        tape, device, layout = self.tape, self.device, self.layout
        b = Buffers(device, inputs, len(tape.origins))
        for step in tape.computing:
            step(b)
        for buffer, k in layout.given:
            b.set(buffer, inputs[k])
        for buffer, array in layout.fixed:
            b.set(buffer, array)
        memory, start = device.allocate(layout.size) if layout.size else (None, 0)
        for buffer, place in layout.inside:
            b.put(buffer, memory, start + place)
        for size, buffers in layout.own:
            # in the order of their places, so that equal ones may be the same ones again
            blocks = sorted((device.allocate(size) for _ in buffers), key=itemgetter(1))
            for buffer, block in zip(buffers, blocks):
                b.put(buffer, *block)
        self._upload(b, layout, start)
        self._run(b, layout, start)
        read = self._read(layout, memory, start)
        self._check(b, read)
        return self._results(b, layout, read)

    def _upload(self, b: Buffers, layout: Layout, start: int) -> None:
        device, numbers = self.device, layout.numbers
        if layout.sources:
            numbers = numbers.copy()
            for place, size, source in layout.sources:
                numbers[place : place + size] = _bytes(source(b), size)
        if numbers.size:
            device.write(start + layout.written, numbers)
        for buffer, source in layout.uploads:
            found = np.asarray(source(b), order="C")
            if found.nbytes:
                device.write(b.addresses[buffer], found)
        for buffer, k in layout.moved:
            begin, end, (at, _, _) = self.tape.bases[buffer]
            place, source = b.addresses[buffer], device.address(b.inputs[k]) - (at - begin)
            device.move(place, source, end - begin)
            b.addresses[buffer] += at - begin

    # ---- the steps -------------------------------------------------------------------------------

    def _run(self, b: Buffers, layout: Layout, start: int) -> None:
        self.calls += 1
        if not self.has_graphs or self.calls <= _FIRST:
            self._steps(b)
            return
        device = self.device
        moving = [buffer for buffer, _ in layout.given]
        moving += [buffer for _, buffers in layout.own for buffer in buffers]
        places = [b.addresses[buffer] for buffer in moving]
        key = device.stream(), start, *places
        graph = self.graphs.get(key)
        if graph is not None:
            device.replay(graph)
        elif key not in self.met or not self.lock.acquire(blocking=False):
            self._steps(b)
            self._watch(key, moving, places)
        else:
            try:
                graph = self._recorded(b)
                if graph is None:
                    self._steps(b)
                elif layout is self.layout:
                    self._keep(key, graph)
            finally:
                self.lock.release()

    def _steps(self, b: Buffers) -> None:
        for (step, _), freed in zip(self.tape.steps, self.freed):
            step(b)
            for buffer in freed:
                b.held[buffer] = b.arrays[buffer] = None

    def _recorded(self, b: Buffers) -> Any:
        """A graph of the steps, which has been started; None where there can't be one."""
        device = self.device
        try:
            with device.capture() as graph:
                for step, _ in self.tape.steps:
                    step(b)
            graph.held += [b.held[buffer] for freed in self.freed for buffer in freed]
        except Exception:  # what is wrong is said of the steps themselves
            self.has_graphs = False
            return None
        device.replay(graph)
        return graph

    def _keep(self, key: Any, graph: Any) -> None:
        self.made += 1
        self.graphs[key] = graph
        while len(self.graphs) > _MOST_GRAPHS:
            self.graphs.popitem(last=False)
        if self.made >= _MOST_MADE:
            self.has_graphs = False
            self.graphs.clear()

    def _watch(self, key: Any, moving: Sequence[int], places: Sequence[int]) -> None:
        """A call that no graph is for. What is in many places is copied from now on."""
        if len(self.met) >= _MOST_MET:
            self.met.clear()
        self.met.add(key)
        new = set()
        for buffer, place in zip(moving, places):
            self.places[buffer].add(place)
            if len(self.places[buffer]) > _MOST_PLACES:
                new.add(buffer)
        if not new:
            return
        bases = self.tape.bases
        if any(bases[buffer][1] - bases[buffer][0] > _MOST_MOVED for buffer in new):
            self.has_graphs = False
            return
        self.moved |= new
        self.layout = Layout(self.tape, self.moved)
        self.graphs.clear()
        self.met.clear()
        self.places.clear()

    # ---- what comes of it ------------------------------------------------------------------------

    def _read(self, layout: Layout, memory: Any, start: int) -> Callable[[View, Buffers], Any]:
        """What gives the host's array of a view, with one copy for all that lies together."""
        device, places = self.device, dict(layout.inside)
        together: Any = None
        if layout.read:
            whole = device.view(memory, start, (layout.read,), (1,), np.dtype("uint8"))
            together = device.host(whole)

        def read(view: View, b: Buffers) -> Any:
            place = places.get(view.buffer, layout.read) + view.offset
            if place >= layout.read:
                return device.host(b.view(view))
            return np.ndarray(view.shape, view.dtype, together, place, view.strides).copy()

        return read

    def _check(self, b: Buffers, read: Callable[[View, Buffers], Any]) -> None:
        for view, launch in self.tape.met:
            check_met(launch, *map(int, read(view, b)))
        for view, said in self.tape.expected:
            if tuple(map(int, read(view, b))) != said:
                raise Unexpected

    def _results(
        self, b: Buffers, layout: Layout, read: Callable[[View, Buffers], Any]
    ) -> tuple[Any, ...]:
        device = self.device
        for buffer in layout.results:
            begin, end, _ = self.tape.bases[buffer]
            memory, place = device.allocate(end - begin)
            device.move(place, b.addresses[buffer], end - begin)
            b.put(buffer, memory, place)

        def result(o: Output) -> Any:
            if o.view is None:
                assert o.source is not None
                return o.source(b)
            return b.view(o.view) if o.stays else read(o.view, b)

        found = map(result, self.tape.outputs)
        return Alone(found) if layout.alone else tuple(found)


def _freed(tape: Tape) -> list[tuple[int, ...]]:
    """Of each step, what it is the last one to need of what steps make in memory of their own."""
    last: dict[int, int] = {}
    for i, (_, buffers) in enumerate(tape.steps):
        last.update(dict.fromkeys(buffers, i))
    freed: list[list[int]] = [[] for _ in tape.steps]
    live = tape.live
    for buffer, i in last.items():
        if isinstance(tape.origins[buffer], Made) and buffer not in live:
            freed[i].append(buffer)
    return [tuple(f) for f in freed]


def _bytes(x: Any, size: int) -> np.ndarray:
    found = np.ascontiguousarray(x).reshape(-1).view("uint8")
    if found.nbytes != size:
        raise Unexpected
    return found
