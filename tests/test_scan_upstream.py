"""What Theano's own tests ask of loops, gradients and functions, where no other file has it."""

import numpy as np
import pytest

import gpuscan as theano
from gpuscan import tensor as T

Disconnected = theano.gradient.DisconnectedInputError


# ---- derivatives that no longer need what they are derivatives of -------------------------------


def test_the_derivative_of_what_is_linear_is_disconnected():
    x, v = T.dscalar("x"), T.dvector("v")
    for cost in (T.grad(3 * x, x), T.grad(x, x)):
        with pytest.raises(Disconnected):
            T.grad(cost, x)
    with pytest.raises(Disconnected):
        T.grad(T.grad((3 * v).sum(), v).sum(), v)


def test_second_derivatives_of_what_is_linear_are_zero_where_they_are_asked_for_as_such():
    v, u = T.dvector("v"), T.dvector("u")
    slope = T.grad((3 * v).sum(), v)
    assert theano.function([v, u], T.Rop(slope, v, u))([1, 2], [3, 4]).tolist() == [0, 0]
    assert T.hessian((3 * v).sum(), v).eval({v: [1, 2]}).tolist() == [[0, 0], [0, 0]]


def test_a_function_may_take_what_its_derivative_does_not_need():
    x, y = T.dscalar("x"), T.dscalar("y")
    assert theano.function([x, y], T.grad(x * y, x))(2, 3) == 3
    assert theano.function([x, y], T.grad(x + y, x))(2, 3) == 1
    with pytest.raises(theano.UnusedInputError):  # y itself is not a derivative of x
        theano.function([x, y], y)


def test_a_fill_may_be_all_that_needs_an_input():
    x = T.dscalar("x")
    assert theano.function([x], T.ones_like(x))(3) == 1
    out, _ = theano.scan(lambda s: s + 1, None, T.zeros_like(x), n_steps=3)
    np.testing.assert_array_equal(theano.function([x], out)(7), [1, 2, 3])


def test_positions_of_maxima_and_of_an_order_have_a_gradient_of_zeros():
    m = T.dmatrix("m")
    joined = T.max_and_argmax(m, 1)[1]
    for p in (T.argmax(m), T.argmin(m, axis=1).sum(), joined.sum(), T.argsort(m, axis=1).sum()):
        assert T.grad(p * 1.0, m).eval({m: [[1, 2]]}).tolist() == [[0, 0]]


def test_nothing_flows_through_a_constant_of_a_gradient_but_to_it():
    x, y = T.dscalar("x"), T.dscalar("y")
    h = x * y
    values = {x: 2, y: 3}
    assert [g.eval(values) for g in T.grad(h * x, [x, h], consider_constant=[h])] == [6, 2]
    assert T.grad(x * y + x**2, x, consider_constant=[x]).eval(values) == 3 + 4


# ---- constants ----------------------------------------------------------------------------------


@pytest.mark.parametrize("floatX", ["float32", "float64"])
def test_lists_take_int64_or_floatX(floatX):
    with theano.config.change_flags(floatX=floatX):
        for of_integers in ([1, 2], (1, 2), [[1], [2]]):
            assert T.as_tensor_variable(of_integers).dtype == "int64"
        for of_floats in ([0.5, 1], [0.1], []):
            assert T.as_tensor_variable(of_floats).dtype == floatX
        assert (T.constant([100, 100]) + 100).eval().tolist() == [200, 200]


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
