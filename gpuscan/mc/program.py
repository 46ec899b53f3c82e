"""A kernel as compiled functions: arrays in, arrays out, and nothing is kept between two calls.

A run is a start and then chunks of steps. Each function is one loop whose length and number of
chains are arguments; the states of random streams are too, so a chunk depends on nothing else and
may run anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import built_at, listed
from ..function import Function, function
from ..graph import Input, Literal, Param, Variable, leaves, substitute, toposort
from ..ops import sample
from ..ops.create import zeros
from ..ops.shape import dim
from ..record import record
from ..scan.op import Scan, Step
from ..shared import Shared, SharedVariable
from ..tensor.random import RandomStreams
from ..types import TensorType
from .kernel import OWN, Array, Kernel, State

Arrays = dict[str, Array]

TOLD = "told/"  # starts the names of a schedule's rows among the inputs


@record
class Moved:
    """What a chunk of steps gives. Samples and statistics have the steps as their first axis and
    the chains as their second."""

    samples: Arrays
    stats: Arrays
    state: Arrays
    streams: Array


class Move:
    """A loop over steps, as a function.

    sites: its streams, as rows of the run's states of random streams, which are uint64
    (streams, 3), as `ops.sample` describes them. stats: names and dtypes.
    """

    def __init__(
        self, run: Function, told: Sequence[str], sites: Sequence[int], state: Sequence[str],
        samples: Sequence[str], stats: Mapping[str, str], thins: bool,
    ) -> None:  # fmt: skip
        self.run = run
        self.told, self.sites, self.state = list(told), list(sites), list(state)
        self.samples, self.stats, self.thins = list(samples), dict(stats), thins

    def __call__(self, steps: int, thin: int, state: Arrays, streams: Array, told: Arrays) -> Moved:
        """`steps` kept steps on, each the last of `thin`; `told` holds their rows of the
        schedule."""
        found = iter(
            self.run(
                np.int64(steps),
                *([np.int64(thin)] if self.thins else []),
                *(told[name] for name in self.told),
                *(state[name] for name in self.state),
                *(streams[site] for site in self.sites),
            )
        )
        end = {name: next(found) for name in self.state}
        streams = streams.copy()
        for site in self.sites:
            streams[site] = next(found)
        samples = {name: next(found) for name in self.samples}
        return Moved(samples, {name: next(found) for name in self.stats}, end, streams)


@record
class Program:
    """A kernel's functions for positions of certain dtypes and shapes. It can be pickled, and
    `fingerprint` tells models apart, the data that they hold included."""

    name: str
    start: Function
    draw: Move
    tune: Move | None
    streams: int  # how many
    fingerprint: str

    def begin(self, position: Arrays) -> Arrays:
        """The state of chains that stand at `position`."""
        found: Arrays = self.start(*position.values())
        return found

    def move(
        self, warmup: bool, steps: int, thin: int, state: Arrays, streams: Array, told: Arrays
    ) -> Moved:
        """`steps` steps on, of the warm-up or not."""
        phase = self.tune if warmup else self.draw
        assert phase is not None
        return phase(steps, 1 if warmup else thin, state, streams, told)


def initial_streams(word: int, count: int) -> Array:
    """The states of a run's random streams at its start: stream k is site k of the seed's word."""
    states = [sample.state_value(word, k) for k in range(count)]
    return np.array(states, np.uint64).reshape(count, *sample.STATE.shape)


def build(
    kernel: Kernel, position: Mapping[str, Array], schedule: Mapping[str, Array], tunes: bool,
    thins: bool, keep: Sequence[str], stats: bool, warmup: bool, splits: bool,
    device: str | None,
) -> Program:  # fmt: skip
    """The functions of a kernel.

    position: arrays whose dtypes and shapes, but for the number of chains, the functions are for.
    keep: the variables that are recorded, with statistics where `stats`, and also in the warm-up
    where `warmup`. splits: the chains are shared out among tasks.

    Raises TypeError and ValueError where what the kernel makes does not fit.
    """
    inputs = {n: TensorType(x.dtype.name, (None, *x.shape[1:]))(n) for n, x in position.items()}
    first = kernel.start(dict(inputs))
    _check_start(kernel, inputs, first)
    start = function(
        list(inputs.values()), dict(first), name=f"{kernel.name} start", device=device,
        no_default_updates=True, on_unused_input="ignore",
    )  # fmt: skip
    state = {n: TensorType(v.dtype, (None, *v.type.shape[1:])) for n, v in first.items()}
    random = RandomStreams(0)  # its seed is never used: streams get their states from the caller
    draw = _Transition(kernel, "step", state, {}, random)
    phases = [draw]
    if tunes:
        rows = {n: TensorType(x.dtype.name, x.shape[1:]) for n, x in schedule.items()}
        phases.append(_Transition(kernel, "tune", state, rows, random))
    # numbered as they are met, those of the draws first, so that these depend on no warm-up
    sites = {s: k for k, s in enumerate(dict.fromkeys(s for p in phases for s in p.next))}
    if splits:
        _check_split(kernel.name, phases, start, position)
    moves = [draw.loop(sites, keep, stats, thins, device)]
    if tunes:
        moves.append(phases[1].loop(sites, keep if warmup else (), stats and warmup, False, device))
    return Program(
        kernel.name, start, moves[0], moves[1] if tunes else None, len(sites),
        _fingerprint([list(first.values()), *(p.all for p in phases)]),
    )  # fmt: skip


def _check_start(kernel: Kernel, position: State, state: State) -> None:
    for name, x in position.items():
        got = state.get(name)
        if got is None or (got.dtype, got.ndim) != (x.dtype, x.ndim):
            raise TypeError(
                f"{kernel.name}: start() makes {name!r} {'nothing' if got is None else got.type}, "
                f"expected {x.type}"
            )
    for name, v in state.items():
        if name not in position and not name.startswith(OWN):
            raise ValueError(
                f"{kernel.name}: start() adds {name!r}, expected a name that starts with {OWN!r}"
            )
        if not v.ndim:
            raise ValueError(
                f"{kernel.name}: {name!r} is a scalar, expected the chains as its first axis"
            )
    if any(_is_stream(v) for v in leaves(state.values())):
        raise ValueError(f"{kernel.name}: start() draws random numbers, which a seed can't reach")


class _Transition:
    """A step of the kernel, as values of variables of its own."""

    def __init__(
        self, kernel: Kernel, phase: str, state: Mapping[str, TensorType],
        told: Mapping[str, TensorType], random: Any,
    ) -> None:  # fmt: skip
        self.name = f"{kernel.name} {phase}"
        self.state = {n: t(n) for n, t in state.items()}
        self.told = {n: t(n) for n, t in told.items()}
        if phase == "tune":
            made = kernel.tune(dict(self.state), dict(self.told), random)
        else:
            made = kernel.step(dict(self.state), random)
        self.new, self.stats = self._checked(*made)
        self.next = self._streams()

    @property
    def all(self) -> list[Variable]:
        """All that a step reads and gives."""
        own = [*self.told.values(), *self.state.values(), *self.next]
        return [*own, *self.new.values(), *self.next.values(), *self.stats.values()]

    def _checked(self, new: State, stats: State) -> tuple[State, State]:
        if set(new) != set(self.state):
            raise ValueError(
                f"{self.name} gives {listed(sorted(new))}, expected {listed(sorted(self.state))}"
            )
        for name, old in self.state.items():
            a, b = old.type, new[name].type
            if (a.dtype, a.ndim) != (b.dtype, b.ndim) or any(
                m is not None and n is not None and m != n for m, n in zip(a.shape, b.shape)
            ):
                raise TypeError(
                    f"{self.name} makes {name!r} a {b}, expected a {a}, as it is at the start: a "
                    f"transition keeps dtypes and shapes.{built_at(new[name])}"
                )
        for name, v in stats.items():
            if v.ndim != 1:
                raise ValueError(
                    f"{self.name}: the statistic {name!r} is a {v.type}, expected a vector, one "
                    f"element a chain.{built_at(v)}"
                )
        return {name: new[name] for name in self.state}, dict(stats)

    def _streams(self) -> dict[SharedVariable, Variable]:
        """The random streams that the step draws from, in the order in which its graph has them,
        and their states after it."""
        roots = [*self.new.values(), *self.stats.values()]
        found: dict[Any, Variable | None] = {
            s: s.default_update for s in leaves(roots) if isinstance(s, SharedVariable)
        }
        for v in toposort(roots):  # loops of the step advance theirs by more
            if isinstance(v.op, Scan):
                inits, finals = v.op.split(v.inputs).inits, v.op.results(v).finals
                found |= {s: end for s, end in zip(inits, finals) if _is_stream(s)}
        for s, value in found.items():
            if value is not None and not _is_stream(s):
                raise ValueError(
                    f"{self.name} would update the shared variable {s}, which all chains share: "
                    "make it part of the position"
                )
        return {s: value for s, value in found.items() if value is not None}

    def loop(
        self, sites: Mapping[SharedVariable, int], keep: Sequence[str], stats: bool, thins: bool,
        device: str | None,
    ) -> Move:  # fmt: skip
        """Many steps. thins: of every so many steps only the last is recorded."""
        steps, thin = TensorType("int64")("steps"), TensorType("int64")("thin")
        told = {n: v.type.rows()(TOLD + n) for n, v in self.told.items()}
        carries = [*self.state.values(), *self.next]
        inits = [v.type(v.name) for v in carries]
        new = [*self.new.values(), *self.next.values()]
        kept, recorded = [self.new[n] for n in keep], list(self.stats.values()) if stats else []
        if thins:
            # statistics ride along as carries, for a loop's traces would hold every step
            chains = dim(carries[0], 0)
            held = [TensorType(v.dtype, (None,))(n) for n, v in zip(self.stats, recorded)]
            none = [zeros([chains], v.dtype) for v in held]
            finals, _ = _scan(
                "thinned", thin, {}, [*carries, *held], [*carries, *none], [*new, *recorded], []
            )
            at_end = dict(zip(self.state, finals))
            kept, recorded = [at_end[n] for n in keep], finals[len(carries) :]
            new = finals[: len(carries)]
        rows = dict(zip(self.told.values(), told.values()))
        finals, traces = _scan(self.name, steps, rows, carries, inits, new, [*kept, *recorded])
        run = function(
            [steps, *([thin] if thins else []), *told.values(), *inits],
            [*finals, *traces], name=self.name, device=device, no_default_updates=True,
            on_unused_input="ignore",
        )  # fmt: skip
        return Move(
            run, list(self.told), [sites[s] for s in self.next], list(self.state),
            keep, {n: v.dtype for n, v in self.stats.items()} if stats else {}, thins,
        )  # fmt: skip


def _scan(
    name: str, n: Variable, rows: Mapping[Variable, Variable], carries: Sequence[Variable],
    inits: Sequence[Variable], new: Sequence[Variable], traces: Sequence[Variable],
) -> tuple[list[Variable], list[Variable]]:  # fmt: skip
    """A loop over values of one step, and of it the final carries and the traces. rows: the
    variables that stand for the rows of sequences, and these."""
    params = [*rows, *carries]
    consts = [v for v in leaves([*new, *traces], params) if v not in params]
    step = Step(tuple(rows), tuple(carries), tuple(consts), tuple(new), tuple(traces))
    op = Scan(step.closed(), name=name)
    found = op.results(op(n, *rows.values(), *inits, *consts))
    return list(found.finals), list(found.traces)


def _is_stream(v: Any) -> bool:
    return isinstance(v, SharedVariable) and getattr(v.tag, "is_rng", False)


# ---- how many rows draws have --------------------------------------------------------------------


def _check_split(
    name: str, phases: Sequence[_Transition], start: Function, position: Mapping[str, Array]
) -> None:
    """Raises ValueError where a draw can't be shared out by chains."""
    state = phases[0].state
    found: list[Variable] = []
    for phase in phases:
        told = {v: zeros([s or 1 for s in v.type.shape], v.dtype) for v in phase.told.values()}
        own = {**dict(zip(phase.state.values(), state.values())), **told}
        found += substitute(_first_sizes(phase.all), own)
    if not found:
        return
    run = function(
        list(state.values()), found, name="rows of draws", no_default_updates=True,
        on_unused_input="ignore", device="reference",
    )  # fmt: skip
    chains = len(next(iter(position.values())))
    for times in (1, 2):  # a size that is equal by chance is not twice
        several = {n: np.concatenate([x] * times) for n, x in position.items()}
        for size in run(*start(*several.values()).values()):
            if size != times * chains:
                raise ValueError(
                    f"{name}: a random draw of the step has {size} rows for {times * chains} "
                    "chains: chains can be shared out among tasks only where each draw is a "
                    "scalar or has the chains as its first axis"
                )


_DRAWS = sample.Uniform | sample.Binomial | sample.Poisson | sample.Multinomial


def _first_sizes(roots: Sequence[Variable]) -> list[Variable]:
    found: list[Variable] = []
    for v in toposort(roots):
        if isinstance(v.op, Scan):
            o, step = v.op.split(v.inputs), v.op.step
            rows = [x[0] for x in o.seqs]  # only their sizes are read
            outer = dict(zip(step.params, [*rows, *o.inits, *o.consts]))
            found += substitute(_first_sizes(step.outputs), outer)
        elif isinstance(v.op, _DRAWS) and v.ndim > isinstance(v.op, sample.Multinomial):
            found.append(dim(v, 0))
    return list(dict.fromkeys(found))


# ---- which model ---------------------------------------------------------------------------------


def _fingerprint(graphs: Iterable[Sequence[Variable]]) -> str:
    """A hash of graphs, with the values of constants and shared variables, that is equal in every
    process in which they are built alike. Names of variables are not part of it."""
    text = _Text()
    for outputs in graphs:
        text.add(list(outputs))
    return text.hash.hexdigest()


class _Text:
    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.number: dict[Variable, int] = {}

    def _put(self, text: str) -> None:
        self.hash.update(text.encode() + b"\0")

    def add(self, value: Any) -> None:
        match value:
            case Variable():
                self._node(value)
            case np.ndarray():
                self._put(f"{value.dtype.str} {value.shape}")
                self.hash.update(np.ascontiguousarray(value).tobytes())
            case list() | tuple():
                self._put(f"{len(value)} values")
                for v in value:
                    self.add(v)
            case Literal():
                self.add(value.data)
            case Input() | Param() | Shared():
                self._put(f"{type(value).__name__} {value.of} {getattr(value, 'position', '')}")
            case _ if hasattr(value, "__record__"):
                self._put(type(value).__qualname__)
                for name, f in value.__record__.items():
                    if f.compare:
                        self.add(getattr(value, name))
            case None | bool() | int() | float() | str() | bytes() | np.generic():
                self._put(repr(value))
            case _:  # a function of an op's meaning
                self._put(getattr(value, "__qualname__", type(value).__qualname__))

    def _node(self, root: Variable) -> None:
        for v in toposort([root]):
            if v in self.number:
                continue
            self.add(v.op)
            if isinstance(v, SharedVariable) and not _is_stream(v):
                self.add(v.storage)
            self._put(f"of {[self.number[i] for i in v.inputs]}")
            self.number[v] = len(self.number)
        self._put(f"node {self.number[root]}")
