"""What a loop holds for its gradient: every policy gives the same gradients, within its bound."""

from __future__ import annotations

import functools
import gc
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuscan import function, grad, scan, shared
from gpuscan import tensor as T
from gpuscan.graph import Variable, toposort
from gpuscan.rules.passes import optimised
from gpuscan.runtime import compiler, memory
from gpuscan.runtime.device import missing
from gpuscan.scan.frontend import until
from gpuscan.scan.memory import Memory, held_bytes, least_bytes, longest_segment, memory_of
from gpuscan.scan.op import Scan
from gpuscan.tensor.random import RandomStreams

POLICIES = ["balanced", "carries", "everything", "every 3 steps", 4000]


def numbers(*shape: int, seed: int = 0, dtype: str = "float32") -> Any:
    return (0.5 * np.random.default_rng(seed).normal(size=shape)).astype(dtype)


def loops(outputs: list[Variable]) -> list[Variable]:
    return [v for v in toposort(optimised(outputs)) if isinstance(v.op, Scan)]


# ---- what a policy is ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (None, Memory("balanced")),
        ("balanced", Memory("balanced")),
        ("carries", Memory("carries")),
        ("everything", Memory("everything")),
        (4096, Memory(budget=4096)),
        (np.int64(7), Memory(budget=7)),
        ("512 B", Memory(budget=512)),
        ("1.5 kB", Memory(budget=1500)),
        ("2MiB", Memory(budget=2 << 20)),
        ("3 GB", Memory(budget=3 * 10**9)),
        ("every 10 steps", Memory(every=10)),
        ("every 1 step", Memory(every=1)),
    ],
)
def test_the_forms_of_a_policy(given, meant):
    assert memory_of(given) == meant


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("all", ValueError),
        ("12", ValueError),
        ("12 bits", ValueError),
        ("-3 MB", ValueError),
        ("every 0 steps", ValueError),
        ("0 MiB", ValueError),
        (0, ValueError),
        (-5, ValueError),
        (1.5, TypeError),
        (True, TypeError),
        ([3], TypeError),
    ],
)
def test_what_is_no_policy_is_refused_at_once_in_one_line(wrong, error):
    with pytest.raises(error) as info:
        scan(lambda h: h, None, T.vector(), n_steps=1, memory=wrong)
    assert "memory" in str(info.value) and repr(wrong) in str(info.value)
    assert "\n" not in str(info.value)


def test_a_loop_that_may_stop_early_has_no_segments():
    def step(h: Any) -> Any:
        return h * 2, until(h.sum() > 3)

    for policy in ("every 3 steps", "1 MiB"):
        with pytest.raises(ValueError, match=r"until\(\)"):
            scan(step, None, T.vector(), n_steps=9, memory=policy)
    x = T.vector("x")
    values = []
    for policy in ("balanced", "carries", "everything"):
        h, _ = scan(step, None, x, n_steps=9, memory=policy)
        values.append(function([x], grad(T.sqr(h).sum(), x))(numbers(2) + 1))
    np.testing.assert_array_equal(values[1], values[0])
    np.testing.assert_array_equal(values[2], values[0])


sizes = st.integers(1, 60)


@given(sizes, sizes, sizes, st.integers(1, 4000))
def test_a_segment_is_the_longest_of_the_fewest_that_the_budget_allows(n, checkpoint, step, budget):
    counts = range(1, n + 1)
    fit = [s for s in counts if held_bytes(n, checkpoint, step, s) <= budget]
    found = longest_segment(n, checkpoint, step, budget)
    assert found == (-(-n // fit[0]) if fit else None)
    least = min(held_bytes(n, checkpoint, step, s) for s in counts)
    assert least_bytes(n, checkpoint, step) == least
    assert (found is None) == (budget < least)


# ---- equal gradients ----------------------------------------------------------------------------


@functools.cache
def model(kind: str, policy: Any, truncate: int = -1, device: str | None = None) -> Any:
    """(x, states, W, n) -> cost, rows and gradients of a loop of n steps."""
    dtype = "float32" if kind == "product" else "float64"
    taps = {"product": [-1], "taps": [-2, -1], "one tap": [-3]}[kind]
    x, h0 = T.TensorType(dtype, (None,) * 3)("x"), T.TensorType(dtype, (None,) * 3)("h0")
    w, n = T.TensorType(dtype, (None, None))("w"), T.lscalar("n")

    def step(before: Any, now: Any, *rest: Any) -> Any:
        *held, w = rest
        total = sum((k + 1) * h for k, h in enumerate(held))
        h = T.tanh(now.dot(w) + 0.4 * total.dot(w) + 0.2 * before)
        return h, h.sum()

    (h, s), _ = scan(
        step, dict(input=x, taps=[-1, 0]), [dict(initial=h0, taps=taps), None], w, n_steps=n,
        memory=policy, truncate_gradient=truncate,
    )  # fmt: skip
    cost = (h * T.cos(h)).sum() + T.sqr(s).sum()
    wrt = [x, h0, w]
    return function([x, h0, w, n], [cost, h, *grad(cost, wrt)], device=device)


def check_alike(kind: str, policy: Any, n: int, truncate: int = -1, device: Any = None) -> None:
    dtype, deep = ("float32", 1) if kind == "product" else ("float64", 3 if "one" in kind else 2)
    values = [numbers(14, 2, 3, dtype=dtype), numbers(deep, 2, 3, seed=1, dtype=dtype),
              numbers(3, 3, seed=2, dtype=dtype), n]  # fmt: skip
    wanted = model(kind, "balanced", truncate, device)(*values)
    for a, b in zip(model(kind, policy, truncate, device)(*values), wanted, strict=True):
        tolerance = 1e-4 if dtype == "float32" else 1e-10
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@settings(max_examples=25)
@given(
    st.sampled_from(["product", "taps", "one tap"]), st.sampled_from(POLICIES[1:]),
    st.integers(0, 13),
)  # fmt: skip
def test_gradients_are_the_same_under_every_policy(kind, policy, n):
    check_alike(kind, policy, n)


@pytest.mark.parametrize("policy", ["every 3 steps", "carries"])
@pytest.mark.parametrize("n", [2, 5, 12])
def test_of_a_truncated_gradient_too(policy, n):
    check_alike("taps", policy, n, truncate=5)


@pytest.mark.own_device
@pytest.mark.skipif(bool(missing("emulated")), reason="no emulated device")
def test_on_the_emulated_device():
    for n in (0, 1, 3, 7):
        check_alike("product", "every 3 steps", n, device="emulated")


def test_steps_of_elementwise_work_give_the_same_bits():
    x, w = T.matrix("x"), T.vector("w")
    found = []
    for policy in ("balanced", "every 4 steps", "2 kB", "carries", "everything"):
        h, _ = scan(lambda v, h, w: T.tanh(v * w + 0.5 * h), x, w, w, memory=policy)
        found.append(function([x, w], [h, h[-1], grad(T.sqr(h).sum(), x)])(
            numbers(11, 5), numbers(5, seed=1)
        ))  # fmt: skip
    for values in found[1:]:
        for a, b in zip(values, found[0], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("policy", POLICIES)
def test_draws_updates_integers_and_loops_in_a_step(policy):
    def results(memory: Any) -> list[Any]:
        draws, scale = RandomStreams(7), shared(np.float32(1), "scale")
        count, v, w = shared(np.int64(0), "count"), T.vector("v"), T.vector("w")

        def step(v: Any, h: Any, k: Any, w: Any) -> Any:
            z = draws.normal(w.shape, dtype="float32")
            inner, _ = scan(lambda a, b: a * T.tanh(b) + v, w, h)
            new = T.tanh(h * w + 0.1 * z) * scale + 0.1 * inner[-1]
            return [new, k + 1], {scale: scale * np.float32(0.9), count: count + k}

        start = T.constant(np.int64(2))
        (h, k), updates = scan(step, v, [w, start], w, memory=memory)
        cost = T.sqr(h[-1]).sum() + h.sum()
        f = function([v, w], [cost, k, *grad(cost, [w, v])], updates=updates)
        values = numbers(11), numbers(5, seed=1)
        return [*f(*values), *f(*values), scale.get_value(), count.get_value()]

    for a, b in zip(results(policy), results("balanced"), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("policy", ["carries", "everything", "every 3 steps"])
def test_second_derivatives(policy):
    x, w = T.dmatrix("x"), T.dvector("w")

    def product_with_hessian(memory: Any) -> Any:
        h, _ = scan(lambda v, h, w: T.tanh(v * w + h), x, T.zeros_like(w), w, memory=memory)
        g = grad(T.sqr(h[-1]).sum() + h.sum(), w)
        return function([x, w], [g, *grad((g * T.cos(w)).sum(), [w, x])])

    values = numbers(8, 3, dtype="float64"), numbers(3, seed=1, dtype="float64")
    for a, b in zip(product_with_hessian(policy)(*values), product_with_hessian(None)(*values)):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_segments_in_a_step_of_a_loop_in_segments():
    x, w = T.tensor3("x"), T.vector("w")

    def gradients(inner: Any, outer: Any) -> Any:
        def step(x: Any, s: Any, w: Any) -> Any:
            h, _ = scan(lambda v, h, w: T.tanh(v * w + h), x, s, w, memory=inner)
            return h[-1] + 0.1 * h.sum(0)

        s, _ = scan(step, x, T.zeros_like(w), w, memory=outer)
        return function([x, w], grad(T.sqr(s).sum(), [x, w]))

    values = numbers(4, 7, 3), numbers(3, seed=1)
    wanted = gradients(None, None)(*values)
    for policies in (("every 2 steps", None), ("every 3 steps", "every 3 steps"), (2000, 4000)):
        for a, b in zip(gradients(*policies)(*values), wanted):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


# ---- what runs ----------------------------------------------------------------------------------


def test_steps_run_twice_at_most_before_they_run_backwards():
    """The loop that holds the checkpoints is the one that gives the loss; its last row is its
    final state, so that it holds no rows."""
    x, w = T.tensor3("x"), T.matrix("w")
    h, _ = scan(lambda v, h, w: T.tanh(v + h.dot(w)), x, x[0], w, memory="every 4 steps")
    cost = T.sqr(h[-1]).sum()
    forward, backward = loops([cost, grad(cost, w)])
    assert len(forward.op.step.traces) == 1
    inside = [v for v in toposort(backward.op.step.outputs) if isinstance(v.op, Scan)]
    assert len(inside) == 2 and len(loops([cost])) == 1


def test_a_loop_without_a_gradient_has_no_segments():
    x = T.matrix("x")
    h, _ = scan(lambda v, h: T.tanh(v + h), x, x[0], memory=1 << 20)
    (loop,) = loops([h])
    assert loop.op.segments_of is None


def test_loops_that_hold_carries_only_store_no_products_for_all_steps():
    x, w = T.tensor3("x"), T.matrix("w")
    h, _ = scan(lambda v, h, w: T.tanh(v.dot(w) + h.dot(w)), x, x[0], w, memory="carries")
    forward, backward = loops([h, grad(T.sqr(h).sum(), w)])
    assert len(forward.op.step.traces) == 1 and len(backward.op.step.traces) == 0


def test_too_small_a_budget_says_what_the_least_is_and_that_is_enough():
    x, w = T.matrix("x"), T.vector("w")

    def gradient(memory: Any) -> Any:
        h, _ = scan(lambda v, h, w: T.tanh(v * w + h), x, w, w, memory=memory, name="walk")
        return function([x, w], grad(T.sqr(h).sum(), w))

    values = numbers(200, 6), numbers(6, seed=1)
    said = "'walk': memory=500 bytes, and the gradient of 200 steps needs"
    with pytest.raises(MemoryError, match=said) as info:
        gradient(500)(*values)
    assert "\n" not in str(info.value)
    least = int(str(info.value).partition("needs ")[2].split()[0])
    np.testing.assert_allclose(gradient(least)(*values), gradient(None)(*values), rtol=1e-5)
    with pytest.raises(MemoryError):
        gradient(least - 1)(*values)


# ---- the peak -----------------------------------------------------------------------------------

STEPS, BATCH, HIDDEN = 10_000, 8, 24
ROW = 4 * BATCH * HIDDEN  # bytes of a state, which the rows of x are as large as
BESIDE = 600_000  # bytes: of weights, their gradients and scratch memory, whatever the steps


@functools.cache
def lstm_gradient(policy: Any) -> Any:
    x, h0, c0, w, u = T.tensor3("x"), *(T.matrix() for _ in range(4))

    def step(x: Any, h: Any, c: Any, w: Any, u: Any) -> Any:
        z = x.dot(w) + h.dot(u)
        i, f, o, g = (z[:, k * HIDDEN : (k + 1) * HIDDEN] for k in range(4))
        c = T.nnet.sigmoid(f) * c + T.nnet.sigmoid(i) * T.tanh(g)
        return T.nnet.sigmoid(o) * T.tanh(c), c

    (h, c), _ = scan(step, x, [h0, c0], [w, u], memory=policy)
    gradients = grad(T.sqr(h[-1]).sum() + c[-1].sum(), [h0, c0, w, u])
    return function([x, h0, c0, w, u], gradients, device="native")


# Rows of a state's size that are there at once for each step: the history of h and c and their
# values on entry (4); with it the four gates, or what they are made from, the four cotangents of
# these, tanh of c, and one for what is not rows (10).
@pytest.mark.own_device
@pytest.mark.skipif(compiler.find() is None, reason="no C compiler")
@pytest.mark.parametrize(
    ("policy", "bound"),
    [
        ("carries", 4 * ROW * STEPS),
        ("balanced", 14 * ROW * STEPS),
        ("everything", 14 * ROW * STEPS),
        ("every 100 steps", (2 * STEPS // 100 + 25 * 100) * ROW),
        ("8 MiB", 8 << 20),
        (3 << 20, 3 << 20),
    ],
)
def test_the_peak_of_the_gradient_of_ten_thousand_steps(policy, bound):
    values = [numbers(STEPS, BATCH, HIDDEN), numbers(BATCH, HIDDEN), numbers(BATCH, HIDDEN),
              numbers(HIDDEN, 4 * HIDDEN, seed=1), numbers(HIDDEN, 4 * HIDDEN, seed=2)]  # fmt: skip
    f = lstm_gradient(policy)
    f(values[0][:3], *values[1:])  # the kernels are loaded
    memory.free()
    gc.collect()
    tracemalloc.start()
    try:
        found = f(*values)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < bound + BESIDE
    for a, b in zip(found, lstm_gradient("carries")(*values), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4 * np.abs(b).max())
