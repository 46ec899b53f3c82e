"""The families by BlackJAX: its algorithms, vmap over the chains and lax.scan over the draws."""

from __future__ import annotations

from typing import Any

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from .peer_mc_jax import DENSITIES, calls


def repeated(algorithm: Any, name: str, c: Any) -> Any:
    def step(state: Any, key: Any) -> Any:
        state, _ = jax.vmap(algorithm.step)(random.split(key, c.chains), state)
        return state, {name: state.position}

    return calls(step, jax.vmap(algorithm.init)(jnp.asarray(c.start)), c.draws)


def posterior(c: Any) -> Any:
    """The log density of one chain's coefficients."""
    x, y = jnp.asarray(c.x), jnp.asarray(c.y)

    def logp(b: Any) -> Any:
        logits = x @ b
        return (y * logits - jax.nn.softplus(logits)).sum() - 0.5 * (b * b).sum()

    return logp


def logistic(c: Any) -> Any:
    algorithm = blackjax.hmc(
        posterior(c), step_size=c.step_size, inverse_mass_matrix=jnp.asarray(c.variance),
        num_integration_steps=c.leapfrogs,
    )  # fmt: skip
    return repeated(algorithm, "b", c)


def whole(c: Any) -> Any:
    logp = posterior(c)
    warmup = blackjax.window_adaptation(blackjax.hmc, logp, num_integration_steps=c.leapfrogs)

    def chain(key: Any, start: Any) -> Any:
        one, two = random.split(key)
        (state, parameters), _ = warmup.run(one, start, num_steps=c.tune)
        algorithm = blackjax.hmc(logp, **parameters)

        def step(state: Any, key: Any) -> Any:
            state, _ = algorithm.step(key, state)
            return state, state.position

        return jax.lax.scan(step, state, random.split(two, c.draws))[1]

    run, keys = jax.jit(jax.vmap(chain)), iter(range(2**31))

    def call() -> Any:
        one, two = random.split(random.key(next(keys)))
        start = random.uniform(one, c.start.shape, minval=-2, maxval=2)
        return {"b": np.asarray(run(random.split(two, c.chains), start))}

    return call


def walk(c: Any, logp: Any) -> Any:
    proposal = blackjax.mcmc.random_walk.normal(jnp.full(c.start.shape[1:], c.scale))
    return repeated(blackjax.additive_step_random_walk(logp, proposal), "x", c)


VERSIONS = {
    "Logistic": logistic,
    "Posterior": whole,
    **{n: lambda c, of=of: walk(c, of(c)) for n, of in DENSITIES.items()},
}
