"""The families in JAX by hand: jit, vmap and lax.scan."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random


def calls(step: Any, start: Any, draws: int) -> Any:
    """A function that goes on from where its last call ended. step(state, key) gives the next
    state and a dictionary of what is recorded, both with the chains as the first axis."""

    @jax.jit
    def run(state: Any, key: Any) -> Any:
        key, own = random.split(key)
        state, found = lax.scan(step, state, random.split(own, draws))
        return state, key, found

    at = [start, random.key(1)]

    def call() -> Any:
        *at[:], found = run(*at)
        return {n: np.asarray(x).swapaxes(0, 1) for n, x in found.items()}

    return call


# ---- random-walk Metropolis, which BlackJAX does on the same densities ---------------------------


def banana(c: Any) -> Any:
    """The log density of one chain, here and below."""

    def logp(x: Any) -> Any:
        b = x[1] - x[0] ** 2
        return -0.5 * x[0] * x[0] - 2 * b * b

    return logp


def gaussian(c: Any) -> Any:
    precision = jnp.asarray(c.precision)
    return lambda x: -0.5 * x @ precision @ x


def walk(c: Any, logp: Any) -> Any:
    def step(state: Any, key: Any) -> Any:
        x, now = state
        one, two = random.split(key)
        moved = x + c.scale * random.normal(one, x.shape)
        there = every(moved)
        accept = random.uniform(two, now.shape) < jnp.exp(there - now)
        x, now = jnp.where(accept[:, None], moved, x), jnp.where(accept, there, now)
        return (x, now), {"x": x}

    every, x = jax.vmap(logp), jnp.asarray(c.start)
    return calls(step, (x, every(x)), c.draws)


# ---- the Ising model -----------------------------------------------------------------------------


def ising(c: Any) -> Any:
    beta2 = (2 / jnp.asarray(c.temperatures))[:, None, None]
    even = jnp.asarray(c.even)

    def around(others: Any, black: bool) -> Any:
        left, right = jnp.roll(others, 1, 2), jnp.roll(others, -1, 2)
        beside = jnp.where(even, left, right) if black else jnp.where(even, right, left)
        return jnp.roll(others, 1, 1) + jnp.roll(others, -1, 1) + others + beside

    def drawn(key: Any, field: Any) -> Any:
        up = random.uniform(key, field.shape) < jax.nn.sigmoid(field * beta2)
        return jnp.where(up, 1.0, -1.0).astype("float32")

    def sweep(state: Any, key: Any) -> Any:
        one, two = random.split(key)
        black = drawn(one, around(state[1], True))
        field = around(black, False)
        white = drawn(two, field)
        m = (black.sum((1, 2)) + white.sum((1, 2))) * c.share
        return (black, white), {"m": m, "energy": -(white * field).sum((1, 2)) * c.share}

    start = jnp.asarray(c.start)
    return calls(sweep, (start, start), c.draws)


DENSITIES = {"Banana": banana, "Gaussian": gaussian}
VERSIONS = {
    **{n: lambda c, of=of: walk(c, of(c)) for n, of in DENSITIES.items()},
    "Ising": ising,
}
