"""Indexing against NumPy: values, static and symbolic sizes, batches, gradients, errors."""

from __future__ import annotations

import operator
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpuscan.tensor  # noqa: F401
from gpuscan.evaluate import Program
from gpuscan.gradient import grad
from gpuscan.graph import Variable
from gpuscan.ops.convert import as_tensor, constant
from gpuscan.ops.create import arange
from gpuscan.ops.index import (
    AdvancedIncSubtensor,
    AdvancedSubtensor,
    IncSubtensor,
    Subtensor,
)
from gpuscan.ops.indexing import getitem, inc_subtensor, set_subtensor, take, user_index
from gpuscan.ops.patterns import Array, At, Slice, slice_length
from gpuscan.ops.shape import Dim, DimShuffle, MakeVector, dim, shape, stack
from gpuscan.types import TensorType

RNG = np.random.default_rng(0)


def run(outputs: Any, values: dict[Variable, Any]) -> Any:
    many = isinstance(outputs, list | tuple)
    program = Program(list(values), list(outputs) if many else [outputs])
    found = program(*(v.type.filter(x) for v, x in values.items()))
    return list(found) if many else found[0]


def tensor(dtype: str, *sizes: int | None) -> Variable:
    return TensorType(dtype, sizes)()


def check(out: Variable, values: dict[Variable, Any], expected: Any) -> None:
    """The value, the dtype, the static sizes and the symbolic sizes agree with `expected`."""
    sizes = out.op.sizes(out.inputs, out)
    got, *lengths = run([out, *(sizes or [])], values)
    expected = np.asarray(expected)
    np.testing.assert_array_equal(got, expected)
    assert np.shape(got) == expected.shape
    assert np.asarray(got).dtype == out.dtype
    assert all(s is None or s == t for s, t in zip(out.type.shape, expected.shape))
    assert out.ndim == expected.ndim
    if sizes is not None:
        assert tuple(int(s) for s in lengths) == expected.shape
        assert all(s.dtype == "int64" for s in sizes)


def takes_part(out: Variable) -> bool:
    """Whether this is an indexing; x[:, None] is not."""
    root = out.inputs[0] if isinstance(out.op, DimShuffle) else out
    return isinstance(root.op, Subtensor | AdvancedSubtensor)


def symbols(index: Any, values: dict[Variable, Any], draw: Any) -> Any:
    """The index with some of its numbers and arrays as inputs."""
    if isinstance(index, tuple):
        return tuple(symbols(i, values, draw) for i in index)
    if isinstance(index, slice):
        return slice(*(symbols(b, values, draw) for b in (index.start, index.stop, index.step)))
    if index is None or index is Ellipsis or not draw(st.booleans()):
        return index
    array = np.asarray(index)
    v = tensor(array.dtype.name, *(None if s != 1 else s for s in array.shape))
    values[v] = array
    return v


bounds = st.none() | st.integers(-6, 6)
slices = st.builds(slice, bounds, bounds, st.none() | st.integers(-3, 3).filter(bool))


@st.composite
def basic(draw: Any) -> tuple[Any, tuple[Any, ...]]:
    """An array and a basic index of it."""
    sizes = draw(st.lists(st.integers(0, 5), min_size=1, max_size=3))
    index: list[Any] = []
    for n in sizes[: draw(st.integers(0, len(sizes)))]:
        at = st.integers(-n, n - 1) if n else slices
        index.append(draw(slices | at))
    for _ in range(draw(st.integers(0, 2))):
        index.insert(draw(st.integers(0, len(index))), None)
    if draw(st.booleans()):
        where = draw(st.integers(0, len(index)))
        index.insert(where, Ellipsis)
        if sum(i is not None for i in index[where + 1 :]):  # keep what follows within its axis
            index = [*index[:where], *[i for i in index[where + 1 :] if i is None], ...]
    return RNG.standard_normal(sizes), tuple(index)


@st.composite
def advanced(draw: Any) -> tuple[Any, tuple[Any, ...]]:
    """An array and an index of it with at least one integer array."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    common = draw(st.lists(st.integers(0, 3), max_size=2))
    index: list[Any] = []
    for n in sizes:
        kind = draw(st.sampled_from(["array", "array", "slice", "at"]))
        if kind == "slice":
            index.append(draw(slices))
        elif kind == "at":
            index.append(draw(st.integers(-n, n - 1)))
        else:
            mine = [draw(st.sampled_from([s, 1])) for s in common]
            mine = mine[draw(st.integers(0, len(mine))) :] or [1]
            index.append(RNG.integers(-n, n, mine))
    if not any(isinstance(i, np.ndarray) for i in index):
        index[0] = RNG.integers(-sizes[0], sizes[0], common or [2])
    if draw(st.booleans()):
        index.insert(draw(st.integers(0, len(index))), None)
    return RNG.standard_normal(sizes), tuple(index)


@st.composite
def cases(draw: Any, kind: Any) -> tuple[Variable, Any, dict[Variable, Any], Any]:
    """x, x's index partly symbolic, the values of both, and what NumPy takes."""
    array, index = draw(kind)
    x = tensor("float64", *(s if draw(st.booleans()) else None for s in array.shape))
    values = {x: array}
    return x, symbols(index, values, draw), values, array[index]


@given(cases(basic() | advanced()))
@settings(max_examples=300, deadline=None)
def test_getitem_is_numpys(case: Any) -> None:
    x, index, values, expected = case
    check(getitem(x, index), values, expected)


@given(cases(basic() | advanced()), st.booleans(), st.data())
@settings(max_examples=300, deadline=None)
def test_set_and_inc_are_numpys(case: Any, set_: bool, data: Any) -> None:
    x, index, values, part = case
    if not takes_part(getitem(x, index)):
        return
    y_array = RNG.standard_normal(part.shape[data.draw(st.integers(0, part.ndim)) :])
    y = tensor("float64", *(1 if s == 1 else None for s in y_array.shape))
    values[y] = y_array
    out = (set_subtensor if set_ else inc_subtensor)(getitem(x, index), y)
    where = np.arange(values[x].size).reshape(values[x].shape)[_numbers(index, values)]
    expected = values[x].copy().reshape(-1)
    if set_:
        expected[where] = y_array
    else:
        np.add.at(expected, where, np.broadcast_to(y_array, where.shape))
    got = run(out, values)
    np.testing.assert_allclose(got, expected.reshape(values[x].shape), rtol=1e-12)
    assert out.type == x.type


def _numbers(index: Any, values: dict[Variable, Any]) -> Any:
    if isinstance(index, tuple):
        return tuple(_numbers(i, values) for i in index)
    if isinstance(index, slice):
        return slice(*(_numbers(b, values) for b in (index.start, index.stop, index.step)))
    return values.get(index, index) if isinstance(index, Variable) else index


@given(cases(basic() | advanced()), st.data())
@settings(max_examples=300, deadline=None)
def test_batch_of_reads_is_a_stack_of_reads(case: Any, data: Any) -> None:
    x, index, values, _ = case
    _check_batch(getitem(x, index), values, data)


@given(cases(basic() | advanced()), st.booleans(), st.data())
@settings(max_examples=300, deadline=None)
def test_batch_of_writes_is_a_stack_of_writes(case: Any, set_: bool, data: Any) -> None:
    x, index, values, part = case
    if not takes_part(getitem(x, index)):
        return
    y = tensor("float64", *(1 if s == 1 else None for s in part.shape))
    values[y] = RNG.standard_normal(part.shape)
    _check_batch((set_subtensor if set_ else inc_subtensor)(getitem(x, index), y), values, data)


def _check_batch(out: Variable, values: dict[Variable, Any], data: Any) -> None:
    while not isinstance(
        out.op, Subtensor | AdvancedSubtensor | IncSubtensor | AdvancedIncSubtensor
    ):
        if not out.inputs or out in values:
            return
        out = out.inputs[0]
    n = data.draw(st.integers(1, 3))
    batched = [v in values and data.draw(st.booleans()) for v in out.inputs]
    if not any(batched):
        return
    inputs, rows, whole = [], dict(values), dict(values)
    for v, b in zip(out.inputs, batched):
        if b:
            wide = v.type.rows()()
            inputs.append(wide)
            order = [RNG.permutation(values[v].size) for _ in range(n)]
            if v.dtype != "float64" and v.ndim == 0:
                order = [np.zeros(1, int)] * n
            rows[v] = [values[v].reshape(-1)[o].reshape(values[v].shape) for o in order]
            whole[wide] = np.stack(rows[v])
            del whole[v]
        else:
            inputs.append(v)
    found = out.op.batch(inputs, batched, as_tensor(np.int64(n)))
    holes_of_slices = isinstance(out.op, Subtensor | IncSubtensor) or any(
        isinstance(e, Slice) for e in out.op.pattern
    )
    if found is None:
        assert holes_of_slices and any(v.ndim == 0 for v, b in zip(out.inputs, batched) if b)
        return
    expected = [
        run(out, {v: rows[v][t] if isinstance(rows[v], list) else rows[v] for v in values})
        for t in range(n)
    ]
    np.testing.assert_allclose(run(found, whole), np.stack(expected), rtol=1e-12)
    assert found.type.dtype == out.dtype


@given(cases(basic() | advanced()), st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_gradients_are_finite_differences(case: Any, write: bool, set_: bool) -> None:
    x, index, values, part = case
    out, wrt = getitem(x, index), [x]
    if write and takes_part(out):
        y = tensor("float64", *(1 if s == 1 else None for s in part.shape))
        out = (set_subtensor if set_ else inc_subtensor)(out, y)
        values[y] = RNG.standard_normal(part.shape)
        wrt.append(y)
        where = np.arange(values[x].size).reshape(values[x].shape)[_numbers(index, values)]
        if set_ and np.unique(where).size < where.size:
            return
    weights = constant(RNG.standard_normal(run(out, values).shape))
    cost = (out * out * weights).sum()
    for v, g in zip(wrt, run(grad(cost, wrt), values)):
        assert g.shape == values[v].shape
        step = RNG.standard_normal(values[v].shape)
        ends = [run(cost, {**values, v: values[v] + e * step}) for e in (1e-5, -1e-5)]
        slope = (ends[0] - ends[1]) / 2e-5
        assert abs(slope - (g * step).sum()) <= 1e-6 * (1 + abs(slope))


def test_second_derivative_goes_through_both_ways() -> None:
    x, i = tensor("float64", None), tensor("int64", None)
    cost = (x[i] ** 3).sum() + (set_subtensor(x[1:], x[:-1] ** 2) ** 2).sum()
    first = grad(cost, x)
    second = grad((first * first).sum(), x)
    values = {x: RNG.standard_normal(4), i: np.array([0, 2, 2])}

    def energy(v: Any) -> float:
        g = run(first, {x: v, i: values[i]})
        return float((g * g).sum())

    slopes = [(energy(values[x] + e) - energy(values[x] - e)) / 2e-6 for e in 1e-6 * np.eye(4)]
    np.testing.assert_allclose(run(second, values), slopes, rtol=1e-5, atol=1e-7)


@given(st.integers(0, 6), slices, st.booleans())
@settings(deadline=None)
def test_slice_length_is_pythons(n: int, part: slice, symbolic: bool) -> None:
    expected = len(range(n)[part])
    assert slice_length(n, part) == expected
    values: dict[Variable, Any] = {}

    def operand(b: int | None) -> Any:
        if b is None:
            return None
        v = tensor("int64")
        values[v] = b
        return v

    size = operand(n)
    if symbolic:
        part = slice(*map(operand, (part.start, part.stop, part.step)))
    assert run(as_tensor(slice_length(size, part)), values) == expected


# ---- static knowledge -----------------------------------------------------------------------


def test_constant_slices_keep_sizes() -> None:
    x = tensor("float32", None, 12)
    assert x[:, 4:8].type.shape == (None, 4)
    assert x[2, ::-5].type.shape == (3,)
    assert x[:0].type.shape == (0, 12)
    assert x[None, :, -3:].type.shape == (1, None, 3)


def test_equal_slices_are_one_node() -> None:
    x = tensor("float32", None, 12)
    assert x[0:, :8] is x[:, 0:8] is x[: dim(x, 0), :-4:1]
    assert x[::-1, 3:1] is x[-1::-1, :0]


def test_shape_of_a_shape() -> None:
    x = tensor("float32", None, 3, None)
    s = shape(x)
    assert s[0] is dim(x, 0) and isinstance(s[-1].op, Dim)
    assert s[1].data == 3
    assert isinstance(s[1:].op, MakeVector) and s[1:].inputs == s.inputs[1:]


def test_what_scan_rules_ask() -> None:
    x = tensor("float32", None, 12)
    assert x[-1].op.is_last_row and not x[-2].op.is_last_row
    assert x[:, 4:8].op.fixed_slice == (1, 4, 8)
    assert x[:, :8].op.fixed_slice == (1, 0, 8)
    assert x[:, 8:].op.fixed_slice == (1, 8, 12)
    assert x[4:8].op.fixed_slice == (0, 4, 8)
    assert x[:-1].op.fixed_slice is None
    assert x[:, ::2].op.fixed_slice is None
    assert x[1:, 4:8].op.fixed_slice is None
    assert x[0, 1:].op.pattern == (At(0), Slice(1, 12, None))


def test_a_hole_that_became_constant_goes_into_the_pattern() -> None:
    x, i, j = tensor("float32", None, 12), tensor("int64"), tensor("int64", None)
    part = Variable(x[i:, j].op, (x, constant(np.int64(0)), j))
    again = getitem(x, user_index(part))
    assert again.op.pattern == (Slice(), Array())


def test_index_arrays_of_embeddings() -> None:
    table, words = tensor("float32", 10, 4), tensor("int32", None, 3)
    assert table[words].type == TensorType("float32", (None, 3, 4))


def test_pick_one_a_row() -> None:
    p, y = tensor("float64", None, 5), tensor("int32", None)
    out = p[arange(dim(y, 0)), y]
    values = {p: RNG.standard_normal((3, 5)), y: np.array([4, 0, 2], "int32")}
    check(out, values, values[p][np.arange(3), values[y]])


def test_lists_with_variables_index() -> None:
    x, i = tensor("float64", None), tensor("int64")
    check(x[[i, 0, i + 1]], {x: np.arange(4.0), i: 2}, [2, 0, 3])
    check(x[[]], {x: np.arange(4.0)}, [])


# ---- masks ----------------------------------------------------------------------------------


def test_comparison_as_mask() -> None:
    x = tensor("float64", None, 3)
    value = RNG.standard_normal((4, 3))
    check(x[x > 0], {x: value}, value[value > 0])
    check(x[x[:, 0] > 0, 1:], {x: value}, value[value[:, 0] > 0, 1:])
    check(set_subtensor(x[x > 0], 0), {x: value}, np.where(value > 0, 0, value))


def test_constant_mask_knows_its_count() -> None:
    x = tensor("float64", 3)
    assert x[np.array([True, False, True])].type.shape == (2,)
    check(x[[True, False, True]], {x: np.arange(3.0)}, [0, 2])


def test_mask_of_a_wrong_shape() -> None:
    x, m = tensor("float64", None), tensor("bool", None)
    with pytest.raises(IndexError, match=r"mask of shape \(2,\) can't index"):
        run(x[m], {x: np.zeros(3), m: np.array([True, False])})
    with pytest.raises(IndexError, match="mask of shape"):
        tensor("float64", 3)[np.array([True, False])]


# ---- take -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["raise", "clip", "wrap"])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_take_is_numpys(axis: int | None, mode: Any) -> None:
    x, i = tensor("float64", None, 4), tensor("int64", None, None)
    value = RNG.standard_normal((3, 4))
    at = RNG.integers(-3, 3, (2, 5)) if mode == "raise" else RNG.integers(-9, 9, (2, 5))
    check(take(x, i, axis, mode), {x: value, i: at}, np.take(value, at, axis, mode=mode))
    scalar = take(x, tensor("int64"), axis, mode)
    assert scalar.ndim == (0 if axis is None else 1)


# ---- set_subtensor --------------------------------------------------------------------------


def test_set_through_dimshuffle_and_reshape() -> None:
    x = tensor("float64", None, 3)
    value = np.zeros((4, 3))
    out = set_subtensor(x[1:3].dimshuffle(1, "x", 0), np.arange(2.0))
    expected = value.copy()
    expected[1:3] = np.arange(2.0)[:, None]
    check(out, {x: value}, expected)
    out = inc_subtensor(x[1:3].reshape((6,)), np.arange(6.0))
    expected = value.copy()
    expected[1:3] += np.arange(6.0).reshape(2, 3)
    check(out, {x: value}, expected)


def test_set_of_all_is_about_the_part_it_was_asked_of() -> None:
    x = tensor("float64", None, 3)
    out = set_subtensor(x[0][:], 1.0)
    assert out.ndim == 1
    check(out, {x: np.zeros((2, 3))}, np.ones(3))


def test_value_of_another_dtype() -> None:
    x = tensor("float32", None)
    assert set_subtensor(x[0], tensor("float64")).dtype == "float32"
    with pytest.raises(TypeError, match="cast it first"):
        set_subtensor(tensor("int32", None)[0], 1.5)


def test_inc_adds_repeated_rows_fast() -> None:
    x, y, i = tensor("float32", None, 128), tensor("float32", None, 128), tensor("int64", None)
    program = Program([x, y, i], [inc_subtensor(x[i], y)])
    values = (
        np.zeros((10000, 128), "float32"),
        np.ones((6400, 128), "float32"),
        RNG.integers(0, 100, 6400),
    )
    times = []
    for _ in range(5):
        start = time.perf_counter()
        (out,) = program(*values)
        times.append(time.perf_counter() - start)
    np.testing.assert_array_equal(out[:100, 0], np.bincount(values[2], minlength=100))
    assert min(times) < 0.05  # ufunc.at over rows, or a loop, would be far slower


# ---- errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "error", "text"),
    [
        (3, IndexError, "index 3 is out of bounds for axis 0 with size 3"),
        ((0, -5), IndexError, "index -5 is out of bounds for axis 1 with size 4"),
        ([0, 3], IndexError, "index 3 is out of bounds"),
        ((0, 0, 0), IndexError, "too many indices"),
        ((..., ...), IndexError, "single ellipsis"),
        (1.0, TypeError, "an index must be an integer"),
        ([0.5], TypeError, "an index must be an integer"),
        (True, TypeError, "Python bools"),
        (slice(0.5), TypeError, "a slice's bound must be an integer"),
        (slice(None, None, 0), ValueError, "slice step cannot be zero"),
        ((np.zeros((2, 2), int), np.zeros(3, int)), IndexError, "don't broadcast"),
    ],
)
def test_errors_when_built(index: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        getitem(tensor("float64", 3, 4), index)


def test_symbolic_index_of_a_wrong_kind() -> None:
    x = tensor("float64", 3)
    for index in (tensor("float64"), tensor("bool"), slice(tensor("float32")), "a"):
        with pytest.raises(TypeError):
            getitem(x, index)


def test_last_of_nothing() -> None:
    x = tensor("float64", None)
    with pytest.raises(IndexError, match="index -1 is out of bounds for axis 0 with size 0"):
        run(x[-1], {x: np.zeros(0)})


@pytest.mark.parametrize("at", [-4, 3])
def test_symbolic_position_out_of_range(at: int) -> None:
    x, i, j = tensor("float64", None), tensor("int64"), tensor("int64", None)
    for out in (x[i], set_subtensor(x[i], 0), x[j], inc_subtensor(x[j], 1)):
        with pytest.raises(IndexError, match=f"index {at} is out of bounds"):
            run(out, {x: np.zeros(3), i: at, j: np.array([0, at])})


def test_only_a_known_one_broadcasts() -> None:
    x, i, j = tensor("float64", None, None), tensor("int64", None), tensor("int64", None)
    with pytest.raises(IndexError, match="only a size that is known to be 1"):
        run(x[i, j], {x: np.eye(3), i: np.array([0]), j: np.arange(3)})
    y = tensor("float64", None)
    for out in (set_subtensor(x[0], y), inc_subtensor(x[i], y.dimshuffle("x", 0))):
        with pytest.raises(ValueError, match="only a size that is known to be 1"):
            run(out, {x: np.eye(3), i: np.array([0]), y: np.zeros(1)})


def test_value_that_does_not_fit() -> None:
    x, y = tensor("float64", None, 3), tensor("float64", None)
    with pytest.raises(ValueError, match=r"shape \(2,\) does not fit the indexed part"):
        run(set_subtensor(x[0], y), {x: np.eye(3), y: np.zeros(2)})
    with pytest.raises(ValueError, match="does not fit the indexed part"):
        set_subtensor(x[0], np.zeros(2))
    with pytest.raises(TypeError, match="0-dimensional subtensor with a 1-dimensional value"):
        set_subtensor(x[0, 0], y)


def test_set_of_what_is_no_indexing() -> None:
    with pytest.raises(TypeError, match="must be the result of a subtensor operation"):
        set_subtensor(tensor("float64", None), 1.0)


def test_python_protocols() -> None:
    a, b = tensor("float64", 2)
    assert a.op.pattern == (At(0),) and b.op.pattern == (At(1),)
    assert operator.getitem(stack([a, b]), 1).ndim == 0
