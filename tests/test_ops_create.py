"""Tensors from sizes, and rearrangements, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpuscan.tensor  # noqa: F401
from gpuscan.config import config
from gpuscan.evaluate import Program
from gpuscan.gradient import grad
from gpuscan.graph import Variable
from gpuscan.ops import create
from gpuscan.ops.convert import constant
from gpuscan.ops.shape import dim, shape
from gpuscan.types import TensorType

RNG = np.random.default_rng(0)


def tensor(dtype: str, *sizes: int | None) -> Variable:
    return TensorType(dtype, sizes)()


def run(out: Variable, values: dict[Variable, Any]) -> Any:
    arrays = [v.type.filter(x) for v, x in values.items()]
    return Program(list(values), [out])(*arrays)[0]


def check(out: Variable, values: dict[Variable, Any], expected: Any) -> None:
    """The value and dtype, the static sizes, and the symbolic sizes where there are any."""
    got = run(out, values)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert np.shape(got) == np.shape(expected)
    assert np.asarray(got).dtype == out.dtype
    assert all(s is None or s == t for s, t in zip(out.type.shape, np.shape(expected), strict=True))
    sizes = out.op.sizes(out.inputs, out) if out.inputs else None
    for size, s in zip(sizes or (), np.shape(expected)):
        assert size.dtype == "int64" and run(size, values) == s


def check_gradient(f: Callable[..., Variable], *arrays: Any) -> None:
    """The gradient of f's weighted sum of squares against differences, for unknown sizes."""
    xs = [tensor("float64", *[None] * np.ndim(a)) for a in arrays]
    values = dict(zip(xs, arrays))
    out = f(*xs)
    cost = (out * out * constant(RNG.standard_normal(run(out, values).shape))).sum()
    for x, g in zip(xs, grad(cost, xs)):
        step = RNG.standard_normal(values[x].shape)
        ends = [run(cost, {**values, x: values[x] + e * step}) for e in (1e-5, -1e-5)]
        slope = (ends[0] - ends[1]) / 2e-5
        assert abs(slope - (run(g, values) * step).sum()) <= 1e-6 * (1 + abs(slope))
        assert x.type.accepts(g.type)


# ---- filled ---------------------------------------------------------------------------------


def test_filled_of_every_kind_of_size() -> None:
    x, n = tensor("float32", None, 3), tensor("int32")
    values = {x: np.zeros((4, 3), "float32"), n: 2}
    check(create.zeros(3), {}, np.zeros(3))
    check(create.zeros((), "int8"), {}, np.int8(0))
    check(create.ones((n, 3)), {n: 2}, np.ones((2, 3)))
    check(create.zeros(shape(x), "float32"), values, np.zeros((4, 3)))
    check(create.zeros(x.shape[1:]), values, np.zeros(3))
    check(create.alloc(2.5, n, 3), {n: 2}, np.full((2, 3), 2.5))
    check(create.alloc(x, n, *shape(x)), values, np.zeros((2, 4, 3)))
    check(create.full((2, n), 7, "int64"), {n: 2}, np.full((2, 2), 7))


def test_default_dtype_is_floatx() -> None:
    with config.change_flags(floatX="float32"):
        assert create.zeros(2).dtype == create.ones(2).dtype == create.eye(2).dtype == "float32"


def test_gradient_of_alloc() -> None:
    check_gradient(lambda v: create.alloc(v, 2, 3), RNG.standard_normal(3))


# ---- ranges ---------------------------------------------------------------------------------


@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(-4, 4).filter(bool), st.booleans())
@settings(deadline=None)
def test_arange_is_numpys(start: int, stop: int, step: int, symbolic: bool) -> None:
    expected = np.arange(start, stop, step)
    if not symbolic:
        out = create.arange(start, stop, step)
        assert out.type.shape == expected.shape
        check(out, {}, expected)
        return
    bounds = [tensor("int32") for _ in range(3)]
    check(create.arange(*bounds), dict(zip(bounds, (start, stop, step))), expected)
    floats = [tensor("float64") for _ in range(3)]
    values = (start / 2, stop / 2, step / 2)
    check(create.arange(*floats), dict(zip(floats, values)), np.arange(*values))


def test_dtype_of_arange() -> None:
    assert create.arange(3).dtype == create.arange(tensor("int8")).dtype == "int64"
    assert create.arange(tensor("float32")).dtype == "float32"
    assert create.arange(tensor("int32"), tensor("float32")).dtype == "float64"
    assert create.arange(3, dtype="float32").dtype == "float32"


def test_length_of_arange_of_a_size_is_the_size() -> None:
    x = tensor("float32", None)
    out = create.arange(dim(x, 0))
    check(out, {x: np.zeros(4, "float32")}, np.arange(4))


def test_gradient_of_arange() -> None:
    check_gradient(lambda a, d: create.arange(a, 1.0, d), np.array(0.1), np.array(0.25))


def test_arange_needs_a_step_and_scalars() -> None:
    with pytest.raises(ValueError, match="step is 0"):
        create.arange(0, 3, 0)
    with pytest.raises(TypeError, match="must be scalars"):
        create.arange(tensor("int64", 3))


def test_grids() -> None:
    n = tensor("int64")
    for ours, theirs in ((create.mgrid, np.mgrid), (create.ogrid, np.ogrid)):
        for got, expected in zip(ours[0:n, 1:8:3], theirs[0:4, 1:8:3], strict=True):
            check(got, {n: 4}, expected)


def test_linspace_is_numpys() -> None:
    a = tensor("float64")
    check(create.linspace(a, 2.0, 7), {a: -1.0}, np.linspace(-1, 2, 7))
    check(create.linspace(a, 2.0, 1), {a: -1.0}, np.linspace(-1, 2, 1))


# ---- triangles and diagonals ----------------------------------------------------------------


@given(st.integers(0, 4), st.integers(0, 4), st.integers(-5, 5))
@settings(deadline=None)
def test_matrices_with_diagonals_are_numpys(n: int, m: int, k: int) -> None:
    rows, columns, at = (tensor("int64") for _ in range(3))
    values = {rows: n, columns: m, at: k}
    assert create.eye(n, m, k).type.shape == (n, m)
    check(create.eye(rows, columns, at), values, np.eye(n, m, k))
    check(create.tri(rows, columns, at), values, np.tri(n, m, k))
    x = tensor("float64", None, None)
    values = {x: RNG.standard_normal((n, m)), at: k}
    check(create.tril(x, at), values, np.tril(values[x], k))
    check(create.triu(x, at), values, np.triu(values[x], k))
    if -n <= k <= m:
        expected = np.diagonal(values[x], k)
        check(create.diagonal(x, at), values, expected)
        check(create.diagonal(x, k), {x: values[x]}, expected)
        check(create.fill_diagonal_offset(x, 7.0, at), values, _filled(values[x], k))


def _filled(x: Any, k: int) -> Any:
    return np.where(np.eye(*x.shape, k) == 1, 7.0, x)


def test_diagonal_of_other_axes() -> None:
    x = tensor("float64", None, 3, None)
    value = RNG.standard_normal((2, 3, 4))
    for axes in ((0, 2), (2, 1), (-1, 0)):
        check(create.diagonal(x, 1, *axes), {x: value}, np.diagonal(value, 1, *axes))


@given(st.integers(0, 4), st.integers(-3, 3))
@settings(deadline=None)
def test_diag_is_numpys(n: int, k: int) -> None:
    v, at = tensor("float64", None), tensor("int64")
    value = RNG.standard_normal(n)
    check(create.diag(v, k), {v: value}, np.diag(value, k))
    check(create.diag(v, at), {v: value, at: k}, np.diag(value, k))
    assert create.diag(tensor("float64", n), k).type.shape == (n + abs(k),) * 2


def test_trace_and_identity() -> None:
    x = tensor("float32", None, None)
    value = {x: RNG.standard_normal((3, 4)).astype("float32")}
    check(create.trace(x), value, np.trace(value[x]))
    check(create.identity_like(x), value, np.eye(3, 4, dtype="float32"))


def test_fill_diagonal_is_numpys() -> None:
    for sizes in ((3, 3), (5, 2), (2, 5), (3, 3, 3)):
        x, value = tensor("float64", *[None] * len(sizes)), RNG.standard_normal(sizes)
        expected = value.copy()
        np.fill_diagonal(expected, 7)
        check(create.fill_diagonal(x, 7), {x: value}, expected)


def test_gradients_of_diagonals() -> None:
    m, v = RNG.standard_normal((3, 4)), RNG.standard_normal(3)
    check_gradient(lambda x: create.diag(x, 1), m)
    check_gradient(lambda x: create.diag(x, -1), v)
    check_gradient(create.tril, m)
    check_gradient(create.triu, m)
    check_gradient(create.fill_diagonal, m, np.array(2.0))


def test_one_hot() -> None:
    y = tensor("int32", None)
    check(create.to_one_hot(y, 4), {y: np.array([2, 0], "int32")}, np.eye(4)[[2, 0]])


# ---- repetition -----------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_repeat_is_numpys(axis: int | None) -> None:
    x, n, c = tensor("float64", None, 3), tensor("int64"), tensor("int32", None)
    value = RNG.standard_normal((2, 3))
    check(create.repeat(x, 2, axis), {x: value}, np.repeat(value, 2, axis))
    check(create.repeat(x, n, axis), {x: value, n: 0}, np.repeat(value, 0, axis))
    counts = np.arange(6 if axis is None else value.shape[axis], dtype="int32")
    check(create.repeat(x, c, axis), {x: value, c: counts}, np.repeat(value, counts, axis))
    assert create.repeat(x, 2, 1).type.shape == (None, 6)


def test_repeat_with_too_few_counts() -> None:
    x = tensor("float64", None)
    with pytest.raises(ValueError, match="2 counts for an axis of size 3"):
        run(create.repeat(x, np.array([1, 2])), {x: np.zeros(3)})


@given(st.lists(st.integers(0, 3), max_size=3), st.lists(st.integers(0, 3), max_size=2))
@settings(deadline=None)
def test_tile_is_numpys(sizes: list[int], reps: list[int]) -> None:
    value = RNG.standard_normal(sizes)
    x, n = tensor("float64", *[None] * len(sizes)), tensor("int64")
    check(create.tile(x, reps), {x: value}, np.tile(value, reps))
    symbolic = [n, *reps[1:]] if reps else []
    values = {x: value, n: reps[0]} if reps else {x: value}
    check(create.tile(x, symbolic), values, np.tile(value, reps))
    width = max(len(sizes), len(reps)) + 1
    check(
        create.tile(x, reps, ndim=width),
        {x: value},
        np.tile(value, [1] * (width - len(reps)) + reps),
    )


@given(st.integers(0, 4), st.integers(-9, 9), st.sampled_from([None, 0, 1]))
@settings(deadline=None)
def test_roll_is_numpys(n: int, by: int, axis: int | None) -> None:
    x, k, value = tensor("float64", None, 3), tensor("int64"), RNG.standard_normal((n, 3))
    check(create.roll(x, by, axis), {x: value}, np.roll(value, by, axis))
    check(create.roll(x, k, axis), {x: value, k: by}, np.roll(value, by, axis))
    assert create.roll(x, by, axis).type == x.type
    if axis != 1:
        v, row = tensor("float64", None), value[:, 0]
        check(create.roll(v, by, axis), {v: row}, np.roll(row, by, axis))


def test_gradients_of_repetition() -> None:
    m = RNG.standard_normal((2, 3))
    check_gradient(lambda x: create.repeat(x, 2, 1), m)
    check_gradient(lambda x: create.repeat(x, np.array([0, 2]), 0), m)
    check_gradient(lambda x: create.tile(x, (2, 2)), m)
    check_gradient(lambda x: create.roll(x, 2, 1), m)


# ---- axes -----------------------------------------------------------------------------------


def test_flatten_is_theanos() -> None:
    x, value = tensor("float64", None, 2, 3), RNG.standard_normal((0, 2, 3))
    for v in (value, RNG.standard_normal((4, 2, 3))):
        check(create.flatten(x), {x: v}, v.reshape(-1))
        check(create.flatten(x, 2), {x: v}, v.reshape(len(v), 6))
        check(create.flatten(x, 3), {x: v}, v)
    assert create.flatten(x, 2).type.shape == (None, 6)
    assert create.flatten(tensor("float64")).type.shape == (1,)
    with pytest.raises(ValueError, match="out of bound"):
        create.flatten(x, 4)


def test_axes_of_size_one() -> None:
    x = tensor("float64", 1, None, 1)
    assert create.squeeze(x).ndim == 1
    assert create.shape_padleft(x, 2).type.shape == (1, 1, 1, None, 1)
    assert create.shape_padright(x).type.shape == (1, None, 1, 1)
    assert create.shape_padaxis(x, 1).type.shape == (1, 1, None, 1)
    assert create.expand_dims(x, -1).type.shape == (1, None, 1, 1)
    assert create.addbroadcast(x, 1).broadcastable == (True, True, True)
    assert create.unbroadcast(x, 0, 2).broadcastable == (False, False, False)
    assert create.patternbroadcast(x, (False, True, True)).broadcastable == (False, True, True)
    assert create.atleast_2d(tensor("float64")).ndim == 2
    assert create.atleast_1d(x) is x


def test_axes_moved_are_numpys() -> None:
    x, value = tensor("float64", None, 2, 3), RNG.standard_normal((4, 2, 3))
    check(create.swapaxes(x, 0, -1), {x: value}, np.swapaxes(value, 0, -1))
    check(create.moveaxis(x, (0, 1), (-1, 0)), {x: value}, np.moveaxis(value, (0, 1), (-1, 0)))
    for axis in range(3):
        for start in range(4):
            check(create.rollaxis(x, axis, start), {x: value}, np.rollaxis(value, axis, start))


# ---- cut and joined -------------------------------------------------------------------------


def test_split_gives_parts_of_the_sizes() -> None:
    x, sizes = tensor("float64", None, 6), tensor("int64", None)
    value, where = RNG.standard_normal((2, 6)), np.array([1, 0, 5])
    for part, expected in zip(create.split(x, [1, 0, 5], 3, axis=1), np.split(value, [1, 1], 1)):
        check(part, {x: value}, expected)
    values = {x: value, sizes: where}
    for part, expected in zip(create.split(x, sizes, 3, axis=-1), np.split(value, [1, 1], 1)):
        check(part, values, expected)
    assert [p.type.shape for p in create.split(x, [2, 4], 2, 1)] == [(None, 2), (None, 4)]


def test_split_of_sizes_that_do_not_add_up() -> None:
    x, sizes = tensor("float64", None, 6), tensor("int64", None)
    with pytest.raises(ValueError, match="the sizes add up to 5, the axis is 6"):
        create.split(x, [2, 3], 2, 1)
    (part, _) = create.split(x, sizes, 2, 0)
    with pytest.raises(ValueError, match="promised to have size 3 and has 2"):
        run(part, {x: np.zeros((2, 6)), sizes: np.array([1, 2])})


def test_gradient_of_split() -> None:
    def halves(x: Variable) -> Variable:
        a, b = create.split(x, [1, 2], 2, 0)
        return create.vertical_stack(b, a * a)

    check_gradient(halves, RNG.standard_normal((3, 2)))


def test_stacks_of_matrices() -> None:
    x, value = tensor("float64", None, 3), RNG.standard_normal((2, 3))
    check(create.horizontal_stack(x, x), {x: value}, np.hstack([value, value]))
    check(create.vertical_stack(x, x), {x: value}, np.vstack([value, value]))
    with pytest.raises(TypeError, match="matrices are needed"):
        create.vertical_stack(x, tensor("float64", 3))
