"""function(): a graph as a Python callable."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .clone import fitted
from .compile import LoopPlan, compiled
from .config import config
from .errors import MissingInputError, UnusedInputError, built_at, describe, listed
from .graph import (
    Apply,
    Constant,
    Variable,
    derived,
    leaves,
    nodes_kept,
    pack,
    substitute,
    toposort,
    unpack,
)
from .modes import Mode, get_mode
from .ops.convert import as_tensor
from .ops.ordered import Ordered, in_order
from .record import record
from .rules.passes import optimised
from .runtime.device import select
from .runtime.memory import free, owned
from .scan.updates import OrderedUpdates, advanced_by_scans, default_updates
from .shared import SharedVariable, of_gpu, updated
from .types import is_on_gpu

if TYPE_CHECKING:
    from .memory_report import MemoryReport


class In:
    """An input with more to say: a default value, a name, its conversion.

    value: what is used when the caller gives none; a shared value is read at each call. update:
    the expression of the default's next value. strict and allow_downcast: see
    `TensorType.filter`.
    """

    def __init__(
        self, variable: Variable, name: str | None = None, value: Any = None,
        update: Variable | None = None, mutable: bool | None = None, strict: bool = False,
        allow_downcast: bool | None = None, autoname: bool = True, implicit: Any = None,
        borrow: bool | None = None, shared: bool = False,
    ) -> None:  # fmt: skip
        if not isinstance(variable, Variable):
            raise TypeError(f"In() takes a symbolic variable, got {variable!r}")
        if isinstance(update, Variable) and (
            (update.dtype, update.ndim) != (variable.dtype, variable.ndim)
        ):
            raise TypeError(
                f"In(): {describe(variable)} can't be updated with {describe(update)}: an update "
                f"has the same dtype and number of dimensions.{built_at(update)}"
            )
        self.variable = variable
        self.name = name or (variable.name if autoname else None)
        self.value, self.update = value, update
        self.strict, self.allow_downcast = strict, allow_downcast


class Out:
    """An output. With borrow=True a function on a GPU leaves it there, unless it is a number: the
    result is CuPy's or PyCUDA's array. On other devices it changes nothing."""

    def __init__(self, variable: Any, borrow: bool = False) -> None:
        self.variable = as_tensor(variable)
        self.borrow = borrow


# ---- function ------------------------------------------------------------------------------------


def function(
    inputs: Sequence[Any],
    outputs: Any = None,
    mode: Any = None,
    updates: Any = None,
    givens: Any = None,
    no_default_updates: bool | Sequence[Variable] = False,
    accept_inplace: bool = False,
    name: str | None = None,
    rebuild_strict: bool = True,
    allow_input_downcast: bool | None = None,
    profile: Any = None,
    on_unused_input: str | None = None,
    device: str | None = None,
    fuse: str | None = None,
) -> Function:
    """A callable that computes the outputs from the inputs' values, and updates shared variables.

    inputs: variables or `In`. outputs: a variable, a list, a dict or None; the result has the
    same form, of NumPy arrays. updates: new values of shared variables, a dict or pairs, computed
    from the old ones and set together after the call. givens: replacements in the graph, a dict
    or pairs. no_default_updates: leave random states (all, or those listed) as they are.
    allow_input_downcast: True converts any input, False none that loses precision; None lets
    Python floats become floatX. on_unused_input: "raise", "warn" or "ignore".
    device: where to run; None is `config.device`. fuse: "auto", "always" or "never".

    Raises TypeError for arguments of the wrong kind, MissingInputError for a variable that is
    needed and not given, UnusedInputError, DeviceError for a device that is not there, and
    BuildError where native was asked for by name and the C compiler fails.
    """
    device = device or config.device
    select(device)  # raises for one that is not here
    unused = on_unused_input or config.on_unused_input
    if unused not in ("raise", "warn", "ignore"):
        raise ValueError(f"on_unused_input is {unused!r}, not 'raise', 'warn' or 'ignore'")
    if fuse not in (None, "auto", "always", "never"):
        raise ValueError(f"fuse is {fuse!r}, not 'auto', 'always' or 'never'")
    if not isinstance(no_default_updates, bool | list | tuple):
        raise TypeError("no_default_updates should be either a bool or list")
    arguments = _inputs(inputs)
    form, outs = _outputs(outputs)
    wanted, borrowed = [v for v, _ in outs], [borrow for _, borrow in outs]
    replaced = _givens(givens, arguments, rebuild_strict)
    explicit = _updates(updates)
    for a in arguments:
        if a.update is not None:
            _check_default(a)

    placeholders = {a.variable: a.variable.type(a.name) for a in arguments if a.variable.inputs}
    mapping = {**replaced, **placeholders}
    states = [a for a in arguments if a.update is not None]
    written = [*wanted, *explicit.values(), *(as_tensor(a.update) for a in states)]
    roots = substitute(written, mapping)
    wanted_now = roots[: len(wanted)]
    new_values = roots[len(wanted) : len(wanted) + len(explicit)]
    explicit = OrderedUpdates(zip(explicit, new_values))
    kept_default = roots[len(wanted) + len(explicit) :]

    if no_default_updates is not True:
        held = list(no_default_updates or ())
        explicit = explicit + default_updates(roots, [*explicit, *held], replaced=mapping)
    read = set(leaves(roots))  # what replaces a state is the caller's
    dropped = [s for s in advanced_by_scans(roots) if s not in explicit and s in read]
    if dropped:
        names = listed(sorted({s.name or str(s) for s in dropped}))
        warnings.warn(
            f"function {name or '(no name)'}: a scan updates {names}, and the updates were not "
            "passed, so every call starts from the same value (random numbers repeat). Pass the "
            "updates that scan returned: function(..., updates=updates).",
            stacklevel=2,
        )
    variables = [placeholders.get(a.variable, a.variable) for a in arguments]
    everything = [*wanted_now, *explicit.values(), *kept_default]
    _check_inputs(variables, everything, arguments, written, unused)
    return Function(
        arguments, variables, (form, borrowed), wanted_now, explicit, kept_default, name, device,
        get_mode(mode), allow_input_downcast, fuse or "auto",
    )  # fmt: skip


def _check_default(a: In) -> None:
    if a.value is None:
        raise TypeError(f"In({a.variable}): an update needs a value to start from")


def _inputs(inputs: Any) -> list[In]:
    if not isinstance(inputs, list | tuple):
        raise Exception(
            "Input variables of a Theano function should be contained in a list, even when there "
            "is a single input."
        )
    found: list[In] = []
    for i in inputs:
        a = i if isinstance(i, In) else None
        if a is None:
            if not isinstance(i, Variable):
                raise TypeError(f"Unknown parameter type: {type(i)}: an input is a variable or In")
            a = In(i)
        if isinstance(a.variable, Constant):
            raise TypeError(f"Constants not allowed as inputs: {a.variable}")
        if isinstance(a.variable, SharedVariable):
            raise TypeError(
                f"Cannot use a shared variable ({a.variable}) as explicit input. Consider "
                "substituting a non-shared variable via the `givens` parameter"
            )
        if any(a.variable is b.variable for b in found):
            raise UnusedInputError(
                f"the variable {describe(a.variable)} stands twice among the inputs"
            )
        found.append(a)
    return found


def _outputs(outputs: Any) -> tuple[Any, list[tuple[Variable, bool]]]:
    """How the result is put together (None, "one", "list" or a dict's keys), and the variables,
    each with whether it is borrowed."""
    if outputs is None:
        return None, []
    if isinstance(outputs, Mapping):
        if not all(isinstance(k, str) for k in outputs):
            raise AssertionError("When outputs is a dictionary, its keys must be strings")
        return tuple(outputs), [_output(v) for v in outputs.values()]
    if isinstance(outputs, list | tuple):
        return "list", [_output(v) for v in outputs]
    return "one", [_output(outputs)]


def _output(v: Any) -> tuple[Variable, bool]:
    if isinstance(v, Out):
        return v.variable, v.borrow and v.variable.ndim > 0
    if not isinstance(v, Variable):
        raise TypeError(
            f"Outputs must be theano Variable or Out instances. Received {v!r} of type {type(v)}"
        )
    return v, False


def _pairs(x: Any, what: str) -> list[tuple[Any, Any]]:
    if x is None:
        return []
    pairs = list(x.items()) if isinstance(x, Mapping) else list(x)
    for p in pairs:
        if not isinstance(p, list | tuple) or len(p) != 2:
            raise ValueError(f"{what} must be a dict or a list of pairs, got the element {p!r}")
    return [tuple(p) for p in pairs]


def _updates(updates: Any) -> OrderedUpdates:
    found = OrderedUpdates()
    for target, value in _pairs(updates, "updates"):
        if not isinstance(target, SharedVariable):
            raise TypeError(f"update target must be a SharedVariable, got {target!r}")
        if target in found:
            raise ValueError(f"this shared variable already has an update expression: {target}")
        if not isinstance(value, Variable):
            value = as_tensor(target.type.filter(value, allow_downcast=target.allow_downcast))
        if (value.dtype, value.ndim) != (target.dtype, target.ndim):
            cure = (
                f"Cast the update to {target.dtype}."
                if value.ndim == target.ndim
                else "The number of dimensions can't change."
            )
            raise TypeError(
                "An update must have the same type as the original shared variable "
                f"(shared_var={target}, shared_var.type={target.type}, update_val={value}, "
                f"update_val.type={value.type}). {cure}{built_at(value)}"
            )
        found[target] = value
    return found


def _givens(givens: Any, arguments: Sequence[In], strict: bool) -> dict[Variable, Variable]:
    found: dict[Variable, Variable] = {}
    explicit = {a.variable for a in arguments}
    for old, new in _pairs(givens, "givens"):
        if not isinstance(old, Variable):
            raise TypeError(f"givens must contain Variables as keys, got {old!r}")
        if old in explicit:
            raise RuntimeError(
                f"You are trying to replace variable '{old}' through the `givens` parameter, but "
                "this variable is an input to your function. Replacing inputs is currently "
                "forbidden because it has no effect."
            )
        if not isinstance(new, Variable):
            new = as_tensor(old.type.filter(new, allow_downcast=None))
        found[old] = fitted(new, old, strict, "givens")
    return found


def _behind(outputs: Sequence[Variable]) -> set[Variable]:
    """The variables behind what nodes of the outputs are derivatives of."""
    found: set[Variable] = set()
    while new := [v for v in derived(outputs) if v not in found]:
        found.update(toposort(new))
        outputs = new
    return found


def _check_inputs(
    variables: Sequence[Variable], roots: Sequence[Variable], arguments: Sequence[In],
    written: Sequence[Variable], unused: str,
) -> None:  # fmt: skip
    given = set(variables)
    needed = leaves(roots, ())
    for v in needed:
        if v not in given and not isinstance(v, SharedVariable):
            users = [u for u in toposort(roots) if v in u.inputs]
            used = f", used to compute {users[0]}{built_at(users[0])}," if users else ""
            raise MissingInputError(
                f"An input of the graph, {describe(v)}{used} was not provided and not given a "
                f"value. Add it to the inputs of function(), or replace it by givens.{built_at(v)}"
            )
    idle = [a for v, a in zip(variables, arguments) if v not in needed]
    if idle:  # an input that only dropped out of a derivative is no mistake
        behind = _behind(written)
        idle = [a for a in idle if a.variable not in behind]
    for a in arguments:
        if a in idle:
            text = (
                "theano.function was asked to create a function computing outputs given certain "
                "inputs, but the provided input variable at index "
                f"{arguments.index(a)} is not part of the computational graph needed to "
                f"compute the outputs: {a.variable}. To make this error into a warning, you can "
                "pass the parameter on_unused_input='warn' to function, to silence it 'ignore'."
            )
            if unused == "raise":
                raise UnusedInputError(text)
            if unused == "warn":
                warnings.warn(text, stacklevel=3)


# ---- the callable --------------------------------------------------------------------------------


@record
class Explanation:
    """How a function runs: as data, and as text by str(). `fallback` is why device "auto" is no
    GPU, or not native; `target` the GPU, where it is one that the function does not run on."""

    function: str
    device: str
    nodes: int
    scans: tuple[LoopPlan, ...]
    fallback: str = ""
    target: str = ""

    def __str__(self) -> str:
        there = f"; what it would be on {self.target}:" if self.target else ""
        lines = [f"{self.function}: device {self.device}, {self.nodes} nodes{there}"]
        if self.fallback:
            lines.append(f"  fallback: {self.fallback}")
        return "\n".join([*lines, *(f"  {s}" for s in self.scans)])


class Function:
    """What `function` returns: calling it computes the outputs and sets the shared variables."""

    trust_input = False

    def __init__(
        self, arguments: Sequence[In], variables: Sequence[Variable], form: Any,
        outputs: Sequence[Variable], updates: Mapping[SharedVariable, Variable],
        next_defaults: Sequence[Variable], name: str | None, device: str, mode: Mode,
        allow_downcast: bool | None, fuse: str,
    ) -> None:  # fmt: skip
        self.name = name
        self.profile = None
        self._arguments = list(arguments)
        self._stored = (
            list(variables), form, list(outputs), dict(updates), list(next_defaults), device, mode,
            allow_downcast, fuse,
        )  # fmt: skip
        self._form, borrowed = form
        self._types = [v.type for v in variables]
        self._names = [a.name for a in arguments]
        self._values = [
            None if a.value is None or isinstance(a.value, SharedVariable)
            else t.filter(a.value, a.strict, a.allow_downcast)
            for a, t in zip(arguments, self._types)
        ]  # fmt: skip
        self._downcast = [
            allow_downcast if a.allow_downcast is None else a.allow_downcast for a in arguments
        ]
        self._targets = list(updates)
        self._stateful = [i for i, a in enumerate(arguments) if a.update is not None]
        roots = [*outputs, *updates.values(), *next_defaults]
        with nodes_kept():
            graph = in_order(optimised(roots) if mode.rewrites else list(roots))
            self._shared = [v for v in leaves(graph) if isinstance(v, SharedVariable)]
            stay = [*borrowed, *(v.ndim > 0 for v in updates), *(False for _ in next_defaults)]
            made = compiled([*variables, *self._shared], graph, device, fuse, stay)
        self.device, self._program, self._put = made.device, made.program, made.put
        self._plans, self._fallback = made.scans, made.fallback
        self._shapes: list[Any] = []  # at the last call; a number as it was
        self._met, self._precision = made.met, config.dot_precision
        self._n_outputs = len(outputs)
        # what other processes take part in is not done again because another thread was quicker
        self._once = any(isinstance(v.op, Ordered) for v in toposort(graph))
        self.maker = Maker(FunctionGraph(list(variables), graph))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output_subset = kwargs.pop("output_subset", None) if kwargs else None
        given = self._converted(args, kwargs)
        self._shapes = [x.shape or x for x in given]
        n, m = self._n_outputs, self._n_outputs + len(self._targets)
        while True:
            before = self._read_targets()
            values = self._run(given)
            if updated(self._targets, before, values[n:m]):
                break  # else another thread has updated one
        for i, value in zip(self._stateful, values[m:]):
            self._values[i] = value
        results = values[:n]
        if output_subset is not None:
            results = [results[i] for i in output_subset]
        if self._form == "one":
            return results[0]
        if self._form is None:
            return []
        return results if self._form == "list" else dict(zip(self._form, results))

    def _read_targets(self) -> list[Any]:
        """What the shared variables hold that a call updates: they are read before they are."""
        if self._put is not None:
            self._put_shared(self._put)
        return [None] * len(self._targets) if self._once else [t.held for t in self._targets]

    def _run(self, given: Sequence[Any]) -> list[Any]:
        if self._put is not None:
            inputs = [*given, *[s.held for s in self._shared]]
        else:
            inputs = [*given, *[s.storage for s in self._shared]]
        with np.errstate(all="ignore"):
            found = self._program(*inputs)
        return owned(found, inputs)

    def _put_shared(self, put: Callable[[Any], Any]) -> None:
        """Takes the shared arrays to the GPU, where they stay. Numbers don't: they steer."""
        for s in self._shared:
            if s.ndim and isinstance(s.held, np.ndarray):
                s.held = put(s.held)

    def _by_position(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The arguments of a call, None for those that are not given."""
        if len(args) > len(self._types):
            raise TypeError(
                f"Too many parameter passed to theano function: {len(args)} were given and "
                f"{len(self._types)} are expected"
            )
        given = list(args) + [None] * (len(self._types) - len(args))
        for key, value in kwargs.items():
            if key not in self._names:
                raise TypeError(f"Unknown input or parameter: {key}; inputs are {self._names}")
            i = self._names.index(key)
            if i < len(args):
                raise TypeError(f"The input {key} was given twice: by position and by name")
            given[i] = value
        return given

    def _converted(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        given = self._by_position(args, kwargs)
        values = []
        for i, (value, type_) in enumerate(zip(given, self._types)):
            if (
                type(value) is np.ndarray
                and value.dtype == type_.dtype
                and (value.ndim == len(type_.shape) and type_.shape.count(None) == value.ndim)
            ):
                values.append(value)
            else:
                values.append(self._filtered(i, value))
        return values

    def _filtered(self, i: int, value: Any) -> np.ndarray:
        a, type_ = self._arguments[i], self._types[i]
        if value is None:
            if isinstance(a.value, SharedVariable):
                return a.value.storage
            stored = self._values[i]
            if stored is None:
                raise TypeError(f"Missing required input: {a.name or f'number {i}'} ({type_})")
            return stored
        if isinstance(value, Variable):
            raise TypeError(
                f"Expected an array-like object, but found a Variable: maybe you are trying to "
                f"call a function on a (possibly shared) variable instead of a numeric array? "
                f"({value})"
            )
        try:
            if self._put is not None and is_on_gpu(value):
                return of_gpu(self._put(value), type_)
            return type_.filter(value, a.strict, self._downcast[i])
        except TypeError as e:
            where = f'"{a.name}" (index {i})' if a.name else f"at index {i}"
            raise TypeError(
                f'Bad input argument {where} to function "{self.name or "theano function"}": {e}'
            ) from None

    # ---- what programs ask of a function ---------------------------------------------------------

    def __getitem__(self, item: Any) -> Any:
        return self._values[self._index(item)]

    def __setitem__(self, item: Any, value: Any) -> None:
        i = self._index(item)
        self._values[i] = self._types[i].filter(value, False, self._downcast[i])

    def _index(self, item: Any) -> int:
        for i, a in enumerate(self._arguments):
            if a.variable is item or (isinstance(item, str) and a.name == item):
                return i
        raise KeyError(f"{item} is not an input; inputs are {self._names}")

    def explain(self, target: str | None = None) -> Explanation:
        """How the function runs: the device, and the way of each scan with the reason; on a GPU,
        for the sizes of the last call, also what a step takes and how long that is predicted to
        be. target: a GPU ("h100") or an architecture ("sm_80") for which to say it instead,
        whether it is here or not. Raises ValueError for one that is not known."""
        from .codegen import limits

        graph, plans = self.maker.fgraph.outputs, self._plans
        nodes = sum(1 for v in toposort(graph) if v.inputs)
        device = select(self.device)
        gpu = getattr(device, "limits", None) if target is None else limits.of(target)
        if gpu is not None:
            from .explain import on_gpu

            known: dict[Variable, Any] = dict(zip(self._stored[0], self._shapes))
            known |= {s: s.storage for s in self._shared}
            known |= self._met
            scope = getattr(device, "scope", "") if target is None else ""
            plans = on_gpu(graph, known, gpu, scope, self._stored[-1], self._precision)
        return Explanation(
            self.name or "function", self.device, nodes, plans, self._fallback,
            "" if target is None or gpu is None else gpu.name,
        )  # fmt: skip

    def memory_report(self, *args: Any, **kwargs: Any) -> MemoryReport:
        """How many bytes a call takes at its peak (on a GPU: of its memory), and of which arrays,
        without making it. An argument is given as in a call, or as its shape, a tuple; by value
        where sizes follow from it. A loop that may stop early counts as one that does not. It is
        that of a first call: one that is made again on the native device has its results from the
        beginning on, and the second one, which is recorded, holds up to 128 MiB more. Raises what
        the call would, and NotImplementedError for what only a run tells."""
        from .memory_report import report, shape_given

        given: dict[Variable, Any] = {s: s.held for s in self._shared}
        for i, x in enumerate(self._by_position(args, kwargs)):
            v = self._stored[0][i]
            given[v] = shape_given(x, v) or self._filtered(i, x)
        return report(self.name or "function", self.device, self._program, given, self._shared)

    def get_shared(self) -> list[SharedVariable]:
        """The shared variables that the function reads or sets."""
        return list(dict.fromkeys([*self._shared, *self._targets]))

    def free(self) -> None:
        """Gives back the memory that is kept for further calls, of this and other functions."""
        free()

    def copy(
        self, share_memory: bool = False, swap: Mapping[Any, Any] | None = None,
        delete_updates: bool = False, name: str | None = None, profile: Any = None,
    ) -> Function:  # fmt: skip
        """The same function again, over the same shared variables, or over those that `swap`
        (old: new) puts in their places; delete_updates: it updates none.

        Raises ValueError for a variable to swap that the function does not use, TypeError for
        a new one of another type."""
        variables, form, outputs, updates, *rest = self._stored
        if delete_updates:
            updates = {}
        if swap:
            for old, other in swap.items():
                if old not in self._shared and old not in updates:
                    raise ValueError(f"swap: {old} is no shared variable of {self!r}")
                if not isinstance(other, SharedVariable) or other.type != old.type:
                    raise TypeError(f"swap: {other} can't stand for {describe(old)}")
            values = substitute([*outputs, *updates.values()], swap)
            outputs = values[: len(outputs)]
            targets = [swap.get(s, s) for s in updates]
            updates = dict(zip(targets, values[len(outputs) :]))
        stored = (variables, form, outputs, updates, *rest)
        new = Function(self._arguments, *_unstored(stored, name or self.name))
        new._values = list(self._values)
        return new

    def __copy__(self) -> Function:
        return self.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        variables, form, outputs, updates, next_defaults, device, mode, downcast, fuse = (
            self._stored
        )
        everything = [*variables, *outputs, *updates, *updates.values(), *next_defaults]
        arguments = [
            (a.name, self._values[i] if not isinstance(a.value, SharedVariable) else a.value,
             a.update is not None, a.strict, a.allow_downcast)
            for i, a in enumerate(self._arguments)
        ]  # fmt: skip
        counts = (len(variables), len(outputs), len(updates), len(next_defaults))
        options = (form, self.name, device, (mode.linker, mode.optimizer), downcast, fuse)
        return _restored, (*pack(everything), counts, arguments, options)

    def __repr__(self) -> str:
        return f"<gpuscan function {self.name or ''} of ({', '.join(map(str, self._names))})>"


def _unstored(stored: tuple[Any, ...], name: str | None) -> tuple[Any, ...]:
    variables, form, outputs, updates, next_defaults, device, mode, downcast, fuse = stored
    return variables, form, outputs, updates, next_defaults, name, device, mode, downcast, fuse


def _restored(
    rows: Any, positions: Any, counts: Any, arguments: Any, options: Any
) -> Function:  # what pickle calls
    nodes: Iterator[Any] = iter(unpack(rows, positions))
    variables, outputs, targets, values, defaults = (
        [next(nodes) for _ in range(c)] for c in (*counts[:3], counts[2], counts[3])
    )
    form, name, device, (linker, optimizer), downcast, fuse = options
    ins = []
    for v, (label, value, stateful, strict, own_downcast) in zip(variables, arguments):
        a = In(v, label, value, strict=strict, allow_downcast=own_downcast)
        a.update = v if stateful else None
        ins.append(a)
    return Function(
        ins, variables, form, outputs, dict(zip(targets, values)), defaults, name, device,
        Mode(linker, optimizer), downcast, fuse,
    )  # fmt: skip


@record
class FunctionGraph:
    """The graph that a function runs, after the rewrites, as Theano shows it."""

    inputs: list[Variable]
    outputs: list[Variable]

    def toposort(self) -> list[Apply]:
        """The nodes, inputs first."""
        return [
            Apply(v) for v in toposort(self.outputs) if v.inputs and type(v.op).__name__ != "Item"
        ]

    @property
    def apply_nodes(self) -> set[Apply]:
        return set(self.toposort())


@record
class Maker:
    """Theano's way from a function to its graph: f.maker.fgraph."""

    fgraph: FunctionGraph


def evaluated(variable: Variable, inputs_to_values: Mapping[Any, Any] | None = None) -> Any:
    """The variable's value, from values of the inputs it needs (by variable or by name)."""
    values = dict(inputs_to_values or {})
    by_name = {v.name: v for v in leaves([variable]) if v.name}
    given = {by_name.get(k, k) if isinstance(k, str) else k: x for k, x in values.items()}
    key = tuple(given)
    cache = variable.__dict__.setdefault("_compiled", {})
    if key not in cache:
        cache[key] = function(list(key), variable, on_unused_input="ignore")
    return cache[key](*given.values())


Variable.operations["eval"] = evaluated
