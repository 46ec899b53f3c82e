"""Gradients: grad and its relatives, and what they give through scan (SCAN.md 2).

Finite differences are central, with a step of 1e-6 in float64: a relative tolerance of 1e-6.
"""

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpuscan as theano
from gpuscan import tensor as T
from gpuscan.gradient import (
    GradientError,
    consider_constant,
    disconnected_grad,
    grad_clip,
    grad_scale,
    hessian,
    jacobian,
    numeric_grad,
    undefined_grad,
    verify_grad,
    zero_grad,
)

f32, f64 = np.float32, np.float64
Disconnected = theano.gradient.DisconnectedInputError
Null = theano.gradient.NullTypeGradError
one = T.constant(np.asarray(1.0, "float64"))


def run(outputs, inputs=(), values=(), **options):
    f = theano.function(
        list(inputs), outputs, allow_input_downcast=True, on_unused_input="ignore", **options
    )
    return f(*values)


def doubles(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0.4, 1.2, shape)


def symbols(values):
    kinds = (T.dscalar, T.dvector, T.dmatrix, T.dtensor3)
    return [kinds[np.ndim(v)](f"p{i}") for i, v in enumerate(values)]


def differences(f, values, eps=1e-6):
    """The derivative of a scalar function of arrays by central differences, per array."""
    found = []
    for k, v in enumerate(values):
        g = np.zeros(np.shape(v))
        for i in np.ndindex(np.shape(v)):
            ends = []
            for sign in (1, -1):
                moved = [np.array(x, "float64") for x in values]
                moved[k][i] += sign * eps
                ends.append(float(f(*moved)))
            g[i] = (ends[0] - ends[1]) / (2 * eps)
        found.append(g)
    return found


def check(build, *values, rtol=1e-6, atol=1e-8):
    """The gradients of build(...), a scalar, equal finite differences; returns them."""
    inputs = symbols(values)
    cost = build(*inputs)
    f = theano.function(inputs, cost, on_unused_input="ignore")
    found = run(T.grad(cost, inputs), inputs, values)
    for got, want in zip(found, differences(f, values)):
        np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)
    return found


def weighted(x):
    """A scalar that weighs each element of x differently."""
    size = x.flatten().shape[0]
    return (x.flatten() * (T.arange(size) + 1.0).astype("float64")).sum()


# ---- 2.1: grad's arguments -----------------------------------------------------------------------


def test_a_variable_gives_a_variable_a_list_a_list_a_tuple_a_tuple():
    x, y = T.dscalar("x"), T.dscalar("y")
    assert isinstance(T.grad(x * y, x), theano.Variable)
    assert type(T.grad(x * y, [x, y])) is list
    assert type(T.grad(x * y, (x, y))) is tuple
    assert run(T.grad(x * y, [x, y]), [x, y], [2, 3]) == [3, 2]


def test_grad_goes_by_several_names():
    assert theano.grad is T.grad is theano.gradient.grad


def test_the_order_of_positional_arguments_of_grad():
    x, y, z = T.dscalar("x"), T.dscalar("y"), T.dscalar("z")
    end = x * y
    g = theano.grad(end * x, [x, z], [end], "ignore", True, None, "None")
    assert run(g[0], [x, y], [3, 5]) == 15
    assert g[1] is None


def test_wrt_must_not_be_a_set():
    x = T.dscalar("x")
    with pytest.raises(TypeError, match="wrt must not be a set"):
        T.grad(x, {x})


def test_wrt_must_be_variables():
    with pytest.raises(TypeError, match="Expected Variable, got 3"):
        T.grad(T.dscalar("x"), [3])


def test_cost_must_be_a_scalar():
    with pytest.raises(TypeError, match=r"cost must be a scalar.*losses.*test_scan_gradient"):
        x = T.dvector("losses")
        T.grad(x, x)


def test_cost_and_known_grads_can_not_both_be_missing():
    with pytest.raises(AssertionError):
        T.grad(None, T.dscalar("x"))


def test_known_grads_replace_the_cost():
    x = T.dvector("x")
    y, z = x**2, 3 * x
    known = OrderedDict([(y, T.constant([1.0, 10.0])), (z, T.constant([100.0, 1000.0]))])
    g = T.grad(None, x, known_grads=known)
    assert run(g, [x], [[1, 2]]).tolist() == [2 * 1 + 300, 4 * 10 + 3000]


def test_known_grads_add_to_those_of_the_cost_below():
    x = T.dscalar("x")
    y = x**2
    g = T.grad(x * 5, x, known_grads={y: T.constant(f64(10))})
    assert run(g, [x], [3]) == 5 + 60


def test_known_grads_of_integers_are_refused():
    x = T.dscalar("x")
    y = x**2
    with pytest.raises(TypeError, match="Gradients may never be integers.*squared.*int"):
        y.name = "squared"
        T.grad(None, x, known_grads={y: T.constant(1)})


def test_a_disconnected_wrt_raises():
    x, y = T.dscalar("x"), T.dscalar("unrelated")
    with pytest.raises(Disconnected) as found:
        T.grad(x * 2, [x, y])
    assert isinstance(found.value, ValueError)
    assert str(found.value).startswith(
        "grad method was asked to compute the gradient with respect to a variable that is not "
        "part of the computational graph of the cost, or is used only by a non-differentiable "
        "operator"
    )
    assert "unrelated" in str(found.value)


def test_disconnected_inputs_may_warn():
    x, y = T.dscalar("x"), T.dscalar("unrelated")
    with pytest.warns(UserWarning, match="unrelated"):
        g = T.grad(x * 2, y, disconnected_inputs="warn")
    assert run(g, [y], [1]) == 0


@pytest.mark.parametrize(
    "kind, dtype", [("fvector", "float32"), ("dvector", "float64"), ("ivector", "float32")]
)
def test_ignored_disconnected_inputs_get_float_zeros(kind, dtype):
    x, y = T.dscalar("x"), getattr(T, kind)("y")
    g = T.grad(x * 2, y, disconnected_inputs="ignore")
    assert g.dtype == dtype
    assert run(g, [y], [[1, 2]]).tolist() == [0, 0]


@pytest.mark.parametrize("word", ["None", "Disconnected"])
def test_return_disconnected(word):
    x, y = T.dscalar("x"), T.dscalar("y")
    g = T.grad(x * 2, [x, y], disconnected_inputs="ignore", return_disconnected=word)
    assert isinstance(g[0], theano.Variable)
    assert not isinstance(g[1], theano.Variable)


def test_words_that_are_not_known_are_refused():
    x = T.dscalar("x")
    with pytest.raises(ValueError, match="disconnected_inputs"):
        T.grad(x, x, disconnected_inputs="hide")
    with pytest.raises(ValueError, match="return_disconnected"):
        T.grad(x, x, return_disconnected="hide")


def test_consider_constant_cuts_these_variables_only():
    x = T.dscalar("x")
    end = x**2
    cost = end * x + x**3
    assert run(T.grad(cost, x, consider_constant=[end]), [x], [2]) == 4 + 12
    assert run(T.grad(cost, x), [x], [2]) == 12 + 12


def test_consider_constant_of_the_end_of_a_chain_of_draws():
    rng = T.shared_randomstreams.RandomStreams(1)
    w = T.dvector("w")

    def free_energy(v):
        return -T.log(1 + T.exp(v * w)).sum()

    chain, updates = theano.scan(
        lambda v: rng.binomial(v.shape, p=T.nnet.sigmoid(v * w), dtype="float64"), None,
        T.ones_like(w), n_steps=3,
    )  # fmt: skip
    end = chain[-1]
    cost = free_energy(T.ones_like(w)) - free_energy(end)
    f = theano.function([w], [end, T.grad(cost, w, consider_constant=[end])], updates=updates)
    v = np.array([0.5, -1.0])
    sample, g = f(v)
    s = 1 / (1 + np.exp(-v))
    np.testing.assert_allclose(g, -s + sample / (1 + np.exp(-v * sample)), rtol=1e-12)


def test_undefined_gradients_raise_or_are_returned():
    x, y = T.dscalar("x"), T.dscalar("y")
    cost = undefined_grad(x) * y
    with pytest.raises(Null, match="tensor.grad encountered a NaN") as found:
        T.grad(cost, x)
    assert isinstance(found.value, TypeError)
    assert "x" in str(found.value)
    assert run(T.grad(cost, y), [x, y], [3, 1]) == 3
    g = T.grad(cost, [x, y], null_gradients="return")
    assert "declared undefined" in repr(g[0])
    assert run(g[1], [x, y], [3, 1]) == 3


def test_a_gradient_is_never_an_integer():
    i, x = T.ivector("i"), T.dvector("x")
    g = T.grad((i * x).sum(), i)
    assert g.dtype in ("float32", "float64")
    assert run(g, [i, x], [[1, 2], [5, 6]]).tolist() == [5, 6]


def test_comparisons_are_connected_with_zero_gradients():
    x, y = T.dvector("x"), T.dvector("y")
    g = T.grad((T.gt(x, 0) * y).sum(), x)
    assert run(g, [x, y], [[1, 2], [5, 6]]).tolist() == [0, 0]


def test_sizes_and_indices_are_disconnected():
    x, i = T.dvector("x"), T.dscalar("i")
    with pytest.raises(Disconnected):
        T.grad(T.cast(x.shape[0], "float64"), x)
    with pytest.raises(Disconnected):
        T.grad(x[T.cast(i, "int64")], i)
    n = T.dscalar("n")
    with pytest.raises(Disconnected):
        T.grad(T.arange(T.cast(n, "int64")).astype("float64").sum(), n)


def test_ties_of_max_each_get_the_gradient():
    x = T.dvector("x")
    assert run(T.grad(x.max(), x), [x], [[3, 1, 3]]).tolist() == [1, 0, 1]


def test_subgraph_grad():
    x, w1, w2 = T.dvector("x"), T.dvector("w1"), T.dvector("w2")
    hidden = T.tanh(x * w1)
    out = hidden * w2
    cost = out.sum()
    (dw2,), (dhidden,) = theano.subgraph_grad([w2], [hidden], cost=cost)
    (dw1,), _ = theano.subgraph_grad([w1], [x], start={hidden: dhidden})
    values = doubles(3), doubles(3, seed=1), doubles(3, seed=2)
    inputs = [x, w1, w2]
    for a, b in zip(run([dw1, dw2], inputs, values), run(T.grad(cost, [w1, w2]), inputs, values)):
        np.testing.assert_allclose(a, b, rtol=1e-14)


# ---- 2.2: through each kind of argument ----------------------------------------------------------


def test_through_sequences_states_and_non_sequences():
    check(
        lambda x, h, w: weighted(theano.scan(lambda r, h, w: T.tanh(T.dot(h, w) + r), x, h, w)[0]),
        doubles(4, 3), doubles(3, seed=1), doubles(3, 3, seed=2),
    )  # fmt: skip


def test_through_captured_variables():
    def build(x, w, b):
        hidden = w * 2
        return weighted(theano.scan(lambda r, s: T.tanh(r * hidden + s * b), x, b)[0])

    check(build, doubles(4, 3), doubles(3, seed=1), doubles(3, seed=2))


def test_through_shared_variables():
    s = theano.shared(f64(3.0), "s")
    x = T.dvector("x")
    passed, _ = theano.scan(lambda r, s: r * s, x, None, s)
    captured, _ = theano.scan(lambda r: r * s, x)
    for out in (passed, captured):
        assert run(T.grad(out.sum(), s), [x], [[1, 2, 4]]) == 7


def test_through_a_shared_variable_cast_in_the_step():
    s = theano.shared(f64(3.0), "s")
    x = T.fvector("x")
    out, _ = theano.scan(lambda r: r * T.cast(s, "float32"), x)
    g = T.grad(out.sum(), s)
    assert g.dtype == "float64"
    assert run(g, [x], [[1, 2, 4]]) == 7


def test_through_shared_sequences_and_initial_states():
    x, a = theano.shared(doubles(4), "x"), theano.shared(f64(0.5), "a")
    out, _ = theano.scan(lambda r, s: s * r, x, a)
    dx, da = run(T.grad(out[-1], [x, a]))
    value = x.get_value()
    np.testing.assert_allclose(da, value.prod(), rtol=1e-12)
    np.testing.assert_allclose(dx, 0.5 * value.prod() / value, rtol=1e-12)


def test_the_last_row_only():
    check(lambda x, a: theano.scan(lambda r, s: T.sin(s * r), x, a)[0][-1], doubles(5), doubles())


def test_one_row_of_the_middle():
    (dx, _) = check(
        lambda x, a: theano.scan(lambda r, s: T.sin(s * r), x, a)[0][2], doubles(5), doubles()
    )
    assert (dx[3:] == 0).all() and (dx[:3] != 0).all()


def test_unused_outputs_contribute_nothing():
    def build(x, a):
        outs, _ = theano.scan(lambda r, s: [T.sin(s * r), r**2, s * 3], x, [a, None, None])
        return weighted(outs[1])

    x, a = T.dvector("x"), T.dscalar("a")
    assert run(T.grad(build(x, a), x), [x, a], [[1, 2, 3], 1]).tolist() == [2, 8, 18]
    with pytest.raises(Disconnected):
        T.grad(build(x, a), a)


def test_several_outputs_at_once():
    def build(x, a, b):
        outs, _ = theano.scan(
            lambda r, p, q: [T.tanh(p * r + q), q * T.cos(p), p * q * r], x, [a, b, None]
        )
        return weighted(outs[0]) + (outs[1][-1] ** 2).sum() + outs[2].prod()

    check(build, doubles(4), doubles(), doubles(seed=3))


def test_a_sequence_used_twice_gets_the_sum():
    check(lambda x: weighted(theano.scan(lambda a, b: a * T.sin(b), [x, x])[0]), doubles(4))
    x = T.dvector("x")
    out, _ = theano.scan(lambda a, b: a * b, [x, x[::-1]])
    np.testing.assert_array_equal(run(T.grad(out.sum(), x), [x], [[1, 2, 3]]), [6, 4, 2])


def test_a_variable_that_is_sequence_state_and_non_sequence():
    check(
        lambda m: weighted(theano.scan(lambda r, s, w: T.tanh(r + T.dot(w, s)), m, m[0], m)[0]),
        doubles(3, 3),
    )


def test_duplicated_outputs_sum():
    def build(x):
        (p, q), _ = theano.scan(lambda r: [T.sin(r)] * 2, x)
        return weighted(p) + q.sum()

    check(build, doubles(4))


def test_an_output_that_is_an_input():
    check(
        lambda x, a: weighted(theano.scan(lambda r, s: [r, s * r], x, [None, a])[0][0])
        + theano.scan(lambda r, s: [r, s], x, [None, a])[0][1].sum(),
        doubles(4), doubles(),
    )  # fmt: skip


def test_a_loop_that_returns_a_captured_variable():
    w = T.dscalar("w")
    out, _ = theano.scan(lambda: w, n_steps=3)
    assert run(T.grad(out.sum(), w), [w], [2]) == 3


def test_chained_loops():
    def build(x, a):
        first, _ = theano.scan(lambda r, s: T.sin(r * s), x, a)
        second, _ = theano.scan(lambda r, s: T.tanh(r + s), first, a)
        return weighted(second)

    check(build, doubles(4), doubles())


def test_tensors_of_three_dimensions():
    check(
        lambda x, h, w: weighted(
            theano.scan(lambda r, h, w: T.tanh(T.dot(h, w) + r), x, h, w)[0]
        ),
        doubles(2, 2, 3), doubles(2, 3, seed=1), doubles(3, 3, seed=2),
    )  # fmt: skip


def test_mixed_float_dtypes():
    x, a = T.fvector("x"), T.dscalar("a")
    out, _ = theano.scan(lambda r, s: s * r, x, a)
    gx, ga = T.grad(out[-1], [x, a])
    assert (gx.dtype, ga.dtype) == ("float32", "float64")
    assert [v.tolist() for v in run([gx, ga], [x, a], [[2, 4], 3])] == [[12, 6], 8]


# ---- taps, direction, lengths --------------------------------------------------------------------


@given(
    taps=st.lists(st.integers(-2, 2), min_size=1, max_size=2),
    state_taps=st.lists(st.integers(-3, -1), min_size=1, max_size=2, unique=True),
    n_steps=st.sampled_from([None, 0, 1, 2, 3]),
    backwards=st.booleans(),
    last=st.booleans(),
)
def test_taps_equal_finite_differences(taps, state_taps, n_steps, backwards, last):
    depth = -min(state_taps)

    def build(x, a, w):
        def step(*v):
            parts = [T.sin(s * f64(i + 1) * w) for i, s in enumerate(v[:-1])]
            return sum(parts[1:], parts[0]) / len(parts)

        out, _ = theano.scan(
            step, dict(input=x, taps=taps), dict(initial=a, taps=state_taps), w,
            n_steps=n_steps, go_backwards=backwards,
        )  # fmt: skip
        return out[-1] * 2 if last and n_steps != 0 else weighted(out)

    initial = doubles() if state_taps == [-1] else doubles(depth, seed=1)
    check(build, doubles(7), initial, doubles(seed=2))


def test_gradient_of_unused_ends_is_zero():
    x = T.dvector("x")
    out, _ = theano.scan(lambda r: r * 2, dict(input=x, taps=[2]), n_steps=2)
    assert run(T.grad(out.sum(), x), [x], [np.ones(7)]).tolist() == [0, 0, 2, 2, 0, 0, 0]


def test_backwards_the_flip_is_undone():
    x = T.dvector("x")
    out, _ = theano.scan(lambda r: r**2, x, go_backwards=True, n_steps=2)
    weights = np.array([1.0, 10.0])
    g = T.grad((out * weights).sum(), x)
    assert run(g, [x], [[1, 2, 3]]).tolist() == [0, 40, 6]


def test_initial_rows_beyond_the_taps_get_zeros():
    a = T.dvector("a")
    out, _ = theano.scan(lambda p: p * 2, None, dict(initial=a, taps=[-2]), n_steps=3)
    assert run(T.grad(out.sum(), a), [a], [np.ones(4)]).tolist() == [2 + 4, 2, 0, 0]


def test_n_steps_shorter_than_the_sequences():
    def build(x, y):
        out, _ = theano.scan(lambda a, b: a * T.sin(b), [x, y], n_steps=3)
        return weighted(out)

    dx, dy = check(build, doubles(5), doubles(4, seed=1))
    assert (dx[3:] == 0).all() and (dy[3:] == 0).all()


def test_unequal_sequences():
    check(
        lambda x, y: weighted(theano.scan(lambda a, b: a * T.sin(b), [x, y])[0]),
        doubles(5), doubles(3, seed=1),
    )  # fmt: skip


def test_symbolic_n_steps():
    a, n = T.dscalar("a"), T.iscalar("n")
    out, _ = theano.scan(lambda s: s * a, None, one, n_steps=n)
    g = T.grad(out[-1], a)
    f = theano.function([a, n], g)
    assert f(3.0, 3) == 27
    assert f(3.0, 1) == 1


def test_no_steps_have_gradients_of_zeros():
    x, a, w, n = T.dvector("x"), T.dscalar("a"), T.dscalar("w"), T.iscalar("n")
    out, _ = theano.scan(lambda r, s, w: s * w + r, x, a, w, n_steps=n)
    f = theano.function([x, a, w, n], [out.sum(), *T.grad(out.sum(), [x, a, w])])
    cost, dx, da, dw = f(np.ones(3), 1, 2, 0)
    assert (cost, dx.tolist(), da, dw) == (0, [0, 0, 0], 0, 0)
    cost, dx, da, dw = f(np.ones(3), 1, 2, 2)
    assert (cost, dx.tolist(), da, dw) == (10, [3, 1, 0], 6, 6)


def test_an_empty_sequence_has_an_empty_gradient():
    x, w = T.dmatrix("x"), T.dvector("w")
    out, _ = theano.scan(lambda r, w: r * w, x, None, w)
    dx, dw = run(T.grad(out.sum(), [x, w]), [x, w], [np.ones((0, 2)), [1, 2]])
    assert dx.shape == (0, 2)
    assert dw.tolist() == [0, 0]


def test_the_final_state_of_no_steps_passes_the_gradient_on():
    k = theano.shared(f64(0), "k")
    a, n = T.dscalar("a"), T.iscalar("n")
    total, _ = theano.scan(lambda s: s * 3.0, None, a, n_steps=n)
    cost = T.concatenate([a.dimshuffle("x"), total])[-1]
    f = theano.function([a, n], T.grad(cost, a))
    assert f(1, 0) == 1
    assert f(1, 2) == 9
    assert k.get_value() == 0


def test_one_step():
    check(
        lambda x, a, w: weighted(
            theano.scan(lambda r, s, w: T.tanh(r * s + w), x, a, w, n_steps=1)[0]
        ),
        doubles(3, 2), doubles(2, seed=1), doubles(2, seed=2),
    )  # fmt: skip


# ---- until ---------------------------------------------------------------------------------------


def test_until_pads_with_zeros_at_the_end():
    x = T.dvector("x")
    out, _ = theano.scan(lambda r: (r**2, theano.until(r >= 3)), x)
    g = T.grad(out.sum(), x)
    assert run(g, [x], [[1, 2, 3, 4, 5]]).tolist() == [2, 4, 6, 0, 0]


@pytest.mark.parametrize("taps", [[-1], [-2, -1], [-3]])
def test_until_with_recurrent_states(taps):
    depth = -min(taps)

    def build(x, a):
        out, _ = theano.scan(
            lambda r, *s: (T.sin(r) * sum(s[1:], s[0]), theano.until(r >= 3)), x,
            dict(initial=a, taps=taps),
        )  # fmt: skip
        return weighted(out)

    x = np.array([1, 2, 1.5, 3.5, 1, 2])
    dx, _ = check(build, x, doubles() if taps == [-1] else doubles(depth))
    assert (dx[4:] == 0).all() and (dx[:4] != 0).all()


def test_until_and_last_row():
    check(
        lambda x, a, w: theano.scan(
            lambda r, s, w: (T.tanh(s * w + r), theano.until(r > 2)), x, a, w
        )[0][-1],
        np.array([1, 1.5, 2.5, 1]), doubles(), doubles(seed=1),
    )  # fmt: skip


def test_until_going_backwards():
    x = T.dvector("x")
    out, _ = theano.scan(lambda r: (r**2, theano.until(r < 3)), x, go_backwards=True)
    assert run(T.grad(out.sum(), x), [x], [[1, 2, 3, 4]]).tolist() == [0, 4, 6, 8]


def test_the_condition_has_no_gradient():
    x, limit = T.dvector("x"), T.dscalar("limit")
    out, _ = theano.scan(lambda r, limit: (r**2, theano.until(r > limit)), x, None, limit)
    with pytest.raises(Disconnected, match="limit"):
        T.grad(out.sum(), limit)


def test_n_steps_has_no_gradient():
    a, n = T.dscalar("a"), T.dscalar("n")
    out, _ = theano.scan(lambda s: s * 2.0, None, a, n_steps=T.cast(n, "int32"))
    with pytest.raises(Disconnected):
        T.grad(out.sum(), n)


# ---- truncation ----------------------------------------------------------------------------------


def test_truncation_zeroes_the_first_rows():
    x, w, a = T.dmatrix("x"), T.dvector("w"), T.dvector("a")
    out, _ = theano.scan(lambda r, s, w: T.tanh(r * w + s), x, a, w, truncate_gradient=3)
    dx, da = run(T.grad(out.sum(), [x, a]), [x, w, a], [doubles(5, 2), doubles(2), doubles(2)])
    assert (dx[:2] == 0).all() and (dx[2:] != 0).all()
    assert (da == 0).all()


def test_truncation_keeps_the_last_steps_of_the_loop_whatever_the_cost_reads():
    x = T.dvector("x")
    out, _ = theano.scan(lambda r, s: s + r, x, one, truncate_gradient=3)
    f = theano.function([x], [T.grad(out[i], x) for i in (-1, 2, 1)])
    found = [g.tolist() for g in f(np.ones(5))]
    assert found == [[0, 0, 1, 1, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]


@given(k=st.integers(0, 7), n=st.integers(2, 5), depth=st.integers(1, 3), last=st.booleans())
def test_truncation_by_the_contribution_rule(k, n, depth, last):
    """Unrolled, with zero_grad around the steps before the last k."""
    taps = list(range(-depth, 0))
    values = [doubles(n), doubles() if depth == 1 else doubles(depth, seed=1), doubles(seed=2)]
    x, a, w = symbols(values)

    def step(r, *rest):
        *s, w = rest
        return T.tanh(r * w + sum((p * f64(i + 1) for i, p in enumerate(s)), f64(0)) * w)

    out, _ = theano.scan(step, x, dict(initial=a, taps=taps), w, truncate_gradient=k)
    past = [a] if depth == 1 else [a[i] for i in range(depth)]
    rows = []
    for t in range(n):
        if t >= n - k:
            row = step(x[t], *past[-depth:], w)
        else:
            row = zero_grad(step(x[t], *past[-depth:], w))
        past.append(row)
        rows.append(row)
    gs = []
    for trace in (out, T.stack(rows)):
        cost = trace[-1] * 2 + trace[0] if last else weighted(trace)
        gs += T.grad(cost, [x, a, w])
    f = theano.function([x, a, w], gs)
    found = f(*values)
    for got, want in zip(found[:3], found[3:]):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-15)


def test_truncation_and_until():
    x, limit, k = T.dvector("x"), T.dscalar("limit"), 3
    out, _ = theano.scan(
        lambda r, u: (r**2, theano.until(r > u)), x, None, limit, truncate_gradient=k
    )
    g = T.grad(out.sum(), x)
    for threshold, n in [(7, 9), (1, 3), (0, 2), (20, 15)]:
        expected = 2.0 * np.arange(15)
        expected[n:] = 0
        expected[: max(n - k, 0)] = 0
        assert run(g, [x, limit], [np.arange(15.0), threshold]).tolist() == expected.tolist()


def test_truncation_until_and_taps():
    x, limit = T.dvector("x"), T.dscalar("limit")
    out, _ = theano.scan(
        lambda before, now, u: (before * now, theano.until(now > u)),
        dict(input=x, taps=[-2, 0]), None, limit, truncate_gradient=3,
    )  # fmt: skip
    g = run(T.grad(out.sum(), x), [x, limit], [np.arange(15.0), 6])
    assert g.tolist() == [0, 0, 0, 5, 6, 10, 4, 5, 0, 0, 0, 0, 0, 0, 0]


def test_truncation_with_output_taps_reaches_initial_rows():
    # 2 steps of taps -3: both read initial rows only, so even one step reaches the initial state
    a = T.dvector("a")
    out, _ = theano.scan(
        lambda p: p * 2, None, dict(initial=a, taps=[-3]), n_steps=2, truncate_gradient=1
    )
    assert run(T.grad(out.sum(), a), [a], [np.ones(3)]).tolist() == [0, 2, 0]


def test_truncation_longer_than_the_loop_changes_nothing():
    x, a = T.dvector("x"), T.dscalar("a")
    gs = []
    for k in (-1, 9):
        out, _ = theano.scan(lambda r, s: T.sin(r * s), x, a, truncate_gradient=k)
        gs += T.grad(out.sum(), [x, a])
    dx, da, dx9, da9 = run(gs, [x, a], [doubles(4), 1.0])
    np.testing.assert_allclose(dx, dx9, rtol=1e-14)
    np.testing.assert_allclose(da, da9, rtol=1e-14)


def test_truncation_going_backwards():
    x = T.dvector("x")
    out, _ = theano.scan(lambda r: r**2, x, go_backwards=True, truncate_gradient=2)
    assert run(T.grad(out.sum(), x), [x], [[1, 2, 3, 4]]).tolist() == [2, 4, 0, 0]


def test_truncation_through_parameters():
    x, w = T.dvector("x"), theano.shared(f64(2), "w")
    out, _ = theano.scan(lambda r: r * w, x, truncate_gradient=2)
    assert run(T.grad(out.sum(), w), [x], [[1, 10, 100]]) == 110


def test_sequences_are_clipped_before_they_are_reversed():
    """Theano's test_grad_multiple_seqs_different_nsteps."""
    c, x = T.vector("c"), T.scalar("x")
    terms, _ = theano.scan(
        lambda coefficient, power, free: coefficient * free**power,
        [c, T.arange(1000)],
        non_sequences=x,
    )
    assert run(T.grad(terms.sum(), x), [c, x], [[1, 2, -3, 4], 2]) == 38


# ---- connection ----------------------------------------------------------------------------------


def test_a_state_that_the_cost_does_not_depend_on_is_disconnected():
    a, b = T.dscalar("a"), T.dscalar("b")
    (p, q), _ = theano.scan(lambda p, q: [p * 2, q * 3], None, [a, b], n_steps=3)
    assert run(T.grad(p.sum(), a), [a, b], [1, 1]) == 14
    with pytest.raises(Disconnected, match="b"):
        T.grad(p.sum(), b)


def test_connection_is_closed_over_the_recurrence():
    a, b, c, d = (T.dscalar(n) for n in "abcd")
    (p, q, r, s), _ = theano.scan(
        lambda p, q, r, s: [p + q, q + r, r * 2, s], None, [a, b, c, d], n_steps=4
    )
    assert run(T.grad(p[-1], [a, b, c]), [a, b, c, d], [1, 1, 1, 1]) == [1, 4, 11]
    # p after one step does not depend on c yet: connected, with zeros
    assert run(T.grad(p[0], [a, b, c]), [a, b, c, d], [1, 1, 1, 1]) == [1, 1, 0]
    with pytest.raises(Disconnected, match="d"):
        T.grad(p[-1], d)


def test_theanos_tests_of_disconnected_gradients():
    v, m = T.vector("v"), T.matrix("m")
    (u, m2), _ = theano.scan(lambda _, u: [u, v], m, [T.zeros((7,)), None])
    g = T.grad((m * m2).sum(), v)
    assert run(g, [v, m], [[1, 2], np.ones((3, 2))]).tolist() == [3, 3]
    (one_more, two_more), _ = theano.scan(lambda r: (r + 1, r + 1 + 1), v)
    assert run(T.grad(two_more.sum(), [v]), [v], [[1, 2]])[0].tolist() == [1, 1]


def test_a_step_that_forgets_its_state():
    """Theano's test_grad_find_input."""
    w, init = theano.shared(f32(0), "w"), T.fscalar("init")
    out, _ = theano.scan(lambda previous: w, None, init, n_steps=2)
    assert run(T.grad(out[-1], w), [init], [1]) == 1
    with pytest.raises(Disconnected):
        T.grad(out[-1], init)


def test_a_matrix_sampled_by_int_rows():
    w, v = T.dmatrix("w"), T.dvector("v")
    out, _ = theano.scan(lambda i, w: w[i], T.arange(1, 3), None, w)
    g = T.grad(out.sum(), w)
    assert run(g, [w], [np.zeros((3, 3))]).tolist() == [[0, 0, 0], [1, 1, 1], [1, 1, 1]]
    out, _ = theano.scan(lambda i, w, v: T.dot(w[i], v), T.arange(1, 3), None, [w, v])
    assert run(T.grad(out.sum(), w), [w, v], [np.zeros((3, 3)), [1, 2, 3]]).tolist() == [
        [0, 0, 0], [1, 2, 3], [1, 2, 3],
    ]  # fmt: skip


def test_int_rows_that_repeat_accumulate():
    i, w = T.ivector("i"), T.dvector("w")
    out, _ = theano.scan(lambda i, w: w[i] ** 2, i, None, w)
    assert run(T.grad(out.sum(), w), [i, w], [[0, 2, 2], [1, 2, 3]]).tolist() == [2, 0, 12]


def test_int_states_beside_float_states():
    x, a = T.dvector("x"), T.dscalar("a")

    def step(r, s, i):
        s = s * r
        return [s, T.cast(T.switch(s > 1, i + 1, i), "int32")]

    (s, i), _ = theano.scan(step, x, [a, np.int32(0)])
    dx, da = T.grad(s.sum(), [x, a])
    assert run([i, dx, da], [x, a], [[2, 3], 1])[0].tolist() == [1, 2]
    assert run(dx, [x, a], [[2, 3], 1]).tolist() == [4, 2]
    assert run(da, [x, a], [[2, 3], 1]) == 8


def test_an_int_state_that_steers_a_float_state():
    def build(x, a):
        (s, i), _ = theano.scan(
            lambda r, s, i: [s * r + x[i], i + np.int32(1)], x, [a, np.int32(0)]
        )
        return weighted(s)

    check(build, doubles(4), doubles())


def test_a_cost_that_reads_an_int_output():
    x = T.dvector("x")
    (s, i), _ = theano.scan(lambda r, i: [r**2, i + np.int32(2)], x, [None, np.int32(0)])
    g = T.grad((s * i).sum(), x)
    assert run(g, [x], [[1, 2]]).tolist() == [4, 16]


def test_a_bool_output():
    x = T.dvector("x")
    (s, b), _ = theano.scan(lambda r: [r**2, r > 1], x)
    assert run(T.grad((s * b).sum(), x), [x], [[1, 2]]).tolist() == [0, 4]


def test_gradient_with_respect_to_an_int_sequence_that_is_cast():
    i, x = T.ivector("i"), T.dvector("x")
    out, _ = theano.scan(lambda i, r: T.cast(i, "float64") * r, [i, x])
    g = T.grad(out.sum(), i)
    assert g.dtype.startswith("float")
    assert run(g, [i, x], [[1, 2], [5, 6]]).tolist() == [5, 6]


def test_one_output_without_gradient_does_not_spoil_another():
    x = T.dvector("x")
    rng = T.shared_randomstreams.RandomStreams(2)
    (s, d), updates = theano.scan(
        lambda r: [r**2, rng.uniform((), low=r * 0.0, high=1.0, dtype="float64")], x
    )
    assert run(T.grad(s.sum(), x), [x], [[1, 2]], updates=updates).tolist() == [2, 4]
    with pytest.raises(Null):
        T.grad(d.sum(), x)


@pytest.mark.filterwarnings("ignore:.*updates were not passed")
def test_draws_are_constants():
    rng = T.shared_randomstreams.RandomStreams(2)
    x, w = T.dvector("x"), T.dscalar("w")
    out, updates = theano.scan(
        lambda r, s, w: T.tanh(s * w + r * rng.uniform((), dtype="float64")), x, one, w
    )
    cost = out.sum()
    f = theano.function([x, w], [cost, *T.grad(cost, [x, w])])  # no updates: the same numbers
    values = doubles(4), doubles()
    for got, want in zip(f(*values)[1:], differences(lambda *v: f(*v)[0], values)):
        np.testing.assert_allclose(got, want, rtol=1e-6)


# ---- shared variables with updates ---------------------------------------------------------------


def test_an_updated_shared_variable_has_the_gradient_of_its_value_before_the_loop():
    k, w = theano.shared(f64(2), "k"), T.dscalar("w")
    out, updates = theano.scan(lambda w: (w * k, {k: k**2}), None, None, w, n_steps=3)
    dk, dw = T.grad(out.sum(), [k, w])  # w (k + k^2 + k^4)
    f = theano.function([w], [dk, dw], updates=updates)
    assert f(3) == [3 * (1 + 2 * 2 + 4 * 8), 2 + 4 + 16]
    assert f(1)[1] == sum(2 ** (8 * i) for i in (1, 2, 4))  # k is 2^8 now


def test_the_value_after_the_loop_moves_with_the_value_before():
    k = theano.shared(f64(2), "k")
    _, updates = theano.scan(lambda: {k: 3 * k + 1}, n_steps=4)
    assert run(T.grad(updates[k], k), updates=updates) == 81


def test_parameters_of_an_update_have_gradients():
    k, w = theano.shared(f64(2), "k"), T.dscalar("w")
    out, updates = theano.scan(lambda w: (k**2, {k: k * w}), None, None, w, n_steps=3)
    # 4 + 4 w^2 + 4 w^4
    assert run(T.grad(out.sum(), w), [w], [3], updates=updates) == 8 * 3 + 16 * 27


def test_the_value_after_the_loop_has_a_gradient():
    k, w = theano.shared(f64(2), "k"), T.dscalar("w")
    _, updates = theano.scan(lambda w: {k: k * w}, None, None, w, n_steps=3)
    assert run(T.grad(updates[k], w), [w], [3], updates=updates) == 2 * 3 * 9


# ---- nesting, gradients inside -------------------------------------------------------------------


def test_nested_loops():
    def build(x, w, a):
        def outer(r, s, w):
            inner, _ = theano.scan(lambda v, u, w: T.sin(u * w + v), r, s, w)
            return inner[-1]

        return weighted(theano.scan(outer, x, a, w)[0])

    check(build, doubles(3, 4), doubles(), doubles(seed=1))


def test_nested_loops_with_taps():
    def build(x, a):
        def outer(r, p, q):
            inner, _ = theano.scan(
                lambda v, u, t: T.tanh(u * v + t), r, dict(initial=T.stack([p, q]), taps=[-2, -1])
            )
            return inner.sum()

        return weighted(theano.scan(outer, x, dict(initial=a, taps=[-2, -1]))[0])

    check(build, doubles(3, 3), doubles(2))


def test_a_gradient_inside_a_step_as_in_hmc():
    """Leapfrog steps with grad of the energy inside; and the gradient of all that again."""

    def energy(q, a):
        return (a * q**4).sum() + T.cos(q).sum()

    def build(q, p, a):
        def leapfrog(q, p, a):
            p = p - 0.1 * T.grad(energy(q, a), q)
            return [q + 0.1 * p, p], {}

        (qs, ps), updates = theano.scan(leapfrog, None, [q, p], a, n_steps=4)
        assert not updates
        return weighted(qs) + (ps[-1] ** 2).sum()

    check(build, doubles(2), doubles(2, seed=1), doubles(seed=2))


def test_the_jacobian_idiom():
    v = T.dvector("v")
    a = T.tanh(T.dot(v, T.constant(doubles(3, 3))))
    by_capture, _ = theano.scan(lambda i: T.grad(a[i], v), T.arange(a.shape[0]))
    by_passing, _ = theano.scan(lambda i, a, v: T.grad(a[i], v), T.arange(a.shape[0]), None, [a, v])
    value = doubles(3, seed=1)
    expected = np.diag(1 - np.tanh(value @ doubles(3, 3)) ** 2) @ doubles(3, 3).T
    for rows in (by_capture, by_passing):
        np.testing.assert_allclose(run(rows, [v], [value]), expected, rtol=1e-10)


def test_gradient_of_a_loop_of_gradients():
    def build(v):
        a = T.sin(v) ** 2
        rows, _ = theano.scan(lambda i: T.grad(a[i], v), T.arange(a.shape[0]))
        return weighted(rows**2)

    check(build, doubles(3))


def test_clip_scale_and_zero_inside_a_step():
    x, w = T.dvector("x"), T.dscalar("w")

    def through(change):
        out, _ = theano.scan(lambda r, w: change(r * w), x, None, w)
        return run(T.grad((out * np.array([1.0, 10, -10])).sum(), w), [x, w], [[1, 2, 4], 1])

    assert through(lambda v: grad_clip(v, -2.0, 3.0)) == 1 * 1 + 2 * 3 + 4 * -2
    assert through(lambda v: grad_scale(v, 0.5)) == (1 + 20 - 40) / 2
    assert through(zero_grad) == 0
    assert through(consider_constant) == 0
    with pytest.raises(Disconnected):
        through(disconnected_grad)
    with pytest.raises(Null):
        through(undefined_grad)


def test_clipping_acts_in_each_step_of_a_recurrence():
    a, w = T.dscalar("a"), T.dscalar("w")
    out, _ = theano.scan(lambda s, w: grad_clip(s * w, -5.0, 5.0), None, a, w, n_steps=3)
    # backwards: 1 -> *3 = 3 -> *3 = 9, clipped to 5 -> *3 = 15
    assert run(T.grad(out[-1], a), [a, w], [1, 3]) == 15


def test_clip_keeps_values():
    x = T.dvector("x")
    found = run([grad_clip(x, -1, 1), grad_scale(x, 7), zero_grad(x), disconnected_grad(x)],
                [x], [[5, -5]])  # fmt: skip
    assert [v.tolist() for v in found] == [[5, -5]] * 4


def test_clone_and_givens_before_the_gradient():
    x, a, w = T.dvector("x"), T.dscalar("a"), T.dscalar("w")
    out, _ = theano.scan(lambda r, s, w: s * w + r, x, a, w)
    cost = theano.clone(out[-1], {a: w * 2})
    g = T.grad(cost, w)
    # 2 w^3 + w + 2 at x = [1, 2]
    assert run(g, [x, w], [[1, 2], 3]) == 6 * 9 + 1
    f = theano.function([x], T.grad(out[-1], w), givens={w: T.constant(f64(3)), a: one * 2})
    assert f(np.array([1.0, 2])) == 2 * 3 * 2 + 1


def test_gradient_with_broadcast_states():
    """A row as initial state of matrices: widened by itself, and its gradient is a row's."""
    check(
        lambda x, a: weighted(
            theano.scan(lambda r, s: T.tanh(r + s), x, T.unbroadcast(a.dimshuffle("x", 0), 0))[0]
        ),
        doubles(3, 1, 2), doubles(2),
    )  # fmt: skip
    check(
        lambda x, a: weighted(
            theano.scan(lambda r, s: T.tanh(r + s), x, a.dimshuffle("x", 0))[0]
        ),
        doubles(3, 1, 2), doubles(2),
    )  # fmt: skip


# ---- higher orders -------------------------------------------------------------------------------


def test_second_order_through_a_state_and_taps():
    for taps in ([-1], [-3, -1]):

        def build(x, a, w, taps=taps):
            out, _ = theano.scan(
                lambda r, *s: T.tanh(sum(s[1:-1], s[0]) * s[-1] + r), x,
                dict(initial=a, taps=taps), w,
            )  # fmt: skip
            return sum((g**2).sum() for g in T.grad(weighted(out), [x, a, w]))

        check(build, doubles(4), doubles() if taps == [-1] else doubles(3), doubles(seed=1))


def test_third_order():
    def build(x, a):
        out, _ = theano.scan(lambda r, s: T.sin(s * r), x, a)
        first = T.grad(weighted(out), a)
        second = T.grad(first, a)
        return T.grad(second, a) + (T.grad(second, x) ** 2).sum()

    check(build, doubles(3), doubles())


def test_orders_of_a_power():
    a = T.dscalar("a")
    out, _ = theano.scan(lambda s, a: s * a, None, one, a, n_steps=5)
    g, orders = out[-1], []
    for _ in range(4):
        g = T.grad(g, a)
        orders.append(g)
    assert run(orders, [a], [2]) == [5 * 16, 20 * 8, 60 * 4, 120 * 2]


def test_second_order_of_until():
    def build(x, a):
        out, _ = theano.scan(lambda r, s: (T.sin(r) * s, theano.until(r >= 3)), x, a)
        return (T.grad(weighted(out), x) ** 2).sum()

    check(build, np.array([1, 2, 3.5, 1]), doubles())


def test_second_order_of_truncation():
    """grad of the truncated gradient is that of the program it is, as finite differences say."""

    def build(x, a):
        out, _ = theano.scan(lambda r, s: T.sin(r * s), x, a, truncate_gradient=2)
        return (T.grad(weighted(out), x) ** 2).sum()

    x, a = T.dvector("x"), T.dscalar("a")
    g = T.grad(build(x, a), x)
    assert np.isfinite(run(g, [x, a], [doubles(4), 1.0])).all()


def test_second_order_of_nested_loops():
    def build(x, a):
        def outer(r, s):
            return theano.scan(lambda v, u: T.sin(u * v), r, s)[0][-1]

        out, _ = theano.scan(outer, x, a)
        return (T.grad(weighted(out), x) ** 2).sum()

    check(build, doubles(2, 3), doubles())


def test_the_gradient_of_a_gradient_of_a_state_is_42():
    """Theano's test_grad_of_grad_of_state."""
    c = T.vector("c")

    def scan_c(prior, c):
        return c**2 * prior

    out, _ = theano.scan(scan_c, None, T.ones_like(c), c, n_steps=1)
    g = T.grad(out[-1].sum(), c)
    assert run(T.grad(g.sum(), c), [c], [[1, 2]]).tolist() == [2, 2]
    x = T.scalar("x")
    out, _ = theano.scan(lambda s: x * x * s, None, T.constant(f32(1)), n_steps=2)
    # x^4: 12 x^2
    assert run(T.grad(T.grad(out[-1], x), x), [x], [np.sqrt(3.5)]) == pytest.approx(42, rel=1e-5)


# ---- jacobian, hessian, Lop, Rop -----------------------------------------------------------------


def rnn(x, h, w):
    out, _ = theano.scan(lambda r, h, w: T.tanh(T.dot(h, w) + r), x, h, w)
    return out


def explicit_jacobian(f, values, k):
    """d f.flatten() / d values[k] by central differences: a row per element of f."""
    columns = []
    eps = 1e-6
    for i in np.ndindex(values[k].shape):
        ends = []
        for sign in (1, -1):
            moved = [np.array(v) for v in values]
            moved[k][i] += sign * eps
            ends.append(f(*moved).ravel())
        columns.append((ends[0] - ends[1]) / (2 * eps))
    return np.stack(columns, axis=1)


RNN = doubles(3, 2), doubles(2, seed=1), doubles(2, 2, seed=2)


def test_jacobian_through_a_loop():
    inputs = symbols(RNN)
    out = rnn(*inputs)[-1]
    found = run(jacobian(out, inputs), inputs, RNN)
    f = theano.function(inputs, out)
    for k, got in enumerate(found):
        want = explicit_jacobian(f, RNN, k).reshape(got.shape)
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-9)


def test_jacobian_of_scalars_and_forms_of_wrt():
    x, y = T.dvector("x"), T.dvector("y")
    assert run(jacobian((x**2).sum(), x), [x], [[1, 2]]).tolist() == [2, 4]
    found = jacobian(x * y, (x, y))
    assert isinstance(found, tuple)
    assert [g.tolist() for g in run(list(found), [x, y], [[1, 2], [3, 4]])] == [
        [[3, 0], [0, 4]], [[1, 0], [0, 2]],
    ]  # fmt: skip
    with pytest.raises(ValueError, match="flatten"):
        jacobian(T.dmatrix("m"), x)
    with pytest.raises(Disconnected):
        jacobian(x * 2, y)
    assert run(jacobian(x * 2, y, disconnected_inputs="ignore"), [x, y],
               [[1, 2], [1, 2, 3]]).tolist() == [[0, 0, 0]] * 2  # fmt: skip


def test_hessian_through_a_loop():
    x = T.dvector("x")
    out, _ = theano.scan(lambda r, s: T.sin(s * r + s), x, one)
    cost = weighted(out)
    value = doubles(4)
    g = theano.function([x], T.grad(cost, x))
    np.testing.assert_allclose(
        run(hessian(cost, x), [x], [value]), explicit_jacobian(g, [value], 0), rtol=1e-6, atol=1e-8
    )


def test_hessian_of_several_and_refusals():
    x, y = T.dvector("x"), T.dvector("y")
    found = hessian((x**2 * y).sum(), [x, y])
    hx, hy = run(found, [x, y], [[1, 2], [3, 4]])
    assert (hx.tolist(), hy.tolist()) == ([[6, 0], [0, 8]], [[0, 0], [0, 0]])
    with pytest.raises(TypeError, match="scalar"):
        hessian(x, x)
    with pytest.raises(ValueError, match="vector"):
        hessian(T.dmatrix("m").sum(), T.dmatrix("m"))


def test_hessian_of_two_loops():
    """A loop in a loop, as in Theano's test_hessian_bug_grad_grad_two_scans."""
    w, n = T.dvector("w"), T.iscalar("n")

    def outer(t, s, w):
        inner, _ = theano.scan(lambda e, s: s + (e + 1.0) * T.dot(w, w), T.arange(t + 1), s)
        return inner[-1] * s

    out, _ = theano.scan(outer, T.arange(n), one, w)
    f = theano.function([w, n], hessian(out[-1], w))
    g = theano.function([w, n], T.grad(out[-1], w))
    value = doubles(2)
    want = explicit_jacobian(lambda v: g(v, 2), [value], 0)
    np.testing.assert_allclose(f(value, 2), want, rtol=1e-6)


@pytest.mark.parametrize("last", [True, False])
def test_lop_and_rop_equal_products_with_the_jacobian(last):
    inputs = symbols(RNN)
    out = rnn(*inputs)
    out = out[-1] if last else out
    f = theano.function(inputs, out)
    jacobians = [explicit_jacobian(f, RNN, k) for k in range(3)]
    u = doubles(*f(*RNN).shape, seed=5)
    left = run(T.Lop(out, inputs, T.constant(u)), inputs, RNN)
    for got, j, v in zip(left, jacobians, RNN):
        np.testing.assert_allclose(got, (u.ravel() @ j).reshape(v.shape), rtol=1e-6, atol=1e-9)
    points = [doubles(*v.shape, seed=6 + i) for i, v in enumerate(RNN)]
    right = run(T.Rop(out, inputs, [T.constant(p) for p in points]), inputs, RNN)
    want = sum(j @ p.ravel() for j, p in zip(jacobians, points)).reshape(u.shape)
    np.testing.assert_allclose(right, want, rtol=1e-6, atol=1e-9)


def test_rop_of_a_gradient_is_a_product_with_the_hessian():
    x = T.dvector("x")
    out, _ = theano.scan(
        lambda r, p, q: T.sin(p * r + q), x,
        dict(initial=T.constant(doubles(2)), taps=[-2, -1]),
    )  # fmt: skip
    g = T.grad(weighted(out), x)
    value, v = doubles(4), doubles(4, seed=1)
    h = explicit_jacobian(theano.function([x], g), [value], 0)
    np.testing.assert_allclose(run(T.Rop(g, x, T.constant(v)), [x], [value]), h @ v, rtol=1e-6)


def test_rop_with_draws_in_the_loop():
    rng = T.shared_randomstreams.RandomStreams(2)
    x, w = T.dvector("x"), T.dscalar("w")
    out, updates = theano.scan(lambda r, w: r * w * rng.uniform((), dtype="float64"), x, None, w)
    f = theano.function([x, w], [out, T.Rop(out, w, T.constant(f64(2)))], updates=updates)
    values, product = f(doubles(3), 4.0)
    np.testing.assert_allclose(product, values / 4 * 2, rtol=1e-12)


def test_rop_of_what_does_not_depend():
    x, y = T.dvector("x"), T.dvector("y")
    with pytest.raises(Disconnected):
        T.Rop(y, x, x)
    with pytest.raises(Disconnected):
        T.Rop(T.arange(x.shape[0]) * 2.0, x, x)
    for f, how in ((y * 2, "raise"), (y, "ignore")):
        g = T.Rop(f, x, x, disconnected_outputs=how)
        assert run(g, [x, y], [[1], [1, 2]]).tolist() == [0, 0]


def test_rop_and_lop_of_several():
    x, y = T.dvector("x"), T.dvector("y")
    fs = [x * y, x + y]
    r = T.Rop(fs, [x, y], [T.ones_like(x), T.zeros_like(y)])
    assert isinstance(r, list)
    assert [v.tolist() for v in run(r, [x, y], [[1, 2], [3, 4]])] == [[3, 4], [1, 1]]
    left = T.Lop(fs, [x, y], [T.ones_like(x), T.ones_like(y)])
    assert [v.tolist() for v in run(left, [x, y], [[1, 2], [3, 4]])] == [[4, 5], [2, 3]]


# ---- verify_grad ---------------------------------------------------------------------------------


def test_verify_grad_passes_a_right_gradient():
    rng = np.random.RandomState(0)
    verify_grad(
        lambda x, a: theano.scan(lambda r, s: T.tanh(r * s), x, a)[0], [doubles(4), doubles()],
        rng=rng,
    )  # fmt: skip


@pytest.mark.parametrize(
    "wrong", [lambda v: grad_scale(v, 1.05), zero_grad, lambda v: grad_clip(v, -0.1, 0.1)]
)
def test_verify_grad_finds_a_wrong_gradient(wrong):
    with pytest.raises(GradientError, match="input 0"):
        verify_grad(
            lambda x: theano.scan(lambda r, s: wrong(T.tanh(r * s)), x, one)[0], [doubles(4)],
            rng=np.random.RandomState(0),
        )  # fmt: skip


def test_verify_grad_wants_floats_and_a_generator():
    with pytest.raises(TypeError, match="floating point"):
        verify_grad(lambda x: x * 2, [np.arange(3)], rng=np.random.RandomState(0))
    with pytest.raises(TypeError, match="rng"):
        verify_grad(lambda x: x * 2, [doubles(3)])


def test_verify_grad_in_float32():
    verify_grad(
        lambda x: theano.scan(lambda r, s: T.tanh(r * s), x, T.constant(f32(1)))[0],
        [doubles(4).astype("float32")], rng=np.random.RandomState(0), abs_tol=1e-2, rel_tol=1e-2,
    )  # fmt: skip


def test_verify_grad_is_in_the_tensor_namespace():
    assert T.verify_grad is verify_grad
    assert T.verify_grad.E_grad is GradientError


def test_numeric_grad():
    g = numeric_grad(lambda x: (x**2).sum(), np.array([1.0, 2.0])).gf
    np.testing.assert_allclose(g, [2, 4], rtol=1e-5)
    a, b = numeric_grad(lambda x, y: x * y, [np.array(2.0), np.array(3.0)]).gf
    np.testing.assert_allclose([a, b], [3, 2], rtol=1e-5)
