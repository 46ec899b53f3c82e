"""Sorting, searching and counting, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpuscan.tensor  # noqa: F401
from gpuscan.errors import NullTypeGradError
from gpuscan.evaluate import Program
from gpuscan.gradient import grad
from gpuscan.graph import Variable
from gpuscan.ops import sorting
from gpuscan.ops.convert import as_tensor, constant
from gpuscan.types import TensorType

RNG = np.random.default_rng(0)
AXES = [None, 0, 1, -1]


def tensor(dtype: str, *sizes: int | None) -> Variable:
    return TensorType(dtype, sizes)()


def run(out: Variable, values: dict[Variable, Any]) -> Any:
    arrays = [v.type.filter(x) for v, x in values.items()]
    return Program(list(values), [out])(*arrays)[0]


def check(out: Variable, values: dict[Variable, Any], expected: Any) -> None:
    """The value and dtype, and the static and symbolic sizes."""
    got = run(out, values)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert np.shape(got) == np.shape(expected)
    assert np.asarray(got).dtype == out.dtype
    assert all(s is None or s == t for s, t in zip(out.type.shape, np.shape(expected), strict=True))
    for size, s in zip(out.op.sizes(out.inputs, out) or (), np.shape(expected)):
        assert run(size, values) == s


def check_gradient(out: Variable, values: dict[Variable, Any], x: Variable) -> None:
    cost = (out * out * constant(RNG.standard_normal(run(out, values).shape))).sum()
    step = RNG.standard_normal(values[x].shape)
    ends = [run(cost, {**values, x: values[x] + e * step}) for e in (1e-6, -1e-6)]
    slope = (ends[0] - ends[1]) / 2e-6
    assert abs(slope - (run(grad(cost, x), values) * step).sum()) <= 1e-5 * (1 + abs(slope))


# ---- sorting --------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", AXES)
def test_sort_and_argsort_are_numpys(axis: int | None) -> None:
    x, value = tensor("float64", None, 4), RNG.integers(0, 4, (5, 4)).astype("float64")
    check(sorting.sort(x, axis), {x: value}, np.sort(value, axis))
    check(sorting.argsort(x, axis), {x: value}, np.argsort(value, axis, kind="stable"))


@pytest.mark.parametrize("axis", AXES)
def test_gradient_of_sort_undoes_the_order(axis: int | None) -> None:
    x, value = tensor("float64", None, None), RNG.standard_normal((3, 4))
    check_gradient(sorting.sort(x, axis), {x: value}, x)


def test_sorting_of_a_batch_is_that_of_its_rows() -> None:
    x, rows = tensor("float64", None, None), tensor("float64", None, None, None)
    value = RNG.standard_normal((2, 3, 4))
    n = as_tensor(np.int64(2))
    for f, g in ((sorting.sort, np.sort), (sorting.argsort, np.argsort)):
        batch = f(x, 0).op.batch([rows], [True], n)
        check(batch, {rows: value}, np.stack([g(v, 0) for v in value]))


@given(st.integers(1, 4), st.booleans(), st.sampled_from([None, 0, 1]))
@settings(deadline=None)
def test_topk_is_the_end_of_the_order(k: int, smallest: bool, axis: int | None) -> None:
    x, value = tensor("float64", None, 4), RNG.standard_normal((4, 4))
    ordered = np.sort(value if smallest else -value, axis)
    kept = ordered[:k] if axis in (None, 0) else ordered[:, :k]
    top, where = sorting.topk_and_argtopk(x, -k if smallest else k, axis)
    check(top, {x: value}, kept if smallest else -kept)
    flat = value.reshape(-1) if axis is None else value
    expected = np.take_along_axis(flat, run(where, {x: value}), axis or 0)
    np.testing.assert_array_equal(run(top, {x: value}), expected)


def test_take_along_axis_is_numpys() -> None:
    x, i = tensor("float64", None, 3), tensor("int64", None, 3)
    values = {x: RNG.standard_normal((4, 3)), i: RNG.integers(-4, 4, (2, 3))}
    check(sorting.take_along_axis(x, i, 0), values, np.take_along_axis(values[x], values[i], 0))
    check_gradient(sorting.take_along_axis(x, i, 0), values, x)


# ---- search ---------------------------------------------------------------------------------


def test_nonzero_is_numpys() -> None:
    x, value = tensor("float64", None, None), RNG.integers(0, 2, (3, 4)).astype("float64")
    for got, expected in zip(sorting.nonzero(x), np.nonzero(value), strict=True):
        check(got, {x: value}, expected)
    check(sorting.nonzero(x, return_matrix=True), {x: value}, np.array(np.nonzero(value)))
    check(sorting.flatnonzero(x), {x: value}, np.flatnonzero(value))
    check(sorting.nonzero_values(x), {x: value}, value[value != 0])
    check_gradient(sorting.nonzero_values(x), {x: value + 1}, x)
    with pytest.raises(ValueError, match="non-scalar"):
        sorting.nonzero(tensor("float64"))


@pytest.mark.parametrize("side", ["left", "right"])
def test_searchsorted_is_numpys(side: Any) -> None:
    x, v, order = tensor("int32", None), tensor("int32", None, 2), tensor("int64", None)
    values = {x: np.array([1, 3, 3, 7], "int32"), v: np.array([[0, 3], [7, 9]], "int32")}
    expected = np.searchsorted(values[x], values[v], side)
    check(sorting.searchsorted(x, v, side), values, expected)
    shuffled = values[x][::-1].copy()
    values = {x: shuffled, v: values[v], order: np.argsort(shuffled)}
    check(sorting.searchsorted(x, v, side, order), values, expected)
    check(sorting.searchsorted(x, 3, side), {x: np.array([1, 3], "int32")}, 1 + (side == "right"))


def test_unique_is_numpys_and_has_no_gradient() -> None:
    x, value = tensor("float64", None, None), np.array([[3.0, 1], [1, 2]])
    check(sorting.unique(x), {x: value}, [1, 2, 3])
    with pytest.raises(NullTypeGradError):
        grad(sorting.unique(x).sum(), x)


def test_bincount_is_numpys() -> None:
    x, w, n = tensor("int32", None), tensor("float64", None), tensor("int64")
    at = np.array([3, 1, 3], "int32")
    check(sorting.bincount(x), {x: at}, np.bincount(at))
    check(sorting.bincount(x, minlength=6), {x: at}, np.bincount(at, minlength=6))
    check(sorting.bincount(x, minlength=n), {x: at, n: 2}, np.bincount(at, minlength=2))
    check(sorting.bincount(x), {x: np.zeros(0, "int32")}, [])
    values = {x: at, w: RNG.standard_normal(3)}
    check(sorting.bincount(x, w), values, np.bincount(at, values[w]))
    check_gradient(sorting.bincount(x, w), values, w)


# ---- differences and choice -----------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_diff_is_numpys(axis: int) -> None:
    x, value = tensor("float64", None, 4), RNG.standard_normal((3, 4))
    for n in range(4):
        check(sorting.diff(x, n, axis), {x: value}, np.diff(value, n, axis))
    check_gradient(sorting.diff(x, 2, axis), {x: value}, x)


@pytest.mark.parametrize("axis", AXES)
def test_ptp_is_numpys(axis: int | None) -> None:
    x, value = tensor("float64", None, 4), RNG.standard_normal((3, 4))
    check(sorting.ptp(x, axis), {x: value}, np.ptp(value, axis))


@pytest.mark.parametrize("mode", ["raise", "clip", "wrap"])
def test_choose_is_numpys(mode: Any) -> None:
    a, b, c = tensor("int64", None, None), tensor("float64", None), tensor("float64", None, 1)
    at = RNG.integers(0, 2, (3, 4)) if mode == "raise" else RNG.integers(-5, 5, (3, 4))
    values = {a: at, b: RNG.standard_normal(4), c: RNG.standard_normal((3, 1))}
    expected = np.choose(at, [values[b], values[c]], mode=mode)
    check(sorting.choose(a, [b, c], mode=mode), values, expected)
    check_gradient(sorting.choose(a, [b, c], mode=mode), values, c)


def test_choose_out_of_range() -> None:
    a = tensor("int64", None)
    with pytest.raises(IndexError, match="index 2 is out of bounds"):
        run(sorting.choose(a, [1.0, 2.0]), {a: np.array([2])})
