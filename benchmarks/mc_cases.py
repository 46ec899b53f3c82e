"""The cases of Monte Carlo: their targets, gpuscan's version of each, and how draws are compared.

A family is one sampler on one target at any size; CASES are families at the sizes of the table. A
version of a family is a function of no arguments that takes the chains some steps further, from
where they are to where they are left for the next call, and returns a dictionary of NumPy arrays
(chains, draws, ...), the same names from gpuscan and from every peer. Everything is float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuscan import mc
from gpuscan import tensor as T
from gpuscan.mc.program import Program, build, initial_streams

Draws = Mapping[str, np.ndarray]
Version = Callable[[], Draws]

STANDARD_ERRORS = 6.0  # that two estimates of the same mean may lie apart


class Family:
    """A sampler on a target, of sizes that are its fields."""

    steps: int  # chain-steps of a call
    unit: str  # what a chain-step is
    independent = False  # whether chains have targets of their own

    def __init__(self, **sizes: int) -> None:
        self.sizes = sizes
        self.random = np.random.default_rng(1)
        self.prepare(**sizes)

    def prepare(self, **sizes: int) -> None:
        raise NotImplementedError

    def kernel(self) -> Any:
        """gpuscan's, its position, and the names of what is recorded."""
        raise NotImplementedError

    def ours(self, device: str) -> tuple[Version, str]:
        """gpuscan's version, and how it runs: the function that `mc.sample` calls for each
        chunk, which records all statistics of the kernel too."""
        kernel, position, names = self.kernel()
        program = build(kernel, position, {}, False, False, names, True, False, False, device)
        return _chunks(program, position, names, self.draws), str(program.draw.run.explain())

    draws: int  # of a call, a chain

    def normal(self, *shape: int) -> np.ndarray:
        return self.random.standard_normal(shape).astype("float32")


def _chunks(program: Program, position: Any, names: list[str], draws: int) -> Version:
    at = [program.begin(position), initial_streams(1, program.streams)]

    def call() -> Draws:
        moved = program.move(False, draws, 1, *at, {})
        at[:] = moved.state, moved.streams
        return {n: moved.samples[n].swapaxes(0, 1) for n in names}

    return call


# ---- Hamiltonian Monte Carlo ---------------------------------------------------------------------


class Logistic(Family):
    """Bayesian logistic regression on scikit-learn's breast cancer data, 569 cases of 30 features
    that are standardised, and an intercept; the coefficients are N(0, 1) before. HMC whose step
    size and diagonal mass are given: the variances and the widest stable step of the normal
    distribution that touches the posterior at its mode (Laplace), where the chains also start."""

    leapfrogs = 10
    unit = "leapfrog steps"

    def prepare(self, chains: int, draws: int) -> None:
        from sklearn.datasets import load_breast_cancer

        data = load_breast_cancer()
        x = (data.data - data.data.mean(0)) / data.data.std(0)
        x = np.column_stack([np.ones(len(x)), x])
        self.x, self.y = x.astype("float32"), data.target.astype("float32")
        mode, covariance = _laplace(x, data.target)
        sd = np.sqrt(np.diag(covariance))
        steepest = np.linalg.eigvalsh(np.linalg.inv(covariance) * np.outer(sd, sd))[-1]
        self.variance = (sd**2).astype("float32")
        self.step_size = float(1.2 / np.sqrt(steepest))
        self.start = (mode + self.normal(chains, len(mode)) @ np.linalg.cholesky(covariance).T
                      ).astype("float32")  # fmt: skip
        self.chains, self.draws = chains, draws
        self.steps = chains * draws * self.leapfrogs

    def logp(self, b: Any) -> Any:
        logits = T.dot(b, self.x.T)
        likelihood = (self.y * logits - T.nnet.softplus(logits)).sum(axis=1)
        return likelihood - np.float32(0.5) * (b * b).sum(axis=1)

    def kernel(self) -> Any:
        kernel = mc.hmc(
            self.logp, self.leapfrogs, self.step_size, variance=self.variance, jitter=0,
            adapt_step_size=False, adapt_mass=False,
        )  # fmt: skip
        return kernel, {"b": self.start}, ["b"]


class Posterior(Logistic):
    """The same posterior as users sample it: a whole call, with a warm-up that adapts step size
    and mass from a uniform start. A call is a run of its own."""

    unit = "leapfrog steps, warm-up and draws"

    def prepare(self, chains: int, draws: int) -> None:
        super().prepare(chains, draws)
        self.tune = draws
        self.steps *= 2

    def ours(self, device: str) -> tuple[Version, str]:
        kernel, seeds = mc.hmc(self.logp, self.leapfrogs), iter(range(2**31))

        def call() -> Draws:
            start = {"b": self.random.uniform(-2, 2, self.start.shape).astype("float32")}
            found = mc.sample(
                kernel, start, draws=self.draws, tune=self.tune, seed=next(seeds), device=device,
                progressbar=False,
            )  # fmt: skip
            return {"b": found["posterior"]["b"].values}

        return call, "mc.sample"


def _laplace(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The posterior's mode, by Newton's method, and its inverse curvature there."""
    mode = np.zeros(x.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-x @ mode))
        curvature = x.T @ (x * (p * (1 - p))[:, None]) + np.eye(len(mode))
        mode = mode + np.linalg.solve(curvature, x.T @ (y - p) - mode)
    return mode, np.linalg.inv(curvature)


# ---- random-walk Metropolis ----------------------------------------------------------------------


class Walk(Family):
    """Random-walk Metropolis, and the position at every step."""

    unit = "transitions"
    scale: float
    start: np.ndarray

    def kernel(self) -> Any:
        kernel = mc.random_walk_metropolis(self.logp, self.scale, adapt=False)
        return kernel, {"x": self.start}, ["x"]

    def logp(self, x: Any) -> Any:
        raise NotImplementedError


class Banana(Walk):
    """x0 ~ N(0, 1), x1 ~ N(x0^2, 1/4)."""

    scale = 1.0

    def prepare(self, chains: int, draws: int) -> None:
        x = self.normal(chains, 2)
        self.start = np.stack([x[:, 0], x[:, 0] ** 2 + x[:, 1] / 2], axis=1)
        self.chains, self.draws, self.steps = chains, draws, chains * draws

    def logp(self, x: Any) -> Any:
        a, b = x[:, 0], x[:, 1] - x[:, 0] ** 2
        return -np.float32(0.5) * a * a - np.float32(2) * b * b


class Gaussian(Walk):
    """Ten numbers whose correlation is 1/2 to the power of their distance."""

    def prepare(self, chains: int, draws: int) -> None:
        d = 10
        covariance = 0.5 ** np.abs(np.subtract.outer(np.arange(d), np.arange(d)))
        self.precision = np.linalg.inv(covariance).astype("float32")
        self.scale = 1.5 / d**0.5
        self.start = self.normal(chains, d) @ np.linalg.cholesky(covariance).T.astype("float32")
        self.chains, self.draws, self.steps = chains, draws, chains * draws

    def logp(self, x: Any) -> Any:
        return -np.float32(0.5) * (T.dot(x, self.precision) * x).sum(axis=1)


# ---- the Ising model -----------------------------------------------------------------------------


class Ising(Family):
    """A periodic lattice for each temperature, black and white sites of a checkerboard in arrays of
    their own, (lattices, rows, columns/2), drawn by turns from their distribution given the other
    colour; of every sweep magnetisation and energy per site.

    In row i, black[i, j] is the site of column 2j + i % 2, and white[i, j] that of 2j + 1 - i % 2.
    """

    unit = "sweeps of a lattice"
    independent = True

    def prepare(self, size: int, lattices: int, draws: int) -> None:
        # on both sides of the critical one, 2.27, where a lattice takes 10^4 sweeps to forget
        low = lattices // 2
        t = np.concatenate([np.linspace(1.5, 2.1, low), np.linspace(2.5, 3.5, lattices - low)])
        self.temperatures = t.astype("float32")
        self.even = np.arange(size)[:, None] % 2 == 0
        self.start = np.ones((lattices, size, size // 2), "float32")
        self.share = np.float32(1 / size**2)
        self.chains, self.draws, self.steps = lattices, draws, lattices * draws

    def kernel(self) -> Any:
        random = T.shared_randomstreams.RandomStreams()

        def around(others: Any, black: bool) -> Any:
            left, right = T.roll(others, 1, axis=2), T.roll(others, -1, axis=2)
            beside = T.switch(self.even, *((left, right) if black else (right, left)))
            return T.roll(others, 1, axis=1) + T.roll(others, -1, axis=1) + others + beside

        def drawn(field: Any, temperature: Any) -> Any:
            up = T.nnet.sigmoid(field * (2 / temperature)[:, None, None])
            u = random.uniform(field.shape, dtype="float32")
            return T.switch(u < up, np.float32(1), np.float32(-1))

        def sweep(black: Any, white: Any, t: Any, m: Any, energy: Any) -> dict[str, Any]:
            black = drawn(around(white, True), t)
            field = around(black, False)
            white = drawn(field, t)
            return {
                "black": black, "white": white,
                "m": (black.sum(axis=(1, 2)) + white.sum(axis=(1, 2))) * self.share,
                "energy": -(white * field).sum(axis=(1, 2)) * self.share,
            }  # fmt: skip

        ones = np.ones(self.chains, "float32")
        position = {
            "black": self.start, "white": self.start, "t": self.temperatures,
            "m": ones, "energy": -2 * ones,
        }  # fmt: skip
        return mc.gibbs(sweep, name="ising"), position, ["m", "energy"]


# ---- draws ---------------------------------------------------------------------------------------


def joined(version: Version, forget: int, keep: int) -> Draws:
    """The draws of `keep` calls after those of `forget` calls, one after the other."""
    for _ in range(forget):
        version()
    parts = [{n: np.array(x) for n, x in version().items()} for _ in range(keep)]
    return {n: np.concatenate([p[n] for p in parts], axis=1) for n in parts[0]}


@dataclass
class Estimates:
    """Of a version's draws. means, errors: of each quantity and its square, (quantities,), and
    their Monte Carlo standard errors. size: the bulk effective sample size of the quantity that has
    the smallest, and draws: of how many draws of all chains."""

    means: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    size: float
    draws: int


def estimates(family: Family, draws: Draws) -> Estimates:
    import xarray

    arviz = mc.output.import_arviz()
    means, errors, sizes = {}, {}, []
    chains, count = next(iter(draws.values())).shape[:2]
    for name, x in draws.items():
        x = np.asarray(x, "float64").reshape(chains, count, -1)
        if family.independent:
            x = x.transpose(2, 1, 0)  # one chain of many quantities
        data = xarray.Dataset({name: (("chain", "draw", "what"), x)})
        both = xarray.Dataset({name: (("chain", "draw", "what"), np.concatenate([x, x * x], 2))})
        means[name] = both[name].mean(("chain", "draw")).values
        errors[name] = arviz.mcse(both, method="mean")[name].values
        sizes.append(float(arviz.ess(data, method="bulk")[name].min()))
    return Estimates(means, errors, min(sizes), count * (1 if family.independent else chains))


def mismatch(found: Estimates, expected: Estimates) -> str | None:
    """None where two versions' means are the same within STANDARD_ERRORS, else where not."""
    if found.means.keys() != expected.means.keys():
        return f"results {sorted(found.means)} and {sorted(expected.means)}"
    for name, wanted in expected.means.items():
        mean, error = found.means[name], np.hypot(found.errors[name], expected.errors[name])
        if mean.shape != wanted.shape:
            return f"{name}: {len(mean)} and {len(wanted)} quantities"
        if not np.isfinite(mean).all():
            return f"{name}: not finite"
        apart = np.abs(mean - wanted) / (error + 1e-6 * np.abs(wanted) + 1e-12)
        if not (apart <= STANDARD_ERRORS).all():
            return f"{name}: {apart.max():.1f} standard errors apart"
    return None


# ---- the table -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A family at a size. forget, keep: calls whose draws are left out, and compared."""

    name: str
    text: str
    family: type[Family]
    sizes: Mapping[str, int]
    forget: int
    keep: int
    promise: float = 0.5  # time over that of the fastest peer, at most

    def made(self, quick: bool) -> Family:
        sizes = dict(self.sizes)
        if quick:
            sizes["draws"] = max(10, sizes["draws"] // 10)
        return self.family(**sizes)


def _logistic(chains: int, draws: int, keep: int) -> Case:
    text = f"logistic regression, HMC, {chains} chains x {draws} draws"
    return Case(f"hmc-{chains}", text, Logistic, dict(chains=chains, draws=draws), 1, keep)


CASES = (
    _logistic(4, 1000, 4),
    _logistic(64, 100, 4),
    _logistic(1024, 10, 10),
    Case("hmc-whole", "the same, whole call, 4 chains x (1000 + 1000)", Posterior,
         dict(chains=4, draws=1000), 0, 2),
    Case("walk-banana", "Metropolis, banana, 1024 chains x 1000 draws", Banana,
         dict(chains=1024, draws=1000), 0, 1),
    Case("walk-gaussian", "Metropolis, 10-d Gaussian, 1024 chains x 200 draws", Gaussian,
         dict(chains=1024, draws=200), 0, 2),
    Case("ising", "Ising 256x256, heat bath, 8 temperatures x 50 sweeps", Ising,
         dict(size=256, lattices=8, draws=50), 2, 8),
)  # fmt: skip
