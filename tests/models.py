"""The named models, as users write them: what the devices are tried with, and their kernels.

A model is built for a number of hidden units; the batch and the number of steps are known when it
is called. `MODELS["lstm"](33)` is one; `.function(device)` computes its outputs and, where it has
a loss, the gradients; `.values(batch, steps)` are arguments for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import gpuscan
from gpuscan import tensor as T
from gpuscan.examples import cells
from gpuscan.gradient import grad
from gpuscan.tensor.random import RandomStreams

BATCH, STEPS = "batch", "steps"  # in shapes: known at a call


@dataclass(frozen=True)
class Leaf:
    """An input: what it is called by, its shape, and its values, from a generator and a shape."""

    variable: Any
    shape: tuple[int | str, ...]
    draw: Callable[[np.random.Generator, tuple[int, ...]], Any]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return 0.5 * rng.normal(size=shape)


def eighths(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Sums of these are exact, in whatever order they are taken."""
    return rng.integers(-8, 9, shape) / 8


def bits(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return rng.integers(0, 2, shape)


def mostly(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Ones, and a zero in eight."""
    return rng.random(shape) > 0.125


def around_one(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return 1 + 0.1 * rng.normal(size=shape)


class Model:
    """A model for some hidden units: its inputs, and what is made of them.

    outputs   of a function, before the gradients of `loss` by `weights`
    exact     numbers of the outputs that have the same bits on every device
    least     of steps, fewer have no result
    """

    exact: tuple[int, ...] = ()
    least = 0

    def __init__(self, name: str, hidden: int) -> None:
        self.name, self.hidden = name, hidden
        self.leaves: list[Leaf] = []
        self.outputs: list[Any] = []
        self.weights: list[Any] = []
        self.loss: Any = None
        self.updates: Any = {}

    def input(
        self, name: str, *shape: int | str, draw: Any = normal, dtype: str = "float32"
    ) -> Any:
        x = T.TensorType(dtype, [n == 1 for n in shape])(name)
        self.leaves.append(Leaf(x, shape, draw))
        return x

    def weight(self, name: str, *shape: int | str, draw: Any = None) -> Any:
        """An input that the loss is differentiated by. Matrices are scaled to keep states at
        their size."""
        scale = shape[0] ** -0.5 if len(shape) == 2 and isinstance(shape[0], int) else 0.5
        x = self.input(name, *shape, draw=draw or (lambda rng, s: scale * rng.normal(size=s)))
        self.weights.append(x)
        return x

    def steps(self) -> Any:
        """The number of steps, where no sequence says it."""
        n = T.lscalar("n")
        self.leaves.append(Leaf(n, (), lambda rng, shape: None))
        return n

    def returns(self, *outputs: Any, updates: Any = None, learns: bool = False) -> Model:
        """`learns`: the loss is a sum of the outputs with weights that are not all the same."""
        self.outputs, self.updates = list(outputs), updates or {}
        if learns:
            self.loss = sum(T.sum(y * T.cos(y + k)) for k, y in enumerate(outputs))
        return self

    def function(
        self, device: str = "reference", fuse: str = "auto", gradients: bool = True
    ) -> gpuscan.function.Function:
        found = list(self.outputs)
        if gradients and self.loss is not None:
            found += grad(self.loss, self.weights)
        return gpuscan.function(
            [leaf.variable for leaf in self.leaves], found, updates=self.updates, device=device,
            fuse=fuse, on_unused_input="ignore", name=self.name,
        )  # fmt: skip

    def shape(self, leaf: Leaf, batch: int, steps: int) -> tuple[int, ...]:
        known = {BATCH: batch, STEPS: steps}
        return tuple(known[n] if isinstance(n, str) else n for n in leaf.shape)

    def values(self, batch: int, steps: int, seed: int = 0) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        found = []
        for leaf in self.leaves:
            x = leaf.draw(rng, self.shape(leaf, batch, steps))
            found.append(np.asarray(steps if x is None else x, leaf.variable.dtype))
        return found


MODELS: dict[str, Callable[[int], Model]] = {}


def model(build: Callable[[Model, int], Model]) -> Callable[[Model, int], Model]:
    def made(hidden: int) -> Model:
        return build(Model(build.__name__, hidden), hidden)

    MODELS[build.__name__] = made
    return build


# ---- recurrent networks --------------------------------------------------------------------------


INPUTS = 5  # of a step, a row


def recurrent(m: Model, gates: int) -> tuple[Any, list[Any]]:
    """The sequence of inputs, and the weights W, U and b for so many gates."""
    x = m.input("x", STEPS, BATCH, INPUTS)
    W = m.weight("W", INPUTS, gates * m.hidden)
    U = m.weight("U", m.hidden, gates * m.hidden)
    return x, [W, U, m.weight("b", gates * m.hidden)]


@model
def elman(m: Model, hidden: int) -> Model:
    x, weights = recurrent(m, 1)
    h0 = m.input("h0", BATCH, hidden)

    h, _ = gpuscan.scan(cells.elman, x, h0, weights, name="elman")
    return m.returns(h, learns=True)


@model
def lstm(m: Model, hidden: int) -> Model:
    x, weights = recurrent(m, 4)
    h0, c0 = m.input("h0", BATCH, hidden), m.input("c0", BATCH, hidden)

    def step(x: Any, h: Any, c: Any, W: Any, U: Any, b: Any) -> Any:
        i, f, o, u = cells.gates(T.dot(x, W) + T.dot(h, U) + b, hidden)
        c = T.nnet.sigmoid(f) * c + T.nnet.sigmoid(i) * T.tanh(u)
        return T.nnet.sigmoid(o) * T.tanh(c), c

    (h, c), _ = gpuscan.scan(step, x, [h0, c0], weights, name="lstm")
    return m.returns(h, learns=True)


@model
def gru_reset_before(m: Model, hidden: int) -> Model:
    """As it was published: the reset comes before a product."""
    x, weights = recurrent(m, 3)
    h0 = m.input("h0", BATCH, hidden)

    h, _ = gpuscan.scan(cells.gru_reset_before(hidden), x, h0, weights, name="gru")
    return m.returns(h, learns=True)


@model
def gru_reset_after(m: Model, hidden: int) -> Model:
    """As libraries have it: one product is enough."""
    x, weights = recurrent(m, 3)
    bh = m.weight("bh", hidden)
    h0 = m.input("h0", BATCH, hidden)

    h, _ = gpuscan.scan(cells.gru(hidden), x, h0, [*weights, bh], name="gru")
    return m.returns(h, learns=True)


@model
def layer_norm_lstm(m: Model, hidden: int) -> Model:
    """With layer normalization, zoneout, and a mask that lets rows start anew: nobody ships it."""
    x, weights = recurrent(m, 4)
    gain = m.weight("gain", 4 * hidden, draw=around_one)
    mask = m.input("mask", STEPS, BATCH, draw=mostly)
    h0, c0 = m.input("h0", BATCH, hidden), m.input("c0", BATCH, hidden)
    random = RandomStreams(5)

    def step(x: Any, m: Any, h: Any, c: Any, W: Any, U: Any, b: Any, gain: Any) -> Any:
        h, c = m[:, None] * h, m[:, None] * c
        z = T.dot(x, W) + gain * cells.normalized(T.dot(h, U)) + b
        i, f, o, u = cells.gates(z, hidden)
        new_c = T.nnet.sigmoid(f) * c + T.nnet.sigmoid(i) * T.tanh(u)
        new_h = T.nnet.sigmoid(o) * T.tanh(cells.normalized(new_c))
        kept = random.binomial(size=h.shape, p=0.2, dtype="float32")
        return kept * h + (1 - kept) * new_h, kept * c + (1 - kept) * new_c, kept

    (h, _, kept), updates = gpuscan.scan(
        step, [x, mask], [h0, c0, None], [*weights, gain], name="lstm"
    )
    m.returns(h, updates=updates, learns=True)
    m.outputs.append(kept)
    m.exact = (1,)
    return m


# ---- chains --------------------------------------------------------------------------------------


@model
def gibbs(m: Model, hidden: int) -> Model:
    """A restricted Boltzmann machine. What its products sum is exact, so its draws are the same on
    all devices."""
    visible = hidden + hidden // 2
    v0 = m.input("v0", BATCH, visible, draw=bits)
    W = m.input("W", visible, hidden, draw=eighths)
    bv, bh = m.input("bv", visible, draw=eighths), m.input("bh", hidden, draw=eighths)
    n, random = m.steps(), RandomStreams(7)

    def drawn(p: Any) -> Any:
        return random.binomial(size=p.shape, p=p, dtype="float32")

    def step(v: Any, W: Any, bv: Any, bh: Any) -> Any:
        h = drawn(T.nnet.sigmoid(T.dot(v, W) + bh))
        return drawn(T.nnet.sigmoid(T.dot(h, W.T) + bv))

    v, updates = gpuscan.scan(step, None, v0, [W, bv, bh], n_steps=n, name="gibbs")
    m.exact = (0,)
    return m.returns(v, updates=updates)


@model
def metropolis(m: Model, hidden: int) -> Model:
    """A random walk through a double well: batch times hidden chains."""
    x0, n, random = m.input("x0", BATCH, hidden), m.steps(), RandomStreams(11)

    def energy(x: Any) -> Any:
        return T.sqr(T.sqr(x) - 1)

    def step(x: Any) -> Any:
        proposed = x + 0.8 * random.normal(size=x.shape, dtype="float32")
        u = random.uniform(size=x.shape, dtype="float32")
        return T.switch(u < T.exp(energy(x) - energy(proposed)), proposed, x)

    x, updates = gpuscan.scan(step, None, x0, n_steps=n, name="metropolis")
    m.exact = (0,)
    return m.returns(x, updates=updates)


def moved(q: Any, p: Any, force: Callable[[Any], Any], size: Any) -> tuple[Any, Any]:
    """A leapfrog step of positions and momenta."""
    p = p + size / 2 * force(q)
    q = q + size * p
    return q, p + size / 2 * force(q)


@model
def leapfrog(m: Model, hidden: int) -> Model:
    """The path of a normal distribution with a dense precision, and its derivatives."""
    q0, p0 = m.input("q0", BATCH, hidden), m.input("p0", BATCH, hidden)
    root, size = m.weight("root", hidden, hidden), m.weight("size")
    n = m.steps()

    def step(q: Any, p: Any, precision: Any, size: Any) -> Any:
        def force(q: Any) -> Any:
            return grad(-0.5 * T.sum(q * T.dot(q, precision)), q)

        return moved(q, p, force, size)

    precision = T.dot(root, root.T) + T.eye(hidden, dtype="float32")
    (q, p), _ = gpuscan.scan(step, None, [q0, p0], [precision, 0.2 * size], n_steps=n, name="path")
    return m.returns(q, learns=True)


@model
def hmc(m: Model, hidden: int) -> Model:
    """Hamiltonian Monte Carlo: a path of five leapfrog steps in each, taken or not."""
    q0, n, random = m.input("q0", BATCH, hidden), m.steps(), RandomStreams(13)

    def energy(q: Any) -> Any:
        return T.sum(T.sqr(q) / 2 + T.cos(2 * q), axis=1)

    def force(q: Any) -> Any:
        return grad(-T.sum(energy(q)), q)

    def step(q: Any) -> Any:
        p = random.normal(size=q.shape, dtype="float32")
        (qs, ps), _ = gpuscan.scan(
            lambda q, p: moved(q, p, force, 0.3), outputs_info=[q, p], n_steps=5, name="path"
        )
        before = energy(q) + T.sum(T.sqr(p), axis=1) / 2
        after = energy(qs[-1]) + T.sum(T.sqr(ps[-1]), axis=1) / 2
        u = random.uniform(size=before.shape, dtype="float32")
        return T.switch((u < T.exp(before - after))[:, None], qs[-1], q)

    q, updates = gpuscan.scan(step, None, q0, n_steps=n, name="hmc")
    return m.returns(q, updates=updates)


# ---- the rest ------------------------------------------------------------------------------------


SYMBOLS = 6


@model
def hmm(m: Model, hidden: int) -> Model:
    """The forward algorithm: the likelihood of what was seen, by steps."""
    seen = m.input(
        "seen", STEPS, BATCH, draw=lambda rng, s: rng.integers(0, SYMBOLS, s), dtype="int32"
    )
    start = m.weight("start", hidden, draw=normal)
    moves, shows = m.weight("moves", hidden, hidden), m.weight("shows", SYMBOLS, hidden)
    A, B = T.nnet.softmax(moves), T.nnet.softmax(shows.T).T

    def step(seen: Any, a: Any, A: Any, B: Any) -> Any:
        a = T.dot(a, A) * B[seen]
        total = a.sum(axis=1, keepdims=True)
        return a / total, T.log(total[:, 0])

    first = T.nnet.softmax(start.dimshuffle("x", 0)) + T.zeros((seen.shape[1], 1), "float32")
    (a, likelihood), _ = gpuscan.scan(step, seen, [first, None], [A, B], name="hmm")
    return m.returns(likelihood, learns=True)


@model
def power(m: Model, hidden: int) -> Model:
    """A ** n, element by element: the first example of Theano's tutorial."""
    A, n = m.weight("A", BATCH, hidden, draw=around_one), m.steps()
    result, _ = gpuscan.scan(
        lambda before, A: before * A, None, T.ones_like(A), A, n_steps=n, name="power"
    )
    m.least = 1
    return m.returns(result[-1], learns=True)


@model
def polynomial(m: Model, hidden: int) -> Model:
    """The second: the terms, without a state."""
    coefficients = m.weight("coefficients", STEPS, draw=normal)
    x = m.weight("x", BATCH, hidden, draw=around_one)
    terms, _ = gpuscan.scan(
        lambda c, k, x: c * x**k,
        [coefficients, T.arange(coefficients.shape[0], dtype="float32")], None, x, name="terms",
    )  # fmt: skip
    return m.returns(terms.sum(axis=0), learns=True)
