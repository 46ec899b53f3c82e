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


# ---- updates ------------------------------------------------------------------------------------


def test_a_default_update_can_be_taken_away():
    k = theano.shared(0)
    k.default_update = k + 2
    del k.default_update
    theano.function([], k * 1)()
    assert k.get_value() == 0


def test_givens_hold_in_default_updates_too():
    k = theano.shared(1.0)
    k.default_update = k + 3
    f = theano.function([], k + 10, givens={k: k + 10})
    assert f() == 21
    assert f() == 34  # k is 1 + 10 + 3


def test_no_default_updates_is_a_bool_or_a_list():
    k = theano.shared(0)
    for wrong in (k, "k"):
        with pytest.raises(TypeError, match="bool or list"):
            theano.function([], k * 1, no_default_updates=wrong)


def test_an_update_of_an_input_has_its_type():
    with pytest.raises(TypeError, match="same dtype and number of dimensions"):
        theano.In(T.dscalar("a"), value=0, update=T.dvector("b"))


# ---- random numbers -----------------------------------------------------------------------------


def test_a_size_of_another_length_than_ndim_says_is_an_error():
    size = T.lvector("size")
    f = theano.function([size], T.shared_randomstreams.RandomStreams(1).uniform(size, ndim=2))
    assert f([2, 3]).shape == (2, 3)
    for wrong in ([4], [4, 3, 4]):
        with pytest.raises(ValueError, match="as many elements as ndim says: 2"):
            f(wrong)


def test_a_choice_without_probabilities_takes_all_alike():
    streams = T.shared_randomstreams.RandomStreams(1)
    for none in (None, 0, []):
        draw = streams.choice((500,), 2, True, none).eval()
        assert 180 < draw.sum() < 320
