"""A loop is its unrolled graph: values, derivatives, sizes and random draws, for loops that
hypothesis makes up. Every device is held to these."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from strategies import (
    DERIVATIVES,
    Case,
    Graphs,
    Options,
    Output,
    State,
    Value,
    assert_same,
    cases,
    cells,
    names,
)

import gpuscan
from gpuscan import tensor as T
from gpuscan.gradient import Lop, Rop, grad
from gpuscan.graph import Variable, toposort
from gpuscan.scan.op import Scan
from gpuscan.tensor.random import RandomStreams

SMOOTH = replace(DERIVATIVES, smooth=True, truncate=False)
SMALL = replace(DERIVATIVES, depth=2, max_steps=3)


# ---- values -------------------------------------------------------------------------------------


@given(case=cases())
def test_loop_is_the_unrolled_graph(device: str, case: Case) -> None:
    got = case.run(case.loop, device=device)
    assert_same(got, case.plain_values(), case.exact, case.loosest)


@given(case=cases(Options(inexact=False)))
def test_elementwise_loop_is_the_unrolled_graph_to_the_last_bit(device: str, case: Case) -> None:
    assert case.exact
    assert_same(case.run(case.loop, device=device), case.plain_values(), exact=True)


@given(case=cases(Options(kinds=("int", "bool", "int"), floats=("float64",))))
def test_loop_before_rewriting_is_the_unrolled_graph(case: Case) -> None:
    got = case.run(case.loop, "FAST_COMPILE")
    assert_same(got, case.plain_values(), case.exact, case.loosest)


@given(case=cases(), more=st.lists(st.integers(0, 4), min_size=1, max_size=3))
def test_one_function_serves_every_length(device: str, case: Case, more: list[int]) -> None:
    assume(case.n_form != "constant")
    case = replace(
        case,
        seqs=tuple(
            replace(s, value=replace(s.value, form="input"))
            if s.value.form == "constant" else s
            for s in case.seqs
        ),
    )  # fmt: skip
    f = case.function(case.loop, device=device)
    for n in [case.n, *(case.n + m for m in more), case.n]:
        assert_same(case.call(f, n), case.plain_values(n), case.exact, case.loosest)


@given(case=cases(Options(goes_on=True)))
def test_second_call_goes_on_from_the_first(device: str, case: Case) -> None:
    loop = case.function(case.loop, device=device)
    plain = case.function(case.unrolled(), device="reference")
    assert case.kept
    case.reset()
    for _ in range(2):
        got = loop(*case.feed())
    left = [s.get_value() for s in case.kept]
    case.reset()
    for _ in range(2):
        want = plain(*case.feed())
    right = [s.get_value() for s in case.kept]
    assert_same([*got, *left], [*want, *right], case.exact, case.loosest)


SYMBOLIC = replace(DERIVATIVES, n_forms=("symbolic",), max_steps=3, depth=2)


@given(a=cases(SYMBOLIC), b=cases(SYMBOLIC))
def test_loops_side_by_side(device: str, a: Case, b: Case) -> None:
    assume(a.n >= b.n)  # no result of b is of a step that it then lacks
    b = replace(b, n=a.n)
    b.__dict__["_steps"] = a.inputs["n"]  # both run the same symbolic number of steps
    inputs = [*a.inputs.values(), *list(b.inputs.values())[1:]]
    parts = [(c, g) for c in (a, b) for g in (c.loop, c.gradients(c.loop))]
    results = [v for _, g in parts for v in g.results]
    updates = {**a.loop.updates, **b.loop.updates}
    f = gpuscan.function(inputs, results, updates=updates, on_unused_input="ignore", device=device)
    a.reset()
    b.reset()
    got = iter(f(*a.feed(), *b.feed()[1:]))
    for c, g in parts:
        plain = c.unrolled() if g is c.loop else c.gradients(c.unrolled())
        want = c.plain(plain)[: len(plain.results)]
        assert_same([next(got) for _ in want], want)


def _through(v: Variable, n: int | None) -> Variable:
    """A loop over the rows of a loop's output; n: the number of rows, to unroll it."""

    def step(row: Variable, s: Variable) -> Variable:
        return T.tanh(row.sum() * 0.3 + s * 0.5)

    start = T.constant(np.float64(0.1))
    if n is None:
        return gpuscan.scan(step, v, start)[0]
    values = [start]
    for i in range(n):
        values.append(step(v[i], values[-1]))
    return T.stack(values[1:]) if n else T.constant(np.empty(0))


@given(case=cases(replace(DERIVATIVES, max_steps=3, depth=2, until=False)))
def test_loops_in_a_row(device: str, case: Case) -> None:
    case = replace(case, outputs=tuple(replace(o, uses=(("whole",),)) for o in case.outputs))
    _differentiable(case)

    def both(graphs: Graphs, n: int | None) -> Graphs:
        ends = [_through(v, n) for v in graphs.results if v.type.is_float]
        later = Graphs(ends, graphs.updates)
        return Graphs([*graphs.results, *ends, *case.gradients(later).results], graphs.updates)

    want = case.plain(both(case.unrolled(), case.n))
    assert_same(case.run(both(case.loop, None), device=device), want)


# ---- sizes --------------------------------------------------------------------------------------


def _asked(case: Case) -> Graphs:
    sizes = [d for v in case.loop.results for d in (T.shape(v)[i] for i in range(v.ndim))]
    return Graphs(sizes, case.loop.updates)


@pytest.mark.parametrize("mode", ["FAST_RUN", "FAST_COMPILE"])
@given(case=cases())
def test_sizes_are_those_of_the_values(mode: str, case: Case) -> None:
    values = case.plain(case.loop)[: len(case.loop.results)]
    sizes = case.run(_asked(case), mode)
    want = [d for v in values for d in v.shape]
    assert [int(d) for d in sizes[: len(want)]] == want


@given(case=cases(Options(until=False, shared=False, draws=False)))
def test_sizes_need_no_loop(case: Case) -> None:
    uses = {u[0] for o in case.outputs for u in o.uses}
    choices = "ifelse" in {n for e in case.expressions for n in names(e)}
    assume(not uses & {"sum", "dot"} and not choices)  # the size of a choice is the one taken's
    asked = case.function(_asked(case)).maker.fgraph.outputs
    assert not [v for v in toposort(asked) if isinstance(v.op, Scan)]


# ---- derivatives --------------------------------------------------------------------------------


def _differentiable(case: Case) -> None:
    assume(case.floats and case.cost(case.loop) is not None)


# Rows outside of the loop whose number the loop says: what needs them can't be in one kernel with
# what the loop needs.
ROWS_OF_A_LOOP = Case(
    n=0, n_form="symbolic", seqs=(),
    outputs=(
        Output(Value("s0", "float64", "S", "input"), ("leaf", "s0[t-1]"), (-1,), 0, (("whole",),)),
        Output(Value("s1", "bool", "V", "input"), ("leaf", "s1[t-1]"), (-1, -2), 0, ()),
    ),
    consts=(Value("c0", "float64", "W", "expr"),),
    states=(
        State(
            Value("h0", "float64", "S", "shared"),
            ("binary", "add", ("unary", "half", ("leaf", "h0")), ("fit", "W", "S", ("leaf", "c0"))),
        ),
    ),
    draws=(), until=("spread", "V", "S", ("leaf", "s1[t-1]")), backwards=False, truncate=-1,
    closure=False, static=False, sizes=(("D", 3), ("E", 2)), dtype="float64", seed=0, notes={},
)  # fmt: skip


@example(case=ROWS_OF_A_LOOP)
@given(case=cases(DERIVATIVES))
def test_gradients_are_those_of_the_unrolled_graph(device: str, case: Case) -> None:
    _differentiable(case)
    got = case.run(case.gradients(case.loop), device=device)
    assert_same(got, case.plain(case.gradients(case.unrolled())))


@given(case=cells())
def test_recurrent_networks_and_their_gradients(device: str, case: Case) -> None:
    _differentiable(case)

    def all_of(graphs: Graphs) -> Graphs:
        gradients = case.gradients(graphs)
        return Graphs([*graphs.results, *gradients.results], graphs.updates)

    got = case.run(all_of(case.loop), device=device)
    assert_same(got, case.plain(all_of(case.unrolled())))


@given(case=cases(DERIVATIVES))
def test_gradients_before_rewriting(case: Case) -> None:
    _differentiable(case)
    got = case.run(case.gradients(case.loop), "FAST_COMPILE")
    assert_same(got, case.plain(case.gradients(case.unrolled())))


@given(case=cases())
def test_gradients_have_the_types_of_what_they_are_of(case: Case) -> None:
    _differentiable(case)
    found = case.gradients(case.loop)
    wrt = list(case.floats.values())
    assert [g.dtype for g in found.results] == [w.dtype for w in wrt]
    values = dict(zip(case.inputs, case.feed()))
    for w, g in zip(wrt, case.run(found)):
        assert g.shape == values[w.name].shape
        assert g.dtype == w.dtype


@given(case=cases(SMOOTH))
def test_gradients_are_the_slopes(case: Case) -> None:
    _differentiable(case)
    cost = case.cost(case.loop)
    value = case.function(Graphs([cost], case.loop.updates))
    wrt = list(case.floats)
    found = case.run(case.gradients(case.loop))[: len(wrt)]
    rng = np.random.default_rng(case.seed)
    way = {name: rng.standard_normal(g.shape) for name, g in zip(wrt, found)}

    def at(step: float) -> float:
        case.reset()
        feed = zip(case.inputs, case.feed())
        return float(value(*[x + step * way[k] if k in way else x for k, x in feed])[0])

    slope = sum(float((way[k] * g).sum()) for k, g in zip(wrt, found))
    h = 1e-5
    estimates = [(at(h * m) - at(-h * m)) / (2 * h * m) for m in (1, 2)]
    error = abs(estimates[0] - estimates[1])  # where it is not linear enough to tell
    assert abs(slope - estimates[0]) <= 1e-5 * max(1, abs(slope)) + 4 * error


def _weighted(values: list[Variable]) -> Variable:
    parts = [((v + 0.1) ** 2).sum() * (0.3 + 0.2 * i) for i, v in enumerate(values)]
    return sum(parts[1:], parts[0])


@given(case=cases(SMALL))
def test_second_derivatives_are_those_of_the_unrolled_graph(device: str, case: Case) -> None:
    _differentiable(case)
    wrt = list(case.floats.values())

    def second(graphs: Graphs) -> Graphs:
        first = case.gradients(graphs).results
        found = grad(_weighted(first), wrt, disconnected_inputs="ignore")
        return Graphs(found, graphs.updates)

    got = case.run(second(case.loop), device=device)
    assert_same(got, case.plain(second(case.unrolled())))


@given(case=cases(SMALL))
def test_products_with_the_jacobian_agree(case: Case) -> None:
    _differentiable(case)
    wrt = list(case.floats.values())
    points = [T.cos(w * 3) for w in wrt]

    def products(graphs: Graphs) -> tuple[list[Variable], list[Variable]]:
        f = [v for v in graphs.results if v.type.is_float]
        forward = Rop(f, wrt, points, disconnected_outputs="ignore")
        weights = [T.cos(v) for v in f]
        back = Lop(f, wrt, weights, disconnected_inputs="ignore")
        sides = [
            sum(((a * b).sum() for a, b in zip(left, right)), T.constant(0.0))
            for left, right in ((forward, weights), (points, back))
        ]
        return forward, sides

    forward, sides = products(case.loop)
    plain, _ = products(case.unrolled())
    got = case.run(Graphs([*sides, *forward], case.loop.updates))
    assert_same(got[:1], got[1:2])
    want = case.plain(Graphs(plain, case.unrolled().updates))
    assert_same(got[2:], want)


# ---- random draws -------------------------------------------------------------------------------


@given(
    n=st.integers(0, 6), seed=st.integers(0, 2**32 - 1), size=st.integers(0, 5),
    law=st.sampled_from(["uniform", "normal", "binomial"]),
)  # fmt: skip
def test_draws_of_a_loop_are_the_draws_of_as_many_calls(
    device: str, n: int, seed: int, size: int, law: str
) -> None:
    def draws(rng: RandomStreams) -> list[Variable]:
        return [getattr(rng, law)(size=(size,)), rng.uniform(size=())]

    steps = T.lscalar("n")
    rows, updates = gpuscan.scan(lambda: draws(RandomStreams(seed)), n_steps=steps)
    loop = gpuscan.function([steps], rows, updates=updates, device=device)
    single = gpuscan.function([], draws(RandomStreams(seed)), device="reference")
    want = [single() for _ in range(2 * n)]
    for part in (want[:n], want[n:]):
        a, b = loop(n)
        assert a.shape == (n, size)
        assert b.shape == (n,)
        for i, (x, y) in enumerate(part):
            np.testing.assert_array_equal(a[i], x)
            np.testing.assert_array_equal(b[i], y)


# ---- what these have found ----------------------------------------------------------------------


def test_a_value_is_kept_for_a_branch_that_runs_late(device: str) -> None:
    x, c = T.dvector("x"), T.lscalar("c")
    y = T.exp(x)
    total = y.sum()  # stands behind sin(y) in the order of the nodes, and before the choice
    out = T.ifelse(T.gt(c, 0), T.sin(y), x * total) * total
    f = gpuscan.function([x, c], out, mode="FAST_COMPILE", device=device)
    v = np.array([0.1, 0.2])
    e = np.exp(v)
    np.testing.assert_allclose(f(v, 1), np.sin(e) * e.sum())
    np.testing.assert_allclose(f(v, 0), v * e.sum() ** 2)


def test_a_scalar_has_a_shape(device: str) -> None:
    x = T.dscalar("x")
    f = gpuscan.function([x], [x.shape, x], device=device)
    assert f(1.0)[0].shape == (0,)


def test_an_output_that_passes_a_state_on_is_truncated() -> None:
    x = T.dvector("x")
    out, _ = gpuscan.scan(
        lambda s: s, outputs_info=[{"initial": x, "taps": [-2]}], n_steps=3, truncate_gradient=2
    )
    g = gpuscan.function([x], grad((out * np.array([1.0, 2.0, 4.0])).sum(), x))
    # step 1 passes x[1] on; step 2 passes on what step 0 did, which does not contribute
    assert g([1.0, 1.0]).tolist() == [0.0, 2.0]


def test_the_last_row_of_a_comparison(device: str) -> None:
    x = T.dvector("x")
    rows, _ = gpuscan.scan(lambda v, s: [s + v, T.gt(s, 1)], x, [np.float64(0.5), None])
    f = gpuscan.function([x], rows[1][-1], device=device)
    assert [bool(f([1.0, 1.0])), bool(f([0.2, 1.0]))] == [True, False]


def test_what_a_step_does_not_read_is_not_read_before_the_loop(device: str) -> None:
    c, i, s, n = T.dvector("c"), T.lvector("i"), T.dscalar("s"), T.lscalar("n")
    zero = np.float64(0)
    guarded, _ = gpuscan.scan(lambda i: T.ifelse(T.lt(i, c.shape[0]), c[i], zero), i)
    branch, _ = gpuscan.scan(lambda s: T.ifelse(T.gt(s, 0), s + 1, c[5]), None, s, n_steps=3)
    never, _ = gpuscan.scan(lambda s: s + c[5], None, s, n_steps=n)
    until, _ = gpuscan.scan(lambda i, s: (s + c[i], gpuscan.until(T.ge(s, 2))), i, s)
    f = gpuscan.function([c, i, s, n], [guarded, branch, never, until], device=device)
    a, b, z, u = f([1.0, 2.0, 3.0], [0, 1, 7], 1.0, 0)
    assert (a.tolist(), b.tolist(), z.tolist()) == ([1, 2, 0], [2, 3, 4], [])
    assert u.tolist() == [2, 4]


def test_a_shared_state_that_takes_a_state_over_is_truncated() -> None:
    x, h = T.dscalar("x"), gpuscan.shared(np.float64(1))
    out, updates = gpuscan.scan(
        lambda s: (s * h, {h: s}), outputs_info=x, n_steps=3, truncate_gradient=1
    )
    # only the last step contributes, and it reads what earlier steps made
    g = gpuscan.function([x], grad(out.sum(), x), updates=updates)
    assert g(2.0) == 0.0
