"""scan(): Theano's calling convention, turned into a Scan.

The pages of the contract: the order of fn's arguments, taps and trimming, what fn may return,
which variables are carried, and every misuse with its error.
"""

from __future__ import annotations

import inspect
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import MissingInputError, built_at, describe
from ..graph import Constant, Variable, leaves, substitute, toposort, users_line
from ..ops.convert import as_tensor, static_int
from ..ops.ordered import Ordered
from ..ops.reduce import with_axes
from ..ops.scalar import identity, minimum
from ..ops.shape import dim, first_rows, specify
from ..record import field, record
from ..shared import SharedVariable
from ..types import TensorType
from .memory import Memory, memory_of
from .op import Scan, Step, compatible
from .updates import OrderedUpdates, default_updates


class until:
    """`return outputs, until(condition)`: the step for which the condition is true is the last."""

    def __init__(self, condition: Any) -> None:
        self.condition = as_tensor(condition)
        if self.condition.ndim:
            raise AssertionError(
                f"the condition of until() must be a scalar, {describe(self.condition)} is not"
            )


# ---- what the user gave, in one form ----------------------------------------------------------


@record
class _Sequence:
    """A sequence and its taps in the order written."""

    input: Variable
    taps: tuple[int, ...]

    @property
    def trimmed(self) -> tuple[int, int]:
        """The rows that taps take off the front (negative) and off the end."""
        return min(0, *self.taps), max(0, *self.taps)

    def view(self, tap: int, backwards: bool) -> Variable:
        """The rows that this tap reads, the first step's first."""
        m, last = self.trimmed
        start, stop = tap - m, tap - last
        view = self.input[start or None : stop or None] if start or stop else self.input
        return view[::-1] if backwards else view

    @property
    def length(self) -> Variable:
        m, last = self.trimmed
        return dim(self.input, 0) - (last - m) if last > m else dim(self.input, 0)


@record
class _State:
    """An output that feeds back: its initial value and its taps in the order written."""

    initial: Variable
    taps: tuple[int, ...]
    position: int  # among fn's outputs
    carries: list[Variable] = field(default_factory=list)  # the value 1, 2, ... steps ago

    @property
    def depth(self) -> int:
        return max(-t for t in self.taps)

    @property
    def plain(self) -> bool:
        """Whether `initial` is one step's value, without a time axis."""
        return self.taps == (-1,)

    def init(self, age: int) -> Variable:
        """The value `age` steps before the first step."""
        return self.initial if self.plain else self.initial[self.depth - age]


def _listed(x: Any) -> list[Any]:
    return [] if x is None else list(x) if isinstance(x, list | tuple) else [x]


def _sequences(sequences: Any) -> list[_Sequence]:
    found = []
    for i, entry in enumerate(_listed(sequences)):
        given = entry if isinstance(entry, Mapping) else {"input": entry}
        _no_other_keys(given, ("input", "taps"), f"sequences[{i}]")
        if given.get("input") is None:
            raise ValueError(f"sequences[{i}] has no 'input': {entry!r}")
        x = _tensor(given["input"], f"sequences[{i}]")
        if x.ndim == 0:
            raise ValueError(
                f"sequences[{i}], {describe(x)}, is a scalar: scan iterates over the first axis "
                "of its sequences. Pass it in non_sequences."
            )
        taps = given.get("taps")
        taps = [0] if taps is None else taps if isinstance(taps, list | tuple) else [taps]
        found.append(_Sequence(x, _integers(taps, f"sequences[{i}]")))
    return found


def _tensor(x: Any, what: str) -> Variable:
    try:
        return as_tensor(x)
    except (TypeError, ValueError, OverflowError) as e:
        raise TypeError(f"{what} can't be a tensor: {x!r}. {e}") from None


def _integers(taps: Sequence[Any], what: str) -> tuple[int, ...]:
    try:
        return tuple(operator.index(t) for t in taps)
    except TypeError:
        raise TypeError(f"the taps of {what} must be integers, got {list(taps)}") from None


def _states(outputs_info: Any) -> list[_State | None]:
    found: list[_State | None] = []
    for i, entry in enumerate(_listed(outputs_info)):
        given = entry if isinstance(entry, Mapping) else {"initial": entry}
        _no_other_keys(given, ("initial", "taps", "return_steps", "inplace"), f"outputs_info[{i}]")
        if given.get("return_steps") is not None:
            raise ValueError(
                "Using `return_steps` has been deprecated. Simply select the entries you need "
                "using a subtensor. Scan will optimize memory consumption, so do not worry "
                "about that."
            )
        initial, taps = given.get("initial"), given.get("taps")
        if initial is None:
            if taps is not None:
                raise ValueError(
                    "If you are using slices of an output you need to provide a initial state "
                    f"for it: outputs_info[{i}] = {entry!r}"
                )
            found.append(None)
            continue
        if "taps" in given and taps is None:
            warnings.warn(
                f"outputs_info[{i}] has an initial state and taps=None; taps=[-1] is used",
                stacklevel=3,
            )
        taps = [-1] if taps is None else taps if isinstance(taps, list | tuple) else [taps]
        taps = list(_integers(taps, f"outputs_info[{i}]"))
        if not taps:
            found.append(None)
            continue
        if any(t >= 0 for t in taps):
            raise ValueError(
                f"All the tap values must be smaller than 0. outputs_info[{i}] has taps {taps}: "
                "Can not use future taps of outputs"
            )
        if len(set(taps)) != len(taps):
            raise ValueError(
                "All the taps must be different in  `outputs_info`. "
                f"outputs_info[{i}] has taps {taps}"
            )
        state = _State(_tensor(initial, f"outputs_info[{i}]"), tuple(taps), i)
        if not state.plain:
            rows = state.initial.type.shape[0] if state.initial.ndim else 0
            if rows is not None and rows < state.depth:
                raise ValueError(
                    f"outputs_info[{i}]: taps {taps} need an initial state with {state.depth} rows"
                    f" of earlier values along its first axis, got {describe(state.initial)}"
                )
        found.append(state)
    return found


def _no_other_keys(given: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    other = {k: v for k, v in given.items() if k not in known}
    if other:
        raise ValueError(f"These keys were unexpected in Scan {what}: {other}")


def _number_of_steps(n_steps: Any) -> tuple[int | None, Variable | None]:
    """The number of steps as an int where it is known, and as a variable."""
    if n_steps is None:
        return None, None
    v = _tensor(n_steps, "n_steps")
    if v.type.is_float or v.ndim:
        what = f"dtype provided is {v.dtype}" if not v.ndim else f"got {describe(v)}"
        raise ValueError(f" n_steps must be an int. {what}")
    return static_int(v), v.astype("int64")


# ---- what fn returns --------------------------------------------------------------------------


@record
class _Returned:
    outputs: list[Variable]
    updates: OrderedUpdates
    condition: Variable | None


_ALLOWED = (
    "The return value of your scan lambda expression may only be made of lists, tuples, or "
    "dictionaries containing Theano variables (or `theano.scan_module.until` objects for "
    "conditions). In particular if you need to use constant values, you can use "
    "`tensor.constant` to turn them into Theano variables."
)


def _is_updates(x: Any) -> bool:
    """A dict, or a non-empty list of pairs whose first is a variable."""
    if isinstance(x, Mapping):
        return True
    return (
        isinstance(x, list | tuple)
        and len(x) > 0
        and all(isinstance(p, list | tuple) and len(p) == 2 for p in x)
    )


def _is_outputs(x: Any) -> bool:
    return isinstance(x, Variable) or (
        isinstance(x, list | tuple) and all(isinstance(v, Variable) for v in x)
    )


def _parse(returned: Any) -> _Returned:
    """fn's return value: outputs, updates and a condition, each of which may be missing."""
    _only_variables(returned)
    if _is_updates(returned):
        return _Returned([], _updates(returned), None)
    if _is_outputs(returned):
        return _Returned(_listed(returned), OrderedUpdates(), None)
    if isinstance(returned, until):
        return _Returned([], OrderedUpdates(), returned.condition)
    if isinstance(returned, list | tuple) and len(returned) in (2, 3):
        *parts, last = returned
        condition = last.condition if isinstance(last, until) else None
        if not isinstance(last, until):
            parts = list(returned)
        if len(parts) == 1:
            if _is_outputs(parts[0]):
                return _Returned(_listed(parts[0]), OrderedUpdates(), condition)
            if _is_updates(parts[0]):
                return _Returned([], _updates(parts[0]), condition)
        if len(parts) == 2:
            if _is_outputs(parts[0]) and (_is_updates(parts[1]) or not len(parts[1])):
                return _Returned(_listed(parts[0]), _updates(parts[1]), condition)
            if _is_updates(parts[0]) and _is_outputs(parts[1]):
                raise ValueError(
                    "The return value of the lambda function has been restricted. you have to "
                    "always return first the outputs (if any), afterwards the updates (if any) "
                    "and at the end the conclusion"
                )
    raise ValueError(
        f"Scan cannot parse the return value of your lambda expression, which is: {returned}"
    )


def _returned(fn: Callable[..., Any], args: Sequence[Variable]) -> _Returned:
    """What fn gives for these arguments."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # some callables do not tell
        return _parse(fn(*args))
    try:
        signature.bind(*args)
    except TypeError as e:
        names = ", ".join(map(str, args))
        raise TypeError(
            f"scan: fn takes {signature}, and scan gives it {len(args)} positional arguments, the "
            f"taps of sequences and of outputs and the non_sequences: {names or 'none'} ({e})."
            + _called_at()
        ) from None
    return _parse(fn(*args))


def _called_at() -> str:
    """Where the user called scan."""
    origin = users_line()
    return f" scan was called at {origin[0]}:{origin[1]}." if origin else ""


def _only_variables(x: Any) -> None:
    if isinstance(x, Mapping):
        bad = [v for v in x.values() if not isinstance(v, Variable)]
        if bad:
            raise ValueError(f"{_ALLOWED} Got {bad[0]!r}.")
    elif isinstance(x, list | tuple):
        for v in x:
            _only_variables(v)
    elif not isinstance(x, Variable | until):
        raise ValueError(f"{_ALLOWED} Got {x!r}.")


def _updates(x: Any) -> OrderedUpdates:
    return OrderedUpdates(x if isinstance(x, Mapping) else [tuple(p) for p in x])


# ---- scan --------------------------------------------------------------------------------------


def scan(
    fn: Callable[..., Any],
    sequences: Any = None,
    outputs_info: Any = None,
    non_sequences: Any = None,
    n_steps: Any = None,
    truncate_gradient: int = -1,
    go_backwards: bool = False,
    mode: Any = None,
    name: str | None = None,
    profile: Any = False,
    allow_gc: bool | None = None,
    strict: bool = False,
    return_list: bool = False,
    return_updates: bool = True,
    memory: Any = None,
) -> Any:
    """Runs the step `fn` in a loop, symbolically, and gives (outputs, updates).

    fn is called once, with a variable for: every tap of every sequence, then every tap of every
    output that feeds back, in the order written, then the non_sequences. It returns its outputs
    (a variable or a list), and may add updates of shared variables (a dict) and an
    `until(condition)`.

    sequences: what to iterate over along the first axis: variables, arrays, or
        `dict(input=x, taps=[-1, 0, 2])`. They may differ in length; the shortest counts.
    outputs_info: one entry an output: None (no feedback), the initial value, or
        `dict(initial=x, taps=[-2, -1])`, where x has an extra leading axis of earlier values,
        the oldest first.
    non_sequences: what is passed to every step unchanged.
    n_steps: how many steps: an int or a symbolic integer; 0 gives outputs of no rows.
    truncate_gradient: only the last so many steps contribute to gradients; -1: all.
    go_backwards: read the sequences from the end.
    strict: every shared variable that the step reads must be listed.
    return_list: give the outputs as a list also where there is one.
    memory: what is held of the steps until a gradient's backward steps read it. "balanced" (None):
        the carries, which are the values that feed back, and what is costly to compute again:
        products, reductions, softmax, decompositions. "everything": all that is read, so that
        nothing is computed twice. "carries": the carries alone, and nothing else for all steps:
        the rest is computed again step by step, and products for all steps at once are not made.
        A number of bytes, or a text such as "256 MiB": the carries that enter segments of the
        loop; each segment's steps run once more before they run backwards. Segments are as long
        as the budget allows, which is known when the function is called: T steps need about
        2 sqrt(T) of them at least. "every 100 steps": segments of so many. The budget is for what
        grows with the number of steps; sequences, outputs that are read, and the cotangents of
        both are beside it. It is each loop's own, holds for the first derivative, and is for loops
        without until(). Where there is no gradient it changes nothing.
    mode, profile and allow_gc are accepted for Theano's programs.

    outputs: each has shape (steps run, *shape of a step's value), without the initial rows; a
    single variable where there is one, None where there is none. updates: an `OrderedUpdates`
    with the new values of the shared variables that the loop changes (random states among
    them): pass it to `function`, or they stay as they are.

    Raises ValueError for arguments that do not fit together, MissingInputError for a variable
    that the step needs and was not given; when it runs, IndexError for a negative number of
    steps, ValueError for a sequence that is too short or a value that changes shape, and
    MemoryError for a `memory` that is less than the least, which it names.
    """
    if not callable(fn):
        raise TypeError(f"scan: fn must be a function that builds one step, got {fn!r}")
    seqs, states = _sequences(sequences), _states(outputs_info)
    others = [_tensor(x, f"non_sequences[{i}]") for i, x in enumerate(_listed(non_sequences))]
    known_n, n = _number_of_steps(n_steps)
    if n is None and not seqs:
        raise ValueError(
            "No information about the number of steps provided. Either provide a value for "
            "n_steps argument of scan or provide an input sequence"
        )
    if isinstance(truncate_gradient, Variable) or int(truncate_gradient) < -1:
        raise ValueError(f"truncate_gradient must be -1 or a number of steps: {truncate_gradient}")
    policy = memory_of(memory)
    if known_n == 1:
        return _one_step(fn, seqs, states, others, go_backwards, return_list, return_updates)

    loop = _Loop(name or "scan_fn", seqs, states, go_backwards)
    returned = _returned(fn, [*loop.arguments, *others])
    loop.receive(returned, bool(_listed(outputs_info)))
    loop.capture(others, strict)
    loop.widen()
    if n is None:
        lengths = list(dict.fromkeys(s.length for s in seqs))
        n = lengths[0]
        for other in lengths[1:]:
            n = minimum(n, other)
    if loop.stop is not None and policy.in_segments:
        raise ValueError(
            f"scan '{loop.name}': memory={memory!r} takes a number of steps that is known before "
            "the loop runs, and the step returns until(): use 'balanced', 'carries' or 'everything'"
        )
    outputs, updates = loop.build(n, int(truncate_gradient), policy)
    return _result(outputs, updates, return_list, return_updates)


def _result(outputs: list[Variable], updates: Any, return_list: bool, return_updates: bool) -> Any:
    value: Any = outputs
    if not return_list:
        value = outputs[0] if len(outputs) == 1 else outputs or None
    return (value, updates) if return_updates else value


def _one_step(
    fn: Callable[..., Any], seqs: list[_Sequence], states: list[_State | None],
    others: list[Variable], backwards: bool, return_list: bool, return_updates: bool,
) -> Any:  # fmt: skip
    """A loop of the constant one step is the step itself, on the first rows."""
    args = [s.view(tap, backwards)[0] for s in seqs for tap in s.taps]
    args += [s.init(-tap) for s in states if s is not None for tap in s.taps]
    returned = _returned(fn, [*args, *others])
    _check_count(returned.outputs, states, bool(states))
    if returned.condition is not None:
        warnings.warn("the until() condition has no effect in a scan of one step", stacklevel=3)
    outputs = [specify(with_axes(v, [0]), (None, *v.type.shape)) for v in returned.outputs]
    value = _result(outputs, returned.updates, return_list, True)[0]
    value = [] if value is None else value
    return (value, returned.updates) if return_updates else value


def _check_count(outputs: list[Variable], states: list[_State | None], given: bool) -> None:
    if given and len(outputs) != len(states):
        raise ValueError(
            "Please provide None as outputs_info for any output that does not feed back into "
            f"scan (i.e. it behaves like a map): the step returns {len(outputs)} outputs, and "
            f"outputs_info has an entry for {len(states)}.{_called_at()}"
        )


class _Loop:
    """A scan while it is put together."""

    def __init__(
        self, name: str, seqs: list[_Sequence], states: list[_State | None], backwards: bool
    ) -> None:
        self.name = name
        self.states = [s for s in states if s is not None]
        self.given_states = states
        # the step's parameters: fresh variables, and what they stand for outside
        self.rows: dict[Variable, Variable] = {}
        self.whose = {}
        for s in seqs:
            for tap in s.taps:
                row = s.input.type.row()(_tap_name(s.input.name, tap))
                self.rows[row] = s.view(tap, backwards)
                self.whose[row] = f"{s.input} (tap {tap}) of scan '{name}'"
        for state in self.states:
            type_ = state.initial.type if state.plain else state.initial.type.row()
            ages = range(1, state.depth + 1)
            state.carries.extend(type_(_tap_name(state.initial.name, -age)) for age in ages)
        self.consts: list[Variable] = []
        self.outputs: list[Variable] = []
        self.updates: OrderedUpdates = OrderedUpdates()
        self.stop: Variable | None = None
        self.listed: set[Variable] = {s.input for s in seqs}

    @property
    def arguments(self) -> list[Variable]:
        """What fn gets before the non_sequences."""
        feedback = [s.carries[-tap - 1] for s in self.states for tap in s.taps]
        return [*self.rows, *feedback]

    def receive(self, returned: _Returned, counted: bool) -> None:
        """Takes in what fn returned."""
        _check_count(returned.outputs, self.given_states, counted)
        self.outputs = returned.outputs
        self.stop = returned.condition
        self.updates = returned.updates

    def capture(self, others: list[Variable], strict: bool) -> None:
        """Finds what the step reads beside its arguments: shared variables, which are carried if
        they have an update, and outer inputs; both become consts."""
        given = [v for v in others if not isinstance(v, Constant)]
        params = [*self.rows, *(c for s in self.states for c in s.carries), *given]
        roots = [*self.outputs, *([self.stop] if self.stop is not None else [])]
        everything = [*roots, *self.updates.values()]
        brought = default_updates(everything, self.updates, [p for p in params if p.inputs])
        self.updates = self.updates + brought
        self._check_order([*everything, *brought.values()], params)
        for key, value in self.updates.items():
            _check_state(value, key.type, f"The shared variable {key}", self.name, key)

        visible = set(leaves(roots, params))
        found: list[Variable] = []
        for v in leaves([*roots, *self.updates.values()], params):
            if v in self.updates:
                continue
            if isinstance(v, SharedVariable):
                if strict and v not in given and v not in self.listed:
                    raise MissingInputError(
                        f"scan '{self.name}' is strict and its step reads the shared variable "
                        f"{describe(v)}, which is not listed: An input of the graph was not "
                        f"provided and not given a value. Add it to non_sequences."
                        f"{built_at(v)}{_called_at()}"
                    )
            elif v not in visible:
                raise MissingInputError(
                    f"An input of the graph, used to compute an update of scan '{self.name}', was "
                    f"not provided and not given a value: {describe(v)}. Please pass this "
                    "variable to the scan's inner function. Do not forget to also pass it to the "
                    f"`non_sequences` attribute of scan.{built_at(v)}{_called_at()}"
                )
            found.append(v)
        self.consts = [v for v in dict.fromkeys([*given, *found]) if v not in self.updates]

    def _check_order(self, values: list[Variable], params: list[Variable]) -> None:
        for v in toposort(values, params):
            if isinstance(v.op, Ordered):
                raise ValueError(
                    f"{v.op.label} can't stand in the step of scan '{self.name}': the processes "
                    "that run it together may run the loop different numbers of times. Put it "
                    "behind the loop, or before it and its result into non_sequences."
                    f"{built_at(v)}{_called_at()}"
                )

    def widen(self) -> None:
        """Checks that each state's new value fits its initial one. A size that is known to be 1
        at the start and not in the step is taken to be unknown."""
        for _ in range(1 + sum(s.carries[0].ndim for s in self.states)):
            wider: dict[Variable, Variable] = {}
            for s in self.states:
                old, new = s.carries[0].type, self.outputs[s.position].type
                what = (
                    "The initial state (`outputs_info` in scan nomenclature) of variable "
                    f"{s.initial} (argument number {s.position})"
                )
                _check_state(self.outputs[s.position], old, what, self.name, s.initial)
                sizes = tuple(None if a == 1 and b is None else a
                              for a, b in zip(old.shape, new.shape))  # fmt: skip
                if sizes != old.shape:
                    for i, c in enumerate(s.carries):
                        wider[c] = TensorType(old.dtype, sizes)(c.name)
                        s.carries[i] = wider[c]
            if not wider:
                return
            self._replace(wider)

    def _replace(self, mapping: Mapping[Variable, Variable]) -> None:
        keys = list(self.updates)
        stop = [self.stop] if self.stop is not None else []
        values = [*self.outputs, *self.updates.values(), *stop]
        try:
            values = substitute(values, mapping)
        except (TypeError, ValueError) as e:
            names = ", ".join(describe(v) for v in mapping)
            raise TypeError(
                f"scan '{self.name}': the step changes the size of {names} from 1, and also relies "
                f"on its being 1: {e}"
            ) from e
        self.outputs = values[: len(self.outputs)]
        rest = values[len(self.outputs) :]
        self.updates = OrderedUpdates(zip(keys, rest))
        self.stop = rest[-1] if stop else None

    def build(
        self, n: Variable, truncate: int, memory: Memory
    ) -> tuple[list[Variable], OrderedUpdates]:
        """The Scan, its outputs and its updates."""
        if truncate >= 0:
            # an output that is a state's old value came from a step, which a truncated gradient
            # may leave out; the places of a delay line came from none
            held = {c for s in self.states for c in s.carries} | {*self.updates}
            self.outputs = [identity(v) if v in held else v for v in self.outputs]
            self.updates = OrderedUpdates(
                (k, identity(v) if v in held else v) for k, v in self.updates.items()
            )
        carries: list[Variable] = []
        new: list[Variable] = []
        inits: list[Variable] = []
        for s in self.states:
            carries += s.carries
            new += [self.outputs[s.position], *s.carries[:-1]]
            inits += [
                specify(s.init(age), c.type.shape) for age, c in enumerate(s.carries, start=1)
            ]
        for shared, value in self.updates.items():
            carries.append(shared)
            new.append(value)
            inits.append(shared)
        step = Step(
            seqs=tuple(self.rows),
            carries=tuple(carries),
            consts=tuple(self.consts),
            new=tuple(new),
            traces=tuple(self.outputs),
            stop=None if self.stop is None else self.stop.astype("bool"),
        )
        op = Scan(step.closed(), truncate, self.name, memory)
        seqs = [first_rows(x, n, self.whose[row]) for row, x in self.rows.items()]
        node = op(n, *seqs, *inits, *self.consts)
        r = op.results(node)
        first = len(carries) - len(self.updates)
        updates = OrderedUpdates(zip(self.updates, r.finals[first:]))
        if updates:
            node.tag.updates = dict(updates.items())
        for v, trace in zip(self.outputs, r.traces):
            if v.name and not trace.name:
                trace.name = v.name
        return list(r.traces), updates


def _tap_name(name: str | None, tap: int) -> str | None:
    """x[t], x[t-1], x[t+2]: the name of a slice, where the whole has one."""
    return None if name is None else f"{name}[t{tap:+d}]" if tap else f"{name}[t]"


def _check_state(value: Variable, type_: TensorType, what: str, scan: str, start: Variable) -> None:
    """Raises where a step's value can't take the place of the state it started from."""
    new = value.type
    here = f"{built_at(value)}{_called_at()}"
    head = (
        "When compiling the inner function of scan the following error has been encountered: "
        f"{what} of scan '{scan}' "
    )
    if new.dtype != type_.dtype:
        raise ValueError(
            f"{head}has dtype {type_.dtype}, while the result of the inner function (`fn`), "
            f"{value}, has dtype {new.dtype}. This can happen if the inner function of scan "
            "results in an upcast or downcast. Cast the result, or start from a state of dtype "
            f"{new.dtype}.{here}"
        )
    if new.ndim != type_.ndim:
        own = start.ndim - type_.ndim
        raise ValueError(
            f"{head}has {start.ndim} dimension(s), while the corresponding variable in the "
            f"result of the inner function of scan (`fn`), {value}, has {new.ndim} dimension(s) "
            + ("(it should be one less than the initial state: " if own else "(")
            + f"{type_.ndim} expected).{here}"
        )
    if not compatible(type_, new) and not all(
        a in (None, 1) or b is None or a == b for a, b in zip(type_.shape, new.shape)
    ):
        raise ValueError(
            f"{head}is a {type_}, while the result of the inner function (`fn`), {value}, "
            f"is a {new}: the shape must stay the same in every step.{here}"
        )
    if any(a == 1 and b not in (None, 1) for a, b in zip(type_.shape, new.shape)):
        raise TypeError(
            f"The broadcast pattern of the output of scan ({new}) is inconsistent with the one "
            f"provided in `output_info` ({type_}): {what} of scan '{scan}'. Make the initial "
            f"state as large as the step's result, or use unbroadcast.{here}"
        )
