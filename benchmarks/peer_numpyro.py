"""The families by NumPyro: a model, and chains that are vectorised."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
from jax import random
from numpyro import distributions
from numpyro.infer import HMC, MCMC

from .peer_mc_jax import calls


def model(c: Any) -> Any:
    x, y = jnp.asarray(c.x), jnp.asarray(c.y)

    def logistic_regression() -> None:
        b = numpyro.sample("b", distributions.Normal(0, 1).expand([x.shape[1]]).to_event(1))
        numpyro.sample("y", distributions.Bernoulli(logits=x @ b), obs=y)

    return logistic_regression


def logistic(c: Any) -> Any:
    """By the kernel's own init and sample: MCMC.run compiles anew at each call, which takes longer
    than the draws."""
    kernel = HMC(
        model(c), step_size=c.step_size, inverse_mass_matrix=jnp.asarray(c.variance),
        num_steps=c.leapfrogs, trajectory_length=None, adapt_step_size=False,
        adapt_mass_matrix=False,
    )  # fmt: skip
    keys = random.split(random.key(1), c.chains)
    start = kernel.init(keys, 0, {"b": jnp.asarray(c.start)}, model_args=(), model_kwargs={})

    def step(state: Any, key: Any) -> Any:
        state = kernel.sample(state, (), {})
        return state, {"b": state.z["b"]}

    return calls(step, start, c.draws)


def whole(c: Any) -> Any:
    kernel = HMC(model(c), num_steps=c.leapfrogs, trajectory_length=None)
    run = MCMC(
        kernel, num_warmup=c.tune, num_samples=c.draws, num_chains=c.chains,
        chain_method="vectorized", progress_bar=False,
    )  # fmt: skip
    keys = iter(range(2**31))

    def call() -> Any:
        run.run(random.key(next(keys)))
        return {"b": np.asarray(run.get_samples(group_by_chain=True)["b"])}

    return call


VERSIONS = {"Logistic": logistic, "Posterior": whole}
