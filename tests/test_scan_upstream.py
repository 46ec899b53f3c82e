"""What Theano's own tests ask of loops, gradients and functions, where no other file has it."""

import numpy as np
import pytest

import gpuscan as theano
from gpuscan import tensor as T

Disconnected = theano.gradient.DisconnectedInputError


def f64(x):
    return np.float64(x)


# ---- derivatives that no longer need what they are derivatives of -------------------------------


def test_the_second_derivative_of_what_is_linear_is_zero():
    x, v = T.dscalar("x"), T.dvector("v")
    first = T.grad(3 * x + T.dot(v, v[::-1]).sum(), x)
    assert T.grad(first, x).eval({x: 5}) == 0
    slope = T.grad((3 * v).sum(), v)
    np.testing.assert_array_equal(T.grad(slope.sum(), v).eval({v: [1, 2]}), [0, 0])
    third = T.grad(T.grad(slope.sum(), v).sum(), v)
    np.testing.assert_array_equal(third.eval({v: [1, 2]}), [0, 0])


def test_products_with_the_jacobian_of_a_constant_derivative_are_zero():
    v, u = T.dvector("v"), T.dvector("u")
    slope = T.grad((3 * v).sum(), v)
    values = {v: [1, 2], u: [3, 4]}
    for product in (T.Rop(slope, v, u), T.Lop(slope, v, u)):
        f = theano.function([v, u], product)
        np.testing.assert_array_equal(f(*values.values()), [0, 0])
    np.testing.assert_array_equal(T.jacobian(slope, v).eval({v: [1, 2]}), np.zeros((2, 2)))


def test_a_derivative_that_is_a_variable_of_the_user_leaves_no_trace_on_it():
    x, y = T.dscalar("x"), T.dscalar("y")
    g = T.grad(x * y, x)
    assert theano.function([x, y], T.grad(g, x))(2, 3) == 0
    with pytest.raises(Disconnected):
        T.grad(y**2, x)


def test_the_derivative_of_a_derivative_knows_what_its_function_did_not_need():
    x, y = T.dscalar("x"), T.dscalar("y")
    with pytest.raises(Disconnected):
        T.grad(T.grad(x**2, x), y)


def test_a_fill_depends_on_what_gave_the_shape():
    x, v = T.dscalar("x"), T.dvector("v")
    assert theano.function([x], T.ones_like(x))(3) == 1
    out, _ = theano.scan(lambda s: s + 1, None, T.zeros_like(x), n_steps=3)
    np.testing.assert_array_equal(theano.function([x], out)(7), [1, 2, 3])
    np.testing.assert_array_equal(T.grad(T.zeros_like(v).sum(), v).eval({v: [1, 2]}), [0, 0])
