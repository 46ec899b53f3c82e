"""The native device gives what the reference gives: named models, hostile operands, threads,
interrupts and memory. (Made-up loops are held to it by test_properties.)"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from strategies import DERIVATIVES, Case, assert_same, cases

import gpuscan
from gpuscan import config, function, scan, shared, until
from gpuscan import tensor as T
from gpuscan.codegen.kernel import Call, Number
from gpuscan.codegen.plan import NotLowered
from gpuscan.codegen.render import C, Renderer
from gpuscan.gradient import grad
from gpuscan.ops.scalar import neg
from gpuscan.runtime import compiler, native, threads
from gpuscan.tensor.random import RandomStreams
from gpuscan.types import TensorType

pytestmark = pytest.mark.skipif(
    compiler.find() is None, reason="no C compiler: set CC, or install gcc or clang"
)

ROOT = Path(gpuscan.__file__).resolve().parents[1]

# A case: inputs, outputs, updates, and the inputs' values. Built anew for each device, because
# random states move on.
UNITS = 19
Built = tuple[list[Any], list[Any], Any, list[Any]]


def numbers(*shape: int, seed: int = 0, dtype: str = "float32") -> Any:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "i":
        return rng.integers(-9, 9, shape).astype(dtype)
    return rng.normal(0, 0.5, shape).astype(dtype)


# ---- models -------------------------------------------------------------------------------------


def elman(x: Any, h0: Any, u: Any, w: Any) -> Any:
    return scan(lambda x, h, w: T.tanh(x + h @ w), [x @ u], [h0], [w])[0]


def lstm(x: Any, h0: Any, u: Any, w: Any) -> Any:
    n = UNITS

    def step(a: Any, h: Any, c: Any, w: Any) -> Any:
        z = a + h @ w
        i, f, o, g = (z[:, k * n : (k + 1) * n] for k in range(4))
        c = T.sigmoid(f) * c + T.sigmoid(i) * T.tanh(g)
        return T.sigmoid(o) * T.tanh(c), c

    return scan(step, [x @ u], [h0, T.zeros_like(h0)], [w])[0][0]


def gru(x: Any, h0: Any, u: Any, w: Any) -> Any:
    n = UNITS

    def step(a: Any, h: Any, w: Any) -> Any:
        b = h @ w
        r = T.sigmoid(a[:, :n] + b[:, :n])
        z = T.sigmoid(a[:, n : 2 * n] + b[:, n : 2 * n])
        return (1 - z) * T.tanh(a[:, 2 * n :] + r * b[:, 2 * n :]) + z * h

    return scan(step, [x @ u], [h0], [w])[0]


def recurrent(model: Callable[..., Any], gates: int, with_gradients: bool) -> Built:
    x, h0 = T.tensor3("x"), T.matrix("h0")
    u, w = (TensorType("float32", (None, gates * UNITS))(name) for name in "uw")
    h = model(x, h0, u, w)
    outputs = [h]
    if with_gradients:
        outputs += grad((h**2).mean(), [x, h0, u, w])
    n = UNITS
    values = [numbers(7, 5, 6), numbers(5, n), numbers(6, gates * n), numbers(n, gates * n)]
    return [x, h0, u, w], outputs, None, values


def gibbs() -> Built:
    srng = RandomStreams(5)
    w, b, c, v0 = T.matrix(), T.vector(), T.vector(), T.matrix()

    def step(v: Any) -> Any:
        h = srng.uniform((v.shape[0], c.shape[0])) < T.sigmoid(v @ w + c)
        p = T.sigmoid(h.astype("float32") @ w.T + b)
        return (srng.uniform(v.shape) < p).astype("float32")

    v, updates = scan(step, outputs_info=[v0], n_steps=9)
    # sums of products of eighths are exact in any order: the bits can be compared
    eighths = [np.round(8 * numbers(*s)) / 8 for s in ((33, 17), (33,), (17,))]
    values = [*eighths, (numbers(6, 33, seed=1) > 0).astype("float32")]
    return [w, b, c, v0], [v], updates, values


def metropolis() -> Built:
    srng = RandomStreams(3)
    x0 = T.matrix()

    def density(x: Any) -> Any:
        return -(x[:, 0] ** 2) - 3 * (x[:, 1] - x[:, 0] ** 2) ** 2

    def step(x: Any) -> Any:
        new = x + srng.normal(x.shape) * 0.7
        accept = T.log(srng.uniform(x.shape[:1])) < density(new) - density(x)
        return T.switch(accept[:, None], new, x), accept

    (x, accepted), updates = scan(step, outputs_info=[x0, None], n_steps=20)
    return [x0], [x, accepted], updates, [numbers(13, 2)]


def draws() -> Built:
    srng = RandomStreams(8)
    n = T.lscalar()

    def step(s: Any) -> Any:
        u, z = srng.uniform((7,)), srng.normal((3, 2))
        b = srng.binomial(size=(5,), p=0.4)
        d = srng.uniform((3,), dtype="float64")
        return s + u[0], u, z, b, d

    values, updates = scan(step, outputs_info=[np.float32(0), None, None, None, None], n_steps=n)
    return [n], values, updates, [6]


def chain_of_scalars() -> Built:
    e, a, x0 = T.vector(), T.scalar(), T.scalar()
    x, _ = scan(lambda e, x, a: a * x + e, [e], [x0], [a])
    return [e, a, x0], [x], None, [numbers(200), 0.9, 0.5]


def taps() -> Built:
    e, x0 = T.matrix(), T.matrix()
    x, _ = scan(
        lambda e_1, e, one, three: T.tanh(e * one - 0.5 * three + e_1),
        [{"input": e, "taps": [-1, 0]}],
        [{"initial": x0, "taps": [-1, -3]}],
    )
    return [e, x0], [x], None, [numbers(9, 4), numbers(3, 4)]


def stopped() -> Built:
    x0 = T.vector()
    x, _ = scan(lambda x: (x * 1.5, until(x.sum() > 40)), outputs_info=[x0], n_steps=100)
    return [x0], [x, x[-1]], None, [np.ones(3, "float32")]


def masks() -> Built:
    x, m, h0 = T.tensor3(), T.matrix(), T.matrix()

    def step(x: Any, m: Any, h: Any) -> Any:
        new = T.tanh(x + 0.5 * h)
        return m[:, None] * new + (1 - m[:, None]) * h

    h, _ = scan(step, [x, m], [h0])
    lengths = np.array([6, 2, 0, 4])
    mask = (np.arange(6)[:, None] < lengths).astype("float32")
    return [x, m, h0], [h], None, [numbers(6, 4, 3), mask, numbers(4, 3)]


def written_into() -> Built:
    x, s0 = T.vector(), T.matrix()
    s, _ = scan(lambda x, s: T.inc_subtensor(T.set_subtensor(s[0], x)[:, 1], 2.0), [x], [s0])
    return [x, s0], [s], None, [numbers(4), numbers(3, 5)]


def gathered() -> Built:
    i, table, h0 = T.lvector(), T.matrix(), T.vector()
    h, _ = scan(lambda i, h, t: 0.5 * h + t[i], [i], [h0], [table])
    return [i, table, h0], [h], None, [np.array([2, 0, -1, 4, -5]), numbers(5, 3), numbers(3)]


def doubles() -> Built:
    x, h0 = T.dmatrix(), T.dvector()
    h, _ = scan(lambda x, h: T.exp(-h * h) + T.log1p(abs(x)) * T.sin(h), [x], [h0])
    return [x, h0], [h], None, [numbers(8, 5, dtype="float64"), numbers(5, dtype="float64")]


def integers() -> Built:
    x, a0, b0 = T.lvector(), T.lscalar(), T.ivector()

    def step(x: Any, a: Any, b: Any) -> Any:
        return (a * 6364136223846793005 + x) % 1000003, (b // 3 - b % 5 + 7).astype("int32"), a & x

    values, _ = scan(step, [x], [a0, b0, None])
    return [x, a0, b0], values, None, [numbers(30, dtype="int64"), 11, numbers(4, dtype="int32")]


def states_of_every_rank() -> Built:
    s0, v0, m0 = T.scalar(), T.vector(), T.matrix()

    def step(s: Any, v: Any, m: Any) -> Any:
        return 0.5 * s + 1, v * s + m[0], T.tanh(m + v[None, :] * s)

    values, _ = scan(step, outputs_info=[s0, v0, m0], n_steps=6)
    return [s0, v0, m0], values, None, [0.25, numbers(4), numbers(3, 4)]


def sums() -> Built:
    x, h0 = T.tensor3(), T.matrix()
    h, _ = scan(lambda x, h: T.tanh(x - h.mean(axis=0) + h.sum(axis=1, keepdims=True)), [x], [h0])
    return [x, h0], [h], None, [numbers(4, 5, 3), numbers(5, 3)]


def products_of_vectors() -> Built:
    w, h0 = T.matrix(), T.vector()
    h, _ = scan(lambda h, w: T.tanh(w @ h + h @ w * h.dot(h)), outputs_info=[h0],
                non_sequences=[w], n_steps=5)  # fmt: skip
    return [w, h0], [h], None, [numbers(23, 23), numbers(23)]


def swapped_states() -> Built:
    a0, b0, c0 = T.vector(), T.vector(), T.scalar()
    values, _ = scan(lambda a, b, c: (b, a, c + 1), outputs_info=[a0, b0, c0], n_steps=5)
    return [a0, b0, c0], values, None, [numbers(3), numbers(3, seed=1), 0.0]


EXACT = {
    f.__name__: f
    for f in (gibbs, metropolis, draws, chain_of_scalars, taps, stopped, masks, written_into,
              gathered, doubles, integers, states_of_every_rank, swapped_states)
}  # fmt: skip
# Contractions sum in another order. These are sums of fewer than 200 terms of about 1, through
# fewer than 10 steps: some hundred roundings of 6e-8.
CONTRACTED: dict[str, Callable[[], Built]] = {
    "elman": lambda: recurrent(elman, 1, False),
    "lstm": lambda: recurrent(lstm, 4, False),
    "gru": lambda: recurrent(gru, 3, False),
    "elman_gradients": lambda: recurrent(elman, 1, True),
    "lstm_gradients": lambda: recurrent(lstm, 4, True),
    "gru_gradients": lambda: recurrent(gru, 3, True),
    "sums": sums,
    "products_of_vectors": products_of_vectors,
}
TOLERANCE = {"rtol": 2e-5, "atol": 2e-6}


def both(case: Callable[[], Built], fuse: str = "auto", calls: int = 3) -> tuple[Any, Any, Any]:
    """Outputs of the native and of the reference device over some calls, and the native plan. The
    second call is recorded, and the third is made again by what was."""
    results = []
    for device in ("native", "reference"):
        inputs, outputs, updates, values = case()
        f = function(inputs, outputs, updates=updates, device=device, fuse=fuse)
        results.append([[np.array(x) for x in f(*values)] for _ in range(calls)])
        if device == "native":
            plans = f.explain()
    return *results, plans


def same(got: Any, wanted: Any) -> None:
    for g, w in zip(got, wanted, strict=True):
        for a, b in zip(g, w, strict=True):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            np.testing.assert_array_equal(a, b)


def close(got: Any, wanted: Any) -> None:
    for g, w in zip(got, wanted, strict=True):
        for a, b in zip(g, w, strict=True):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            np.testing.assert_allclose(a, b, **TOLERANCE)


@pytest.mark.parametrize("case", EXACT)
def test_elementwise_work_and_draws_are_the_references_bits_in_a_fused_loop(case: str) -> None:
    got, wanted, plans = both(EXACT[case])
    assert {p.path for p in plans.scans} == {"fused"}, str(plans)
    same(got, wanted)


@pytest.mark.parametrize("case", CONTRACTED)
def test_models_with_products_are_the_references_in_fused_loops(case: str) -> None:
    got, wanted, plans = both(CONTRACTED[case], calls=1)
    assert {p.path for p in plans.scans} == {"fused"}, str(plans)
    close(got, wanted)


# ---- what runs how ------------------------------------------------------------------------------


def halves() -> Any:
    x = X.astype("float16")
    return scan(lambda x, s: s + x, [x], [T.zeros_like(x[0])])[0]


def sorted_rows() -> Any:
    return scan(lambda x, s: T.sort(x + s), [X], [T.zeros_like(X[0])])[0]


def printed() -> Any:
    say = gpuscan.printing.Print("x")
    return scan(lambda x, s: say(x + s), [X], [T.zeros_like(X[0])])[0]


def printed_inside() -> Any:
    say = gpuscan.printing.Print("x")

    def row(x: Any) -> Any:
        return scan(lambda a: say(a * 0.5), outputs_info=[x], n_steps=3)[0][-1]

    return scan(lambda x, s: s + row(x + s), [X], [T.zeros_like(X[0])])[0]


def counted() -> Any:
    """As many numbers as the step says: no memory can be set aside for them."""

    def step(x: Any, s: Any) -> Any:
        numbers = T.arange(x.sum().astype("int64") + 9)
        return 0.5 * s + T.cumsum(numbers * 2)[-1].astype("float32")

    return scan(step, [X], [T.zeros_like(X[0])])[0]


X = T.matrix("x")
NOT_LOWERED = {
    halves: "float16", sorted_rows: "Sort", printed: "Print", printed_inside: "Print",
    counted: "only when it is computed",
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_LOWERED)
def test_a_step_without_a_kernel_is_interpreted_and_the_reason_names_the_op(
    case: Callable[[], Any], capsys: Any
) -> None:
    y = case()
    f, g = function([X], y, device="native"), function([X], y, device="reference")
    (plan,) = f.explain().scans
    assert plan.path == "interpreted"
    assert NOT_LOWERED[case].lower() in plan.reason.lower(), plan.reason
    x = numbers(5, 4)
    np.testing.assert_allclose(f(x), g(x), rtol=1e-6)
    with pytest.raises(NotLowered, match="can't be fused"):
        function([X], y, device="native", fuse="always")


def test_fuse_never_interprets_a_loop_that_has_a_kernel() -> None:
    got, wanted, plans = both(taps, fuse="never")
    assert {p.path for p in plans.scans} == {"interpreted"}
    assert "never" in plans.scans[0].reason
    same(got, wanted)


def test_fuse_always_takes_a_loop_that_has_a_kernel() -> None:
    _, _, plans = both(taps, fuse="always", calls=0)
    assert {p.path for p in plans.scans} == {"fused"}


def test_the_settings_choose_the_device() -> None:
    with config.change_flags(device="native"):
        assert function([X], X + 1).explain().device == "native"


# ---- operands -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows() -> tuple[Any, Any]:
    """A loop and nests on both devices: x (time, rows, columns), h0, w and a scalar."""
    x, h0, w, a = T.tensor3(), T.matrix(), T.matrix(), T.scalar()
    h, _ = scan(lambda x, h, w, a: T.tanh(x * a + h @ w), [x], [h0], [w, a])
    outputs = [h, h[-1], (T.tanh(x) * a + 1).sum(axis=2), T.exp(x - h0[None]) * 2]
    return tuple(function([x, h0, w, a], outputs, device=d) for d in ("native", "reference"))  # type: ignore[return-value]


def loop_alone() -> tuple[Any, Any]:
    """A loop on both devices: x, h0 and w."""
    x, h0, w = T.tensor3(), T.matrix(), T.matrix()
    h, _ = scan(lambda x, h, w: T.tanh(x + h @ w), [x], [h0], [w])
    return tuple(function([x, h0, w], [h], device=d) for d in ("native", "reference"))  # type: ignore[return-value]


loop = pytest.fixture(scope="module")(loop_alone)


def agree(functions: tuple[Any, Any], *values: Any) -> None:
    """The same values, dtypes and shapes, or the same error with the same notes; and nothing given
    is written to."""
    before = [np.array(v) for v in values]
    found: list[Any] = []
    for f in functions:
        try:
            found.append(f(*values))
        except Exception as e:
            found.append((type(e), str(e), getattr(e, "__notes__", [])))
    got, wanted = found
    if isinstance(wanted, tuple):
        assert got == wanted
    else:
        assert not isinstance(got, tuple), got
        close([got], [wanted])
        for a, b in itertools.pairwise(got):
            assert not np.shares_memory(a, b)
    for v, b in zip(values, before):
        np.testing.assert_array_equal(v, b)


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("batch", [0, 1, 5])
@pytest.mark.parametrize("width", [0, 1, 3])
def test_sizes_zero_and_one(rows: Any, n: int, batch: int, width: int) -> None:
    agree(rows, numbers(n, batch, width), numbers(batch, width), numbers(width, width), 0.5)


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "backwards": lambda x: x[::-1].copy()[::-1],
    "backwards everywhere": lambda x: np.flip(np.flip(x).copy()),
    "every second": lambda x: np.repeat(x, 2, axis=0)[::2],
    "every second of all axes": lambda x: np.kron(x, np.ones((2,) * x.ndim, x.dtype))[
        (slice(None, None, 2),) * x.ndim
    ],
    "a window": lambda x: np.pad(x, 3)[(slice(3, -3),) * x.ndim],
    "broadcast rows": lambda x: np.broadcast_to(x[:1], x.shape),
    "broadcast columns": lambda x: np.broadcast_to(x[..., :1], x.shape),
    "unaligned": lambda x: np.frombuffer(b"." + x.tobytes(), x.dtype, offset=1).reshape(x.shape),
    "a field of records": lambda x: _field(x),
    "read only": lambda x: np.broadcast_to(x, x.shape),
}


def _field(x: Any) -> Any:
    records = np.zeros(x.shape, [("a", "i1"), ("x", x.dtype)])
    records["x"] = x
    return records["x"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_operands_of_any_layout(rows: Any, layout: str) -> None:
    arrange = LAYOUTS[layout]
    x, h0, w = (arrange(numbers(*s)) for s in ((6, 5, 4), (5, 4), (4, 4)))
    agree(rows, x, h0, w, 0.5)


def test_operands_that_are_one_array(rows: Any) -> None:
    memory = numbers(4, 4, 4)
    agree(rows, memory, memory[0], memory[1].T, 0.5)


@pytest.mark.parametrize(
    "shapes",
    [
        [(6, 5, 4), (5, 3), (4, 4)], [(6, 5, 4), (4, 4), (4, 4)], [(6, 5, 4), (5, 4), (4, 3)],
        [(6, 5, 4), (5, 4), (3, 4)], [(6, 5, 1), (5, 4), (4, 4)], [(6, 1, 4), (5, 4), (4, 4)],
        [(6, 5, 4), (1, 4), (4, 4)],
    ],
)  # fmt: skip
def test_wrong_sizes_of_a_loop_raise_the_references_error(loop: Any, shapes: Any) -> None:
    agree(loop, *(numbers(*s) for s in shapes))


@pytest.mark.parametrize("shapes", [[(2, 3), (3, 2)], [(2, 3), (2, 1)], [(1, 3), (2, 3)]])
def test_wrong_sizes_of_a_nest_raise_the_references_error(shapes: Any) -> None:
    x, y = T.matrix(), T.matrix()
    pair = tuple(function([x, y], [T.exp(x) * y + 1], device=d) for d in ("native", "reference"))
    agree(pair, *(numbers(*s) for s in shapes))


def test_a_short_sequence_and_a_position_out_of_range_raise_the_references_error() -> None:
    n, i, x = T.lscalar(), T.lvector(), T.vector()
    y, _ = scan(lambda i, s, x: s + x[i], [i], [T.zeros((), "float32")], [x], n_steps=n)
    pair = tuple(function([n, i, x], [y], device=d) for d in ("native", "reference"))
    for steps, positions in [(3, [0, 1]), (3, [0, 1, 5]), (2, [0, -6]), (-1, [0]), (3, [4, -5, 0])]:
        agree(pair, steps, np.array(positions), numbers(5))


def test_errors_name_what_was_written_and_where() -> None:
    x, h0, n = T.matrix("x"), T.vector("h0"), T.lscalar("n")
    y, _ = scan(lambda x, h: x + h, [T.tanh(x) * 2], [h0], n_steps=n, name="walk")
    line = sys._getframe().f_lineno - 1
    z = (T.exp(y) + 1)[5] + y.sum(axis=0)
    pair = tuple(function([x, h0, n], [z], device=d) for d in ("native", "reference"))
    agree(pair, numbers(3, 4), numbers(4), 9)
    agree(pair, numbers(3, 4), numbers(4), -1)
    agree(pair, numbers(3, 4), numbers(4), 3)  # z needs six rows
    agree(pair, numbers(9, 4), numbers(4), 9)
    agree(pair, numbers(9, 4), numbers(2), 9)
    with pytest.raises(ValueError, match="mis-match") as e:
        pair[0](numbers(9, 4), numbers(2), 9)
    assert e.value.__notes__[-1].startswith("in step 0 of scan 'walk'. Built at ")
    assert e.value.__notes__[-1].endswith(f"test_native.py:{line}.")


def broadcast(a: Any, b: Any) -> Any:
    return a + T.broadcast_to(b * a[0], (a.shape[0],))


# what a step does with its state and a constant, and sizes of the two that do not fit
MISFITS: dict[str, tuple[Callable[[Any, Any], Any], int, int]] = {
    "element read": (lambda a, b: a * b[5], 3, 3),
    "element read from the end": (lambda a, b: a * b[-3], 3, 2),
    "element written": (lambda a, b: T.set_subtensor((a + b)[5], 1.0), 3, 3),
    "element written from the end": (lambda a, b: T.set_subtensor((a + b)[-4], 1.0), 3, 3),
    "part written": (lambda a, b: T.inc_subtensor((a * 2)[1:4], b * a[0]), 6, 2),
    "part beyond the end": (lambda a, b: T.set_subtensor((a * 2)[1:4], b * a[0]), 3, 3),
    "stack": (lambda a, b: T.stack([a * 2, b * a[0]]).sum(axis=0), 5, 4),
    "broadcast_to": (broadcast, 5, 3),
    "reshape": (lambda a, b: a + (b * a[0]).reshape((2, 3)).sum(axis=0)[0], 5, 7),
    "specify_shape": (lambda a, b: a + T.specify_shape(b * a[0], (3,)).sum(), 5, 4),
}


@pytest.mark.parametrize("step", MISFITS)
def test_sizes_that_do_not_fit_in_a_step_raise_the_references_error(step: str) -> None:
    run, *sizes = MISFITS[step]
    a, b = T.vector(), T.vector()
    y, _ = scan(run, outputs_info=[a], non_sequences=[b], n_steps=2)
    f, g = (function([a, b], [y], device=d) for d in ("native", "reference"))
    assert f.explain().scans[0].path == "fused"
    with pytest.raises((ValueError, IndexError)):
        g(*map(numbers, sizes))
    agree((f, g), *map(numbers, sizes))


def walk(k: Any, x: Any, table: Any) -> Any:
    return k + 1, x * 0.5 + table[k]


def rows_of_a_table(k: Any, x: Any, table: Any) -> Any:
    return k + 1, x * table[k + T.cast(x[:, 0] > 0, "int64") * 10]


def a_loop_inside(k: Any, x: Any, table: Any) -> Any:
    y, _ = scan(lambda j, y: y * 0.5 + table[k + j], T.arange(3), x, n_steps=3)
    return k + 1, y[-1]


def a_branch(k: Any, x: Any, table: Any) -> Any:
    y = T.ifelse(T.gt(k % 4, 0), x * 0.5, x + table[k])
    return [k + 1, y], until(k < 0)


@pytest.mark.parametrize("last", [True, False], ids=["last", "all"])
@pytest.mark.parametrize("step", [walk, rows_of_a_table, a_loop_inside, a_branch])
def test_an_index_that_is_wrong_late_raises_the_references_error_at_once(
    step: Callable[..., Any], last: bool, monkeypatch: Any
) -> None:
    n, table, x0, k0 = T.lscalar(), T.matrix("table"), T.matrix("x0"), shared(np.int64(0), "k0")
    (k, x), _ = scan(step, outputs_info=[k0, x0], non_sequences=table, n_steps=n, name="walk")
    out = [x[-1]] if last else [x, k]
    f, g = (function([n, table, x0], out, updates=[(k0, k[-1])], device=d)
            for d in ("native", "reference"))  # fmt: skip
    assert f.explain().scans[0].path == "fused"
    late = {rows_of_a_table: 91, a_loop_inside: 99, a_branch: 104}.get(step, 101)
    values = [150, np.ones((101, 8), "float32"), numbers(300, 8)]
    values[2][:, 0] = -1
    values[2][200, 0] = 1  # of two workers the second one's
    errors = []
    with monkeypatch.context() as patched:
        patched.setattr(native._Runner, "definition", None)  # all steps by NumPy
        for call, count in ((f, 1), (f, 2), (g, 1)):
            with config.change_flags(threads=count), pytest.raises(IndexError) as e:
                call(*values)
            errors.append([str(e.value), *e.value.__notes__])
            assert k0.get_value() == 0
    assert errors[0] == errors[1] == errors[2]
    assert "is out of bounds" in errors[0][0] and f"in step {late}" in errors[0][-1]


def test_outputs_do_not_alias_inputs_shared_variables_or_each_other() -> None:
    s = shared(numbers(3))
    x = T.vector()
    h, _ = scan(lambda h, x: (h + x, x), outputs_info=[s, None], non_sequences=[x], n_steps=2)
    f = function([x], [h[0][-1], h[1], s, s, x], updates={s: h[0][-1]}, device="native")
    value = numbers(3, seed=1)
    first = f(value)
    held = [value, s.get_value(borrow=True)]
    for k, a in enumerate(first):
        assert not any(np.shares_memory(a, b) for b in (*held, *first[k + 1 :]))
        a.fill(99)
    np.testing.assert_array_equal(s.get_value(), numbers(3) + value + value)


def test_one_array_for_every_input(rows: Any) -> None:
    cube = numbers(4, 4, 4)
    x, y, z = T.tensor3(), T.tensor3(), T.tensor3()
    h, _ = scan(lambda a, h, b: T.tanh(a + h * b), [x], [y[0]], [z[1]])
    outputs = [h, x * y - z, x + 0, y]
    pair = tuple(function([x, y, z], outputs, device=d) for d in ("native", "reference"))
    agree(pair, cube, cube, cube)
    agree(pair, cube, cube[::-1], cube.transpose(0, 2, 1))


def test_updates_that_are_inputs_or_other_shared_variables_hold_values_of_their_own() -> None:
    mine, user = numbers(3), numbers(3, seed=1)
    a, b = shared(mine, borrow=True), shared(numbers(3, seed=2))
    x = T.vector()
    f = function([x], [a, x * 2], updates={a: x, b: a}, device="native")
    old, _ = f(user)
    user.fill(7)
    old.fill(8)
    np.testing.assert_array_equal(mine, numbers(3))
    np.testing.assert_array_equal(a.get_value(), numbers(3, seed=1))
    np.testing.assert_array_equal(b.get_value(), numbers(3))


def test_a_call_writes_to_nothing_that_an_earlier_one_gave() -> None:
    s = shared(numbers(3))
    h, _ = scan(lambda h: h * 2, outputs_info=[s], n_steps=3)
    y = gpuscan.Out(s * 3, borrow=True)
    f = function([], [h, y, h[-1]], updates={s: h[-1]}, device="native")
    held = s.get_value(borrow=True)
    first = [held, *f()]
    before = [np.array(v) for v in first]
    f()
    for now, then in zip(first, before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_shared_variables_swapped_by_a_loop_hold_each_others_values() -> None:
    a, b = shared(numbers(3)), shared(numbers(3, seed=1))
    values, _ = scan(lambda x, y: (y, x), outputs_info=[a, b], n_steps=3)
    f = function([], updates={a: values[0][-1], b: values[1][-1]}, device="native")
    f()
    np.testing.assert_array_equal(a.get_value(), numbers(3, seed=1))
    np.testing.assert_array_equal(b.get_value(), numbers(3))
    assert not np.shares_memory(a.get_value(borrow=True), b.get_value(borrow=True))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_the_negative_of_a_negative_number_is_no_decrement(dtype: str) -> None:
    number = Number(-3, dtype)
    assert "--" not in Renderer(C).text(Call(neg, (number,), dtype, dtype))


# ---- builds, threads, interrupts, memory --------------------------------------------------------


def test_neither_steps_nor_batch_builds_again(rows: Any, texts: list[str]) -> None:
    for n, batch, width in [(3, 2, 4), (50, 7, 4), (1, 1, 9), (4, 64, 70)]:
        w = numbers(width, width) / width
        agree(rows, numbers(n, batch, width), numbers(batch, width), w, 0.5)
    assert not texts
    function([X], T.exp(X) * 2.5, device="native")
    assert len(texts) == 1  # what is counted is counted


@pytest.mark.parametrize("worth_sharing", [16, threads.WORTH_SHARING])
def test_threads_of_a_program_call_one_function(
    rows: Any, monkeypatch: Any, worth_sharing: int
) -> None:
    monkeypatch.setattr(threads, "WORTH_SHARING", worth_sharing)
    monkeypatch.setattr(config, "threads", 3)
    f = rows[0]
    calls = [
        (numbers(40, 5, 9, seed=k), numbers(5, 9), numbers(9, 9, seed=k), 0.5) for k in range(4)
    ]
    wanted = [f(*c) for c in calls]

    def work(k: int) -> bool:
        return all(
            (a == b).all() for _ in range(30) for a, b in zip(f(*calls[k]), wanted[k], strict=True)
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_results_do_not_depend_on_the_number_of_threads(rows: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(threads, "WORTH_SHARING", 16)  # small work is shared too
    values = numbers(9, 13, 17), numbers(13, 17), numbers(17, 17), 0.5
    found = []
    for count in (1, 2, 3, 5, 32):
        inputs, outputs, updates, given = metropolis()
        f = function(inputs, outputs, updates=updates, device="native")
        with config.change_flags(threads=count):
            found.append([*rows[0](*values), *f(*given)])
    for other in found[1:]:
        same([other], [found[0]])


def test_as_many_threads_as_the_cores_of_this_process(monkeypatch: Any) -> None:
    with config.change_flags(threads=5):
        assert threads.count() == 5
    with config.change_flags(threads=0):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 7}, raising=False)
        assert threads.count() == 3
        monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
        monkeypatch.setattr(os, "cpu_count", lambda: 4)
        assert threads.count() == 4
    with pytest.raises(ValueError, match="less than 0"):
        config.threads = -1


@contextmanager
def small_work_is_shared() -> Iterator[list[int]]:
    """Also gives how many shares there were each time."""
    counts: list[int] = []
    run = threads.run

    def counted(kernel: int, shares: threads.Shares, *rest: Any) -> int:
        counts.append(shares.count)
        return run(kernel, shares, *rest)

    with mock.patch.multiple(threads, WORTH_SHARING=1, run=counted):
        yield counts


def test_no_loop_depends_on_the_number_of_threads() -> None:
    shared_out: list[int] = []

    @given(case=cases(DERIVATIVES))
    def holds(case: Case) -> None:
        case = replace(case, sizes=(("D", 7), ("E", 5)))
        gradients = case.gradients(case.loop).results
        graphs = replace(case.loop, results=[*case.loop.results, *gradients])
        f = case.function(graphs, device="native")
        found = []
        for count in (1, 2, 3):
            with config.change_flags(threads=count), small_work_is_shared() as rows:
                found.append(case.call(f))
        shared_out.extend(rows)
        for other in found[1:]:
            assert_same(other, found[0], exact=True)

    holds()
    assert max(shared_out) >= 3  # there was something that three threads could do


def test_while_threads_are_busy_a_caller_does_its_shares_alone(monkeypatch: Any) -> None:
    monkeypatch.setattr(config, "threads", 3)
    monkeypatch.setattr(threads, "WORTH_SHARING", 16)
    n = T.lscalar()
    long, _ = scan(lambda x: T.tanh(x) + 0.5, outputs_info=[X], n_steps=n)
    slow = function([X, n], long[-1], device="native")
    quick = function([X], T.exp(X) * 2.5, device="native")
    value = numbers(600, 60)
    wanted = quick(value), slow(value, 3000)
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(slow, value, 3000)
        calls = 0
        while not beside.done():
            np.testing.assert_array_equal(quick(value), wanted[0])
            calls += 1
        np.testing.assert_array_equal(beside.result(), wanted[1])
    assert calls > 1


@pytest.mark.parametrize("size", [(5,), (1,), (1, 5), None], ids=str)
def test_draws_of_any_size_are_the_same_for_any_number_of_threads(size: Any) -> None:
    def drawing(device: str) -> Any:
        srng, s0 = RandomStreams(1), T.matrix()
        s, updates = scan(
            lambda s: s * 0.5 + srng.uniform(size or s.shape), outputs_info=[s0], n_steps=3
        )
        return function([s0], s, updates=updates, device=device)

    f, g = drawing("native"), drawing("reference")
    for count in (1, 2, 3):
        with config.change_flags(threads=count), small_work_is_shared() as shares:
            np.testing.assert_array_equal(f(numbers(7, 5)), g(numbers(7, 5)))
        assert shares == [count]


# Shares of a loop and of a nest, and what they come to.
SHARED_OUT = """
    import atexit, multiprocessing, os, sys, threading, numpy as np, gpuscan
    from gpuscan import config, tensor as T
    from gpuscan.runtime import threads
    threads.WORTH_SHARING = 16
    config.threads = 3
    x = T.matrix()
    h, _ = gpuscan.scan(lambda h: T.tanh(h) * 1.5 + 0.1, outputs_info=[x], n_steps=40)
    f = gpuscan.function([x], [h[-1], T.exp(x) * 2], device="native")
    value = np.random.default_rng(0).normal(size=(50, 8)).astype("float32")
    wanted = f(value)
    assert threads.library().gs_workers() == 2

    def right(_=None):
        found = f(value)
        mine = threads.library().gs_workers()
        return all((a == b).all() for a, b in zip(found, wanted)), mine
"""


def output(program: str) -> str:
    text = textwrap.dedent(SHARED_OUT) + textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@needs_fork
def test_forked_processes_have_threads_of_their_own() -> None:
    program = """
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads: what this is about
    stop = threading.Event()
    def busy():
        while not stop.is_set():
            assert right()[0]
    beside = threading.Thread(target=busy)  # the parent's threads are at work while it forks
    beside.start()
    with multiprocessing.get_context("fork").Pool(3) as pool:
        print({same for same, _ in pool.map(right, range(12))},
              {0 < n <= 2 for _, n in pool.map(right, range(12))})
    stop.set()
    beside.join()
    print(right()[0])
    """
    assert output(program) == "{True} {True}\nTrue\n"


@needs_fork
def test_a_child_of_a_forked_child_ends_as_programs_do() -> None:
    program = """
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    for generation in range(3):
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            assert right()[0]
            sys.exit(os.waitstatus_to_exitcode(status))
    same, mine = right()
    print(same, mine)
    """
    assert output(program) == "True 2\n"


def test_a_function_is_called_while_the_interpreter_ends() -> None:
    assert output("atexit.register(lambda: print(right()[0]))\n") == "True\n"


def test_a_loop_stops_where_a_piece_of_it_ends(monkeypatch: Any) -> None:
    k = T.lscalar()
    step = lambda y, k: (y + 1, until(y + 1 >= k))  # noqa: E731
    y, _ = scan(step, outputs_info=T.zeros((), "int64"), non_sequences=k, n_steps=2000)
    f = function([k], [y, y[-1]], device="native")
    assert f.explain().scans[0].path == "fused"
    for seconds in (native._BREATH, 0.0):  # pieces that grow, and pieces that become single steps
        monkeypatch.setattr(native, "_BREATH", seconds)
        for stop in [*range(1, 131), 1999, 2000]:
            trace, final = f(stop)
            assert len(trace) == final == stop


LONG = """
    import numpy as np, signal, time, gpuscan
    from gpuscan import tensor as T
    from gpuscan.runtime import threads
    # a shell's background jobs, and what they start, ignore interrupts unless they ask for them
    signal.signal(signal.SIGINT, signal.default_int_handler)
    x = gpuscan.shared({initial}, name="x")
    n = T.lscalar()
    y, _ = gpuscan.scan(lambda x: {step}, outputs_info=[x], n_steps=n)
    f = gpuscan.function([n], y[-1].sum(), updates=[(x, y[-1])], device="native")
    assert f.explain().scans[0].path == "fused"
    run = lambda: {short}
    run()
    before = x.get_value()
    print("ready", flush=True)
    began = time.monotonic()
    try:
        f({steps})
        print("ran to its end in", time.monotonic() - began)
    except KeyboardInterrupt:
        print("interrupted", time.time(), bool((x.get_value() == before).all()))
    run()
    print("runs again", threads.library().gs_workers())
"""


INNER = "gpuscan.scan(lambda y: T.tanh(y), outputs_info=[x], n_steps={})[0][-1]"


@pytest.mark.parametrize(
    ("initial", "step", "steps", "workers"),
    [
        ("np.float32(1)", "T.tanh(x) + np.float32(0.5)", 10**12, 0),
        ("np.ones((600, 600), 'float32')", "T.tanh(x) + np.float32(0.5)", 10**9, 1),
        ("np.float32(1)", INNER.format("n"), 10**12, 0),
        ("np.ones((200, 200), 'float32')", INNER.format(10**9), 1, 0),
        ("np.ones((200, 200), 'float32')", INNER.format(10**9), 1, 1),
    ],
    ids=["scalar", "matrix", "loop in a loop", "of one thread", "of two threads"],
)
def test_an_interrupt_stops_a_long_loop_and_leaves_shared_variables(
    initial: str, step: str, steps: int, workers: int, tmp_path: Path
) -> None:
    short = "f(3)" if steps > 1 else "None"
    program = textwrap.dedent(LONG).format(initial=initial, step=step, steps=steps, short=short)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "GPUSCAN_FLAGS": f"threads={workers + 1}"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.6)
        sent = time.time()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    word, at, *others = out.split()
    assert word == "interrupted", out
    assert float(at) - sent < 1.0
    assert others == ["True", "runs", "again", str(workers)]


def test_a_signal_in_a_loop_in_a_loop_calls_functions_and_the_loop_goes_on() -> None:
    if not hasattr(signal, "setitimer"):
        pytest.skip("no timer signals")

    def step(y: Any) -> Any:
        z, _ = scan(lambda z: z * 0.5 + 1, outputs_info=[y], n_steps=120_000)
        return T.exp(-z[-1])

    x = T.matrix()
    y, _ = scan(step, outputs_info=[x], n_steps=2)
    w = np.eye(300, dtype="float32")
    h, _ = scan(lambda h: T.tanh(T.dot(h, w)), outputs_info=[T.ones((1, 300))], n_steps=4)
    ones, found = np.ones((128, 128), "float32"), []
    with config.change_flags(threads=2):
        f = function([x], y[-1], device="native")
        g = function([], h[-1], device="native")
        assert f.explain().scans[0].path == g.explain().scans[0].path == "fused"
        expected, other = f(ones), g()
        before = signal.signal(signal.SIGALRM, lambda number, frame: found.append(g()))
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            began = time.monotonic()
            while not found and time.monotonic() - began < 20:
                np.testing.assert_array_equal(f(ones), expected)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    np.testing.assert_array_equal(found, [other])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_zeros_and_floats_that_no_integers_are_come_out_alike_in_a_loop(
    device: str, dtype: str
) -> None:
    some = [0.0, -0.0, 1.5, -1.5, np.nan, np.inf, -np.inf]
    some += [s * 1.5**k for k in range(115) for s in (1, -1)]
    pairs = np.array(list(itertools.product(some[:7], some)), dtype)
    integers = [f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)]

    def step(x: Any, y: Any) -> Any:
        found = [T.maximum(x, y), T.minimum(x, y), T.maximum(x, 0), T.clip(y, x, -0.0)]
        return y, x, *found, *(T.cast(y, d) for d in integers)

    x, y = (T.TensorType(dtype, (None, None))() for _ in range(2))
    (_, _, *traces), _ = scan(step, outputs_info=[x, y, *[None] * 12], n_steps=2)
    given = [np.ascontiguousarray(v.reshape(7, -1)) for v in pairs.T]
    with np.errstate(all="ignore"):
        got, wanted = (function([x, y], traces, device=d)(*given) for d in (device, "reference"))
    for a, b in zip(got, wanted):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(np.signbit(a) & (a == 0), np.signbit(b) & (b == 0))


def decay(x0: Any, n: Any) -> Any:
    return scan(lambda x: T.tanh(x) + 0.5, outputs_info=[x0[0]], n_steps=n)


def noise(x0: Any, n: Any) -> Any:
    srng = RandomStreams(2)
    return scan(lambda x: 0.5 * x + srng.normal(x.shape), outputs_info=[x0[0]], n_steps=n)


def lags(x0: Any, n: Any) -> Any:
    info = [{"initial": x0, "taps": [-1, -3]}]
    return scan(lambda one, three: 0.5 * one - 0.2 * three + 1, outputs_info=info, n_steps=n)


READ: dict[str, Callable[[Any, Any], Any]] = {
    "x[-1]": lambda x, n: x[-1],
    "x[n - 1]": lambda x, n: x[n - 1],
    "x[-3:]": lambda x, n: x[-3:],
    "x.sum(0)": lambda x, n: x.sum(0),
}


@pytest.mark.parametrize(
    ("model", "read"),
    [*itertools.product([decay, noise, lags], ["x[-1]"]), *((decay, read) for read in [*READ][1:])],
    ids=lambda x: x if isinstance(x, str) else x.__name__,
)
def test_the_last_values_of_a_loop_and_sums_need_no_trace(
    device: str, model: Callable[..., Any], read: str
) -> None:
    n, x0 = T.lscalar(), T.matrix()
    x, updates = model(x0, n)
    f = function([n, x0], READ[read](x, n), updates=updates, device=device)
    many = 10**6 if device == "native" else 2000
    assert device != "native" or f.explain().scans[0].path == "fused"
    start = numbers(3, 50)
    f(many, start)
    peaks = []
    for steps in (10, many):
        tracemalloc.start()
        f(steps, start)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 30_000  # a trace would be 200 bytes a step


def test_a_hundred_million_steps_take_seconds_and_no_memory() -> None:
    n, a, x0 = T.lscalar(), T.scalar(), T.scalar()
    x, _ = scan(lambda x, a: a * x + 0.5, outputs_info=[x0], non_sequences=[a], n_steps=n)
    f = function([n, a, x0], x[-1], device="native")
    tracemalloc.start()
    began = time.monotonic()
    found = f(10**8, 0.9, 1.0)
    took = time.monotonic() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    value, rate = np.float32(1), np.float32(0.9)
    for _ in range(1000):
        value = rate * value + np.float32(0.5)
    assert value == rate * value + np.float32(0.5)  # where it stays
    assert found == value
    assert took < 10
    assert peak < 100_000
