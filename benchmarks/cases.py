"""The cases: their data, their floor, gpuscan's version of each, and how results are compared.

A family is one computation at any size; CASES are families at the sizes of the table. A version
of a family is a function of no arguments that returns a dictionary of NumPy arrays, the same names
from gpuscan and from every peer. Everything is float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import gpuscan
from gpuscan import tensor as T

Result = Mapping[str, np.ndarray]
Version = Callable[[], Result]

TOLERANCE = 2e-3  # of a value, relative to the largest of its array
STANDARD_ERRORS = 6.0  # that the means of random results may lie apart


class Family:
    """One computation, of sizes that are its fields."""

    flops: int
    bytes: int
    random = False  # whether the results are draws, to be compared by their distribution

    def __init__(self, **sizes: int) -> None:
        self.sizes = sizes
        self.draws = np.random.default_rng(1)
        self.prepare(**sizes)

    def prepare(self, **sizes: int) -> None:
        """Makes the data, and the floor: `flops` (a function or a draw counts as one) and
        `bytes` (every input read once, every result written once)."""
        raise NotImplementedError

    def ours(self, device: str) -> tuple[Version, Any]:
        """gpuscan's version, and the gpuscan function in it."""
        raise NotImplementedError

    def normal(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * self.draws.standard_normal(shape)).astype("float32")


def mismatch(family: Family, found: Result, expected: Result) -> str | None:
    """None where two results are the same within TOLERANCE or STANDARD_ERRORS, else where not."""
    if found.keys() != expected.keys():
        return f"results {sorted(found)} and {sorted(expected)}"
    for name, wanted in expected.items():
        value = np.asarray(found[name], "float64")
        wanted = np.asarray(wanted, "float64")
        if value.shape != wanted.shape:
            return f"{name}: shapes {value.shape} and {wanted.shape}"
        d = value - wanted
        if not np.isfinite(d).all():
            return f"{name}: not finite"
        if family.random:  # rows are statistics, columns independent pairs
            apart = np.abs(d.mean(1)) / (d.std(1) / np.sqrt(d.shape[1]) + 1e-12)
            if (apart > STANDARD_ERRORS).any():
                return f"{name}: {apart.max():.1f} standard errors apart"
        elif (worst := np.abs(d).max()) > TOLERANCE * max(np.abs(wanted).max(), 1e-30):
            return f"{name}: {worst:.2g} apart, of {np.abs(wanted).max():.2g}"
    return None


# ---- Gibbs sampling ------------------------------------------------------------------------------


class Gibbs(Family):
    """The probabilities and values of the visible units of a restricted Boltzmann machine after
    some Gibbs steps."""

    random = True

    def prepare(self, visible: int, hidden: int, steps: int, batch: int) -> None:
        # The means show what W does by a part of it that lies along a and b; it is small, so that
        # the units stay nearly independent.
        self.a = np.sign(self.normal(visible))
        self.b = np.sign(self.normal(hidden))
        along = np.outer(self.a, self.b) / hidden
        self.W = (self.normal(visible, hidden, scale=0.05) + along).astype("float32")
        self.bvis, self.bhid = self.normal(visible), self.b
        self.v = (self.draws.random((batch, visible)) < 0.5).astype("float32")
        self.steps = steps
        units = visible + hidden
        self.flops = steps * batch * (4 * visible * hidden + 4 * units)
        self.bytes = 4 * (self.W.size + units + 3 * self.v.size)

    def statistics(self, p: Any, v: Any) -> Result:
        p, v = np.asarray(p).mean(0), np.asarray(v).mean(0)
        return {"units": np.stack([p, v, p * self.a, p * self.bvis, p * p])}

    def ours(self, device: str) -> tuple[Version, Any]:
        W, bvis, bhid = (gpuscan.shared(x) for x in (self.W, self.bvis, self.bhid))
        random = T.shared_randomstreams.RandomStreams(1)

        def bernoulli(p: Any) -> Any:
            return random.binomial(size=p.shape, p=p, dtype="float32")

        def step(v: Any) -> Any:
            h = bernoulli(T.nnet.sigmoid(T.dot(v, W) + bhid))
            p = T.nnet.sigmoid(T.dot(h, W.T) + bvis)
            return p, bernoulli(p)

        start = T.fmatrix("v")
        (p, v), updates = gpuscan.scan(step, outputs_info=[None, start], n_steps=self.steps)
        f = gpuscan.function([start], [p[-1], v[-1]], updates=updates, device=device)
        return lambda: self.statistics(*f(self.v)), f


# ---- recurrent networks --------------------------------------------------------------------------


class Recurrent(Family):
    """A layer over a sequence: its hidden states, or the gradients of sum(g * states) by all of
    its weights."""

    gates = 1

    def prepare(self, steps: int, batch: int, inputs: int, hidden: int, gradients: int) -> None:
        columns = self.gates * hidden
        self.x = self.normal(steps, batch, inputs)
        self.W = self.normal(inputs, columns, scale=inputs**-0.5)
        self.U = self.normal(hidden, columns, scale=0.7 * hidden**-0.5)
        self.b = self.normal(columns, scale=0.1)
        self.g = self.normal(steps, batch, hidden)
        self.gradients = bool(gradients)
        rows, weights = steps * batch, self.W.size + self.U.size
        products = 2 * rows * weights
        # With gradients: again for the cotangents of the states, and again for the weights.
        again = 2 * rows * (weights + self.U.size) if gradients else 0
        functions = rows * 12 * hidden if self.gates == 4 else rows * 2 * hidden
        self.flops = products + again + (3 if gradients else 1) * functions
        written = weights + columns + self.g.size if gradients else self.g.size
        self.bytes = 4 * (self.x.size + weights + columns + written)

    def zeros(self) -> np.ndarray:
        return np.zeros(self.g.shape[1:], "float32")

    def step(self, x: Any, h: Any, *rest: Any) -> Any:
        raise NotImplementedError

    def ours(self, device: str) -> tuple[Version, Any]:
        weights = [gpuscan.shared(w) for w in (self.W, self.U, self.b)]
        x, g, start = T.ftensor3("x"), T.ftensor3("g"), T.fmatrix("start")
        n_states = 2 if self.gates == 4 else 1
        states, _ = gpuscan.scan(
            self.step, sequences=x, outputs_info=[start] * n_states, non_sequences=weights
        )
        h = states[0] if n_states == 2 else states
        if not self.gradients:
            f = gpuscan.function([x, start], h, device=device)
            zeros = self.zeros()
            return lambda: {"h": f(self.x, zeros)}, f
        f = gpuscan.function([x, start, g], T.grad((g * h).sum(), weights), device=device)
        zeros = self.zeros()
        return lambda: dict(zip("WUb", f(self.x, zeros, self.g))), f


class LSTM(Recurrent):
    """Gates in the order input, forget, cell, output."""

    gates = 4

    def step(self, x: Any, h: Any, c: Any, W: Any, U: Any, b: Any) -> Any:
        z = T.dot(x, W) + T.dot(h, U) + b
        n = self.g.shape[2]
        i, f, o = (T.nnet.sigmoid(z[:, k * n : (k + 1) * n]) for k in (0, 1, 3))
        c = f * c + i * T.tanh(z[:, 2 * n : 3 * n])
        return o * T.tanh(c), c


class Elman(Recurrent):
    def step(self, x: Any, h: Any, W: Any, U: Any, b: Any) -> Any:
        return T.tanh(T.dot(x, W) + T.dot(h, U) + b)


# ---- Markov chains -------------------------------------------------------------------------------


def log_density(x: Any, y: Any) -> Any:
    """Of a bent normal distribution: x is standard normal, y is normal around x squared. For
    gpuscan, NumPy, Numba and JAX."""
    d = y - x * x
    return -0.5 * (x * x + d * d)


STRIDE = 0.8  # of a proposal, in standard deviations


class Metropolis(Family):
    """Where random-walk Metropolis chains are after some steps."""

    random = True

    def prepare(self, chains: int, steps: int) -> None:
        self.chains, self.steps = chains, steps
        self.start = np.zeros((2, chains), "float32")
        self.flops = chains * steps * 16
        self.bytes = 4 * 4 * chains

    def statistics(self, x: Any, y: Any) -> Result:
        x, y = np.asarray(x), np.asarray(y)
        return {"chains": np.stack([x, y, x * x, x * x * y, np.minimum(y * y, 30)])}

    def ours(self, device: str) -> tuple[Version, Any]:
        random = T.shared_randomstreams.RandomStreams(1)

        def step(x: Any, y: Any, now: Any) -> Any:
            x1 = x + STRIDE * random.normal(x.shape, dtype="float32")
            y1 = y + STRIDE * random.normal(x.shape, dtype="float32")
            there = log_density(x1, y1)
            accept = T.log(random.uniform(x.shape, dtype="float32")) < there - now
            return [T.switch(accept, a, b) for a, b in ((x1, x), (y1, y), (there, now))]

        x, y = T.fvector("x"), T.fvector("y")
        states, updates = gpuscan.scan(
            step, outputs_info=[x, y, log_density(x, y)], n_steps=self.steps
        )
        last = [states[0][-1], states[1][-1]]
        f = gpuscan.function([x, y], last, updates=updates, device=device)
        return lambda: self.statistics(*f(*self.start)), f


class Chain(Family):
    """Every state of one random-walk Metropolis chain."""

    random = True

    def prepare(self, steps: int) -> None:
        self.steps = steps
        self.flops, self.bytes = 16 * steps, 8 * steps

    def statistics(self, x: Any, y: Any) -> Result:
        """Means over pieces that are long against the chain's memory, so nearly independent."""
        x, y = np.asarray(x), np.asarray(y)
        pieces = max(4, min(100, self.steps // 500))
        whole = len(x) // pieces * pieces
        rows = np.stack([x, y, x * x, x * y])[:, :whole]
        return {"pieces": rows.reshape(4, pieces, -1).mean(2)}

    def ours(self, device: str) -> tuple[Version, Any]:
        random = T.shared_randomstreams.RandomStreams(1)

        def step(x: Any, y: Any, now: Any) -> Any:
            x1 = x + STRIDE * random.normal((), dtype="float32")
            y1 = y + STRIDE * random.normal((), dtype="float32")
            there = log_density(x1, y1)
            accept = T.log(random.uniform((), dtype="float32")) < there - now
            return [T.switch(accept, a, b) for a, b in ((x1, x), (y1, y), (there, now))]

        x, y = T.fscalar("x"), T.fscalar("y")
        (xs, ys, _), updates = gpuscan.scan(
            step, outputs_info=[x, y, log_density(x, y)], n_steps=self.steps
        )
        f = gpuscan.function([x, y], [xs, ys], updates=updates, device=device)
        zero = np.float32(0)
        return lambda: self.statistics(*f(zero, zero)), f


class AR1(Family):
    """y[t] = a y[t-1] + e[t], scalars: the whole of y."""

    a = 0.9

    def prepare(self, steps: int) -> None:
        self.e = self.normal(steps)
        self.flops, self.bytes = 2 * steps, 8 * steps

    def ours(self, device: str) -> tuple[Version, Any]:
        e, y, a = T.fvector("e"), T.fscalar("y"), T.fscalar("a")
        ys, _ = gpuscan.scan(
            lambda e, y, a: a * y + e, sequences=e, outputs_info=y, non_sequences=a
        )
        f = gpuscan.function([e, y, a], ys, device=device)
        zero, factor = np.float32(0), np.float32(self.a)
        return lambda: {"y": f(self.e, zero, factor)}, f


# ---- the table -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    name: str  # what --case matches
    text: str
    family: type[Family]
    sizes: Mapping[str, int]
    promise: float  # ours / best peer at most, in issue 3's words

    def made(self, quick: bool = False) -> Family:
        """The family at these sizes; `quick`: with a tenth of the steps."""
        sizes = dict(self.sizes)
        if quick:
            sizes["steps"] = max(2, sizes["steps"] // 10)
        return self.family(**sizes)


def _lstm(batch: int, inputs: int, hidden: int, gradients: int, promise: float) -> Case:
    kind = "gradients" if gradients else "forward"
    sizes = dict(steps=100, batch=batch, inputs=inputs, hidden=hidden, gradients=gradients)
    text = f"LSTM T=100, B={batch}, in {inputs}, hidden {hidden}, {kind}"
    return Case(f"lstm-{batch}x{hidden}-{kind}", text, LSTM, sizes, promise)


def _elman(gradients: int) -> Case:
    kind = "gradients" if gradients else "forward"
    sizes = dict(steps=1000, batch=16, inputs=64, hidden=64, gradients=gradients)
    return Case(f"elman-{kind}", f"Elman T=1000, B=16, hidden 64, {kind}", Elman, sizes, 0.6)


def _gibbs(batch: int, promise: float) -> Case:
    sizes = dict(visible=784, hidden=500, steps=200, batch=batch)
    text = f"Gibbs RBM 784x500, 200 steps, batch {batch}"
    return Case(f"gibbs-{batch}", text, Gibbs, sizes, promise)


CASES = (
    _gibbs(1, 0.8),
    _gibbs(20, 0.8),
    _gibbs(128, 0.9),
    _lstm(32, 64, 128, 0, 0.8),
    _lstm(32, 64, 128, 1, 0.8),
    _lstm(64, 128, 512, 0, 1.0),
    _lstm(64, 128, 512, 1, 1.0),
    _lstm(1, 64, 256, 0, 0.8),
    _elman(0),
    _elman(1),
    Case("metropolis", "random-walk Metropolis, 4096 chains x 500 steps", Metropolis,
         dict(chains=4096, steps=500), 0.25),
    Case("chain", "one Metropolis chain x 100,000 steps", Chain, dict(steps=100_000), 1.1),
    Case("ar1", "AR(1) over 10^6 scalars", AR1, dict(steps=1_000_000), 1.25),
)  # fmt: skip
