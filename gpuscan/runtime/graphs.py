"""Steps of a loop that is not fused, many at a time: what they start is recorded once, as a CUDA
graph, and started again as a whole, so that the GPU does not wait for Python."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from ..record import record, replace

KERNELS, LEAST = 256, 8  # a graph has about so many kernels, and at least so many steps
_MOST_GRAPHS = 4  # of a loop
_MOST_MET = 64

Values = Sequence[Any]


@record
class StepLaunches:
    """What a step of a loop starts: how many kernels; how many steps a graph has at most, 0 where
    there is none, and why there is none. least: whether there are more kernels, of a loop in the
    step whose length is not known."""

    kernels: int
    steps: int
    reason: str = ""
    least: bool = False


def launches(kernels: int, reason: str, least: bool = False) -> StepLaunches:
    """Of steps of so many kernels; `reason`: what keeps them from being a graph, or nothing."""
    if not (reason or kernels):
        reason = "a step starts no kernel"
    # with twice as many a loop of any length is cut into parts that are no shorter than LEAST
    steps = 0 if reason else max(2 * LEAST, KERNELS // kernels)
    return StepLaunches(kernels, steps, reason, least)


def steps_of_graph(n: int, most: int) -> int:
    """Of how many steps a graph is for a loop of n: so that few are left over."""
    return n // -(-n // most)


class Graphs:
    """The graphs of a loop. Each is for the shapes of the operands and the numbers among them that
    the host knows, for a number of steps, and for the stream that the loop runs on: work on two
    streams has no order, and a graph has only one set of arrays."""

    def __init__(
        self, step: Callable[..., Values], counts: tuple[int, int], stay: Sequence[bool],
        device: Any, planned: StepLaunches, told: Callable[[StepLaunches], None],
    ) -> None:  # fmt: skip
        self.stay = stay  # per const whether it stays on the host: in a graph it is as it was
        self.step, self.device, self.planned, self.told = step, device, planned, told
        self.n_seqs, self.n_carries = counts
        self.made: dict[tuple[Any, int], _Graph] = {}
        self.met: dict[Any, set[int]] = {}  # whose kernels are built: lengths of loops
        self.failed: set[Any] = set()
        self.lock = threading.Lock()

    def ahead(self, n: int, operands: Values) -> Callable[..., Any] | None:
        """What `Scan.run` is to call for several steps at once."""
        if not self.planned.steps or n < LEAST:
            return None
        seqs, consts = operands[: self.n_seqs], operands[self.n_seqs + self.n_carries :]
        is_over = False

        def run(t: int, carries: Values, traces: list[Any]) -> tuple[int, Values, list[Any]]:
            nonlocal is_over
            # a graph that another thread is running has its arrays in use
            if is_over or not self.lock.acquire(blocking=False):
                return 0, carries, traces
            try:
                key = self._key(seqs, carries, consts)
                if t == 0 and key not in self.met:
                    return 0, carries, traces
                is_over = True
                graph = self._find(key, n, t, seqs, carries, consts)
                if graph is None:
                    return 0, carries, traces
                if t == 0:
                    traces = [self.device.empty((n, *x.shape[1:]), x.dtype) for x in graph.traces]
                many = (n - t) // graph.steps
                found = graph.run(many, t, seqs, carries, consts, traces)
                return many * graph.steps, found, traces
            finally:
                self.lock.release()

        return run

    def _key(self, seqs: Values, carries: Values, consts: Values) -> Any:
        rows = tuple([x.shape[1:] for x in seqs])
        shapes = tuple([x.shape for x in (*carries, *consts)])
        numbers = tuple([int(x) for x, stays in zip(consts, self.stay) if stays])
        return (self.device.stream(), rows, shapes), numbers

    def _find(
        self, key: Any, n: int, t: int, seqs: Values, carries: Values, consts: Values
    ) -> _Graph | None:
        """The graph for steps t to n of such operands. One of another length's serves until a
        length comes again: then it gets its own."""
        steps = steps_of_graph(n, self.planned.steps)
        sizes = [size for k, size in self.made if k == key and size <= n - t]
        if len(self.met) >= _MOST_MET:
            self.met.clear()
        # a number that is another one in each call would have a graph made in each
        first_of_others = key not in self.met and any(k[0] == key[0] for k in self.met)
        lengths = self.met.setdefault(key, set())
        if lengths and n not in lengths and steps not in sizes:
            steps = min(sizes, key=lambda size: (n - t) % size, default=0)
        if len(lengths) < _MOST_MET:
            lengths.add(n)
        if first_of_others or not steps or steps > n - t or key in self.failed:
            return None
        if (key, steps) in self.made:
            graph = self.made.pop((key, steps))
        else:
            while len(self.made) >= _MOST_GRAPHS:
                del self.made[next(iter(self.made))]  # the one that was not used for longest
            try:
                graph = _Graph(self, steps, seqs, carries, consts)
            except Exception as e:  # one by one, the steps say what is wrong, if they are it
                self.failed.add(key)
                words = str(e).partition("\n")[0]
                self.told(replace(self.planned, steps=0, reason=f"it can't be recorded: {words}"))
                return None
        self.made[key, steps] = graph
        return graph


class _Graph:
    """A graph of several steps, and the arrays that it works on."""

    def __init__(
        self, owner: Graphs, steps: int, seqs: Values, carries: Values, consts: Values
    ) -> None:
        device = owner.device
        self.device, self.steps, self.stay = device, steps, owner.stay
        with device.capture() as self.graph:
            self.rows = [device.empty((steps, *x.shape[1:]), x.dtype) for x in seqs]
            self.carries = [device.empty(x.shape, x.dtype) for x in carries]
            self.consts = [
                x if stays else device.empty(x.shape, x.dtype)
                for x, stays in zip(consts, self.stay)
            ]
            self.traces: list[Any] = []
            last = self._record(owner)
            # A new carry may be an old one, so that the last ones must be saved before they are put
            # where the next steps find them.
            saved = [device.empty(x.shape, x.dtype) for x in carries]
            for target, x in zip((*saved, *self.carries), (*last, *saved)):
                device.copy(target, x)

    def _record(self, owner: Graphs) -> Values:
        """The steps; gives the last carries."""
        device, k = self.device, owner.n_carries
        last: Values = self.carries
        for t in range(self.steps):
            found = owner.step(*[x[t, ...] for x in self.rows], *last, *self.consts)
            last, rows = found[:k], found[k:]
            if t == 0:
                self.traces = [device.empty((self.steps, *x.shape), x.dtype) for x in rows]
            old = [x.shape for x in self.carries], [x.shape[1:] for x in self.traces]
            if old != ([x.shape for x in last], [x.shape for x in rows]):
                raise ValueError("a shape changes from step to step")
            for target, x in zip(self.traces, rows):
                device.copy(target[t, ...], x)
        return last

    def run(
        self, many: int, t: int, seqs: Values, carries: Values, consts: Values, traces: Values
    ) -> Values:
        """Runs the graph so many times from step t on, puts the rows of the traces where they
        belong, and gives the carries then."""
        copy = self.device.copy
        for target, x in zip(self.carries, carries):
            copy(target, x)
        for target, x, stays in zip(self.consts, consts, self.stay):
            if not stays:
                copy(target, x)
        for start in range(t, t + many * self.steps, self.steps):
            part = slice(start, start + self.steps)
            for target, x in zip(self.rows, seqs):
                copy(target, x[part])
            self.device.replay(self.graph)
            for target, x in zip(traces, self.traces):
                copy(target[part], x)
        found = [self.device.empty(x.shape, x.dtype) for x in self.carries]
        for target, x in zip(found, self.carries):
            copy(target, x)
        return tuple(found)
