"""Products of sequences that are computed in the loop which reads them, and joins whose parts are
computed where they stand: what stands where, held to the reference."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from test_native import agree, numbers
from test_native_units import by_threads, equal

from gpuscan import config, function, scan, until
from gpuscan import tensor as T
from gpuscan.runtime import compiler, products, threads
from gpuscan.types import TensorType

pytestmark = pytest.mark.skipif(
    compiler.find() is None, reason="no C compiler: set CC, or install gcc or clang"
)

X, H, W, U, V = T.tensor3("x"), T.matrix("h"), T.matrix("W"), T.matrix("U"), T.matrix("V")
M, H0 = T.matrix("m"), T.vector("h0")


@contextmanager
def watched() -> Iterator[tuple[list[str], list[Any]]]:
    """The sources that are built, and the shapes of the products outside of loops."""
    sources: list[str] = []
    shapes: list[Any] = []
    library, product = compiler.library, products._product

    def built(source: str, *more: Any) -> Any:
        sources.append(source)
        return library(source, *more)

    def multiplied(kernel: Any, elements: int, a: Any, b: Any) -> Any:
        shapes.append((a.shape, b.shape))
        return product(kernel, elements, a, b)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "library", built)
        patch.setattr(products, "_product", multiplied)
        yield sources, shapes


def runs(inputs: Any, outputs: Any, *values: Any, mode: Any = None) -> tuple[int, int]:
    """How many products stand inside of loops, computed ahead, and how many outside; the results
    are the reference's."""
    with watched() as (sources, shapes):
        f = function(inputs, outputs, device="native", mode=mode)
        inside = sum(s.count(f"gs_gemm_steps_{t}(") for s in sources for t in ("f32", "f64"))
        assert {p.path for p in f.explain().scans} == {"fused"}, f.explain()
        agree((f, function(inputs, outputs, device="reference", mode=mode)), *values)
        return inside, len(shapes)


def lstm(x: Any, n: int, z_of: Callable[[Any], Any] = lambda x: x) -> Any:
    def step(x: Any, h: Any, c: Any, U: Any) -> Any:
        z = z_of(x) + h @ U
        i, f, o, g = (z[:, k * n : (k + 1) * n] for k in range(4))
        c = T.sigmoid(f) * c + T.sigmoid(i) * T.tanh(g)
        return T.sigmoid(o) * T.tanh(c), c

    return scan(step, x, [H, T.zeros_like(H)], U)[0][0]


def elman(z: Any, **arguments: Any) -> Any:
    return scan(lambda z, h, U: T.tanh(z + h @ U), z, H, U, **arguments)[0]


def sizes(steps: int, batch: int, deep: int, wide: int, dtype: str = "float32") -> list[Any]:
    """x, h, W and U."""
    return [
        numbers(steps, batch, deep, dtype=dtype), numbers(batch, wide, dtype=dtype, seed=1),
        numbers(deep, wide, dtype=dtype, seed=2), numbers(wide, wide, dtype=dtype, seed=3) / 2,
    ]  # fmt: skip


# ---- where functions of a sequence stand ---------------------------------------------------------


def nests_and_loops(inputs: Any, outputs: Any, *values: Any) -> tuple[int, bool]:
    """How many kernels of functions stand outside of loops, and whether a loop computes a sine or
    a cosine; the results are the reference's."""
    with watched() as (sources, _):
        f = function(inputs, outputs, device="native")
        agree((f, function(inputs, outputs, device="reference")), *values)
    loops, *nests = "".join(sources).split("long long nest_")
    return sum("gs_" in nest for nest in nests), "gs_sin" in loops or "gs_cos" in loops


def from_sines(z: Any, **arguments: Any) -> Any:
    return scan(lambda z, h, U: T.tanh(z * h + h @ U), z, H, U, **arguments)[0]


@pytest.mark.parametrize("steps", [1, 2, 30])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("turned", [False, True])
def test_functions_of_a_sequence_are_computed_in_the_loop(
    steps: int, batch: int, turned: bool
) -> None:
    x, h, _, u = sizes(steps, batch, 5, 5)
    z = T.exp(T.sin(X[::-1] if turned else X) * 2) - 1
    assert nests_and_loops([X, H, U], [from_sines(z)], x, h, u) == (0, True)


def test_the_gradient_of_a_loop_computes_functions_of_its_states_itself() -> None:
    def step(x: Any, h: Any, c: Any, U: Any) -> Any:
        c = T.tanh(x + h @ U) * c + x
        return T.sin(c) * x, c

    hs = scan(step, X, [H, H], U)[0][0]
    x, h, _, u = sizes(30, 4, 5, 5)
    assert nests_and_loops([X, H, U], T.grad((hs * hs).sum(), [H, U]), x, h, u) == (0, True)


@pytest.mark.parametrize("others", ["result", "two sequences", "no product", "scalars"])
def test_functions_that_are_better_computed_before_the_loop(others: str) -> None:
    z = T.sin(X) * 2
    x, h, _, u = sizes(30, 4, 5, 5)
    outputs = {
        "result": lambda: [from_sines(z), z],
        "two sequences": lambda: [from_sines(z + X[::-1])],
        "no product": lambda: [scan(lambda z, h: T.tanh(z * h), z, H)[0] + U],
        "scalars": lambda: [scan(lambda z, s, U: T.tanh(z * s) + (z * U @ U).sum(), z[:, 0, 0],
                                 T.constant(np.float32(1)), U)[0] + H.sum()],
    }[others]()  # fmt: skip
    nests, inside = nests_and_loops([X, H, U], outputs, x, h, u)
    assert nests and not inside


def test_functions_inside_of_fewer_steps_and_of_too_few() -> None:
    z = T.sin(X) * 2
    x, h, _, u = sizes(30, 4, 5, 5)
    for n in (7, 30, 31):
        pair = tuple(function([X, H, U], from_sines(z, n_steps=n), device=d)
                     for d in ("native", "reference"))  # fmt: skip
        agree(pair, x, h, u)


# ---- where a product stands ---------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3, 40])
@pytest.mark.parametrize("written_inside", [False, True])
def test_an_lstm_has_no_product_outside_of_its_loop(batch: int, written_inside: bool) -> None:
    x, h, *_ = sizes(37, batch, 6, 5)
    w, u = numbers(6, 20), numbers(5, 20)
    y = lstm(X, 5, lambda x: x @ W) if written_inside else lstm(X @ W, 5)
    inside, outside = runs([X, H, W, U], [y], x, h, w, u)
    assert inside > 0
    assert outside == 0


@pytest.mark.parametrize("batch", [0, 1, 3, 40])
@pytest.mark.parametrize("steps", [0, 1, 15, 40])
def test_elman_of_any_sizes(batch: int, steps: int) -> None:
    assert runs([X, H, W, U], [elman(X @ W)], *sizes(steps, batch, 6, 5)) == (1, 0)


@pytest.mark.parametrize("shape", [(None, 4, 6), (None, None, 6), (None, 1, None), (9, 4, None)])
def test_sizes_that_the_type_says(shape: Any) -> None:
    x = TensorType("float32", shape)("x")
    batch = shape[1] or 4
    assert runs([x, H, W, U], [elman(x @ W)], *sizes(9, batch, 6, 5)) == (1, 0)


def test_float64() -> None:
    x, h, w, u = T.dtensor3(), T.dmatrix(), T.dmatrix(), T.dmatrix()
    y, _ = scan(lambda z, h, u: T.tanh(z + h @ u), x @ w, h, u)
    assert runs([x, h, w, u], [y], *sizes(20, 3, 6, 5, "float64")) == (1, 0)


def test_rows_that_are_vectors() -> None:
    y, _ = scan(lambda z, h, U: T.tanh(z + h @ U), M @ W, H0, U)
    _, _, w, u = sizes(1, 1, 6, 5)
    for steps in (1, 16, 50):
        assert runs([M, H0, W, U], [y], numbers(steps, 6), numbers(5), w, u) == (1, 0)


@pytest.mark.parametrize("others", ["result", "size", "other loop", "itself"])
def test_what_something_else_reads_too_stays_outside(others: str) -> None:
    z = X @ W
    outputs = {
        "result": lambda: [elman(z), z.sum()],
        "size": lambda: [elman(z), z * 2],
        "other loop": lambda: [elman(z), scan(lambda z, s: s + z, z, H, n_steps=5)[0]],
        "itself": lambda: [
            scan(lambda z, h, U, all: T.tanh(z + h @ U + all[-1] * h), z, H, [U, z])[0]
        ],
    }[others]()
    assert runs([X, H, W, U], outputs, *sizes(20, 4, 6, 5)) == (0, 1)


def test_a_slice_that_the_loop_reads_and_whose_ends_are_not_known_keeps_the_product_outside() -> (
    None
):
    k = T.lscalar("k")
    z = X @ W

    def step(a: Any, b: Any, h: Any) -> Any:
        return T.tanh(h + a + T.tanh(b * h.mean()).sum(axis=1)[:, None])

    y, _ = scan(step, [z[:, :, :5], z[:, :, k:]], H)
    x, h, *_ = sizes(20, 4, 6, 5)
    for first in (0, 5, 8, -3):
        assert runs([X, H, W, k], [y], x, h, numbers(6, 11), first) == (0, 1)


def test_parts_of_a_product_are_products_with_parts_of_its_columns() -> None:
    z = X @ W
    parts = [z[:, :, :5], z[:, :, 5:10], z[:, :, -5:], z[:, :, 20:30]]
    y, _ = scan(
        lambda a, b, c, d, h: T.tanh(h * a + h * h * b) * c + T.tanh(d * h.sum()).sum(), parts, H
    )
    x, h, *_ = sizes(20, 4, 6, 5)
    inside, outside = runs([X, H, W], [y], x, h, numbers(6, 13))
    assert inside >= 3
    assert outside == 0


def test_a_weight_of_two_sequences_and_a_sequence_of_two_weights() -> None:
    x2, w2 = T.tensor3("x2"), T.matrix("w2")
    y, _ = scan(lambda a, b, c, h: T.tanh(a * h) + T.sin(b * h) * c, [X @ W, x2 @ W, X @ w2], H)
    x, h, w, _ = sizes(30, 3, 6, 5)
    for rows in (30, 17):
        given = x, x[:rows] * 2, h, w, w[::-1]
        inside, outside = runs([X, x2, H, W, w2], [y], *given)
        assert (inside, outside) == (3, 0)


def test_a_transposed_weight_and_one_that_is_a_constant() -> None:
    x, h, w, u = sizes(30, 3, 6, 5)
    assert runs([X, H, W, U], [elman(X @ W.T)], x, h, w.T, u) == (1, 0)
    assert runs([X, H, U], [elman(X @ T.constant(w))], x, h, u) == (1, 0)


# ---- which steps --------------------------------------------------------------------------------


def test_fewer_steps_than_rows_and_more() -> None:
    n = T.lscalar("n")
    y = elman(X @ W, n_steps=n)
    for steps in (0, 1, 7, 19, 20, 21, -1):
        assert runs([n, X, H, W, U], [y], steps, *sizes(20, 3, 6, 5)) == (1, 0)


def test_more_than_one_piece_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of lengths that no number of steps which are computed at once divides."""
    x, h, w, u = sizes(500, 3, 6, 5)
    f, g = (function([X, H, W, U], [elman(X @ W)], device=d) for d in ("native", "reference"))
    run, lengths = threads.run, itertools.cycle([1, 4, 7, 2])
    pieces = []

    def cut(kernel: int, shares: threads.Shares, ends: bytes, arrays: Any) -> int:
        t, last = struct.unpack_from("2q", ends)
        while t < last:
            end = min(last, t + next(lengths))
            pieces.append(run(kernel, shares, threads.packed((t, end)) * shares.count, arrays))
            t = end
        return last

    monkeypatch.setattr(threads, "run", cut)
    agree((f, g), x, h, w, u)
    assert len(pieces) > 100


def test_backwards_and_with_taps() -> None:
    values = sizes(20, 3, 6, 5)
    inside, outside = runs([X, H, W, U], [elman(X @ W, go_backwards=True)], *values)
    assert inside + outside == 1
    y, _ = scan(
        lambda a, b, h, W, U: T.tanh(a @ W - b @ W + h @ U),
        {"input": X, "taps": [-2, 0]}, H, [W, U],
    )  # fmt: skip
    runs([X, H, W, U], [y], *values)


def test_a_loop_that_stops() -> None:
    y, _ = scan(lambda z, h, U: (T.tanh(z + h @ U), until(h.sum() > 1.5)), X @ W, H, U)
    assert runs([X, H, W, U], [y, y[-1]], *sizes(90, 3, 6, 5)) == (1, 0)


def test_a_product_in_a_loop_of_the_step_is_computed_there() -> None:
    """It may not run in the step in which products are computed for some steps."""
    k = T.lvector("k")

    def step(k: Any, x: Any, h: Any, W: Any) -> Any:
        a, _ = scan(lambda a, x, W: T.tanh(a + x @ W), None, h, [x, W], n_steps=k)
        return T.ifelse(k > 0, a[-1], h * 0.5)

    y, _ = scan(step, [k, X], H, W)
    runs([k, X, H, W], [y], np.array([0, 2, 1, 0, 3] * 6), *sizes(30, 1, 6, 5)[:3])


def test_a_product_in_a_branch_of_the_step_is_computed_there() -> None:
    y, _ = scan(lambda x, h, W, U: T.tanh(T.ifelse(h.sum() > 0, x @ W, h @ U)), X, H, [W, U])
    for mode in (None, "FAST_COMPILE"):
        inside, outside = runs([X, H, W, U], [y], *sizes(30, 1, 6, 5), mode=mode)
        assert (inside, outside) == (0, 0)


# ---- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shapes",
    [
        [(9, 4, 6), (4, 5), (7, 5), (5, 5)], [(9, 4, 6), (4, 5), (6, 4), (5, 5)],
        [(9, 4, 6), (4, 5), (6, 1), (5, 5)], [(9, 4, 6), (3, 5), (6, 5), (5, 5)],
        [(0, 4, 6), (4, 5), (7, 5), (5, 5)], [(9, 1, 6), (4, 5), (6, 5), (5, 5)],
        [(9, 0, 6), (0, 5), (7, 5), (5, 5)],
    ],
)  # fmt: skip
def test_operands_that_do_not_fit_raise_the_references_error(shapes: Any) -> None:
    y = elman(X @ W)
    pair = tuple(function([X, H, W, U], [y, y[-1]], device=d) for d in ("native", "reference"))
    values = [numbers(*s) for s in shapes]
    with pytest.raises(ValueError):
        pair[1](*values)
    agree(pair, *values)


def test_a_reshape_that_does_not_fit_is_not_left_out() -> None:
    """Where a program writes what the rules write: rows of all steps under one another."""
    k = T.lscalar("k")
    z = (X.reshape((k, X.shape[2])) @ W).reshape((X.shape[0], X.shape[1], W.shape[1]))
    x, h, w, u = sizes(3, 2, 6, 5)
    for rows in (6, 7, -1):
        runs([k, X, H, W, U], [elman(z)], rows, x, h, w, u)
    z = (X.reshape((-1, X.shape[2])) @ W).reshape((X.shape[0], X.shape[1], W.shape[1]))
    assert runs([X, H, W, U], [elman(z)], x, h, w, u) == (1, 0)
    flat = (X.reshape((6,)) @ W).reshape((2, 1, 5))
    y, _ = scan(lambda z, h: T.tanh(z + h), flat, H)
    runs([X, H, W], [y], x[:1, :1], h[:1], numbers(6, 10))


@pytest.mark.parametrize("says", [(8, None, None), (None, 3, None), (None, None, 4)])
@pytest.mark.parametrize("part", [False, True])
def test_what_specify_shape_says_of_a_product_is_checked(says: Any, part: bool) -> None:
    z = T.specify_shape(X @ W, says)
    y = elman(z[:, :, :3] if part else z)
    pair = tuple(function([X, H, W, U], [y], device=d) for d in ("native", "reference"))
    for steps, batch, wide in [(8, 3, 4), (9, 3, 4), (7, 3, 4), (8, 2, 4), (8, 3, 5), (8, 3, 3)]:
        x, h, w, u = sizes(steps, batch, 6, wide)
        agree(pair, x, *((h[:, :3], w, u[:3, :3]) if part else (h, w, u)))


# ---- joins --------------------------------------------------------------------------------------

Step = Callable[[Any, Any, Any, Any], Any]
JOINS: dict[str, Step] = {}


def join(step: Step) -> Step:
    """A step of x, h, W and V, of which V has twice as many rows."""
    JOINS[step.__name__] = step
    return step


@join
def a_part_twice(x: Any, h: Any, W: Any, V: Any) -> Any:
    y = T.tanh(h @ W + x)
    z = T.join(1, y, y)
    return T.tanh(z @ V), z * 2, z[:, ::-1]


@join
def a_constant_part(x: Any, h: Any, W: Any, V: Any) -> Any:
    z = T.join(1, T.zeros_like(h) + 0.5, T.tanh(h @ W + x), h[:, :1] * 0 + 1)
    return T.tanh(z[:, :-1] @ V), z, z * z


@join
def along_the_first_axis(x: Any, h: Any, W: Any, V: Any) -> Any:
    z = T.join(0, T.tanh(h @ W + x), h @ W, T.tanh(h)[:1] * 3)
    return T.tanh(z[: h.shape[0]] / 4 + z.mean(axis=0) / 4), z, (z * 2)[::-1]


@join
def products_as_parts(x: Any, h: Any, W: Any, V: Any) -> Any:
    z = T.join(1, h @ W, T.tanh(h @ W), x @ W)
    return T.tanh(z[:, h.shape[1] :] @ V), z.max(axis=1), z.T, T.join(1, z, z)


@join
def a_part_of_two(x: Any, h: Any, W: Any, V: Any) -> Any:
    y = T.tanh(x @ W + h)
    z, w = T.join(1, y, x @ W), T.join(1, y, T.exp(-y * y))
    return T.tanh(z @ V), w, z, y


@join
def nearly_the_whole(x: Any, h: Any, W: Any, V: Any) -> Any:
    y = T.tanh(x @ W + h)
    z, q = T.join(1, y), T.join(1, y, y[:, :0])
    return T.tanh(z @ W), q, q[:, ::-1] * 2, z[:, ::-1] * y


@join
def joins_of_joins(x: Any, h: Any, W: Any, V: Any) -> Any:
    y = T.tanh(x @ W + h)
    z = T.join(0, T.join(1, y * y, T.tanh(y)), T.join(1, T.sin(y), y))
    return y * 0.5, T.join(1, y, T.exp(y)), z, z * 2


@join
def in_a_branch(x: Any, h: Any, W: Any, V: Any) -> Any:
    y = T.tanh(h @ W + x)
    z = T.ifelse(h.sum() > 0, T.join(1, T.tanh(y @ W), y), T.join(1, y, T.sin(y @ W)))
    return T.tanh(z @ V), z


@pytest.mark.parametrize("mode", [None, "FAST_COMPILE"])
@pytest.mark.parametrize("step", JOINS)
def test_joins_are_the_references(step: str, mode: Any) -> None:
    values, _ = scan(JOINS[step], X, [H, *[None] * (len(JOINS[step](X[0], H, W, V)) - 1)], [W, V])
    outputs = [[*values], [v[-1] for v in values]]
    pairs = [
        [
            function([X, H, W, V], o, device=d, mode=mode, on_unused_input="ignore")
            for d in ("native", "reference")
        ]
        for o in outputs
    ]
    for batch, n in itertools.product((0, 1, 3), (1, 7)):
        given = (
            numbers(17, batch, n), numbers(batch, n), numbers(n, n) / n**0.5,
            numbers(2 * n, n) / n**0.5,
        )  # fmt: skip
        for pair in pairs:
            agree(tuple(pair), *given)


@pytest.mark.parametrize("step", [s for s in JOINS if s != "in_a_branch"])
@pytest.mark.parametrize("batch", [1, 4])
def test_joins_of_workers_that_share_units(step: str, batch: int) -> None:
    n = 150
    values, _ = scan(JOINS[step], X, [H, *[None] * (len(JOINS[step](X[0], H, W, V)) - 1)], [W, V])
    for outputs in ([*values], [v[-1] for v in values]):
        f = function([X, H, W, V], outputs, device="native", on_unused_input="ignore")
        given = numbers(30, batch, n), numbers(batch, n), numbers(n, n) / 12, numbers(300, n) / 17
        equal(by_threads(f, *given))


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("stops", [False, True])
def test_a_state_that_is_a_join_of_what_it_was(traced: bool, stops: bool) -> None:
    def step(h: Any, W: Any) -> Any:
        n = h.shape[0] // 2
        a, b = h[:n], h[n:]
        new = T.join(0, T.tanh(W @ b + a), T.tanh(a * 2 - b))
        return (new, until(a.sum() > 99)) if stops else new

    h, _ = scan(step, None, H0, W, n_steps=57)
    pair = tuple(
        function([H0, W], [h if traced else h[-1]], device=d) for d in ("native", "reference")
    )
    for n in (1, 4):
        agree(pair, numbers(2 * n), numbers(n, n) / n**0.5)


def test_a_join_of_a_size_that_the_step_computes() -> None:
    def step(x: Any, h: Any, W: Any) -> Any:
        a, _ = scan(lambda r, s: (T.tanh(r + s), until(r.sum() > 0.5)), x, h[0])
        z = T.join(0, T.tanh(a) * 2, x, T.exp(h @ W))
        return T.tanh(h + z.sum(axis=0)), z.sum()

    values, _ = scan(step, X, [H, None], W)
    pair = tuple(function([X, H, W], values, device=d) for d in ("native", "reference"))
    assert pair[0].explain().scans[-1].path == "fused"
    agree(pair, numbers(20, 4, 6), numbers(4, 6), numbers(6, 6) / 2)


def test_rows_that_threads_share() -> None:
    """Each has its rows of the products, and its part of the joins."""

    def step(x: Any, h: Any, W: Any, V: Any) -> Any:
        z = T.join(1, T.tanh(x @ W + h), T.exp(-h * h))
        return T.tanh(z @ V)

    h, _ = scan(step, X, H, [W, V])
    f = function([X, H, W, V], h, device="native")
    given = numbers(40, 700, 6), numbers(700, 6), numbers(6, 6), numbers(12, 6)
    found = []
    for count in (1, 2, 3):
        with config.change_flags(threads=count):
            found.append([f(*given)])
    equal(found)
