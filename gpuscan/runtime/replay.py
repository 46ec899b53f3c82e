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
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from .calls import check_met
from .layout import Layout
from .memory import Alone
from .tape import Buffers, Empty, Given, Made, Output, Tape, Unexpected, View

_FIRST = 4  # calls before a graph is made
_MOST_GRAPHS = 4  # of a tape, at once
_CALLS = 16  # a further graph, at least: to record one takes as long as some calls
_MOST_PLACES = 4  # of an input or a result, before it is copied
_MOST_MOVED = 1 << 24  # bytes of what is copied
_MOST_MET = 64  # sets of places that came once


class Replay:
    """Calls that are made again. Called with a call's inputs it gives its outputs; raises
    Unexpected where something is not as it was in the call that was written, so that it must be
    made without the tape, and DeviceError where blocks of a loop did not meet."""

    def __init__(self, tape: Tape) -> None:
        self.tape, self.device = tape, tape.device
        self.layout = Layout(tape)
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
        for buffer, place in layout.inside.items():
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
        for buffer, k in layout.copied:
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
        device, moving = self.device, layout.moving
        places = [b.addresses[buffer] for buffer in moving]
        key = layout, device.stream(), start, *places
        graph = self.graphs.get(key)
        if graph is not None:
            device.replay(graph)
        elif (
            key not in self.met
            or self.made >= _MOST_GRAPHS + self.calls // _CALLS
            or not self.lock.acquire(blocking=False)
        ):
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
        for (step, _), freed in zip(self.tape.steps, self.layout.freed):
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
            graph.held += [b.held[buffer] for freed in self.layout.freed for buffer in freed]
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
        if not all(map(self._can_move, new)):
            self.has_graphs = False
            return
        self.moved |= new
        self.layout = Layout(self.tape, self.moved)
        self.graphs.clear()
        self.met.clear()
        self.places.clear()

    def _can_move(self, buffer: int) -> bool:
        begin, end, _ = self.tape.bases[buffer]
        origin = self.tape.origins[buffer]
        is_result = buffer in self.tape.live
        kind = isinstance(origin, Empty if is_result else Given)
        return kind and end - begin <= _MOST_MOVED

    # ---- what comes of it ------------------------------------------------------------------------

    def _read(self, layout: Layout, memory: Any, start: int) -> Callable[[View, Buffers], Any]:
        """What gives the host's array of a view, with one copy for all that lies together."""
        device, places = self.device, layout.inside
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


def _bytes(x: Any, size: int) -> np.ndarray:
    found = np.ascontiguousarray(x).reshape(-1).view("uint8")
    if found.nbytes != size:
        raise Unexpected
    return found
