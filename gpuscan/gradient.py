"""Derivatives: one walk from the cost back to what it is differentiated by, and its relatives.

A cotangent is a Variable, `Undefined` (it does not exist, and why) or None (nothing flows).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from .config import config
from .errors import (
    DisconnectedInputError,
    GradientError,
    NullTypeGradError,
    built_at,
    describe,
)
from .evaluate import Program
from .graph import Item, Undefined, Variable, derived, leaves, substitute, toposort
from .ops.control import (
    DisconnectedGrad,
    GradClip,
    GradScale,
    UndefinedGrad,
    ZeroGrad,
    derived_from,
)
from .ops.convert import as_tensor
from .ops.elemwise import cast, zeros_like
from .ops.shape import specify
from .shared import SharedVariable
from .types import FLOATS, TensorType, TupleType

Cotangent = Variable | Undefined | None


# ---- the walk -------------------------------------------------------------------------------


def cotangents(
    outputs: Sequence[Variable],
    gs: Sequence[Cotangent],
    wrt: Sequence[Variable],
    constant: Iterable[Variable] = (),
    known: Mapping[Variable, Cotangent] | None = None,
) -> list[Cotangent]:
    """The cotangents of `wrt` from those of the outputs. Nothing flows through `constant`;
    `known` fixes the cotangent of some variables on the way."""
    stop = set(constant)
    order = toposort(outputs, stop)
    useful = depending(order, set(wrt), stop)
    found: dict[Variable, Cotangent] = {}
    parts: dict[Variable, list[Cotangent]] = {}  # of nodes with several results

    def give(v: Variable, g: Cotangent) -> None:
        if g is not None and v in useful and not (known and v in known):
            found[v] = added(found.get(v), g)

    for v, g in (known or {}).items():
        found[v] = g
    for v, g in zip(outputs, gs):
        give(v, g)
    for v in reversed(order):
        if v not in useful or v in stop or not v.inputs:
            continue
        if isinstance(v.op, Item):
            if (g := found.get(v)) is not None:
                node = v.inputs[0]
                parts.setdefault(node, [None] * len(node.type.items))[v.op.index] = g
            continue
        g = parts.get(v) if isinstance(v.type, TupleType) else found.get(v)  # type: ignore[assignment]
        if g is None:
            continue
        if isinstance(g, Undefined):
            flows = v.op.connection(v)
            for x, connected in zip(v.inputs, flows):
                give(x, g if connected else None)
            continue
        for x, d in zip(v.inputs, v.op.pullback(v.inputs, v, g), strict=True):
            give(x, d)
    return [found.get(w) for w in wrt]


def added(a: Cotangent, b: Cotangent) -> Cotangent:
    """The sum of two cotangents; an undefined one spoils it."""
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, Undefined):
        return a
    return b if isinstance(b, Undefined) else a + b


def depending(
    order: Sequence[Variable], on: set[Variable], stop: Iterable[Variable] = ()
) -> set[Variable]:
    """The variables of a walk that depend on one of `on` in a way that has a gradient."""
    cut = set(stop)
    found = set(on)
    flows: dict[Variable, set[int]] = {}  # of nodes with several results: which ones
    for v in order:
        if v in found or v in cut or not v.inputs:
            continue
        if isinstance(v.op, Item):
            if v.op.index in flows.get(v.inputs[0], ()):
                found.add(v)
            continue
        touched = [c for x, c in zip(v.inputs, v.op.connection(v)) if x in found and c]
        if touched and isinstance(v.type, TupleType):
            flows[v] = set().union(*touched)
            found.add(v)
        elif touched:
            found.add(v)
    return found


def dependence(outputs: Sequence[Variable], on: Sequence[Variable]) -> list[set[int]]:
    """Per output, the positions in `on` that it depends on in a way that has a gradient."""
    position = {v: i for i, v in enumerate(on)}
    found: dict[Variable, set[int]] = {}
    several: dict[Variable, list[set[int]]] = {}
    for v in toposort(outputs, on):
        if v in position:
            found[v] = {position[v]}
        elif not v.inputs:
            found[v] = set()
        elif isinstance(v.op, Item):
            found[v] = several[v.inputs[0]][v.op.index]
        elif isinstance(v.type, TupleType):
            flows = list(zip(v.inputs, v.op.connection(v)))
            several[v] = [
                set().union(*(found[x] for x, c in flows if c and i in c))
                for i in range(len(v.type.items))
            ]
            found[v] = set()
        else:
            flows = zip(v.inputs, v.op.connection(v))  # type: ignore[assignment]
            found[v] = set().union(*(found[x] for x, c in flows if c))
    return [found[v] for v in outputs]


# ---- grad -----------------------------------------------------------------------------------


def grad(
    cost: Any,
    wrt: Any,
    consider_constant: Iterable[Variable] | None = None,
    disconnected_inputs: str = "raise",
    add_names: bool = True,
    known_grads: Mapping[Variable, Any] | None = None,
    return_disconnected: str = "zero",
    null_gradients: str = "raise",
) -> Any:
    """The gradient of a scalar with respect to a variable, or to each of a list or tuple.

    consider_constant: variables through which nothing flows. known_grads: cotangents of
    variables on the way; the cost may then be None. disconnected_inputs: "raise"
    (DisconnectedInputError), "warn" or "ignore" where the cost does not depend on one of wrt;
    its gradient is then zeros, or what return_disconnected ("zero", "none", "disconnected")
    says. null_gradients: "raise" (NullTypeGradError) or "return" where it is not defined.

    Gradients are floats: that of an integer variable has dtype floatX.
    """
    if isinstance(wrt, set):
        raise TypeError("wrt must not be a set. sets have no defined iteration order")
    if cost is None and known_grads is None:
        raise AssertionError("cost and known_grads can't both be None.")
    if disconnected_inputs not in ("raise", "warn", "ignore"):
        raise ValueError(f"disconnected_inputs is {disconnected_inputs!r}, not raise, warn, ignore")
    if return_disconnected.lower() not in ("zero", "none", "disconnected"):
        raise ValueError(f"return_disconnected is {return_disconnected!r}")
    several = isinstance(wrt, list | tuple)
    targets: list[Variable] = list(wrt) if several else [wrt]
    for w in targets:
        if not isinstance(w, Variable):
            raise TypeError(f"Expected Variable, got {w!r} of type {type(w)}")
    outputs: list[Variable] = []
    if cost is not None:
        cost = as_tensor(cost)
        if cost.ndim != 0:
            raise TypeError(f"cost must be a scalar. {describe(cost)} is not.{built_at(cost)}")
        outputs = [cost]
    known = {v: _float_cotangent(v, g) for v, g in (known_grads or {}).items()}
    stop = set(consider_constant or ())
    roots = [*outputs, *known]

    gs: list[Cotangent] = [as_tensor(np.ones((), _float_of(v))) for v in outputs]
    gs += [None] * len(known)
    found = cotangents(roots, gs, targets, stop, known)
    reached = set(toposort(roots, stop)) & _reaching(roots, stop)
    answers: list[Any] = []
    for w, g in zip(targets, found):
        if w not in reached:
            _disconnected(w, disconnected_inputs)
            answers.append(_zero(w) if return_disconnected.lower() == "zero" else None)
        elif isinstance(g, Undefined):
            if null_gradients == "raise":
                raise NullTypeGradError(
                    "tensor.grad encountered a NaN. This variable is Null because the gradient "
                    f"with respect to {describe(w)} is not defined: {g.reason}{built_at(w)}"
                )
            answers.append(NullGradient(g.reason))
        else:
            answers.append(_zero(w) if g is None else _as(g, w))
            if add_names and cost is not None and cost.name and w.name and not answers[-1].name:
                if answers[-1].inputs:
                    answers[-1].name = f"(d{cost.name}/d{w.name})"
    answers = _derived(answers, [*roots, *known.values()])
    return type(wrt)(answers) if several else answers[0]


def _derived(answers: Sequence[Any], of: Sequence[Variable]) -> list[Any]:
    """The answers with a note of what they are derivatives of, which they may not need: d(x*y)/dx
    is y, but a function of x and y that computes it is no mistake."""
    order = set(toposort(of))
    return [derived_from(of, g, new=g in order) if isinstance(g, Variable) else g for g in answers]


class NullGradient:
    """What grad(null_gradients="return") gives where a gradient is not defined."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __repr__(self) -> str:
        return f"NullGradient({self.reason!r})"


def _float_of(v: Variable) -> str:
    return v.dtype if v.type.is_float else config.floatX


def _zero(w: Variable) -> Variable:
    return zeros_like(w, _float_of(w))


def _as(g: Variable, w: Variable) -> Variable:
    """The gradient with what is known of w: its dtype where that is a float, and its sizes."""
    if w.type.is_float and g.dtype != w.dtype:
        g = cast(g, w.dtype)
    known = [b if b is not None else a for a, b in zip(g.type.shape, w.type.shape)]
    return specify(g, known)


def _float_cotangent(v: Variable, g: Any) -> Variable:
    g = as_tensor(g)
    if not g.type.is_float:
        raise TypeError(
            f"Gradients may never be integers but the known gradient of {describe(v)} "
            f"has type {g.type}."
        )
    if g.ndim != v.ndim:
        raise TypeError(f"the known gradient of {describe(v)} has type {g.type}")
    return g


def _reaching(outputs: Sequence[Variable], stop: set[Variable]) -> set[Variable]:
    """The variables that the outputs depend on in a way that has a gradient."""
    found = set(outputs)
    flows: dict[Variable, set[int]] = {}
    for v in reversed(toposort(outputs, stop)):
        if v not in found or v in stop or not v.inputs:
            continue
        if isinstance(v.op, Item):
            flows.setdefault(v.inputs[0], set()).add(v.op.index)
            found.add(v.inputs[0])
            continue
        wanted = flows.get(v)
        for x, c in zip(v.inputs, v.op.connection(v)):
            if c and (wanted is None or c & wanted):
                found.add(x)
    return found


def _disconnected(w: Variable, what: str) -> None:
    text = (
        "grad method was asked to compute the gradient with respect to a variable that is not "
        "part of the computational graph of the cost, or is used only by a non-differentiable "
        f"operator: {describe(w)}.{built_at(w)} Leave it out of wrt, or pass "
        "disconnected_inputs='ignore' to get zeros."
    )
    if what == "raise":
        raise DisconnectedInputError(text)
    if what == "warn":
        warnings.warn(text, stacklevel=3)


def subgraph_grad(
    wrt: Sequence[Variable],
    end: Sequence[Variable],
    start: Mapping[Variable, Any] | None = None,
    cost: Variable | None = None,
    details: bool = False,
) -> Any:
    """The gradients of `wrt` and `end` by a walk that stops at `end`; `start` gives known
    cotangents. Returns the pair of lists."""
    both = [*wrt, *end]
    found = _subgraph(both, end, start, cost)
    pairs = (found[: len(wrt)], found[len(wrt) :])
    return (*pairs, None, None) if details else pairs


def _subgraph(
    both: Sequence[Variable],
    end: Sequence[Variable],
    start: Mapping[Variable, Any] | None,
    cost: Variable | None,
) -> list[Variable]:
    outputs = [cost] if cost is not None else []
    gs: list[Cotangent] = [as_tensor(np.ones((), _float_of(v))) for v in outputs]
    placeholders = {v: v.type() for v in end}
    known = dict(start or {})
    roots = [*outputs, *known]
    swapped = substitute(roots, placeholders)
    targets = [placeholders.get(w, substitute([w], placeholders)[0]) for w in both]
    given = {new: as_tensor(known[old]) for new, old in zip(swapped[len(outputs) :], known)}
    found = cotangents(swapped, [*gs, *[None] * len(known)], targets, (), given)
    back = {p: v for v, p in placeholders.items()}
    answers = []
    for w, g in zip(both, found):
        if isinstance(g, Undefined):
            raise NullTypeGradError(g.reason)
        answers.append(_zero(w) if g is None else _as(substitute([g], back)[0], w))
    return answers


# ---- products with the Jacobian ---------------------------------------------------------------


def _listed(x: Any) -> list[Variable]:
    return [as_tensor(v) for v in x] if isinstance(x, list | tuple) else [as_tensor(x)]


def Lop(
    f: Any,
    wrt: Any,
    eval_points: Any,
    consider_constant: Iterable[Variable] | None = None,
    disconnected_inputs: str = "raise",
) -> Any:
    """eval_points times the Jacobian of f with respect to wrt: one tensor of each wrt's shape."""
    outputs, targets = _listed(f), _listed(wrt)
    gs = [_float_cotangent(v, g) for v, g in zip(outputs, _listed(eval_points), strict=True)]
    stop = set(consider_constant or ())
    found = cotangents(outputs, gs, targets, stop)
    reached = _reaching(outputs, stop)
    answers = []
    for w, g in zip(targets, found):
        if w not in reached:
            _disconnected(w, disconnected_inputs)
        if isinstance(g, Undefined):
            raise NullTypeGradError(f"the product is not defined: {g.reason}")
        answers.append(_zero(w) if g is None else _as(g, w))
    answers = _derived(answers, [*outputs, *gs])
    return type(wrt)(answers) if isinstance(wrt, list | tuple) else answers[0]


def Rop(
    f: Any,
    wrt: Any,
    eval_points: Any,
    disconnected_outputs: str = "raise",
    return_disconnected: str = "zero",
) -> Any:
    """The Jacobian of f with respect to wrt, times eval_points: one tensor of each f's shape.

    f's pullback is linear in its cotangent u, so the pullback of that map, at eval_points, is
    the product wanted, and does not depend on u (Townsend, 2017, "A new trick for calculating
    Jacobian vector products").
    """
    outputs, targets = _listed(f), _listed(wrt)
    points = _listed(eval_points)
    if len(points) != len(targets):
        raise ValueError(f"Rop: {len(targets)} variables in wrt and {len(points)} eval_points")
    for w, p in zip(targets, points):
        if w.ndim != p.ndim:
            raise ValueError(
                f"Rop: {describe(w)} and its eval point {describe(p)} differ in dimensions"
            )
    dependent = depending(toposort(outputs), set(targets))
    answers: list[Any] = []
    for v in outputs:
        if v not in dependent:
            apart = v.inputs and set(targets).isdisjoint(toposort([v]))
            if apart or derived([v]):  # as in Theano no mistake
                answers.append(_zero(v))
                continue
            _disconnected_output(v, disconnected_outputs)
            answers.append(_zero(v) if return_disconnected.lower() == "zero" else None)
            continue
        u = TensorType(_float_of(v), v.type.shape)("u")
        back = cotangents([v], [u], targets)
        if undefined := [g for g in back if isinstance(g, Undefined)]:
            raise NullTypeGradError(f"the product is not defined: {undefined[0].reason}")
        pairs = [(g, p) for g, p in zip(back, points) if isinstance(g, Variable)]
        products = cotangents([g for g, _ in pairs], [cast(p, g.dtype) for g, p in pairs], [u])
        (product,) = products
        if not isinstance(product, Variable):
            answers.append(_zero(v))
            continue
        (product,) = substitute([product], {u: zeros_like(v, _float_of(v))})
        answers.append(_as(product, v))
    answers = _derived(answers, [*outputs, *points])
    return type(f)(answers) if isinstance(f, list | tuple) else answers[0]


def _disconnected_output(v: Variable, what: str) -> None:
    text = f"Rop: {describe(v)} does not depend on wrt.{built_at(v)}"
    if what == "raise":
        raise DisconnectedInputError(text)
    if what == "warn":
        warnings.warn(text, stacklevel=3)


def jacobian(
    expression: Any,
    wrt: Any,
    consider_constant: Iterable[Variable] | None = None,
    disconnected_inputs: str = "raise",
) -> Any:
    """The derivative of a scalar or vector with respect to each of wrt: shape
    expression.shape + wrt.shape. The rows are computed by a scan."""
    expression = as_tensor(expression)
    if expression.ndim > 1:
        raise ValueError("jacobian expects a scalar or vector expression; use .flatten()")
    several = isinstance(wrt, list | tuple)
    targets = _listed(wrt)
    if expression.ndim == 0:
        return grad(expression, wrt, consider_constant, disconnected_inputs)

    def row(i: Variable, *rest: Variable) -> list[Variable]:
        f, *w = rest
        return [grad(f[i], v, consider_constant, disconnected_inputs) for v in w]

    rows = _over_positions(row, expression, [expression, *targets])
    return type(wrt)(rows) if several else rows[0]


def hessian(
    cost: Any,
    wrt: Any,
    consider_constant: Iterable[Variable] | None = None,
    disconnected_inputs: str = "raise",
) -> Any:
    """The second derivatives of a scalar with respect to each vector of wrt: square matrices."""
    cost = as_tensor(cost)
    if cost.ndim != 0:
        raise TypeError("hessian: cost must be a scalar.")
    several = isinstance(wrt, list | tuple)
    answers = []
    for w in _listed(wrt):
        if w.ndim != 1:
            raise ValueError(f"hessian: wrt must be vectors, {describe(w)} is not")
        g = grad(cost, w, consider_constant, disconnected_inputs)

        def row(i: Variable, g: Variable, w: Variable) -> list[Variable]:
            return [grad(g[i], w, consider_constant, "ignore")]

        answers.append(_over_positions(row, g, [g, w])[0])
    return type(wrt)(answers) if several else answers[0]


def _over_positions(step: Any, vector: Variable, others: list[Variable]) -> list[Variable]:
    """The rows that `step(i, *others)` gives for every position of a vector."""
    positions = Variable.operations["arange"](vector.shape[0])
    rows, _ = Variable.operations["scan"](
        step, sequences=positions, non_sequences=others, return_list=True
    )
    return rows


# ---- identities that change the gradient --------------------------------------------------------


def disconnected_grad(x: Any) -> Variable:
    """x, disconnected: gradients do not know that the result depends on it."""
    return DisconnectedGrad()(as_tensor(x))


def zero_grad(x: Any) -> Variable:
    """x, with a gradient of zeros (connected)."""
    return ZeroGrad()(as_tensor(x))


def consider_constant(x: Any) -> Variable:
    """x, treated as a constant by gradients: they are zeros."""
    return ZeroGrad()(as_tensor(x))


def undefined_grad(x: Any, reason: str = "the gradient was declared undefined") -> Variable:
    """x, with a gradient that is not defined."""
    return UndefinedGrad(reason)(as_tensor(x))


def grad_undefined(op: Any, x_pos: int, x: Any, comment: str = "") -> Undefined:
    """For an op's pullback: the gradient of this input is not defined."""
    return Undefined(f"input {x_pos} ({x}) of {op}: {comment}")


def grad_not_implemented(op: Any, x_pos: int, x: Any, comment: str = "") -> Undefined:
    """For an op's pullback: the gradient of this input is not implemented."""
    return Undefined(f"not implemented for input {x_pos} ({x}) of {op}: {comment}")


def grad_clip(x: Any, lower_bound: float, upper_bound: float) -> Variable:
    """x, with its cotangent clipped to [lower_bound, upper_bound] at this point."""
    return GradClip(float(lower_bound), float(upper_bound))(as_tensor(x))


def grad_scale(x: Any, multiplier: float) -> Variable:
    """x, with its cotangent multiplied at this point."""
    return GradScale(float(multiplier))(as_tensor(x))


# ---- finite differences -------------------------------------------------------------------------


class numeric_grad:
    """The gradient of a scalar function by one-sided finite differences, float64 inside where
    the points are float64. `gf` holds it: an array, or a list where `pt` is a list."""

    type_eps: ClassVar[dict[str, float]] = {"float64": 1e-7, "float32": 3e-4, "float16": 1e-1}

    def __init__(self, f: Any, pt: Any, eps: float | None = None, out_type: Any = None) -> None:
        several = isinstance(pt, list | tuple)
        points = [np.array(p) for p in (pt if several else [pt])]
        if eps is None:
            eps = max(self.type_eps.get(p.dtype.name, 0.0) for p in points) or 1e-7
        base = f(*points)
        self.gf: Any = []
        for k, p in enumerate(points):
            g = np.zeros(p.shape, p.dtype if p.dtype.kind == "f" else "float64")
            for i in np.ndindex(p.shape):
                moved = [q.copy() if j == k else q for j, q in enumerate(points)]
                moved[k][i] += eps
                g[i] = (f(*moved) - base) / (moved[k][i] - p[i])
            self.gf.append(g)
        if not several:
            (self.gf,) = self.gf


def verify_grad(
    fun: Any,
    pt: Sequence[Any],
    n_tests: int = 2,
    rng: Any = None,
    eps: float | None = None,
    out_type: Any = None,
    abs_tol: float | None = None,
    rel_tol: float | None = None,
    mode: Any = None,
    cast_to_output_type: bool = False,
    no_debug_ref: bool = True,
) -> None:
    """Compares the symbolic gradient of `fun` at the points with finite differences, along
    random projections of its result. Raises GradientError where they differ by more than
    abs_tol and by more than rel_tol (defaults by dtype)."""
    points = [np.array(p) for p in pt]
    for i, p in enumerate(points):
        if p.dtype.name not in FLOATS:
            raise TypeError(
                f"verify_grad can work only with floating point inputs; input {i} isn't"
            )
    if rng is None:
        raise TypeError("rng should be an instance of numpy.random.RandomState (or Generator)")
    tolerance = {"float16": 5e-2, "float32": 1e-3, "float64": 1e-4}
    loosest = max(tolerance[p.dtype.name] for p in points)
    absolute = loosest if abs_tol is None else abs_tol
    relative = loosest if rel_tol is None else rel_tol

    inputs = [TensorType(p.dtype.name, tuple(s == 1 for s in p.shape))(f"input {i}")
              for i, p in enumerate(points)]  # fmt: skip
    out = fun(*inputs)
    if isinstance(out, list | tuple):
        raise TypeError("verify_grad wants a function with one result")
    held: list[SharedVariable] = [v for v in leaves([out]) if isinstance(v, SharedVariable)]
    values = [s.get_value() for s in held]
    shape = np.shape(Program([*inputs, *held], [out])(*points, *values)[0])
    for _ in range(n_tests):
        projection = (rng.random_sample if hasattr(rng, "random_sample") else rng.random)(shape)
        projection = np.asarray(projection + 0.5, _float_of(out))
        cost = (out * as_tensor(projection)).sum()
        scalar = Program([*inputs, *held], [cost])
        symbolic = grad(cost, inputs, disconnected_inputs="ignore")
        got = Program([*inputs, *held], symbolic)(*points, *values)
        want = numeric_grad(lambda *p, run=scalar: float(run(*p, *values)[0]), points, eps).gf
        for k, (a, b) in enumerate(zip(got, want)):
            error = np.abs(a - b)
            scale = np.maximum(np.abs(a), np.abs(b))
            bad = (error > absolute) & (error > relative * np.maximum(scale, 1e-8))
            if bad.any() or not np.isfinite(error).all():
                where = np.unravel_index(np.nanargmax(error), error.shape) if error.shape else ()
                raise GradientError(
                    f"verify_grad: the gradient of input {k} at {tuple(map(int, where))} is "
                    f"{a[where]}, finite differences give {b[where]} "
                    f"(tolerances {absolute} absolute, {relative} relative)"
                )


verify_grad.E_grad = GradientError  # type: ignore[attr-defined]
