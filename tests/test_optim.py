"""Optimizers: their numbers are PyTorch's and Optax's, their state can be kept, few kernels run."""

import numpy as np
import pytest

import gpuscan
from benchmarks.figures import optim as figures
from gpuscan import optim
from gpuscan import tensor as T
from gpuscan.config import config
from gpuscan.errors import DisconnectedInputError, NullTypeGradError
from gpuscan.scan.updates import OrderedUpdates

METHODS = [
    optim.sgd, optim.momentum, optim.nesterov, optim.adagrad, optim.adadelta, optim.rmsprop,
    optim.adam, optim.adamw,
]  # fmt: skip
methods = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)


def parameter(name="W", shape=(2, 3), dtype="float32"):
    values = np.linspace(-1, 1, int(np.prod(shape, dtype=int))).reshape(shape)
    return gpuscan.shared(values.astype(dtype), name)


def stepped(updates, times=1, device=None):
    """The values of what the updates set, by name, after so many calls."""
    f = gpuscan.function([], updates=updates, device=device)
    for _ in range(times):
        f()
    return {k: v.get_value() for k, v in optim.states(updates).items()}


# ---- the numbers of other libraries --------------------------------------------------------------


def test_parameters_are_those_of_pytorch_and_optax(device):
    stored = figures.stored()
    found = figures.by_ours(device)
    assert set(found) == set(stored["cases"])
    assert figures.differences(found, stored["cases"]) == []


def test_the_stored_figures_are_what_pytorch_and_optax_compute_today():
    pytest.importorskip("torch", reason="the extra `bench` is not installed")
    pytest.importorskip("optax", reason="the extra `bench` is not installed")
    assert figures.differences(figures.figures(), figures.stored()["cases"]) == []


# ---- what other libraries define otherwise -------------------------------------------------------


def test_the_rate_may_stand_in_the_velocity():
    """Theano's and Lasagne's v = mu v - r g; p + v, and with Nesterov p + mu v - r g."""
    g, mu, rates = 2.0, 0.5, [0.1, 0.01, 0.03]
    for method in (optim.momentum, optim.nesterov):
        p, v = 1.0, 0.0
        for r in rates:
            v = mu * v - r * g
            p += v if method is optim.momentum else mu * v - r * g
        w = parameter(shape=(), dtype="float64")
        w.set_value(np.asarray(1.0))
        schedule = optim.join_schedules([optim.constant_schedule(r) for r in rates], [1, 2])
        stepped(method(w * g, [w], schedule, mu, rate_in_velocity=True), 3)
        np.testing.assert_allclose(w.get_value(), p, rtol=1e-14)


def test_epsilon_hat_of_adam():
    """a = r sqrt(1 - b2^t) / (1 - b1^t); p - a m / (sqrt(v) + epsilon): Lasagne's."""
    g, r, b1, b2, e = 0.3, 0.1, 0.9, 0.99, 0.05
    p, m, v = 1.0, 0.0, 0.0
    for t in range(1, 6):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        p -= r * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + e)
    w = parameter(shape=(), dtype="float64")
    w.set_value(np.asarray(1.0))
    stepped(optim.adam(w * T.constant(g, dtype="float64"), [w], r, b1, b2, e, epsilon_hat=True), 5)
    np.testing.assert_allclose(w.get_value(), p, rtol=1e-14)


# ---- clipping ------------------------------------------------------------------------------------


def test_gradients_below_the_norm_stay_and_others_are_scaled_together():
    values = [np.array([3.0, 0.0], "f4"), np.array([[4.0]], "f4")]
    grads = [gpuscan.shared(v) for v in values]
    for bound, factor in ((10.0, 1.0), (5.0, 5 / (5 + 1e-6)), (1.0, 1 / (5 + 1e-6)), (0, 0)):
        clipped, norm = optim.clip_by_global_norm(grads, bound)
        *found, length = gpuscan.function([], [*clipped, norm])()
        assert length == 5 and length.dtype == "float32"
        for x, g in zip(found, values):
            assert x.dtype == "float32"
            np.testing.assert_allclose(x, g * factor, rtol=1e-6)


def test_the_norm_is_of_the_widest_dtype_and_its_bound_may_be_symbolic():
    bound = gpuscan.shared(1.0)
    grads = [gpuscan.shared(np.ones(3, d)) for d in ("float32", "float64")]
    clipped, norm = optim.clip_by_global_norm(grads, bound)
    assert norm.dtype == "float64" and [g.dtype for g in clipped] == ["float32", "float64"]
    f = gpuscan.function([], clipped)
    np.testing.assert_allclose(f()[1], 1 / np.sqrt(6), rtol=1e-6)
    bound.set_value(np.asarray(np.inf))
    np.testing.assert_array_equal(f()[1], 1)


@pytest.mark.parametrize("grads, bound, error, words", [
    ([], 1, ValueError, "grads is empty"),
    (T.vector("g"), 1, TypeError, "grads is a list"),
    ([1.0], 1, TypeError, r"grads\[0\] is no expression"),
    ([T.ivector("n")], 1, TypeError, r"grads\[0\] is not of floats, got n \(int32 vector\)"),
    ([T.vector("g")], -1, ValueError, "max_norm is 0 or more, got -1"),
    ([T.vector("g")], np.nan, ValueError, "max_norm is 0 or more, got nan"),
    ([T.vector("g")], T.vector("m"), TypeError, r"max_norm is a number or a scalar, got m"),
])  # fmt: skip
def test_what_clipping_refuses(grads, bound, error, words):
    with pytest.raises(error, match=words):
        optim.clip_by_global_norm(grads, bound)


# ---- learning rates ------------------------------------------------------------------------------


def rates(schedule, steps):
    step = T.lscalar("step")
    f = gpuscan.function([step], T.cast(schedule(step), "float64"), on_unused_input="ignore")
    return [float(f(k)) for k in steps]


@pytest.mark.parametrize("schedule, steps, expected", [
    (optim.constant_schedule(0.1), [0, 10**9], [0.1, 0.1]),
    (optim.exponential_decay(0.1, 0.5, 4), [0, 2, 4, 8], [0.1, 0.1 * 0.5**0.5, 0.05, 0.025]),
    (optim.step_decay(0.1, 0.5, 4), [0, 3, 4, 7, 8], [0.1, 0.1, 0.05, 0.05, 0.025]),
    (optim.linear_warmup(0.1, 4), [0, 1, 4, 5, 10**12], [0, 0.025, 0.1, 0.1, 0.1]),
    (optim.cosine_decay(0.1, 4, 0.02), [0, 2, 4, 5], [0.1, 0.06, 0.02, 0.02]),
    (
        optim.join_schedules(
            [optim.linear_warmup(1, 2), lambda step: step, optim.constant_schedule(7)], [2, 5]
        ),
        [0, 1, 2, 3, 4, 5, 6], [0, 0.5, 0, 1, 2, 7, 7],
    ),
])  # fmt: skip
def test_schedules(schedule, steps, expected):
    np.testing.assert_allclose(rates(schedule, steps), expected, rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("floatX", ["float32", "float64"])
@pytest.mark.parametrize("rate", [
    0.1, np.float32(0.1), np.asarray(0.1), 1, T.constant(0.1), gpuscan.shared(0.1, "r"),
    gpuscan.shared(np.int64(1), "n"), T.exp(gpuscan.shared(-2.0)), lambda step: 0.1 / (1 + step),
    lambda step: 1, optim.cosine_decay(0.1, 10),
])  # fmt: skip
def test_a_rate_of_any_kind_leaves_the_dtype(rate, floatX, dtype):
    with config.change_flags(floatX=floatX):
        for method in (optim.adam, optim.adamw, optim.nesterov):
            w = parameter(dtype=dtype)
            updates = method((w**2).sum(), [w], learning_rate=rate)
            assert all(v.dtype == k.dtype for k, v in updates.items())
            kept = [k for k in updates if k.ndim]
            assert len(kept) > 1 and {k.dtype for k in kept} == {dtype}


def test_a_shared_rate_can_be_changed_between_calls():
    w, r = parameter(dtype="float64"), gpuscan.shared(0.5)
    start = w.get_value()
    f = gpuscan.function([], updates=optim.sgd(w.sum(), [w], r))
    f()
    r.set_value(np.asarray(0.25))
    f()
    np.testing.assert_allclose(w.get_value(), start - 0.75, rtol=1e-14)


def test_a_schedule_is_told_how_many_updates_were_made():
    w = parameter(dtype="float64")
    start = w.get_value()
    made = stepped(optim.sgd(w.sum(), [w], lambda step: step), 4)
    np.testing.assert_allclose(w.get_value(), start - (0 + 1 + 2 + 3), rtol=1e-14)
    assert made["sgd.step"] == 4 and made["sgd.step"].dtype == "int64"


@pytest.mark.parametrize("make, error, words", [
    (lambda: optim.constant_schedule(-1), ValueError, "rate is finite, and 0 or more, got -1"),
    (lambda: optim.exponential_decay(0.1, 0), ValueError, "decay is finite, and more than 0"),
    (lambda: optim.step_decay(0.1, 0.5, 0), ValueError, "steps is 1 or more, got 0"),
    (lambda: optim.cosine_decay(0.1, 2.5), TypeError, "steps is a whole number, got 2.5"),
    (lambda: optim.join_schedules([], []), ValueError, "0 schedules have 0 boundaries"),
    (lambda: optim.join_schedules([len], [3]), ValueError, "1 schedules have 0 bound.*got 1"),
    (lambda: optim.join_schedules([0.1], []), TypeError, r"schedules\[0\] is no schedule, got 0.1"),
    (lambda: optim.join_schedules([len] * 3, [4, 4]), ValueError, "have to rise, got 4 and 4"),
])  # fmt: skip
def test_what_schedules_refuse(make, error, words):
    with pytest.raises(error, match=words):
        make()


# ---- the state -----------------------------------------------------------------------------------


def test_the_state_is_named_after_the_parameters_and_in_order():
    W, b = parameter(), gpuscan.shared(np.zeros(3, "f4"))
    loss = (W**2).sum() + b.sum()
    updates = optim.adam(loss, [W, b], optim.constant_schedule(0.1))
    assert isinstance(updates, OrderedUpdates) and list(updates)[:2] == [W, b]
    assert list(optim.states(updates)) == [
        "W", "param_1", "adam.step", "adam.weight1", "adam.weight2",
        "adam.W.m", "adam.W.v", "adam.param_1.m", "adam.param_1.v",
    ]  # fmt: skip
    assert [k.name for k in optim.momentum(loss, [W], 0.1, name="slow")] == ["W", "slow.W.velocity"]


def test_states_with_one_name_are_refused():
    a, b = parameter("W"), parameter("W")
    with pytest.raises(ValueError, match="two shared variables have the name 'W', W .float32"):
        optim.states(optim.sgd(a.sum() + b.sum(), [a, b], 0.1))
    with pytest.raises(TypeError, match="number 0 is not a shared variable, got 'W'"):
        optim.states(["W"])


@methods
def test_training_goes_on_from_a_copy_of_the_state(method):
    def made():
        W, b = parameter(dtype="float64"), parameter("b", (3,), "float64")
        loss = ((W + b) ** 2).sum()
        updates = method(loss, [W, b], learning_rate=optim.exponential_decay(0.1, 0.9))
        return optim.states(updates), gpuscan.function([], loss, updates=updates)

    states, train = made()
    [train() for _ in range(3)]
    kept = {name: s.get_value() for name, s in states.items()}
    expected = [train() for _ in range(3)]
    again, train = made()
    assert list(again) == list(kept)
    for name, value in kept.items():
        again[name].set_value(value)
    assert [train() for _ in range(3)] == expected


def test_two_methods_share_a_function():
    a, b = parameter("a"), parameter("b", (4,))
    loss = (a**2).sum() + (b**2).sum()
    ga, gb = T.grad(loss, [a, b])
    both = optim.adam([ga], [a]) + optim.sgd([gb], [b], 0.1)
    found = stepped(both)
    assert list(found)[:1] == ["a"] and "b" in found
    with pytest.raises(KeyError, match="Collision"):
        optim.adam([ga], [a]) + optim.sgd([ga], [a], 0.1)


# ---- what a parameter may be ---------------------------------------------------------------------


@methods
@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 4), (2, 3, 4), (0, 3)], ids=str)
def test_any_shape(method, shape):
    w = parameter(shape=shape, dtype="float64")
    stepped(method((w**2).sum(), [w], 0.1), 2)
    assert w.get_value().shape == shape
    if w.get_value().size:
        assert abs(w.get_value()).sum() < abs(parameter(shape=shape).get_value()).sum()


def test_a_parameter_that_is_known_to_broadcast_stays_so():
    w = gpuscan.shared(np.ones((1, 3), "f4"), "w", broadcastable=(True, False))
    x = T.fmatrix("x")
    updates = optim.adam(((x - w) ** 2).sum(), [w])
    gpuscan.function([x], updates=updates)(np.zeros((4, 3), "f4"))
    assert w.get_value().shape == (1, 3)
    g = T.fmatrix("g")  # nothing is known of it
    updates = optim.sgd([g], [w], 0.1)
    with pytest.raises((TypeError, ValueError)):
        gpuscan.function([g], updates=updates)(np.zeros((4, 3), "f4"))
    assert w.get_value().shape == (1, 3)


def test_updates_stand_beside_a_scan_and_its_gradient():
    """A power by a loop: the loss falls, and a failed call leaves everything as it was."""
    w, x = parameter("w", (3,), "float64"), T.dvector("x")
    out, inner = gpuscan.scan(lambda h, w: T.tanh(h * w), None, T.ones_like(x), w, n_steps=4)
    loss = ((out[-1] - x) ** 2).sum()
    grads, norm = optim.clip_by_global_norm(T.grad(loss, [w]), 1.0)
    updates = inner + optim.adam(grads, [w], 0.05)
    f = gpuscan.function([x], [loss, norm], updates=updates)
    target = np.array([0.1, 0.2, 0.3])
    losses = [float(f(target)[0]) for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    before = {k: v.get_value() for k, v in optim.states(updates).items()}
    with pytest.raises(ValueError):
        f(np.zeros(2))
    for k, v in optim.states(updates).items():
        np.testing.assert_array_equal(v.get_value(), before[k])


# ---- what is refused -----------------------------------------------------------------------------

w0, v0 = parameter("w0"), parameter("v0", (3,))


@methods
@pytest.mark.parametrize("loss, params, error, words", [
    (w0 * 2, [w0], TypeError, r"the loss is a scalar, got mul .*float32 matrix"),
    (T.cast(w0.sum(), "int64"), [w0], TypeError, "the loss is a float, got"),
    (3.0, [w0], TypeError, "the loss is a scalar expression, or gradients are a list, got 3.0"),
    (w0.sum(), w0, TypeError, "params is a list of shared variables, got w0"),
    (w0.sum(), {w0}, TypeError, "params is a list of shared variables"),
    (w0.sum(), None, TypeError, "params is a list of shared variables, got None"),
    (w0.sum(), [], ValueError, "params is empty"),
    (w0.sum(), [w0, T.vector("x")], TypeError, r"params\[1\] is not a shared variable, got x"),
    (w0.sum(), [w0.get_value()], TypeError, r"params\[0\] is not a shared variable, got array"),
    (w0.sum(), [w0, v0], DisconnectedInputError, r"does not depend on v0 \(float32 vector\)"),
    (w0.sum(), [w0, w0], ValueError, r"params\[1\] stands there twice, w0"),
    (w0.sum(), [gpuscan.shared(np.zeros(3, "i8"), "n")], TypeError, "not of floats, got n"),
    ([w0], [w0, v0], ValueError, "1 gradients for 2 parameters"),
    ([v0], [w0], TypeError, r"gradient 0 is v0 .*, of the parameter w0"),
    ([T.dmatrix("g")], [w0], TypeError, r"gradient 0 is g \(float64 matrix\)"),
    ([T.ones((4, 3), "float32")], [w0], ValueError, r"of the parameter w0 .* of shape \(2, 3\)"),
    ([None], [w0], TypeError, "gradient 0, of w0 .*, is no expression, got None"),
    ([w0.get_value()], [w0], TypeError, "gradient 0, of w0 .*, is no expression, got array"),
])  # fmt: skip
def test_losses_and_parameters_that_do_not_fit(method, loss, params, error, words):
    with pytest.raises(error, match=f"^{method.__name__}: .*{words}") as caught:
        method(loss, params, learning_rate=0.1)
    assert "\n" not in str(caught.value) or "array" in words


@pytest.mark.parametrize("bad, error", [
    (-0.1, ValueError), (np.nan, ValueError), (np.inf, ValueError), ("fast", TypeError),
    (None, TypeError), (True, TypeError), ([0.1], TypeError), (np.ones(2), TypeError),
    (T.vector("r"), TypeError), (1j, TypeError),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("method, argument", [
    *[(m, "learning_rate") for m in METHODS],
    (optim.momentum, "momentum"), (optim.nesterov, "momentum"), (optim.rmsprop, "momentum"),
    (optim.rmsprop, "rho"), (optim.adadelta, "rho"), (optim.adagrad, "start"),
    (optim.adam, "beta1"), (optim.adamw, "beta2"), (optim.adamw, "weight_decay"),
    *[(m, "epsilon") for m in METHODS[3:]],
])  # fmt: skip
def test_numbers_that_are_none(method, argument, bad, error):
    with pytest.raises(error, match=f"^{method.__name__}: {argument} is "):
        method(w0.sum(), [w0], **{"learning_rate": 0.1, argument: bad})


@pytest.mark.parametrize("argument", ["beta1", "beta2"])
def test_averages_have_a_decay_below_1(argument):
    with pytest.raises(ValueError, match=f"adam: {argument} is 0 or more, and less than 1, got 1"):
        optim.adam(w0.sum(), [w0], **{argument: 1})


def test_a_schedule_that_gives_no_scalar_is_refused():
    with pytest.raises(TypeError, match="the learning rate of a schedule is a number or a scalar"):
        optim.sgd(w0.sum(), [w0], lambda step: T.ones(3))


def test_a_gradient_that_is_not_defined_is_refused():
    random = T.shared_randomstreams.RandomStreams(1)
    mean = parameter("mean", ())
    with pytest.raises(NullTypeGradError, match="mean"):
        optim.sgd(random.poisson(lam=mean).astype("float32").sum(), [mean], 0.1)
