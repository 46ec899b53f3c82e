"""What a step may hold and still be one C function: loops, branches, index arrays, softmax,
positions, running sums and stacks of products, each held to the reference."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from test_native import Built, agree, both, close, numbers, same

from gpuscan import function, scan, until
from gpuscan import tensor as T
from gpuscan.codegen import plan
from gpuscan.gradient import grad
from gpuscan.ops.softmax import softmax_along
from gpuscan.runtime import compiler
from gpuscan.tensor.random import RandomStreams
from gpuscan.types import TensorType

pytestmark = pytest.mark.skipif(
    compiler.find() is None, reason="no C compiler: set CC, or install gcc or clang"
)

# ---- loops in the step --------------------------------------------------------------------------


def over_rows(n: Any = None) -> Built:
    """Over the rows of a row, with a state that starts from the outer loop's."""
    x, s0 = T.tensor3(), T.vector()

    def step(x: Any, s: Any) -> Any:
        inner, _ = scan(lambda x, a, s: T.tanh(x + 0.5 * a) - s, [x], [s], [s], n_steps=n)
        return 0.5 * s + inner[-1], inner, inner.max(axis=0)

    values, _ = scan(step, [x], [s0, None, None])
    return [x, s0], values, None, [numbers(4, 3, 5), numbers(5)]


def of_scalars() -> Built:
    x, s0, n = T.vector(), T.scalar(), T.lscalar()

    def step(x: Any, s: Any) -> Any:
        inner, _ = scan(lambda a, x: 0.75 * a + x, outputs_info=[s], non_sequences=[x], n_steps=n)
        return inner[-1], inner

    values, _ = scan(step, [x], [s0, None])
    return [x, s0, n], values, None, [numbers(6), 0.5, 4]


def as_many_as_the_step_says() -> Built:
    """Also none at all, where the initial value is the result."""
    k, s0 = T.lvector(), T.vector()

    def step(k: Any, s: Any) -> Any:
        v, _ = scan(lambda a: a * 1.25 + 1, outputs_info=[s], n_steps=k)
        swapped, _ = scan(lambda a, b: (b, a * 0.5), outputs_info=[s, v[-1]], n_steps=k + 1)
        return v[-1] - swapped[0][-1] * 0.25, swapped[1][-1]

    values, _ = scan(step, [k], [s0, None])
    return [k, s0], values, None, [np.array([3, 1, 2, 5]), numbers(4)]


def ragged(product: bool = False) -> Built:
    """Rows up to a length that the step knows: what is batched over them has as many."""
    n, x, w, s0 = T.lvector(), T.tensor3(), T.matrix(), T.vector()

    def step(n: Any, x: Any, s: Any, w: Any) -> Any:
        def inner(x: Any, a: Any, w: Any) -> Any:
            return 0.5 * a + (x @ w if product else T.tanh(x) * w[0])

        rows, _ = scan(inner, [x], [s], [w], n_steps=n)
        return T.ifelse(T.gt(n, 0), rows[-1], s), rows.sum(axis=0), (rows * rows).max(axis=1).sum()

    values, _ = scan(step, [n, x], [s0, None, None], [w])
    return [n, x, w, s0], values, None, [
        np.array([2, 0, 4, 1]), numbers(4, 4, 3), numbers(3, 3), numbers(3),
    ]  # fmt: skip


def counted() -> Built:
    x, s0 = T.matrix(), T.vector()

    def step(x: Any, s: Any) -> Any:
        def inner(a: Any, k: Any) -> Any:
            return [a * 0.5, k + 1], until(abs(a).sum() < 0.1)

        (a, k), _ = scan(inner, outputs_info=[x + s, T.constant(0)], n_steps=20)
        return T.exp(a).sum(axis=0) - a[0], k[-1], T.cumsum(a * a, axis=0)[-1]

    values, _ = scan(step, [x], [s0, None, None])
    return [x, s0], values, None, [numbers(5, 3), numbers(3)]


def delay_lines() -> Built:
    x, s0 = T.tensor3(), T.matrix()

    def step(x: Any, s: Any) -> Any:
        inner, _ = scan(
            lambda before, now, one, three: now * one - 0.5 * three + before,
            [{"input": x, "taps": [-1, 0]}],
            [{"initial": s, "taps": [-1, -3]}],
            go_backwards=True,
        )
        return inner[-3:], inner

    values, _ = scan(step, [x], [s0, None])
    return [x, s0], values, None, [numbers(3, 6, 2), numbers(3, 2)]


def stopped_inside() -> Built:
    x, s0 = T.vector(), T.vector()

    def step(x: Any, s: Any) -> Any:
        def inner(a: Any, k: Any, x: Any) -> Any:
            return [a * 1.5 + abs(x), 2 * k + 1], until(a.sum() > 20)

        (a, k), _ = scan(inner, outputs_info=[s, T.constant(0)], non_sequences=[x], n_steps=30)
        return a[-1] * 0.01, k[-1], a[-1]

    values, _ = scan(step, [x], [s0, None, None])
    return [x, s0], values, None, [numbers(5), numbers(3)]


def stopped_by_a_state() -> Built:
    """The step after the one that sets the flag is the last."""

    def run(x: Any, n: int) -> Any:
        def step(s: Any, done: Any) -> Any:
            return [s * 2, T.gt(s, 3)], until(done)

        return scan(step, outputs_info=[x, T.constant(np.bool_(False))], n_steps=n)[0][0]

    x = T.vector()
    inner, _ = scan(lambda x, s: 0.5 * s + run(x, 9)[-1], [x], [T.constant(np.float32(0))])
    return [x], [run(x[0], 20), inner], None, [abs(numbers(5)) + 0.25]


def draws_inside() -> Built:
    srng = RandomStreams(11)
    x = T.matrix()

    def step(x: Any) -> Any:
        def inner(a: Any) -> Any:
            return T.switch(srng.uniform(a.shape) < 0.5, a + srng.normal(a.shape), a * 0.5)

        found, updates = scan(inner, outputs_info=[x], n_steps=4)
        return found[-1], updates

    values, updates = scan(step, [x])
    return [x], [values], updates, [numbers(5, 7)]


def three_deep() -> Built:
    x, w = T.tensor4(), T.vector()

    def row(x: Any, s: Any, w: Any) -> Any:
        return scan(lambda x, a, w: T.sin(x * w) + 0.5 * a, [x], [s], [w])[0][-1]

    def block(x: Any, s: Any, w: Any) -> Any:
        return scan(row, [x], [s], [w])[0]

    def step(x: Any, s: Any, w: Any) -> Any:
        inner, _ = scan(lambda x, s, w: block(x, s, w)[-1], [x], [s], [w])
        return inner[-1], inner

    values, _ = scan(step, [x], [T.zeros_like(w), None], [w])
    x5 = numbers(2, 3, 2, 4)
    return [x, w], values, None, [x5, numbers(4)]


def equal_bodies() -> Built:
    """Equal steps are one object: here one inside the other, and two side by side."""
    x = T.matrix()

    def total(x: Any, s: Any) -> Any:
        return scan(lambda x, s: 0.5 * s + x, [x], [s])[0][-1]

    def step(x: Any, s: Any) -> Any:
        return total(x, s) - total(x[::-1], total(x, s))

    s, _ = scan(step, [x], [T.constant(np.float32(0.25))])
    both_, _ = scan(lambda x, s: 0.5 * s + x, [x[:, 0]], [s[-1]])
    return [x], [s, both_], None, [numbers(4, 5)]


def passed_through() -> Built:
    """Traces of what the loop is given, and of constants."""
    x, s0 = T.tensor3(), T.vector()

    def step(x: Any, s: Any) -> Any:
        def inner(x: Any, a: Any, s: Any) -> Any:
            return 0.5 * a + x, x, s, a, T.constant(np.float32(3))

        (a, *rest), _ = scan(inner, [x], [s, None, None, None, None], [s])
        return a[-1], *rest

    values, _ = scan(step, [x], [s0, None, None, None, None])
    return [x, s0], values, None, [numbers(3, 4, 2), numbers(2)]


def attention() -> Built:
    """A loop over queries in a loop over time, with products in both."""
    x, w, h0 = T.matrix(), T.matrix(), T.matrix()

    def step(x: Any, h: Any, w: Any) -> Any:
        keys = h @ w

        def query(q: Any, keys: Any, h: Any, w: Any) -> Any:
            return T.nnet.softmax(keys @ (q @ w))[0] @ h

        read, _ = scan(query, [h], non_sequences=[keys, h, w])
        return T.tanh(read + x)

    h, _ = scan(step, [x], [h0], [w])
    return [x, w, h0], [h], None, [numbers(4, 6), numbers(6, 6), numbers(5, 6)]


def nested_gradients() -> Built:
    x, w, s0 = T.tensor3(), T.matrix(), T.vector()

    def step(x: Any, s: Any, w: Any) -> Any:
        return scan(lambda x, a, w: T.tanh(x + a @ w), [x], [s], [w])[0][-1]

    s, _ = scan(step, [x], [s0], [w])
    cost = (s**2).sum()
    return [x, w, s0], [cost, *grad(cost, [x, w, s0])], None, [
        numbers(3, 4, 5), numbers(5, 5), numbers(5),
    ]  # fmt: skip


# ---- branches -----------------------------------------------------------------------------------


def choices() -> Built:
    k, x, s0 = T.lvector(), T.matrix(), T.vector()

    def step(k: Any, s: Any, x: Any) -> Any:
        read = T.ifelse(T.lt(k, x.shape[0]), x[k], T.zeros_like(s))  # no row 7
        much = T.ifelse(T.gt(s.sum(), 0), T.exp(-s * s).max(), s[0])
        loop = T.ifelse(
            T.eq(k % 2, 0), scan(lambda a: a * 0.5 + 1, outputs_info=[s], n_steps=3)[0][-1], s
        )
        return read + 0.5 * loop, much, T.ifelse(T.gt(much, 0.5), s, read)

    values, _ = scan(step, [k], [s0, None, None], [x])
    return [k, x, s0], values, None, [np.array([2, 0, 7, -1, 1]), numbers(3, 4), numbers(4)]


def choices_in_choices() -> Built:
    x, s0 = T.vector(), T.scalar()

    def step(x: Any, s: Any) -> Any:
        small = T.ifelse(T.lt(x, 0), T.sin(s) + x, T.cos(s))
        both_ = T.exp(-x * x)
        return T.ifelse(T.lt(s, 0.3), small * both_, T.tanh(s) - both_) + 0.1 * both_

    s, _ = scan(step, [x], [s0])
    return [x, s0], [s], None, [numbers(40), 0.2]


# ---- index arrays -------------------------------------------------------------------------------


def embeddings() -> Built:
    i, table, h0 = T.lmatrix(), T.matrix(), T.matrix()

    def step(i: Any, h: Any, table: Any) -> Any:
        e = table[i]
        return 0.5 * h + e, table[i[::-1], i], table.T[:, i], e[:, i[0] % 2]

    values, _ = scan(step, [i], [h0, None, None, None], [table])
    positions = np.array([[0, 2, -1], [1, 1, -5], [4, 3, 0]])
    return [i, table, h0], values, None, [positions, numbers(5, 5), numbers(3, 5)]


def picked() -> Built:
    """The element of each row that a label names, and matrices of positions."""
    y, p0, q = T.imatrix(), T.matrix(), TensorType("int8", (None, None))()

    def step(y: Any, p: Any, q: Any) -> Any:
        rows = T.arange(p.shape[0])
        return 0.5 * p + p[rows, y][:, None], p[:, q], p[q, None, y % 2]

    values, _ = scan(step, [y], [p0, None, None], [q])
    labels = np.array([[0, 3], [-4, 1], [2, 2]], "int32")
    return [y, p0, q], values, None, [labels, numbers(2, 4), np.array([[1, 0], [-1, 1]], "int8")]


def scattered() -> Built:
    i, x, s0 = T.lmatrix(), T.tensor3(), T.matrix()

    def step(i: Any, x: Any, s: Any) -> Any:
        added = T.inc_subtensor(s[i], x)
        put = T.set_subtensor(s[i, i[::-1] % 3], x[:, 0])
        columns = T.inc_subtensor(s[:, i % 3], 0.5)
        return 0.5 * added, put, columns

    values, _ = scan(step, [i, x], [s0, None, None])
    positions = np.array([[0, 2, 0], [1, 1, -1], [-4, 3, 0]])  # the same ones several times
    return [i, x, s0], values, None, [positions, numbers(3, 3, 3), numbers(4, 3)]


def written_at_symbolic_places() -> Built:
    k, s0, n = T.lvector(), T.vector(), T.lscalar()

    def step(k: Any, s: Any, n: Any) -> Any:
        one = T.inc_subtensor(s[k], 1.0)
        front = T.set_subtensor(one[:n], 0.25)
        back = T.inc_subtensor(front[-n:], front[1])
        every = T.set_subtensor(back[1:-1:2], -back[0])
        return T.inc_subtensor(every[::-1], s) * 0.5, s[n:], s[n - 4 : n]

    values, _ = scan(step, [k], [s0, None, None], [n])
    return [k, s0, n], values, None, [np.array([0, -1, 3, 6]), numbers(7), 2]


# ---- rows of other rows -------------------------------------------------------------------------


def softened() -> Built:
    x, s0 = T.tensor3(), T.matrix()

    def step(x: Any, s: Any) -> Any:
        p = T.nnet.softmax(x + s)
        q = T.nnet.logsoftmax(4 * x - p)
        return 0.5 * s + p, q, softmax_along(q, 0), T.nnet.softmax(q[0] * 30)

    values, _ = scan(step, [x], [s0, None, None, None])
    return [x, s0], values, None, [numbers(4, 3, 70), numbers(3, 70)]


def positions() -> Built:
    x, k, s0 = T.tensor3(), T.ltensor3(), T.matrix()

    def step(x: Any, k: Any, s: Any) -> Any:
        x = x + 0.5 * s
        k = k + T.argmax(x)
        return (
            T.switch(T.isnan(x), 1, x) + x[0, T.argmax(x[0])], T.argmax(x, axis=1),
            T.argmin(x, axis=0), T.argmin(x), T.argmax(k + 1, axis=0), T.argmin(T.gt(x, 0), axis=1),
        )  # fmt: skip

    values, _ = scan(step, [x, k], [s0, *[None] * 5])
    a = numbers(4, 3, 5)
    a[1, 1, 2:4] = np.nan
    a[2] = 0.5
    return (
        [x, k, s0],
        values,
        None,
        [a, numbers(4, 3, 5, dtype="int64"), np.zeros((3, 5), "float32")],
    )


def running_sums() -> Built:
    x, s0, k0 = T.tensor3(), T.matrix(), T.lmatrix()

    def step(x: Any, s: Any, k: Any) -> Any:
        s = T.cumsum(0.5 * s, axis=0) + x
        return s, T.cumsum(k, axis=1) % 1000, T.cumsum(-s, axis=1), T.cumprod(s, 1), T.cumsum(k)

    values, _ = scan(step, [x], [s0, k0, None, None, None])
    return [x, s0, k0], values, None, [
        numbers(3, 4, 5), numbers(4, 5), numbers(4, 5, dtype="int64"),
    ]  # fmt: skip


def integer_products() -> Built:
    a, b, v0 = T.ltensor3(), TensorType("int8", (None, None))(), T.lvector()

    def step(a: Any, v: Any, b: Any) -> Any:
        return (a @ v) % 1000003, v.dot(v), a @ a, b @ b, T.gt(a, 0) @ T.gt(a, 1)

    values, _ = scan(step, [a], [v0, None, None, None, None], [b])
    big = 2**40 * numbers(3, 4, 4, dtype="int64")
    return (
        [a, b, v0],
        values,
        None,
        [big, 9 * numbers(3, 3, dtype="int8"), numbers(4, dtype="int64")],
    )


def stacks_of_products() -> Built:
    x, s0 = TensorType("float32", (None,) * 4)(), T.tensor3()

    def step(x: Any, s: Any) -> Any:
        return T.tanh(T.batched_dot(x, s)), T.batched_dot(s, s[:, 0])

    values, _ = scan(step, [x], [s0, None])
    return [x, s0], values, None, [numbers(3, 2, 4, 4), numbers(2, 4, 4)]


def classifier() -> Built:
    """The loss of a step by labels, and its gradients."""
    x, y, w, h0 = T.tensor3(), T.lmatrix(), T.matrix(), T.matrix()

    def step(x: Any, y: Any, h: Any, loss: Any, w: Any) -> Any:
        h = T.tanh(x + h @ w)
        p = T.nnet.softmax(h)
        return h, loss + T.nnet.categorical_crossentropy(p, y).mean()

    (_, loss), _ = scan(step, [x, y], [h0, T.constant(np.float32(0))], [w])
    cost = loss[-1]
    labels = np.random.default_rng(0).integers(0, 6, (5, 4))
    return [x, y, w, h0], [cost, *grad(cost, [x, w, h0])], None, [
        numbers(5, 4, 6), labels, numbers(6, 6), numbers(4, 6),
    ]  # fmt: skip


EXACT = (
    over_rows, lambda: over_rows(2), lambda: over_rows(1), of_scalars, as_many_as_the_step_says,
    ragged, counted, delay_lines, stopped_inside, stopped_by_a_state, three_deep, equal_bodies,
    passed_through, choices, choices_in_choices, embeddings, picked, scattered,
    written_at_symbolic_places, softened, positions, running_sums, integer_products,
    # equal inner loops are one object, with a note of the other build's random states
    pytest.param(draws_inside, marks=pytest.mark.filterwarnings("ignore:.*a scan updates")),
)  # fmt: skip
CONTRACTED = (attention, lambda: ragged(True), nested_gradients, stacks_of_products, classifier)


@pytest.mark.parametrize("case", EXACT)
def test_the_step_is_one_c_function_with_the_references_bits(case: Callable[[], Built]) -> None:
    got, wanted, plans = both(case)
    assert {p.path for p in plans.scans} == {"fused"}, str(plans)
    same(got, wanted)


@pytest.mark.parametrize("case", CONTRACTED)
def test_steps_with_products_are_the_references(case: Callable[[], Built]) -> None:
    got, wanted, plans = both(case, calls=1)
    assert {p.path for p in plans.scans} == {"fused"}, str(plans)
    close(got, wanted)


# ---- what goes wrong inside ---------------------------------------------------------------------


def pair(build: Callable[[], tuple[list[Any], Any]]) -> tuple[Any, Any]:
    """A loop on both devices, fused on the native one."""
    inputs, output = build()
    f = function(inputs, output, device="native")
    assert {p.path for p in f.explain().scans} == {"fused"}, str(f.explain())
    return f, function(inputs, output, device="reference")


def inner_loop() -> tuple[list[Any], Any]:
    """n rows of x in each step, whose position is looked up in a table."""
    n, i, x, table = T.lvector(), T.lmatrix(), T.tensor3(), T.matrix()

    def step(n: Any, i: Any, x: Any, s: Any, table: Any) -> Any:
        inner, _ = scan(
            lambda i, x, a, table: 0.5 * a + x * table[i], [i, x], [s], [table], n_steps=n
        )
        return T.ifelse(T.gt(n, 0), inner[-1], s)

    return [n, i, x, table], scan(step, [n, i, x], [table[0]], [table])[0]


def test_what_goes_wrong_in_an_inner_loop_is_the_references_error() -> None:
    loops = pair(inner_loop)
    n, i = np.array([2, 3]), np.array([[0, 1, -4], [3, 2, 1]])
    x, table = numbers(2, 3, 5), numbers(4, 5)
    agree(loops, n, i, x, table)
    agree(loops, np.array([0, 1]), i, x, table)
    agree(loops, np.array([2, 4]), i, x, table)  # a sequence is too short
    agree(loops, np.array([-1, 1]), i, x, table)
    agree(loops, n, np.array([[0, 1, 9], [0, 1, 4]]), x, table)  # no row 4
    agree(loops, np.array([2, 2]), np.array([[0, 1, 9], [0, 1, 4]]), x, table)  # not read
    agree(loops, n, i, numbers(2, 3, 4), table)
    agree(loops, n, i, numbers(2, 3, 0), numbers(4, 0))


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_inner_loops_of_every_length(rows: int) -> None:
    def build() -> tuple[list[Any], Any]:
        x, s0 = T.tensor3(), T.vector()

        def step(x: Any, s: Any) -> Any:
            inner, _ = scan(lambda x, a: 0.5 * a + x, [x], [s])
            return inner.sum(axis=0) + s, inner

        return [x, s0], scan(step, [x], [s0, None])[0]

    loops = pair(build)
    agree(loops, numbers(4, rows, 3), numbers(3))
    agree(loops, numbers(0, rows, 3), numbers(3))
    agree(loops, numbers(4, rows, 0), numbers(0))
    agree(loops, numbers(4, rows, 3), numbers(2))


def looked_up() -> tuple[list[Any], Any]:
    i, j, x, y = T.lmatrix(), T.lvector(), T.matrix(), T.matrix()

    def step(i: Any, s: Any, j: Any, y: Any) -> Any:
        s = T.inc_subtensor(s[i], y)
        return s * 0.5, s[i, j], T.set_subtensor(s[:, j], 1.0), T.argmax(s, axis=0)

    values, _ = scan(step, [i], [x, None, None, None], [j, y])
    return [i, j, x, y], values


def test_positions_out_of_range_and_sizes_that_do_not_fit_are_the_references_errors() -> None:
    loops = pair(looked_up)
    i, j = np.array([[0, -3], [2, 2]]), np.array([3, -1])
    x, y = numbers(3, 4), numbers(2, 4)
    agree(loops, i, j, x, y)
    agree(loops, np.array([[0, -3], [2, 3]]), j, x, y)
    agree(loops, np.array([[0, -4], [2, 2]]), j, x, y)
    agree(loops, i, np.array([4, 0]), x, y)
    agree(loops, i, np.array([0, 1, 2]), x, y)
    agree(loops, i, j, x, numbers(1, 4))
    agree(loops, i, j, x, numbers(2, 3))
    agree(loops, np.zeros((2, 0), "int64"), np.zeros(0, "int64"), x, numbers(0, 4))
    agree(loops, np.zeros((2, 0), "int64"), np.zeros(0, "int64"), numbers(0, 4), numbers(0, 4))
    agree(loops, i, j, numbers(0, 4), y)


def test_a_branch_that_is_not_taken_may_be_wrong() -> None:
    def build() -> tuple[list[Any], Any]:
        k, x, i = T.lvector(), T.vector(), T.lvector()

        def step(k: Any, s: Any, x: Any, i: Any) -> Any:
            inner, _ = scan(lambda j, a, x: a + x[j], [i], [s], [x], n_steps=k)
            return T.ifelse(T.gt(k, 0), inner[-1], T.exp(x[k] - s))

        return [k, x, i], scan(step, [k], [T.constant(np.float32(0))], [x, i])[0]

    loops = pair(build)
    i = np.array([0, 1, 9])
    agree(loops, np.array([2, -1, 1]), numbers(3), i)
    agree(loops, np.array([3, -1, 1]), numbers(3), i)
    agree(loops, np.array([2, -5, 1]), numbers(3), i)


def test_what_is_cast_and_cast_back_is_rounded() -> None:
    """Of a few elements gcc 12 makes a vector, and leaves out both casts of that."""
    h, n = T.dvector("h"), T.iscalar("n")
    ones, divisor = T.constant(np.ones((2, 3), "float32")), T.constant(np.full((2, 3), 2.0625))

    def step(h: Any) -> Any:
        chosen = T.ifelse(T.constant(False), ones, T.cast(h / divisor, "float32"))
        return T.cast(chosen, "float64"), T.tanh(h)

    rows, _ = scan(step, None, [None, h], n_steps=n)
    f, g = (function([h, n], rows, device=d) for d in ("native", "reference"))
    for steps in (1, 2, 7):
        found = f([0.1, -0.7, 1 / 3], steps)
        np.testing.assert_array_equal(found[0], g([0.1, -0.7, 1 / 3], steps)[0])
        np.testing.assert_array_equal(found[0].astype("float32"), found[0])


# ---- deep steps ---------------------------------------------------------------------------------


def chain(ops: int, shape: tuple[int, ...]) -> Built:
    x, y = TensorType("float32", (None,) * len(shape))("x"), T.scalar("y")

    def step(x: Any, y: Any) -> Any:
        for _ in range(ops // 2):
            x = x * 0.75 + y
        return x

    values, _ = scan(step, outputs_info=[x], non_sequences=[y], n_steps=3)
    return [x, y], values[-1], None, [numbers(*shape), np.float32(0.25)]


@pytest.mark.parametrize("shape", [(5,), (3, 4), ()])
def test_a_step_of_a_long_chain_is_one_loop_however_deep_its_caller_stands(
    shape: tuple[int, ...],
) -> None:
    inputs, values, _, given = chain(600, shape)
    limit = sys.getrecursionlimit()

    def built(depth: int) -> Any:
        return built(depth - 1) if depth else function(inputs, values, device="native")

    room = limit - len(inspect.stack(0)) - 250
    for f in (built(0), built(room)):
        assert f.explain().scans[0].path == "fused"
    assert sys.getrecursionlimit() == limit
    np.testing.assert_array_equal(f(*given), function(inputs, values, device="reference")(*given))


def test_two_threads_lower_long_chains_at_once() -> None:
    limit = sys.getrecursionlimit()
    with ThreadPoolExecutor(3) as threads:
        made = [threads.submit(lambda n=n: function(*chain(n, (4,))[:2], device="native"))
                for n in (600, 602, 604, 606)]  # fmt: skip
    assert [f.result().explain().scans[0].path for f in made] == ["fused"] * 4
    assert sys.getrecursionlimit() == limit


def test_a_chain_that_is_too_long_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_FRAMES", 1000)
    inputs, values, _, given = chain(1000, (5,))
    f = function(inputs, values, device="native")
    (how,) = f.explain().scans
    reason = "the step is too deep: a chain of too many ops"
    assert (how.path, how.reason) == ("interpreted", reason)
    with pytest.raises(plan.NotLowered, match="can't be fused: the step is too deep"):
        function(inputs, values, device="native", fuse="always")


def test_a_bound_that_is_a_size_counts_from_the_front(texts: list[str]) -> None:
    """It is not asked for its sign, and gcc makes no loop for either."""
    x, h = T.matrix("x"), T.vector("h")
    n = h.shape[0]

    def step(x: Any, h: Any) -> Any:
        gate, value = T.nnet.sigmoid(x[:n]), T.tanh(x[n : 2 * n])
        return gate * h + (1 - gate) * value

    values, _ = scan(step, [x], [h])
    outputs = [values, *T.grad(values.sum(), [x, h])]
    f, expected = (function([x, h], outputs, device=d) for d in ("native", "reference"))
    assert not any("< 0" in t for t in texts if "loop_0" in t)
    for found, wanted in zip(f(numbers(5, 9), numbers(3)), expected(numbers(5, 9), numbers(3))):
        np.testing.assert_array_equal(found, wanted)


def test_a_chain_of_many_functions_is_cut_into_nests(
    texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time that a C compiler takes for one nest of them grows with their square."""
    monkeypatch.setattr(plan, "_MOST_FUNCTIONS", 5)
    x = T.vector("x")

    def step(x: Any) -> Any:
        for _ in range(12):
            x = T.tanh(x * 0.75)
        return x

    values, _ = scan(step, outputs_info=[x], n_steps=3)
    f, expected = (function([x], values, device=d) for d in ("native", "reference"))
    (text,) = [t for t in texts if "loop_0" in t]
    functions = [nest.count("gs_tanh") for nest in text.split("for (long long i")[1:]]
    assert [n for n in functions if n] == [5, 5, 2]
    np.testing.assert_array_equal(f(numbers(7)), expected(numbers(7)))


@pytest.mark.parametrize(
    ("again", "nests"), [(False, [["tanh"], ["exp", "tanh"]]), (True, [["tanh", "exp", "tanh"]])]
)
def test_a_function_that_waits_for_another_state_is_in_a_nest_behind_it(
    again: bool, nests: list[list[str]], texts: list[str]
) -> None:
    """But not where both nests would have to compute a function."""
    x, c, h = T.matrix("x"), T.vector("c"), T.vector("h")

    def step(x: Any, c: Any, h: Any) -> Any:
        gate, new = T.exp(-abs(h)), T.tanh(x + h)
        c = 0.5 * c + (gate * new if again else new)
        return c, gate * T.tanh(c)

    states, _ = scan(step, [x], [c, h])
    f, expected = (function([x, c, h], states, device=d) for d in ("native", "reference"))
    (text,) = [t for t in texts if "loop_0" in t]
    found = [re.findall(r"gs_(tanh|exp)", nest) for nest in text.split("for (long long i")[1:]]
    assert [sorted(x) for x in found if x] == [sorted(x) for x in nests]
    given = numbers(5, 9), numbers(9), numbers(9)
    for a, b in zip(f(*given), expected(*given)):
        np.testing.assert_array_equal(a, b)
