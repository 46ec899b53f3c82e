"""Bayesian logistic regression by Hamiltonian Monte Carlo: python -m gpuscan.examples.logistic

Is a breast tumour malignant? scikit-learn has 30 measurements of each of 569. Four fifths of them
give a posterior of an intercept and 30 weights, which many chains sample at once; the others are
predicted by it. The posterior means are compared with those of a long run by NumPy.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gpuscan import mc
from gpuscan import tensor as T
from gpuscan.record import record

from .arguments import Parser, add_common, check_writable, ending, natural, told

REFERENCE = Path(__file__).with_name("logistic_reference.json")
HELD_OUT = 5  # every such row is kept from the model
LEAPFROGS = 20  # of a trajectory
PREDICTING = 500  # draws of each chain that predict, at most
SHOWN = 4  # rows of the picture


# ---- the data and the model ----------------------------------------------------------------------


@record
class Data:
    """Standardised measurements (rows, columns), float32, and labels, 1 for malignant."""

    x: np.ndarray
    y: np.ndarray
    held_out_x: np.ndarray
    held_out_y: np.ndarray
    names: list[str]  # of the columns


def read_data() -> Data:
    """scikit-learn's breast-cancer data; every fifth row, from the first, is held out. Columns are
    standardised by the mean and the standard deviation of the others."""
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    out = np.arange(len(found.data)) % HELD_OUT == 0
    mean, deviation = found.data[~out].mean(0), found.data[~out].std(0)
    x = ((found.data - mean) / deviation).astype("float32")
    y = (1 - found.target).astype("float32")  # scikit-learn's 1 is benign
    return Data(x[~out], y[~out], x[out], y[out], [str(n) for n in found.feature_names])


def log_posterior(data: Data) -> Any:
    """Of chains of an intercept and of weights (chains, columns), up to a constant: their prior is
    the standard normal distribution, for each of them on its own."""
    side = 2 * data.y - 1  # 1 and -1

    def logp(intercept: Any, weights: Any) -> Any:
        logits = T.dot(weights, data.x.T) + intercept[:, None]
        likelihood = -T.nnet.softplus(-side * logits).sum(axis=1)
        return likelihood - (intercept**2 + (weights**2).sum(axis=1)) / 2

    return logp


# ---- what was found ------------------------------------------------------------------------------


def by_name(posterior: Any) -> Any:
    """The draws as a Dataset with one variable (chain, draw) for each parameter."""
    weights = {str(n): posterior.weights.sel(column=n, drop=True) for n in posterior.column.values}
    return posterior[["intercept"]].assign(weights)


def against_reference(draws: Any) -> tuple[float, str]:
    """The largest difference of a posterior mean from that of the long run by NumPy, in standard
    errors of this difference, and whose it is. draws: by name."""
    arviz = mc.output.import_arviz()
    reference = json.loads(REFERENCE.read_text())
    names = reference["parameters"]
    own = arviz.mcse(draws, method="mean")
    error = np.hypot([float(own[n]) for n in names], reference["mcse_mean"])
    means = draws.mean()
    difference = np.array([float(means[n]) for n in names]) - reference["mean"]
    worst = int(np.argmax(np.abs(difference / error)))
    return float(abs(difference / error)[worst]), names[worst]


def predicted(posterior: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The posterior predictive probability of the label y of each row of x."""
    some = posterior.isel(draw=slice(None, None, -(-posterior.sizes["draw"] // PREDICTING)))
    weights = some.weights.values.reshape(-1, x.shape[1]).astype("float64")
    logits = weights @ x.T + some.intercept.values.reshape(-1, 1)
    return np.exp(-np.logaddexp(0, (1 - 2 * y) * logits)).mean(0)


# ---- the job -------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> None:
    with told():
        from . import logistic_picture

        mc.output.require("xarray", "arviz", "sklearn")
    check_writable(options.out)
    check_writable(options.zarr, options.netcdf, new=True)
    data = read_data()
    start = np.random.default_rng(options.seed).normal(size=(options.chains, 1 + len(data.names)))
    start = start.astype("float32")
    with told():
        tree = mc.sample(
            mc.hmc(log_posterior(data), n_steps=LEAPFROGS),
            {"intercept": start[:, 0], "weights": start[:, 1:]},
            draws=options.draws, tune=options.tune, seed=options.seed,
            dims={"weights": ["column"]}, coords={"column": data.names},
            checkpoint=options.checkpoint, device=options.device,
        )  # fmt: skip
    print(
        f"{len(data.y)} tumours, {data.y.sum():.0f} of them malignant, {len(data.names)} "
        f"measurements each; {len(data.held_out_y)} more are held out"
    )
    seconds = tree.attrs["sampling_time"]
    rate = float(tree["sample_stats"].acceptance_rate.mean())
    print(
        f"{options.chains} chains of {options.tune} + {options.draws} draws in {seconds:.1f} s, "
        f"device {tree.attrs['device']}, acceptance rate {rate:.2f}"
    )
    posterior = tree["posterior"].to_dataset()
    draws = by_name(posterior)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", mc.SamplingWarning)
        table = mc.summary(tree)
    for warning in found:
        print(f"logistic: {warning.message}", file=sys.stderr)
    least = table["ess_bulk"].min()
    print(
        f"at least {least:.0f} independent draws of each parameter, {least / seconds:.0f} a second"
    )
    distance, name = against_reference(draws)
    print(
        f"posterior means within {distance:.1f} standard errors of the long run by NumPy ({name})"
    )
    p = predicted(posterior, data.held_out_x, data.held_out_y)
    print(
        f"held out: {(p > 0.5).sum()} of {len(p)} predicted right, "
        f"{-np.log(p).mean():.3f} nats each"
    )
    with told():
        for path in (options.zarr, options.netcdf):
            if path is not None:
                mc.write(tree, path)
        logistic_picture.write(options.out, draws, few_independent(table, draws))
    made = [str(f) for f in (options.zarr, options.netcdf, options.out) if f is not None]
    print(f"wrote {', '.join(made)}")


def few_independent(table: Any, draws: Any) -> list[str]:
    """The parameters, by name, with the smallest effective sample sizes."""
    sizes = dict(zip(draws.data_vars, table["ess_bulk"]))
    return sorted(sizes, key=lambda name: sizes[name])[:SHOWN]


def at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return number


def parser() -> Parser:
    p = Parser("logistic", "Bayesian logistic regression by Hamiltonian Monte Carlo.")
    p.add_argument("--chains", type=at_least(2), default=8, help="that run at once")
    p.add_argument("--draws", type=at_least(4), default=2000, help="of each chain")
    p.add_argument("--tune", type=natural, default=500, help="steps of the warm-up before them")
    p.add_argument("--zarr", type=ending(".zarr"), help="where to write all draws")
    p.add_argument("--netcdf", type=ending(".nc"), help="the same as one file")
    p.add_argument(
        "--checkpoint", type=ending(".npz"),
        help="saved during the run; where there is one, the run goes on from it",
    )  # fmt: skip
    add_common(p)
    return p


def main(arguments: list[str] | None = None) -> int:
    return parser().main(run, arguments)


if __name__ == "__main__":
    sys.exit(main())
