"""Sequences of unequal length in one batch: masks, resets, and padding that nobody feels.

A row of a batch has to be what its sequence is alone: in its states, in the loss and in every
gradient. What padding holds must not even show in the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpuscan
from gpuscan import tensor as T
from gpuscan.examples import cells
from gpuscan.runtime.device import missing

INPUTS, HIDDEN = 3, 4
BIDIRECTIONAL = "bidirectional lstm"
NETWORKS = [*cells.CELLS, BIDIRECTIONAL]


class Network:
    """A cell, or one in both directions, with initial states for each row, and what it learns from:
    the squared distance of all its states from y.

    batch   (x, y, mask, reset, *initial): its mean over the steps; the gradients by x, by the
            initial states and by the parameters; the states. In both directions without resets
    alone   (x, y, *initial): the same of plain sequences, with the sum over steps for the mean;
            on the reference
    """

    def __init__(self, name: str, dtype: str = "float64", device: str | None = None) -> None:
        cell, n, make = cells.CELLS[name.removeprefix("bidirectional ")]
        self.both, self.dtype, self.device = name == BIDIRECTIONAL, dtype, device
        self.step, ways = cell(HIDDEN), 1 + self.both
        with gpuscan.config.change_flags(floatX=dtype):
            rng = np.random.default_rng(5)
            self.parameters = [make(INPUTS, HIDDEN, rng) for _ in range(ways)]
            self.x, self.y = T.tensor3s("x", "y")
            self.mask, self.reset = T.matrices("mask", "reset")
            self.initial = [T.matrix(f"s{k}") for k in range(n * ways)]

    def states(self, *flags: Any) -> Any:
        """After all steps, side by side."""
        p, n = self.parameters, len(self.initial) // 2
        if self.both:
            initial = [self.initial[:n], self.initial[n:]]
            found, _ = cells.bidirectional(self.step, self.x, initial, p, *flags)
        else:
            found, _ = cells.run(self.step, self.x, self.initial, p[0], *flags)
        return T.concatenate(found, axis=2)

    def function(self, inputs: Sequence[Any], loss: Any, h: Any, device: str | None) -> Any:
        weights = [v for p in self.parameters for v in p.values()]
        gradients = T.grad(loss, [self.x, *self.initial, *weights])
        inputs = [self.x, self.y, *inputs, *self.initial]
        return gpuscan.function(inputs, [loss, *gradients, h], device=device)

    @cached_property
    def batch(self) -> Any:
        flags = [self.mask] if self.both else [self.mask, self.reset]
        h = self.states(*flags)
        errors = T.sqr(h - cells.without_padding(self.y, self.mask)).sum(axis=2)
        return self.function(flags, cells.masked_mean(errors, self.mask), h, self.device)

    @cached_property
    def alone(self) -> Any:
        h = self.states()
        return self.function([], T.sqr(h - self.y).sum(), h, "reference")

    def __call__(self, x: Any, y: Any, initial: Any, mask: Any, reset: Any = None) -> list[Any]:
        """`batch` of values."""
        reset = np.zeros_like(mask) if reset is None else reset
        flags = [mask] if self.both else [mask, reset]
        return self.batch(x, y, *(np.asarray(f, self.dtype) for f in flags), *initial)

    def values(self, steps: int, rows: int, seed: int) -> tuple[Any, Any, list[Any]]:
        """x, y, and the initial states."""
        rng, n = np.random.default_rng(seed), len(self.initial)
        shapes = [(steps, rows, INPUTS), (steps, rows, n * HIDDEN), *[(rows, HIDDEN)] * n]
        x, y, *initial = (rng.normal(size=shape).astype(self.dtype) for shape in shapes)
        return x, y, initial

    def row_by_row(self, x: Any, y: Any, initial: Any, steps: Sequence[np.ndarray]) -> list[Any]:
        """The results of `batch` from each row's steps run alone; the states are 0 elsewhere."""
        n, count = len(initial), max(sum(map(len, steps)), 1)
        by_x, h = np.zeros_like(x), np.zeros_like(y)
        loss, by_initial, by_weights = [], [], []
        for row, own in enumerate(steps):
            cut = np.s_[own, row : row + 1]
            one, g, *gradients, states = self.alone(
                x[cut], y[cut], *(s[row : row + 1] for s in initial)
            )
            by_x[cut], h[cut] = g / count, states
            loss.append(one / count)
            by_initial.append([g[0] / count for g in gradients[:n]])
            by_weights.append([g / count for g in gradients[n:]])
        stacked = [np.stack(g) for g in zip(*by_initial)]
        return [sum(loss), by_x, *stacked, *(sum(g) for g in zip(*by_weights)), h]


network = cache(Network)


def mask_of(lengths: Sequence[int], steps: int) -> np.ndarray:
    return np.arange(steps)[:, None] < np.array(lengths)


def assert_close(found: Sequence[Any], wanted: Sequence[Any]) -> None:
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, 1e-10, 1e-12)


def assert_equal(found: Sequence[Any], wanted: Sequence[Any]) -> None:
    """To the last bit, and without a NaN."""
    for a, b in zip(found, wanted, strict=True):
        assert np.isfinite(b).all()
        np.testing.assert_array_equal(a, b)


# ---- padding -------------------------------------------------------------------------------------

GARBAGE = np.array([np.nan, np.inf, -np.inf, 1e30, -1e-30, 0.0, 7.0])


def feels_no_padding(net: Network, mask: np.ndarray) -> None:
    x, y, initial = net.values(*mask.shape, seed=1)
    wanted, draws = net(x, y, initial, mask), np.random.default_rng(2)
    for v in (x, y):
        v[~mask] = draws.choice(GARBAGE, v[~mask].shape)
    assert_equal(net(x, y, initial, mask), wanted)
    assert not wanted[1][~mask].any()  # the gradient by x
    assert all(g.any() for g in wanted)
    if net.batch.device != "reference":
        loops = net.batch.explain().scans
        assert {loop.path for loop in loops} == {"fused"}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_the_padding_holds_does_not_show(name: str) -> None:
    feels_no_padding(network(name), mask_of([7, 0, 3, 1, 5], 7))


def test_nor_in_float32_nor_what_a_gap_holds() -> None:
    feels_no_padding(network("lstm", "float32"), np.random.default_rng(3).random((9, 5)) < 0.6)


@pytest.mark.own_device
@pytest.mark.skipif(bool(missing("emulated")), reason="no C++ compiler")
def test_nor_on_the_emulated_device() -> None:
    feels_no_padding(network("elman", "float32", "emulated"), mask_of([5, 0, 2], 5))


@pytest.mark.parametrize("more", [1, 6, 30])
@pytest.mark.parametrize("name", ["gru", BIDIRECTIONAL])
def test_more_padding_does_not_show(name: str, more: int) -> None:
    """But in the last bits of sums over the steps, which may be taken in another order."""
    net, lengths = network(name), [6, 0, 4]
    x, y, initial = net.values(6, 3, seed=1)
    longer = [np.pad(v, ((0, more), (0, 0), (0, 0)), constant_values=np.nan) for v in (x, y)]
    wanted = net(x, y, initial, mask_of(lengths, 6))
    found = net(*longer, initial, mask_of(lengths, 6 + more))
    found[1], found[-1] = found[1][:6], found[-1][:6]
    assert_close(found, wanted)
    assert_equal(found[-1:], wanted[-1:])


@pytest.mark.parametrize("name", NETWORKS)
@given(lengths=st.lists(st.integers(0, 7), min_size=1, max_size=5), more=st.integers(0, 2))
def test_a_row_is_its_sequence_alone(name: str, lengths: list[int], more: int) -> None:
    net, mask = network(name), mask_of(lengths, max(lengths) + more)
    x, y, initial = net.values(*mask.shape, seed=sum(lengths))
    *found, h = net(x, y, initial, mask)
    h[~mask] = 0
    assert_close([*found, h], net.row_by_row(x, y, initial, [np.arange(n) for n in lengths]))


def stays_as_it_is(h: np.ndarray, initial: Sequence[np.ndarray], mask: np.ndarray) -> None:
    before = np.concatenate([np.concatenate(initial, axis=1)[None], h[:-1]])
    np.testing.assert_array_equal(h[~mask], before[~mask])


@given(seed=st.integers(0, 2**32 - 1))
def test_a_gap_is_left_out(seed: int) -> None:
    net, mask = network("lstm"), np.random.default_rng(seed).random((6, 3)) < 0.5
    x, y, initial = net.values(6, 3, seed)
    *found, h = net(x, y, initial, mask)
    stays_as_it_is(h, initial, mask)
    h[~mask] = 0
    steps = [np.flatnonzero(m) for m in mask.T]
    assert_close([*found, h], net.row_by_row(x, y, initial, steps))


@pytest.mark.parametrize("steps", [0, 4])
def test_padding_alone_is_a_loss_of_0(steps: int) -> None:
    net, mask = network(BIDIRECTIONAL), np.zeros((steps, 2))
    x, y, (h1, c1, h2, c2) = net.values(steps, 2, seed=0)
    loss, *gradients, states = net(x * np.nan, y * np.nan, (h1, c1, h2, c2), mask)
    assert loss == 0
    for g in gradients:
        np.testing.assert_array_equal(g, 0)
    before = np.concatenate([h1, h2, c1, c2], axis=1)
    np.testing.assert_array_equal(states, np.broadcast_to(before, states.shape))


@pytest.mark.parametrize("dtype", ["bool", "int8", "float64"])
def test_a_mask_of_any_dtype(dtype: str) -> None:
    """None of them makes the states or the loss wider."""
    x, mask = T.ftensor3("x"), T.TensorType(dtype, (False, False))("mask")
    p = cells.elman_parameters(INPUTS, HIDDEN, np.random.default_rng(5))
    h = cells.run(cells.elman, x, [cells.zeros(x, HIDDEN)], p, mask)[0][0]
    loss = cells.masked_mean(T.sqr(h).sum(axis=2), mask)
    assert loss.dtype == h.dtype == "float32"
    values = np.random.default_rng(0).normal(size=(4, 2, INPUTS)).astype("float32")
    there = mask_of([2, 4], 4)
    found, states = gpuscan.function([x, mask], [loss, h])(values, there.astype(dtype))
    assert found == pytest.approx((states[there] ** 2).sum() / 6, rel=1e-6)


# ---- resets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cells.CELLS)
@given(seed=st.integers(0, 2**32 - 1), lengths=st.lists(st.integers(0, 7), min_size=1, max_size=3))
def test_a_reset_starts_another_sequence(name: str, seed: int, lengths: list[int]) -> None:
    """Flags in the padding are nothing too."""
    net, mask = network(name), mask_of(lengths, max(lengths) + 1)
    x, y, initial = net.values(*mask.shape, seed)
    reset = np.random.default_rng(seed).random(mask.shape) < 0.3
    *found, h = net(x, y, initial, mask, reset)
    stays_as_it_is(h, initial, mask)
    h[~mask] = 0

    parts = [
        (row, part)
        for row, n in enumerate(lengths)
        for part in np.split(np.arange(n), np.flatnonzero(reset[:n, row]))
    ]
    row = np.array([r for r, _ in parts])
    wanted = net.row_by_row(
        x[:, row], y[:, row], [s[row] for s in initial], [part for _, part in parts]
    )
    belongs = (row == np.arange(len(lengths))[:, None]).astype(float)  # (row, part)
    for k in (1, -1):
        wanted[k] = np.einsum("rp,tpi->tri", belongs, wanted[k])
    for k in range(2, 2 + len(initial)):
        wanted[k] = belongs @ wanted[k]
    assert_close([*found, h], wanted)


def test_no_gradient_passes_a_reset() -> None:
    """Of a loss of the last state alone, to the bit."""
    x, reset = T.ftensor3("x"), T.fmatrix("reset")
    initial = [T.fmatrix(f"s{k}") for k in range(2)]
    p = cells.lstm_parameters(INPUTS, HIDDEN, np.random.default_rng(0))
    states, _ = cells.run(cells.lstm(HIDDEN), x, initial, p, reset=reset)
    loss = sum(T.sum(T.sin(s[-1])) for s in states)
    f = gpuscan.function([x, reset, *initial], T.grad(loss, [x, *initial, *p.values()]))
    rng, starts = np.random.default_rng(1), np.array([0, 2, 5])
    values = rng.normal(size=(6, 3, INPUTS)).astype("float32")
    before = [rng.normal(size=(3, HIDDEN)).astype("float32") for _ in range(2)]
    steps = np.arange(6)[:, None]
    flags = (steps == starts).astype("float32")
    wanted = f(values, flags, *before)
    np.testing.assert_array_equal(wanted[0].any(axis=2), steps >= starts)
    values[steps < starts] += 1
    assert_equal(f(values, flags, *before), wanted)
