"""Loops as data: what hypothesis draws, and the two graphs that it stands for.

A `Case` is a loop that scan() takes. From it come `loop`, the results of scan(), and `unrolled`,
the same results from a plain graph that holds one copy of the step for every step of a known
number, and no Scan. Both have the same inputs, so every device, every rewrite and every
derivative of the loop can be compared with those of the plain graph.

An expression of the step is a nested tuple, (name, operand, ...): `Builder` holds what each name
means. Its leaves are ("leaf", "x0[t-1]"), named as scan names the slices of taps. Sizes are
letters (D, E), which a case gives values; the kinds of values are float, int and bool.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from hypothesis import strategies as st

from gpuscan import tensor as T
from gpuscan.function import function
from gpuscan.gradient import disconnected_grad, grad, grad_scale, zero_grad
from gpuscan.graph import Variable
from gpuscan.ops import sample
from gpuscan.ops.convert import as_tensor, constant
from gpuscan.ops.elemwise import cast
from gpuscan.ops.scalar import identity
from gpuscan.ops.shape import broadcast_to
from gpuscan.ops.softmax import softmax_along
from gpuscan.scan.frontend import scan, until
from gpuscan.shared import SharedVariable, shared
from gpuscan.types import TensorType

Expression = tuple[Any, ...]
SHAPES: dict[str, tuple[str, ...]] = {"S": (), "V": ("D",), "M": ("E", "D"), "W": ("D", "D")}
DTYPES = {"float": ("float32", "float64"), "int": ("int32", "int64"), "bool": ("bool",)}
KIND = {dtype: kind for kind, dtypes in DTYPES.items() for dtype in dtypes}

# ---- what a name in an expression means ---------------------------------------------------------

UNARY: dict[str, Callable[[Any], Any]] = {
    "tanh": T.tanh,
    "sigmoid": T.sigmoid,
    "sin": T.sin,
    "softplus": T.softplus,
    "gauss": lambda x: T.exp(-x * x),
    "neg": lambda x: -x,
    "half": lambda x: x * 0.5,
    "plus": lambda x: x + 1,
    "root": lambda x: T.sqrt(x * x + 1),
    "log": lambda x: T.log(x * x + 1.5),
    "square": lambda x: T.sqr(T.tanh(x)),
    "power": lambda x: T.tanh(x) ** 2,
    "abs": abs,
    "clip": lambda x: T.clip(x, -0.71, 0.93),
    "same": identity,
}
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "ratio": lambda x, y: x / (y * y + 1.5),
    "max": T.maximum,
    "min": T.minimum,
}
INT_UNARY: dict[str, Callable[[Any], Any]] = {
    "neg": lambda x: -x,
    "mod3": lambda x: x % 3,
    "div2": lambda x: x // 2,
    "plus": lambda x: x + 1,
    "invert": T.invert,
}
INT_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "max": T.maximum,
    "min": T.minimum,
    "xor": T.xor,
}
BOOL_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "and": T.and_,
    "or": T.or_,
    "xor": T.xor,
}
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "lt": T.lt,
    "ge": T.ge,
    "eq": T.eq,
    "neq": T.neq,
}
STEERING: dict[str, Callable[[Any], Any]] = {
    "zero": zero_grad,
    "cut": disconnected_grad,
    "scaled": lambda x: grad_scale(x, 0.7),
}
# What two ways to compute may give different last bits for: sums of floats, x ** 2 as x * x.
INEXACT = frozenset("dot gates sum mean prod cumsum softmax nest accumulate inner_grad fit".split())
ROUNDED = ("power",)


class Builder:
    """Expressions as graph, over values for the leaves; `unroll` says what nested loops become."""

    def __init__(self, leaves: Mapping[str, Variable], sizes: Mapping[str, int], unroll: bool,
                 dtype: str) -> None:  # fmt: skip
        self.leaves, self.sizes, self.unroll, self.dtype = dict(leaves), sizes, unroll, dtype

    def __call__(self, e: Expression) -> Variable:
        return getattr(self, f"_{e[0]}")(*e[1:])

    def size(self, s: str) -> tuple[int, ...]:
        return tuple(self.sizes[x] for x in SHAPES[s])

    def _leaf(self, name: str) -> Variable:
        return self.leaves[name]

    def _const(self, kind: str, s: str, value: Any) -> Variable:
        dtype = {"float": self.dtype, "int": "int32", "bool": "bool"}[kind]
        return constant(np.full(self.size(s), value, dtype))

    def _fit(self, old: str, new: str, e: Expression) -> Variable:
        """A value of one shape from that of another."""
        x = self(e)
        back = (lambda v: T.gt(v, 0)) if x.dtype == "bool" else (lambda v: cast(v, x.dtype))
        if old in "MW":
            x, old = back(T.sum(x, axis=0)), "V"
        if new == "S":
            return back(T.sum(x)) if old == "V" else x
        return broadcast_to(x, [as_tensor(n).astype("int64") for n in self.size(new)])

    def _unary(self, name: str, e: Expression) -> Variable:
        return UNARY[name](self(e))

    def _binary(self, name: str, a: Expression, b: Expression) -> Variable:
        return BINARY[name](self(a), self(b))

    def _int_unary(self, name: str, e: Expression) -> Variable:
        return INT_UNARY[name](self(e))

    def _int_binary(self, name: str, a: Expression, b: Expression) -> Variable:
        return INT_BINARY[name](self(a), self(b))

    def _bool_binary(self, name: str, a: Expression, b: Expression) -> Variable:
        return BOOL_BINARY[name](self(a), self(b))

    def _not(self, e: Expression) -> Variable:
        return T.invert(self(e))

    def _compare(self, name: str, a: Expression, b: Expression) -> Variable:
        return COMPARE[name](self(a), self(b))

    def _above(self, e: Expression) -> Variable:
        return T.gt(self(e), 0.1371)  # no value that a float of a test is likely to be

    def _switch(self, c: Expression, a: Expression, b: Expression) -> Variable:
        return T.switch(self(c), self(a), self(b))

    def _to_float(self, e: Expression) -> Variable:
        x = self(e)
        return cast(x if x.dtype == "bool" else x % 7, self.dtype)

    def _to_int(self, e: Expression) -> Variable:
        x = self(e)
        if x.type.is_float:
            x = T.floor(T.clip(x * 2.713 + 0.1371, -99, 99))
        return cast(x, "int32")

    def _spread(self, old: str, new: str, e: Expression) -> Variable:
        return self._fit(old, new, e)  # of integers, or of a scalar: no floats are summed

    def _count(self, axis: Any, e: Expression) -> Variable:
        return T.sum(self(e), axis=axis)

    def _sum(self, axis: Any, e: Expression) -> Variable:
        return T.sum(self(e), axis=axis)

    def _mean(self, axis: Any, e: Expression) -> Variable:
        return T.mean(self(e), axis=axis)

    def _prod(self, axis: Any, e: Expression) -> Variable:
        return T.prod(self(e), axis=axis)

    def _most(self, axis: Any, e: Expression) -> Variable:
        return T.max(self(e), axis=axis)

    def _argmax(self, e: Expression) -> Variable:
        return T.argmax(self(e))

    def _any(self, axis: Any, e: Expression) -> Variable:
        return T.any(self(e), axis=axis)

    def _all(self, axis: Any, e: Expression) -> Variable:
        return T.all(self(e), axis=axis)

    def _cumsum(self, axis: int, e: Expression) -> Variable:
        return T.cumsum(self(e), axis=axis)

    def _softmax(self, e: Expression) -> Variable:
        return softmax_along(self(e))

    def _dot(self, a: Expression, b: Expression) -> Variable:
        return T.dot(self(a), self(b))

    def _transposed(self, e: Expression) -> Variable:
        return self(e).T

    def _outer(self, a: Expression, b: Expression) -> Variable:
        return self(a).dimshuffle(0, "x") * self(b).dimshuffle("x", 0)

    def _reverse(self, e: Expression) -> Variable:
        return self(e)[::-1]

    def _roll(self, e: Expression) -> Variable:
        x = self(e)
        return T.join(0, x[1:], x[:1])

    def _item(self, i: int, e: Expression) -> Variable:
        return self(e)[i]

    def _gather(self, i: Expression, e: Expression) -> Variable:
        """The element or row at a computed position."""
        x = self(e)
        return x[self(i) % cast(x.shape[0], "int32")]

    def _positions(self, s: str, i: Expression) -> tuple[Any, ...]:
        """An index by a vector of integers, of the axis of size D."""
        at = self(i) % self.sizes["D"]
        return (slice(None), at) if s == "M" else (at,)

    def _picked(self, s: str, i: Expression, e: Expression) -> Variable:
        return self(e)[self._positions(s, i)]

    def _scattered(self, how: str, s: str, i: Expression, e: Expression, y: Expression) -> Any:
        """The value with y put at positions, which may be the same, or added there."""
        x, v = self(e), self(y)
        write = T.set_subtensor if how == "set" else T.inc_subtensor
        return write(x[self._positions(s, i)], cast(v, x.dtype))

    def _put(self, how: str, e: Expression, y: Expression) -> Variable:
        """The value with its first row set to y, or with y added to its last."""
        x, v = self(e), self(y)
        if how == "set":
            return T.set_subtensor(x[0], cast(v, x.dtype))
        return T.inc_subtensor(x[-1:], cast(v, x.dtype))

    def _gates(self, e: Expression, a: Expression, b: Expression) -> Variable:
        """Parts of one product with matrices side by side, as an LSTM computes its gates."""
        d = self.sizes["D"]
        z = T.dot(self(e), T.join(1, self(a), self(b))) + T.constant(0.25).astype(self.dtype)
        return T.nnet.sigmoid(z[..., :d]) * T.tanh(z[..., d:])

    def _ifelse(self, c: Expression, a: Expression, b: Expression) -> Variable:
        return T.ifelse(self(c), cast(self(a), self.dtype), cast(self(b), self.dtype))

    def _steered(self, how: str, e: Expression) -> Variable:
        return STEERING[how](self(e))

    def _accumulate(self, e: Expression, more: Expression) -> Variable:
        return self(e) + self(more)

    def _inner_grad(self, leaf: str, e: Expression) -> Variable:
        """The gradient of an expression of the step with respect to one of its leaves."""
        x = identity(self.leaves[leaf])
        inside = Builder({**self.leaves, leaf: x}, self.sizes, self.unroll, self.dtype)
        cost = T.sum(T.sin(inside(e) * 0.7))
        return cast(grad(cost, x, disconnected_inputs="ignore"), x.dtype)

    def _nest(self, spec: Mapping[str, Any]) -> Variable:
        """A loop over the rows of a value, of which the step is an expression of the row, of a
        state, and of all that the outer step reads."""
        over = self(spec["over"])
        kind, back = spec["kind"], spec["back"]
        dtype = {"float": self.dtype, "int": "int64"}[kind]
        start = None if spec["start"] is None else cast(self(spec["start"]), dtype)
        names = list(self.leaves)

        def step(*values: Variable) -> Variable:
            row, *rest = values
            inner = {**self.leaves, "row": row}
            if start is not None:
                inner["state"], *rest = rest
            if spec["explicit"]:
                inner.update({n: v for n, v in zip(names, rest, strict=True) if n not in HIDDEN})
            inside = Builder(inner, self.sizes, self.unroll, self.dtype)
            return cast(inside(spec["body"]), dtype)

        others = list(self.leaves.values()) if spec["explicit"] else []
        if not self.unroll:
            rows, updates = scan(step, over, [start], others, go_backwards=back)
            assert not updates
        else:
            state, found = start, []
            for i in range(self.size(spec["rows"])[0]):
                row = over[-1 - i] if back else over[i]
                state = step(row, *([] if state is None else [state]), *others)
                found.append(state)
                if start is None:
                    state = None
            # (joined: the elements of a stack of integers are found at once, and not written to)
            rows = T.join(0, *(v.dimshuffle("x", *range(v.ndim)) for v in found))
        return rows[-1] if spec["take"] == "last" else rows


HIDDEN = ("row", "state")  # an inner loop's own


def names(e: Any) -> Iterator[str]:
    """The names in an expression."""
    if isinstance(e, Mapping):
        for v in e.values():
            yield from names(v)
    elif isinstance(e, tuple) and e:
        yield from e[:2] if e[0] == "unary" else e[:1]
        for v in e[1:]:
            yield from names(v)


def reads(e: Any) -> set[str]:
    """The leaves that an expression reads."""
    if isinstance(e, Mapping):
        return set().union(*(reads(v) for v in e.values()))
    if not isinstance(e, tuple) or not e:
        return set()
    if e[0] == "leaf":
        return {e[1]}
    own = {e[1]} if e[0] == "inner_grad" else set()
    return own.union(*(reads(v) for v in e[1:]))


# ---- the parts of a loop ------------------------------------------------------------------------


@dataclass(frozen=True)
class Value:
    """Something that is given: its dtype, the shape of one step's value, and where it comes from:
    an "input", a "constant", an "expr" of an input, or a "shared" variable."""

    name: str
    dtype: str
    shape: str
    form: str = "input"

    @property
    def kind(self) -> str:
        return KIND[self.dtype]


@dataclass(frozen=True)
class Seq:
    """A sequence: its taps in the order written, and how many rows it has too many."""

    value: Value
    taps: tuple[int, ...] = (0,)
    extra: int = 0

    @property
    def first(self) -> int:
        return min(0, *self.taps)

    @property
    def spread(self) -> int:
        return max(0, *self.taps) - self.first

    def leaf(self, tap: int) -> str:
        return f"{self.value.name}[t{tap:+d}]" if tap else f"{self.value.name}[t]"


@dataclass(frozen=True)
class Output:
    """An output: the expression of a step's value, its initial value and taps where it feeds
    back, and how the result is used."""

    value: Value
    expression: Expression
    taps: tuple[int, ...] | None = None
    extra: int = 0  # rows of the initial value beyond those that the taps need
    uses: tuple[tuple[Any, ...], ...] = (("whole",),)

    @property
    def depth(self) -> int:
        return max(-t for t in self.taps or (0,))

    @property
    def plain(self) -> bool:
        return self.taps == (-1,)

    def leaf(self, tap: int) -> str:
        return f"{self.value.name}[t{tap:+d}]"


@dataclass(frozen=True)
class State:
    """A shared variable that the loop updates."""

    value: Value
    expression: Expression


@dataclass(frozen=True)
class Draw:
    """A stream of random numbers, one draw a step."""

    value: Value
    law: str  # uniform, normal or bernoulli


@dataclass
class Graphs:
    """Results of a case as variables, with the shared variables that they advance."""

    results: list[Variable]
    updates: dict[SharedVariable, Variable]


@dataclass(frozen=True)
class Case:
    """A loop, as data. `n` is the number of steps that the arguments allow."""

    n: int
    n_form: str  # "constant", "symbolic", or "sequence": not given
    seqs: tuple[Seq, ...] = ()
    outputs: tuple[Output, ...] = ()
    consts: tuple[Value, ...] = ()
    states: tuple[State, ...] = ()
    draws: tuple[Draw, ...] = ()
    until: Expression | None = None
    backwards: bool = False
    truncate: int = -1
    closure: bool = False  # consts are read without being listed
    static: bool = False  # the sizes of a step's values are known to the graph
    sizes: tuple[tuple[str, int], ...] = (("D", 3), ("E", 2))
    dtype: str = "float32"  # of floats that the step makes
    seed: int = 0
    notes: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    # ---- what is given --------------------------------------------------------------------------

    @property
    def _sizes(self) -> dict[str, int]:
        return dict(self.sizes)

    def size(self, v: Value) -> tuple[int, ...]:
        return tuple(self._sizes[s] for s in SHAPES[v.shape])

    def _shapes(self, n: int) -> dict[str, tuple[Value, tuple[int, ...]]]:
        """The shape of every value, by name, for a number of steps."""
        found: dict[str, tuple[Value, tuple[int, ...]]] = {}
        for s in self.seqs:
            found[s.value.name] = s.value, (n + s.extra + s.spread, *self.size(s.value))
        for o in self.outputs:
            if o.taps is not None:
                lead = () if o.plain else (o.depth + o.extra,)
                found[o.value.name] = o.value, (*lead, *self.size(o.value))
        for v in (*self.consts, *(s.value for s in self.states)):
            found[v.name] = v, self.size(v)
        return found

    def arrays(self, n: int | None = None) -> dict[str, np.ndarray]:
        """The values of all that is given, for n steps (by default, the case's own)."""
        n = self.n if n is None else n
        found = {}
        for name, (v, dims) in self._shapes(n).items():
            rng = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
            match v.kind:
                case "float":
                    a = rng.uniform(-1.5, 1.5, dims)
                case "int":
                    a = rng.integers(-5, 6, dims)
                case _:
                    a = rng.integers(0, 2, dims)
            found[name] = np.asarray(a, v.dtype)
        return found

    @cached_property
    def _given(self) -> tuple[dict[str, Variable], dict[str, Variable]]:
        """Per name the variable that the loop reads, and the input it comes from."""
        values: dict[str, Variable] = {}
        inputs: dict[str, Variable] = {}
        leads = {s.value.name for s in self.seqs}
        leads |= {o.value.name for o in self.outputs if o.taps is not None and not o.plain}
        kept = {s.value.name for s in self.states}
        arrays = self.arrays()
        for name, (v, dims) in self._shapes(self.n).items():
            known = dims if self.static else (None,) * len(dims)
            if name in leads:
                known = (None, *known[1:])
            if name in kept or v.form == "shared":
                values[name] = SharedVariable(TensorType(v.dtype, known), arrays[name], name)
            elif v.form == "constant":
                values[name] = constant(arrays[name])
            else:
                inputs[name] = TensorType(v.dtype, known)(name)
                values[name] = _changed(inputs[name]) if v.form == "expr" else inputs[name]
        return values, inputs

    @property
    def inputs(self) -> dict[str, Variable]:
        """The variables that a function of the case takes, by name; first "n" where it is one."""
        found = dict(self._given[1])
        if self.n_form == "symbolic":
            found = {"n": self._steps, **found}
        return found

    @cached_property
    def _steps(self) -> Variable:
        return TensorType("int64", ())("n")

    def feed(self, n: int | None = None) -> list[Any]:
        """The values of the inputs, for n steps."""
        n = self.n if n is None else n
        arrays = {"n": np.int64(n), **self.arrays(n)}
        return [arrays[name] for name in self.inputs]

    @property
    def floats(self) -> dict[str, Variable]:
        """The inputs that a gradient may be asked for."""
        return {k: v for k, v in self._given[1].items() if v.type.is_float}

    def reset(self, n: int | None = None) -> None:
        """Puts back the values of the shared variables, those for n steps."""
        arrays = self.arrays(n)
        for name, v in self._given[0].items():
            if isinstance(v, SharedVariable) and name in arrays:
                v.set_value(arrays[name])
        for i, s in enumerate(self._streams):
            s.set_value(self._stream_value(i))

    def _stream_value(self, i: int) -> np.ndarray:
        return sample.state_value(self.seed, i, rows=self.seed % 3)

    @cached_property
    def _streams(self) -> list[SharedVariable]:
        found = []
        for i, d in enumerate(self.draws):
            s = shared(self._stream_value(i), d.value.name)
            s.default_update = sample.next_state(s)
            found.append(s)
        return found

    @property
    def kept(self) -> list[SharedVariable]:
        """The shared variables that the loop advances."""
        mine = [self._given[0][s.value.name] for s in self.states]
        return [*mine, *(s for s in self._streams if s in self.loop.updates)]  # type: ignore[list-item]

    def _drawn(self, d: Draw, state: Variable) -> Variable:
        sizes = [as_tensor(n).astype("int64") for n in self.size(d.value)]
        match d.law:
            case "uniform":
                return sample.uniform(state, sizes, d.value.dtype)
            case "normal":
                return sample.normal(state, sizes, d.value.dtype)
        return sample.bernoulli(state, constant(np.float32(0.4)), sizes)

    def _step(self, leaves: Mapping[str, Variable], unroll: bool) -> dict[str, Any]:
        """The values of a step, from those of its leaves."""
        build = Builder(leaves, self._sizes, unroll, self.dtype)
        return {
            "outputs": [cast(build(o.expression), o.value.dtype) for o in self.outputs],
            "states": [cast(build(s.expression), s.value.dtype) for s in self.states],
            "until": None if self.until is None else build(self.until),
        }

    def _used(self, outputs: Sequence[Variable]) -> list[Variable]:
        return [_use(v, u, self._sizes) for o, v in zip(self.outputs, outputs) for u in o.uses]

    # ---- the loop -------------------------------------------------------------------------------

    @cached_property
    def loop(self) -> Graphs:
        """The results of scan()."""
        given = self._given[0]
        fed = [(o, t) for o in self.outputs for t in o.taps or ()]

        def step(*arguments: Variable) -> Any:
            taps = [s.leaf(t) for s in self.seqs for t in s.taps]
            taps += [o.leaf(t) for o, t in fed]
            leaves = dict(zip(taps, arguments))
            leaves |= {v.name: given[v.name] for v in self.consts}
            leaves |= {s.value.name: given[s.value.name] for s in self.states}
            if not self.closure:
                listed = arguments[len(taps) :]
                leaves |= {v.name: a for v, a in zip(self.consts, listed, strict=True)}
            leaves |= {d.value.name: self._drawn(d, s) for d, s in zip(self.draws, self._streams)}
            values = self._step(leaves, unroll=False)
            updates = {given[s.value.name]: v for s, v in zip(self.states, values["states"])}
            returned: list[Any] = [values["outputs"], updates]
            if values["until"] is not None:
                returned.append(until(values["until"]))
            return tuple(returned)

        sequences: list[Any] = []
        for s in self.seqs:
            x = given[s.value.name]
            sequences.append(x if s.taps == (0,) else {"input": x, "taps": list(s.taps)})
        info: list[Any] = []
        for o in self.outputs:
            if o.taps is None:
                info.append(None)
            elif o.plain:
                info.append(given[o.value.name])
            else:
                info.append({"initial": given[o.value.name], "taps": list(o.taps)})
        outputs, updates = scan(
            step,
            sequences,
            info,
            [] if self.closure else [given[v.name] for v in self.consts],
            n_steps={"constant": self.n, "symbolic": self._steps, "sequence": None}[self.n_form],
            truncate_gradient=self.truncate,
            go_backwards=self.backwards,
            name="case",
            return_list=True,
        )
        return Graphs(self._used(outputs), dict(updates))

    # ---- the plain graph ------------------------------------------------------------------------

    def unrolled(self, n: int | None = None) -> Graphs:
        """The same results from n copies of the step (by default as many as the case's loop
        runs), without a Scan."""
        allowed = self.n if n is None else n
        run = self._executed(allowed)
        key = ("unrolled", allowed)
        if key not in self.notes:
            self.notes[key] = self._plain(allowed, run)
        found: Graphs = self.notes[key]
        return found

    def _executed(self, n: int) -> int:
        """How many of n steps run before the condition stops them."""
        if self.until is None or n == 0:
            return n
        key = ("executed", n)
        if key not in self.notes:
            conditions: list[Variable] = []
            self._plain(n, n, conditions)
            stops = self.plain(Graphs(conditions, {}), n)[:n]
            self.notes[key] = next((i + 1 for i, stop in enumerate(stops) if stop), n)
        found: int = self.notes[key]
        return found

    def _plain(self, n: int, run: int, conditions: list[Variable] | None = None) -> Graphs:
        given = self._given[0]
        past: list[list[Variable]] = []  # per output its initial rows and then its values
        for o in self.outputs:
            x = given.get(o.value.name)
            if o.taps is None or x is None:
                past.append([])
            else:
                past.append([x] if o.plain else [x[i] for i in range(o.depth)])
        kept = [*(given[s.value.name] for s in self.states), *self._streams]
        states = len(self.states)
        contributing = run if self.truncate < 0 else min(run, self.truncate)
        for t in range(run):
            leaves = {v.name: given[v.name] for v in self.consts}
            for s in self.seqs:
                at = n + s.extra - 1 - t if self.backwards else t
                x = given[s.value.name]
                leaves |= {s.leaf(tap): x[tap - s.first + at] for tap in s.taps}
            for o, rows in zip(self.outputs, past):
                leaves |= {o.leaf(tap): rows[tap] for tap in o.taps or ()}
            leaves |= {s.value.name: v for s, v in zip(self.states, kept)}
            leaves |= {d.value.name: self._drawn(d, v) for d, v in zip(self.draws, kept[states:])}
            values = self._step(leaves, unroll=True)
            if conditions is not None:
                conditions.append(values["until"])
            new = [*values["outputs"], *values["states"]]
            if t < run - contributing:
                new = [disconnected_grad(v) if v.type.is_float else v for v in new]
            for rows, v in zip(past, new):
                rows.append(v)
            kept = [*new[len(self.outputs) :], *(sample.next_state(v) for v in kept[states:])]
        outputs = [
            T.stack(rows[o.depth :])
            if run
            else constant(np.empty((0, *self.size(o.value)), o.value.dtype))
            for o, rows in zip(self.outputs, past)
        ]
        all_ = [*(given[s.value.name] for s in self.states), *self._streams]
        updates = {k: v for k, v in zip(all_, kept) if k in self.kept}
        return Graphs(self._used(outputs), updates)

    # ---- values ---------------------------------------------------------------------------------

    def function(self, graphs: Graphs, mode: str | None = None, device: str | None = None) -> Any:
        """The graph as a function of the case's inputs."""
        return function(
            list(self.inputs.values()), graphs.results, mode=mode, updates=graphs.updates,
            on_unused_input="ignore", device=device, fuse=self.fuse, name="case",
        )  # fmt: skip

    @property
    def fuse(self) -> str:
        """A part of the cases runs as launches one after another, the others as they can."""
        return "never" if self.seed % 4 == 3 else "auto"

    def call(self, f: Any, n: int | None = None) -> list[np.ndarray]:
        """The results of such a function for n steps, and what it leaves in the shared
        variables, which start from the case's values."""
        self.reset(n)
        results = f(*self.feed(n))
        return [*results, *(s.get_value() for s in self.kept)]

    def run(
        self, graphs: Graphs, mode: str | None = None, device: str | None = None,
        n: int | None = None,
    ) -> list[np.ndarray]:  # fmt: skip
        """The values of the graph, as `call` gives them."""
        return self.call(self.function(graphs, mode, device), n)

    def plain(self, graphs: Graphs, n: int | None = None) -> list[np.ndarray]:
        """The values of the graph on the reference device, not rewritten: what is right."""
        return self.run(graphs, "FAST_COMPILE", "reference", n)

    def plain_values(self, n: int | None = None) -> list[np.ndarray]:
        """What is right for the loop, and for what it leaves in the shared variables."""
        return self.plain(self.unrolled(n), n)

    def cost(self, graphs: Graphs) -> Variable | None:
        """A scalar that depends on all float results, each with a weight of its own."""
        total = None
        for i, v in enumerate(graphs.results):
            if v.type.is_float:
                part = T.sum((cast(v, "float64") + 0.3) ** 2) * (0.5 + 0.25 * i)
                total = part if total is None else total + part
        return total

    def gradients(self, graphs: Graphs, wrt: Sequence[str] | None = None) -> Graphs:
        """The gradients of the cost, with respect to all float inputs."""
        targets = [v for k, v in self.floats.items() if wrt is None or k in wrt]
        cost = self.cost(graphs)
        found = [] if cost is None else grad(cost, targets, disconnected_inputs="ignore")
        return Graphs(found, graphs.updates)

    @property
    def expressions(self) -> list[Expression]:
        more = [self.until] if self.until is not None else []
        return [*(o.expression for o in self.outputs), *(s.expression for s in self.states), *more]

    @property
    def loosest(self) -> str:
        """The least exact float dtype that the case computes in."""
        values = [v for v, _ in self._shapes(self.n).values()]
        values += [*(d.value for d in self.draws), *(o.value for o in self.outputs)]
        return "float32" if "float32" in {self.dtype, *(v.dtype for v in values)} else "float64"

    @property
    def exact(self) -> bool:
        """Whether the last bit is determined: nothing sums floats."""
        used = {n for e in self.expressions for n in names(e)}
        sums = {u[0] for o in self.outputs for u in o.uses if o.value.kind == "float"}
        return not used & (INEXACT | {*ROUNDED}) and not sums & {"sum", "dot"}


def _changed(x: Variable) -> Variable:
    """An expression of an input."""
    if x.dtype == "bool":
        return T.invert(x)
    return x + 1 if not x.type.is_float else x * 0.5 + constant(np.asarray(0.25, x.dtype))


def _use(v: Variable, use: tuple[Any, ...], sizes: Mapping[str, int]) -> Variable:
    """What a program does with a whole output."""
    match use:
        case ("whole",):
            return v
        case ("last",):
            return v[-1]
        case ("slice", a, b, step):
            return v[a:b:step]
        case ("item", i):
            return v[i]
        case ("sum",):
            return T.sum(v, axis=0)
        case ("length",):
            return v.shape[0]
        case ("shape",):
            return as_tensor(v.shape) if not isinstance(v.shape, Variable) else v.shape
        case ("affine",):
            return T.invert(v) if v.dtype == "bool" else v * 3 - 1
        case ("dot",):
            m = np.cos(np.arange(sizes["D"] * 2)).reshape(sizes["D"], 2).astype(v.dtype)
            return T.dot(v, constant(m))
        case ("both_ends",):
            return T.stack([v[0], v[-1]])
    raise ValueError(use)


# ---- the drawing of expressions -----------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """What the drawn loops may hold."""

    floats: tuple[str, ...] = ("float32", "float64")
    kinds: tuple[str, ...] = ("float", "int", "bool")
    smooth: bool = False  # only what finite differences can follow
    nested: bool = True
    inner_grad: bool = True
    draws: bool = True
    until: bool = True
    shared: bool = True
    goes_on: bool = False  # a shared variable that the loop advances, by all of its steps
    n_forms: tuple[str, ...] = ("sequence", "symbolic", "constant")
    max_steps: int = 5
    min_steps: int = 0
    truncate: bool = True
    depth: int = 3
    inexact: bool = True  # sums of floats


ANY = Options()
DERIVATIVES = Options(floats=("float64",), max_steps=4)


class _Grower:
    """Draws expressions over leaves."""

    def __init__(self, draw: Any, leaves: Sequence[tuple[str, str, str]], options: Options,
                 listed: bool = False, inner: bool = False) -> None:  # fmt: skip
        self.draw, self.leaves, self.options = draw, list(leaves), options
        # listed: inner loops are given what they read. One that captures it makes draws of its
        # own, and hides from the outer loop what an update reads
        self.listed, self.inner = listed, inner

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def grow(self, kind: str, s: str, depth: int) -> Expression:
        if depth <= 0:
            return self._end(kind, s)
        rules = ["end", *self._rules(kind, s)]
        rule = self.draw(st.sampled_from(rules))
        if rule == "end":
            return self._end(kind, s)
        found: Expression = getattr(self, f"_{kind}_{rule}")(s, depth - 1)
        return found

    def _end(self, kind: str, s: str) -> Expression:
        exact = [n for n, k, t in self.leaves if (k, t) == (kind, s)]
        others = [(n, t) for n, k, t in self.leaves if k == kind and t != s]
        if not self.options.inexact and kind == "float":
            others = [(n, t) for n, t in others if t == "S"]
        if exact and (not others or self.pick(True, True, False)):
            return ("leaf", self.pick(*exact))
        if others and self.pick(True, True, False):
            name, t = self.pick(*others)
            sums = kind == "float" and t != "S"
            return ("fit" if sums else "spread", t, s, ("leaf", name))
        value = {
            "float": (0.75, -0.3, 1.0, 0.0), "int": (2, -1, 0), "bool": (True, False),
        }[kind]  # fmt: skip
        return ("const", kind, s, self.pick(*value))

    def _rules(self, kind: str, s: str) -> list[str]:
        o, inexact = self.options, self.options.inexact
        ints, bools = "int" in o.kinds, "bool" in o.kinds
        found = ["unary", "binary"]
        if kind == "float":
            found += ["binary"] + ["switch"] * bools + ["cast"] * (ints or bools)
            if inexact:
                found += ["product", "reduced", "softened"] + ["gated"] * (s in "VM")
            found += ["chosen"] * bools + ["steered"] * (not o.smooth)
        else:
            found += ["switch"] * (kind == "int" and bools) + ["cast"]
        if s == "S":
            found += ["item", "gathered"] + ["reduced"] * (kind != "float")
        else:
            found += ["moved", "put"] + ["picked", "scattered"] * ints
        if s == "V":
            found += ["item"]
        if kind != "bool" and s in "SVM" and o.nested and not self.inner and inexact:
            found += ["nested"]
        if kind == "float" and o.inner_grad and not self.inner and inexact:
            found += ["differentiated"]
        return found

    def _smaller(self, s: str) -> str:
        return str(self.pick(*{"S": "S", "V": "VS", "M": "MVS", "W": "WVS"}[s]))

    def _pair(self, kind: str, s: str, depth: int) -> tuple[Expression, Expression]:
        a, b = self.grow(kind, s, depth), self.grow(kind, self._smaller(s), depth)
        return (b, a) if self.pick(False, True) else (a, b)

    # float
    def _float_unary(self, s: str, depth: int) -> Expression:
        kinked = () if self.options.smooth else ("abs", "clip")
        out = {"abs", "clip", *(() if self.options.inexact else ROUNDED)} - {*kinked}
        name = self.pick(*(n for n in UNARY if n not in out))
        return ("unary", name, self.grow("float", s, depth))

    def _float_binary(self, s: str, depth: int) -> Expression:
        kinked = () if self.options.smooth else ("max", "min")
        name = self.pick("add", "mul", "sub", "ratio", *kinked)
        return ("binary", name, *self._pair("float", s, depth))

    def _float_switch(self, s: str, depth: int) -> Expression:
        return (
            "switch",
            self.grow("bool", self._smaller(s), depth),
            *self._pair("float", s, depth),
        )

    def _float_cast(self, s: str, depth: int) -> Expression:
        kinds = [k for k in ("int", "bool") if k in self.options.kinds]
        return ("to_float", self.grow(self.pick(*kinds), s, depth))

    def _float_reduced(self, s: str, depth: int) -> Expression:
        name = self.pick("sum", "mean", "prod", *(() if self.options.smooth else ("most",)))
        match s:
            case "S":
                return (name, None, self.grow("float", self.pick("V", "M"), depth))
            case "V":
                axis, of = self.pick((0, "M"), (0, "W"), (1, "W"))
                return (name, axis, self.grow("float", of, depth))
        return ("cumsum", self.pick(0, 1), self.grow("float", s, depth))

    def _float_softened(self, s: str, depth: int) -> Expression:
        e = self.grow("float", s, depth)
        return ("unary", "tanh", e) if s == "S" else ("softmax", e)

    def _float_product(self, s: str, depth: int) -> Expression:
        match s:
            case "S":
                shapes = "VV"
            case "V":
                shapes = self.pick("VW", "WV", "VW")
            case "M":
                shapes = "MW"
            case _:
                if self.pick(True, False):
                    return ("outer", self.grow("float", "V", depth), self.grow("float", "V", depth))
                shapes = "WW"
        return ("dot", self.grow("float", shapes[0], depth), self.grow("float", shapes[1], depth))

    def _float_gated(self, s: str, depth: int) -> Expression:
        return ("gates", *(self.grow("float", t, depth) for t in (s, "W", "W")))

    def _float_chosen(self, s: str, depth: int) -> Expression:
        # of one kind, as the branches are of one type
        c, a, b = (self.grow(k, t, depth) for k, t in (("bool", "S"), ("float", s), ("float", s)))
        return ("ifelse", c, a, b)

    def _float_steered(self, s: str, depth: int) -> Expression:
        return ("steered", self.pick(*STEERING), self.grow("float", s, depth))

    def _float_differentiated(self, s: str, depth: int) -> Expression:
        # a stream's leaf is drawn anew by whoever captures it, so it is not differentiated by
        known = [n for n, k, t in self.leaves if (k, t) == ("float", s) and not n.startswith("u")]
        if not known:
            return self._end("float", s)
        inside = copy(self)
        inside.listed = True  # what is captured is computed again, from the leaves
        return ("inner_grad", self.pick(*known), inside.grow("float", self.pick("S", s), depth))

    # int and bool
    def _int_unary(self, s: str, depth: int) -> Expression:
        return ("int_unary", self.pick(*INT_UNARY), self.grow("int", s, depth))

    def _int_binary(self, s: str, depth: int) -> Expression:
        return ("int_binary", self.pick(*INT_BINARY), *self._pair("int", s, depth))

    def _int_switch(self, s: str, depth: int) -> Expression:
        return ("switch", self.grow("bool", self._smaller(s), depth), *self._pair("int", s, depth))

    def _int_cast(self, s: str, depth: int) -> Expression:
        kinds = [k for k in ("float", "bool") if k in self.options.kinds]
        return ("to_int", self.grow(self.pick(*kinds), s, depth)) if kinds else self._end("int", s)

    def _int_reduced(self, s: str, depth: int) -> Expression:
        name, of = self.pick("count", "most", "argmax"), self.pick("V", "M")
        e = self.grow("int", of, depth)
        return ("argmax", e) if name == "argmax" else (name, None, e)

    def _bool_unary(self, s: str, depth: int) -> Expression:
        return ("not", self.grow("bool", s, depth))

    def _bool_binary(self, s: str, depth: int) -> Expression:
        return ("bool_binary", self.pick(*BOOL_BINARY), *self._pair("bool", s, depth))

    def _bool_cast(self, s: str, depth: int) -> Expression:
        if "int" in self.options.kinds and self.pick(True, False):
            return ("compare", self.pick(*COMPARE), *self._pair("int", s, depth))
        return ("above", self.grow("float", s, depth))

    def _bool_reduced(self, s: str, depth: int) -> Expression:
        return (self.pick("any", "all"), None, self.grow("bool", self.pick("V", "M"), depth))

    # any kind
    def _any_item(self, kind: str, s: str, depth: int) -> Expression:
        e = self.grow(kind, "V" if s == "S" else self.pick("M", "W"), depth)
        if "int" in self.options.kinds and self.pick(False, True):
            return ("gather", self.grow("int", "S", depth), e)
        return ("item", self.pick(0, -1), e)

    def _any_moved(self, kind: str, s: str, depth: int) -> Expression:
        name = self.pick("reverse", "roll", *(["transposed"] if s == "W" else []))
        return (name, self.grow(kind, s, depth))

    def _any_picked(self, kind: str, s: str, depth: int) -> Expression:
        return ("picked", s, self.grow("int", "V", depth), self.grow(kind, s, depth))

    def _any_scattered(self, kind: str, s: str, depth: int) -> Expression:
        # (a value that a later one overwrites gets a cotangent all the same, as in Theano)
        adds = kind == "float" and self.options.smooth
        how = "set" if kind == "bool" else "inc" if adds else self.pick("set", "inc")
        y = self.grow(kind, self.pick("S", s), depth)
        return ("scattered", how, s, self.grow("int", "V", depth), self.grow(kind, s, depth), y)

    def _any_put(self, kind: str, s: str, depth: int) -> Expression:
        how = "set" if kind == "bool" else self.pick("set", "inc")
        row = "S" if s == "V" else self.pick("V", "S")
        return ("put", how, self.grow(kind, s, depth), self.grow(kind, row, depth))

    def _any_nested(self, kind: str, s: str, depth: int) -> Expression:
        # over rows, which gives all of them or the last
        take, rows = {
            "S": ("last", "V"), "V": self.pick(("last", "M"), ("last", "W"), ("all", "V")),
            "M": ("all", "M"),
        }[s]  # fmt: skip
        row = "S" if rows == "V" else "V"
        of = self.grow(kind, rows, depth)
        start = self.grow(kind, row, depth) if self.pick(True, False) else None
        leaves = [*self.leaves, ("row", kind, row), ("row", kind, row)]
        if start is not None:
            leaves += [("state", kind, row), ("state", kind, row)]
        inner = _Grower(self.draw, leaves, self.options, self.listed, inner=True)
        body = inner.grow(kind, row, min(depth, 2))
        if kind == "float" and start is not None:
            body = ("unary", "tanh", body)
        return ("nest", {
            "over": of, "rows": rows, "start": start, "body": body, "take": take, "kind": kind,
            "back": self.pick(False, True),
            "explicit": self.listed or self.pick(True, False),
        })  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        for kind in DTYPES:
            head = f"_{kind}_"
            if name.startswith(head):
                method = {"gathered": "item"}.get(name[len(head) :], name[len(head) :])
                general = getattr(type(self), f"_any_{method}")
                return lambda s, depth: general(self, kind, s, depth)
        raise AttributeError(name)


# ---- the drawing of loops -----------------------------------------------------------------------

SEQUENCE_TAPS = (
    (0,),
    (0,),
    (-1,),
    (1,),
    (0, -1),
    (-1, 0),
    (1, -1, 0),
    (-2, 1),
    (2,),
    (0, 2),
    (-2,),
)
OUTPUT_TAPS = ((-1,), (-1,), (-1,), (-2,), (-1, -2), (-2, -1), (-3, -1), (-1, -3), (-3,))


@st.composite
def cases(draw: Any, options: Options = ANY) -> Case:
    """Loops that scan() takes."""
    o = options

    def pick(*choices: Any) -> Any:
        return draw(st.sampled_from(choices))

    def value(name: str, kinds: Sequence[str], forms: Sequence[str], shapes: str = "VSMW") -> Value:
        kind = pick(*kinds)
        dtype = pick(*(o.floats if kind == "float" else DTYPES[kind]))
        return Value(name, dtype, pick(*shapes), pick(*forms))

    kinds = ("float", "float", *o.kinds)
    n = draw(st.integers(o.min_steps, o.max_steps))
    n_seqs = draw(st.integers(0, 3))
    n_form = pick(*(f for f in o.n_forms if n_seqs or f != "sequence"))
    seqs = []
    for i in range(n_seqs):
        v = value(f"x{i}", kinds, ("input", "input", "expr", "shared", "constant"), "VSMVW")
        free = n_form != "sequence" or i > 0
        extra = draw(st.integers(0, 2)) if free else 0
        if n_form != "sequence" and v.form in ("shared", "constant"):
            extra = max(extra, 0)
        seqs.append(Seq(v, pick(*SEQUENCE_TAPS), extra))
    consts = []
    for i in range(draw(st.integers(0, 3))):
        consts.append(
            value(f"c{i}", kinds, ("input", "input", "expr", "shared", "constant"), "WVSM")
        )
    draws = []
    if o.draws and pick(False, False, True):
        for i in range(draw(st.integers(1, 2))):
            law = pick("uniform", "normal", "bernoulli")
            dtype = "bool" if law == "bernoulli" else pick(*o.floats)
            draws.append(Draw(Value(f"u{i}", dtype, pick("V", "S", "M")), law))
    heads = []  # outputs before they have an expression
    for i in range(draw(st.integers(1, 3))):
        feeds = pick(True, True, False)
        v = value(f"s{i}", kinds, ("input", "input", "expr", "constant"), "VSMW")
        taps = pick(*OUTPUT_TAPS) if feeds else None
        heads.append(Output(v, ("leaf", ""), taps, pick(0, 0, 2)))
    shared_values = []
    if o.goes_on or (o.shared and pick(False, False, True)):
        shared_values = [value("h0", kinds, ("shared",), "SV")]

    leaves = [(s.leaf(t), s.value.kind, s.value.shape) for s in seqs for t in s.taps]
    fed = [(h.leaf(t), h.value.kind, h.value.shape) for h in heads for t in h.taps or ()]
    fixed = [(v.name, v.kind, v.shape) for v in consts]
    shared_leaves = [(v.name, v.kind, v.shape) for v in shared_values]
    drawn = [(d.value.name, d.value.kind, d.value.shape) for d in draws]
    listed = bool(draws or shared_values)
    grower = _Grower(draw, [*leaves, *fed, *fixed, *shared_leaves, *drawn], o, listed)
    still = _Grower(draw, [*leaves, *fixed, *drawn], o, listed)

    def update(v: Value, own: Sequence[str]) -> Expression:
        """A step's value; what feeds back stays bounded."""
        if v.kind != "float" or not own:
            return grower.grow(v.kind, v.shape, o.depth)
        states = [n for n, k, s in fed if (k, s) == ("float", v.shape)] or list(own)
        form = pick("tanh", "accumulate", "decay", "gate", "pass")
        me = ("leaf", pick(*own))
        match form:
            case "tanh":
                return ("unary", "tanh", grower.grow("float", v.shape, o.depth))
            case "accumulate" if o.inexact:
                return ("accumulate", me, still.grow("float", v.shape, o.depth))
            case "gate":
                gate = ("unary", "sigmoid", grower.grow("float", v.shape, o.depth - 1))
                return ("binary", "mul", me, gate)
            case "pass":
                return ("leaf", pick(*states))
        return ("binary", "add", ("unary", "half", me), still.grow("float", v.shape, o.depth))

    outputs = []
    for h in heads:
        own = [h.leaf(t) for t in h.taps or ()]
        outputs.append(replace(h, expression=update(h.value, own)))
    if len(outputs) > 1 and pick(False, False, False, True):  # the same value returned twice
        first, second = outputs[0], outputs[1]
        if (first.value.kind, first.value.shape) == (second.value.kind, second.value.shape):
            outputs[1] = replace(second, expression=first.expression)
    states = [State(v, update(v, [v.name])) for v in shared_values]
    stop = None
    may_stop = o.until and not o.goes_on and not (n == 1 and n_form == "constant")
    if may_stop and pick(False, False, True):
        stop = grower.grow("bool", "S", o.depth)

    run_at_least = 0 if n == 0 else 1
    used = []
    for h in outputs:
        float_rows = h.value.kind == "float" and h.value.shape == "V" and o.inexact
        choices: list[Any] = [("whole",), ("slice", None, None, -1), ("slice", -2, None, None),
                              ("slice", None, 2, None), ("slice", 1, None, None), ("shape",),
                              ("affine",), ("length",), ("slice", 1, -1, None)]  # fmt: skip
        if run_at_least:
            choices += [("last",), ("last",), ("item", 0), ("both_ends",)]
            if stop is None:
                choices += [("item", n - 1)]
        if o.inexact and h.value.kind != "bool":
            choices += [("sum",)]
        if float_rows:
            choices += [("dot",)]
        uses = draw(st.lists(st.sampled_from(choices), max_size=2, unique=True))
        used.append(replace(h, uses=tuple(uses)))
    one_step = n == 1 and n_form == "constant"  # the step itself: what is not used is not there
    used = [replace(h, uses=(("whole",),)) if one_step and not h.uses else h for h in used]
    if not any(h.uses for h in used):
        used[0] = replace(used[0], uses=(("whole",),))
    everything = [*(h.expression for h in used), *(s.expression for s in states)]
    wanted = set().union(*map(reads, [*everything, *([] if stop is None else [stop])]))
    draws = [d for d in draws if d.value.name in wanted]
    # (what only an update reads must be listed: SCAN.md 1.8)

    return Case(
        n=n,
        n_form=n_form,
        seqs=tuple(seqs),
        outputs=tuple(used),
        consts=tuple(consts),
        states=tuple(states),
        draws=tuple(draws),
        until=stop,
        backwards=draw(st.booleans()),
        truncate=pick(-1, -1, -1, 1, 2, 3) if o.truncate else -1,
        closure=not states and draw(st.booleans()),
        static=draw(st.booleans()),
        sizes=(("D", pick(3, 2, 1)), ("E", pick(2, 1))),
        dtype=pick(*o.floats),
        seed=draw(st.integers(0, 1000)),
    )


@st.composite
def cells(draw: Any, options: Options = DERIVATIVES) -> Case:
    """Recurrent networks: what the rules on loops are made for. Products of rows and of states
    with matrices, gates cut from one product, outputs read by nothing in the loop, and sums over
    the steps; V is one example, M a batch."""
    o = options

    def pick(*choices: Any) -> Any:
        return draw(st.sampled_from(choices))

    s = pick("V", "M")
    dtype = pick(*o.floats)
    n = draw(st.integers(o.min_steps, o.max_steps))
    form = pick(*o.n_forms)
    x = Seq(Value("x0", dtype, s), pick((0,), (0, -1), (1, 0)), draw(st.integers(0, 1)))
    if form == "sequence":
        x = replace(x, extra=0)
    weights = [Value(f"c{i}", dtype, "W", pick("input", "shared", "expr")) for i in range(3)]
    bias = Value("c3", dtype, "V", pick("input", "shared"))
    rows = [("leaf", x.leaf(t)) for t in x.taps]
    taps = pick((-1,), (-1,), (-2, -1), (-2,))
    h = Output(Value("s0", dtype, s, pick("input", "constant")), (), taps)
    past = [("leaf", h.leaf(t)) for t in taps]

    def matrix() -> Expression:
        w = ("leaf", pick(*weights).name)
        return pick(w, w, ("transposed", w), ("unary", "half", w), ("binary", "mul", w, w))

    def term(read: Sequence[Expression]) -> Expression:
        e = pick(*read)
        return pick(
            ("dot", e, matrix()), ("dot", e, matrix()), ("gates", e, matrix(), matrix()),
            ("binary", "mul", e, ("leaf", "c3")), ("unary", "sin", e),
        )  # fmt: skip

    def total(read: Sequence[Expression]) -> Expression:
        found = term(read)
        for _ in range(draw(st.integers(0, 2))):
            found = ("binary", pick("add", "add", "mul"), found, term(read))
        return ("binary", "add", found, ("leaf", "c3"))

    new = ("unary", "tanh", ("binary", "add", total(rows), total(past)))
    outputs = [replace(h, expression=new)]
    both = [*rows, *past, new]
    for i in range(1, 1 + draw(st.integers(0, 3))):
        kind = pick("map", "softmax", "sum of products", "sum", "passed on", "count")
        match kind:
            case "map" | "softmax":
                e = ("binary", "add", ("dot", pick(*both), matrix()), ("leaf", "c3"))
                e = ("binary", "mul", e, pick(*both)) if pick(False, True) else e
                e = ("softmax", e) if kind == "softmax" else e
                v, t = Value(f"s{i}", dtype, s), None
            case "sum of products":
                a, b = pick(*both), pick(*both)
                product = ("outer", a, b) if s == "V" else ("dot", ("transposed", a), b)
                v, t = Value(f"s{i}", dtype, "W"), (-1,)
                mine = ("leaf", f"s{i}[t-1]")
                more = pick(product, product, ("accumulate", mine, product))
                e = ("accumulate", mine, more)
            case "sum":
                v, t = Value(f"s{i}", dtype, s), (-1,)
                mine = ("leaf", f"s{i}[t-1]")
                more = pick(term(both), ("accumulate", mine, term(both)))
                e = ("accumulate", mine, more)
            case "passed on":
                v, t, e = Value(f"s{i}", dtype, s), (-1,), pick(*both)
            case _:
                v, t = Value(f"s{i}", "int64", "S"), (-1,)
                e = ("int_unary", "plus", ("leaf", f"s{i}[t-1]"))
        outputs.append(Output(v, e, t))
    ends: list[Any] = [("last",)] * 2 if n else []
    if n > 1:
        ends.append(("item", 0))
    whole = [
        ("whole",),
        ("sum",),
        ("slice", None, None, -1),
        ("slice", -2, None, None),
        ("length",),
    ]
    used = []
    for v in outputs:
        uses = draw(st.lists(st.sampled_from([*ends, *ends, *whole]), max_size=2, unique=True))
        used.append(replace(v, uses=tuple(uses)))
    if not any(v.uses for v in used):
        used[-1] = replace(used[-1], uses=(("sum",),))
    stop = None
    if o.until and not (n == 1 and form == "constant") and pick(False, True):
        e = ("item", 0, pick(*both))
        stop = ("above", e if s == "V" else ("item", 0, e))
    return Case(
        n=n, n_form=form, seqs=(x,), outputs=tuple(used), consts=(*weights, bias), until=stop,
        backwards=draw(st.booleans()), truncate=pick(-1, -1, 2) if o.truncate else -1,
        closure=draw(st.booleans()), static=draw(st.booleans()),
        sizes=(("D", pick(3, 2)), ("E", pick(2, 3))), dtype=dtype, seed=draw(st.integers(0, 1000)),
    )  # fmt: skip


# ---- comparison ---------------------------------------------------------------------------------

# Of float32 some 340 half last bits of the largest value: a result comes of up to five steps of
# some sixteen operations, and a sum of up to 45 elements; what is left is for steps that stretch
# errors. Of float64 more, for derivatives of it.
TOLERANCE = {"float64": 1e-8, "float32": 2e-5}


def assert_same(
    got: Sequence[Any], want: Sequence[Any], exact: bool = False, loosest: str = "float64"
) -> None:
    """The same dtypes, shapes and values: every bit of integers, bools and where exact is set;
    else floats within a tolerance, which is that of float32 where one of the two is, or
    `loosest` is."""
    assert len(got) == len(want)
    for i, (a, b) in enumerate(zip(got, want)):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype, f"result {i}: {a.dtype} instead of {b.dtype}"
        assert a.shape == b.shape, f"result {i}: shape {a.shape} instead of {b.shape}"
        if exact or a.dtype.kind != "f":
            np.testing.assert_array_equal(a, b, f"result {i}")
        else:
            names_ = {a.dtype.name, loosest}
            tolerance = max(TOLERANCE[d] for d in names_)
            scale = max(1.0, float(np.max(np.abs(b), initial=0.0)))
            np.testing.assert_allclose(
                a, b, rtol=tolerance, atol=tolerance * scale, err_msg=f"result {i}"
            )
