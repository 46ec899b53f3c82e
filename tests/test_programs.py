"""Programs in the manner of Theano's tutorials: each trains or samples a little, on made-up data,
and the idioms that published programs use."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import gpuscan as theano
from gpuscan import tensor as T
from gpuscan.theano import paths

X = "float32"


def matrix(rng: np.random.Generator, *shape: int, scale: float = 0.1) -> Any:
    return theano.shared((rng.standard_normal(shape) * scale).astype(X))


def zeros(*shape: int) -> Any:
    return theano.shared(np.zeros(shape, X))


def stripes(n: int, width: int = 12) -> np.ndarray:
    """Rows of period 3 at a random phase, an entry in fifty flipped."""
    rng = np.random.default_rng(5)
    clean = (np.arange(width) + rng.integers(3, size=(n, 1))) % 3 == 0
    return (clean ^ (rng.random((n, width)) < 0.02)).astype(X)


class Boltzmann:
    """A restricted Boltzmann machine; h and v are units, `up` and `down` their conditionals."""

    def __init__(self, v: Any, visible: int, hidden: int) -> None:
        self.v, self.visible = v, visible
        self.W = matrix(np.random.default_rng(1), visible, hidden)
        self.bh, self.bv = zeros(hidden), zeros(visible)
        self.params = [self.W, self.bh, self.bv]
        self.rng = T.shared_randomstreams.RandomStreams(17)

    def draw(self, p: Any) -> Any:
        return self.rng.binomial(size=p.shape, n=1, p=p, dtype=theano.config.floatX)

    def up(self, v: Any) -> list[Any]:
        p = T.nnet.sigmoid(T.dot(v, self.W) + self.bh)
        return [p, self.draw(p)]

    def down(self, h: Any) -> list[Any]:
        activation = T.dot(h, self.W.T) + self.bv
        return [activation, self.draw(T.nnet.sigmoid(activation))]

    def round_trip(self, h: Any) -> list[Any]:
        return [*self.down(h), *self.up(self.down(h)[1])]

    def energy(self, v: Any) -> Any:
        return -T.dot(v, self.bv) - T.log(1 + T.exp(T.dot(v, self.W) + self.bh)).sum(axis=1)

    def training(self, rate: Any, k: int, chain: Any = None) -> tuple[Any, Any]:
        """The activations after k steps of the chain, and the updates of contrastive divergence."""
        start = chain if chain else self.up(self.v)[1]
        (activations, vs, _, hs), updates = theano.scan(
            self.round_trip, outputs_info=[None, None, None, start], n_steps=k
        )
        cost = T.mean(self.energy(self.v)) - T.mean(self.energy(vs[-1]))
        gradients = T.grad(cost, self.params, consider_constant=[vs[-1]])
        for p, g in zip(self.params, gradients):
            updates[p] = p - g * T.cast(rate, theano.config.floatX)
        if chain:
            updates[chain] = hs[-1]
        return activations[-1], updates

    def pseudo_likelihood(self, updates: Any) -> Any:
        """Of one unit given the others, the next unit at the next call."""
        i = theano.shared(0)
        v = T.round(self.v)
        flipped = T.set_subtensor(v[:, i], 1 - v[:, i])
        updates[i] = (i + 1) % self.visible
        odds = self.energy(flipped) - self.energy(v)
        return T.mean(self.visible * T.log(T.nnet.sigmoid(odds)))


def test_boltzmann_machine_with_persistent_chains() -> None:
    v, rate = T.matrix("v"), T.scalar("rate")
    data = stripes(40)
    machine = Boltzmann(v, 12, 10)
    chains = theano.shared(np.zeros((40, 10), X))
    _, updates = machine.training(rate, 5, chains)
    monitor = machine.pseudo_likelihood(updates)
    train = theano.function([v, theano.Param(rate, default=0.2)], monitor, updates=updates)
    seen = np.array([train(data) for _ in range(240)]).reshape(-1, 12).mean(1)  # all units
    assert seen[-1] > 0.4 * seen[0]  # log-likelihoods, negative
    assert chains.get_value().shape == (40, 10)

    start = theano.shared(np.zeros((30, 10), X))
    (_, vs, _, hs), updates = theano.scan(
        machine.round_trip, outputs_info=[None, None, None, start], n_steps=50
    )
    updates.update({start: hs[-1]})
    sample = theano.function([], vs[-1], updates=updates)
    first, second = sample(), sample()
    assert not np.array_equal(first, second)
    runs = (second[:, :-3] == second[:, 3:]).mean()  # the period is 3
    assert runs > 0.85


def test_boltzmann_machine_from_the_data() -> None:
    v, i = T.matrix("v"), T.lscalar("i")
    data = theano.shared(stripes(60))
    machine = Boltzmann(v, 12, 10)
    activation, updates = machine.training(0.3, 1)
    error = -T.mean(
        T.sum(
            v * T.log(T.nnet.sigmoid(activation)) + (1 - v) * T.log(1 - T.nnet.sigmoid(activation)),
            axis=1,
        )
    )
    batch = {v: data[i * 20 : (i + 1) * 20]}
    train = theano.function([i], error, updates=updates, givens=batch)
    errors = [np.mean([train(b) for b in range(3)]) for _ in range(80)]
    assert errors[-1] < 0.4 * errors[0]


# ---- a classifier of sequences -------------------------------------------------------------------


class Classifier:
    """An LSTM over padded sequences of words, its mean state over the words, and a softmax."""

    def __init__(self, words: int, width: int, classes: int) -> None:
        rng = np.random.default_rng(2)
        self.table, self.W, self.U = (
            matrix(rng, *s, scale=0.3)
            for s in ((words, width), (width, 4 * width), (width, 4 * width))
        )
        self.b, self.V = zeros(4 * width), matrix(rng, width, classes)
        self.params = [self.table, self.W, self.U, self.b, self.V]
        self.x, self.mask, self.y = T.lmatrix("x"), T.matrix("mask"), T.lvector("y")
        steps, n = self.x.shape

        def gate(z: Any, k: int) -> Any:
            return z[:, k * width : (k + 1) * width]

        def step(m: Any, below: Any, h: Any, c: Any) -> tuple[Any, Any]:
            z = T.dot(h, self.U)
            z += below + self.b
            i, f, o = (T.nnet.sigmoid(gate(z, k)) for k in range(3))
            new = f * c + i * T.tanh(gate(z, 3))
            new = m[:, None] * new + (1.0 - m)[:, None] * c
            out = o * T.tanh(new)
            return m[:, None] * out + (1.0 - m)[:, None] * h, new

        below = self.table[self.x.flatten()].reshape([steps, n, width])
        (h, _), _ = theano.scan(
            step, sequences=[self.mask, T.dot(below, self.W)],
            outputs_info=[T.alloc(0.0, n, width)] * 2, n_steps=steps,
        )  # fmt: skip
        mean = (h * self.mask[:, :, None]).sum(axis=0) / self.mask.sum(axis=0)[:, None]
        self.p = T.nnet.softmax(T.dot(mean, self.V))
        self.cost = -T.log(self.p[T.arange(n), self.y] + 1e-8).mean()

    def adadelta(self) -> tuple[Any, Any]:
        """Two functions: one keeps the gradients, one takes the step that they suggest."""
        kept, up, squares = (
            [theano.shared(p.get_value() * np.float32(0)) for p in self.params] for _ in range(3)
        )
        gs = T.grad(self.cost, self.params)
        updates = list(zip(kept, gs)) + [(s, 0.95 * s + 0.05 * g**2) for s, g in zip(squares, gs)]
        keep = theano.function([self.x, self.mask, self.y], self.cost, updates=updates)
        moves = [-T.sqrt(u + 1e-5) / T.sqrt(s + 1e-5) * k for k, u, s in zip(kept, up, squares)]
        updates = [(u, 0.95 * u + 0.05 * m**2) for u, m in zip(up, moves)]
        updates += [(p, p + m) for p, m in zip(self.params, moves)]
        rate = T.scalar("rate")
        return keep, theano.function([rate], [], updates=updates, on_unused_input="ignore")


def sentences(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Words of 8, of 3 to 9 each; the class is whether the words 0 and 1 outnumber 2 and 3."""
    rng = np.random.default_rng(3)
    x = rng.integers(8, size=(9, n))
    mask = (np.arange(9)[:, None] < rng.integers(3, 10, size=n)).astype(X)
    score = (np.isin(x, (0, 1)) * mask).sum(0) - (np.isin(x, (2, 3)) * mask).sum(0)
    return x * mask.astype("int64"), mask, (score > 0).astype("int64")


def test_lstm_classifier_learns() -> None:
    model = Classifier(8, 10, 2)
    x, mask, y = sentences(48)
    keep, move = model.adadelta()
    for _ in range(90):
        keep(x, mask, y)
        move(0.1)
    predict = theano.function([model.x, model.mask], model.p.argmax(axis=1))
    assert (predict(x, mask) == y).mean() > 0.9


def test_padding_does_not_matter_to_a_masked_lstm() -> None:
    model = Classifier(8, 6, 2)
    x, mask, _ = sentences(10)
    p = theano.function([model.x, model.mask], model.p)
    padded = np.concatenate([x, np.full((4, 10), 7)]), np.pad(mask, ((0, 4), (0, 0)))
    np.testing.assert_allclose(p(*padded), p(x, mask), rtol=1e-5)


# ---- a recurrent network over Boltzmann machines -------------------------------------------------


def test_rnn_rbm() -> None:
    """Each step's biases come from a recurrent state; to generate, each step runs a chain of its
    own: a scan with random numbers inside a scan."""
    rng = np.random.default_rng(4)
    visible, hidden, state = 8, 12, 6
    streams = T.shared_randomstreams.RandomStreams(23)
    W, bv, bh = matrix(rng, visible, hidden), zeros(visible), zeros(hidden)
    Uh, Uv = matrix(rng, state, hidden), matrix(rng, state, visible)
    Vu, Uu, bu = matrix(rng, visible, state), matrix(rng, state, state), zeros(state)
    params = W, bv, bh, Uh, Uv, Vu, Uu, bu

    def chain(v: Any, bv: Any, bh: Any, k: int) -> tuple[Any, Any, Any]:
        def gibbs(v: Any) -> Any:
            h = T.nnet.sigmoid(T.dot(v, W) + bh)
            h = streams.binomial(size=h.shape, n=1, p=h, dtype=X)
            p = T.nnet.sigmoid(T.dot(h, W.T) + bv)
            return p, streams.binomial(size=p.shape, n=1, p=p, dtype=X)

        samples, updates = theano.scan(lambda v: gibbs(v)[1], outputs_info=[v], n_steps=k)
        return samples[-1], gibbs(samples[-1])[0], updates

    def energy(v: Any, bv: Any, bh: Any) -> Any:
        return -(v * bv).sum() - T.log(1 + T.exp(T.dot(v, W) + bh)).sum()

    def biases(u: Any) -> tuple[Any, Any]:
        return bv + T.dot(u, Uv), bh + T.dot(u, Uh)

    def follow(v: Any, u: Any) -> Any:
        return T.tanh(bu + T.dot(v, Vu) + T.dot(u, Uu))

    v, u0 = T.matrix(), T.zeros((state,))
    (_, bvs, bhs), updates = theano.scan(
        lambda v, u, *_: [follow(v, u), *biases(u)],
        sequences=v, outputs_info=[u0, None, None], non_sequences=params,
    )  # fmt: skip
    sample, mean, chain_updates = chain(v, bvs[:], bhs[:], 5)
    updates.update(chain_updates)
    cost = (energy(v, bvs, bhs) - energy(sample, bvs, bhs)) / v.shape[0]
    gs = T.grad(cost, params, consider_constant=[sample])
    updates.update((p, p - 0.1 * g) for p, g in zip(params, gs))
    monitor = (T.xlogx.xlogy0(v, mean) + T.xlogx.xlogy0(1 - v, 1 - mean)).sum() / v.shape[0]
    train = theano.function([v], monitor, updates=updates)

    tune = np.eye(visible, dtype=X)[np.arange(32) % visible]  # one unit after another
    seen = [float(train(tune)) for _ in range(150)]
    assert np.mean(seen[-10:]) > 0.7 * np.mean(seen[:10])

    def compose(u: Any, *_: Any) -> tuple[list[Any], Any]:
        drawn, _, advanced = chain(T.zeros((visible,)), *biases(u), 6)
        return [drawn, follow(drawn, u)], advanced

    (roll, _), updates = theano.scan(
        compose, outputs_info=[None, u0], non_sequences=params, n_steps=20
    )
    generate = theano.function([], roll, updates=updates)
    first, second = generate(), generate()
    assert first.shape == (20, visible) and set(np.unique(first)) <= {0.0, 1.0}
    assert not np.array_equal(first, second)  # the inner chains advanced the streams
    assert len(np.unique(first, axis=0)) > 1  # and do so from step to step
    assert first.mean() < 0.4  # it learned that few units are on


# ---- Hamiltonian Monte Carlo ---------------------------------------------------------------------


def test_hamiltonian_monte_carlo() -> None:
    """Leapfrog steps whose body takes a gradient; the step size follows the acceptance rate."""
    mean, spread = np.array([1.0, -2.0], X), np.array([1.0, 0.5], X)
    streams = T.shared_randomstreams.RandomStreams(31)

    def energy(q: Any) -> Any:
        return 0.5 * (((q - mean) / spread) ** 2).sum(axis=1)

    def force(q: Any) -> Any:
        return T.grad(energy(q).sum(), q)

    q = theano.shared(np.zeros((50, 2), X))
    size, rate = theano.shared(np.float32(0.05)), theano.shared(np.float32(0.9))
    p0 = streams.normal(size=q.shape)
    p = p0 - 0.5 * size * force(q)
    (qs, ps), extra = theano.scan(
        lambda q, p, e: ([q + e * (p - e * force(q)), p - e * force(q)], {}),
        outputs_info=[dict(initial=q + size * p), dict(initial=p)],
        non_sequences=[size], n_steps=4,
    )  # fmt: skip
    assert not extra
    end, p = qs[-1], ps[-1] - 0.5 * size * force(qs[-1])
    before, after = (energy(a) + 0.5 * (b**2).sum(axis=1) for a, b in ((q, p0), (end, p)))
    taken = (T.exp(before - after) - streams.uniform(size=before.shape)) >= 0
    kind = paths.MODULES["scalar"]["upcast"](taken.dtype, rate.dtype)  # type: ignore[index]
    move = theano.function([], taken, updates=[
        (q, T.switch(taken.dimshuffle(0, "x"), end, q)),
        (size, T.clip(T.switch(rate > 0.9, size * 1.02, size * 0.98), 0.01, 0.4)),
        (rate, T.add(0.9 * rate, (1.0 - 0.9) * taken.mean(dtype=kind))),
    ])  # fmt: skip
    accepted, drawn = [], []
    for i in range(300):
        accepted.append(move().mean())
        if i >= 120:
            drawn.append(q.get_value())
    draws = np.concatenate(drawn)
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.03)
    np.testing.assert_allclose(draws.std(0), spread, rtol=0.03)
    assert 0.9 < np.mean(accepted[120:]) < 0.99
    assert size.get_value() == np.float32(0.4)  # hardly any is turned down: the largest step


# ---- a tagger ------------------------------------------------------------------------------------


class Tagger:
    """A label for each word from a window of words and the state before."""

    def __init__(self) -> None:
        rng = np.random.default_rng(6)
        self.table, self.Wx = matrix(rng, 11, 6, scale=0.5), matrix(rng, 18, 20, scale=0.5)
        self.Wh, self.W = matrix(rng, 20, 20), matrix(rng, 20, 4)
        self.bh, self.b, self.h0 = zeros(20), zeros(4), zeros(20)
        params = [self.table, self.Wx, self.Wh, self.W, self.bh, self.b, self.h0]
        words, labels, rate = T.imatrix(), T.ivector(), T.scalar()
        x = self.table[words].reshape((words.shape[0], 18))

        def step(x: Any, h: Any) -> list[Any]:
            h = T.nnet.sigmoid(T.dot(x, self.Wx) + T.dot(h, self.Wh) + self.bh)
            return [h, T.nnet.softmax(T.dot(h, self.W) + self.b)]

        (_, s), _ = theano.scan(step, sequences=x, outputs_info=[self.h0, None], n_steps=x.shape[0])
        p = s[:, 0, :]
        loss = -T.mean(T.log(p)[T.arange(x.shape[0]), labels])
        updates = {q: q - rate * g for q, g in zip(params, T.grad(loss, params))}
        self.classify = theano.function(inputs=[words], outputs=T.argmax(p, axis=1))
        self.learn = theano.function([words, labels, rate], loss, updates=updates)
        length = T.sqrt((self.table**2).sum(axis=1)).dimshuffle(0, "x")
        self.normalize = theano.function([], updates={self.table: self.table / length})


def windows(sentence: np.ndarray) -> np.ndarray:
    """For each word the one before, itself and the one after; -1 beyond the ends, a row of the
    table that stands for nothing."""
    padded = np.concatenate([[-1], sentence, [-1]])
    return np.stack([padded[:-2], padded[1:-1], padded[2:]], axis=1).astype("int32")


def test_tagger_learns_and_can_be_copied() -> None:
    rng = np.random.default_rng(7)
    texts = [rng.integers(10, size=n) for n in rng.integers(1, 9, size=30)]
    labels = [(t % 2 + 2 * (np.append(t[1:], 0) > 4)).astype("int32") for t in texts]
    tagger = Tagger()
    for _ in range(15):
        for t, y in zip(texts, labels):
            tagger.learn(list(windows(t)), y, 0.3)  # a list of arrays, as in the tutorial
            tagger.normalize()
    right = [tagger.classify(windows(t)) == y for t, y in zip(texts, labels)]
    assert np.concatenate(right).mean() > 0.9
    np.testing.assert_allclose((tagger.table.get_value() ** 2).sum(1), 1, rtol=1e-5)

    best, kept = copy.deepcopy(tagger), tagger.W.get_value()
    tagger.learn(windows(texts[0]), labels[0], 0.3)
    assert not np.array_equal(tagger.W.get_value(), kept)
    np.testing.assert_array_equal(best.W.get_value(), kept)
    best.learn(windows(texts[0]), labels[0], 0.3)  # the copy's functions have the copy's weights
    np.testing.assert_array_equal(best.W.get_value(), tagger.W.get_value())


# ---- idioms --------------------------------------------------------------------------------------


def test_an_input_behind_a_derivative_is_used() -> None:
    x, y = T.scalars("x", "y")
    assert theano.function([x, y], T.grad(x * y, x))(2, 3) == 3
    assert theano.function([x, y], 2 * T.grad(x + y, y))(2, 3) == 2
    W, V = T.matrix("W"), T.matrix("V")
    v = T.vector("v")
    product = theano.function([W, V, v], T.Rop(T.dot(v, W), W, V))
    np.testing.assert_array_equal(product(np.ones((2, 2), X), np.eye(2, dtype=X), [3, 4]), [3, 4])
    with pytest.raises(theano.UnusedInputError):
        theano.function([x, y], T.grad(x * x, x))


def test_clipping_gradients_by_a_view() -> None:
    class Clipped(paths.MODULES["compile"]["ViewOp"]):  # type: ignore[index, misc]
        def __init__(self, bound: float) -> None:
            self.bound = bound

        def grad(self, inputs: Any, g_outputs: Any) -> list[Any]:
            return [T.clip(g, -self.bound, self.bound) for g in g_outputs]

    clipped = Clipped(0.5)
    opt = paths.MODULES["tensor.opt"]
    removed = paths.MODULES["gof"]["OpRemove"](clipped)  # type: ignore[index]
    opt["register_canonicalize"](removed, name="clipped_0.5")  # type: ignore[index]
    v = T.vector("v")
    powers, _ = theano.scan(lambda v, a: clipped(a) * v, sequences=v, outputs_info=T.constant(1.0))
    f = theano.function([v], [powers[-1], T.grad(powers[-1], v)])
    value, g = f([2, 3, 4])
    assert value == 24
    # the last step's cotangent is 4, cut to 0.5; the one before it 1.5, cut again
    np.testing.assert_allclose(g, [0.5, 1.0, 6.0])


def test_copy_swaps_shared_variables_and_drops_updates() -> None:
    i = T.iscalar("i")
    one, other = theano.shared(0, name="one"), theano.shared(5, name="other")
    count = theano.function([i], one, updates=[(one, one + i)])
    assert count(10) == 0
    assert count.copy(swap={one: other})(100) == 5
    assert (one.get_value(), other.get_value()) == (10, 105)
    assert count.copy(delete_updates=True)(1000) == 10
    assert one.get_value() == 10
    with pytest.raises(ValueError, match="other is no shared variable of"):
        count.copy(swap={other: one})
    with pytest.raises(TypeError, match="can't stand for one"):
        count.copy(swap={one: theano.shared(0.5)})


def test_a_parameter_is_no_tensor_variable() -> None:
    x = T.vector("x")
    assert isinstance(x, T.TensorVariable) and isinstance(x + 1, T.TensorVariable)
    assert not isinstance(theano.shared(1.0), T.TensorVariable)
    assert not isinstance(T.constant(1.0), T.TensorVariable)
    assert issubclass(theano.Variable, T.TensorVariable)


def test_a_list_with_slices_is_an_index_of_all_axes() -> None:
    x = np.arange(6, dtype=X).reshape(2, 3)
    found = T.as_tensor(x)[[slice(None), slice(None, None, -1)]].eval()
    np.testing.assert_array_equal(found, x[:, ::-1])


def test_types_by_broadcast_pattern() -> None:
    kind = T.TensorType(dtype="int32", broadcastable=(False, True))
    assert kind == T.TensorType("int32", (False, True)) == T.TensorType("int32", (None, 1))


@pytest.mark.parametrize("name", ["DebugMode", "NanGuardMode", "MonitorMode"])
def test_modes_that_look_at_values_say_that_they_do_not(name: str) -> None:
    module = paths.MODULES[f"compile.{name.lower()}"]
    with pytest.warns(UserWarning, match=f"{name} is not implemented in gpuscan") as seen:
        mode = module[name](nan_is_error=True)  # type: ignore[index]
    assert seen[0].filename == __file__
    x = T.scalar("x")
    assert theano.function([x], x + 1, mode=mode)(1) == 2


def test_dotted_settings_of_theano_can_be_set() -> None:
    theano.config.nvcc.fastmath = True
    assert theano.config.nvcc.fastmath is True
    assert theano.config.dnn.enabled is None
    theano.config.print_test_value = False


# ---- batch normalization -------------------------------------------------------------------------

IMAGES = np.random.default_rng(8).standard_normal((6, 3, 4)).astype(X) * 3 + 1


@pytest.mark.parametrize(
    ("axes", "over"), [("per-activation", (0,)), ("spatial", (0, 2)), (2, (2,))]
)
@pytest.mark.parametrize("compact", [True, False])
def test_batch_normalization(axes: Any, over: tuple[int, ...], compact: bool) -> None:
    rng = np.random.default_rng(9)
    centre, variance = IMAGES.mean(over, keepdims=True), IMAGES.var(over, keepdims=True)
    gamma, beta, old_mean, old_var = rng.random((4, *centre.shape)).astype(X)

    def given(a: np.ndarray) -> np.ndarray:
        return a.squeeze(over) if compact else a

    settings = [given(a) for a in (gamma, beta)]
    found = T.nnet.bn.batch_normalization_train(
        IMAGES, *settings, axes, 1e-3, 0.25, given(old_mean), given(old_var)
    )
    values = theano.function([], list(found))()
    scale = 1 / np.sqrt(variance + 1e-3)
    n = IMAGES.size / centre.size
    expected = [
        (IMAGES - centre) * scale * gamma + beta, given(centre), given(scale),
        given(0.75 * old_mean + 0.25 * centre),
        given(0.75 * old_var + 0.25 * variance * n / (n - 1)),
    ]  # fmt: skip
    for value, right in zip(values, expected):
        np.testing.assert_allclose(value, right, rtol=1e-4, atol=1e-5)
    tested = T.nnet.batch_normalization_test(
        IMAGES, *settings, given(old_mean), given(old_var), axes, 1e-3
    )
    right = (IMAGES - old_mean) / np.sqrt(old_var + 1e-3) * gamma + beta
    np.testing.assert_allclose(tested.eval(), right, rtol=1e-4, atol=1e-5)


def test_batch_normalization_by_given_statistics() -> None:
    x = IMAGES[:, :, 0]
    std = x.std(0)
    found = T.nnet.batch_normalization(x, 2 * np.ones(3, X), np.ones(3, X), x.mean(0), std)
    np.testing.assert_allclose(found.eval(), (x - x.mean(0)) / std * 2 + 1, rtol=1e-4, atol=1e-5)


def test_batch_normalization_has_the_gradient_of_its_formula() -> None:
    x = T.matrix("x")
    g, b = np.array([1, 2, 3], X), np.zeros(3, X)
    weights = np.random.default_rng(10).standard_normal((6, 3)).astype("float64")

    def loss(x: Any) -> Any:
        return (T.nnet.bn.batch_normalization_train(x, g, b)[0] * weights).sum()

    theano.gradient.verify_grad(loss, [IMAGES[:, :, 0].astype("float64")], rng=np.random)
    assert theano.function([x], T.grad(loss(x), x))(IMAGES[:, :, 0]).shape == (6, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(axes="rows"), "not 'per-activation', 'spatial' or axes"),
        (dict(axes=(3,)), r"axes \(3,\) of an input of 3 dimensions"),
        (dict(epsilon=1e-6), "epsilon must be at least 1e-5"),
        (dict(running_mean=np.zeros((3, 4), X)), "give both or neither"),
        (dict(axes=(0, 2)), r"inputs \(3\) or all only those that are kept \(1\)"),
    ],
)
def test_batch_normalization_turns_down(arguments: dict[str, Any], message: str) -> None:
    ones = np.ones((3, 4), X)
    with pytest.raises(ValueError, match=message):
        T.nnet.bn.batch_normalization_train(IMAGES, ones, ones, **arguments)
