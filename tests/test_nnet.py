"""Activations and losses against SciPy, stated formulas and finite differences."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuscan import maths
from gpuscan import tensor as T
from gpuscan.evaluate import Program
from gpuscan.gradient import grad, verify_grad
from gpuscan.graph import leaves
from gpuscan.ops.shape import dims
from gpuscan.ops.softmax import LANES, LogSoftmax, Softmax, lane_sum

RNG = np.random.default_rng(5)


def value(outputs: Any, inputs: dict[Any, Any]) -> Any:
    """The value of a variable, or of each of a list."""
    several = isinstance(outputs, list)
    found = Program(list(inputs), outputs if several else [outputs])(*inputs.values())
    return list(found) if several else found[0]


def applied(f: Callable[..., Any], *arrays: Any) -> Any:
    """f, which builds graph, of the arrays."""
    xs = [T.tensor(a.dtype.name, shape=(None,) * a.ndim) for a in map(np.asarray, arrays)]
    return value(f(*xs), dict(zip(xs, map(np.asarray, arrays))))


# ---- softmax --------------------------------------------------------------------------------


@given(
    rows=st.integers(1, 4), n=st.integers(1, 100), seed=st.integers(0, 99),
    dtype=st.sampled_from(["float32", "float64"]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_softmax_equals_scipys(rows: int, n: int, seed: int, dtype: str) -> None:
    x = (np.random.default_rng(seed).normal(size=(rows, n)) * 10).astype(dtype)
    got = applied(T.nnet.softmax, x)
    assert got.dtype == dtype
    tolerance = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(got, scipy.special.softmax(x, 1), rtol=tolerance, atol=1e-37)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logsoftmax_equals_scipys(dtype: str) -> None:
    x = (RNG.normal(size=(5, 77)) * 30).astype(dtype)
    want = scipy.special.log_softmax(x.astype("float64"), 1)
    got = applied(T.nnet.logsoftmax, x)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(got, want, rtol=20 * eps, atol=2 * eps)


def test_softmax_of_large_values_is_finite() -> None:
    x = np.array([[1000.0, 1001.0, -1e30]])
    np.testing.assert_allclose(applied(T.nnet.softmax, x), scipy.special.softmax(x, 1))


def test_softmax_of_a_vector_is_a_matrix_of_one_row() -> None:
    x = np.array([1.0, 2.0, 3.0])
    got = applied(T.nnet.softmax, x)
    assert T.nnet.softmax(T.dvector()).type.shape == (1, None)
    np.testing.assert_allclose(got, [scipy.special.softmax(x)])


def test_logsoftmax_of_a_vector_is_a_matrix_of_one_row() -> None:
    assert T.nnet.logsoftmax(T.dvector()).type.shape == (1, None)


@pytest.mark.parametrize("x", [T.tensor3(), T.scalar(), T.imatrix()])
def test_softmax_refuses_other_than_float_vectors_and_matrices(x: Any) -> None:
    with pytest.raises(ValueError, match="1-d or 2-d tensor of floats"):
        T.nnet.softmax(x)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("op", "want"), [
    (Softmax, scipy.special.softmax), (LogSoftmax, scipy.special.log_softmax),
])  # fmt: skip
def test_along_any_axis(op: Any, want: Any, axis: int) -> None:
    x = RNG.normal(size=(3, 4, 5))
    np.testing.assert_allclose(applied(op(axis), x), want(x, axis), rtol=1e-14)


@pytest.mark.parametrize("op", [Softmax, LogSoftmax])
@pytest.mark.parametrize("axis", [0, 1])
def test_batch_is_the_op_over_each_row(op: Any, axis: int) -> None:
    x, n = T.dtensor3(), T.lscalar()
    node = op(axis)(T.dmatrix())
    data = RNG.normal(size=(4, 3, 5))
    got = value(node.op.batch([x], [True], n), {x: data, n: np.int64(4)})
    want = [applied(op(axis), row) for row in data]
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("op", [Softmax(0), Softmax(1), LogSoftmax(0), LogSoftmax(1)])
def test_gradient_of_softmax(op: Any) -> None:
    verify_grad(op, [RNG.normal(size=(3, 4))], rng=np.random.default_rng(0))


@pytest.mark.parametrize("op", [Softmax(1), LogSoftmax(1)])
def test_second_derivative_of_softmax(op: Any) -> None:
    def gradient(x: Any) -> Any:
        return grad((op(x) ** 3).sum(), x)

    verify_grad(gradient, [RNG.normal(size=(2, 3))], rng=np.random.default_rng(0))


@pytest.mark.parametrize("op", [Softmax(1), LogSoftmax(1)])
def test_sizes_are_those_of_the_input(op: Any) -> None:
    x = T.matrix()
    assert dims(x) == list(op.sizes([x], op(x)))


def test_rows_of_no_elements() -> None:
    assert applied(T.nnet.softmax, np.zeros((3, 0))).shape == (3, 0)


def test_float16_is_computed_in_float32() -> None:
    x = RNG.normal(size=(2, 50)).astype("float16")
    got = applied(T.nnet.softmax, x)
    np.testing.assert_array_equal(got, applied(T.nnet.softmax, x.astype("f4")).astype("f2"))


def test_lane_sum_is_in_the_stated_order() -> None:
    x = RNG.normal(size=77).astype("float32")
    lanes = [np.float32(0)] * LANES
    for i, e in enumerate(x):
        lanes[i % LANES] = lanes[i % LANES] + e
    for width in (16, 8, 4, 2, 1):
        lanes = [lanes[i] + lanes[i + width] for i in range(width)]
    assert lane_sum(x)[0] == lanes[0]


def test_softmax_is_the_exact_exponential_over_the_lane_sum() -> None:
    x = RNG.normal(size=(3, 40)).astype("float32")
    e = maths.exp(x - x.max(1, keepdims=True))
    np.testing.assert_array_equal(applied(T.nnet.softmax, x), e / lane_sum(e))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_softmax_graph_is_over_the_last_axis(ndim: int) -> None:
    x = RNG.normal(size=(2, 3, 4)[:ndim]) * 500
    np.testing.assert_allclose(applied(T.nnet.softmax_graph, x), scipy.special.softmax(x, -1))


def test_softmax_with_bias() -> None:
    x, b = RNG.normal(size=(2, 3)), RNG.normal(size=3)
    want = scipy.special.softmax(x + b, 1)
    np.testing.assert_allclose(applied(T.nnet.softmax_with_bias, x, b), want)


def test_the_gradient_of_log_softmax_is_finite_where_softmax_underflows() -> None:
    x = T.dmatrix()
    g = grad(T.log(T.nnet.softmax(x))[0, 0], x)
    got = value(g, {x: np.array([[-800.0, 0.0]])})
    np.testing.assert_allclose(got, [[1, -1]])


# ---- activations ----------------------------------------------------------------------------

X = np.linspace(-6, 6, 49)
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "sigmoid": scipy.special.expit,
    "softplus": lambda x: np.logaddexp(x, 0),
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name: str) -> None:
    got = applied(getattr(T.nnet, name), X)
    np.testing.assert_allclose(got, ACTIVATIONS[name](X), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", [*ACTIVATIONS, "ultra_fast_sigmoid"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activation_keeps_the_dtype(name: str, dtype: str) -> None:
    assert getattr(T.nnet, name)(T.vector(dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("name", [*ACTIVATIONS, "ultra_fast_sigmoid"])
def test_gradient_of_activation(name: str) -> None:
    verify_grad(getattr(T.nnet, name), [RNG.normal(size=20) * 3], rng=np.random.default_rng(0))


def test_ultra_fast_sigmoid_is_within_its_stated_error() -> None:
    x = np.linspace(-20, 20, 4001)
    assert abs(applied(T.nnet.ultra_fast_sigmoid, x) - scipy.special.expit(x)).max() < 0.03


def test_relu_with_a_slope_for_each_column() -> None:
    x, slope = RNG.normal(size=(3, 4)), np.arange(4.0)
    want = np.where(x > 0, x, slope * x)
    np.testing.assert_array_equal(applied(T.nnet.relu, x, slope), want)


def test_relu_of_minus_infinity_is_zero() -> None:
    assert applied(T.nnet.relu, np.array([-np.inf]))[0] == 0


@pytest.mark.parametrize("name", ["elu", "selu"])
def test_gradient_of_elu_is_finite_for_large_values(name: str) -> None:
    x = T.dvector()
    got = value(grad(getattr(T.nnet, name)(x).sum(), x), {x: np.array([1e3])})
    assert np.isfinite(got).all()


# ---- losses ---------------------------------------------------------------------------------

P = scipy.special.softmax(RNG.normal(size=(4, 5)), 1)
Q = scipy.special.softmax(RNG.normal(size=(4, 5)), 1)
CLASSES = np.array([0, 4, 2, 2])


def test_categorical_crossentropy_of_distributions() -> None:
    got = applied(T.nnet.categorical_crossentropy, P, Q)
    np.testing.assert_allclose(got, -(Q * np.log(P)).sum(1))


@pytest.mark.parametrize("f", [
    T.nnet.categorical_crossentropy, T.nnet.crossentropy_categorical_1hot,
])  # fmt: skip
def test_categorical_crossentropy_of_classes(f: Any) -> None:
    np.testing.assert_allclose(applied(f, P, CLASSES), -np.log(P[np.arange(4), CLASSES]))


def test_categorical_crossentropy_of_tensors_with_more_axes() -> None:
    p, q = np.stack([P, Q]), np.stack([Q, P])
    got = applied(T.nnet.categorical_crossentropy, p, q)
    np.testing.assert_allclose(got, -(q * np.log(p)).sum(2))


def test_categorical_crossentropy_of_other_ranks_is_an_error() -> None:
    with pytest.raises(TypeError, match="rank mismatch"):
        T.nnet.categorical_crossentropy(T.tensor3(), T.ivector())


def test_categorical_crossentropy_wants_integer_classes() -> None:
    with pytest.raises(TypeError, match="integer vector"):
        T.nnet.categorical_crossentropy(T.matrix(), T.vector())


def test_gradient_of_crossentropy_of_softmax_is_softmax_minus_one_hot() -> None:
    x, y = T.dmatrix(), T.lvector()
    loss = T.nnet.categorical_crossentropy(T.nnet.softmax(x), y).sum()
    got = value(grad(loss, x), {x: np.log(P), y: CLASSES})
    np.testing.assert_allclose(got, P - np.eye(5)[CLASSES], atol=1e-14)


def test_binary_crossentropy() -> None:
    got = applied(T.nnet.binary_crossentropy, P, Q)
    np.testing.assert_allclose(got, -(Q * np.log(P) + (1 - Q) * np.log1p(-P)))


def test_sigmoid_binary_crossentropy_is_that_of_the_sigmoid() -> None:
    x, t = RNG.normal(size=30), RNG.uniform(size=30)
    p = scipy.special.expit(x)
    want = -(t * np.log(p) + (1 - t) * np.log1p(-p))
    np.testing.assert_allclose(applied(T.nnet.sigmoid_binary_crossentropy, x, t), want)


@pytest.mark.parametrize(("x", "target", "want"), [
    (50.0, 1.0, np.exp(-50)), (-50.0, 0.0, np.exp(-50)), (1000.0, 0.0, 1000.0),
    (-1000.0, 1.0, 1000.0),
])  # fmt: skip
def test_sigmoid_binary_crossentropy_is_exact_far_out(x: float, target: float, want: float) -> None:
    got = applied(T.nnet.sigmoid_binary_crossentropy, np.array([x]), np.array([target]))
    np.testing.assert_allclose(got, [want], rtol=1e-14)


def test_gradient_of_sigmoid_binary_crossentropy_is_sigmoid_minus_target() -> None:
    x, t = T.dvectors("x", "t")
    g = grad(T.nnet.sigmoid_binary_crossentropy(x, t).sum(), x)
    xs, ts = RNG.normal(size=9) * 5, RNG.integers(0, 2, 9).astype(float)
    np.testing.assert_allclose(value(g, {x: xs, t: ts}), scipy.special.expit(xs) - ts, atol=1e-15)


def test_crossentropy_softmax_1hot_family() -> None:
    x, b = RNG.normal(size=(4, 5)), RNG.normal(size=5)
    variables = T.dmatrix(), T.dvector(), T.lvector()
    found = T.nnet.crossentropy_softmax_max_and_argmax_1hot_with_bias(*variables)
    loss, softmaxed, largest, best = value(found, dict(zip(variables, (x, b, CLASSES))))
    p = scipy.special.softmax(x + b, 1)
    np.testing.assert_allclose(loss, -np.log(p[np.arange(4), CLASSES]))
    np.testing.assert_allclose(softmaxed, p)
    np.testing.assert_allclose(largest, p.max(1))
    np.testing.assert_array_equal(best, p.argmax(1))


@pytest.mark.parametrize("biased", [True, False])
def test_crossentropy_softmax_1hot_is_the_start_of_the_longer_forms(biased: bool) -> None:
    x, b, y = T.dmatrix(), T.dvector(), T.lvector()
    if biased:
        short = T.nnet.crossentropy_softmax_1hot_with_bias(x, b, y)
        long = T.nnet.crossentropy_softmax_max_and_argmax_1hot_with_bias(x, b, y)
        assert T.nnet.crossentropy_softmax_argmax_1hot_with_bias(x, b, y) == [*short, long[3]]
    else:
        short = T.nnet.crossentropy_softmax_1hot(x, y)
        long = T.nnet.crossentropy_softmax_max_and_argmax_1hot(x, y)
    assert all(a is b for a, b in itertools.zip_longest(short, long[:2]))


def test_every_exported_name_is_there() -> None:
    assert [n for n in T.nnet.__all__ if not hasattr(T.nnet, n)] == []


def test_a_loss_depends_on_nothing_but_its_operands() -> None:
    x, y = T.matrix(), T.ivector()
    assert set(leaves([T.nnet.crossentropy_softmax_1hot(x, y)[0]])) == {x, y}
