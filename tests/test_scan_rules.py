"""The rules on loops, each by the graph that it leaves."""

import numpy as np
import pytest
from models import MODELS

import gpuscan as theano
from gpuscan import tensor as T
from gpuscan.graph import leaves, toposort
from gpuscan.ops.decompositions import Eigh, MatrixInverse
from gpuscan.ops.elemwise import Elemwise
from gpuscan.ops.index import IncSubtensor, Subtensor
from gpuscan.ops.linalg import Dot
from gpuscan.ops.reduce import Reduce
from gpuscan.ops.shape import Join
from gpuscan.ops.softmax import LogSoftmax, Softmax
from gpuscan.scan.op import Scan


def loops(f):
    """The Scans of a compiled function, the first to run first."""
    return [v for v in toposort(f.maker.fgraph.outputs) if isinstance(v.op, Scan)]


def count(op, outputs):
    return sum(isinstance(v.op, op) for v in toposort(outputs))


def dots_outside(f):
    return count(Dot, f.maker.fgraph.outputs)


def dots_inside(loop):
    return count(Dot, loop.op.step.outputs)


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    draw = lambda *s: (rng.normal(size=s) * 0.3).astype("float32")  # noqa: E731
    return {
        "W": theano.shared(draw(3, 16), "W"),
        "U": theano.shared(draw(4, 16), "U"),
        "b": theano.shared(draw(16), "b"),
    }


def drawn(*shape):
    return theano.shared((np.random.default_rng(0).normal(size=shape) * 0.3).astype("float32"))


def lstm(p, x):
    """An LSTM of 4 units written as its users do: one product, cut into gates."""
    h0 = T.zeros((x.shape[1], 4))

    def step(x_t, h, c):
        z = T.dot(x_t, p["W"]) + T.dot(h, p["U"]) + p["b"]
        i, f, o = (T.nnet.sigmoid(z[:, k * 4 : (k + 1) * 4]) for k in range(3))
        c = f * c + i * T.tanh(z[:, 12:16])
        return o * T.tanh(c), c

    (h, _c), _ = theano.scan(step, x, [h0, h0])
    return h


def elman(w, u, x, h0):
    h, _ = theano.scan(lambda x_t, h: T.tanh(T.dot(x_t, w) + T.dot(h, u)), x, h0)
    return h


def test_the_last_row_needs_no_trace():
    x, h0, w = T.matrix("x"), T.vector("h0"), T.matrix("w")
    f = theano.function([x, h0, w], elman(w, w, x, h0)[-1])
    (loop,) = loops(f)
    assert loop.op.step.traces == ()
    with pytest.raises(IndexError, match="out of bounds"):
        f(np.ones((0, 2), "f"), np.ones(2, "f"), np.ones((2, 2), "f"))


def test_a_part_of_the_last_row_needs_no_trace():
    x, h0, w, i = T.matrix("x"), T.vector("h0"), T.matrix("w"), T.lscalar("i")
    h = elman(w, w, x, h0)
    f = rewritten(
        [x, h0, w, i], [h[-1, 0], h[-1, i:], h[-1, None, i]], [*numbers((4, 3), (3,), (3, 3)), 1]
    )
    (loop,) = loops(f)
    assert loop.op.step.traces == ()
    with pytest.raises(IndexError, match="out of bounds"):
        f(np.ones((0, 2), "f"), np.ones(2, "f"), np.ones((2, 2), "f"), 0)


def test_the_last_row_of_an_output_is_computed_from_the_final_state():
    x, h0, u, v = T.matrix("x"), T.vector("h0"), T.matrix("u"), T.matrix("v")

    def step(x_t, h):
        h = T.tanh(x_t + T.dot(h, u))
        return h, T.nnet.sigmoid(T.dot(h, v) + x_t)

    (_, y), _ = theano.scan(step, x, [h0, None])
    f = theano.function([x, h0, u, v], y[-1])
    (loop,) = loops(f)
    assert loop.op.step.traces == () and len(loop.op.step.carries) == 1
    rng = np.random.default_rng(0)
    args = [rng.normal(size=s).astype("f") for s in ((5, 3), (3,), (3, 3), (3, 3))]
    whole = theano.function([x, h0, u, v], y)
    np.testing.assert_allclose(f(*args), whole(*args)[-1], rtol=1e-5)


def test_the_last_row_of_a_draw_is_carried():
    rng = T.shared_randomstreams.RandomStreams(5)

    def step(p):
        u = rng.uniform((3,))
        return T.tanh(p + u), u

    (_, u), updates = theano.scan(step, outputs_info=[T.zeros(3), None], n_steps=4)
    f = theano.function([], u[-1], updates=updates)
    (loop,) = loops(f)
    assert loop.op.step.traces == ()
    rng.seed(5)
    whole = theano.function([], u, updates=updates)
    first = f()
    rng.seed(5)
    np.testing.assert_array_equal(first, whole()[-1])


@pytest.mark.parametrize("until", [False, True])
def test_the_row_before_the_number_of_steps_is_the_last(until):
    s, n = T.vector("s"), T.iscalar("n")
    step = lambda v: (T.tanh(v), theano.until(v[0] < 0.3)) if until else T.tanh(v)  # noqa: E731
    values, _ = theano.scan(step, outputs_info=s, n_steps=n)
    last = values.shape[0] - 1 if until else n - 1
    (given,) = numbers((4,))
    f = rewritten([s, n], [values[last], values[last, 1:]], *([given, k] for k in (1, 5)))
    (loop,) = loops(f)
    assert loop.op.step.traces == ()
    with pytest.raises(IndexError, match="index -1 is out of bounds"):
        f(given, 0)


@pytest.mark.parametrize("last", ["states", "parts"])
def test_the_last_rows_are_a_loop_of_the_last_steps(last):
    x, h0, n = T.matrix("x"), T.vector("h0"), T.lscalar("n")
    (h, y), _ = theano.scan(
        lambda x_t, h: (T.tanh(x_t + h), x_t * h), x, [h0, None], n_steps=n, name="walk"
    )
    outputs = {"states": [h[-3:]], "parts": [h[-3:, 1:], y[-2:]]}[last]
    xs, h_0 = numbers((9, 4), (4,))
    f = rewritten([x, h0, n], [*outputs, h[-1]], *([xs, h_0, k] for k in range(1, 10)))
    first, then = loops(f)
    assert first.op.step.traces == () and then.op.is_end
    assert rewritten([x, h0, n], outputs, [xs, h_0, 0])
    with pytest.raises(ValueError, match="Sequence is shorter") as e:
        f(xs, h_0, 10)
    assert "10, x (tap 0) of scan 'walk', (9, 4)" in str(e.value)
    # one of a few steps, one that stops, and one whose trace is read as a whole stay as they are
    few, _ = theano.scan(lambda h: h * 2, None, h0, n_steps=5)
    stops, _ = theano.scan(lambda h: (h * 2, theano.until(h[0] > 9)), None, h0, n_steps=n)
    f = theano.function([x, h0, n], [few[-3:], stops[-3:], y[-2:], y])
    assert len(loops(f)) == 3


def test_an_error_in_the_last_steps_says_so():
    k, v, n = T.lscalar("k"), T.vector("v"), T.lscalar("n")
    (_, y), _ = theano.scan(
        lambda k, y: (k + 1, y + v[k]), None, [k, T.zeros(())], n_steps=n, name="walk"
    )
    f = theano.function([k, v, n], y[-3:])
    with pytest.raises(IndexError, match="index 8 is out of bounds") as e:
        f(0, np.ones(8, "f"), 9)
    assert "in step 2 of the last 3 of scan 'walk'" in e.value.__notes__[-1]


def test_sums_of_states_over_the_steps_need_no_trace():
    h0, m0, n = T.vector("h0"), T.matrix("m0"), T.lscalar("n")
    (h, m, s, i), _ = theano.scan(
        lambda h, m, s, i: (T.tanh(h) * 0.9, T.dot(m, m) + h, s * 1.5, i + 2), None,
        [h0, m0, h0[0], T.zeros((), "int64")], n_steps=n,
    )  # fmt: skip
    outputs = [h.sum(0), h.mean(0), m.sum(axis=0), s.sum(), i.sum()]
    f = rewritten([h0, m0, n], outputs, *([*numbers((3,), (3, 3)), k] for k in (0, 1, 9)))
    (loop,) = loops(f)
    assert loop.op.step.traces == () and len(loop.op.step.carries) == 8
    # one that is read otherwise too is summed behind the loop
    f = theano.function([h0, m0, n], [h.sum(0), h])
    (loop,) = loops(f)
    assert len(loop.op.step.carries) == len(loop.op.step.traces) == 1


def test_the_last_row_of_a_constant_number_of_steps_needs_no_check():
    s = T.vector("s")
    values, _ = theano.scan(lambda v: T.tanh(v), outputs_info=s, n_steps=10)
    f = theano.function([s], values[-1])
    (loop,) = loops(f)
    assert loop.op.step.traces == ()
    assert f.maker.fgraph.outputs[0].inputs == (loop,)


def test_the_gradient_of_the_last_row_stores_no_cotangents_over_time():
    x, h0, w = T.matrix("x"), T.vector("h0"), T.matrix("w")
    cost = elman(w, w, x, h0)[-1].sum()
    f = theano.function([x, h0, w], T.grad(cost, h0))
    back = loops(f)[-1]
    # what is read over time: the saved states, through 1 - h * h
    assert len(back.op.step.seqs) == 1


def test_input_projections_are_one_product(weights):
    x = T.tensor3("x")
    f = theano.function([x], lstm(weights, x))
    (loop,) = loops(f)
    assert dots_outside(f) == 1
    assert dots_inside(loop) == 4  # h @ U, cut into the four gates
    assert all(v.inputs[1] in loop.op.step.consts
               for v in toposort(loop.op.step.outputs) if isinstance(v.op, Dot))  # fmt: skip


def elman_cell():
    W, U, b = drawn(3, 4), drawn(4, 4), drawn(4)
    return [W, U, b], 1, lambda x, h: T.tanh(T.dot(x, W) + T.dot(h, U) + b)


def lstm_cell(cut):
    if cut:
        params = [W, U, b] = drawn(3, 16), drawn(4, 16), drawn(16)
    else:
        Ws, Us, bs = ([drawn(*s) for _ in range(4)] for s in ((3, 4), (4, 4), (4,)))
        params = [*Ws, *Us, *bs]

    def step(x, h, c):
        if cut:
            z = T.dot(x, W) + T.dot(h, U) + b
            gates = [z[:, k * 4 : (k + 1) * 4] for k in (0, 1, 3, 2)]
        else:
            gates = [T.dot(x, w) + T.dot(h, u) + b for w, u, b in zip(Ws, Us, bs)]
        i, f, o = map(T.nnet.sigmoid, gates[:3])
        c = f * c + i * T.tanh(gates[3])
        return o * T.tanh(c), c

    return params, 2, step


def gru_cell(reset_after, cut):
    if cut:
        W, U, b, V = drawn(3, 12), drawn(4, 12 if reset_after else 8), drawn(12), drawn(4, 4)
        params = [W, U, b] if reset_after else [W, U, b, V]
    else:
        Ws, Us, bs = ([drawn(*s) for _ in range(3)] for s in ((3, 4), (4, 4), (4,)))
        params, V = [*Ws, *Us, *bs], Us[2]

    def of(x, k, w, ws):
        return T.dot(x, w)[:, k * 4 : (k + 1) * 4] if cut else T.dot(x, ws[k])

    def step(x, h):
        a = [of(x, k, W, Ws) + (b[k * 4 : (k + 1) * 4] if cut else bs[k]) for k in range(3)]
        r, u = (T.nnet.sigmoid(a[k] + of(h, k, U, Us)) for k in range(2))
        n = T.tanh(a[2] + (r * of(h, 2, U, Us) if reset_after else T.dot(r * h, V)))
        return u * h + (1 - u) * n

    if cut:
        Ws = Us = None
    else:
        W = U = None
    return params, 1, step


def multiplicative_cell():
    W, U = drawn(3, 4), drawn(4, 4)
    return [W, U], 1, lambda x, h: T.tanh(T.dot(x, W) * T.dot(h, U))


@pytest.mark.parametrize(
    ("cell", "forward", "back", "outside", "saved"),
    [  # products in each loop, and around them: x @ W, dW, dU, dx for each pair of weights
        (elman_cell(), 1, 1, 4, 1),  # h
        (lstm_cell(cut=True), 4, 1, 4, 6),  # h, c, four gates
        (lstm_cell(cut=False), 4, 4, 16, 6),
        (gru_cell(reset_after=False, cut=True), 3, 2, 5, 4),  # h, r, u, n
        (gru_cell(reset_after=False, cut=False), 3, 3, 12, 4),
        (gru_cell(reset_after=True, cut=True), 3, 1, 4, 5),  # and h @ U
        (gru_cell(reset_after=True, cut=False), 3, 3, 12, 5),
        (multiplicative_cell(), 1, 1, 4, 2),  # h, h @ U
    ],
    ids=["elman", "lstm-cut", "lstm", "gru-cut", "gru", "gru-after-cut", "gru-after", "product"],
)
def test_no_product_is_computed_twice(cell, forward, back, outside, saved):
    params, n_states, step = cell
    x, h0 = T.tensor3("x"), T.matrix("h0")
    states, _ = theano.scan(step, x, [h0] * n_states, return_list=True)
    cost = (states[0] ** 2).sum()
    f = theano.function([x, h0], [cost, *T.grad(cost, [*params, x])])
    there, back_again = loops(f)
    assert (dots_inside(there), dots_inside(back_again), dots_outside(f)) == (
        forward, back, outside,
    )  # fmt: skip
    assert len(there.op.step.traces) == saved
    assert len(back_again.op.step.carries) == n_states  # nothing accumulates in the loop
    # what is read over time is as it was saved, but for the cost's 2 * h and an LSTM's tanh(c)
    around = [v for v in toposort([back_again], [there]) if isinstance(v.op, Elemwise) and v.ndim]
    assert {v.op.scalar.name for v in around} <= {"mul", "tanh"}


def test_weight_gradients_are_one_product_each(weights):
    x = T.tensor3("x")
    cost = (lstm(weights, x) ** 2).mean()
    f = theano.function([x], T.grad(cost, list(weights.values())))
    _forward, back = loops(f)
    assert dots_outside(f) == 3  # the input projection; dW and dU
    assert dots_inside(back) == 1  # the cotangent of h
    assert count(Join, back.op.step.outputs) == 1  # the gates' cotangents, side by side
    assert count(IncSubtensor, back.op.step.outputs) == 0
    assert len(back.op.step.carries) == 2  # of h and c: nothing accumulates in the loop


def test_a_gradient_saves_what_a_reader_of_the_outputs_stores_anyway(weights):
    x = T.tensor3("x")
    h = lstm(weights, x)
    f = theano.function([x], [h, T.grad((h**2).mean(), weights["U"])])
    traces = loops(f)[0].op.step.traces
    assert len(traces) == len(set(traces)) == 6


@pytest.mark.parametrize(
    ("op", "step"),
    [
        (Softmax, lambda h, u: h + T.nnet.softmax(T.tanh(h) * u)),
        (LogSoftmax, lambda h, u: h + T.log(T.nnet.softmax(T.tanh(h) * u))),
        (Reduce, lambda h, u: h * T.exp(h * u).sum(axis=1, keepdims=True)),
        (MatrixInverse, lambda h, u: h + T.nlinalg.matrix_inverse(h + u)),
        (Eigh, lambda h, u: h + T.nlinalg.eigh(T.dot(h, h.T) + u + u.T)[1] ** 2),
    ],
)
def test_what_is_costly_is_computed_once(op, step):
    h0, u = (T.TensorType("float64", (3, 3))(name) for name in ("h0", "u"))
    h, _ = theano.scan(step, outputs_info=h0, non_sequences=u, n_steps=3)
    rows = [h0]
    for _ in range(3):
        rows.append(step(rows[-1], u))
    f = theano.function([h0, u], T.grad(h.sum(), u))
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(3, 3)) * 0.1 + np.eye(3) for _ in range(2)]
    want = theano.function([h0, u], T.grad(sum(rows[1:]).sum(), u))(*values)
    np.testing.assert_allclose(f(*values), want, rtol=1e-9)
    forward, back = loops(f)
    assert count(op, forward.op.step.outputs) == 1
    if op is not Reduce:  # of which the derivative of a broadcast is one
        assert count(op, [*back.op.step.outputs, *f.maker.fgraph.outputs]) == 0
    saved = forward.op.step.traces
    assert any(op in {type(v.op) for v in (x, *x.inputs)} for x in saved)


@pytest.mark.parametrize("rows, outside", [(8, 0), (512, 1)])
def test_what_is_made_of_constants_leaves_the_loop(rows, outside):
    """Folded where it is small, else computed once in front of the loop."""
    w = np.linspace(-1, 1, 16 * rows, dtype="float32").reshape(rows, 16)
    h0 = T.fmatrix("h0")

    def step(h):
        return T.tanh(T.dot(T.dot(h, w.T), T.exp(T.constant(w))))

    h, _ = theano.scan(step, outputs_info=h0, n_steps=2)
    f = theano.function([h0], h)
    (loop,) = loops(f)
    assert not [v for v in toposort(loop.op.step.outputs) if v.op.label == "exp"]
    found = [v for v in toposort(f.maker.fgraph.outputs) if v.op.label == "exp"]
    assert len(found) == outside
    x = np.full((3, 16), 0.1, "float32")
    one = np.tanh(x @ w.T @ np.exp(w))
    want = [one, np.tanh(one @ w.T @ np.exp(w))]
    np.testing.assert_allclose(f(x), want, rtol=2e-4)


def test_a_product_of_one_branch_is_not_computed_for_the_gradient():
    x, h0, u = T.vector("x"), T.vector("h0"), T.matrix("u")
    h, _ = theano.scan(lambda x, h: T.ifelse(x > 0, T.dot(h, u) ** 2, h), x, h0)
    f = theano.function([x, h0, u], T.grad(h.sum(), u))
    assert len(loops(f)[0].op.step.traces) == 1


def test_what_changes_its_shape_is_computed_again():
    k, h0, u = T.lvector("k"), T.dvector("h0"), T.dmatrix("u")

    def step(k, h):
        return T.tanh(h + (T.dot(h[:k], u[:k, :k]) ** 2).sum())

    h, _ = theano.scan(step, k, h0)
    unrolled = [h0]
    for t in range(3):
        unrolled.append(step(k[t], unrolled[-1]))
    f = theano.function([k, h0, u], [T.grad(x.sum(), u) for x in (h, sum(unrolled[1:]))])
    values = np.random.default_rng(0).normal(size=(3, 3)) * 0.3
    got, want = f([2, 0, 3], [0.1, -0.2, 0.3], values)
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_a_logarithm_in_a_gradient_is_that_of_what_is_under_it():
    h0, u = T.fvector("h0"), T.fmatrix("u")

    def step(h):  # z and log(sigmoid(z)) are saved or computed from z, not from sigmoid(z)
        y = T.nnet.sigmoid(T.dot(h, u))
        return h + y * T.log(y)

    h, _ = theano.scan(step, outputs_info=h0, n_steps=2)
    g = theano.function([h0, u], T.grad(h.sum(), h0))([1, 2], [[-200, 1], [0, 1]])
    assert np.isfinite(g).all()


def test_checkpoints_save_the_states_between_chunks_only():
    h0, u = T.matrix("h0"), T.matrix("u")
    h, _ = theano.scan_checkpoints(
        lambda h, u: T.tanh(T.dot(h, u) * T.dot(h, u.T)), outputs_info=h0, non_sequences=u,
        n_steps=T.lscalar("n"), save_every_N=5,
    )  # fmt: skip
    g = T.grad(h[-1].sum(), u)
    (n,) = [v for v in leaves([g]) if v.name == "n"]
    f = theano.function([h0, u, n], g)
    assert [len(v.op.step.traces) for v in loops(f)] == [1, 0]


def test_sums_over_the_steps_are_taken_behind_the_loop():
    x, h0, w, b = T.matrix("x"), T.vector("h0"), T.matrix("w"), T.vector("b")
    h, _ = theano.scan(lambda x_t, h: T.tanh(T.dot(h, w) + x_t + b), x, h0)
    f = theano.function([x, h0, w, b], T.grad(h.sum(), [w, b]))
    back = loops(f)[-1]
    assert len(back.op.step.carries) == 1


def rewritten(inputs, outputs, *argument_lists):
    """The function, after a check of its values against those without rewriting."""
    f, plain = (
        theano.function(inputs, outputs, mode=mode, on_unused_input="ignore")
        for mode in ("FAST_RUN", "FAST_COMPILE")
    )
    for values in argument_lists:
        for got, want in zip(f(*values), plain(*values), strict=True):
            np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)
    return f


def numbers(*shapes):
    draw = np.random.default_rng(0).normal
    return [(draw(size=s) * 0.4).astype("f") for s in shapes]


@pytest.mark.parametrize(
    ("name", "carries", "traces"),
    [
        ("gru_reset_before", 1, 2),  # of h; U's gradient is that of two products, padded
        ("leapfrog", 3, 2),  # of q, p and the step's size; the force is taken twice a step
        ("hmm", 1, 2),  # of a; rows of B are looked up
    ],
)
def test_a_weights_gradient_leaves_the_loop(name, carries, traces):
    m = MODELS[name](8)
    outputs = [*m.outputs, *theano.gradient.grad(m.loss, m.weights)]
    inputs = [leaf.variable for leaf in m.leaves]
    f = rewritten(inputs, outputs, m.values(3, 5), m.values(3, 0))
    back = loops(f)[-1]
    assert (len(back.op.step.carries), len(back.op.step.traces)) == (carries, traces)


def test_the_gradient_of_a_gain_is_summed_behind_the_loop():
    """Its sum over rows is all that would keep them together."""
    x, U, gain = T.tensor3("x"), drawn(4, 4), drawn(4)
    step = lambda x, h, U, gain: T.tanh(x + gain * T.tanh(T.dot(h, U)))  # noqa: E731
    h, _ = theano.scan(step, x, T.zeros_like(x[0]), [U, gain])
    values = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(x.dtype)
    f = rewritten([x], T.grad((h**2).sum(), [U, gain]), [values], [values[:, :0]])
    back = loops(f)[-1]
    assert (len(back.op.step.carries), count(Reduce, back.op.step.outputs)) == (1, 0)


def test_a_sum_over_rows_stays_where_nothing_of_that_size_is_stored():
    """A mean over chains, say: the loop takes the same memory however long it is."""
    x = T.matrix("x")
    step = lambda x, total: (x * 0.9, total + (x * x).sum(axis=0))  # noqa: E731
    (_, total), _ = theano.scan(step, None, [x, T.zeros_like(x[0])], n_steps=1000)
    (loop,) = loops(theano.function([x], total[-1]))
    assert (len(loop.op.step.carries), len(loop.op.step.traces)) == (2, 0)


@pytest.mark.parametrize(
    "product",
    [
        lambda x, w, c: T.dot(x, w.T),
        lambda x, w, c: T.dot(x, w * 2) + T.dot(x * x, w / 3),
        lambda x, w, c: T.dot(x, w * c) - T.dot(x, -w),
        lambda x, w, c: T.dot(x, w**2),
        lambda x, w, c: T.dot(x[:, :2], w[:2]) * T.dot(x[:, 2:], w[2:]),
        lambda x, w, c: T.dot(x, w[:, : c.shape[0]]) * T.dot(x, w)[:, : c.shape[0]],
        lambda x, w, c: T.dot(x, T.concatenate([w, w.T], axis=1))[:, 1:5],
        lambda x, w, c: T.dot(x, w.reshape((2, 8)).reshape((4, 4))) + T.dot(x, w),
        lambda x, w, c: T.cast(T.dot(T.cast(x, "float64"), T.cast(w, "float64")), "float32"),
    ],
    ids=["T", "scaled", "times", "squared", "rows", "columns", "joined", "reshaped", "cast"],
)
def test_what_is_linear_in_products_leaves_the_loop(product):
    x, h0, w, c = T.tensor3("x"), T.matrix("h0"), T.matrix("w"), T.vector("c")
    h, _ = theano.scan(lambda x, h: T.tanh(x + product(h, w, c)), x, h0)
    arguments = [numbers((steps, 3, 4), (3, 4), (4, 4), 4) for steps in (4, 0)]
    f = rewritten([x, h0, w, c], T.grad((h**2).sum(), [w]), *arguments)
    assert len(loops(f)[-1].op.step.carries) == 1


@pytest.mark.parametrize(
    "product",
    [
        lambda x, s, w: T.dot(x, w * x[0]),
        lambda x, s, w: T.dot(x, w * s),
        lambda x, s, w: T.cast(T.dot(T.cast(x, "float32"), T.cast(w, "float32")), "float64"),
    ],
    ids=["of a state", "of a sequence", "summed in a wider dtype"],
)
def test_what_is_not_the_same_in_every_step_stays_in_the_loop(product):
    x, s, h0, w = T.dtensor3("x"), T.dvector("s"), T.dmatrix("h0"), T.dmatrix("w")
    h, _ = theano.scan(lambda x, s, h: T.tanh(x + product(h, s, w)), [x, s], h0)
    f = rewritten([x, s, h0, w], T.grad((h**2).sum(), [w]), numbers((4, 3, 4), 4, (3, 4), (4, 4)))
    assert len(loops(f)[-1].op.step.carries) == 2


def test_products_that_are_rounded_are_summed_in_the_loop():
    x, h0 = T.tensor3("x"), T.matrix("h0")

    def step(x, h, total):
        return T.tanh(x + h), total + T.cast(3 * T.dot(h.T, h), "int32")

    (_, total), _ = theano.scan(step, x, [h0, T.zeros((4, 4), "int32")])
    rewritten([x, h0], [total[-1]], numbers((5, 3, 4), (3, 4)))


@pytest.mark.parametrize(
    ("index", "read"),
    [
        (T.lvector("i"), lambda w, i: w[i]),
        (T.lvector("i"), lambda w, i: w[i, 1:3].sum() * w[i + 1]),
        (T.lmatrix("i"), lambda w, i: w[i].sum(axis=0)),
        (T.lmatrix("i"), lambda w, i: (w[:, i] ** 2).sum(axis=1)),
        (T.lmatrix("i"), lambda w, i: w[i, i[::-1]].sum()),
    ],
    ids=["row", "parts", "rows", "columns", "elements"],
)
def test_the_gradient_of_what_is_looked_up_is_one_write(index, read):
    w, h0 = T.matrix("w"), T.vector("h0")
    h, _ = theano.scan(lambda i, h: T.tanh(h * read(w, i)), index, h0)
    at = np.random.default_rng(0).integers(0, 3, (5, 3)[: index.ndim])
    values = numbers((4, 4), 4)
    f = rewritten([index, w, h0], T.grad((h**2).sum(), [w]), [at, *values], [at[:0], *values])
    assert len(loops(f)[-1].op.step.carries) == 1


@pytest.mark.parametrize("n", [lambda h: 4, lambda h: h.shape[1]], ids=["known", "symbolic"])
def test_a_slab_of_gates_is_cut_before_its_function(weights, n):
    x, h0 = T.tensor3("x"), T.matrix("h0")

    def step(x, h):
        a, b, c = (k * n(h) for k in (1, 2, 3))
        below, across = T.dot(x, weights["W"]), T.dot(h, weights["U"])
        gates = T.nnet.sigmoid(below[:, :b] + weights["b"][:b] + across[:, :b])
        new = T.tanh(below[:, b:c] + gates[:, :a] * across[:, b:c])
        return gates[:, a:b] * h + (1 - gates[:, a:b]) * new

    h, _ = theano.scan(step, x, h0)
    values = numbers((5, 2, 3), (2, 4))
    (loop,) = loops(rewritten([x, h0], [h], values))
    assert count(Subtensor, loop.op.step.outputs) == 0
    assert dots_inside(loop) == 3
    f = rewritten([x, h0], T.grad((h**2).sum(), [x, h0, *weights.values()]), values)
    assert len(loops(f)[-1].op.step.carries) == 1


@pytest.mark.parametrize(
    ("parts", "apart"),
    [
        (lambda y: (y[:, :2], y[:, 2:4]), True),
        (lambda y: (y[:, :2], y[:, 3:5]), True),
        (lambda y: (y[:, :-2], y[:, -2:]), True),
        (lambda y: (y[:1], y[1:]), True),
        (lambda y: (y[:, :3], y[:, 2:]), False),
        (lambda y: (y[:, :2], y[:, -2:]), False),
        (lambda y: (y[:, 2:4], y[1:]), False),
        (lambda y: (y[:, ::2], y[:, 1::2]), False),
        (lambda y: (y[:, :2], y), False),
    ],
)
def test_elementwise_is_cut_where_its_parts_are_apart(parts, apart):
    s, u, c = T.matrix("s"), T.matrix("u"), T.row("c")

    def step(s):
        a, b = parts(T.exp(s + c) * u)
        return T.tanh(s * a.sum() + b.sum())

    y, _ = theano.scan(step, outputs_info=s, n_steps=3)
    arguments = numbers((3, 6), (3, 6), (1, 6))
    (loop,) = loops(rewritten([s, u, c], [y], arguments))
    exps = [v for v in toposort(loop.op.step.outputs) if v.op.label == "exp"]
    assert len(exps) == (2 if apart else 1)
    rewritten([s, u, c], T.grad(y.sum(), [s, u, c]), arguments)


def test_the_output_layer_is_one_product_behind_the_loop():
    x, h0 = T.matrix("x"), T.vector("h0")
    u, v = T.matrix("u"), T.matrix("v")

    def step(x_t, h):
        h = T.tanh(x_t + T.dot(h, u))
        return h, T.nnet.sigmoid(T.dot(h, v))

    (_, y), _ = theano.scan(step, x, [h0, None])
    f = theano.function([x, h0, u, v], y)
    (loop,) = loops(f)
    assert dots_inside(loop) == 1
    assert len(loop.op.step.traces) == 1


def test_a_map_is_no_loop():
    x, w = T.tensor3("x"), T.matrix("w")
    y, _ = theano.map(lambda r: T.exp(T.dot(r, w)).sum(axis=0), x)
    f = theano.function([x, w], y)
    assert loops(f) == []
    value = np.random.default_rng(0).normal(size=(5, 2, 3)).astype("f")
    weight = np.random.default_rng(1).normal(size=(3, 4)).astype("f")
    np.testing.assert_allclose(
        f(value, weight),
        np.exp(value @ weight).sum(1),
        rtol=1e-5,  # another summation order
    )


def test_invariant_work_is_done_once():
    w, s = T.matrix("w"), T.vector("s")
    y, _ = theano.scan(lambda v: T.dot(T.exp(w) * 2, v), outputs_info=s, n_steps=5)
    (loop,) = loops(theano.function([w, s], y))
    assert [v.op.label for v in toposort(loop.op.step.outputs) if v.inputs] == ["Dot"]


def test_what_prints_stays_in_the_loop(capsys):
    s = T.scalar("s")
    w = T.scalar("w")
    y, _ = theano.scan(lambda v: v + theano.printing.Print("w")(w), outputs_info=s, n_steps=3)
    theano.function([w, s], y)(1, 2)
    assert capsys.readouterr().out.count("w __str__ = 1.0") == 3


def test_loops_of_equal_length_are_merged():
    x = T.matrix("x")
    a, _ = theano.scan(lambda r, s: s + r.sum(), x, T.constant(np.float32(0)))
    b, _ = theano.scan(lambda r, s: s * 0.5 + r.max(), x, T.constant(np.float32(0)))
    f = theano.function([x], [a, b])
    assert len(loops(f)) == 1
    value = np.arange(6, dtype="f").reshape(3, 2)
    np.testing.assert_array_equal(f(value)[0], np.cumsum(value.sum(1)))
    np.testing.assert_array_equal(f(value)[1], [1, 3.5, 6.75])


def test_a_loop_that_needs_another_is_not_merged_with_it():
    x = T.vector("x")
    a, _ = theano.scan(lambda r, s: s + r, x, T.constant(np.float32(0)))
    b, _ = theano.scan(lambda r, s: s + r, a, T.constant(np.float32(0)))
    f = theano.function([x], b)
    assert len(loops(f)) == 2
    np.testing.assert_array_equal(f([1, 2, 3]), [1, 4, 10])


def test_the_same_loop_twice_is_one_loop_with_one_carry():
    x = T.vector("x")
    make = lambda: theano.scan(lambda r, s: s + r, x, T.constant(np.float32(0)))[0]  # noqa: E731
    a, b = make(), make()
    assert a is b
    (loop,) = loops(theano.function([x], [a, b * 2]))
    assert len(loop.op.step.carries) == 1


def test_forward_and_gradient_share_one_forward_loop():
    x, h0, w = T.matrix("x"), T.vector("h0"), T.matrix("w")
    h = elman(w, w, x, h0)
    f = theano.function([x, h0, w], [h, T.grad(h.sum(), w)])
    assert len(loops(f)) == 2


def test_an_until_loop_shares_its_gradients_forward_loop():
    x = T.vector("x")

    def step(r, s):
        s = T.tanh(s + r)
        return s, theano.scan_module.until(s > 0.9)

    y, _ = theano.scan(step, x, T.constant(np.float32(0)))
    f = theano.function([x], [y, T.grad((y**2).sum(), x)])
    assert len(loops(f)) == 2


def test_shape_queries_run_no_loop(weights):
    x = T.tensor3("x")
    h = lstm(weights, x)
    f = theano.function([x], [h.shape, h[-1].shape, h.sum(axis=2).shape[0]])
    assert loops(f) == []
    shape, last, n = f(np.ones((7, 5, 3), "f"))
    assert (list(shape), list(last), n) == ([7, 5, 4], [5, 4], 7)


def test_unread_results_and_operands_are_dropped():
    x, s, w = T.matrix("x"), T.vector("s"), T.vector("w")

    def step(r, a, b):
        return T.tanh(a + r), b * w, r * 2

    (a, _b, _c), _ = theano.scan(step, x, [s, s, None])
    f = theano.function([x, s, w], a[-1])
    (loop,) = loops(f)
    step = loop.op.step
    assert (len(step.seqs), len(step.carries), len(step.consts), len(step.traces)) == (1, 1, 0, 0)


def test_one_step_is_no_loop():
    x, s = T.matrix("x"), T.vector("s")
    y, _ = theano.scan(lambda r, a: a * r, x, s, n_steps=T.constant(1))
    f = theano.function([x, s], y)
    assert loops(f) == []
    np.testing.assert_array_equal(f([[1, 2], [3, 4]], [5, 6]), [[5, 12]])


def test_random_draws_of_unchanged_parameters_stay_different_in_every_step():
    rng = T.shared_randomstreams.RandomStreams(3)
    y, updates = theano.scan(lambda: rng.uniform((2,)), n_steps=4)
    value = theano.function([], y, updates=updates)()
    assert len(np.unique(value)) == 8
