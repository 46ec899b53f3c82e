"""The families in JAX: jit and lax.scan."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random

from .cases import STRIDE, log_density


def keys() -> Any:
    """A new key at each call."""
    numbers = iter(range(1, 2**31))
    return lambda: random.key(next(numbers))


def gibbs(c: Any) -> Any:
    @jax.jit
    def run(key: Any, v: Any, W: Any, bvis: Any, bhid: Any) -> Any:
        def step(state: Any, key: Any) -> Any:
            one, two = random.split(key)
            h = bernoulli(one, jax.nn.sigmoid(state[1] @ W + bhid))
            p = jax.nn.sigmoid(h @ W.T + bvis)
            return (p, bernoulli(two, p)), None

        return lax.scan(step, (v, v), random.split(key, c.steps))[0]

    def bernoulli(key: Any, p: Any) -> Any:
        return random.bernoulli(key, p).astype("float32")

    given, key = jax.device_put((c.v, c.W, c.bvis, c.bhid)), keys()
    return lambda: c.statistics(*run(key(), *given))


def recurrent(c: Any) -> Any:
    n = c.U.shape[0]

    def lstm(state: Any, z: Any, U: Any) -> Any:
        h, cell = state
        z = z + h @ U
        i, f, a, o = (z[:, k * n : (k + 1) * n] for k in range(4))
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(a)
        h = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return (h, cell), h

    def elman(state: Any, z: Any, U: Any) -> Any:
        h = jnp.tanh(z + state[0] @ U)
        return (h,), h

    def states(weights: Any, x: Any) -> Any:
        W, U, b = weights
        zeros = jnp.zeros(c.g.shape[1:], "float32")
        start, step = ((zeros, zeros), lstm) if c.gates == 4 else ((zeros,), elman)
        return lax.scan(lambda s, z: step(s, z, U), start, x @ W + b)[1]

    weights, x, g = jax.device_put(((c.W, c.U, c.b), c.x, c.g))
    if not c.gradients:
        forward = jax.jit(states)
        return lambda: {"h": np.asarray(forward(weights, x))}
    gradients = jax.jit(jax.grad(lambda w, x, g: (states(w, x) * g).sum()))
    return lambda: dict(zip("WUb", map(np.asarray, gradients(weights, x, g))))


def walk(c: Any, shape: tuple[int, ...], all_states: bool) -> Any:
    def step(state: Any, key: Any) -> Any:
        x, y, now = state
        one, two = random.split(key)
        moves = STRIDE * random.normal(one, (2, *shape))
        x1, y1 = x + moves[0], y + moves[1]
        there = log_density(x1, y1)
        accept = jnp.log1p(-random.uniform(two, shape)) < there - now
        x, y = jnp.where(accept, x1, x), jnp.where(accept, y1, y)
        now = jnp.where(accept, there, now)
        return (x, y, now), (x, y) if all_states else None

    @jax.jit
    def run(key: Any) -> Any:
        zeros = jnp.zeros(shape, "float32")
        start = (zeros, zeros, log_density(zeros, zeros))
        last, every = lax.scan(step, start, random.split(key, c.steps))
        return every if all_states else last[:2]

    key = keys()
    return lambda: c.statistics(*run(key()))


def ar1(c: Any) -> Any:
    @jax.jit
    def run(e: Any, a: Any) -> Any:
        def step(y: Any, e: Any) -> Any:
            y = a * y + e
            return y, y

        return lax.scan(step, jnp.float32(0), e)[1]

    e, a = jax.device_put((c.e, np.float32(c.a)))
    return lambda: {"y": np.asarray(run(e, a))}


VERSIONS = {
    "Gibbs": gibbs,
    "LSTM": recurrent,
    "Elman": recurrent,
    "Metropolis": lambda c: walk(c, (c.chains,), False),
    "Chain": lambda c: walk(c, (), True),
    "AR1": ar1,
}
