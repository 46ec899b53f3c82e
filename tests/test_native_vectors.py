"""Loops in vectors: what they read with a choice of place, which is rolled, joined or padded, and
sums of what lies together."""

import itertools
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscan import function, scan
from gpuscan import tensor as T
from gpuscan.runtime import compiler
from gpuscan.types import TensorType

pytestmark = pytest.mark.skipif(compiler.find() is None, reason="there is no C compiler")


def both(step: Any, x: np.ndarray, static: bool) -> None:
    """The step in a loop, on native and by the reference: elementwise chains are equal."""
    known = x.shape if static else (None,) * x.ndim
    v = TensorType(x.dtype.name, known)("x")
    out, _ = scan(step, outputs_info=[v], n_steps=3)
    one, other = (function([v], out, device=d)(x) for d in ("native", "reference"))
    np.testing.assert_array_equal(one, other)


@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple),
    axis=st.integers(0, 2), shift=st.integers(-7, 7), static=st.booleans(), function=st.booleans(),
    dtype=st.sampled_from(["float32", "float64", "int32"]),
)  # fmt: skip
def test_what_is_rolled(
    shape: tuple[int, ...], axis: int, shift: int, static: bool, function: bool, dtype: str
) -> None:
    x = (np.arange(np.prod(shape)).reshape(shape) % 7 - 3).astype(dtype)
    axis %= len(shape)

    def step(y: Any) -> Any:
        moved = T.roll(y, shift, axis) - T.roll(y, 1, -1)
        return T.cast(T.tanh(moved) if function and dtype != "int32" else moved * 3, dtype)

    both(step, x, static)


@given(
    sizes=st.lists(st.integers(0, 5), min_size=2, max_size=4), same=st.booleans(),
    axis=st.integers(0, 1), static=st.booleans(),
)  # fmt: skip
def test_what_is_joined(sizes: list[int], same: bool, axis: int, static: bool) -> None:
    """Parts of one value, in any order, or of two."""
    n = sum(sizes)
    ends = np.cumsum([0, *sizes])
    x = np.linspace(-2, 2, 3 * max(n, 1), dtype="float32").reshape(3, -1)
    x = x if axis else x.T.copy()

    def step(y: Any) -> Any:
        parts = []
        for k, (a, b) in enumerate(itertools.pairwise(ends)):
            source = y if same or k % 2 else y * 2
            parts.append(source[:, int(a) : int(b)] if axis else source[int(a) : int(b)])
        joined = T.concatenate(parts[::-1], axis=axis)
        return T.exp(-T.sqr(joined)) - y if n else y

    both(step, x, static)


def test_a_pad_and_a_difference_in_long_rows() -> None:
    def step(y: Any) -> Any:
        padded = T.concatenate([T.zeros_like(y[:, :2]), y[:, :-2]], axis=1)
        return T.nnet.sigmoid(y - padded) + T.concatenate([y[:, 5:], y[:, :5]], axis=1)

    both(step, np.linspace(-3, 3, 2 * 700, dtype="float32").reshape(2, 700), True)
    both(step, np.linspace(-3, 3, 2 * 9000, dtype="float32").reshape(2, 9000), True)


def test_what_is_rolled_makes_vectors_with_a_function(texts: list[str]) -> None:
    """The loop over the function has no choice in it; what it reads is fetched before it."""
    x = TensorType("float32", (None, 128))("x")
    out, _ = scan(lambda y: T.tanh(T.roll(y, 1, 1) + T.roll(y, -1, 1)), None, [x], n_steps=3)
    function([x], out, device="native")(np.ones((2, 128), "float32"))
    (line,) = [x for x in "".join(texts).splitlines() if "gs_tanh" in x]
    text = "".join(texts).split(line)[0]
    loop = text[text.rindex("#pragma GCC ivdep") :]
    assert "i < 128" in loop.replace(loop.split("long long ")[1].split(" ")[0], "i")
    assert "?" not in loop
    assert text.count("_row[128];") == 2


@pytest.mark.parametrize(
    "known, dtype", [((None, 3, True), "float32"), ((None, None, None), "float64")]
)
def test_sums_of_what_lies_together(known: tuple[Any, ...], dtype: str) -> None:
    """Of sizes that are known and that are not, in which nothing is left out or met twice."""
    sizes, all_axes = (15, 16, 35), ((2,), (0, 2), (0, 1, 2))
    values = [(np.arange(6 * n).reshape(2, 3, n) % 11 - 4).astype(dtype) for n in sizes]
    xs = [TensorType(dtype, (*known[:2], n if known[2] else None))(f"x{n}") for n in sizes]

    def step(*ys: Any) -> Any:
        return [*(y * 2 for y in ys), *((y * 2).sum(axis=a) for a in all_axes for y in ys)]

    outputs, _ = scan(step, None, [*xs, *[None] * len(xs) * len(all_axes)], n_steps=2)
    found = function(xs, outputs[len(xs) :], device="native")(*values)
    want = [[(k * v).sum(axis=a) for k in (2, 4)] for a in all_axes for v in values]
    for got, wanted in zip(found, want, strict=True):
        np.testing.assert_array_equal(got, wanted)  # small whole numbers have exact sums


def test_sums_that_are_not_finite_are_those_of_numpy() -> None:
    value = np.ones((3, 40), "float32")
    value[0, 33], value[1, 5], value[2, [3, 20]] = np.nan, np.inf, [np.inf, -np.inf]
    x = TensorType("float32", (None, 40))("x")
    (_, sums), _ = scan(lambda y: (y * 2, y.sum(axis=1)), None, [x, None], n_steps=2)
    got = function([x], sums, device="native")(value)[1]
    np.testing.assert_array_equal(got, [np.nan, np.inf, np.nan])


def test_a_sum_does_not_wait_for_each_addition(texts: list[str]) -> None:
    x = TensorType("float32", (None, 100))("x")
    out, _ = scan(lambda y: y / y.sum(axis=1, keepdims=True), None, [x], n_steps=2)
    function([x], out, device="native")(np.ones((2, 100), "float32"))
    text = "".join(texts)
    (name,) = re.findall(r"float (s\d+)\[32\];", text)
    assert len(re.findall(rf"{name}\[\w+\] = {name}\[\w+\] \+ v", text)) == 2  # and the rest
