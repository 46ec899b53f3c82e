"""Every elementwise function with a derivative, against central finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpuscan import tensor as T
from gpuscan.evaluate import Program
from gpuscan.graph import Variable
from gpuscan.ops.elemwise import Elemwise, scalars

H = 1e-6
POINTS = 40

# intervals of the operands, where they are not all (-2, 2)
UNIT = (0.05, 0.95)
DOMAINS: dict[str, list[tuple[float, float]]] = {
    "sqrt": [(0.1, 4)], "inv": [(0.2, 3)], "true_div": [(-2, 2), (0.3, 3)],
    "mod": [(-3, 3), (0.7, 2)], "pow": [(0.2, 2), (-2, 3)], "clip": [(-2, 2), (-1, 0), (0.1, 1)],
    "log": [(0.1, 4)], "log2": [(0.1, 4)], "log10": [(0.1, 4)], "log1p": [(-0.9, 3)],
    "arcsin": [(-0.95, 0.95)], "arccos": [(-0.95, 0.95)], "arccosh": [(1.1, 4)],
    "arctanh": [(-0.95, 0.95)], "tan": [(-1.2, 1.2)], "erfinv": [(-0.9, 0.9)],
    "erfcinv": [(0.1, 1.9)], "normal_icdf": [UNIT], "gammaln": [(0.3, 4)], "gamma": [(0.3, 4)],
    "psi": [(0.3, 4)],
}  # fmt: skip
# psi has no gradient; to other dtypes than float64 a difference quotient is too coarse
LEFT_OUT = {"psi", *(n for n in scalars if n.startswith("cast_") and n != "cast_float64")}
DIFFERENTIABLE = sorted(
    n for n, s in scalars.items() if s.derivative is not None and n not in LEFT_OUT
)


def pulled(name: str, xs: list[Any], g: Any, derivative_of: int) -> Any:
    """The cotangent of one operand by the op's pullback."""
    inputs = [T.vector(dtype=np.asarray(x).dtype.name) for x in xs]
    node = Variable(Elemwise(scalars[name]), inputs)
    cotangent = T.dvector()
    back = node.op.pullback(inputs, node, cotangent)[derivative_of]
    if back is None:
        return np.zeros_like(xs[derivative_of], "float64")
    return Program([*inputs, cotangent], [back])(*xs, g)[0]


def operands(name: str) -> list[np.ndarray]:
    rng = np.random.default_rng(sum(map(ord, name)))
    s = scalars[name]
    domains = DOMAINS.get(name, [(-2.0, 2.0)] * s.nin)
    xs = [rng.uniform(low, high, POINTS) for low, high in domains]
    if s.operands == "switch":
        xs[0] = xs[0] > 0
    return xs


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_pullback_equals_central_differences(name: str) -> None:
    f, xs = scalars[name].numpy, operands(name)
    g = np.random.default_rng(1).normal(size=POINTS)
    for k, x in enumerate(xs):
        if x.dtype == bool:
            continue
        above = [x + H if i == k else v for i, v in enumerate(xs)]
        below = [x - H if i == k else v for i, v in enumerate(xs)]
        want = g * (f(*above) - f(*below)) / (2 * H)
        np.testing.assert_allclose(pulled(name, xs, g, k), want, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("name", [n for n in DIFFERENTIABLE if scalars[n].operands != "switch"])
def test_pullback_keeps_float32(name: str) -> None:
    s = scalars[name]
    inputs = [T.fvector() for _ in range(s.nin)]
    node = Variable(Elemwise(s), inputs)
    g = T.vector(dtype=node.dtype)
    assert {d.dtype for d in node.op.pullback(inputs, node, g) if d is not None} == {"float32"}


def test_ties_of_maximum_give_the_cotangent_once() -> None:
    x = np.array([1.0, 2.0])
    total = pulled("maximum", [x, x], np.ones(2), 0) + pulled("maximum", [x, x], np.ones(2), 1)
    np.testing.assert_array_equal(total, 1)


def test_clip_gives_the_cotangent_to_the_bound_that_holds() -> None:
    xs = [np.array([-1.0, 0.5, 3.0]), np.zeros(3), np.ones(3)]
    got = [pulled("clip", xs, np.ones(3), k) for k in range(3)]
    np.testing.assert_array_equal(got, [[0, 1, 0], [1, 0, 0], [0, 0, 1]])


def test_power_at_zero_has_a_finite_gradient_of_the_base() -> None:
    xs = [np.array([0.0, 0.0]), np.array([2.0, 1.0])]
    np.testing.assert_array_equal(pulled("pow", xs, np.ones(2), 0), [0, 1])


def test_a_comparison_has_no_gradient() -> None:
    x, y = T.dvectors("x", "y")
    node = x < y
    assert node.op.pullback([x, y], node, T.dvector()) == [None, None]


def test_a_cast_to_integers_has_no_gradient() -> None:
    x = T.dvector()
    node = x.astype("int32")
    assert node.op.pullback([x], node, T.dvector()) == [None]


def test_a_cast_from_integers_passes_a_float_cotangent() -> None:
    i, g = T.ivector(), T.fvector()
    node = i.astype("float32")
    assert node.op.pullback([i], node, g) == [g]


def test_broadcast_operand_gets_the_sum_over_its_axis() -> None:
    x, r = T.dmatrix(), T.drow()
    node = x * r
    back = node.op.pullback([x, r], node, T.ones_like(node))[1]
    assert back.type.shape == (1, None)
    values = np.arange(6.0).reshape(2, 3)
    got = Program([x, r], [back])(values, np.ones((1, 3)))[0]
    np.testing.assert_array_equal(got, values.sum(0, keepdims=True))
