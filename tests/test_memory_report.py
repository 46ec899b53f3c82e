"""f.memory_report(): what a call takes at its peak, before it is made."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import numpy as np
import pytest
from models import MODELS

from gpuscan import function, grad, scan, shared
from gpuscan import tensor as T
from gpuscan.runtime import memory
from gpuscan.runtime.device import missing

DEVICES = [
    pytest.param(d, marks=pytest.mark.skipif(bool(missing(d)), reason=f"no {d}"))
    for d in ("native", "reference", "emulated")
]
KINDS = {"input", "shared", "output", "history", "state", "scratch", "value", "kept"}
pytestmark = pytest.mark.own_device


def measured(f: Any, arguments: list[Any], first: list[Any]) -> int:
    """The most bytes that a call allocates, with none of the pool's from before. `first`: smaller
    arguments for a call that loads the kernels."""
    f(*first)
    memory.free()
    gc.collect()
    tracemalloc.start()
    try:
        kept = f(*arguments)
        peak = tracemalloc.get_traced_memory()[1]
        del kept
    finally:
        tracemalloc.stop()
    return peak


def check(f: Any, arguments: list[Any], first: list[Any]) -> Any:
    """The report for the shapes is what is measured, within 10 %."""
    report = f.memory_report(*[x.shape if np.ndim(x) else x for x in arguments])
    peak = measured(f, arguments, first)
    assert peak > 1_000_000  # Python's own objects are none of it
    assert abs(report.peak - report.given - peak) < 0.1 * peak, f"{peak} bytes; {report}"
    return report


def lstm_gradient(policy: Any, device: str) -> Any:
    x, h0, c0, w, u = T.tensor3("x"), *(T.matrix(name) for name in ("h0", "c0", "w", "u"))

    def step(x: Any, h: Any, c: Any, w: Any, u: Any) -> Any:
        n, z = h.shape[1], x.dot(w) + h.dot(u)
        i, f, o, g = (z[:, k * n : (k + 1) * n] for k in range(4))
        c = T.nnet.sigmoid(f) * c + T.nnet.sigmoid(i) * T.tanh(g)
        return T.nnet.sigmoid(o) * T.tanh(c), c

    (h, c), _ = scan(step, x, [h0, c0], [w, u], memory=policy, name="lstm")
    gradients = grad(T.sqr(h).sum() + c[-1].sum(), [x, w, u])
    return function([x, h0, c0, w, u], gradients, device=device, name="step")


@pytest.mark.parametrize("on", DEVICES)
@pytest.mark.parametrize("policy", ["balanced", "carries", "everything", "every 50 steps", "9 MiB"])
def test_the_gradient_of_an_lstm(policy, on):
    batch, hidden = 16, 48

    def arguments(steps: int) -> list[Any]:
        shapes = [(steps, batch, hidden), (batch, hidden), (batch, hidden)]
        return [np.ones(s, "float32") for s in (*shapes, *[(hidden, 4 * hidden)] * 2)]

    steps = {"native": 1234, "reference": 523, "emulated": 323}[on]
    report = check(lstm_gradient(policy, on), arguments(steps), arguments(3))
    assert report.given == sum(x.nbytes for x in arguments(steps))
    assert {"input", "history"} <= {a.kind for a in report.arrays} <= KINDS


@pytest.mark.parametrize("on", DEVICES)
@pytest.mark.parametrize(("name", "steps"), [("gibbs", 200), ("metropolis", 150)])
def test_samplers(name, steps, on):
    m = MODELS[name](65)
    f = m.function(on, gradients=False)
    check(f, m.values(33, steps), m.values(2, 3))


@pytest.mark.parametrize("on", DEVICES)
def test_rows_by_number_and_joins(on):
    x, i = T.matrix("x"), T.lvector("i")
    rows = x[i]
    f = function([x, i], [rows * 2, T.inc_subtensor(rows, rows + 1), T.join(0, x, x)], device=on)
    big, small = np.ones((700, 600), "float32"), np.ones((7, 6), "float32")
    check(f, [big, np.arange(500)], [small, np.arange(2)])


@pytest.mark.parametrize("on", DEVICES)
def test_elementwise_work(on):
    x, y = T.matrices("x", "y")
    f = function([x, y], [T.tanh(x) * y + 1, (x - y).sum(axis=0), x.T], device=on)
    a = np.ones((800, 700), "float32")
    report = check(f, [a, a.copy()], [a[:2, :2].copy(), a[:2, :2].copy()])
    assert sum(x.kind == "output" for x in report.arrays) >= 2


@pytest.mark.parametrize("on", DEVICES)
def test_the_updates_of_an_optimiser(on):
    x = T.matrix("x")
    w = shared(np.ones((500, 600), "float32"), "w")
    v = shared(np.zeros((500, 600), "float32"), "v")
    g = grad(T.sqr(T.tanh(x.dot(w))).mean(), w)
    new = 0.9 * v - 0.1 * g
    f = function([x], updates=[(v, new), (w, w + new)], device=on)
    report = check(f, [np.ones((300, 500), "float32")], [np.ones((2, 500), "float32")])
    held = [a for a in report.arrays if a.kind == "shared"]
    assert {a.name for a in held} == {"w", "v"}
    assert report.given == 4 * (300 * 500 + 2 * 500 * 600)


def test_it_prints_a_table_of_the_largest_arrays():
    report = lstm_gradient("carries", "reference").memory_report(
        (1000, 8, 16), (8, 16), (8, 16), w=(16, 64), u=(16, 64)
    )
    text = str(report).splitlines()
    assert text[0].startswith("step: device reference, ")
    assert "at the peak" in text[0] and len(text) <= 22
    assert any("history" in line and "(1000, 8, 16)" in line and "'lstm'" in line for line in text)
    assert [a.bytes for a in report.arrays] == sorted(a.bytes for a in report.arrays)[::-1]
    assert sum(a.bytes for a in report.arrays) == report.peak


def test_nothing_is_computed_or_changed():
    n, s = T.lscalar("n"), shared(np.zeros(10), "s")
    h, updates = scan(lambda h: h + 1, None, s, n_steps=n)
    f = function([n], h.sum(), updates={s: h[-1]})
    many = 10**9  # steps, which no machine runs or holds
    report = f.memory_report(many)
    assert report.peak > 8 * 10 * many
    np.testing.assert_array_equal(s.get_value(), np.zeros(10))


def test_a_budget_that_is_too_small_is_told_before_the_call():
    with pytest.raises(MemoryError, match="at least"):
        lstm_gradient(100_000, "reference").memory_report(
            (1000, 8, 16), (8, 16), (8, 16), (16, 64), (16, 64)
        )


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (((3, 4), (5, 6)), ValueError, "fit|shape|dimension|broadcast"),
        (((3, 4),), TypeError, "Missing"),
        (((3, 4), (3, 4), (3, 4)), TypeError, "Too many"),
        (((3,), (3, 4)), TypeError, "x"),
    ],
)
def test_arguments_that_do_not_fit(arguments, error, text):
    x, y = T.matrices("x", "y")
    f = function([x, y], T.tanh(x) + y)
    with pytest.raises(error, match=text):
        f.memory_report(*arguments)


def test_a_size_that_only_a_run_tells_is_said_to_be_one():
    x = T.vector("x")
    f = function([x], x.nonzero()[0], device="reference")
    with pytest.raises(NotImplementedError, match="known only when it is computed"):
        f.memory_report((5,))


@pytest.mark.skipif(bool(missing("emulated")), reason="no emulated device")
def test_of_a_graph_of_launches_it_says_that_it_does_not_know():
    x = T.matrix("x")
    y, _ = scan(lambda h: T.tanh(h), None, x, n_steps=100, name="loop")
    f = function([x], y[-1], device="emulated", fuse="never")
    with pytest.raises(NotImplementedError, match="'loop' runs as a CUDA graph"):
        f.memory_report((5, 6))
